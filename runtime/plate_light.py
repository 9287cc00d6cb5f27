"""What a photo of the empty booth would look like in another photo's light: gain and offset by channel, then a field.

A camera on automatic exposes and balances every photo anew, and a product throws light about. Both are fitted on what
did not change, without knowing it beforehand: the fit starts at the commonest ratio of the two pictures and trims, in
the manner of least trimmed squares (Rousseeuw, 1984), what lies far from it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.transforms import FloatArray

Doubles = npt.NDArray[np.float64]
BLACK, WHITE = 4.0, 251.0  # beyond these the sensor says nothing about light
_KEPT = 0.5  # share of the pixels that a fit keeps: what is backdrop for sure, as long as half the frame is
_RIDGE = 0.05  # how much an offset is believed less than a gain
_DARK = 8.0  # levels added before a ratio is taken: noise in the dark is no light


def expected(plate: FloatArray, photo: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The plate in the photo's light, (h, w, 3) float32, clipped to 0..255 as a sensor clips.

    plate, photo: (h, w, 3) float32 levels, RGB, aligned and smoothed alike. The second value (h, w, 3) bool says where
    the plate was overexposed and the photo is not: there the first is a lower bound.
    """
    step = max(1, round(np.sqrt(plate.shape[0] * plate.shape[1] / 20_000)))
    first = plate[::step, ::step].reshape(-1, 3).astype(np.float64)
    second = photo[::step, ::step].reshape(-1, 3).astype(np.float64)
    gains, offsets = _fit(first, second)
    flat = np.asarray(np.clip(plate * gains.astype(np.float32) + offsets.astype(np.float32), 0, 255), np.float32)
    bound = plate > WHITE
    lit = np.asarray(np.clip(flat * _field(flat, photo, total(bound.astype(np.uint8)) > 0), 0, 255), np.float32)
    return lit, bound & (lit < WHITE)


def total(values: npt.NDArray[Any]) -> FloatArray:
    """Sum over the three channels of (h, w, 3), (h, w) float32: numpy takes ten times as long for so short an axis."""
    return np.asarray(cv2.transform(values, np.ones((1, 3), np.float32)), np.float32)


def _fit(plate: Doubles, photo: Doubles) -> tuple[Doubles, Doubles]:
    """Gain and offset (3,) of the unchanged half of (n, 3) pixels; the same pixels for all channels."""
    inside = ((photo > BLACK) & (photo < WHITE) & (plate > BLACK) & (plate < WHITE)).all(1)
    if inside.sum() < 0.1 * len(plate):
        inside = np.ones(len(plate), bool)  # white on white: nothing but clipped pixels, and no gain to be told
    first, second = plate[inside], photo[inside]
    gains = np.exp([_mode(np.log((second[:, c] + _DARK) / (first[:, c] + _DARK))) for c in range(3)])
    offsets = np.zeros(3)
    for _ in range(6):
        error = (np.abs(second - first * gains - offsets) / np.sqrt(first + 16)).max(1)
        kept = error <= np.quantile(error, _KEPT)
        for c in range(3):
            x, y = first[kept, c], second[kept, c]
            # A plate of one tone tells gain and offset together only: black is black then, and the gain is all.
            normal = np.array([[np.mean(x * x), x.mean()], [x.mean(), 1 + _RIDGE]])
            gains[c], offsets[c] = np.linalg.solve(normal, (np.mean(x * y), y.mean()))
    return gains, offsets


def _mode(values: Doubles) -> float:
    """The commonest value: the middle of the shortest interval that holds a quarter of them (half-sample mode)."""
    ordered = np.sort(values)
    for share in (0.4, 0.5):
        count = max(2, int(share * len(ordered)))
        widths = ordered[count - 1 :] - ordered[: len(ordered) - count + 1]
        start = int(np.argmin(widths))
        ordered = ordered[start : start + count]
    return float(ordered.mean())


def _field(plate: FloatArray, photo: FloatArray, bound: npt.NDArray[np.bool_]) -> FloatArray:
    """(h, w, 1) smooth gain around 1 that the unchanged pixels still show: light that moved, not colours."""
    small = (max(8, plate.shape[1] // 8), max(8, plate.shape[0] // 8))
    planes = total(plate) / 3, total(photo) / 3, 1 - bound.astype(np.float32)
    before, after, weight = (cv2.resize(plane, small, interpolation=cv2.INTER_AREA) for plane in planes)
    ratio = np.asarray(np.log((after + _DARK) / (before + _DARK)), np.float32)
    field = np.zeros_like(ratio)
    sigma = max(small) / 7
    for width in (0.25, 0.12, 0.06):
        near = np.asarray(weight, np.float32) * np.exp(-(((ratio - field) / np.float32(width)) ** 2)) + np.float32(1e-4)
        # Where all is covered the field falls back to none.
        weights = cv2.GaussianBlur(near, (0, 0), sigma) + np.float32(0.02)
        field = np.asarray(cv2.GaussianBlur(near * ratio, (0, 0), sigma) / weights, np.float32)
    grown = cv2.resize(np.exp(field), (plate.shape[1], plate.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown[..., None], np.float32)
