"""What the pixels of a finished picture say: where its product is, and whether its background is exactly one colour.

A lossy encoder spreads a product's edge over the blocks it touches and leaves every other block as flat as it was. So
the picture is looked at in blocks: a block that differs from the background anywhere belongs to something, and what
hangs together is one thing. A thing that is visible and larger than a speck is product; what else lies outside the
product's box is dirt.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.transforms import Uint8Array

Box = tuple[int, int, int, int]
BLOCK = 8  # JPEG's, without chroma subsampling
SPECK = 16  # pixels: what is smaller on both sides is dirt
VISIBLE = 16  # levels of 255 by which something must differ to be seen
NOISE = 4  # levels that a lossy encoder adds


@dataclass(frozen=True)
class Measured:
    """A picture against its background.

    Attributes:
        box_xyxy: the product's box in pixels, x1 and y1 exclusive; None where nothing stands out.
        fill: share of the width or the height that the box spans, whichever is larger; 0 without a product.
        dirty_border: pixels of the outermost rows and columns that differ from the background.
        dirty: pixels that differ outside the product and its soft edge.
        example_xy: one of these.
    """

    box_xyxy: Box | None
    fill: float
    dirty_border: int
    dirty: int
    example_xy: tuple[int, int] | None


def contrast(image: Uint8Array, colour: Uint8Array) -> Uint8Array:
    """(h, w) uint8: the largest difference of any channel of (h, w, 3) from the colour."""
    table = np.abs(np.arange(256)[:, None] - colour.astype(int)).astype(np.uint8)
    red, green, blue = cv2.split(cv2.LUT(image, table[None]))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def measure(apart: Uint8Array, *, lossy: bool) -> Measured:
    """Find the product in a map of differences.

    apart: (h, w) uint8, 0 where a pixel is exactly background; see `contrast`. lossy: how the picture was encoded.
    """
    height, width = apart.shape
    blocks, labels, product = _things(apart, BLOCK)
    box = None
    if product.size:
        inside = np.isin(labels, product).repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width]
        box = box_of(np.asarray((apart > (NOISE if lossy else 0)) & inside))
    dirty, example = 0, None
    edge = np.zeros_like(apart)
    edge[[0, -1]], edge[:, [0, -1]] = apart[[0, -1]], apart[:, [0, -1]]
    border = int(np.count_nonzero(edge))
    if blocks.any():
        stray = np.where(~_near(box, apart.shape), apart, 0)
        stray = np.where(np.isin(labels, product).repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width], 0, stray)
        dirty = int(np.count_nonzero(stray))
        worst = edge if border else stray
        if border or dirty:
            y, x = np.unravel_index(int(worst.argmax()), apart.shape)
            example = int(x), int(y)
    fill = 0.0 if box is None else max((box[2] - box[0]) / width, (box[3] - box[1]) / height)
    return Measured(box, fill, border, dirty, example)


def box_of(mask: npt.NDArray[np.bool_]) -> Box | None:
    """The box of what is true, x1 and y1 exclusive."""
    x, y, across, down = cv2.boundingRect(mask.astype(np.uint8))
    return (x, y, x + across, y + down) if across else None


def _things(apart: Uint8Array, block: int) -> tuple[Uint8Array, npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """Blocks' largest differences, the thing each belongs to, and the numbers of the things that are product."""
    height, width = apart.shape
    padded = np.pad(apart, ((0, -height % block), (0, -width % block)))
    blocks = padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block).max((1, 3))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats((blocks > 0).astype(np.uint8), connectivity=8)
    peaks = np.zeros(count, np.uint8)
    np.maximum.at(peaks, labels.reshape(-1), blocks.reshape(-1))
    sizes = np.maximum(boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT]) * block
    seen = np.flatnonzero(peaks > VISIBLE)
    large = seen[sizes[seen] > SPECK]
    if not large.size and seen.size:
        large = seen[[int(np.argmax(sizes[seen]))]]
    return np.asarray(blocks, np.uint8), np.asarray(labels, np.int32), large


def _near(box: Box | None, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """What belongs to the product's box or its soft edge."""
    near = np.zeros(shape, np.bool_)
    if box is not None:
        x0, y0, x1, y1 = box
        near[max(0, y0 - SPECK) : y1 + SPECK, max(0, x0 - SPECK) : x1 + SPECK] = True
    return near
