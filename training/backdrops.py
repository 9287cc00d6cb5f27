"""What stands behind the products: booth sweeps, table tops, shelves, photos; (h, w, 3) float32 RGB in 0..255."""

from __future__ import annotations

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import PhotoBank
from boothsam.training.shapes import blend, ellipse, fill
from boothsam.training.textures import Colour, Rng, Surface


def muted(rng: Rng) -> Colour:
    """A colour as paper, cloth and walls have it: seldom loud."""
    base = textures.colour(rng)
    return np.asarray(base + (base.mean() - base) * np.float32(rng.uniform(0.0, 0.85)), np.float32)


def booth(rng: Rng, height: int, width: int) -> Surface:
    """A paper sweep: nearly one tone, brighter where the lamp points, with a soft horizon now and then."""
    kind = rng.random()
    if kind < 0.62:
        base = np.full(3, rng.uniform(205, 255), np.float32) + rng.normal(0, 3, 3).astype(np.float32)
    elif kind < 0.8:
        base = np.full(3, rng.uniform(8, 110), np.float32) + rng.normal(0, 3, 3).astype(np.float32)
    else:
        base = muted(rng)
    ys = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    xs = np.linspace(0, 1, width, dtype=np.float32)[None]
    cx, cy = rng.uniform(0.1, 0.9), rng.uniform(0.0, 0.8)
    fall = np.exp(-((xs - cx) ** 2 + (ys - cy) ** 2) / rng.uniform(0.15, 1.5))
    lit = base * (1 - rng.uniform(0, 0.45) * (1 - fall[..., None]))
    if rng.random() < 0.5:
        softness = rng.uniform(0.004, 0.15)
        floor = 1 / (1 + np.exp(np.clip(-(ys - rng.uniform(0.25, 0.85)) / softness, -60, 60)))
        lit = lit * (1 + floor[..., None] * rng.uniform(-0.3, 0.15))
    return np.asarray(lit + textures.smooth_noise(rng, height, width, 5)[..., None] * 2, np.float32)


def tabletop(rng: Rng, height: int, width: int, photos: PhotoBank) -> Surface:
    """A table seen obliquely, often with a wall or a room behind it."""
    roll = rng.random()
    if roll < 0.5:
        top = textures.wood(rng, height, width)
    elif roll < 0.75:
        top = textures.speckle(rng, height, width)
    else:
        top = textures.surface(rng, height, width, photos, 0.2)
    if rng.random() < 0.6:
        squeeze = rng.uniform(0.0, 0.38) * width
        source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        target = np.array([[0, 0], [width, 0], [width + squeeze, height], [-squeeze, height]], np.float32)
        warp = cv2.getPerspectiveTransform(source, target)
        top = cv2.warpPerspective(top, warp, (width, height), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    if rng.random() < 0.55:
        horizon = int(height * rng.uniform(0.05, 0.6))
        wall = photos.crop(rng, max(2, horizon), width) if rng.random() < 0.5 else None
        back = textures.gradient(rng, max(2, horizon), width) if wall is None else wall.astype(np.float32)
        sigma = rng.uniform(0, 0.02) * max(height, width)
        if sigma > 0.5:
            back = cv2.GaussianBlur(back, (0, 0), sigma).astype(np.float32)
        top[: back.shape[0]] = back
    lamp = textures.ramp(rng, height, width)[..., None]
    return np.asarray(top * (rng.uniform(0.5, 1.0) + lamp * rng.uniform(0, 0.6)), np.float32)


def shelf(rng: Rng, height: int, width: int, photos: PhotoBank) -> Surface:
    """Shelf boards with a row of box-like things between them (all of it backdrop)."""
    surface = textures.surface(rng, height, width, photos, 0.3)
    boards = int(rng.integers(1, 4))
    step = height // boards
    offset = int(rng.integers(step))
    for top in range(offset - step, height, step):
        x = 0
        while x < width and rng.random() < 0.95:
            w = int(width * rng.uniform(0.05, 0.25)) + 2
            h = int(step * rng.uniform(0.3, 0.95)) + 2
            y0, y1, x1 = max(0, top + step - h), min(height, top + step), min(width, x + w)
            if y1 > y0 and x1 > x and rng.random() < 0.85:
                surface[y0:y1, x:x1] = textures.surface(rng, y1 - y0, x1 - x, photos, 0.35)
            x = x1 + int(rng.integers(0, max(2, width // 40)))
        y = top + step
        if 0 <= y < height:
            surface[y : y + max(2, height // 60)] = textures.colour(rng)
    return surface


def crumpled(rng: Rng, height: int, width: int) -> Surface:
    """Paper or cloth with folds: facets of noise lit from one side."""
    base = np.full(3, rng.uniform(150, 250), np.float32) if rng.random() < 0.6 else muted(rng)
    field = np.zeros((height, width), np.float32)
    for cells in (2, 5, 11, 23):
        field += np.abs(textures.smooth_noise(rng, height, width, cells)) / np.float32(cells**1.15)
    slope = cv2.Sobel(field, cv2.CV_32F, 1, 0, ksize=3) + cv2.Sobel(field, cv2.CV_32F, 0, 1, ksize=3)
    light = 1 + np.clip(slope * np.float32(rng.uniform(0.1, 0.5) * max(height, width) / 100), -0.3, 0.2)
    return np.asarray(base * light[..., None], np.float32)


def turntable(rng: Rng, height: int, width: int) -> Surface:
    """A booth with a round plate to stand things on; the plate is backdrop."""
    scene = booth(rng, height, width)
    reach, flat = width * rng.uniform(0.3, 0.6), rng.uniform(0.12, 0.45)
    cx, cy = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.65, 0.85)
    tone = textures.colour(rng) if rng.random() < 0.4 else np.full(3, rng.uniform(190, 250), np.float32)
    rim = fill(ellipse(cx, cy + reach * rng.uniform(0.02, 0.06), reach, reach * flat), height, width)
    blend(scene, rim, tone * np.float32(rng.uniform(0.5, 0.9)))
    blend(scene, fill(ellipse(cx, cy, reach, reach * flat), height, width), tone)
    return scene


def backdrop(rng: Rng, height: int, width: int, photos: PhotoBank) -> Surface:
    """Any backdrop; without photos the drawn kinds take the photos' share."""
    kind = rng.random()
    if kind < 0.24:
        photo = photos.crop(rng, height, width)
        if photo is not None:
            surface: Surface = photo.astype(np.float32)
            if rng.random() < 0.75:
                surface = cv2.GaussianBlur(surface, (0, 0), rng.uniform(1, 0.02 * max(height, width) + 1.5))
            return np.asarray(surface, np.float32)
    if kind < 0.52:
        return booth(rng, height, width)
    if kind < 0.57:
        return turntable(rng, height, width)
    if kind < 0.62:
        return crumpled(rng, height, width)
    if kind < 0.87:
        return tabletop(rng, height, width, photos)
    if kind < 0.91:
        return shelf(rng, height, width, photos)
    return textures.surface(rng, height, width, photos, 0.4)
