"""Surfaces: colours, gradients, wood, cloth, noise, photo crops; all (h, w, 3) float32 RGB in 0..255."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from boothsam.training.photos import PhotoBank
from numpy.typing import NDArray

Surface = NDArray[Any]  # (h, w, 3) float32 RGB, 0..255
Field = NDArray[Any]  # (h, w) float32
Colour = NDArray[Any]  # (3,) float32
Rng = np.random.Generator


def colour(rng: Rng) -> Colour:
    """A colour as products have them: often grey, white or black, else anything."""
    kind = rng.random()
    if kind < 0.16:
        return np.full(3, rng.uniform(215, 255), np.float32) + rng.normal(0, 3, 3).astype(np.float32)
    if kind < 0.28:
        return np.full(3, rng.uniform(5, 45), np.float32) + rng.normal(0, 3, 3).astype(np.float32)
    if kind < 0.4:
        return np.full(3, rng.uniform(45, 215), np.float32) + rng.normal(0, 6, 3).astype(np.float32)
    hsv = np.array([[[rng.integers(180), rng.integers(40, 256), rng.integers(50, 256)]]], np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def vivid(rng: Rng) -> Colour:
    """A saturated printing colour."""
    hsv = np.array([[[rng.integers(180), rng.integers(130, 256), rng.integers(90, 250)]]], np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def smooth_noise(rng: Rng, height: int, width: int, cells: float, aspect: float = 1.0) -> Field:
    """Value noise in -1..1 with about `cells` cells along the longer side; `aspect` > 1 stretches it along x."""
    side = max(height, width)
    gh = max(2, int(cells * height / side) + 1)
    gw = max(2, int(cells * width / side / aspect) + 1)
    grid = rng.uniform(-1, 1, (gh, gw)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def ramp(rng: Rng, height: int, width: int) -> Field:
    """A linear ramp 0..1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(np.cos(angle))
    field = ys + xs
    return np.asarray((field - field.min()) / max(float(np.ptp(field)), 1e-6), np.float32)


def flat(rng: Rng, height: int, width: int, base: Colour | None = None) -> Surface:
    """One colour, a little uneven."""
    base = colour(rng) if base is None else base
    surface = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
    surface += smooth_noise(rng, height, width, 4)[..., None] * np.float32(rng.uniform(0, 6))
    return surface


def gradient(rng: Rng, height: int, width: int) -> Surface:
    """Two colours blended, linearly or along noise."""
    a, b = colour(rng), colour(rng)
    if rng.random() < 0.6:
        b = a + (b - a) * np.float32(rng.uniform(0.1, 0.5))
    t = ramp(rng, height, width) if rng.random() < 0.7 else smooth_noise(rng, height, width, 3) * 0.5 + 0.5
    return np.asarray(a + t[..., None] * (b - a), np.float32)


def wood(rng: Rng, height: int, width: int) -> Surface:
    """Planks or a table top: stretched noise folded into grain."""
    tone = np.array([rng.uniform(90, 210), 0, 0], np.float32)
    tone[1] = tone[0] * rng.uniform(0.62, 0.8)
    tone[2] = tone[1] * rng.uniform(0.5, 0.8)
    coarse = smooth_noise(rng, height, width, rng.uniform(10, 30), aspect=rng.uniform(6, 14))
    fine = smooth_noise(rng, height, width, rng.uniform(60, 160), aspect=rng.uniform(10, 25))
    grain = np.sin(coarse * rng.uniform(3, 9)) * rng.uniform(4, 18) + fine * rng.uniform(3, 14)
    surface = tone + grain[..., None] * np.array([1.0, 0.9, 0.75], np.float32)
    if rng.random() < 0.5:
        plank = max(8, int(height / rng.uniform(2.5, 8)))
        offset = int(rng.integers(plank))
        for y in range(offset, height, plank):
            surface[y : y + plank] += np.float32(rng.normal(0, 7))
            surface[y : y + max(1, height // 250)] *= np.float32(rng.uniform(0.35, 0.8))
    if rng.random() < 0.4:
        surface = np.ascontiguousarray(cv2.rotate(cv2.resize(surface, (height, width)), cv2.ROTATE_90_CLOCKWISE))
    return np.asarray(surface, np.float32)


def weave(rng: Rng, height: int, width: int) -> Surface:
    """Stripes, checks or dots, at any angle."""
    a, b = colour(rng), colour(rng)
    if rng.random() < 0.4:
        b = a + (b - a) * np.float32(0.3)
    angle, period = rng.uniform(0, np.pi), max(height, width) / rng.uniform(3, 40)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    u = (xs * np.cos(angle) + ys * np.sin(angle)) * np.float32(2 * np.pi / period)
    v = (-xs * np.sin(angle) + ys * np.cos(angle)) * np.float32(2 * np.pi / period)
    kind = rng.random()
    sharp = rng.uniform(1, 8)
    if kind < 0.45:
        t = np.sin(u)
    elif kind < 0.75:
        t = np.sin(u) * np.sin(v)
    else:
        t = np.cos(u) + np.cos(v) - rng.uniform(0.4, 1.2)
    t = np.clip(t * sharp, -1, 1) * 0.5 + 0.5
    return np.asarray(a + t[..., None] * (b - a), np.float32)


def speckle(rng: Rng, height: int, width: int) -> Surface:
    """Stone, cork, cloth: noise at several scales."""
    surface = np.broadcast_to(colour(rng), (height, width, 3)).astype(np.float32)
    for cells in (4, 20, 90, 300):
        amount = rng.uniform(0, 22)
        surface += smooth_noise(rng, height, width, min(cells, max(height, width)))[..., None] * np.float32(amount)
    return surface


def surface(rng: Rng, height: int, width: int, photos: PhotoBank, photo_share: float = 0.4) -> Surface:
    """Any surface; with probability `photo_share` a crop of a photo (when there are any)."""
    if rng.random() < photo_share:
        patch = photos.crop(rng, height, width, zoom=5.0)
        if patch is not None:
            return patch.astype(np.float32)
    kind = rng.random()
    if kind < 0.38:
        return flat(rng, height, width)
    if kind < 0.66:
        return gradient(rng, height, width)
    if kind < 0.78:
        return weave(rng, height, width)
    if kind < 0.88:
        return speckle(rng, height, width)
    return wood(rng, height, width)
