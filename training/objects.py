"""Things to segment: real product cut-outs and everything drawn, gathered with how often each is wanted.

Every maker returns a list of `Layer` in one side x side patch, back to front: more than one layer is a group (a cup on
its saucer) whose layers are objects of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.packages import carrier_bag, package, pouch
from boothsam.training.photos import CutoutBank, Image, PhotoBank, Plane
from boothsam.training.prints import print_design
from boothsam.training.produce import fruit
from boothsam.training.shapes import Layer, blend, ellipse, fill, no_parts, random_outline, round_off, shade
from boothsam.training.slender import assembly, cutlery, thin
from boothsam.training.tableware import cup
from boothsam.training.textures import Rng, Surface
from boothsam.training.turned import bottle

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


MOST_ENLARGED = 3.0  # a small cut-out blown up further has no detail left to learn from


def _sharp_cutout(rng: Rng, side: int, cutouts: CutoutBank) -> tuple[Image, Plane]:
    """A cut-out that need not be enlarged too much; the largest of four when all are small."""
    best: tuple[Image, Plane] | None = None
    for _ in range(4):
        cut = cutouts.pick(rng)
        if best is None or max(cut[1].shape) > max(best[1].shape):
            best = cut
        if max(cut[1].shape) * MOST_ENLARGED >= side:
            return cut
    assert best is not None
    return best


def _without_seam(rgb: Image, alpha: Plane) -> Surface:
    """Colours of the inside carried over the rim, where the old background still shines through; (h, w, 3) float32."""
    inside = cv2.erode((alpha > 250).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2).astype(np.float32)
    if inside.sum() < 0.3 * float((alpha > 127).sum()):  # a thin thing is nothing but rim
        return rgb.astype(np.float32)
    picture = rgb.astype(np.float32)
    carried = cv2.GaussianBlur(picture * inside[..., None], (0, 0), 1.6)
    share = cv2.GaussianBlur(inside, (0, 0), 1.6)[..., None]
    reached = (inside[..., None] < 0.5) & (share > 0.01)
    return np.asarray(np.where(reached, carried / np.maximum(share, 0.01), picture), np.float32)


def real_product(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> Layers:
    """A photographed product, scaled to the patch, sometimes recoloured or mirrored."""
    rgb, alpha = _sharp_cutout(rng, side, cutouts)
    h, w = alpha.shape
    stretch = rng.uniform(0.85, 1.18)
    scale = side * 0.98 / max(h, w * stretch)
    size = (max(2, int(w * stretch * scale)), max(2, int(h * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = np.clip(cv2.resize(_without_seam(rgb, alpha), size, interpolation=method), 0, 255)
    if scale > 1:  # smoothed first and steepened again afterwards, or the rim comes out in steps
        padded = cv2.copyMakeBorder(alpha, 2, 2, 2, 2, cv2.BORDER_CONSTANT)
        smooth = cv2.GaussianBlur(padded, (0, 0), 0.8)[2:-2, 2:-2]
        matte = cv2.resize(smooth, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
        matte = np.clip((matte - 127.5) * np.float32(scale) + 127.5, 0, 255)
    else:
        matte = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    if rng.random() < 0.15:
        picture = picture[:, :, rng.permutation(3)]
    if rng.random() < 0.2:
        picture, matte = picture[:, ::-1], matte[:, ::-1]
    layer = Layer(np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32), no_parts(side))
    y, x = (side - size[1]) // 2, (side - size[0]) // 2
    view = np.s_[y : y + size[1], x : x + size[0]]
    layer.rgb[view], layer.alpha[view] = picture, matte / 255
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
    if rng.random() < 0.5:
        round_off(rng, layer.rgb, alpha, rng.uniform(0.3, 1.2))
    else:
        shade(rng, layer.rgb)
    return [layer]


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


Maker = Callable[[Rng, int, PhotoBank, CutoutBank], Layers]
MAKERS: tuple[tuple[Maker, float], ...] = (
    (real_product, 0.24),
    (package, 0.19),
    (bottle, 0.14),
    (fruit, 0.08),
    (cup, 0.09),
    (plain_shape, 0.06),
    (assembly, 0.06),
    (pouch, 0.03),
    (carrier_bag, 0.02),
    (plate, 0.03),
    (thin, 0.03),
    (cutlery, 0.02),
)


def make_object(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank, favour: str = "") -> Layers:
    """A random thing in a side x side patch; without cut-outs their share goes to the drawn kinds.

    favour: name of a maker that shall be drawn eight times as often, for a pool of what a model still fails on.
    """
    weights = np.array([w if maker is not real_product or len(cutouts) else 0.0 for maker, w in MAKERS])
    weights *= np.array([8.0 if maker.__name__ == favour else 1.0 for maker, _ in MAKERS])
    maker = MAKERS[int(rng.choice(len(MAKERS), p=weights / weights.sum()))][0]
    return maker(rng, side, photos, cutouts)
