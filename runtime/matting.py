"""Soft edges and clean rim colours for a mask that is right to within a few pixels; pure functions on numpy arrays.

The model's mask says where the edge is to about one of its 256 logits (16 pixels of a 12-megapixel photo); the photo
says the rest. In a band around the mask's contour, foreground and backdrop colours are measured on the sure sides of
it, and each pixel's alpha is its position on the line from one to the other. The line is Fisher's linear
discriminant of the two local colour clouds: a guided filter with a colour guide (He, Sun, Tang: Guided Image Filtering,
ECCV 2010) whose regression sees only pixels of known side, so it neither shrinks towards the middle nor follows the
mask's errors. Where the colours do not tell the sides apart, the mask's own ramp decides. As in the fast guided filter
(He, Sun 2015) the coefficients are found on a reduced picture and applied at full size. Foreground colours follow
Forte: Approximate Fast Foreground Colour Estimation (ICIP 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Uint8Array = npt.NDArray[np.uint8]
Tile = tuple[slice, slice]  # of cells

_CELLS = (
    4.0  # the band's half-width in cells of the reduced picture: enough for the statistics, small enough for the time
)
_TILE = 16  # cells; full-size work runs tile by tile and only where the band passes
_NOISE = np.float32(5.0**2)  # variance in grey levels squared that every colour cloud has at least
_RADII = (2.0, 1.6)  # of the two looks at the colours, in half-widths of the band
_DOUBT = np.float32(10.0)  # separation at which photo and mask count alike on the contour; more is asked further off
_FADE = np.float32(4.0)  # trust in the photo falls to nothing over the outer 1/_FADE of the band
_RAMP = np.float32(0.12)  # half-width of the mask's own ramp, in half-widths of the band
_SNAP = 0.04  # alpha this close to 0 or 1 is noise


def cell_size(edge_px: float) -> int:
    """Side in pixels of a cell of the reduced picture."""
    return max(1, int(edge_px / _CELLS))


@dataclass(frozen=True, eq=False)
class Reduced:
    """A photo, and what of it both steps of a cut-out look at.

    size_hw: of the photo. photo: (h, w, 3) uint8, its last rows and columns repeated so that both sides are multiples
    of `scale`. colour: (h / scale, w / scale, 3) float32 grey levels, the means of its cells.
    """

    size_hw: tuple[int, int]
    scale: int
    photo: Uint8Array
    colour: FloatArray

    @classmethod
    def of(cls, image: Uint8Array, edge_px: float) -> Reduced:
        """Of a (h, w, 3) uint8 photo, for edges that are sought `edge_px` pixels around the mask's contour."""
        scale = cell_size(edge_px)
        photo = _fit(image, scale)
        return cls((image.shape[0], image.shape[1]), scale, photo, _shrink(photo, scale))


def signed_distance(inside: Uint8Array) -> FloatArray:
    """Distance in pixels to the contour of a (h, w) uint8 coverage (0..255): positive inside; float32."""
    hard = (inside >= 128).astype(np.uint8)
    within = cv2.distanceTransform(hard, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - hard, cv2.DIST_L2, 5)
    distance = np.where(hard > 0, within - 0.5, 0.5 - outside)
    return np.asarray(cv2.GaussianBlur(np.clip(distance, -1e4, 1e4), (0, 0), 0.8), np.float32)


def _box(values: FloatArray, radius: int) -> FloatArray:
    size = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.boxFilter(values, -1, size, borderType=cv2.BORDER_REFLECT), np.float32)


