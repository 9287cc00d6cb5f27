"""Things to segment: real product cut-outs and drawn packages, bottles, cups, plates, hands, wires.

Every maker returns a list of `Layer` in one side x side patch, back to front: more than one layer is a group (a cup on
its saucer) whose layers are objects of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import CutoutBank, PhotoBank
from boothsam.training.shapes import (
    Layer,
    blend,
    cylinder,
    ellipse,
    fill,
    letters,
    no_parts,
    print_design,
    random_outline,
    shade,
    stroke,
)
from boothsam.training.tableware import cup
from boothsam.training.textures import Rng

Layers = list[Layer]


def _sticker(rng: Rng, layer: Layer, photos: PhotoBank, part: int) -> None:
    """A label patch on a thing, recorded as a part."""
    side = layer.alpha.shape[0]
    if side < 12:  # too small to carry one
        return
    size = max(6, int(side * rng.uniform(0.15, 0.5)))
    outline = random_outline(rng, size) if rng.random() < 0.4 else _box_outline(rng, size)
    patch = fill(outline, size, size)
    ys, xs = np.nonzero(layer.alpha > 0.5)
    if len(ys) == 0:
        return
    k = int(rng.integers(len(ys)))
    y, x = int(np.clip(ys[k] - size // 2, 0, side - size)), int(np.clip(xs[k] - size // 2, 0, side - size))
    view = np.s_[y : y + size, x : x + size]
    mask = patch * (layer.alpha[view] > 0.5)
    blend(layer.rgb[view], mask, print_design(rng, size, size, photos))
    layer.parts[view][mask > 0.5] = part


def _box_outline(rng: Rng, size: int) -> np.ndarray:
    w, h = rng.uniform(0.5, 0.98), rng.uniform(0.3, 0.98)
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]], np.float32) * 0.5
    turn = rng.normal(0, 0.15)
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], np.float32)
    return np.asarray((corners @ spin * 0.9 + 0.5) * size, np.float32)


def real_product(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> Layers:
    """A photographed product, scaled to the patch, sometimes recoloured or mirrored."""
    rgb, alpha = cutouts.pick(rng)
    h, w = alpha.shape
    stretch = rng.uniform(0.85, 1.18)
    scale = side * 0.98 / max(h, w * stretch)
    size = (max(2, int(w * stretch * scale)), max(2, int(h * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = np.clip(cv2.resize(rgb, size, interpolation=method), 0, 255).astype(np.float32)
    matte = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        picture = picture[:, :, rng.permutation(3)]
    if rng.random() < 0.5:
        picture, matte = picture[:, ::-1], matte[:, ::-1]
    layer = Layer(np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32), no_parts(side))
    y, x = (side - size[1]) // 2, (side - size[0]) // 2
    view = np.s_[y : y + size[1], x : x + size[0]]
    layer.rgb[view], layer.alpha[view] = picture, matte.astype(np.float32) / 255
    if rng.random() < 0.15:
        _sticker(rng, layer, photos, 1)
    return [layer]


def plain_shape(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> Layers:
    """An outline filled with any surface; sometimes with a hole or stickers."""
    alpha = fill(random_outline(rng, side), side, side)
    if rng.random() < 0.15:
        size = int(side * rng.uniform(0.15, 0.45)) + 3
        y, x = rng.integers(0, side - size + 1, 2)
        alpha[y : y + size, x : x + size] *= 1 - fill(random_outline(rng, size), size, size)
    rgb = np.ascontiguousarray(textures.surface(rng, side, side, photos, 0.5))
    layer = Layer(rgb, alpha, no_parts(side))
    for part in range(1, int(rng.integers(1, 4))):
        _sticker(rng, layer, photos, part)
    shade(rng, layer.rgb)
    return [layer]


def package(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> Layers:
    """A carton: front with a print, one side and the top in another light; the front is a part."""
    w, h = rng.uniform(0.3, 0.75), rng.uniform(0.4, 0.8)
    dx, dy = rng.uniform(-0.25, 0.25), rng.uniform(0.02, 0.2)
    left, right = 0.5 - (w + dx) / 2, 0.5 + (w - dx) / 2
    bottom, top = 0.5 + (h + dy) / 2, 0.5 - (h - dy) / 2
    lean = rng.normal(0, 0.02)
    front = np.array([[left, top], [right, top + lean], [right - lean, bottom + lean], [left, bottom]], np.float32)
    shift = np.array([dx, -dy], np.float32)
    edge = [1, 2] if dx > 0 else [0, 3]
    flank = np.array([front[edge[0]], front[edge[0]] + shift, front[edge[1]] + shift, front[edge[1]]], np.float32)
    lid = np.array([front[0], front[1], front[1] + shift, front[0] + shift], np.float32)
    layer = Layer(np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32), no_parts(side))
    same = textures.colour(rng)
    unit = max(8, side // 2)
    for index, quad in enumerate((lid, flank, front)):
        face = (
            print_design(rng, unit, unit, photos)
            if index == 2 or rng.random() < 0.4
            else textures.flat(rng, unit, unit, same)
        )
        face = face * np.float32(1.0 if index == 2 else rng.uniform(0.45, 1.1))
        source = np.array([[0, 0], [unit, 0], [unit, unit], [0, unit]], np.float32)
        warp = cv2.getPerspectiveTransform(source, quad * side)
        drawn = cv2.warpPerspective(face, warp, (side, side), borderMode=cv2.BORDER_REPLICATE)
        mask = fill(quad * side, side, side)
        blend(layer.rgb, (mask > 0).astype(np.float32), drawn)
        layer.alpha = np.maximum(layer.alpha, mask)
        if index == 2:
            layer.parts[mask > 0.5] = 1
    shade(rng, layer.rgb)
    return [layer]


def bottle(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> Layers:
    """A turned thing: bottle, jar, can, tube, tumbler; label band and cap are parts; some are see-through."""
    ys = np.linspace(0, 1, side, dtype=np.float32)
    body = rng.uniform(0.12, 0.42)
    neck = body * rng.uniform(0.25, 1.0)
    shoulder, spread = rng.uniform(0.12, 0.5), rng.uniform(0.01, 0.09)
    step = 1 / (1 + np.exp(-np.clip((ys - shoulder) / spread, -50, 50)))
    half = neck + (body - neck) * step
    half = half * (1 + rng.normal(0, 0.05) * np.sin(ys * rng.uniform(3, 14)))
    foot = np.clip((0.985 - ys) / rng.uniform(0.005, 0.04), 0, 1) ** 0.5
    half = half * foot * (ys > 0.015)
    left, right = (0.5 - half) * side, (0.5 + half) * side
    outline = np.concatenate([np.stack([left, ys * side], 1), np.stack([right, ys * side], 1)[::-1]])
    alpha = fill(outline.astype(np.float32)[np.r_[2 : 2 * side - 2]], side, side)
    rgb = textures.gradient(rng, side, side) if rng.random() < 0.7 else textures.surface(rng, side, side, photos)
    parts = no_parts(side)
    if rng.random() < 0.75:
        y0 = int(side * (shoulder + rng.uniform(0.02, 0.2) * (1 - shoulder)))
        y1 = int(side * rng.uniform(0.75, 0.97))
        if y1 - y0 > 4:
            x0, x1 = max(0, int(left[y0:y1].min())), min(side, int(right[y0:y1].max()) + 2)
            bend = np.zeros((side, side), np.float32)
            sag = rng.uniform(0, 0.06) * side
            xs = np.linspace(-1, 1, max(2, x1 - x0))
            lower = np.stack([np.linspace(x0, x1, len(xs)), y1 - sag * xs**2], 1)
            upper = np.stack([np.linspace(x0, x1, len(xs)), y0 - sag * xs**2], 1)
            bend = fill(np.concatenate([upper, lower[::-1]]).astype(np.float32), side, side)
            art = np.zeros((side, side, 3), np.float32)
            top = max(0, y0 - int(sag))
            art[top:y1, x0:x1] = print_design(rng, y1 - top, x1 - x0, photos)[: y1 - top, : x1 - x0]
            blend(rgb, bend, art)
            parts[(bend > 0.5) & (alpha > 0.5)] = 1
    if rng.random() < 0.7:
        cap = int(side * shoulder * rng.uniform(0.2, 0.8)) + 2
        rgb[:cap] = textures.colour(rng)
        parts[:cap][alpha[:cap] > 0.5] = 2
    cylinder(rng, rgb, left.astype(np.float32), right.astype(np.float32))
    return [Layer(rgb, alpha, parts)]


def plate(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> Layers:
    """A plate, tray or bowl with food on it; the food is an object of its own."""
    tilt = rng.uniform(0.3, 1.0)
    reach = side * 0.48
    rgb = textures.surface(rng, side, side, photos, 0.1)
    dish = fill(ellipse(side / 2, side / 2, reach, reach * tilt), side, side)
    well = fill(ellipse(side / 2, side / 2 + 0.01 * side, reach * 0.72, reach * 0.72 * tilt), side, side)
    rgb = np.ascontiguousarray(rgb * (1 + (well[..., None] - 0.5) * np.float32(rng.uniform(-0.25, 0.25))))
    layers = [Layer(rgb, dish, no_parts(side))]
    if rng.random() < 0.6:
        size = int(side * rng.uniform(0.3, 0.6))
        inner = (real_product if len(cutouts) and rng.random() < 0.6 else plain_shape)(rng, size, photos, cutouts)[0]
        y, x = (side - size) // 2, (side - size) // 2
        food = Layer(np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32), no_parts(side))
        view = np.s_[y : y + size, x : x + size]
        food.rgb[view], food.alpha[view], food.parts[view] = inner.rgb, inner.alpha, inner.parts
        dark = cv2.GaussianBlur(food.alpha, (0, 0), max(1.0, size * 0.05))
        layers[0].rgb *= (1 - dark * rng.uniform(0, 0.5))[..., None]
        layers.append(food)
    return layers


def thin(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> Layers:
    """Pens, cables, rings, glasses frames."""
    thickness = max(2.0, side * rng.uniform(0.015, 0.09))
    kind = rng.random()
    if kind < 0.4:
        angle = rng.uniform(0, np.pi)
        offset = np.array([np.cos(angle), np.sin(angle)]) * side * 0.44
        alpha = stroke(np.array([side / 2 - offset, side / 2 + offset], np.float32), thickness, side, side)
    elif kind < 0.65:
        walk = np.cumsum(rng.normal(0, 1, (7, 2)), 0)
        walk = (walk - walk.min(0)) / max(float(np.ptp(walk, 0).max()), 1e-3) * side * 0.8 + side * 0.1
        t = np.linspace(0, 6, 120)
        curve = np.stack([np.interp(t, np.arange(7), walk[:, 0]), np.interp(t, np.arange(7), walk[:, 1])], 1)
        curve = cv2.GaussianBlur(curve.astype(np.float32), (1, 25), 0)
        alpha = stroke(curve, thickness, side, side)
    elif kind < 0.85:
        ring = ellipse(side / 2, side / 2, side * 0.42, side * rng.uniform(0.2, 0.42), rng.uniform(0, 3))
        alpha = stroke(ring, thickness, side, side, closed=True)
    else:
        r = side * 0.2
        alpha = np.maximum.reduce(
            [
                stroke(ellipse(side * 0.26, side / 2, r, r * 0.8), thickness * 0.6, side, side, closed=True),
                stroke(ellipse(side * 0.74, side / 2, r, r * 0.8), thickness * 0.6, side, side, closed=True),
                stroke(np.array([[side * 0.44, side / 2], [side * 0.56, side / 2]], np.float32), thickness, side, side),
            ]
        )
    rgb = textures.surface(rng, side, side, photos, 0.15)
    shade(rng, rgb)
    return [Layer(rgb, alpha, no_parts(side))]


def hand(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> Layers:
    """A rough hand: palm and fingers in a skin tone, to hold and to hide things."""
    skin = np.array([rng.uniform(90, 240), 0, 0], np.float32)
    skin[1], skin[2] = skin[0] * rng.uniform(0.66, 0.82), skin[0] * rng.uniform(0.5, 0.72)
    palm = np.array([side * 0.5, side * 0.72])
    alpha = fill(ellipse(float(palm[0]), float(palm[1]), side * 0.24, side * 0.26), side, side)
    rgb = textures.flat(rng, side, side, skin)
    for k in range(int(rng.integers(2, 6))):
        angle = np.pi * (1.15 + 0.17 * k) + rng.normal(0, 0.06)
        length = side * rng.uniform(0.3, 0.6)
        tip = palm + np.array([np.cos(angle), np.sin(angle)]) * length
        tip = np.clip(tip, side * 0.06, side * 0.94)
        middle = (palm + tip) / 2 + rng.normal(0, side * 0.02, 2)
        finger = stroke(np.array([palm, middle, tip], np.float32), side * rng.uniform(0.085, 0.12), side, side)
        edge = cv2.GaussianBlur(finger, (0, 0), side * 0.02) * (1 - finger)
        rgb *= (1 - edge * 0.5)[..., None]
        alpha = np.maximum(alpha, finger)
    shade(rng, rgb)
    return [Layer(rgb, alpha, no_parts(side))]


def held(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> Layers:
    """A thing in a hand: palm behind it, thumb and finger tips over its rim; hand and thing do not make a group."""
    size = int(side * rng.uniform(0.5, 0.75))
    thing = (real_product if len(cutouts) and rng.random() < 0.7 else plain_shape)(rng, size, photos, cutouts)[0]
    middle = Layer(np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32), no_parts(side), False)
    y, x = int((side - size) * rng.uniform(0.1, 0.5)), (side - size) // 2
    view = np.s_[y : y + size, x : x + size]
    middle.rgb[view], middle.alpha[view], middle.parts[view] = thing.rgb, thing.alpha, thing.parts
    palm = hand(rng, side, photos, cutouts)[0]
    palm.joined = False
    tips = np.zeros((side, side), np.float32)
    centre = np.array([side / 2, y + size / 2])
    for _ in range(int(rng.integers(1, 4))):
        angle = rng.uniform(0.1, 0.9) * np.pi * (1 if rng.random() < 0.75 else -1)
        way = np.array([np.cos(angle), np.sin(angle)])
        inner = centre + way * size * rng.uniform(0.22, 0.4)
        outer = centre + way * side * rng.uniform(0.5, 0.7)
        finger = stroke(np.array([inner, outer], np.float32), side * rng.uniform(0.09, 0.13), side, side)
        tips = np.maximum(tips, finger)
    dark = cv2.GaussianBlur(tips, (0, 0), max(1.0, side * 0.02))
    middle.rgb *= (1 - dark * rng.uniform(0, 0.5))[..., None]
    front_rgb = palm.rgb.copy()
    shade(rng, front_rgb)
    return [palm, middle, Layer(front_rgb, tips, no_parts(side), False)]


Maker = Callable[[Rng, int, PhotoBank, CutoutBank], Layers]
MAKERS: tuple[tuple[Maker, float], ...] = (
    (real_product, 0.33),
    (plain_shape, 0.14),
    (package, 0.11),
    (bottle, 0.13),
    (cup, 0.12),
    (plate, 0.05),
    (thin, 0.04),
    (hand, 0.01),
    (held, 0.07),
)


def make_object(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank, favour: str = "") -> Layers:
    """A random thing in a side x side patch; without cut-outs their share goes to the drawn kinds.

    favour: name of a maker that shall be drawn eight times as often, for a pool of what a model still fails on.
    """
    weights = np.array([w if maker is not real_product or len(cutouts) else 0.0 for maker, w in MAKERS])
    weights *= np.array([8.0 if maker.__name__ == favour else 1.0 for maker, _ in MAKERS])
    maker = MAKERS[int(rng.choice(len(MAKERS), p=weights / weights.sum()))][0]
    layers = maker(rng, side, photos, cutouts)
    if len(layers) == 1 and rng.random() < 0.05:
        letters(rng, side, side, textures.colour(rng), layers[0].rgb)
    return layers
