"""Composed booth photos: an empty backdrop, the same with products, seen by a camera that is never quite the same.

The training generator draws backdrop, products, shadows and reflections; here come what two shots of one booth differ
in: exposure, white balance, black level, noise, JPEG, a pixel or two of vibration, and light that the product takes
or gives. Everything follows from the seed. No photo is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.training import backdrops, textures
from boothsam.training.lighting import random_lamp, room_light
from boothsam.training.objects import make_object
from boothsam.training.photos import CutoutBank, PhotoBank
from boothsam.training.shapes import Layer
from boothsam.training.stage import Stage, trim, turn

Image = npt.NDArray[np.uint8]
Surface = npt.NDArray[np.float32]
Rng = np.random.Generator
KINDS = ("paper", "turntable", "table", "crumpled")


@dataclass(frozen=True)
class Camera:
    """What all shots of one booth share. blur: Gaussian sigma; noise: deviation in levels; quality: JPEG's."""

    blur: float
    noise: float
    quality: int
    drift: float  # scale of exposure and white balance changes between shots
    vibration: float  # largest shift between shots, in pixels


@dataclass(frozen=True)
class Pair:
    """plates: shots of the empty booth; photo with products; empty: one more shot without; mask (h, w) bool.

    scene: the undisturbed canvas with products, (h, w, 3) float32, for shots from a moved camera.
    """

    plates: list[Image]
    photo: Image
    empty: Image
    mask: npt.NDArray[np.bool_]
    kind: str
    camouflage: bool
    camera: Camera
    scene: Surface

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """Of the visible products, x1 and y1 exclusive."""
        columns, rows = np.flatnonzero(self.mask.any(0)), np.flatnonzero(self.mask.any(1))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def draw_backdrop(rng: Rng, height: int, width: int, kind: str) -> Surface:
    """(h, w, 3) float32 in 0..255, with its uneven light."""
    photos = PhotoBank([])
    made = {
        "paper": lambda: backdrops.booth(rng, height, width),
        "turntable": lambda: backdrops.turntable(rng, height, width),
        "table": lambda: backdrops.tabletop(rng, height, width, photos),
        "crumpled": lambda: backdrops.crumpled(rng, height, width),
    }[kind]()
    canvas = np.ascontiguousarray(made[:height, :width], np.float32)
    room_light(rng, canvas)
    return np.clip(canvas, 0, 255)


def shoot(rng: Rng, scene: Surface, camera: Camera, matrix: npt.ArrayLike | None = None) -> Image:
    """One shot. matrix: (2, 3) of a moved camera, scene to shot; without it the camera only shakes."""
    height, width = scene.shape[:2]
    shake = np.array([[1, 0, 0], [0, 1, 0]], np.float64) if matrix is None else np.array(matrix, np.float64)
    shake[:, 2] += rng.uniform(-camera.vibration, camera.vibration, 2)
    image = cv2.warpAffine(scene, shake, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    image = cv2.GaussianBlur(image, (0, 0), camera.blur)
    gain = np.exp(rng.normal(0, camera.drift) + rng.normal(0, camera.drift / 3, 3)).astype(np.float32)
    image = image * gain + np.float32(rng.normal(0, 12 * camera.drift))
    image += rng.standard_normal(image.shape, np.float32) * np.float32(camera.noise)
    flat = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    _, packed = cv2.imencode(".jpg", flat[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, camera.quality])
    return np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])


def _thing(rng: Rng, side: float) -> list[Layer]:
    layers = make_object(rng, max(24, int(side)), PhotoBank([]), CutoutBank([]), None)
    return trim(turn(layers, float(rng.normal(0, 1.5)), False))


def _match(rng: Rng, backdrop: Surface, layers: list[Layer]) -> Surface:
    """The backdrop in nearly the product's colour."""
    solid = layers[0].alpha > 0.5
    wanted = np.median(layers[0].rgb[solid], axis=0) + rng.normal(0, 5, 3).astype(np.float32)
    moved = backdrop + (wanted - backdrop.mean((0, 1))) * np.float32(rng.uniform(0.85, 1.0))
    return np.asarray(np.clip(moved, 0, 255), np.float32)


def _spill(rng: Rng, height: int, width: int) -> Surface:
    """Light that things in a booth take from or throw onto it: a smooth field around 1."""
    field = textures.smooth_noise(rng, max(2, height // 8), max(2, width // 8), 2)[..., None]
    strength = rng.uniform(0, 0.035) * rng.uniform(0.6, 1.0, 3)
    return cv2.resize(np.asarray(1 + field * strength, np.float32), (width, height))


def booth_pair(seed: int, longest: int = 1024, frames: int = 1) -> Pair:
    """The pair of this seed: one product, of five photos one has two; one photo in eight in the backdrop's colour."""
    rng = np.random.default_rng([2111, seed])
    kind = KINDS[int(rng.choice(4, p=[0.45, 0.2, 0.2, 0.15]))]
    short = round(longest / float(rng.choice([1.0, 4 / 3, 1.5, 16 / 9])))
    height, width = (short, longest) if rng.random() < 0.7 else (longest, short)
    backdrop = draw_backdrop(rng, height, width, kind)
    while True:
        count = 2 if rng.random() < 0.2 else 1
        things = [_thing(rng, min(height, width) * rng.uniform(0.3, 0.85) / count**0.5) for _ in range(count)]
        camouflage = kind == "paper" and count == 1 and rng.random() < 0.28
        empty = _match(rng, backdrop, things[0]) if camouflage else backdrop
        stage = Stage.on(empty.copy(), random_lamp(rng))
        for index, layers in enumerate(things):
            h, w = layers[0].alpha.shape
            x = (index + 0.5) / count * width + rng.normal(0, 0.04) * width - w / 2
            foot = max(rng.uniform(0.7, 0.95) * height, min(0.97 * height, h + 0.02 * height))
            stage.put(rng, layers, int(np.clip(x, 2, max(3, width - w - 2))), int(foot - h), standing=True)
        mask = stage.instances > 0
        if 0.004 < mask.mean() < 0.6:
            break
    camera = Camera(
        blur=float(rng.uniform(0.4, 1.0)),
        noise=float(rng.uniform(0.7, 4.0)),
        quality=int(rng.integers(75, 97)),
        drift=float(rng.uniform(0.0, 0.12)),
        vibration=float(rng.choice([0.0, 0.5, 1.0])),
    )
    scene = np.asarray(stage.canvas, np.float32) * _spill(rng, height, width)
    plates = [shoot(rng, empty, camera) for _ in range(frames)]
    return Pair(plates, shoot(rng, scene, camera), shoot(rng, empty, camera), mask, kind, camouflage, camera, scene)
