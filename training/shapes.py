"""Outlines and drawing helpers for the object makers: polygons in patch pixels, drawn as antialiased alpha."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import Plane
from boothsam.training.textures import Colour, Field, Rng, Surface
from numpy.typing import NDArray

Outline = NDArray[Any]  # (n, 2) float32 x, y in pixels


@dataclass
class Layer:
    """One drawn thing in a patch: colour (h, w, 3) 0..255, alpha (h, w) 0..1, part ids (h, w) uint8, 0 = no part.

    joined: whether it makes one group with the other layers: a cup and its saucer do, a hand and a fruit do not.
    through: (h, w) 0..1, how much of what stands behind is seen through the thing; None is opaque.
    same_as: index of an earlier layer of the same thing (fingers before, palm behind); None: a thing of its own.
    """

    rgb: Surface
    alpha: Field
    parts: Plane
    joined: bool = True
    through: Field | None = None
    same_as: int | None = None


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


def relief(mask: Field, roundness: float) -> Field:
    """(h, w) heights 0..1 of a pillow over a mask: rising from the rim within `roundness` (share of its half width)."""
    # The patch's edge is no rim: a forearm that leaves the frame stays round up to the border.
    solid = cv2.copyMakeBorder((mask > 0.5).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    if solid.all():
        return np.ones(mask.shape, np.float32)
    depth = cv2.distanceTransform(solid, cv2.DIST_L2, 5)[1:-1, 1:-1]
    rise = np.clip(depth / max(float(depth.max()) * roundness, 1e-3), 0, 1)
    height = np.sqrt(np.maximum(1 - (1 - rise) ** 2, 0))
    return np.asarray(cv2.GaussianBlur(height.astype(np.float32), (0, 0), max(0.6, mask.shape[0] / 80)), np.float32)


def round_off(rng: Rng, rgb: Surface, mask: Field, roundness: float = 1.0, gloss: float = 0.4) -> None:
    """Light a flat drawing as if it bulged towards the camera, in place: lit side, dark side, now and then a highlight.

    gloss: probability of a specular highlight. Computed at a quarter of the size: shading is smooth.
    """
    h, w = mask.shape
    small = cv2.resize(mask, (max(4, w // 4), max(4, h // 4)), interpolation=cv2.INTER_AREA)
    height = relief(small, roundness)
    bulge = small.shape[0] * np.float32(0.25)
    gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) / 8 * bulge
    gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) / 8 * bulge
    norm = np.sqrt(gx * gx + gy * gy + 1)
    angle, lift = rng.uniform(-2.6, -0.5), rng.uniform(0.4, 1.2)
    lamp = np.array([np.cos(angle), np.sin(angle), lift], np.float32)
    lamp /= np.linalg.norm(lamp)
    lambert = np.clip((-gx * lamp[0] - gy * lamp[1] + lamp[2]) / norm, 0, 1)
    ambient = np.float32(rng.uniform(0.3, 0.75))
    light = ambient + (np.float32(1.12) - ambient) * lambert
    rgb *= cv2.resize(light.astype(np.float32), (w, h))[..., None]
    if rng.random() < gloss:
        half = lamp + np.array([0, 0, 1], np.float32)
        half /= np.linalg.norm(half)
        mirror = np.clip((-gx * half[0] - gy * half[1] + half[2]) / norm, 0, 1) ** int(rng.integers(12, 120))
        rgb += cv2.resize(mirror.astype(np.float32), (w, h))[..., None] * np.float32(rng.uniform(30, 170))
