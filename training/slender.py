"""Thin things, cutlery, and assemblies: several simple shapes of different colours that are one thing."""

from __future__ import annotations

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import CutoutBank, PhotoBank
from boothsam.training.shapes import (
    Layer,
    Outline,
    blend,
    ellipse,
    fill,
    no_parts,
    random_outline,
    round_off,
    shade,
    stroke,
)
from boothsam.training.textures import Field, Rng


def _curve(rng: Rng, side: int, joints: int) -> Outline:
    """A smooth random walk through the patch, (120, 2)."""
    walk = np.cumsum(rng.normal(0, 1, (joints, 2)), 0)
    walk = (walk - walk.min(0)) / max(float(np.ptp(walk, 0).max()), 1e-3) * side * 0.8 + side * 0.1
    t = np.linspace(0, joints - 1, 120)
    line = np.stack([np.interp(t, np.arange(joints), walk[:, k]) for k in range(2)], 1)
    return np.asarray(cv2.GaussianBlur(line.astype(np.float32), (1, 25), 0), np.float32)


def thin(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """Pens, straws, cables, rings, glasses frames, hangers, handles."""
    thickness = max(2.0, side * rng.uniform(0.012, 0.08))
    kind = rng.random()
    if kind < 0.3:
        angle = rng.uniform(0, np.pi)
        way = np.array([np.cos(angle), np.sin(angle)])
        joints = [side / 2 - way * side * 0.44, side / 2 + way * side * 0.2, side / 2 + way * side * 0.44]
        if rng.random() < 0.4:  # a straw's bend
            joints[2] = joints[1] + np.array([-way[1], way[0]]) * side * 0.15 + way * side * 0.1
        alpha = stroke(np.array(joints, np.float32), thickness, side, side)
    elif kind < 0.6:
        alpha = stroke(_curve(rng, side, int(rng.integers(4, 10))), thickness, side, side)
        if rng.random() < 0.4:
            end = side * 0.08
            plug = fill(random_outline(rng, int(end * 2) + 4), int(end * 2) + 4, int(end * 2) + 4)
            alpha[: plug.shape[0], : plug.shape[1]] = np.maximum(alpha[: plug.shape[0], : plug.shape[1]], plug)
    elif kind < 0.8:
        ring = ellipse(side / 2, side / 2, side * 0.42, side * rng.uniform(0.15, 0.42), rng.uniform(0, 3))
        alpha = stroke(ring, thickness, side, side, closed=True)
    else:
        alpha = _spectacles(rng, side, thickness)
    rgb = textures.surface(rng, side, side, photos, 0.1)
    round_off(rng, rgb, alpha, 1.0, 0.6)
    return [Layer(np.clip(rgb, 0, 255), alpha, no_parts(side))]


def _spectacles(rng: Rng, side: int, thickness: float) -> Field:
    r, flat = side * 0.2, rng.uniform(0.6, 1.0)
    frames = [
        stroke(ellipse(side * x, side / 2, r, r * flat), thickness * 0.6, side, side, closed=True) for x in (0.26, 0.74)
    ]
    bridge = np.array([[side * 0.44, side / 2], [side * 0.56, side / 2]], np.float32)
    return np.asarray(np.maximum.reduce([*frames, stroke(bridge, thickness, side, side)]), np.float32)


def cutlery(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """A spoon, fork, knife, brush or pan: a head on a handle, lying at any angle; the handle is a part."""
    width = side * rng.uniform(0.025, 0.06)
    middle = side / 2
    neck = side * rng.uniform(0.3, 0.45)
    line = np.array([[middle, neck * 0.8], [middle, side * 0.95]], np.float32)
    grip = stroke(line, width, side, side)
    wide = stroke(line[1:] - np.array([[0, side * 0.25], [0, 0]], np.float32), width * 1.7, side, side)
    grip = np.maximum(grip, wide) if rng.random() < 0.5 else grip
    kind = rng.random()
    if kind < 0.4:
        head = fill(ellipse(middle, neck * 0.6, side * rng.uniform(0.07, 0.12), neck * 0.52), side, side)
    elif kind < 0.65:
        head = np.zeros((side, side), np.float32)
        tines = int(rng.integers(3, 5))
        gap = side * 0.035
        for k in range(tines):
            x = middle + (k - (tines - 1) / 2) * gap
            tine = np.array([[x, side * 0.05], [x, neck * 0.75]], np.float32)
            head = np.maximum(head, stroke(tine, max(1.5, gap * 0.45), side, side))
        head = np.maximum(head, fill(ellipse(middle, neck * 0.8, tines * gap * 0.5, neck * 0.16), side, side))
    elif kind < 0.85:
        blade = np.array([[0, 0.02], [0.05, 0.12], [0.055, 1.0], [-0.02, 1.0], [-0.02, 0.1]]) * [side, neck]
        head = fill((blade + [middle, side * 0.03]).astype(np.float32), side, side)
    else:
        reach = neck * 0.55
        head = fill(ellipse(middle, reach + side * 0.03, reach, reach), side, side)
    metal = rng.random() < 0.6
    tone = np.full(3, rng.uniform(120, 215), np.float32) if metal else textures.colour(rng)
    rgb = textures.flat(rng, side, side, tone)
    parts = no_parts(side)
    if rng.random() < 0.5:
        blend(rgb, grip, textures.colour(rng))
        parts[grip > 0.5] = 1
    alpha = np.maximum(head, grip)
    round_off(rng, rgb, alpha, rng.uniform(0.3, 1.0), 0.8 if metal else 0.3)
    if metal:
        rgb += textures.smooth_noise(rng, side, side, 5, aspect=0.3)[..., None] * np.float32(rng.uniform(5, 45))
    return [Layer(np.clip(rgb, 0, 255), alpha, parts)]


def assembly(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """A toy, tool, animal or vehicle in the widest sense: body, limbs and add-ons of several colours, one thing."""
    colours = [textures.surface(rng, side, side, photos, 0.35) for _ in range(int(rng.integers(2, 4)))]
    rgb = np.ascontiguousarray(colours[0])
    alpha = np.zeros((side, side), np.float32)
    parts = no_parts(side)
    centre = np.array([0.5, 0.5]) * side

    def add(mask: Field, tint: int, part: int) -> None:
        nonlocal alpha
        blend(rgb, mask, colours[tint % len(colours)])
        edge = cv2.GaussianBlur(mask, (0, 0), max(0.8, side * 0.01)) * (1 - mask)
        rgb.__imul__((1 - edge * np.float32(0.35))[..., None])
        alpha = np.maximum(alpha, mask)
        if part:
            parts[mask > 0.5] = part

    def lump(share: float, at: Outline) -> Field:
        size = max(6, int(side * share))
        patch = fill(random_outline(rng, size), size, size)
        whole = np.zeros((side, side), np.float32)
        y, x = (int(np.clip(v - size / 2, 0, side - size)) for v in (at[1], at[0]))
        whole[y : y + size, x : x + size] = patch
        return whole

    for _ in range(int(rng.integers(0, 5))):  # limbs and poles behind the body
        angle = rng.uniform(0, 2 * np.pi)
        tip = centre + np.array([np.cos(angle), np.sin(angle)]) * side * rng.uniform(0.3, 0.46)
        add(stroke(np.array([centre, tip], np.float32), side * rng.uniform(0.015, 0.1), side, side), 0, 0)
    add(lump(rng.uniform(0.45, 0.75), centre), 0, 0)
    for k in range(int(rng.integers(1, 5))):
        offset = rng.normal(0, 0.16, 2) * side
        mask = lump(rng.uniform(0.12, 0.4), centre + offset)
        add(mask, k + 1, k + 1)
        if rng.random() < 0.4:  # things come in pairs: wheels, eyes, ears
            add(np.ascontiguousarray(mask[:, ::-1]), k + 1, 0)
    if rng.random() < 0.5:
        round_off(rng, rgb, alpha, rng.uniform(0.4, 1.2))
    else:
        shade(rng, rgb)
    if rng.random() < 0.25:  # fur and foliage have no smooth rim
        rough = textures.smooth_noise(rng, side, side, min(side, 200)) * np.float32(rng.uniform(0.1, 0.35))
        soft = cv2.GaussianBlur(alpha, (0, 0), max(0.8, side * 0.005))
        alpha = np.clip((soft + rough * 4 * soft * (1 - soft) - np.float32(0.5)) * 4 + np.float32(0.5), 0, 1)
    alpha = _in_one_piece(alpha)
    parts[alpha <= 0.5] = 0
    return [Layer(np.clip(rgb, 0, 255), alpha, parts)]


def _in_one_piece(alpha: Field) -> Field:
    """The largest connected piece: a thing with crumbs beside it would ask for the impossible."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats((alpha > 0.02).astype(np.uint8))
    if len(stats) < 3:
        return alpha
    return np.asarray(alpha * (regions == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))), np.float32)
