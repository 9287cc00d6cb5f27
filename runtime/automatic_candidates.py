"""Everything mode's filters on one decoder answer: which masks are good enough, where they lie, what to keep of them.

Two ways to look at a mask. `judge_exact` upscales it to the photo, as segment_anything does, but one mask at a time and
only inside its own window. `judge_fast` looks at the decoder's logits and upscales nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from boothsam.runtime import transforms
from boothsam.runtime.automatic_grid import Box
from boothsam.runtime.masks import Rle, mask_to_box, stability_score, window_to_rle
from boothsam.runtime.model import Decoded
from boothsam.runtime.transforms import BoolArray, FloatArray, Size


@dataclass(frozen=True)
class Limits:
    """The thresholds of segment_anything's generator; 0 switches a filter off, as there."""

    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    mask_threshold: float

    def stable(self, score: np.float32) -> bool:
        """Whether a stability score passes; compared in float32, as the reference does."""
        return self.stability_score_thresh <= 0 or bool(score >= np.float32(self.stability_score_thresh))


@dataclass(frozen=True)
class Frame:
    """The crop that the encoder saw: its size, the model's frame, and where it lies in the photo."""

    crop_xyxy: Box
    image_size: int

    @property
    def size_hw(self) -> Size:
        """(height, width) of the crop."""
        x0, y0, x1, y1 = self.crop_xyxy
        return y1 - y0, x1 - x0


@dataclass(frozen=True)
class Patch:
    """The part of (side, side) low-resolution logits that decides about a mask: a tenth of the memory, typically.

    A photo pixel above the threshold has a logit above it among those it is interpolated from, and the two bilinear
    steps reach two logits far. So a margin of two keeps every pixel of the mask as it was; what lies outside can only
    be lower.
    """

    values: FloatArray
    origin_yx: tuple[int, int]
    side: int
    fill: float

    MARGIN = 2

    @classmethod
    def cut(cls, low_res: FloatArray, threshold: float) -> Patch:
        """The patch of (side, side) logits around those above `threshold`."""
        positive = low_res > threshold
        rows, columns = np.flatnonzero(positive.any(1)), np.flatnonzero(positive.any(0))
        if not len(rows):
            return cls(np.zeros((0, 0), np.float32), (0, 0), len(low_res), threshold)
        top, left = (max(0, int(hit[0]) - cls.MARGIN) for hit in (rows, columns))
        values = low_res[top : rows[-1] + cls.MARGIN + 1, left : columns[-1] + cls.MARGIN + 1].copy()
        return cls(values, (top, left), len(low_res), min(float(values.min()), threshold))

    def whole(self) -> FloatArray:
        """(side, side) logits that give the same mask."""
        low_res = np.full((self.side, self.side), self.fill, np.float32)
        top, left = self.origin_yx
        low_res[top : top + self.values.shape[0], left : left + self.values.shape[1]] = self.values
        return low_res


@dataclass(frozen=True)
class Judgement:
    """stability_score, and box_xyxy in pixels of the crop, the last pixel inside."""

    stability_score: float
    box_xyxy: Box


@dataclass(frozen=True)
class Candidate:
    """A mask that passed the filters and awaits non-maximum suppression; point and box in photo pixels."""

    patch: Patch
    box_xyxy: Box
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]
    frame: Frame

    def mask_window(self, threshold: float) -> tuple[BoolArray, tuple[int, int]]:
        """The mask at the photo's resolution: a (h, w) window of it and the photo pixel (x, y) of its first pixel."""
        low_res, size_hw, image_size = self.patch.whole(), self.frame.size_hw, self.frame.image_size
        window = transforms.mask_window(low_res, size_hw, threshold, image_size)
        if window is None:
            return np.zeros((0, 0), np.bool_), (0, 0)
        logits = transforms.upscale_logits_window(low_res, size_hw, window, image_size)
        x0, y0 = self.frame.crop_xyxy[:2]
        return logits > threshold, (window[0] + x0, window[1] + y0)

    def rle(self, photo_hw: Size, threshold: float) -> tuple[Rle, Box]:
        """Run lengths over the whole photo, and the mask's box."""
        mask, (x, y) = self.mask_window(threshold)
        rle = window_to_rle(mask, (x, y), photo_hw)
        if not mask.any():
            return rle, (0, 0, 0, 0)
        x0, y0, x1, y1 = mask_to_box(mask)
        return rle, (x0 + x, y0 + y, x1 + x, y1 + y)


