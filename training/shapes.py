"""Outlines and drawing helpers for the object makers: polygons in patch pixels, drawn as antialiased alpha."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import PhotoBank, Plane
from boothsam.training.textures import Colour, Field, Rng, Surface
from numpy.typing import NDArray

Outline = NDArray[Any]  # (n, 2) float32 x, y in pixels


@dataclass
class Layer:
    """One drawn thing in a patch: colour (h, w, 3) 0..255, alpha (h, w) 0..1, part ids (h, w) uint8, 0 = no part.

    joined: whether it makes one group with the other layers: a cup and its saucer do, a hand and a fruit do not.
    """

    rgb: Surface
    alpha: Field
    parts: Plane
    joined: bool = True


def no_parts(side: int) -> Plane:
    """Part ids of a thing without any."""
    return np.zeros((side, side), np.uint8)


def fill(outline: Outline, height: int, width: int) -> Field:
    """Antialiased (height, width) alpha 0..1 of a polygon."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def stroke(points: Outline, thickness: float, height: int, width: int, closed: bool = False) -> Field:
    """Antialiased alpha of a round-ended polyline."""
    mask = np.zeros((height, width), np.uint8)
    line = np.round(points * 16).astype(np.int32)
    cv2.polylines(mask, [line], closed, 255, max(1, round(thickness)), cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0, count: int = 72) -> Outline:
    """Points of an ellipse, `turn` in radians."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    x, y = rx * np.cos(t), ry * np.sin(t)
    c, s = np.cos(turn), np.sin(turn)
    return np.stack([cx + x * c - y * s, cy + x * s + y * c], 1).astype(np.float32)


def random_outline(rng: Rng, side: int) -> Outline:
    """Superellipse, polygon, star or blob filling most of a side x side patch."""
    t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    kind = rng.random()
    if kind < 0.35:
        power = 2 / rng.uniform(1.2, 8)
        x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** power
        y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** power
    elif kind < 0.55:
        count = int(rng.integers(3, 9))
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        radii = rng.uniform(0.55, 1.0, count)
        x, y = radii * np.cos(angles), radii * np.sin(angles)
    elif kind < 0.65:
        count = int(rng.integers(4, 9)) * 2
        angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
        radii = np.where(np.arange(count) % 2 == 0, 1.0, rng.uniform(0.4, 0.85))
        x, y = radii * np.cos(angles), radii * np.sin(angles)
    else:
        radii = np.ones_like(t)
        for k in range(2, 8):
            radii += rng.normal(0, 0.35 / k) * np.cos(k * t + rng.uniform(0, 6.3))
        radii = np.clip(radii, 0.25, None) / radii.max()
        x, y = radii * np.cos(t), radii * np.sin(t)
    turn, squash = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.0)
    y = y * squash
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    points = points / np.abs(points).max()
    return np.asarray((points * 0.48 + 0.5) * side, np.float32)


def blend(rgb: Surface, alpha: Field, paint: Surface | Colour) -> None:
    """Paint over `rgb` in place where `alpha` is set; `paint` is a colour (3,) or a surface."""
    rgb += alpha[..., None] * (paint - rgb)


def letters(rng: Rng, height: int, width: int, ink: Colour, rgb: Surface) -> None:
    """A line of random text, in place, fitted to the given width."""
    count = int(rng.integers(2, 9))
    text = "".join(chr(int(c)) for c in rng.integers(48, 123, count))
    font = int(rng.integers(8))
    thickness = int(rng.integers(1, 4))
    (tw, th), _ = cv2.getTextSize(text, font, 1.0, thickness)
    scale = min(width * rng.uniform(0.4, 0.95) / max(tw, 1), height * 0.5 / max(th, 1))
    x = int((width - tw * scale) / 2)
    y = int(rng.uniform(0.2, 0.95) * height)
    mask = np.zeros((height, width), np.uint8)
    cv2.putText(mask, text, (x, y), font, scale, 255, thickness, cv2.LINE_AA)
    blend(rgb, mask.astype(np.float32) / 255, ink)


def print_design(rng: Rng, height: int, width: int, photos: PhotoBank) -> Surface:
    """A package front: ground, bands, a picture, text, a barcode."""
    height, width = max(height, 4), max(width, 4)
    rgb = np.ascontiguousarray(textures.surface(rng, height, width, photos, 0.15))
    for _ in range(int(rng.integers(0, 3))):
        y, h = int(rng.integers(height)), int(height * rng.uniform(0.05, 0.4)) + 1
        rgb[y : y + h] = textures.colour(rng)
    if rng.random() < 0.5:
        mask = fill(random_outline(rng, min(height, width)), min(height, width), min(height, width))
        side = int(mask.shape[0] * rng.uniform(0.3, 0.9)) + 2
        mask = cv2.resize(mask, (side, side))
        y, x = int(rng.integers(max(1, height - side))), int(rng.integers(max(1, width - side)))
        view = rgb[y : y + side, x : x + side]
        blend(
            view,
            mask[: view.shape[0], : view.shape[1]],
            textures.surface(rng, view.shape[0], view.shape[1], photos, 0.6),
        )
    for _ in range(int(rng.integers(0, 4))):
        letters(rng, height, width, textures.colour(rng), rgb)
    if rng.random() < 0.25:
        bw, bh = max(6, int(width * rng.uniform(0.2, 0.5))), max(3, int(height * rng.uniform(0.06, 0.2)))
        y, x = int(rng.integers(max(1, height - bh))), int(rng.integers(max(1, width - bw)))
        bars = np.repeat(rng.integers(0, 2, bw // 2 + 1), 2)[:bw].astype(np.float32) * 235
        rgb[y : y + bh, x : x + bw] = bars[: rgb[y : y + bh, x : x + bw].shape[1], None]
    return rgb


def shade(rng: Rng, rgb: Surface) -> None:
    """Uneven light over a thing, in place."""
    h, w = rgb.shape[:2]
    strength = rng.uniform(0, 0.45)
    rgb *= (1 - strength * textures.ramp(rng, h, w))[..., None]


def cylinder(rng: Rng, rgb: Surface, left: Field, right: Field) -> None:
    """Shade rows as an upright cylinder between `left` and `right` (h,) edges, with a highlight stripe, in place."""
    w = rgb.shape[1]
    xs = np.arange(w, dtype=np.float32)[None]
    u = (xs - left[:, None]) / np.maximum(right - left, 1)[:, None] * 2 - 1
    lamp = rng.uniform(-0.6, 0.6)
    light = np.sqrt(np.clip(1 - np.clip(np.abs(u - lamp) / 1.7, 0, 1) ** 2, 0.02, 1))
    rgb *= (1 - rng.uniform(0.1, 0.6) * (1 - light))[..., None]
    if rng.random() < 0.55:
        stripe = np.exp(-((u - rng.uniform(-0.7, 0.7)) ** 2) / rng.uniform(0.001, 0.02))
        rgb += (stripe * rng.uniform(20, 150))[..., None]
