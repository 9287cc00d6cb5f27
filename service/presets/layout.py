"""The product on a preset's canvas, laid out by what of it can be seen there.

A cut-out's own box counts every pixel that is at least half product. On a white canvas the burnt-out side of a white
cup is no longer there, a wide soft edge reaches farther, and a crumb of the mask in a corner becomes an invisible speck
that pushes the product aside. So the box is taken from what differs from the canvas, without specks, and what lies
outside it is left out: the picture keeps the rules it is checked against, by the same measure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.cutout import Background, Box, CutOut, flat_colour
from boothsam.runtime.transforms import Uint8Array
from boothsam.service.presets.measure import SPECK, box_of, contrast

MAX_UPSCALE = 2.0  # a product enlarged more than this looks soft
_RIM = 3  # canvas pixels around the box that keep their faint soft edge
_ROUNDS = 8


@dataclass(frozen=True)
class Strictness:
    """What counts as visible, in levels of 255. box: where the product ends. peak: what is more than haze."""

    box: int
    peak: int


# Tried in this order: an encoder may swallow what is hardly visible, which only its own picture tells.
ATTEMPTS = (Strictness(8, 32), Strictness(24, 64), Strictness(64, 128))


@dataclass(frozen=True)
class Placed:
    """A cut-out without what lies outside its visible box, and that box in photo pixels, x1 and y1 exclusive.

    scale: canvas pixels per photo pixel.
    """

    cut: CutOut
    box_xyxy: Box
    scale: float


def place(
    cut: CutOut,
    background: Background,
    size: tuple[int, int] | None,
    fill: float,
    margin: int,
    strict: Strictness = ATTEMPTS[0],
) -> Placed:
    """Choose what of a cut-out goes on a canvas of (width, height), or None for one that grows around the product.

    background: the canvas's, as `CutOut.on_canvas` takes it. fill, margin: its room.
    """
    apart = _visible(cut, background)
    box, scale = _own_box(cut), 1.0
    parts, boxes, peaks = _parts(apart, strict.box)
    kept: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
    for _ in range(_ROUNDS if len(boxes) else 0):
        large = (boxes[:, 2:].max(1) * scale > SPECK) & (peaks > strict.peak)
        if not large.any():
            large = boxes[:, 2:].max(1) == boxes[:, 2:].max()
        if np.array_equal(large, kept):
            break
        kept = large
        box = box_of(np.isin(parts, 1 + np.flatnonzero(kept)) & (apart > strict.box)) or box
        if size is not None:
            scale = min(fill * (side - 2 * margin) / span for side, span in zip(size, _span(box), strict=True))
    # None where one photo pixel would fill the margin.
    rim = math.floor(min(_RIM / max(scale, 1e-9), max(cut.rgba.shape)))
    height, width = apart.shape
    x0, y0, x1, y1 = max(0, box[0] - rim), max(0, box[1] - rim), min(width, box[2] + rim), min(height, box[3] + rim)
    left, top = cut.window_xyxy[:2]
    rgba = np.ascontiguousarray(cut.rgba[y0:y1, x0:x1])
    shown = replace(cut, rgba=rgba, window_xyxy=(left + x0, top + y0, left + x1, top + y1))
    return Placed(shown, (left + box[0], top + box[1], left + box[2], top + box[3]), scale)


def _span(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _own_box(cut: CutOut) -> Box:
    left, top = cut.window_xyxy[:2]
    x0, y0, x1, y1 = cut.box_xyxy
    return x0 - left, y0 - top, x1 - left, y1 - top


def _visible(cut: CutOut, background: Background) -> Uint8Array:
    """(h, w) uint8: by how much each pixel of the cut-out changes the canvas; its alpha where that is no one colour."""
    if not isinstance(background, str) or background == "transparent":
        return cut.alpha
    apart = contrast(np.ascontiguousarray(cut.rgba[..., :3]), flat_colour(background))
    return np.asarray(cv2.multiply(apart, np.ascontiguousarray(cut.alpha), scale=1 / 255), np.uint8)


def _parts(apart: Uint8Array, least: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Uint8Array]:
    """What hangs together: labels from 1, each one's x, y, width and height, and its largest difference."""
    count, labels, boxes, _ = cv2.connectedComponentsWithStats((apart > least).astype(np.uint8), connectivity=8)
    peaks = np.zeros(count, np.uint8)
    np.maximum.at(peaks, np.asarray(labels, np.intp).reshape(-1), apart.reshape(-1))
    return np.asarray(labels, np.int32), np.asarray(boxes[1:, :4], np.int32), peaks[1:]
