"""Composed training scenes: a backdrop, things in a layout with light and shadows, a camera's flaws, exact masks.

Masks are of what is visible: an occluder takes its pixels away, a shadow or a reflection never belongs to anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from boothsam.training.backdrops import backdrop
from boothsam.training.layouts import arrange
from boothsam.training.lighting import camera, random_lamp, room_light
from boothsam.training.photos import Image, Plane
from boothsam.training.sources import Sources
from boothsam.training.stage import Stage
from boothsam.training.textures import Rng

__all__ = ["MIN_AREA_SHARE", "Sample", "Sources", "compose"]

MIN_AREA_SHARE = 0.0004  # below about 20 x 20 pixels of the 1024 frame nothing can be learned at stride 4


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


def compose(rng: Rng, longest: int, sources: Sources) -> Sample:
    """One scene whose longest side is `longest`; the same generator state gives the same scene.

    The aspect ratio is 1:1 to 2:1 either way. Things with too few visible pixels are dropped from the label planes.
    """
    aspect = 1.0 if rng.random() < 0.3 else float(np.exp(rng.uniform(0, np.log(2.0))))
    short = max(16, round(longest / aspect))
    height, width = (short, longest) if rng.random() < 0.5 else (longest, short)
    canvas = np.ascontiguousarray(backdrop(rng, height, width, sources.photos)[:height, :width])
    stage = Stage.on(np.asarray(canvas, np.float32), random_lamp(rng))
    arrange(rng, stage, sources)
    room_light(rng, stage.canvas)
    smallest = MIN_AREA_SHARE * height * width
    areas = np.bincount(stage.instances.ravel(), minlength=256)
    gone = (areas > 0) & (areas < smallest)
    gone[0] = False
    stage.instances[gone[stage.instances]] = 0
    return Sample(camera(rng, stage.canvas), stage.instances, stage.parts, stage.owners, stage.groups)
