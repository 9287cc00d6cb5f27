"""Prompts as users give them, drawn from exact masks: boxes tight, loose and jittered, clicks, corrections."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.training.generator import Sample
from boothsam.training.textures import Rng
from numpy.typing import NDArray

MAX_POINTS = 8  # rows of a prompt in a training batch; unused ones carry label -1, which the decoder ignores
READINGS = 3  # target and up to two other readings of the same click

Bits = NDArray[np.bool_]


@dataclass
class Prompt:
    """points (MAX_POINTS, 2) float32 x, y relative to the frame (0..1); labels (MAX_POINTS,) int32, SAM's;

    readings (READINGS, m, m) float32 coverage 0..1 of a quarter-size mask, the wanted one first; valid (READINGS,);
    single: which reading the single-mask token should give.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int32]
    readings: NDArray[np.float32]
    valid: NDArray[np.bool_]
    single: int


def candidates(sample: Sample, smallest: float) -> list[tuple[str, Bits]]:
    """All masks of a scene with at least `smallest` pixels: ("whole" | "part" | "group", (h, w) bool)."""
    found: list[tuple[str, Bits]] = []
    for kind, plane in (("whole", sample.instances), ("part", sample.parts)):
        areas = np.bincount(plane.ravel(), minlength=2)
        for value in np.flatnonzero(areas >= smallest):
            if value:
                found.append((kind, plane == value))
    for group in sample.groups:
        mask = np.isin(sample.instances, group)
        if mask.sum() >= smallest and all((sample.instances == k).any() for k in group):
            found.append(("group", mask))
    return found


def box_of(mask: Bits) -> tuple[float, float, float, float]:
    """Tight box x0, y0, x1, y1 in pixels, x1 and y1 exclusive."""
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def user_box(rng: Rng, mask: Bits) -> NDArray[np.float32]:
    """(2, 2) corners as someone draws them: tight (30 %), jittered up to 10 % a side (50 %), or too large (20 %)."""
    x0, y0, x1, y1 = box_of(mask)
    w, h = x1 - x0, y1 - y0
    kind = rng.random()
    if kind < 0.3:
        pull = np.zeros(4)
    elif kind < 0.8:
        pull = rng.normal(0, 0.05, 4).clip(-0.1, 0.1)
    else:
        pull = rng.uniform(0.0, 0.2, 4) * np.array([-1, -1, 1, 1])
    corners = np.array([x0, y0, x1, y1]) + pull * np.array([w, h, w, h])
    side = np.array([mask.shape[1], mask.shape[0]] * 2)
    return np.asarray(np.clip(corners, 0, side).reshape(2, 2), np.float32)


def frame_box(rng: Rng, height: int, width: int) -> NDArray[np.float32]:
    """(2, 2) corners of a box about the whole photo, up to 8 % smaller on each side."""
    inset = rng.uniform(0, 0.08, 4) * np.array([width, height, width, height])
    corners = np.array([0, 0, width, height]) + inset * np.array([1, 1, -1, -1])
    return np.asarray(corners.reshape(2, 2), np.float32)


