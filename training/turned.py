"""Turned things: bottles, jars, cans, tubs, tumblers, with wrapped labels, caps and openings, opaque or see-through."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import CutoutBank, PhotoBank, Plane
from boothsam.training.prints import wrap_design
from boothsam.training.shapes import Layer, blend, ellipse, fill
from boothsam.training.textures import Field, Rng, Surface
from numpy.typing import NDArray

LEVELS = 96


@dataclass(frozen=True)
class Form:
    """half (LEVELS,): radius from top to bottom relative to the patch; cap, label: shares of the height, or None.

    tilt: flattening of every circle (0: seen level, 1: from above).
    """

    kind: str
    half: NDArray[np.float64]
    cap: float
    label: tuple[float, float] | None
    tilt: float
    glass: bool
    bowl: float = 1.0  # share of the height that can hold a drink


def _form(rng: Rng) -> Form:
    ys = np.linspace(0, 1, LEVELS)
    kind = str(rng.choice(["bottle", "jar", "can", "tub", "tumbler", "goblet"], p=[0.44, 0.16, 0.13, 0.13, 0.09, 0.05]))
    tilt = float(rng.uniform(0.0, 0.25) if rng.random() < 0.7 else rng.uniform(0.2, 0.6))
    label: tuple[float, float] | None = None
    cap, bowl_ends = 0.0, 1.0
    if kind == "bottle":
        body = rng.uniform(0.11, 0.24)
        neck = body * rng.uniform(0.25, 0.75)
        shoulder, spread = rng.uniform(0.18, 0.45), rng.uniform(0.012, 0.07)
        half = neck + (body - neck) / (1 + np.exp(-np.clip((ys - shoulder) / spread, -50, 50)))
        half *= 1 + rng.uniform(0, 0.05) * np.sin(ys * rng.uniform(3, 14)) * (ys > shoulder)
        half *= np.clip((1.02 - ys) / 0.03, 0, 1) ** 0.3
        cap = shoulder * rng.uniform(0.15, 0.55)
        half[ys < cap] = neck * rng.uniform(1.02, 1.3)
        label = (min(0.9, shoulder + rng.uniform(0.05, 0.2)), rng.uniform(0.7, 0.95))
    elif kind == "jar":
        body = rng.uniform(0.24, 0.42)
        cap = rng.uniform(0.1, 0.24)
        half = np.where(ys < cap, body * rng.uniform(0.85, 1.0), body * np.clip((1.03 - ys) / 0.06, 0, 1) ** 0.25)
        label = (cap + rng.uniform(0.06, 0.2), rng.uniform(0.75, 0.95))
    elif kind == "can":
        body = rng.uniform(0.2, 0.44)
        half = body * np.clip(np.minimum(ys, 1 - ys) / 0.04, 0.86, 1)
        label = (0.03, 0.97)
    elif kind == "tub":
        body = rng.uniform(0.36, 0.46)
        half = body * (1 - ys * rng.uniform(0.08, 0.35))
        cap = rng.uniform(0.05, 0.13)
        half[ys < cap] *= 1.05
        label = (cap, rng.uniform(0.9, 1.0))
    elif kind == "goblet":
        body, stem = rng.uniform(0.2, 0.32), rng.uniform(0.012, 0.03)
        deep, foot = rng.uniform(0.4, 0.6), rng.uniform(0.93, 0.97)
        bowl = np.sqrt(np.clip(1 - (ys / deep) ** rng.uniform(2, 4), 0, 1))
        half = np.maximum(body * bowl, stem)
        half = np.where(ys > foot, body * 0.8 * np.clip((ys - foot) / (1 - foot), 0.1, 1) ** 0.5, half)
        tilt = min(max(tilt, 0.05), 0.2)
        bowl_ends = float(deep)
    else:
        body = rng.uniform(0.22, 0.4)
        half = body * (1 - ys * rng.uniform(0, 0.3)) * (1 + rng.uniform(0, 0.1) * np.sin(ys * np.pi))
        tilt = max(tilt, 0.1)
    if rng.random() < 0.18:
        label = None
    if kind in ("bottle", "jar") and rng.random() < 0.15:
        cap = 0.0
    glass = rng.random() < {"tumbler": 0.75, "goblet": 0.85, "bottle": 0.4, "jar": 0.4}.get(kind, 0.0)
    return Form(kind, half, cap, label, tilt, glass, bowl_ends)


def bottle(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """A bottle, jar, can, tub or tumbler; label band 1, cap 2 and opening 3 are parts; glass shows what is behind."""
    form = _form(rng)
    squat = 1.0 if form.kind == "bottle" else float(rng.uniform(0.4, 1.0))
    top_r, foot_r = float(form.half[0]) * side, float(form.half[-1]) * side
    tall = side * 0.96 * squat - (top_r + foot_r) * form.tilt
    tall = max(tall, side * 0.12)
    y_top = (side - tall - (foot_r - top_r) * form.tilt) / 2
    rows = y_top + np.linspace(0, 1, LEVELS) * tall
    widths = form.half * side
    cx = side / 2
    wall = np.concatenate([np.stack([cx - widths, rows], 1), np.stack([cx + widths, rows], 1)[::-1]])
    alpha = fill(wall.astype(np.float32), side, side)
    rim = fill(ellipse(cx, y_top, top_r, top_r * form.tilt), side, side)
    # A wall that narrows towards the foot still shows the near arcs of the wider circles above it.
    low = range(LEVELS - 1, LEVELS - 9, -2)
    arcs = [fill(ellipse(cx, rows[k], widths[k], widths[k] * form.tilt), side, side) for k in low]
    alpha = np.maximum.reduce([alpha, rim, *arcs])
    strip, marks, clear = _strip(rng, form, int(min(480, max(16, tall))), side, photos)
    # Every pixel's height and angle on the surface, then one lookup in the strip; only where the thing is.
    x0, x1 = max(0, int(cx - widths.max()) - 2), min(side, int(cx + widths.max()) + 3)
    view = np.s_[:, x0:x1]
    ys = np.arange(side, dtype=np.float32)
    half = np.interp(ys, rows, widths).astype(np.float32)
    u = (np.arange(x0, x1, dtype=np.float32)[None] - np.float32(cx)) / np.maximum(half, 1)[:, None]
    u = np.clip(u, -1, 1)
    sag = np.float32(form.tilt) * half[:, None] * np.sqrt(1 - u * u)
    v = np.clip((ys[:, None] - sag - np.float32(y_top)) / np.float32(tall), 0, 1) * np.float32(strip.shape[0] - 1)
    across = (np.arcsin(u) / np.float32(np.pi) + np.float32(0.5)) * np.float32(strip.shape[1] - 1)
    rgb, parts = np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.uint8)
    drawn = np.asarray(cv2.remap(strip, across, v, cv2.INTER_LINEAR), np.float32)
    _light(rng, drawn, u, form.kind == "can" or form.glass)
    rgb[view], parts[view] = drawn, cv2.remap(marks, across, v, cv2.INTER_NEAREST)
    through: Field | None = None
    if form.glass:
        through = np.zeros((side, side), np.float32)
        through[view] = cv2.remap(clear, across, v, cv2.INTER_LINEAR) * np.clip(1.15 - u**4, 0, 1)
    if form.tilt > 0.02:
        _mouth(rng, form, rgb, parts, through, (cx, y_top, top_r))
    parts[alpha <= 0.5] = 0
    return [Layer(np.clip(rgb, 0, 255), alpha, parts, through=through)]


def _strip(rng: Rng, form: Form, height: int, side: int, photos: PhotoBank) -> tuple[Surface, Plane, Field]:
    """The unrolled visible half: colour, part ids and clearness per height and angle."""
    width = int(min(420, max(16, float(form.half.max()) * side * 2.2)))
    ground = textures.colour(rng)
    if form.kind == "can" and rng.random() < 0.6:
        ground = np.full(3, rng.uniform(140, 215), np.float32)
    rgb = textures.flat(rng, height, width, ground)
    marks = np.zeros((height, width), np.uint8)
    clear = np.zeros((height, width), np.float32)
    if form.glass:
        rgb = textures.flat(rng, height, width, np.clip(ground * 0.5 + 100, 0, 255) if rng.random() < 0.7 else ground)
        clear[:] = np.float32(rng.uniform(0.4, 0.88))
        if rng.random() < 0.6:
            level, bottom = int(height * form.bowl * rng.uniform(0.1, 0.6)), int(height * form.bowl)
            drink = textures.colour(rng)
            rgb[level:bottom] = drink
            clear[level:bottom] = np.float32(rng.uniform(0.0, 0.6))
            rgb[level : level + max(1, height // 100)] *= np.float32(0.7)
    if form.label is not None:
        y0, y1 = int(form.label[0] * height), int(form.label[1] * height)
        if y1 - y0 > 6:
            x0, x1 = 0, width
            if rng.random() < 0.25:
                x0, x1 = int(width * rng.uniform(0.05, 0.3)), int(width * rng.uniform(0.7, 0.95))
            art = wrap_design(rng, y1 - y0, [x1 - x0], photos)[: y1 - y0, : x1 - x0]
            rgb[y0 : y0 + art.shape[0], x0 : x0 + art.shape[1]] = art
            marks[y0:y1, x0:x1] = 1
            clear[y0:y1, x0:x1] = 0
    cap = int(form.cap * height)
    if cap > 1:
        rgb[:cap] = textures.colour(rng)
        if rng.random() < 0.6:  # ribs
            ribs = np.sin(np.linspace(0, rng.uniform(60, 160), width, dtype=np.float32))
            rgb[:cap] *= (1 + np.float32(rng.uniform(0.02, 0.15)) * ribs)[None, :, None]
        rgb[max(0, cap - max(1, height // 90)) : cap] *= np.float32(rng.uniform(0.5, 0.9))
        marks[:cap] = 2
        clear[:cap] = 0
    return rgb, marks, clear


def _light(rng: Rng, rgb: Surface, u: Field, shiny: bool) -> None:
    """Light a turned surface by its angle, in place."""
    lamp = np.float32(rng.uniform(-0.7, 0.7))
    cosine = np.sqrt(np.clip(1 - ((u - lamp) / np.float32(1.75)) ** 2, 0, 1))
    ambient = np.float32(rng.uniform(0.35, 0.85))
    rgb *= (ambient + (np.float32(1.08) - ambient) * cosine)[..., None]
    for _ in range(int(rng.integers(1, 4)) if shiny else int(rng.random() < 0.6)):
        place, wide = np.float32(rng.uniform(-0.85, 0.85)), np.float32(rng.uniform(0.0008, 0.015))
        stripe = np.exp(-((u - place) ** 2) / wide)
        rgb += stripe[..., None] * np.float32(rng.uniform(20, 140))
    if shiny and rng.random() < 0.5:
        rgb *= (1 - np.float32(rng.uniform(0.2, 0.7)) * u**8)[..., None]


def _mouth(
    rng: Rng, form: Form, rgb: Surface, parts: Plane, through: Field | None, at: tuple[float, float, float]
) -> None:
    """The lid's top or the opening, in place."""
    cx, cy, radius = at
    side = rgb.shape[0]
    disc = fill(ellipse(cx, cy, radius, radius * form.tilt), side, side)
    row = min(side - 1, max(0, int(cy + radius * form.tilt) + 1))
    tone = rgb[row, int(cx)].copy()
    closed = form.cap > 0 or form.kind == "can"
    blend(rgb, disc, np.clip(tone * np.float32(rng.uniform(0.85, 1.25)), 0, 255))
    inner = fill(ellipse(cx, cy, radius * 0.88, radius * 0.88 * form.tilt), side, side)
    blend(rgb, inner, tone * np.float32(rng.uniform(0.75, 1.15) if closed else rng.uniform(0.3, 0.8)))
    if form.kind == "can":
        tab = fill(ellipse(cx, cy + radius * 0.2 * form.tilt, radius * 0.25, radius * 0.4 * form.tilt), side, side)
        blend(rgb, tab, tone * np.float32(0.7))
    if through is not None and not closed:
        through[inner > 0.5] = np.float32(rng.uniform(0.3, 0.8))
    parts[disc > 0.5] = 2 if form.cap > 0 else 3
