"""Packages in perspective: cartons with flat, slanted or gable tops, boxes, carrier bags, pouches.

A package is a list of faces in its own coordinates (x right, y up, z to the viewer, the unit is its height), turned,
projected by a pinhole camera and painted from one wrap-around print.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import CutoutBank, PhotoBank, Plane
from boothsam.training.prints import wrap_design
from boothsam.training.shapes import Layer, blend, fill, no_parts, round_off, stroke
from boothsam.training.textures import Colour, Field, Rng, Surface
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """Where a package is seen from; angles in radians, distance in heights of the package."""

    yaw: float
    pitch: float
    distance: float

    def project(self, points: Points) -> Points:
        """(n, 3) package coordinates -> (n, 2) picture coordinates, y down, arbitrary scale."""
        cy, sy, cp, sp = np.cos(self.yaw), np.sin(self.yaw), np.cos(self.pitch), np.sin(self.pitch)
        x = points[:, 0] * cy + points[:, 2] * sy
        z = -points[:, 0] * sy + points[:, 2] * cy
        y = points[:, 1] * cp - z * sp
        z = points[:, 1] * sp + z * cp
        scale = self.distance / (self.distance - z)
        return np.asarray(np.stack([x * scale, -y * scale], 1))


@dataclass
class Face:
    """corners (4, 3): top left, top right, bottom right, bottom left as seen from outside; art: its print; part id."""

    corners: Points
    art: Surface
    part: int


def random_camera(rng: Rng) -> Camera:
    """Mostly a little from above and from the side, as people photograph packages."""
    yaw = rng.normal(0, 0.12) if rng.random() < 0.3 else rng.uniform(-0.95, 0.95)
    pitch = rng.uniform(-0.05, 0.35) if rng.random() < 0.75 else rng.uniform(0.3, 0.95)
    return Camera(float(yaw), float(pitch), float(rng.uniform(2.2, 7)))


class Drawing:
    """A patch in the making: faces are painted back to front."""

    def __init__(self, side: int, camera: Camera, extent: Points) -> None:
        self.side, self.camera = side, camera
        self.rgb: Surface = np.zeros((side, side, 3), np.float32)
        self.alpha: Field = np.zeros((side, side), np.float32)
        self.parts: Plane = no_parts(side)
        seen = camera.project(extent)
        low, high = seen.min(0), seen.max(0)
        self._scale = side * 0.96 / float((high - low).max())
        self._offset = side / 2 - (low + high) / 2 * self._scale

    def place(self, points: Points) -> Points:
        """(n, 3) package coordinates -> (n, 2) patch pixels."""
        return np.asarray(self.camera.project(points) * self._scale + self._offset)

    def face(self, face: Face, light: float) -> None:
        """Paint one face if it shows its outside; `light` multiplies its print."""
        quad = self.place(face.corners)
        ahead = np.roll(quad, -1, 0)
        if float((quad[:, 0] * ahead[:, 1] - ahead[:, 0] * quad[:, 1]).sum()) <= 1.0:
            return
        x0, y0 = (max(0, int(v)) for v in np.floor(quad.min(0) - 1))
        x1, y1 = (min(self.side, int(v)) for v in np.ceil(quad.max(0) + 2))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        h, w = face.art.shape[:2]
        source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
        local = (quad - np.array([x0, y0])).astype(np.float32)
        warp = cv2.getPerspectiveTransform(source, local)
        size = (x1 - x0, y1 - y0)
        drawn = cv2.warpPerspective(face.art * np.float32(light), warp, size, borderMode=cv2.BORDER_REPLICATE)
        self.paint(drawn, fill(local, size[1], size[0]), (x0, y0), face.part)

    def polygon(self, outline: Points, paint: Colour, part: int) -> None:
        """Paint a flat polygon given in patch pixels."""
        x0, y0 = (int(np.clip(v, 0, self.side - 1)) for v in np.floor(outline.min(0) - 1))
        x1, y1 = (int(np.clip(v, 1, self.side)) for v in np.ceil(outline.max(0) + 2))
        if x1 > x0 and y1 > y0:
            mask = fill((outline - np.array([x0, y0])).astype(np.float32), y1 - y0, x1 - x0)
            self.paint(np.broadcast_to(paint, (*mask.shape, 3)), mask, (x0, y0), part)

    def paint(self, drawn: Surface, mask: Field, corner: tuple[int, int], part: int) -> None:
        """Lay `drawn` over the patch at `corner` (x, y) where `mask` says."""
        x, y = corner
        view = np.s_[y : y + mask.shape[0], x : x + mask.shape[1]]
        # The colour reaches half a pixel beyond the rim, so that no black seam shows where faces meet.
        empty = self.alpha[view] == 0
        blend(self.rgb[view], np.where(empty, (mask > 0).astype(np.float32), mask), drawn)
        self.alpha[view] = np.maximum(self.alpha[view], mask)
        self.parts[view][mask > 0.5] = part

    def layer(self) -> Layer:
        """The finished patch, seams between faces closed."""
        closed = cv2.morphologyEx(self.alpha, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        return Layer(self.rgb, np.asarray(closed, np.float32), self.parts)


def _quad(a: list[float], b: list[float], c: list[float], d: list[float]) -> Points:
    return np.array([a, b, c, d], np.float64)


def _crease(rng: Rng, art: Surface) -> Surface:
    """Uneven light over a face and a worn or shaded edge all round."""
    h, w = art.shape[:2]
    art = art * (1 - np.float32(rng.uniform(0, 0.3)) * textures.ramp(rng, h, w))[..., None]
    if rng.random() < 0.35:
        art += textures.smooth_noise(rng, h, w, 3)[..., None] * np.float32(rng.uniform(2, 12))
    rim = max(1, h // 120)
    tone = np.float32(rng.uniform(0.75, 1.12))
    for strip in (art[:rim], art[-rim:], art[:, :rim], art[:, -rim:]):
        strip *= tone
    return art


def _cap(rng: Rng, drawing: Drawing, centre: Points, up: Points, radius: float) -> None:
    """A screw cap on a face: `centre` and the face's normal `up` in package coordinates; part 4."""
    across = np.array([1.0, 0.0, 0.0])
    along = np.cross(up, across)
    ring = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    base = centre + radius * (np.cos(ring)[:, None] * across + np.sin(ring)[:, None] * along)
    lift = up * radius * rng.uniform(0.5, 1.3)
    low, high = drawing.place(base), drawing.place(base + lift)
    tone = textures.colour(rng) if rng.random() < 0.6 else np.full(3, rng.uniform(215, 250), np.float32)
    hull = cv2.convexHull(np.concatenate([low, high]).astype(np.float32)).reshape(-1, 2)
    drawing.polygon(np.asarray(hull, np.float64), tone * np.float32(rng.uniform(0.6, 0.9)), 4)
    drawing.polygon(high, np.clip(tone * np.float32(rng.uniform(0.95, 1.15)), 0, 255), 4)