def click_in(rng: Rng, mask: Bits, centred: float = 0.5) -> NDArray[np.float32]:
    """(2,) a place inside the mask, x, y: its deepest point with probability `centred`, else anywhere off the rim."""
    small = mask.astype(np.uint8)
    framed = cv2.copyMakeBorder(small, 1, 1, 1, 1, cv2.BORDER_CONSTANT)  # the frame's edge is an edge of the mask
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    if rng.random() < centred:
        index = int(np.argmax(depth))
    else:
        inner = np.flatnonzero(depth >= 0.3 * depth.max())
        index = int(inner[rng.integers(len(inner))])
    return np.array([index % mask.shape[1] + 0.5, index // mask.shape[1] + 0.5], np.float32)


def click_beside(rng: Rng, mask: Bits) -> NDArray[np.float32] | None:
    """(2,) a background click near the mask, or None when there is no room."""
    x0, y0, x1, y1 = box_of(mask)
    reach = 0.3 * max(x1 - x0, y1 - y0) + 2
    window = np.zeros_like(mask)
    window[max(0, int(y0 - reach)) : int(y1 + reach), max(0, int(x0 - reach)) : int(x1 + reach)] = True
    free = np.flatnonzero(window & ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool))
    if len(free) == 0:
        return None
    index = int(free[rng.integers(len(free))])
    return np.array([index % mask.shape[1] + 0.5, index // mask.shape[1] + 0.5], np.float32)


def shrink(mask: Bits, factor: int = 4) -> NDArray[np.float32]:
    """Coverage 0..1 per factor x factor cell."""
    h, w = mask.shape
    return np.asarray(mask.reshape(h // factor, factor, w // factor, factor).mean((1, 3), dtype=np.float32))


def main_thing(masks: list[tuple[str, Bits]], height: int, width: int) -> int | None:
    """Index of the whole thing that anybody would call the photo's product, or None where two or none could be.

    masks (S, S) bool in the padded frame; the photo is its first height x width pixels. The main thing is not cut by
    the border for long, and by area and nearness to the centre worth three of the next one.
    """
    grouped = [mask for kind, mask in masks if kind == "group"]
    worth = np.zeros(len(masks))
    for index, (kind, padded) in enumerate(masks):
        if kind != "whole":
            continue
        mask = padded[:height, :width]
        area = float(mask.mean())
        rim = int(mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum())
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        away = np.hypot((ys[0] + ys[-1]) / 2 / height - 0.5, (xs[0] + xs[-1]) / 2 / width - 0.5)
        cut = rim > 0.15 * 2 * (height + width)
        worth[index] = area * (1 - 0.7 * away) * (0.3 if cut else 1.0)
    best = int(np.argmax(worth))
    rest = np.delete(worth, best)
    if worth[best] < 0.08 or (len(rest) and rest.max() > worth[best] / 3):
        return None
    return None if any((group & masks[best][1]).any() for group in grouped) else best


def draw_prompt(
    rng: Rng, masks: list[tuple[str, Bits]], chosen: int, photo_hw: tuple[int, int] | None = None
) -> Prompt:
    """A first prompt for `masks[chosen]`, all masks (S, S) bool in the padded frame.

    With `photo_hw` the prompt is a box about the whole photo: "the product, wherever it is".
    """
    kind, mask = masks[chosen]
    side = mask.shape[0]
    points = np.zeros((MAX_POINTS, 2), np.float32)
    labels = np.full(MAX_POINTS, -1, np.int32)
    clicks: list[tuple[NDArray[np.float32], int]] = []
    style = rng.random() if photo_hw is None else 0.0
    boxed = style < 0.42 or style >= 0.92
    if style >= 0.42:
        clicks.append((click_in(rng, mask), 1))
    if 0.78 <= style < 0.92 or (boxed and rng.random() < 0.1):
        for _ in range(int(rng.integers(1, 3))):
            beside = click_beside(rng, mask)
            if rng.random() < 0.35:
                clicks.append((click_in(rng, mask, 0.0), 1))
            elif beside is not None:
                clicks.append((beside, 0))
    for row, (place, label) in enumerate(clicks):
        points[row], labels[row] = place, label
    if boxed:
        box = user_box(rng, mask) if photo_hw is None else frame_box(rng, *photo_hw)
        points[len(clicks) : len(clicks) + 2] = box
        labels[len(clicks) : len(clicks) + 2] = (2, 3)
    readings = np.zeros((READINGS, side // 4, side // 4), np.float32)
    valid = np.zeros(READINGS, np.bool_)
    readings[0], valid[0] = shrink(mask), True
    single = 0
    if not boxed:
        used = 1
        for index, (other_kind, other) in enumerate(masks):
            fits = all(bool(other[int(p[1]), int(p[0])]) == bool(lab) for p, lab in clicks)
            if index == chosen or not fits or used == READINGS:
                continue
            readings[used], valid[used] = shrink(other), True
            if kind != "whole" and other_kind == "whole" and len(clicks) == 1:
                single = used
            used += 1
    return Prompt(points / side, labels, readings, valid, single)


def correction(rng: Rng, predicted: Bits, wanted: Bits) -> tuple[NDArray[np.float32], int] | None:
    """A click (x, y in 0..1, label) on the larger error, deep inside it; None when nothing is wrong."""
    missing, extra = wanted & ~predicted, predicted & ~wanted
    error, label = (missing, 1) if missing.sum() >= extra.sum() else (extra, 0)
    if error.sum() == 0:
        return None
    count, regions, stats, _ = cv2.connectedComponentsWithStats(error.astype(np.uint8), connectivity=4)
    biggest = 1 + int(np.argmax(stats[1:count, cv2.CC_STAT_AREA]))
    return click_in(rng, regions == biggest, 0.7) / error.shape[0], label
