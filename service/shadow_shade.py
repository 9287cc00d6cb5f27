"""A shade behind a product: made small, since shades are smooth, and enlarged strip by strip where it is laid down."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.transforms import Uint8Array

FloatArray = npt.NDArray[np.float32]

LONGEST = 640  # pixels of the product's longest side at which shades are made
FLAT = 0.45  # a circle on the ground is an ellipse this flat


@dataclass(frozen=True)
class Shade:
    """How dark it is behind and around a product.

    values: (h, w) float32, 0 to 1, of a small copy. top, left, inner_hw: where in it the product's window lies.
    full_hw: height and width of that window in the photo's pixels.
    """

    values: FloatArray
    top: int
    left: int
    inner_hw: tuple[int, int]
    full_hw: tuple[int, int]

    @property
    def pads(self) -> tuple[int, int, int, int]:
        """Top, bottom, left and right of the window, in the photo's pixels."""
        across, down = self.full_hw[1] / self.inner_hw[1], self.full_hw[0] / self.inner_hw[0]
        bottom = self.values.shape[0] - self.top - self.inner_hw[0]
        right = self.values.shape[1] - self.left - self.inner_hw[1]
        return round(self.top * down), round(bottom * down), round(self.left * across), round(right * across)

    def at(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        """(bottom - top, right - left) of it in the photo's pixels, counted from the window's corner; 0 far outside."""
        rows = _places(np.arange(top, bottom), self.full_hw[0], self.inner_hw[0], self.top)
        columns = _places(np.arange(left, right), self.full_hw[1], self.inner_hw[1], self.left)
        grid_x, grid_y = np.meshgrid(columns, rows)
        return np.asarray(cv2.remap(self.values, grid_x, grid_y, cv2.INTER_LINEAR), np.float32)

    def trimmed(self, least: float) -> Shade:
        """Without rows and columns around the window in which nothing reaches `least`."""
        seen = self.values >= least
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        y0, x0 = self.top, self.left
        y1, x1 = y0 + self.inner_hw[0], x0 + self.inner_hw[1]
        if rows.size:
            y0, y1 = min(y0, int(rows[0])), max(y1, int(rows[-1]) + 1)
            x0, x1 = min(x0, int(columns[0])), max(x1, int(columns[-1]) + 1)
        return replace(self, values=self.values[y0:y1, x0:x1].copy(), top=self.top - y0, left=self.left - x0)


def _places(full: npt.NDArray[np.int_], full_size: int, inner_size: int, start: int) -> FloatArray:
    """Centres of full-size pixels, in the small copy's pixels."""
    return np.asarray((full + 0.5) * (inner_size / full_size) + start - 0.5, np.float32)


class Outline:
    """A product's alpha made small, with room around it.

    solid: (h, w) float32, 0 to 1. pad: pixels on each side. unit: what lengths are measured in, the side of a square as
    large as the product's window.
    """

    def __init__(self, alpha: Uint8Array, room: float, room_of_height: float = 0.0) -> None:
        """room, room_of_height: on each side, in units and in the product's height."""
        self._full_hw = alpha.shape[0], alpha.shape[1]
        height, width = self._full_hw
        scale = min(1.0, LONGEST / max(height, width))
        self._inner_hw = max(1, round(height * scale)), max(1, round(width * scale))
        small = alpha if scale == 1 else cv2.resize(alpha, self._inner_hw[::-1], interpolation=cv2.INTER_AREA)
        self.unit = math.sqrt(self._inner_hw[0] * self._inner_hw[1])
        self.pad = math.ceil(room * self.unit + room_of_height * self._inner_hw[0]) + 2
        pads = (self.pad,) * 4
        padded = cv2.copyMakeBorder(small, *pads, cv2.BORDER_CONSTANT, value=0)
        self.solid: FloatArray = np.asarray(padded / np.float32(255), np.float32)

    def shade(self, values: FloatArray) -> Shade:
        """For the alpha it was made of."""
        return Shade(np.clip(values, 0, 1), self.pad, self.pad, self._inner_hw, self._full_hw)

    def off_the_rim(self, values: FloatArray, rim: float) -> FloatArray:
        """Behind the product no darker than right beside it.

        What lies behind the product shines through its soft rim: a shade that is hidden there must not draw a dark line
        around it, nor darken glass. rim: how wide that rim may be, in units.
        """
        product = self.solid > 0.01
        reach = 2 * max(2, round(rim * self.unit)) + 1
        beside = cv2.dilate(np.where(product, np.float32(0), values), np.ones((reach, reach), np.uint8))
        return np.where(product, np.minimum(values, beside), values)


def blurred(plane: FloatArray, sigma: float, flat: float = FLAT) -> FloatArray:
    """Gaussian blur, `flat` times as much downwards as across; a wide one on a smaller copy, which looks the same."""
    down = max(0.6, sigma * flat)
    step = max(1, int(down / 2))
    if step == 1:
        return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigmaX=sigma, sigmaY=down), np.float32)
    size = -(-plane.shape[1] // step), -(-plane.shape[0] // step)
    small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigmaX=sigma / step, sigmaY=down / step)
    return np.asarray(cv2.resize(small, plane.shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