def package(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """A carton or box with two or three visible faces; front 1, flanks 2, top 3 and cap 4 are parts."""
    slim = rng.random() < 0.6
    w, d = (rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.45)) if slim else (rng.uniform(0.4, 1.7), rng.uniform(0.15, 1.0))
    roll = rng.random()
    top = "gable" if slim and roll < 0.4 else "slant" if slim and roll < 0.65 else "flat"
    rise = rng.uniform(0.16, 0.28) if top != "flat" else 0.0
    camera = random_camera(rng)
    x, z = w / 2, d / 2
    extent = np.array([[sx * x, y, sz * z] for sx in (-1, 1) for sz in (-1, 1) for y in (0.0, 1.0 + rise + 0.06)])
    drawing = Drawing(side, camera, extent)
    unit = int(min(420, max(16, side * 0.8)))
    panels = [max(4, int(unit * d)), max(4, int(unit * w)), max(4, int(unit * d))]
    strip = wrap_design(rng, unit, panels, photos)
    left, front, right = (_crease(rng, a.copy()) for a in np.split(strip, np.cumsum(panels)[:2], axis=1))
    plain = np.broadcast_to(strip[: max(2, unit // 12)].mean((0, 1)), (unit // 3 + 2, panels[1], 3)).astype(np.float32)
    lid = _crease(rng, plain if rng.random() < 0.6 else front[: unit // 3 + 2].copy())
    # White on white lives from these differences alone, so they are sometimes faint.
    spread = rng.uniform(0.03, 0.5)
    lit, dim = 1.0, 1.0 - spread
    left_light, right_light = (dim, lit - spread / 3) if rng.random() < 0.5 else (lit - spread / 3, dim)
    top_light = 1.0 + rng.uniform(-0.15, 0.15)
    flanks = [
        Face(_quad([-x, 1, -z], [-x, 1, z], [-x, 0, z], [-x, 0, -z]), left, 2),
        Face(_quad([x, 1, z], [x, 1, -z], [x, 0, -z], [x, 0, z]), right, 2),
    ]
    for face, light in zip(flanks, (left_light, right_light), strict=True):
        drawing.face(face, light)
    cap_at, normal = _top(drawing, top, (x, z, rise), lid, (left_light, right_light, top_light))
    drawing.face(Face(_quad([-x, 1, z], [x, 1, z], [x, 0, z], [-x, 0, z]), front, 1), lit)
    if rng.random() < (0.14 if top == "flat" else 0.7):
        _cap(rng, drawing, cap_at, normal, min(x, z) * rng.uniform(0.3, 0.6))
    layer = drawing.layer()
    _gloss(rng, layer)
    return [layer]


def _top(
    drawing: Drawing, kind: str, size: tuple[float, float, float], lid: Surface, lights: tuple[float, float, float]
) -> tuple[Points, Points]:
    """Draw a carton's top; returns centre and normal of the face that may carry a cap."""
    x, z, rise = size
    left_light, right_light, top_light = lights
    if kind == "flat":
        drawing.face(Face(_quad([-x, 1, -z], [x, 1, -z], [x, 1, z], [-x, 1, z]), lid, 3), top_light)
        return np.array([x * 0.3, 1.0, 0.0]), np.array([0.0, 1.0, 0.0])
    ridge = 0.0 if kind == "gable" else -z
    high = 1 + rise
    tone = lid.mean((0, 1))
    for sign, light in ((-1, left_light), (1, right_light)):
        edge = np.array([[sign * x, 1, z], [sign * x * 0.985, high, ridge], [sign * x, 1, -z]])
        toward = np.sin(drawing.camera.yaw) * -sign
        if toward > 0:  # this end faces the camera
            drawing.polygon(drawing.place(edge), tone * np.float32(light * (0.8 if kind == "gable" else 1.0)), 3)
    slope = _quad([-x, high, ridge], [x, high, ridge], [x, 1, z], [-x, 1, z])
    drawing.face(Face(slope, lid, 3), top_light)
    if kind == "gable":
        fin = _quad([-x, high + 0.055, 0], [x, high + 0.055, 0], [x, high - 0.005, 0], [-x, high - 0.005, 0])
        drawing.face(Face(fin, lid[: max(2, len(lid) // 4)], 3), 1.0)
    normal = np.array([0.0, z - ridge, rise])
    return slope.mean(0), normal / np.linalg.norm(normal)


def _gloss(rng: Rng, layer: Layer) -> None:
    """A broad reflection of a lamp or window across the package, in place."""
    if rng.random() < 0.35:
        side = layer.alpha.shape[0]
        band = textures.ramp(rng, side, side)
        streak = np.exp(-((band - np.float32(rng.uniform(0.2, 0.8))) ** 2) / np.float32(rng.uniform(0.0008, 0.02)))
        layer.rgb += streak[..., None] * np.float32(rng.uniform(15, 90))


def pouch(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """A soft bag of crisps, coffee or frozen food: bulging, wrinkled, with crimped ends."""
    w, h = rng.uniform(0.28, 0.46), rng.uniform(0.38, 0.48)
    t = np.linspace(-1, 1, 40)
    waist = rng.uniform(-0.03, 0.05)
    crimp = 0.008 * np.sign(np.sin(np.arange(40) * 2.2)) if rng.random() < 0.5 else np.zeros(40)
    wobble = rng.normal(0, 0.006, (4, 40))
    left = np.stack([-w + waist * (1 - t**2) + wobble[0], t * h], 1)
    right = np.stack([w - waist * (1 - t**2) + wobble[1], t * h], 1)
    top = np.stack([t * w, -h + crimp + wobble[2]], 1)
    bottom = np.stack([t * w, h + crimp + wobble[3] + rng.uniform(-0.03, 0.03) * (1 - t**2)], 1)
    outline = np.concatenate([top, right, bottom[::-1], left[::-1]])
    alpha = fill(((outline + 0.5) * side).astype(np.float32), side, side)
    rgb = np.zeros((side, side, 3), np.float32)
    x0, y0 = int((0.5 - w) * side), int((0.5 - h) * side)
    unit = int(min(420, max(12, 2 * h * side)))
    art = wrap_design(rng, unit, [max(8, int(unit * w / h))], photos)
    size = (max(2, int(2 * w * side)), max(2, int(2 * h * side)))
    rgb[y0 : y0 + size[1], x0 : x0 + size[0]] = cv2.resize(art, size)
    rgb[:y0], rgb[y0 + size[1] :] = rgb[y0], rgb[y0 + size[1] - 1]
    rgb[:, :x0], rgb[:, x0 + size[0] :] = rgb[:, x0 : x0 + 1], rgb[:, x0 + size[0] - 1 : x0 + size[0]]
    round_off(rng, rgb, alpha, rng.uniform(0.6, 1.2), 0.5)
    folds = textures.smooth_noise(rng, side, side, rng.uniform(5, 14), aspect=rng.uniform(0.5, 2.5))
    amount = np.float32(rng.uniform(0.04, 0.3))
    rgb *= (1 + amount * (np.abs(folds) - np.float32(0.35)))[..., None]
    if rng.random() < 0.5:
        rgb += np.clip(folds - np.float32(0.55), 0, 1)[..., None] * np.float32(rng.uniform(60, 300))
    parts = no_parts(side)
    if rng.random() < 0.4:
        band = max(2, int(side * rng.uniform(0.02, 0.06)))
        rgb[y0 : y0 + band] *= np.float32(rng.uniform(0.7, 1.1))
    return [Layer(np.clip(rgb, 0, 255), alpha, parts)]


def carrier_bag(rng: Rng, side: int, photos: PhotoBank, cutouts: CutoutBank) -> list[Layer]:
    """A paper bag with its mouth open and, mostly, handles to see through."""
    w, d = rng.uniform(0.5, 0.9), rng.uniform(0.25, 0.5)
    x, z = w / 2, d / 2
    camera = Camera(float(rng.uniform(-0.8, 0.8)), float(rng.uniform(0.05, 0.5)), float(rng.uniform(2.5, 6)))
    extent = np.array([[sx * x, y, sz * z] for sx in (-1, 1) for sz in (-1, 1) for y in (0.0, 1.35)])
    drawing = Drawing(side, camera, extent)
    tone = np.array([196, 156, 110], np.float32) * np.float32(rng.uniform(0.7, 1.2))
    tone = textures.colour(rng) if rng.random() < 0.4 else tone
    unit = int(min(320, max(16, side * 0.6)))
    art = textures.flat(rng, unit, unit, tone)
    if rng.random() < 0.5:
        size = max(8, unit // 2)
        art[size // 2 : size // 2 + size, size // 2 : size // 2 + size] = wrap_design(rng, size, [size], photos)
    art *= (1 + np.float32(0.12) * textures.smooth_noise(rng, unit, unit, 6))[..., None]
    handles = rng.random() < 0.75
    t = np.linspace(0, np.pi, 24)

    def handle(depth: float) -> None:
        loop = np.stack([np.cos(t) * x * 0.45, 0.98 + np.sin(t) * 0.26, np.full_like(t, depth)], 1)
        line = stroke(drawing.place(loop).astype(np.float32), max(1.5, side * 0.018), side, side)
        drawing.paint(np.broadcast_to(tone * np.float32(0.75), (side, side, 3)), line, (0, 0), 0)

    if handles:
        handle(-z)
    inside = tone * np.float32(0.45)
    back = _quad([-x, 1, -z], [x, 1, -z], [x, 0, -z], [-x, 0, -z])
    drawing.polygon(drawing.place(back), inside * np.float32(1.2), 0)
    drawing.polygon(drawing.place(_quad([-x, 1, -z], [x, 1, -z], [x, 1, z], [-x, 1, z])), inside, 0)
    plain = textures.flat(rng, unit, unit, tone)
    drawing.face(Face(_quad([-x, 1, -z], [-x, 1, z], [-x, 0, z], [-x, 0, -z]), plain, 2), rng.uniform(0.6, 0.95))
    drawing.face(Face(_quad([x, 1, z], [x, 1, -z], [x, 0, -z], [x, 0, z]), plain, 2), rng.uniform(0.6, 0.95))
    drawing.face(Face(_quad([-x, 1, z], [x, 1, z], [x, 0, z], [-x, 0, z]), art, 1), 1.0)
    if handles:
        handle(z)
    # No closing of seams here: it would fill what a thin handle encloses.
    return [Layer(drawing.rgb, drawing.alpha, drawing.parts)]
