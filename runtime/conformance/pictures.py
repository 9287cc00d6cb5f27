"""Drawn pictures with known masks: the same bytes on every machine, so that answers stored for them stay valid.

Integer arithmetic and `random.Random.random` only (Python guarantees that stream for a seed; NumPy guarantees none of
its generators'), no fonts, no anti-aliasing, no image library.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_UNIT = 1 << 10
# (cos, sin) of 0, 15, ..., 165 degrees times 1024, written out: no libm in the pixels.
_TURNS = (
    (1024, 0), (989, 265), (887, 512), (724, 724), (512, 887), (265, 989),
    (0, 1024), (-265, 989), (-512, 887), (-724, 724), (-887, 512), (-989, 265),
)  # fmt: skip
KINDS = ("ellipse", "rectangle", "polygon", "ring")


@dataclass(frozen=True)
class Scene:
    """A picture and its objects.

    image: (h, w, 3) uint8 RGB. masks: one (h, w) bool per object, the part of it that is seen. parents: for each
    object the index of the one it lies on (whose mask includes it), or -1.
    """

    image: NDArray[np.uint8]
    masks: tuple[NDArray[np.bool_], ...]
    parents: tuple[int, ...]

    def box_xyxy(self, index: int) -> NDArray[np.float64]:
        """(4,) the object's tight box: first and last pixel, inclusive."""
        rows, cols = (np.flatnonzero(self.masks[index].any(axis)) for axis in (1, 0))
        return np.array([cols[0], rows[0], cols[-1], rows[-1]], np.float64)

    def click_xy(self, index: int) -> NDArray[np.float64]:
        """(2,) the object's own pixel (not its child's) that lies nearest to the middle of its pixels."""
        own = self.masks[index].copy()
        for child, parent in enumerate(self.parents):
            if parent == index:
                own &= ~self.masks[child]
        rows, cols = np.nonzero(own)
        middle_y, middle_x = int(rows.mean()), int(cols.mean())
        nearest = int(((rows - middle_y) ** 2 + (cols - middle_x) ** 2).argmin())
        return np.array([cols[nearest], rows[nearest]], np.float64)


