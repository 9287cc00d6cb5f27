"""Photo folders as sources of texture: decoded lazily, cached small, chosen with the caller's random generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from boothsam.training.polygons import Outline, load_outlines, matte_of, sha256_of
from numpy.typing import NDArray

# numpy and OpenCV lose dtypes on the way; the comments say what the arrays hold
Image = NDArray[Any]  # (h, w, 3) uint8 RGB
Plane = NDArray[Any]  # (h, w) uint8

TORN = 1.15  # see _is_torn
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def list_photos(folder: Path) -> list[Path]:
    """Photo files under `folder`, recursively, in a fixed order.

    Raises FileNotFoundError when the folder does not exist: a mistyped path must not silently train without photos.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no photo folder at {folder}; hint: leave the option out to train on drawings alone")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)


def read_rgb(path: Path, longest: int | None = None) -> Image:
    """Decode one photo as (h, w, 3) uint8 RGB, at most `longest` pixels on its longest side."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"{path} is not a photo OpenCV can decode; hint: remove it from the folder")
    if longest is not None and max(bgr.shape[:2]) > longest:
        scale = longest / max(bgr.shape[:2])
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(bgr[:, :, ::-1])


class PhotoBank:
    """Random crops of photos; with no photos at all, `crop` returns None and the callers draw instead."""

    def __init__(self, paths: Sequence[Path], longest: int = 512, capacity: int = 600) -> None:
        self._paths = list(paths)
        self._longest = longest
        self._capacity = capacity
        self._cache: dict[int, Image] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def photo(self, rng: np.random.Generator) -> Image | None:
        """One whole photo, or None when the bank is empty."""
        if not self._paths:
            return None
        index = int(rng.integers(len(self._paths)))
        if index not in self._cache:
            if len(self._cache) >= self._capacity:
                self._cache.pop(next(iter(self._cache)))
            self._cache[index] = read_rgb(self._paths[index], self._longest)
        return self._cache[index]

    def crop(self, rng: np.random.Generator, height: int, width: int, zoom: float = 2.0) -> Image | None:
        """A random crop with the wanted aspect, enlarged to (height, width, 3); `zoom` bounds how small the crop is."""
        photo = self.photo(rng)
        if photo is None:
            return None
        h, w = photo.shape[:2]
        scale = min(h / height, w / width) / float(rng.uniform(1.0, zoom))
        ch, cw = max(2, int(height * scale)), max(2, int(width * scale))
        y = int(rng.integers(h - ch + 1))
        x = int(rng.integers(w - cw + 1))
        patch = photo[y : y + ch, x : x + cw]
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
        method = cv2.INTER_AREA if scale > 1.0 else cv2.INTER_LINEAR
        return np.ascontiguousarray(cv2.resize(np.ascontiguousarray(patch), (width, height), interpolation=method))


def stands_on_white(photo: Image, tolerance: int = 14) -> bool:
    """Whether the photo's background is white: at least half of its outermost pixels within `tolerance` of 255."""
    rim = np.concatenate([photo[0], photo[-1], photo[:, 0], photo[:, -1]])
    return bool((rim.min(1) >= 255 - tolerance).mean() >= 0.5)


def _is_torn(solid: Plane) -> bool:
    """Whether a cut's rim wanders in and out, as where the flood has leaked into a white face.

    Sound cuts of the grocery pictures have a rim (holes included) of at most 1.12 times the hull's, torn ones of 1.17
    and more.
    """
    rims, _ = cv2.findContours(solid, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(rims))
    return bool(sum(map(len, rims)) > TORN * cv2.arcLength(hull, True))


def cut_from_white(photo: Image, tolerance: int = 14) -> tuple[Image, Plane] | None:
    """Cut a product picture out of its white background.

    The background is what a flood fill from the rim reaches through near-white pixels, so white inside the product
    stays. Returns the cropped (h, w, 3) picture and its (h, w) alpha (0..255), or None when the cut looks wrong: less
    than 8 % or more than 95 % of the picture left, or a torn rim.
    """
    padded = cv2.copyMakeBorder(photo, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    flood = np.zeros((padded.shape[0] + 2, padded.shape[1] + 2), np.uint8)
    spread = (tolerance,) * 3
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (255 << 8)
    cv2.floodFill(padded, flood, (0, 0), (0, 0, 0), spread, spread, flags)
    solid = (flood[3:-3, 3:-3] == 0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid)
    if count < 2:
        return None
    biggest = int(stats[1:, cv2.CC_STAT_AREA].max())
    keep = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= 0.05 * biggest)
    solid = np.isin(labels, keep[keep > 0]).astype(np.uint8)
    if not 0.08 <= float(solid.mean()) <= 0.95:
        return None
    # One pixel off the rim: JPEG and the studio's own antialiasing leave a white seam there.
    solid = cv2.erode(solid, np.ones((3, 3), np.uint8))
    if not solid.any() or _is_torn(solid):
        return None
    ys, xs = np.nonzero(solid)
    box = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    alpha = cv2.GaussianBlur(solid * np.uint8(255), (3, 3), 0.6)
    return np.ascontiguousarray(photo[box]), np.ascontiguousarray(alpha[box].astype(np.uint8))


def cut_outs(path: Path, outlines: Mapping[str, Sequence[Outline]]) -> list[tuple[Image, Plane]]:
    """Every thing that can be cut out of one photo: (h, w, 3) uint8 RGB and (h, w) alpha (0..255) each.

    A photo whose sha256 is among `outlines` gives its whole things, cut along them; another one is cut by flood fill if
    it stands on white, and gives nothing otherwise.
    """
    photo = read_rgb(path)
    known = outlines.get(sha256_of(path))
    if known is None:
        cut = cut_from_white(photo) if stands_on_white(photo) else None
        return [] if cut is None else [cut]
    cuts = []
    for outline in (thing for thing in known if thing.whole):
        alpha, window = matte_of(outline.rings, *photo.shape[:2])
        cuts.append((np.ascontiguousarray(photo[window]), alpha))
    return cuts


class CutoutBank:
    """Real products with alpha, cut once from outlined photos and from pictures on white."""

    def __init__(self, paths: Sequence[Path], outlines: Mapping[str, Sequence[Outline]] | None = None) -> None:
        known = load_outlines() if outlines is None else outlines
        self._cuts = [cut for path in paths for cut in cut_outs(path, known)]

    def __len__(self) -> int:
        return len(self._cuts)

    def pick(self, rng: np.random.Generator) -> tuple[Image, Plane]:
        """One cut-out: (h, w, 3) RGB and (h, w) alpha."""
        return self._cuts[int(rng.integers(len(self._cuts)))]
