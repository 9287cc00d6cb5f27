"""Where a product meets the ground, seen in its outline alone, and the shade it throws there.

The lowest product pixel of each column is where it touches or hangs over the ground. Ground seen from a booth's camera
rises in the picture towards the back, by less than `_SLOPE`: so a column whose lowest pixel lies above another one's by
no more than that slope allows stands on the ground as well (a car's far wheel, the round foot of a cup), and what is
higher hangs over it (a ball's side).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.transforms import Uint8Array
from boothsam.service.shadow_shade import FLAT, FloatArray, Outline, Shade, blurred

_SLOPE = 0.45
_SPECK = 0.005  # share of the product below which a loose part stands nowhere
_RIM = 0.015  # of a product, in units
# Bands of the contact shade: blur and how high the product may hang to count, in units, and darkness.
_BANDS = ((0.010, 0.012, 0.85), (0.026, 0.035, 0.7), (0.07, 0.1, 0.5))
_BEHIND, _BEFORE = 2.5, 1.0  # how far a band reaches, in its own blur
_ROOM = 0.25  # for them, in units
_REACH, _BACK = 0.45, 0.13  # a cast shadow's way to the right and to the back, for each pixel of height
_SLICES = 12
_NEAR, _FAR = 0.008, 0.11  # its blur at the foot, in units, and what each pixel of height adds
_CAST, _FADE = 0.66, 0.8  # its darkness at the foot, and how much of it is lost at the product's top


def contact_shade(alpha: Uint8Array) -> Shade:
    """Of a product that stands; alpha: (h, w) uint8."""
    outline = Outline(alpha, _ROOM)
    return outline.shade(outline.off_the_rim(_contact(_Ground(outline)), _RIM))


def cast_shade(alpha: Uint8Array) -> Shade:
    """Contact, and the outline as a card that stands on the ground, lit from the upper left in front."""
    outline = Outline(alpha, _ROOM, _REACH)
    ground = _Ground(outline)
    shade = 1 - (1 - _contact(ground)) * (1 - _card(ground))
    return outline.shade(outline.off_the_rim(shade, _RIM))


class _Ground:
    """What a product stands on.

    solid: (h, w) float32 of the outline, without specks. columns: those that hold product. line: the ground in each of
    them, in rows. gap: how high the product hangs over it.
    """

    def __init__(self, outline: Outline) -> None:
        self.unit = outline.unit
        self.solid = _without_specks(outline.solid)
        held = self.solid >= 0.5
        self.columns = np.flatnonzero(held.any(0))
        low = np.asarray(held.shape[0] - 1 - held[::-1, self.columns].argmax(0), np.float32)
        self.line = _slope_limited(low, self.columns, _SLOPE)
        self.gap = self.line - low


def _contact(ground: _Ground) -> FloatArray:
    """Bands along the ground under the product, each with its own blur, combined as veils."""
    light = np.ones_like(ground.solid)
    for blur, hang, dark in _BANDS:
        sigma = max(0.8, blur * ground.unit)
        weight = np.exp(-ground.gap / (hang * ground.unit))
        behind, before = max(1, round(_BEHIND * sigma * FLAT)), 1 + round(_BEFORE * sigma * FLAT)
        band = np.zeros_like(ground.solid)
        for column, row, value in zip(ground.columns, ground.line, weight, strict=True):
            band[max(0, int(row) - behind) : int(row) + before, column] = value
        light *= 1 - dark * np.clip(blurred(band, sigma), 0, 1)
    return np.asarray(1 - light, np.float32)


def _card(ground: _Ground) -> FloatArray:
    """The outline laid down to the right and back, in slices of height: the higher, the more blurred and lighter."""
    shade = np.zeros_like(ground.solid)
    if not ground.columns.size:
        return shade
    # A card has one foot line: that of the columns that touch, so a box's card stands between its near and far edge.
    near = np.exp(-ground.gap / (0.1 * ground.unit))
    foot = float((ground.line * near).sum() / near.sum())
    heights = foot - np.arange(shade.shape[0], dtype=np.float32)
    top = max(1.0, float(heights[np.flatnonzero((ground.solid >= 0.5).any(1))[0]]))
    lay = np.array([[1, -_REACH, _REACH * foot], [0, _BACK, foot - _BACK * foot]], np.float32)
    for index in range(_SLICES + 1):
        share = index / _SLICES
        # Weights of neighbouring slices add up to one; below the foot lies the product's near edge, not the card.
        weight = np.clip(1 - np.abs(heights / top - share) * _SLICES, 0, 1) * (heights >= 0)
        part = cv2.warpAffine(ground.solid * weight[:, None], lay, shade.shape[::-1])
        sigma = _NEAR * ground.unit + _FAR * share * top
        shade += _CAST * (1 - _FADE * share) * blurred(np.asarray(part, np.float32), max(0.8, sigma))
    return np.clip(shade, 0, 1)


def _slope_limited(low: FloatArray, columns: npt.NDArray[np.intp], slope: float) -> FloatArray:
    """The lowest place that any column asks for, when the ground rises from there by at most `slope` to both sides."""
    places = columns.astype(np.float32)
    from_left = np.maximum.accumulate(low + slope * places) - slope * places
    from_right = np.maximum.accumulate((low - slope * places)[::-1])[::-1] + slope * places
    return np.asarray(np.maximum(from_left, from_right), np.float32)


def _without_specks(solid: FloatArray) -> FloatArray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats((solid >= 0.5).astype(np.uint8), connectivity=8)
    if count <= 2:
        return solid
    areas = stats[1:, cv2.CC_STAT_AREA]
    specks = 1 + np.flatnonzero(areas < _SPECK * areas.sum())
    return np.where(np.isin(labels, specks), np.float32(0), solid)