class BestByBox:
    """Candidates of one crop. Of those with the same box only the best is kept at all: whatever suppresses it by its
    box suppresses the others as well. A backdrop is found by every point on it, at 200 kB a time.
    """

    def __init__(self, threshold: float) -> None:
        self.nbytes = 0
        self._threshold = threshold
        self._by_box: dict[object, Candidate] = {}

    def add(self, candidate: Candidate) -> None:
        x0, y0, x1, y1 = candidate.box_xyxy
        same = self._threshold < 1 and x0 < x1 and y0 < y1  # else the box does not suppress even itself
        key = candidate.box_xyxy if same else len(self._by_box)
        other = self._by_box.get(key)
        if other is None or other.predicted_iou < candidate.predicted_iou:
            self._by_box.pop(key, None)  # so that it comes last: of equal scores the first one counts
            self._by_box[key] = candidate
            self.nbytes += candidate.patch.values.nbytes - (0 if other is None else other.patch.values.nbytes)

    def members(self) -> list[Candidate]:
        """In the order of the points."""
        return list(self._by_box.values())


Judge = Callable[[FloatArray, Frame, Limits], Judgement | None]


def judge_exact(low_res: FloatArray, frame: Frame, limits: Limits) -> Judgement | None:
    """Stability and box of the mask upscaled to the crop's size; None when it is not stable enough."""
    threshold, offset = limits.mask_threshold, limits.stability_score_offset
    window = transforms.mask_window(low_res, frame.size_hw, min(threshold, threshold - offset), frame.image_size)
    if window is None:
        return Judgement(0.0, (0, 0, 0, 0)) if limits.stable(np.float32(0)) else None
    logits = transforms.upscale_logits_window(low_res, frame.size_hw, window, frame.image_size)
    stability = np.float32(stability_score(logits, threshold, offset))
    if not limits.stable(stability):
        return None
    mask = logits > threshold
    if not mask.any():
        return Judgement(float(stability), (0, 0, 0, 0))
    x0, y0, x1, y1 = mask_to_box(mask)
    x, y = window[:2]
    return Judgement(float(stability), (x0 + x, y0 + y, x1 + x, y1 + y))


def judge_fast(low_res: FloatArray, frame: Frame, limits: Limits) -> Judgement | None:
    """Stability and box by the decoder's own logits, those in the padding left out; None when not stable enough."""
    height, width = transforms.input_size(frame.size_hw, frame.image_size)
    step = frame.image_size / len(low_res)  # frame pixels per logit
    inside = low_res[: -int(-height // step), : -int(-width // step)]
    stability = np.float32(stability_score(inside, limits.mask_threshold, limits.stability_score_offset))
    if not limits.stable(stability):
        return None
    above = inside - np.float32(limits.mask_threshold)
    if not (above > 0).any():
        return Judgement(float(stability), (0, 0, 0, 0))
    x0, x1 = _span(above, step * frame.size_hw[1] / width, frame.size_hw[1])
    y0, y1 = _span(above.T, step * frame.size_hw[0] / height, frame.size_hw[0])
    return Judgement(float(stability), (x0, y0, x1, y1))


def _span(above: FloatArray, scale: float, pixels: int) -> tuple[int, int]:
    """First and last of `pixels` crop columns in which (rows, columns) logits, `scale` pixels wide each, exceed zero.

    The rim lies where the line between two neighbouring logits crosses zero, as in bilinear upscaling.
    """
    hit = np.flatnonzero((above > 0).any(axis=0))
    first, last = int(hit[0]), int(hit[-1])
    low, high = 0, pixels - 1
    if first > 0:
        low = math.ceil((first - _reach(above[:, first], above[:, first - 1]) + 0.5) * scale - 0.5)
    if last < above.shape[1] - 1:
        high = math.floor((last + _reach(above[:, last], above[:, last + 1]) + 0.5) * scale - 0.5)
    low = min(low, pixels - 1)
    return low, min(max(high, low), pixels - 1)


def _reach(inner: FloatArray, outer: FloatArray) -> float:
    """How far from a column towards its outer neighbour, all of whose logits are at most zero, a mask goes: 0 to 1."""
    rows = inner > 0
    return float((inner[rows] / (inner[rows] - outer[rows])).max())


def candidates(
    decoded: Decoded, points_xy: npt.NDArray[np.float64], frame: Frame, limits: Limits, judge: Judge
) -> list[list[Candidate]]:
    """The masks of tokens 1 to 3 that pass, for each point, in the order of tokens.

    points_xy: (P, 2) in crop pixels, the decoder's prompts.
    """
    low_res, scores = decoded.select(multimask_output=True)
    passed = scores > limits.pred_iou_thresh if limits.pred_iou_thresh > 0 else np.ones(scores.shape, np.bool_)
    left, top = frame.crop_xyxy[:2]
    found: list[list[Candidate]] = [[] for _ in points_xy]
    for prompt, token in np.argwhere(passed).tolist():
        judgement = judge(low_res[prompt, token], frame, limits)
        if judgement is not None:
            x0, y0, x1, y1 = judgement.box_xyxy
            found[prompt].append(
                Candidate(
                    Patch.cut(low_res[prompt, token], limits.mask_threshold),
                    (x0 + left, y0 + top, x1 + left, y1 + top),
                    float(scores[prompt, token]),
                    judgement.stability_score,
                    (float(points_xy[prompt, 0]) + left, float(points_xy[prompt, 1]) + top),
                    frame,
                )
            )
    return found
