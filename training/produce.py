"""Fruit-like things: smooth, round, shaded bodies with stalk, spots and stickers."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import CutoutBank, PhotoBank
from boothsam.training.prints import print_design
from boothsam.training.shapes import Layer, Outline, blend, ellipse, fill, no_parts, round_off, stroke
from boothsam.training.textures import Colour, Field, Rng, Surface

# Hue and its spread (OpenCV's 0..179), saturation and value ranges of skins.
_SKINS = (
    (5, 6, (150, 245), (110, 235)),  # tomato, nectarine, apple
    (14, 4, (170, 250), (190, 250)),  # orange
    (25, 4, (120, 240), (180, 245)),  # lemon, pear, potato, melon
    (36, 8, (90, 220), (100, 220)),  # pear, lime, kiwi
    (55, 12, (90, 230), (50, 150)),  # cucumber, avocado, pepper
    (17, 5, (60, 150), (90, 190)),  # onion, potato, ginger
    (150, 15, (90, 220), (40, 130)),  # aubergine, plum, beet
    (15, 8, (5, 60), (170, 245)),  # mushroom, garlic, egg
)


def _skin(rng: Rng) -> Colour:
    hue, spread, saturation, value = _SKINS[int(rng.integers(len(_SKINS)))]
    hsv = np.array([[[(hue + rng.normal(0, spread)) % 180, rng.uniform(*saturation), rng.uniform(*value)]]])
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)[0, 0], np.float32)


@dataclass(frozen=True)
class Sort:
    """What fruits of one heap share: colours, `shape` and `mark` 0..1 (which outline and markings), stalk or none."""

    tone: Colour
    cheek: Colour
    shape: float
    mark: float
    stalk: bool


def random_sort(rng: Rng) -> Sort:
    """A sort of fruit; the second colour is mostly a shade of the first."""
    tone = _skin(rng)
    cheek = _skin(rng) if rng.random() < 0.25 else tone * np.float32(rng.uniform(0.6, 1.3))
    return Sort(tone, cheek, float(rng.random()), float(rng.random()), bool(rng.random() < 0.45))


def _body(rng: Rng, side: int, kind: float) -> Outline:
    """Round, oval, pear-like, long or bent outline filling most of the patch."""
    t = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    x, y = np.cos(t), np.sin(t)
    if kind < 0.45:
        y = y * rng.uniform(0.82, 1.0)
    elif kind < 0.6:
        x = x * (0.72 + rng.uniform(0.1, 0.28) * y)  # a pear: narrow above
    elif kind < 0.8:
        x = x * rng.uniform(0.22, 0.7)
        x = x + rng.uniform(-0.35, 0.35) * y**2  # bent, as cucumbers and bananas are
    else:
        y = y * rng.uniform(0.55, 0.85)
    radii = np.ones_like(t)
    for k in range(2, 6):
        radii += rng.normal(0, 0.035 / k) * np.cos(k * t + rng.uniform(0, 6.3))
    points = np.stack([x * radii, y * radii], 1)
    points = (points - (points.min(0) + points.max(0)) / 2) / np.ptp(points, 0).max() * 0.94
    return np.asarray((points + 0.5) * side, np.float32)


def fruit(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """One fruit or vegetable; a sticker is a part."""
    return grow(rng, side, photos, random_sort(rng))


def grow(rng: Rng, side: int, photos: PhotoBank, sort: Sort) -> list[Layer]:
    """One fruit of a sort."""
    alpha = fill(_body(rng, side, sort.shape), side, side)
    rgb = _peel(rng, side, photos, sort)
    round_off(rng, rgb, alpha, rng.uniform(0.8, 1.3), 0.65)
    parts = no_parts(side)
    if sort.stalk:
        _stalk(rng, side, rgb, alpha)
    if rng.random() < 0.18 and side > 40:
        size = max(6, int(side * rng.uniform(0.1, 0.22)))
        y, x = (int(side * rng.uniform(0.3, 0.6)) for _ in range(2))
        mark = fill(ellipse(size / 2, size / 2, size * 0.47, size * rng.uniform(0.3, 0.47)), size, size)
        view = np.s_[y : y + size, x : x + size]
        mark = mark * (alpha[view] > 0.5)
        blend(rgb[view], mark, print_design(rng, size, size, photos))
        parts[view][mark > 0.5] = 1
    return [Layer(np.clip(rgb, 0, 255), alpha, parts)]


def _peel(rng: Rng, side: int, photos: PhotoBank, sort: Sort) -> Surface:
    if sort.mark < 0.04:
        patch = photos.crop(rng, side, side, zoom=7.0)
        if patch is not None:
            return patch.astype(np.float32)
    tone = sort.tone * rng.normal(1, 0.05, 3).astype(np.float32)
    rgb: Surface = np.broadcast_to(tone, (side, side, 3)).astype(np.float32)
    if rng.random() < 0.6:  # a blush on one side
        amount = np.clip(textures.smooth_noise(rng, side, side, 2.5) + np.float32(0.3), 0, 1)
        rgb += amount[..., None] * (sort.cheek - rgb)
    for cells in (8, 30, 110):
        rgb += textures.smooth_noise(rng, side, side, min(cells, side))[..., None] * np.float32(rng.uniform(0, 9))
    if sort.mark > 0.7:  # pores or freckles
        dots = textures.smooth_noise(rng, side, side, rng.uniform(30, 90))
        rgb += np.clip(dots - np.float32(0.6), 0, 1)[..., None] * np.float32(rng.uniform(-180, 120))
    if 0.04 < sort.mark < 0.2:  # stripes, as melons and courgettes have
        stripes = textures.smooth_noise(rng, side, side, rng.uniform(12, 30), aspect=0.08)
        rgb *= (1 + np.float32(rng.uniform(0.1, 0.4)) * stripes)[..., None]
    return rgb


def _stalk(rng: Rng, side: int, rgb: Surface, alpha: Field) -> None:
    """A dimple or calyx, and a thin stalk that belongs to the fruit, in place."""
    ys = np.flatnonzero(alpha[:, side // 2] > 0.5)
    if len(ys) == 0:
        return
    top = float(ys[0]) + (rng.uniform(0.0, 0.35) * len(ys) if rng.random() < 0.5 else 0.0)
    x = side / 2 + rng.normal(0, 0.04) * side
    dark = np.array([70, 80, 35], np.float32) * np.float32(rng.uniform(0.4, 1.6))
    if rng.random() < 0.5:
        dip = fill(ellipse(x, top, side * 0.12, side * 0.07), side, side)
        dip = cv2.GaussianBlur(dip, (0, 0), max(0.6, side * 0.02))
        rgb *= (1 - dip * np.float32(rng.uniform(0.2, 0.6)))[..., None]
    if rng.random() < 0.4:
        points = int(rng.integers(4, 7)) * 2
        angles = np.linspace(0, 2 * np.pi, points, endpoint=False) + rng.uniform(0, 1)
        reach = np.where(np.arange(points) % 2 == 0, 1.0, 0.3) * side * rng.uniform(0.08, 0.2)
        star = np.stack([x + reach * np.cos(angles), top + reach * np.sin(angles) * 0.7], 1)
        leaf = fill(star.astype(np.float32), side, side)
        blend(rgb, leaf, np.array([70, 110, 40], np.float32) * np.float32(rng.uniform(0.6, 1.3)))
        np.maximum(alpha, leaf, out=alpha)
    if rng.random() < 0.7:
        bend = rng.normal(0, 0.05) * side
        end = max(side * 0.01, top - side * rng.uniform(0.05, 0.16))
        line = np.array([[x, top], [x + bend * 0.3, (top + end) / 2], [x + bend, end]], np.float32)
        stalk = stroke(line, max(1.5, side * rng.uniform(0.015, 0.04)), side, side)
        blend(rgb, stalk, dark)
        np.maximum(alpha, stalk, out=alpha)
