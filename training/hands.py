"""Hands: tapering, jointed fingers in skin tones, to hold things and to hide them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import CutoutBank, PhotoBank
from boothsam.training.shapes import Layer, ellipse, fill, round_off
from boothsam.training.textures import Colour, Field, Rng, Surface
from numpy.typing import NDArray

Place = NDArray[np.float64]  # (2,) x, y in patch pixels


def skin(rng: Rng) -> Colour:
    """A skin tone, light to dark."""
    light = rng.uniform(0.0, 1.0)
    pale, deep = np.array([236, 190, 165], np.float32), np.array([84, 54, 40], np.float32)
    return np.asarray(
        pale + (deep - pale) * np.float32(light**1.6) + rng.normal(0, 6, 3).astype(np.float32), np.float32
    )


def _tapered(points: Place, widths: list[float], size: tuple[int, int]) -> Field:
    """Alpha (h, w) of a limb through (n, 2) joints with a width at each."""
    mask = np.zeros(size, np.uint8)
    for a, b, wa, wb in zip(points[:-1], points[1:], widths[:-1], widths[1:], strict=True):
        along = (b - a) / max(float(np.linalg.norm(b - a)), 1e-6)
        normal = np.array([-along[1], along[0]])
        quad = np.array([a + normal * wa / 2, b + normal * wb / 2, b - normal * wb / 2, a - normal * wa / 2])
        cv2.fillPoly(mask, [np.round(quad * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    for joint, width in zip(points, widths, strict=True):
        centre = np.round(joint * 16).astype(int)
        cv2.circle(mask, (int(centre[0]), int(centre[1])), max(1, int(width * 8)), 255, -1, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


@dataclass
class Painter:
    """Collects limbs over each other, each lit as round and dark along the rim of the one beneath."""

    size: tuple[int, int]  # h, w
    seam: float  # sigma in pixels of the dark rim that a limb leaves on what is beneath
    tone: Colour
    rgb: Surface
    alpha: Field

    @staticmethod
    def start(size: tuple[int, int], seam: float, tone: Colour) -> Painter:
        """An empty patch."""
        rgb = np.broadcast_to(tone, (*size, 3)).astype(np.float32)
        return Painter(size, seam, tone, rgb, np.zeros(size, np.float32))

    def limb(self, rng: Rng, points: Place, widths: list[float]) -> None:
        """A finger, thumb or forearm."""
        self.shape(rng, _tapered(points, widths, self.size), 1.0)

    def shape(self, rng: Rng, mask: Field, roundness: float, cloth: Colour | None = None) -> None:
        """Any outline in skin, or in cloth."""
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(ys) < 3 or len(xs) < 3:
            return
        pad = int(3 * self.seam) + 1
        y0, x0 = max(0, ys[0] - pad), max(0, xs[0] - pad)
        view = np.s_[y0 : ys[-1] + 1 + pad, x0 : xs[-1] + 1 + pad]
        matte = mask[view]
        near = cv2.GaussianBlur(matte, (0, 0), max(0.8, self.seam))
        self.rgb[view] *= (1 - np.float32(0.4) * near * (1 - matte))[..., None]
        h, w = matte.shape
        drawn = np.broadcast_to(self.tone if cloth is None else cloth, (h, w, 3)).astype(np.float32)
        drawn += textures.smooth_noise(rng, h, w, 5)[..., None] * np.array([7, 4, 3], np.float32)
        round_off(rng, drawn, matte, roundness, 0.15)
        self.rgb[view] += matte[..., None] * (drawn - self.rgb[view])
        self.alpha[view] = np.maximum(self.alpha[view], matte)

    def nail(self, rng: Rng, tip: Place, along: Place, width: float) -> None:
        """A finger nail just below the tip."""
        centre = tip - along * width * 0.12
        turn = float(np.arctan2(along[1], along[0]))
        x0, y0 = (max(0, int(v - width)) for v in centre)
        view = self.rgb[y0 : y0 + int(2 * width) + 2, x0 : x0 + int(2 * width) + 2]
        if not view.size:
            return
        outline = ellipse(float(centre[0]) - x0, float(centre[1]) - y0, width * 0.4, width * 0.29, turn)
        mask = fill(outline, view.shape[0], view.shape[1])
        tint = np.clip(self.tone * np.float32(1.1) + np.array([8, 2, 4], np.float32), 0, 255)
        view += (mask * np.float32(0.6))[..., None] * (tint - view)

    def layer(self, joined: bool, same_as: int | None = None) -> Layer:
        """The finished patch."""
        return Layer(np.clip(self.rgb, 0, 255), self.alpha, np.zeros(self.size, np.uint8), joined, same_as=same_as)


def _finger(rng: Rng, painter: Painter, root: Place, tip: Place, width: float, nail: bool) -> None:
    along = (tip - root) / max(float(np.linalg.norm(tip - root)), 1e-6)
    normal = np.array([-along[1], along[0]])
    bow = rng.normal(0, 0.35) * width
    joint = root + (tip - root) * rng.uniform(0.45, 0.6) + normal * bow
    painter.limb(rng, np.array([root, joint, tip]), [width * 1.1, width, width * rng.uniform(0.72, 0.88)])
    if nail:
        painter.nail(rng, tip, along, width)


def hand(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """An open or half-closed hand with a forearm that leaves the patch."""
    width = side * rng.uniform(0.075, 0.1)
    painter = Painter.start((side, side), width * 0.14, skin(rng))
    palm = np.array([0.5, 0.6]) * side
    forearm = np.array([palm, [side * rng.uniform(0.35, 0.65), side * 1.05]])
    painter.limb(rng, forearm, [width * 2.6, width * rng.uniform(2.6, 3.4)])
    spread, curl = rng.uniform(0.1, 0.24), rng.uniform(0.45, 1.0)
    middle = -np.pi / 2 + rng.normal(0, 0.15)
    facing = 1 if rng.random() < 0.5 else -1
    roots = []
    for k in range(4):
        angle = middle + (k - 1.5) * spread * facing
        root = palm + width * np.array([(k - 1.5) * 0.98 * facing, -1.0])
        reach = side * rng.uniform(0.24, 0.3) * (1, 1.1, 1.05, 0.8)[k] * curl
        roots.append((root, root + reach * np.array([np.cos(angle), np.sin(angle)])))
    painter.shape(rng, fill(ellipse(float(palm[0]), float(palm[1]), width * 2.1, width * 2.2), side, side), 0.6)
    for root, tip in roots:
        _finger(rng, painter, root, tip, width, bool(rng.random() < 0.5))
    thumb = palm + width * np.array([-1.6 * facing, 0.4])
    angle = middle - facing * rng.uniform(0.5, 1.0)
    end = thumb + side * rng.uniform(0.16, 0.24) * np.array([np.cos(angle), np.sin(angle)])
    _finger(rng, painter, thumb, end, width * 1.15, True)
    return [painter.layer(False)]


def grip(rng: Rng, alpha: Field, width: float) -> tuple[Layer, Layer]:
    """A hand around the thing that fills `alpha` (h, w), with fingers of `width` pixels.

    Returns what lies behind the thing and the digits in front of it, two layers of one hand. The forearm comes from a
    side or from below and goes on past the border.
    """
    ys, xs = np.nonzero(alpha > 0.5)
    tone, size = skin(rng), (alpha.shape[0], alpha.shape[1])
    back, front = (Painter.start(size, width * 0.14, tone) for _ in range(2))
    if len(ys) == 0:
        return back.layer(False), front.layer(False, 0)
    facing = 1.0 if rng.random() < 0.5 else -1.0  # 1: the hand comes from the left of the thing
    level = float(np.quantile(ys, rng.uniform(0.35, 0.8)))
    near = np.abs(ys - level) < max(2.0, 0.3 * width)
    ends = (float(xs[near].min()), float(xs[near].max())) if near.any() else (float(xs.mean()), float(xs.mean()))
    edge, far = ends if facing > 0 else ends[::-1]
    breadth = abs(far - edge)
    knuckles = np.array([edge - facing * width * rng.uniform(0.3, 1.2), level + width * rng.uniform(0, 1.5)])
    wrist = knuckles + np.array([-facing * rng.uniform(1.5, 4), rng.uniform(2.0, 5.0)]) * width
    way = (wrist - knuckles) / np.linalg.norm(wrist - knuckles)
    out = wrist + way * 1.5 * max(size)
    back.limb(rng, np.array([knuckles, wrist, out]), [width * 3.4, width * 2.9, width * 6])
    if rng.random() < 0.5:
        start = wrist + way * width * rng.uniform(1, 6)
        sleeve = _tapered(np.array([start, out]), [width * 3.8, width * 7], size)
        back.shape(rng, sleeve, 1.0, textures.colour(rng))
    heel = ellipse(float(knuckles[0]), float(knuckles[1]), width * 2.0, width * 2.4)
    back.shape(rng, fill(heel, *size), 0.6)
    around = rng.random() < 0.55  # finger tips come round the far side
    for k in range(4):
        y = level + (k - 1.2) * width * 1.02
        if around and breadth < 7 * width:
            tip = np.array([far + facing * width * rng.uniform(0.2, 0.9), y + rng.normal(0, 0.15) * width])
            _finger(rng, back, np.array([knuckles[0], y]), tip, width, False)
            if rng.random() < 0.7:
                inner = tip - np.array([facing * width * rng.uniform(0.8, 2.2), -width * 0.1])
                _finger(rng, front, tip, inner, width * 0.95, bool(rng.random() < 0.6))
        elif rng.random() < 0.75:
            inner = np.array([edge + facing * width * rng.uniform(0.5, 2.5), y + rng.normal(0, 0.3) * width])
            _finger(rng, front, np.array([edge - facing * width, y]), inner, width, bool(rng.random() < 0.3))
    reach = min(breadth * 0.75, width * rng.uniform(2.0, 4.5))
    root = np.array([edge - facing * width * 0.8, level - width * rng.uniform(0.0, 1.0)])
    tip = np.array([edge + facing * reach, level - width * rng.uniform(0.3, 3.0)])
    _finger(rng, front, root, tip, width * 1.25, bool(rng.random() < 0.8))
    return back.layer(False), front.layer(False, 0)
