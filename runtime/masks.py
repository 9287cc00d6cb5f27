"""Pure functions on masks and boxes, after segment_anything's utils/amg.py. Masks are (..., H, W) bool, boxes XYXY
unless named."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.errors import OptionError

BoolArray = npt.NDArray[np.bool_]
_NMS_STEP = 128  # boxes kept; of 12000 that overlap nowhere a step takes a few hundredths of a second


class Rle(TypedDict):
    """COCO's uncompressed run lengths: column-major, the first run counts zeros (0 when the first pixel is set)."""

    size: list[int]
    counts: list[int]


class CocoRle(TypedDict):
    """COCO's compressed run lengths, as pycocotools writes them, with `counts` as text so that JSON takes it."""

    size: list[int]
    counts: str


def mask_to_rle(mask: BoolArray) -> Rle:
    """Run lengths of a (H, W) bool mask; `size` is [H, W]."""
    height, width = mask.shape
    flat = np.asarray(mask, np.bool_).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(edges).tolist() if flat.size else []
    return {"size": [height, width], "counts": ([0] if flat.size and flat[0] else []) + counts}


def rle_to_mask(rle: Rle) -> BoolArray:
    """(H, W) bool mask of uncompressed run lengths.

    Raises:
        OptionError: the runs do not add up to H x W.
    """
    height, width = rle["size"]
    counts = np.asarray(rle["counts"], np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise OptionError(f"the run lengths add up to {counts.sum()}, expected {height * width} ({height} x {width})")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape((height, width), order="F")


def window_to_rle(window: BoolArray, origin_xy: tuple[int, int], size_hw: tuple[int, int]) -> Rle:
    """Run lengths of a mask of `size_hw` that is False but for a (h, w) window whose first pixel lies at `origin_xy`.

    The same as `mask_to_rle` of the whole mask, in time and memory of the window.

    Raises:
        OptionError: the window leaves the mask.
    """
    (x0, y0), (height, width) = origin_xy, size_hw
    rows, columns = window.shape
    if x0 < 0 or y0 < 0 or x0 + columns > width or y0 + rows > height:
        raise OptionError(f"a window of {columns}x{rows} pixels at {x0},{y0} leaves the mask of {width}x{height}")
    # A zero before and after each column ends every run in it. OpenCV transposes several times as fast as NumPy copies.
    framed = np.zeros((columns, rows + 2), np.uint8)
    if window.size:
        framed[:, 1:-1] = cv2.transpose(np.asarray(window, np.bool_).view(np.uint8))
    flat = framed.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    edges = (x0 + edges // (rows + 2)) * height + y0 + edges % (rows + 2)
    # A run that goes on at the top of the next column ends and starts at the same place.
    joined = np.flatnonzero(edges[1:] == edges[:-1])
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    return {"size": [height, width], "counts": counts[:-1] if counts[-1] == 0 else counts}


def compress_rle(rle: Rle) -> CocoRle:
    """COCO's text form: each run less the one two before it, in groups of five bits (pycocotools' rleToString)."""
    counts = np.asarray(rle["counts"], np.int64)
    steps = counts.copy()
    steps[3:] -= counts[1:-2]
    text = bytearray()
    for step in steps.tolist():
        more = True
        while more:
            bits, step = step & 31, step >> 5
            more = step != (-1 if bits & 16 else 0)
            text.append(48 + (bits | 32 * more))
    return {"size": list(rle["size"]), "counts": text.decode("ascii")}


def rle_area(rle: Rle) -> int:
    """Number of set pixels."""
    return sum(rle["counts"][1::2])


def mask_to_box(mask: BoolArray) -> tuple[int, int, int, int]:
    """XYXY of a (H, W) mask as SAM gives it: the last pixel is inside; (0, 0, 0, 0) when the mask is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def box_xyxy_to_xywh(box_xyxy: Sequence[float]) -> list[float]:
    """Corner form to corner and size; SAM's records use width = x1 - x0."""
    x0, y0, x1, y1 = box_xyxy
    return [x0, y0, x1 - x0, y1 - y0]


def mask_iou(a: BoolArray, b: BoolArray) -> float:
    """Intersection over union; two empty masks agree (1.0)."""
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def boundary_iou(a: BoolArray, b: BoolArray, dilation_ratio: float = 0.02) -> float:
    """IoU of the inner rims of two masks, `dilation_ratio` of the diagonal wide (Cheng et al., Boundary IoU, CVPR
    2021)."""
    width = max(1, round(dilation_ratio * float(np.hypot(*a.shape))))
    return mask_iou(_rim(a, width), _rim(b, width))


def _rim(mask: BoolArray, width: int) -> BoolArray:
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    rim: BoolArray = mask & (eroded == 0)
    return rim


def stability_score(
    logits: npt.NDArray[np.floating], threshold: float = 0.0, offset: float = 1.0
) -> npt.NDArray[np.float32]:
    """IoU of the masks at threshold + offset and threshold - offset, (..., H, W) -> (...) float32.

    The reference divides by zero when nothing exceeds the lower one; here that scores 0.
    """
    planes = logits.reshape(-1, *logits.shape[-2:])
    # One plane at a time: counting whole arrays is several times faster than counting along axes.
    high = np.array([np.count_nonzero(plane > threshold + offset) for plane in planes], np.int64)
    low = np.array([np.count_nonzero(plane > threshold - offset) for plane in planes], np.int64)
    return np.asarray(high / np.maximum(low, 1), np.float32).reshape(logits.shape[:-2])


def box_iou(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Pairwise IoU of (n, 4) and (m, 4) XYXY boxes: (n, m)."""
    # Column by column: NumPy takes several times as long along an axis of two.
    ax0, ay0, ax1, ay1 = np.asarray(a, np.float64).T[:, :, None]
    bx0, by0, bx1, by1 = np.asarray(b, np.float64).T[:, None]
    width, height = np.minimum(ax1, bx1) - np.maximum(ax0, bx0), np.minimum(ay1, by1) - np.maximum(ay0, by0)
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inter
    return np.asarray(inter / np.maximum(union, np.finfo(np.float64).tiny))


def nms(boxes_xyxy: npt.NDArray[np.floating], scores: npt.NDArray[np.floating], iou_threshold: float) -> list[int]:
    """Greedy non-maximum suppression: kept indices by falling score; a box goes when its IoU with a kept one is >
    threshold."""
    steps = nms_steps(boxes_xyxy, scores, iou_threshold)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            kept: list[int] = end.value
            return kept


def nms_steps(
    boxes_xyxy: npt.NDArray[np.floating], scores: npt.NDArray[np.floating], iou_threshold: float
) -> Generator[None, None, list[int]]:
    """`nms` in steps, for callers that may give up: boxes that overlap nowhere take time with the square of their
    number, 12000 of them more than a second. The generator's return value is the list of indices."""
    left = np.argsort(-np.asarray(scores), kind="stable")
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)[left]
    kept: list[int] = []
    while len(left):
        kept.append(int(left[0]))
        first, left, boxes = boxes[:1], left[1:], boxes[1:]
        stay = box_iou(first, boxes)[0] <= iou_threshold
        if not stay.all():
            left, boxes = left[stay], boxes[stay]
        if len(kept) % _NMS_STEP == 0:
            yield
    return kept


def remove_small_regions(mask: BoolArray, area: float, mode: str) -> tuple[BoolArray, bool]:
    """Fill holes (mode "holes") or drop islands ("islands") of fewer than `area` pixels, 8-connected.

    Returns the mask and whether it changed. When every island is small the largest stays, as in the reference.
    """
    if mode not in ("holes", "islands"):
        raise OptionError(f"mode must be 'holes' or 'islands', found {mode!r}")
    holes = mode == "holes"
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask ^ holes).astype(np.uint8), connectivity=8)
    sizes: npt.NDArray[Any] = stats[1:, cv2.CC_STAT_AREA]
    small = np.flatnonzero(sizes < area) + 1
    if not len(small):
        return mask, False
    if holes:
        return mask | np.isin(labels, small), True
    keep = np.setdiff1d(np.arange(1, count), small)
    if not len(keep):
        keep = np.array([int(np.argmax(sizes)) + 1])
    return np.isin(labels, keep), True
