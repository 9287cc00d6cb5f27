"""The scene in the making: layers are put on a canvas, and the label planes keep what stays visible."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from boothsam.training.lighting import Lamp, cast_shadow, clip, reflect
from boothsam.training.photos import Plane
from boothsam.training.shapes import Layer
from boothsam.training.textures import Rng, Surface

MAX_ID = 250  # instance and part ids are bytes


def turn(layers: list[Layer], angle: float, flip: bool) -> list[Layer]:
    """Rotate a patch about its centre (degrees) on a canvas that holds it, and mirror it."""
    side = layers[0].alpha.shape[0]
    turned = []
    wide = int(side * (abs(np.cos(np.radians(angle))) + abs(np.sin(np.radians(angle))))) + 2
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    matrix[:, 2] += (wide - side) / 2
    for layer in layers:
        rgb, alpha, parts, through = layer.rgb, layer.alpha, layer.parts, layer.through
        if abs(angle) > 0.3:
            rgb = cv2.warpAffine(rgb, matrix, (wide, wide), borderMode=cv2.BORDER_REPLICATE)
            alpha = cv2.warpAffine(alpha, matrix, (wide, wide))
            parts = cv2.warpAffine(parts, matrix, (wide, wide), flags=cv2.INTER_NEAREST)
            through = None if through is None else cv2.warpAffine(through, matrix, (wide, wide))
        if flip:
            rgb, alpha, parts = rgb[:, ::-1], alpha[:, ::-1], parts[:, ::-1]
            through = None if through is None else through[:, ::-1]
        turned.append(Layer(rgb, alpha, parts, layer.joined, through, layer.same_as))
    return turned


def trim(layers: list[Layer]) -> list[Layer]:
    """Cut all layers of a thing to the box of what any of them shows."""
    seen = np.maximum.reduce([layer.alpha for layer in layers]) > 0.02
    ys, xs = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if len(ys) == 0:
        return layers
    box = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    return [
        Layer(
            layer.rgb[box],
            np.ascontiguousarray(layer.alpha[box]),
            layer.parts[box],
            layer.joined,
            None if layer.through is None else layer.through[box],
            layer.same_as,
        )
        for layer in layers
    ]


@dataclass
class Stage:
    """canvas (h, w, 3) float32 RGB 0..255; instances, parts (h, w) uint8; owners, groups as in Sample."""

    canvas: Surface
    lamp: Lamp
    instances: Plane
    parts: Plane
    owners: list[int] = field(default_factory=list)
    groups: list[list[int]] = field(default_factory=list)
    last: int = 0

    @staticmethod
    def on(backdrop: Surface, lamp: Lamp) -> Stage:
        """An empty stage before a backdrop."""
        empty = np.zeros(backdrop.shape[:2], np.uint8)
        return Stage(backdrop, lamp, empty, empty.copy())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.canvas.shape[0], self.canvas.shape[1]

    @property
    def full(self) -> bool:
        """Whether ids or the room for parts run out."""
        return self.last >= MAX_ID - 4 or len(self.owners) >= MAX_ID - 12

    def put(
        self, rng: Rng, layers: list[Layer], x: int, y: int, *, standing: bool, light: float = 1.0, shadow: bool = True
    ) -> None:
        """Lay a thing's layers on the canvas, top left at (x, y); nothing happens once the stage is full."""
        if self.full:
            return
        members: list[int] = []
        ids: list[int] = []
        for depth, layer in enumerate(layers):
            if layer.same_as is None:
                self.last += 1
                ids.append(self.last)
                if layer.joined:
                    members.append(self.last)
            else:
                ids.append(ids[layer.same_as])
            if depth == 0 and shadow:
                upright = standing and layer.alpha.shape[0] > 0.6 * layer.alpha.shape[1]  # plates lie
                cast_shadow(rng, self.lamp, self.canvas, layer.alpha, x, y, upright)
                if standing and self.lamp.mirror > 0:
                    reflect(rng, self.lamp, self.canvas, layer.rgb * np.float32(light), layer.alpha, x, y)
            self._lay(rng, layer, x, y, ids[-1], light)
        if len(members) > 1:
            self.groups.append(members)

    def _lay(self, rng: Rng, layer: Layer, x: int, y: int, number: int, light: float) -> None:
        view, inner = clip(self.canvas, x, y, *layer.alpha.shape)
        if view is None or inner is None:
            return
        matte, behind = layer.alpha[inner], self.canvas[view]
        paint: Surface = layer.rgb[inner] * np.float32(light)
        if layer.through is not None:
            seen = behind[:, ::-1] if rng.random() < 0.3 else cv2.GaussianBlur(behind, (0, 0), rng.uniform(0.5, 4))
            tinted = seen * (np.float32(0.35) + np.float32(0.65) * paint / 255)
            paint = paint + layer.through[inner][..., None] * (tinted - paint)
        behind += matte[..., None] * (paint - behind)
        solid = matte > 0.5
        self.instances[view][solid] = number
        self.parts[view][solid] = 0
        marks = layer.parts[inner]
        for part in np.flatnonzero(np.bincount(marks[solid].ravel(), minlength=1)):
            if part:
                self.owners.append(number)
                self.parts[view][solid & (marks == part)] = len(self.owners)
