"""Outlines of things in known photos: polygons kept by the photo's sha256, and their rasters.

A ring is a list of (x, y) in photo pixels, whole numbers at pixel corners; rings are filled by the even-odd rule, so
that a hole is one ring more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[Any]  # (h, w) uint8
Bits = NDArray[np.bool_]  # (h, w)
Ring = Sequence[Sequence[float]]

OUTLINES = Path(__file__).with_name("outlines.json")
FINE = 8  # sub-pixels per side when a polygon is drawn
SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


@dataclass(frozen=True)
class Outline:
    """One thing in a photo: its name, the rings of what is visible of it, and whether that is the whole thing.

    A thing with fingers in front of it is a good mask but not a good cut-out.
    """

    name: str
    rings: tuple[Ring, ...]
    whole: bool = True


@lru_cache(maxsize=4)
def load_outlines(path: Path = OUTLINES) -> dict[str, tuple[Outline, ...]]:
    """Things outlined so far, by the sha256 (hexadecimal) of the photo's file.

    Raises ValueError for a ring with fewer than three points.
    """
    photos: dict[str, tuple[Outline, ...]] = {}
    for sha256, photo in json.loads(path.read_text(encoding="utf-8"))["photos"].items():
        things = tuple(
            Outline(thing["name"], tuple(thing["polygons"]), thing.get("whole", True)) for thing in photo["things"]
        )
        for thing in things:
            if not thing.rings or min(map(len, thing.rings)) < 3:
                raise ValueError(
                    f"{path}: {photo['file']}, {thing.name}: a ring with fewer than three points; hint: remove the ring"
                )
        photos[sha256] = things
    return photos


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file: the key of `load_outlines`."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _draw(rings: Sequence[Ring], height: int, width: int, rim: float) -> Plane:
    """Coverage 0..255 of even-odd rings, less `rim` pixels along every edge; drawn FINE times larger, then averaged."""
    canvas = np.zeros((height * FINE, width * FINE), np.uint8)
    # OpenCV's whole coordinates lie in pixel centres, ours at pixel corners
    fixed = [np.round((np.array(ring) * FINE - 0.5) * (1 << SHIFT)).astype(np.int32) for ring in rings]
    cv2.fillPoly(canvas, fixed, 255, cv2.LINE_8, SHIFT)
    if rim > 0:
        cv2.polylines(canvas, fixed, True, 0, max(1, round(2 * rim * FINE)), cv2.LINE_8, SHIFT)
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def mask_of(rings: Sequence[Ring], height: int, width: int) -> Bits:
    """(height, width) bool: pixels at least half covered."""
    return np.asarray(_draw(rings, height, width, 0.0) > 127, np.bool_)


def matte_of(rings: Sequence[Ring], height: int, width: int, rim: float = 1.0) -> tuple[Plane, tuple[slice, slice]]:
    """Antialiased alpha (0..255) of the rings drawn in by `rim` pixels, with the window of the photo that it covers.

    The rim leaves out what lens, JPEG and resizing have mixed with the background.
    """
    points = np.concatenate([np.array(ring, np.float64) for ring in rings])
    x0, y0 = np.clip(np.floor(points.min(0)).astype(int), 0, (width - 1, height - 1))
    x1, y1 = np.clip(np.ceil(points.max(0)).astype(int), (x0 + 1, y0 + 1), (width, height))
    moved = [[(x - x0, y - y0) for x, y in ring] for ring in rings]
    alpha = _draw(moved, int(y1 - y0), int(x1 - x0), rim)
    return alpha, np.s_[int(y0) : int(y1), int(x0) : int(x1)]