def _discriminant(
    colour: FloatArray, front: FloatArray, back: FloatArray, radius: int, cells: tuple[npt.NDArray[np.intp], ...]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fisher's line at n cells: direction (n, 3), origin (n, 3), separation (n,); alpha = direction . (colour - origin)

    `colour` (h, w, 3) in grey levels; `front`, `back` (h, w) are weights of the sure sides. The separation is the
    squared Mahalanobis distance of the two local clouds, 0 where one is missing.
    """
    floor = np.float32(1e-4)
    planes = [np.ascontiguousarray(colour[..., channel]) for channel in range(3)]
    both = front + back
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))

    def near(weighted: FloatArray) -> FloatArray:
        return np.asarray(_box(weighted, radius)[cells])

    n_front, n_back = near(front), near(back)
    mean_front = np.stack([near(plane * front) for plane in planes], 1) / (n_front + floor)[:, None]
    mean_back = np.stack([near(plane * back) for plane in planes], 1) / (n_back + floor)[:, None]
    moment = np.stack([near(planes[i] * planes[j] * both) for i, j in pairs], 1)
    total = n_front + n_back + floor
    cov = []
    for index, (i, j) in enumerate(pairs):
        shared = n_front * mean_front[:, i] * mean_front[:, j] + n_back * mean_back[:, i] * mean_back[:, j]
        cov.append((moment[:, index] - shared) / total + (_NOISE if i == j else np.float32(0)))
    xx, xy, xz, yy, yz, zz = cov
    step = mean_front - mean_back
    u, v, w = step.T
    # Cramer's rule: the covariance is symmetric and, with the noise added, well conditioned.
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    d, e, f = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    det = np.maximum(xx * a + xy * b + xz * c, _NOISE**3 * np.float32(0.1))
    direction = np.stack([a * u + b * v + c * w, b * u + d * v + e * w, c * u + e * v + f * w], 1) / det[:, None]
    separation = np.maximum((direction * step).sum(1), 0)
    seen = np.minimum(n_front, n_back)
    separation *= seen / (seen + np.float32(0.01))
    direction /= np.maximum((direction * step).sum(1), np.float32(1e-3))[:, None]
    return direction, mean_back, separation


def _tiles(active: npt.NDArray[np.bool_]) -> Iterator[Tile]:
    """Slices of the cells of each tile in which something is active."""
    height, width = active.shape
    for y in range(0, height, _TILE):
        for x in range(0, width, _TILE):
            tile = slice(y, min(y + _TILE, height)), slice(x, min(x + _TILE, width))
            if active[tile].any():
                yield tile


def _enlarge(padded: FloatArray, tile: Tile, scale: int, room: FloatArray) -> FloatArray:
    """A tile of a map that carries a border of one cell, with that border enlarged `scale` times; seamless from tile to
    tile.

    room: flat scratch memory, overwritten; the result is a view of it.
    """
    rows, columns = tile
    part = padded[rows.start : rows.stop + 2, columns.start : columns.stop + 2]
    shape = (part.shape[0] * scale, part.shape[1] * scale, *part.shape[2:])
    large = room[: math.prod(shape)].reshape(shape)
    return np.asarray(cv2.resize(part, shape[1::-1], dst=large, interpolation=cv2.INTER_LINEAR))


def _room(scale: int) -> FloatArray:
    """Scratch memory for an enlarged tile of three channels.

    Without it half of the time goes to the kernel, which hands out and takes back pages.
    """
    return np.empty(3 * ((_TILE + 2) * scale) ** 2, np.float32)


def _pixels(tile: Tile, scale: int) -> tuple[slice, slice]:
    rows, columns = tile
    return slice(rows.start * scale, rows.stop * scale), slice(columns.start * scale, columns.stop * scale)


def _pad(values: FloatArray) -> FloatArray:
    return np.asarray(cv2.copyMakeBorder(values, 1, 1, 1, 1, cv2.BORDER_REPLICATE))


def _fit(values: Uint8Array, scale: int) -> Uint8Array:
    """Repeat the last rows and columns so that both sides are multiples of `scale`."""
    down, right = -values.shape[0] % scale, -values.shape[1] % scale
    if not down and not right:
        return values
    return np.asarray(cv2.copyMakeBorder(values, 0, down, 0, right, cv2.BORDER_REPLICATE), np.uint8)


def _shrink(values: Uint8Array, scale: int) -> FloatArray:
    size = (values.shape[1] // scale, values.shape[0] // scale)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def soft_alpha(image: Uint8Array | Reduced, inside: Uint8Array, edge_px: float, *, refine: bool = True) -> Uint8Array:
    """(h, w) uint8 alpha of a (h, w) uint8 mask (0 or 255) on its (h, w, 3) uint8 photo.

    Alpha is 255 further than `edge_px` pixels inside the contour and 0 further than that outside it. Without `refine`,
    or where colours do not separate, a ramp across the contour stands in.
    """
    reduced = image if isinstance(image, Reduced) else Reduced.of(image, edge_px)
    (height, width), scale, photo = reduced.size_hw, reduced.scale, reduced.photo
    mask = _fit(inside, scale)
    distance = signed_distance(_shrink(mask, scale).astype(np.uint8)) * np.float32(scale / edge_px)
    band = np.abs(distance) < 1
    ramp = np.clip(0.5 + distance / (2 * _RAMP), 0, 1).astype(np.float32)
    lines = np.zeros((*band.shape, 4), np.float32)
    lines[..., 3] = ramp
    if refine and band.any():
        _fit_lines(reduced.colour, distance, edge_px / scale, lines)
    hard = np.where(distance > 0, np.uint8(255), np.uint8(0))
    alpha = np.asarray(cv2.resize(hard, photo.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    slope, offset = _pad(lines[..., :3]), _pad(lines[..., 3])

    inner = slice(scale, -scale), slice(scale, -scale)
    total, gain = np.ones((1, 3), np.float32), 255 / (1 - 2 * _SNAP)

    first, second, third = (_room(scale) for _ in range(3))
    for tile in _tiles(cv2.dilate(band.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0):
        here = _pixels(tile, scale)
        value = _enlarge(offset, tile, scale, first)[inner]
        if refine:
            line = _enlarge(slope, tile, scale, second)[inner]
            cv2.multiply(line, photo[here], dst=line, dtype=cv2.CV_32F)
            shape = line.shape[:2]
            value += cv2.transform(line, total, dst=third[: math.prod(shape)].reshape(shape))
        np.maximum(value, _SNAP, out=value)
        cv2.convertScaleAbs(value, dst=alpha[here], alpha=gain, beta=-gain * _SNAP)
    return alpha[:height, :width]


def _fit_lines(colour: FloatArray, distance: FloatArray, reach: float, lines: FloatArray) -> None:
    """Set alpha = lines[:3] . colour + lines[3] in the band's cells; `lines[3]` holds the mask's own ramp on entry.

    `distance` is in units of the band's half-width, which is `reach` cells. Twice: first with the cells that the mask
    is sure of, then, closer by, with those that the first answer made sure.
    """
    cells = np.nonzero(np.abs(distance) < 1)
    ramp, near, seen = lines[..., 3][cells], np.abs(distance[cells]), colour[cells]
    fade = np.clip((1 - near) * _FADE, 0, 1)
    doubt = _DOUBT * (1 + 2 * near)
    front, back = np.clip(distance, 0, 1) ** 2, np.clip(-distance, 0, 1) ** 2
    for radius in _RADII:
        direction, origin, separation = _discriminant(colour, front, back, max(2, round(radius * reach)), cells)
        trust = separation**2 / (separation**2 + doubt**2) * fade
        slope = direction * trust[:, None]
        offset = ramp * (1 - trust) - (direction * origin).sum(1) * trust
        if radius != _RADII[-1]:
            rough = np.clip((slope * seen).sum(-1) + offset, 0, 1)
            front, back = (distance > 0).astype(np.float32), (distance < 0).astype(np.float32)
            front[cells], back[cells] = np.clip(rough * 5 - 4, 0, 1), np.clip(1 - rough * 5, 0, 1)
    lines[cells] = np.column_stack([slope, offset])


def clean_rim(
    image: Uint8Array | Reduced, alpha: Uint8Array, edge_px: float, rgba: Uint8Array, corner_xy: tuple[int, int]
) -> None:
    """Take the backdrop's share out of a cut-out's colours where 0 < alpha < 255.

    image: (h, w, 3) uint8. alpha: (h, w) uint8. rgba: contiguous (rows, columns, 4) uint8, the part of both whose first
    pixel lies at `corner_xy`; it holds every half-transparent pixel, in the photo's colours, and only those change.
    """
    reduced = image if isinstance(image, Reduced) else Reduced.of(image, edge_px)
    scale, colour = reduced.scale, reduced.colour
    cover = _fit(alpha, scale)
    share = _shrink(cover, scale) * np.float32(1 / 255)
    radius = max(2, round(edge_px / scale))
    front = _pad(_spread(colour, np.clip(share * 5 - 4, 0, 1) ** 2 + np.float32(1e-5) * share, radius))
    back = _pad(_spread(colour, np.clip(1 - share * 5, 0, 1) ** 2 + np.float32(1e-5) * (1 - share), radius))
    mixed = np.asarray(cv2.inRange(cover, 1, 254), np.uint8)
    first, second = _room(scale), _room(scale)
    # Pixels are looked up by their place in flat arrays: several times as fast as by row and column.
    pixels = rgba.view(np.uint32).reshape(-1)
    (left, top), (height, width) = corner_xy, reduced.size_hw
    for tile in _tiles(_shrink(mixed, scale) > 0):
        here = _pixels(tile, scale)
        found = np.flatnonzero(np.ascontiguousarray(mixed[here]) != 0)
        rows, columns = np.divmod(found, here[1].stop - here[1].start)
        inside = (rows + here[0].start < height) & (columns + here[1].start < width)  # what `_fit` repeated is not
        rows, columns = rows[inside], columns[inside]
        large = _enlarge(front, tile, scale, first)
        places = (rows + scale) * large.shape[1] + columns + scale
        near = large.reshape(-1, 3).take(places, 0)
        far = _enlarge(back, tile, scale, second).reshape(-1, 3).take(places, 0)
        places = (rows + here[0].start - top) * rgba.shape[1] + columns + here[1].start - left
        clean = pixels.take(places)[:, None].view(np.uint8)
        seen, weight = clean[:, :3], clean[:, 3:].astype(np.float32) / 255
        clean[:, :3] = np.clip(np.rint(near + weight * (seen - far - weight * (near - far))), 0, 255)
        pixels[places] = clean.view(np.uint32)[:, 0]


def _spread(colour: FloatArray, weight: FloatArray, radius: int) -> FloatArray:
    """Weighted local mean of (h, w, 3) colours, from further away where nothing is near."""
    weighted = colour * weight[..., None]
    total, summed = _box(weight, radius), _box(weighted, radius)
    total += np.float32(0.01) * _box(weight, 4 * radius)
    summed += np.float32(0.01) * _box(weighted, 4 * radius)
    return np.asarray(summed / np.maximum(total, np.float32(1e-7))[..., None], np.float32)
