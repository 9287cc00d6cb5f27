"""Composed training scenes: a backdrop, one to six things with soft shadows, a camera's flaws, and exact masks.

Masks are of what is visible: an occluder takes its pixels away, a shadow or a reflection never belongs to anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from boothsam.training.backdrops import backdrop
from boothsam.training.objects import make_object
from boothsam.training.photos import CutoutBank, Image, PhotoBank, Plane, list_photos
from boothsam.training.shapes import Layer
from boothsam.training.textures import Field, Rng, Surface

MIN_AREA_SHARE = 0.0004  # below about 20 x 20 pixels of the 1024 frame nothing can be learned at stride 4


@dataclass(frozen=True)
class Sources:
    """Where photos come from; both banks may be empty."""

    photos: PhotoBank
    cutouts: CutoutBank
    favour: str = ""  # see make_object

    @staticmethod
    def from_folders(texture_folders: list[Path], cutout_folders: list[Path], favour: str = "") -> Sources:
        """Read folders of photos (textures, backdrops) and of products on white (cut-outs)."""
        textures_found = [p for folder in texture_folders for p in list_photos(folder)]
        products = [p for folder in cutout_folders for p in list_photos(folder)]
        return Sources(PhotoBank(textures_found), CutoutBank(products), favour)


@dataclass
class Sample:
    """A scene.

    image (h, w, 3) uint8 RGB; instances (h, w) uint8, 0 = backdrop, k = the visible pixels of thing k;
    parts (h, w) uint8, 0 = none, k = part k; part_owner[k - 1] = instance of part k;
    groups: instance ids that together make one thing (a cup, its saucer and its spoon).
    """

    image: Image
    instances: Plane
    parts: Plane
    part_owner: list[int] = field(default_factory=list)
    groups: list[list[int]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write one compressed-free .npz, complete or not at all."""
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                image=self.image,
                planes=np.stack([self.instances, self.parts]),
                owner=np.array(self.part_owner, np.int32),
                groups=np.array([k * 256 + i for k, g in enumerate(self.groups) for i in g], np.int32),
            )
        temporary.replace(path)

    @staticmethod
    def load(path: Path) -> Sample:
        """Read what `save` wrote."""
        with np.load(path) as data:
            planes, packed = data["planes"], data["groups"].tolist()
            groups: list[list[int]] = [[] for _ in range(max((v // 256 for v in packed), default=-1) + 1)]
            for value in packed:
                groups[value // 256].append(value % 256)
            return Sample(data["image"], planes[0], planes[1], data["owner"].tolist(), groups)


def _turn(layers: list[Layer], angle: float, flip: bool) -> list[Layer]:
    """Rotate a patch about its centre (degrees) on a canvas that holds it, and mirror it."""
    side = layers[0].alpha.shape[0]
    turned = []
    wide = int(side * (abs(np.cos(np.radians(angle))) + abs(np.sin(np.radians(angle))))) + 2
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    matrix[:, 2] += (wide - side) / 2
    for layer in layers:
        rgb, alpha, parts = layer.rgb, layer.alpha, layer.parts
        if abs(angle) > 0.3:
            rgb = cv2.warpAffine(rgb, matrix, (wide, wide), borderMode=cv2.BORDER_REPLICATE)
            alpha = cv2.warpAffine(alpha, matrix, (wide, wide))
            parts = cv2.warpAffine(parts, matrix, (wide, wide), flags=cv2.INTER_NEAREST)
        if flip:
            rgb, alpha, parts = rgb[:, ::-1], alpha[:, ::-1], parts[:, ::-1]
        turned.append(Layer(rgb, alpha, parts, layer.joined))
    return turned


def _shadow(rng: Rng, canvas: Surface, alpha: Field, x: int, y: int) -> None:
    """Contact and cast shadow of a patch placed at (x, y), in place on the canvas."""
    h, w = alpha.shape
    size = max(h, w)
    pad = int(size * 0.6)
    shade = np.zeros((h + 2 * pad, w + 2 * pad), np.float32)
    small = max(1, size // 96)
    if rng.random() < 0.8:
        shear, squash = rng.normal(0, 0.5), rng.uniform(0.15, 1.0)
        ys = np.flatnonzero(alpha.max(1) > 0.5)
        foot = float(ys[-1]) if len(ys) else h
        warp = np.array([[1, -shear, pad + shear * foot], [0, squash, pad + foot * (1 - squash)]], np.float32)
        warp[:, 2] += np.float32(rng.normal(0, 0.03, 2) * size)
        cast = cv2.warpAffine(alpha, warp, (w + 2 * pad, h + 2 * pad))
        shade = np.maximum(shade, _blur(cast, size * rng.uniform(0.01, 0.12), small) * rng.uniform(0.1, 0.65))
    if rng.random() < 0.6:
        near = np.pad(alpha, pad)
        near = np.roll(near, int(size * rng.uniform(0, 0.04)), 0)
        shade = np.maximum(shade, _blur(near, size * rng.uniform(0.006, 0.05), small) * rng.uniform(0.1, 0.7))
    tint = 1 - shade[..., None] * (1 - rng.uniform(0, 0.25, 3).astype(np.float32))
    view, inner = _clip(canvas, x - pad, y - pad, tint.shape[0], tint.shape[1])
    if view is not None:
        canvas[view] *= tint[inner]


def _blur(plane: Field, sigma: float, shrink: int) -> Field:
    """A wide blur, computed small."""
    h, w = plane.shape
    if shrink > 1:
        plane = cv2.resize(plane, (max(1, w // shrink), max(1, h // shrink)), interpolation=cv2.INTER_AREA)
    plane = cv2.GaussianBlur(plane, (0, 0), max(0.5, sigma / shrink))
    return np.asarray(cv2.resize(plane, (w, h)), np.float32)


Window = tuple[slice, slice]


def _clip(canvas: Field, x: int, y: int, h: int, w: int) -> tuple[Window, Window] | tuple[None, None]:
    """Slices of the canvas and of an h x w patch at (x, y) where both exist, or (None, None)."""
    y0, x0 = max(0, y), max(0, x)
    y1, x1 = min(canvas.shape[0], y + h), min(canvas.shape[1], x + w)
    if y1 <= y0 or x1 <= x0:
        return None, None
    return np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]


def _size_share(rng: Rng, crowd: int) -> float:
    """Side of a thing relative to the shorter side of the frame: log-uniform, smaller in a crowd."""
    low, high = (0.35, 1.2) if crowd == 1 else (0.18, 0.95)
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _camera(rng: Rng, image: Surface) -> Image:
    """White balance, exposure, contrast, blur, noise and JPEG."""
    image = image * rng.normal(1, 0.05, 3).astype(np.float32) * np.float32(rng.uniform(0.7, 1.15))
    image = 128 + (image - 128) * np.float32(rng.uniform(0.75, 1.2))
    side = max(image.shape[:2])
    if rng.random() < 0.55:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3) * side / 512)
    if rng.random() < 0.05:
        length = int(rng.integers(3, 8)) | 1
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        image = cv2.filter2D(image, -1, kernel if rng.random() < 0.5 else kernel.T)
    if rng.random() < 0.6:
        noise = rng.standard_normal((image.shape[0], image.shape[1], 1 if rng.random() < 0.5 else 3), np.float32)
        image = image + noise * np.float32(rng.uniform(0.5, 9))
    flat: Image = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        quality = int(rng.integers(35, 96))
        _, packed = cv2.imencode(".jpg", flat, [cv2.IMWRITE_JPEG_QUALITY, quality])
        flat = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return flat


def compose(rng: Rng, longest: int, sources: Sources) -> Sample:
    """One scene whose longest side is `longest`; the same generator state gives the same scene.

    The aspect ratio is 1:1 to 2:1 either way. Things with too few visible pixels are dropped from the label planes.
    """
    aspect = 1.0 if rng.random() < 0.3 else float(np.exp(rng.uniform(0, np.log(2.0))))
    short = max(16, round(longest / aspect))
    height, width = (short, longest) if rng.random() < 0.5 else (longest, short)
    canvas = np.ascontiguousarray(backdrop(rng, height, width, sources.photos)[:height, :width])
    instances, parts = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    owners: list[int] = []
    groups: list[list[int]] = []
    crowd = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.26, 0.2, 0.2, 0.14, 0.1, 0.1]))
    row = rng.random() < 0.2
    pile = rng.random() < 0.12  # many of one kind, close together, as on a shelf
    crowd = int(rng.integers(4, 13)) if pile else crowd
    common = _size_share(rng, min(crowd, 4))
    heap = rng.uniform(0.2, 0.8, 2)
    last = 0
    for index in range(crowd):
        share = common * rng.uniform(0.85, 1.1) if row or pile else _size_share(rng, crowd)
        if index == 0 or not pile or rng.random() < 0.1:
            made = make_object(
                rng, max(12, int(min(height, width) * share)), sources.photos, sources.cutouts, sources.favour
            )
        layers = made
        angle = rng.normal(0, 4) if rng.random() < (0.3 if pile else 0.75) else rng.uniform(0, 360)
        layers = _turn(layers, float(angle), bool(rng.random() < 0.5))
        wide = layers[0].alpha.shape[0]
        overhang = 0.35 if rng.random() < 0.25 else 0.02
        span_x, span_y = width - wide * (1 - 2 * overhang), height - wide * (1 - 2 * overhang)
        x = int(rng.uniform(min(0, span_x), max(0, span_x)) - wide * overhang)
        y = int(rng.uniform(min(0, span_y), max(0, span_y)) - wide * overhang)
        if row:
            x = int(width * (index + 0.5) / crowd - wide / 2 + rng.normal(0, 0.02) * width)
            y = int(height * 0.75 - wide + rng.normal(0, 0.02) * height)
        if pile:
            reach = wide * np.sqrt(crowd) * 0.35
            x = int(width * heap[0] + rng.uniform(-reach, reach) - wide / 2)
            y = int(height * heap[1] + rng.uniform(-reach, reach) - wide / 2)
        light = np.float32(rng.uniform(0.75, 1.1)) if rng.random() < 0.6 else np.float32(1)
        members = []
        for depth, layer in enumerate(layers):
            if depth == 0 and rng.random() < 0.85:
                _shadow(rng, canvas, layer.alpha, x, y)
            view, inner = _clip(canvas, x, y, *layer.alpha.shape)
            if view is None:
                continue
            last += 1
            if layer.joined:
                members.append(last)
            matte = layer.alpha[inner]
            canvas[view] += matte[..., None] * (layer.rgb[inner] * light - canvas[view])
            solid = matte > 0.5
            instances[view][solid] = last
            parts[view][solid] = 0
            for part in np.unique(layer.parts[inner][solid]):
                if part:
                    owners.append(last)
                    parts[view][solid & (layer.parts[inner] == part)] = len(owners)
        if len(members) > 1:
            groups.append(members)
    smallest = MIN_AREA_SHARE * height * width
    areas = np.bincount(instances.ravel(), minlength=256)
    gone = np.flatnonzero((areas > 0) & (areas < smallest))
    instances[np.isin(instances, gone[gone > 0])] = 0
    return Sample(_camera(rng, canvas), instances, parts, owners, groups)
