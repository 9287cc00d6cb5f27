"""Whether the camera stands where it stood: how a photo's backdrop lies against that of an earlier photo.

Both pictures are reduced to their structure (a band of frequencies, divided by its own local strength), so exposure
and shadows do not matter. A similarity (shift, turn, zoom) is then found by Gauss-Newton steps on a pyramid, in the
manner of Lucas and Kanade (1981) with the robust weights of iteratively reweighted least squares: each tile counts
by how well it agrees, so what stands before the backdrop does not. A backdrop without structure tells nothing, and an
edge tells nothing about a shift along it; both are said and not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.transforms import FloatArray, Uint8Array

Matrix = npt.NDArray[np.float64]
FINE = 512  # longest side of the finest level
_COARSE = 48
_STEPS = 8
_BAND = 6.0  # sigma in pixels of each level: structure coarser than this is light, not backdrop
_STRUCTURED = 0.35  # mean square of a tile's structure from which it is no noise; noise alone gives about 0.15
_EXPOSED = 0.6  # of a tile's pixels that must be neither black nor white
_BLACK, _WHITE = 2.0, 250.0
_FEW_TILES = 6
_RIDGE = 0.02


@dataclass(frozen=True)
class Structure:
    """levels: (h, w) float32 each, the finest first. exposed: share of each tile that is neither black nor white."""

    levels: tuple[FloatArray, ...]
    exposed: FloatArray

    @classmethod
    def of(cls, image: Uint8Array, noise: float) -> Structure:
        """From a (h, w, 3) uint8 RGB frame. noise: deviation of its pixels in levels."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        scale = FINE / max(grey.shape)
        if scale < 1:
            grey = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.float32)
            noise *= scale
        exposed = _tiles(((grey > _BLACK) & (grey < _WHITE)).astype(np.float32))
        levels = []
        while True:
            levels.append(_band(grey, noise))
            if max(grey.shape) // 2 < _COARSE or min(grey.shape) // 2 < 16:
                return cls(tuple(levels), exposed)
            size = (max(1, round(grey.shape[1] / 2)), max(1, round(grey.shape[0] / 2)))
            grey, noise = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32), noise / 2


@dataclass(frozen=True)
class Motion:
    """matrix: (2, 3) from the plate's pixels to the photo's, both at `FINE`.

    here, moved: mean correlation of the structured tiles as the pictures lie, and after `matrix`. tiles: how many
    tiles have structure. spread: share of the frame that they span. seen: whether a shift in any direction would show.
    """

    matrix: Matrix
    here: float
    moved: float
    tiles: int
    spread: float
    seen: bool

    @property
    def told(self) -> bool:
        """Whether the backdrop has structure enough to tell anything."""
        return self.tiles >= _FEW_TILES

    def displacement(self, width: int, height: int) -> float:
        """Largest distance that a corner or the centre of a frame of `FINE` moves, in its pixels."""
        places = np.array([(x, y, 1.0) for x in (0, width / 2, width) for y in (0, height / 2, height)])
        return float(np.linalg.norm(places @ self.matrix.T - places[:, :2], axis=1).max())

    def shift(self, width: int, height: int) -> tuple[float, float]:
        """How far the frame's centre moves, (x, y) in pixels of `FINE`."""
        x, y = self.matrix @ (width / 2, height / 2, 1.0) - (width / 2, height / 2)
        return float(x), float(y)


def find_motion(plate: Structure, photo: Structure) -> Motion:
    """How the photo's backdrop lies against the plate's; both of the same size."""
    fine, other = plate.levels[0], photo.levels[0]
    structured = (_tiles(fine * fine) > _STRUCTURED) & (np.minimum(plate.exposed, photo.exposed) > _EXPOSED)
    tiles = int(structured.sum())
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    if tiles < 2:
        return Motion(identity, 0.0, 0.0, tiles, 0.0, False)
    here = _agreement(fine, other, structured)
    best, share, seen = identity, here, False
    starts = [identity]
    if here < 0.5:
        starts.append(_phase_start(plate, photo))
    for start in starts:
        matrix, well = _descend(plate, photo, start)
        found = _agreement(fine, _warped(other, matrix), structured)
        seen = seen or well
        if found > share:
            best, share, seen = matrix, found, well
    ys, xs = np.nonzero(structured)
    spread = float((np.ptp(ys) + 1) * (np.ptp(xs) + 1)) / structured.size
    return Motion(best, here, share, tiles, spread, seen)


def _band(grey: FloatArray, noise: float) -> FloatArray:
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.8)
    band = smooth - cv2.GaussianBlur(grey, (0, 0), _BAND)
    strength = cv2.GaussianBlur(band * band, (0, 0), 2 * _BAND)
    floor = 1.0 + noise  # in levels: a weaker structure drowns in noise and JPEG
    return np.asarray(band / np.sqrt(strength + floor * floor), np.float32)


