"""Should the photo be taken again? Four checks that a booth can act on while the product still stands there.

    blur                no edge of the product is sharp
    clipped_highlights  a share of the product is burnt out: no detail is left to print
    touches_border      the product is cut by the photo's border
    low_agreement       the model is unsure what the product is

Pure functions of photo and mask. Thresholds are shares and scores, so they hold for any camera.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.transforms import Uint8Array

MAX_BLUR = 0.6
MAX_CLIPPED = 0.10
MAX_BORDER_PX = 0  # product pixels on the outermost rows and columns
MIN_AGREEMENT = 0.70
_LOOK = 1024  # longest side at which sharpness is judged: what a shop shows
_KERNEL = 11  # Crete et al.'s low-pass
_BURNT = 252  # all three channels at or above

ADVICE = {
    "blur": "hold the camera still, focus on the product, or use more light",
    "clipped_highlights": "use less light or a shorter exposure",
    "touches_border": "move the product into the frame",
    "low_agreement": "put one product on a plain backdrop, or show it with a box",
}


@dataclass(frozen=True)
class Reason:
    """One check that failed: the measured value and the limit it broke."""

    code: str
    value: float
    limit: float
    advice: str


@dataclass(frozen=True)
class Verdict:
    """What the checks say. measures: every measured value by the code of its check."""

    retake: bool
    reasons: tuple[Reason, ...]
    measures: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"reasons": [asdict(reason) for reason in self.reasons]}


def judge(image: Uint8Array, alpha: Uint8Array, window_xyxy: tuple[int, int, int, int], agreement: float) -> Verdict:
    """Run the checks.

    image: (H, W, 3) uint8 RGB photo. alpha: (h, w) uint8 of the cut-out in `window_xyxy`, photo pixels.
    agreement: 0 to 1, how sure the model is: the agreement of the automatic prompts, or the predicted IoU.
    """
    x0, y0, x1, y1 = window_xyxy
    solid = alpha >= 128
    measures = {
        "blur": blur(image[y0:y1, x0:x1], solid),
        "clipped_highlights": clipped_share(image[y0:y1, x0:x1], solid),
        "touches_border": float(border_pixels(solid, window_xyxy, image.shape[:2])),
        "low_agreement": agreement,
    }
    limits = {"blur": MAX_BLUR, "clipped_highlights": MAX_CLIPPED, "touches_border": float(MAX_BORDER_PX)}
    failed = [code for code, limit in limits.items() if measures[code] > limit]
    if agreement < MIN_AGREEMENT:
        failed.append("low_agreement")
    limits["low_agreement"] = MIN_AGREEMENT
    reasons = tuple(Reason(code, round(measures[code], 4), limits[code], ADVICE[code]) for code in failed)
    return Verdict(bool(reasons), reasons, {code: round(value, 4) for code, value in measures.items()})


def blur(photo: Uint8Array, mask: npt.NDArray[np.bool_]) -> float:
    """0 (sharp) to 1 (nothing but blur) of the product in a (h, w, 3) crop with its (h, w) mask.

    After Crete, Dolmiere, Ladret, Nicolas: The blur effect (SPIE 2007): how much of the variation between neighbours
    survives a low-pass; a sharp edge loses most of it, a blurred one hardly any. Only differences that touch the mask
    count, along each axis; the worse axis decides, so that motion in one direction is found.
    """
    scale = min(1.0, _LOOK / max(photo.shape[:2]))
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    grey: npt.NDArray[Any] = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    # Product and a rim of backdrop: on a plain product the outline is the only edge there is.
    near: npt.NDArray[Any] = mask.astype(np.uint8)
    if scale < 1:
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        near = cv2.resize(near, size, interpolation=cv2.INTER_NEAREST)
    near = cv2.dilate(near, np.ones((2 * _KERNEL + 1,) * 2, np.uint8))
    values, weight = grey.astype(np.float32), near.astype(bool)
    worst = 0.0
    for dx, dy in ((1, 0), (0, 1)):
        smooth = cv2.blur(values, (_KERNEL, 1) if dx else (1, _KERNEL), borderType=cv2.BORDER_REFLECT)
        # Sobel's differences average across the edge: a sensor's noise would pass for sharpness otherwise.
        own, left = (np.abs(cv2.Sobel(v, cv2.CV_32F, dx, dy))[weight] for v in (values, smooth))
        total = float(own.sum())
        if total > 0:
            worst = max(worst, (total - float(np.maximum(0, own - left).sum())) / total)
    return worst


def clipped_share(photo: Uint8Array, mask: npt.NDArray[np.bool_]) -> float:
    """Share of the product's pixels whose three channels are all burnt out, 0 to 1."""
    area = int(np.count_nonzero(mask))
    # One pass of OpenCV: NumPy's minimum over the channels takes ten times as long.
    burnt = cv2.inRange(photo, (_BURNT,) * 3, (255,) * 3)
    within = cv2.bitwise_and(burnt, np.ascontiguousarray(mask).view(np.uint8))
    return float(cv2.countNonZero(within) / area) if area else 0.0


def border_pixels(mask: npt.NDArray[np.bool_], window_xyxy: tuple[int, int, int, int], size_hw: tuple[int, ...]) -> int:
    """Product pixels on the outermost rows and columns of the photo of (height, width); corners count twice."""
    x0, y0, x1, y1 = window_xyxy
    sides = ((x0 == 0, mask[:, 0]), (y0 == 0, mask[0]), (x1 == size_hw[1], mask[:, -1]), (y1 == size_hw[0], mask[-1]))
    return sum(int(np.count_nonzero(line)) for touches, line in sides if touches)
