"""Cups, mugs and bowls seen obliquely, with handle, drink, saucer and spoon."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import CutoutBank, PhotoBank
from boothsam.training.prints import print_design
from boothsam.training.shapes import (
    Layer,
    Outline,
    blend,
    cylinder,
    ellipse,
    fill,
    no_parts,
    shade,
    stroke,
)
from boothsam.training.textures import Colour, Field, Rng, Surface
from numpy.typing import NDArray


@dataclass(frozen=True)
class CupForm:
    """Where a cup stands in its patch, in pixels: every circle of it is flattened by `tilt` (1 is seen from above)."""

    side: int
    cx: float
    rim_y: float
    tall: float
    radius: float
    base: float  # radius of the foot relative to the rim's
    tilt: float
    china: Colour

    @property
    def foot_y(self) -> float:
        """Height of the foot's centre."""
        return self.rim_y + self.tall

    def circle(self, share: float = 1.0, drop: float = 0.0) -> Field:
        """Alpha of a disc in the rim's plane, `share` of its radius, `drop` pixels lower."""
        reach = self.radius * share
        return fill(ellipse(self.cx, self.rim_y + drop, reach, reach * self.tilt), self.side, self.side)


def cup(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """Saucer and spoon (when there are any) and cup as layers; the opening is a part of the cup."""
    with_saucer = rng.random() < 0.55
    tilt = float(rng.uniform(0.12, 0.85))
    radius = side * (rng.uniform(0.2, 0.3) if with_saucer else rng.uniform(0.28, 0.38))
    tall = radius * rng.uniform(0.5, 2.2) * np.sqrt(1 - tilt**2)
    china = textures.colour(rng) if rng.random() < 0.5 else np.full(3, rng.uniform(215, 250), np.float32)
    cx = side * (0.5 + rng.normal(0, 0.02))
    form = CupForm(side, cx, side * 0.5 - tall / 2, tall, radius, float(rng.uniform(0.45, 1.0)), tilt, china)
    beneath: list[Layer] = []
    above: list[Layer] = []
    if with_saucer:
        beneath.append(_saucer(rng, form, photos))
        if rng.random() < 0.5:
            (above if rng.random() < 0.5 else beneath).append(_spoon(rng, form))
    rgb = textures.flat(rng, side, side, china)
    if rng.random() < 0.35:
        rgb = np.ascontiguousarray(print_design(rng, side, side, photos))
    levels = np.linspace(0, 1, 24)
    bulge = rng.uniform(-0.1, 0.25)
    widths = radius * (1 + (form.base - 1) * levels + bulge * np.sin(np.pi * levels) * 0.5)
    body = np.maximum(fill(_side_outline(form, levels, widths), side, side), form.circle())
    reach = np.interp(np.clip((np.arange(side) - form.rim_y) / max(tall, 1), 0, 1), levels, widths)
    cylinder(rng, rgb, (cx - reach).astype(np.float32), (cx + reach).astype(np.float32))
    alpha = body
    if rng.random() < 0.85:
        alpha = np.maximum(alpha, _handle(rng, form, rgb, body))
    parts = no_parts(side)
    parts[_opening(rng, form, photos, rgb) > 0.5] = 1
    return [*beneath, Layer(rgb, alpha, parts), *above]


def _side_outline(form: CupForm, levels: NDArray[np.float64], widths: NDArray[np.float64]) -> Outline:
    """The wall from rim to foot and back, with the foot's near arc."""
    heights = form.rim_y + form.tall * levels
    left, right = np.stack([form.cx - widths, heights], 1), np.stack([form.cx + widths, heights], 1)
    arc = ellipse(form.cx, form.foot_y, float(widths[-1]), float(widths[-1]) * form.tilt)[:37]
    return np.asarray(np.concatenate([left, arc[::-1], right[::-1]]), np.float32)


def _opening(rng: Rng, form: CupForm, photos: PhotoBank, rgb: Surface) -> Field:
    """Rim, inner wall and drink, drawn into `rgb`; returns the alpha of what lies inside the rim."""
    glaze = form.china if rng.random() < 0.5 else np.full(3, rng.uniform(200, 250), np.float32)
    blend(rgb, form.circle(), glaze * np.float32(rng.uniform(0.9, 1.12)))
    wall = float(rng.uniform(0.84, 0.96))
    inner = form.circle(wall)
    blend(rgb, inner, glaze * np.float32(rng.uniform(0.45, 0.95)))
    if rng.random() < 0.75:
        drop = form.radius * float(rng.uniform(0.02, 0.5)) * (1 - form.tilt)
        liquid = inner * form.circle(wall * 0.97, drop)
        if rng.random() < 0.4:
            drink = textures.surface(rng, form.side, form.side, photos, 0.15)
        else:
            tone = np.array([rng.uniform(30, 190), rng.uniform(20, 120), rng.uniform(10, 70)], np.float32)
            drink = textures.flat(rng, form.side, form.side, tone)
        blend(rgb, liquid, drink)
        if rng.random() < 0.4:
            foam = form.circle(wall * 0.6, drop) * liquid * np.float32(rng.uniform(0.3, 0.9))
            blend(rgb, foam, np.array([225, 200, 165], np.float32))
    return inner


def _handle(rng: Rng, form: CupForm, rgb: Surface, body: Field) -> Field:
    """Alpha of a handle ring, its shade drawn into `rgb`; what the ring encloses stays a hole."""
    facing = 1 if rng.random() < 0.5 else -1
    reach = form.radius * rng.uniform(0.3, 0.65)
    height = max(form.tall * rng.uniform(0.3, 0.55), form.radius * 0.3) / 1.2
    cx = form.cx + facing * form.radius * rng.uniform(0.85, 1.02)
    cy = form.rim_y + form.tall * rng.uniform(0.35, 0.6)
    ring = ellipse(cx, cy, reach, height, float(rng.normal(0, 0.25)))
    handle = stroke(ring, form.radius * rng.uniform(0.12, 0.26), form.side, form.side, closed=True)
    only = np.clip(handle - body, 0, 1)
    rgb += only[..., None] * (rgb * np.float32(rng.uniform(-0.35, 0.1)))
    return handle


def _saucer(rng: Rng, form: CupForm, photos: PhotoBank) -> Layer:
    """A plate under the cup, with its well and the cup's contact shadow."""
    side, cy = form.side, form.foot_y - form.radius * 0.02
    reach = min(side * 0.485, form.radius * rng.uniform(1.35, 1.9))
    flat = max(form.tilt * rng.uniform(0.85, 1.0), 0.1)
    rgb = textures.flat(rng, side, side, form.china if rng.random() < 0.7 else None)
    if rng.random() < 0.2:
        rgb = np.ascontiguousarray(textures.surface(rng, side, side, photos, 0.3))
    well = fill(ellipse(form.cx, cy + form.radius * 0.03, reach * 0.7, reach * 0.7 * flat), side, side)
    rgb *= (1 + (well - 0.5) * np.float32(rng.uniform(-0.15, 0.15)))[..., None]
    foot = form.radius * form.base * 1.1
    shadow = fill(ellipse(form.cx + rng.normal(0, 0.3) * form.radius, cy, foot, foot * flat), side, side)
    soft = cv2.GaussianBlur(shadow, (0, 0), max(1.0, form.radius * 0.12))
    rgb *= (1 - soft * np.float32(rng.uniform(0.1, 0.6)))[..., None]
    shade(rng, rgb)
    return Layer(rgb, fill(ellipse(form.cx, cy, reach, reach * flat), side, side), no_parts(side))


def _spoon(rng: Rng, form: CupForm) -> Layer:
    """A spoon lying on the saucer."""
    side, radius = form.side, form.radius
    angle = rng.uniform(-0.6, 0.6) + (np.pi if rng.random() < 0.5 else 0)
    direction = np.array([np.cos(angle), np.sin(angle) * form.tilt])
    start = np.array([form.cx, form.foot_y + radius * form.tilt * rng.uniform(0.2, 0.9)])
    end = np.clip(start + direction * radius * 1.5, side * 0.03, side * 0.97)
    alpha = stroke(np.array([start, end], np.float32), max(2.0, radius * 0.09), side, side)
    turn = float(np.arctan2(direction[1], direction[0]))
    bowl = ellipse(float(end[0]), float(end[1]), radius * 0.24, radius * 0.13, turn)
    rgb = textures.gradient(rng, side, side)
    shade(rng, rgb)
    return Layer(rgb, np.maximum(alpha, fill(bowl, side, side)), no_parts(side))