class _Pen:
    """Draws one scene; `draw` is Python's guaranteed stream."""

    def __init__(self, seed: int, size_hw: tuple[int, int]) -> None:
        self._draw = random.Random(seed).random
        self.h, self.w = size_hw
        self.y, self.x = np.mgrid[0 : self.h, 0 : self.w].astype(np.int64)

    def integer(self, low: int, high: int) -> int:
        """One of low..high, both included."""
        return low + int(self._draw() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self._draw() < probability

    def colour(self, apart_from: list[tuple[int, int, int]], distance: int) -> tuple[int, int, int]:
        """An RGB colour at least `distance` (sum over channels) from each of `apart_from`, if 60 tries find one."""
        for _ in range(60):
            rgb = (self.integer(0, 255), self.integer(0, 255), self.integer(0, 255))
            if all(sum(abs(a - b) for a, b in zip(rgb, other, strict=True)) >= distance for other in apart_from):
                break
        return rgb

    def fill(self, rgb: tuple[int, int, int], window: tuple[slice, slice], strength: int) -> NDArray[np.uint8]:
        """The colour over a window, with a linear gradient of up to `strength` levels to either side."""
        y, x = self.y[window], self.x[window]
        h, w = y.shape
        turn = _TURNS[self.integer(0, 11)]
        ramp = ((x - x[0, 0]) * 2 - w) * turn[0] + ((y - y[0, 0]) * 2 - h) * turn[1]
        level = ramp * self.integer(0, strength) // ((w + h) * _UNIT)
        shaded: NDArray[np.uint8] = np.clip(np.array(rgb) + level[..., None], 0, 255).astype(np.uint8)
        return shaded

    def shape(self, kind: str, cx: int, cy: int, radius: int) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
        """A window of the frame and the mask in it of a shape within `radius` of its centre."""
        window = (slice(max(cy - radius, 0), cy + radius + 1), slice(max(cx - radius, 0), cx + radius + 1))
        dx, dy = self.x[window] - cx, self.y[window] - cy
        cos, sin = _TURNS[self.integer(0, 11)]
        u, v = (dx * cos + dy * sin) // _UNIT, (dy * cos - dx * sin) // _UNIT
        narrow = max(radius * self.integer(55, 100) // 100, 1)
        if kind == "rectangle":
            narrow = min(narrow, radius * 3 // 4)
            long = int((radius * radius - narrow * narrow) ** 0.5)
            return window, (abs(u) <= long) & (abs(v) <= narrow)
        if kind == "polygon":
            inside = np.ones(dx.shape, np.bool_)
            step = self.integer(3, 8)
            near = radius * (50 if step == 8 else 68) // 100
            for k in range(0, 24, step):
                normal = _TURNS[k % 12]
                sign = 1 if k < 12 else -1
                inside &= sign * (u * normal[0] + v * normal[1]) <= near * _UNIT
            return window, inside & (dx * dx + dy * dy <= radius * radius)
        inside = (u * narrow) ** 2 + (v * radius) ** 2 <= (radius * narrow) ** 2
        if kind == "ring":
            hole = narrow * self.integer(35, 60) // 100
            inside &= dx * dx + dy * dy > hole * hole
        return window, inside


def draw_scene(
    seed: int,
    size_hw: tuple[int, int],
    count: int = 14,
    radius: tuple[int, int] = (45, 110),
    contrast: int = 150,
    hatch: int = 0,
    insets: int = 20,
) -> Scene:
    """Up to `count` coloured shapes, none over another, on a flat or shaded ground.

    size_hw: (h, w) in pixels. radius: smallest and largest outer radius in pixels. contrast: least distance of a
    shape's colour from its ground's, summed over the channels. hatch: levels added to and taken from every second
    pixel, a texture that only an antialiasing filter shrinks without moire. insets: how many of a hundred shapes (rings
    excepted) carry a smaller one, a second object whose parent they are. Shapes that find no room in 80 tries are left
    out; through a ring the ground shows.
    """
    pen = _Pen(seed, size_hw)
    ground = pen.colour([], 0)
    image = pen.fill(ground, (slice(0, pen.h), slice(0, pen.w)), pen.integer(0, 1) * 50)
    masks: list[NDArray[np.bool_]] = []
    parents: list[int] = []
    placed: list[tuple[int, int, int]] = []
    used = [ground]

    def put(kind: str, cx: int, cy: int, r: int, apart_from: list[tuple[int, int, int]]) -> tuple[int, int, int]:
        window, inside = pen.shape(kind, cx, cy, r)
        rgb = pen.colour(apart_from, contrast)
        image[window][inside] = pen.fill(rgb, window, pen.integer(0, 1) * 40)[inside]
        mask = np.zeros(size_hw, np.bool_)
        mask[window] = inside
        masks.append(mask)
        return rgb

    for _ in range(count):
        kind = KINDS[pen.integer(0, len(KINDS) - 1)]
        for _ in range(80):
            r = pen.integer(*radius)
            cx, cy = pen.integer(0, pen.w - 1), pen.integer(0, pen.h - 1)
            inside_frame = r // 2 <= cx < pen.w - r // 2 and r // 2 <= cy < pen.h - r // 2
            if inside_frame and all((cx - x) ** 2 + (cy - y) ** 2 > (r + q + 4) ** 2 for x, y, q in placed):
                break
        else:
            continue
        placed.append((cx, cy, r))
        rgb = put(kind, cx, cy, r, used[-3:] + [ground])
        parents.append(-1)
        used.append(rgb)
        if kind != "ring" and r >= 24 and pen.integer(1, 100) <= insets:
            put(KINDS[pen.integer(0, 1)], cx, cy, r * pen.integer(35, 50) // 100, [rgb, ground])
            parents.append(len(masks) - 2)
            masks[-1] &= masks[-2]
    if hatch:
        sign = np.where((pen.x + pen.y) % 2 == 0, hatch, -hatch)
        image = np.clip(image.astype(np.int64) + sign[..., None], 0, 255).astype(np.uint8)
    return Scene(image, tuple(masks), tuple(parents))