def _tiles(values: FloatArray) -> FloatArray:
    """Means over tiles of about 1/16 of the longest side."""
    side = max(values.shape) / 16
    grid = (max(2, round(values.shape[1] / side)), max(2, round(values.shape[0] / side)))
    return np.asarray(cv2.resize(values, grid, interpolation=cv2.INTER_AREA), np.float32)


def _correlation(plate: FloatArray, photo: FloatArray) -> FloatArray:
    """Normalised correlation of each tile."""
    both = _tiles(plate * photo)
    return np.asarray(both / np.sqrt(_tiles(plate * plate) * _tiles(photo * photo) + 1e-3), np.float32)


def _agreement(plate: FloatArray, photo: FloatArray, structured: npt.NDArray[np.bool_]) -> float:
    return float(np.clip(_correlation(plate, photo)[structured], 0, 1).mean())


def _warped(photo: FloatArray, matrix: Matrix) -> FloatArray:
    """The photo on the plate's grid; zero beyond its border, which correlates with nothing."""
    size = (photo.shape[1], photo.shape[0])
    return np.asarray(cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.float32)


def _phase_start(plate: Structure, photo: Structure) -> Matrix:
    """A large shift to begin with: where the phases of a middle level correlate."""
    level = min(1, len(plate.levels) - 1)
    a, b = plate.levels[level], photo.levels[level]
    window = cv2.createHanningWindow((a.shape[1], a.shape[0]), cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(a, b, window)
    scale = plate.levels[0].shape[1] / a.shape[1]
    return np.array([[1.0, 0, x * scale], [0, 1, y * scale]])


def _descend(plate: Structure, photo: Structure, start: Matrix) -> tuple[Matrix, bool]:
    """Coarse to fine; the matrix at the finest level, and whether its structure holds the shift in every direction."""
    full = plate.levels[0].shape[1]
    matrix, seen = start.copy(), False
    for level in range(len(plate.levels) - 1, -1, -1):
        a, b = plate.levels[level], photo.levels[level]
        scale = a.shape[1] / full
        matrix[:, 2] *= scale
        # A turn or zoom seen by few pixels is noise; a large shift found before would only be lost again.
        shift_only = max(a.shape) < 100
        for _ in range(_STEPS):
            step, seen = _step(a, _warped(b, matrix), shift_only)
            matrix = _compose(matrix, step)
            if float(np.abs(step[:, 2]).max()) < 0.02:
                break
        matrix[:, 2] /= scale
    return matrix, seen


def _step(plate: FloatArray, photo: FloatArray, shift_only: bool) -> tuple[Matrix, bool]:
    height, width = plate.shape
    weight = np.clip(_correlation(plate, photo), 0, 1) ** 2 + np.float32(0.02)
    weight *= np.clip(_tiles(plate * plate) / _STRUCTURED - 0.5, 0, 1)
    spread = np.sqrt(np.asarray(cv2.resize(weight, (width, height), interpolation=cv2.INTER_LINEAR), np.float32))
    error = (plate - photo) * spread
    gx = cv2.Sobel(photo, cv2.CV_32F, 1, 0, ksize=3, scale=0.125) * spread
    gy = cv2.Sobel(photo, cv2.CV_32F, 0, 1, ksize=3, scale=0.125) * spread
    columns = [gx, gy]
    half = max(height, width) / 2
    if not shift_only:
        x = ((np.arange(width, dtype=np.float32) - width / 2) / np.float32(half))[None]
        y = ((np.arange(height, dtype=np.float32) - height / 2) / np.float32(half))[:, None]
        columns += [gx * x + gy * y, gy * x - gx * y]
    jacobian = np.stack([column.ravel() for column in columns], 1)
    normal = (jacobian.T @ jacobian).astype(np.float64)
    size = max(float(weight.sum()) * plate.size / weight.size, 1.0)
    low, high = np.linalg.eigvalsh(normal[:2, :2])
    ridge = np.diag(np.full(len(columns), _RIDGE * max(float(high), 1e-3 * size)))
    right = (jacobian.T @ error.ravel()).astype(np.float64)
    step = np.linalg.solve(normal + ridge, right)
    dx, dy = np.clip(step[:2], -3, 3)
    zoom, turn = (0.0, 0.0) if shift_only else np.clip(step[2:] / half, -0.1, 0.1)
    matrix = np.array([[1 + zoom, -turn, dx], [turn, 1 + zoom, dy]])
    matrix[:, 2] -= matrix[:, :2] @ (width / 2, height / 2) - (width / 2, height / 2)
    return matrix, bool(low > 0.15 * high)


def _compose(first: Matrix, then: Matrix) -> Matrix:
    """The map that takes a plate's pixel by `then` and the result by `first`."""
    full = np.vstack([first, [0, 0, 1]]) @ np.vstack([then, [0, 0, 1]])
    return np.asarray(full[:2], np.float64)
