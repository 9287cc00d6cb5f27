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

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Uint8Array = npt.NDArray[np.uint8]

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
    n_front, n_back = _box(front, radius)[cells], _box(back, radius)[cells]
    mean_front = _box(colour * front[..., None], radius)[cells] / (n_front + floor)[:, None]
    mean_back = _box(colour * back[..., None], radius)[cells] / (n_back + floor)[:, None]
    both = front + back
    square = np.empty((*colour.shape[:2], 6), np.float32)
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    for index, (i, j) in enumerate(pairs):
        np.multiply(colour[..., i], colour[..., j], out=square[..., index])
    square *= both[..., None]
    moment = np.empty((len(n_front), 6), np.float32)
    for start in (0, 3):  # boxFilter takes at most four channels on its fast path
        moment[:, start : start + 3] = _box(np.ascontiguousarray(square[..., start : start + 3]), radius)[cells]
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


def _tiles(active: npt.NDArray[np.bool_]) -> Iterator[tuple[slice, slice]]:
    """Slices of the cells of each tile in which something is active."""
    height, width = active.shape
    for y in range(0, height, _TILE):
        for x in range(0, width, _TILE):
            tile = slice(y, min(y + _TILE, height)), slice(x, min(x + _TILE, width))
            if active[tile].any():
                yield tile


def _enlarge(padded: FloatArray, tile: tuple[slice, slice], scale: int) -> FloatArray:
    """A tile of a map that carries a border of one cell, enlarged `scale` times; seamless from tile to tile."""
    rows, columns = tile
    part = padded[rows.start : rows.stop + 2, columns.start : columns.stop + 2]
    if scale == 1:
        return np.asarray(part[1:-1, 1:-1])
    large = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return np.asarray(large[scale:-scale, scale:-scale])


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


def soft_alpha(image: Uint8Array, inside: Uint8Array, edge_px: float, *, refine: bool = True) -> Uint8Array:
    """(h, w) uint8 alpha of a (h, w) uint8 mask (0 or 255) on its (h, w, 3) uint8 photo.

    Alpha is 255 further than `edge_px` pixels inside the contour and 0 further than that outside it. Without `refine`,
    or where colours do not separate, a ramp across the contour stands in.
    """
    height, width = inside.shape
    scale = max(1, int(edge_px / _CELLS))
    mask, photo = _fit(inside, scale), _fit(image, scale)
    distance = signed_distance(_shrink(mask, scale).astype(np.uint8)) * np.float32(scale / edge_px)
    band = np.abs(distance) < 1
    offset = np.clip(0.5 + distance / (2 * _RAMP), 0, 1).astype(np.float32)
    slope = np.zeros((*band.shape, 3), np.float32)
    if refine and band.any():
        _fit_lines(_shrink(photo, scale), distance, edge_px / scale, slope, offset)
    hard = np.where(distance > 0, np.uint8(255), np.uint8(0))
    alpha = np.asarray(cv2.resize(hard, photo.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    slope, offset = _pad(slope), _pad(offset)
    for tile in _tiles(cv2.dilate(band.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0):
        rows, columns = (slice(part.start * scale, part.stop * scale) for part in tile)
        value = _enlarge(offset, tile, scale)
        if refine:
            part = cv2.multiply(_enlarge(slope, tile, scale), photo[rows, columns], dtype=cv2.CV_32F)
            value = value + cv2.transform(part, np.ones((1, 3), np.float32))
        alpha[rows, columns] = cv2.convertScaleAbs(
            np.maximum(value, _SNAP), alpha=255 / (1 - 2 * _SNAP), beta=-255 * _SNAP / (1 - 2 * _SNAP)
        )
    return alpha[:height, :width]


def _fit_lines(colour: FloatArray, distance: FloatArray, reach: float, slope: FloatArray, offset: FloatArray) -> None:
    """Set alpha = slope . colour + offset in the cells of the band; `offset` holds the mask's own ramp on entry.

    `distance` is in units of the band's half-width, which is `reach` cells. Twice: first with the cells that the mask
    is sure of, then, closer by, with those that the first answer made sure.
    """
    band = np.abs(distance) < 1
    cells = np.nonzero(band)
    ramp = offset[cells]
    fade = np.clip((1 - np.abs(distance[cells])) * _FADE, 0, 1)
    doubt = _DOUBT * (1 + 2 * np.abs(distance[cells]))
    front, back = np.clip(distance, 0, 1) ** 2, np.clip(-distance, 0, 1) ** 2
    for radius in _RADII:
        direction, origin, separation = _discriminant(colour, front, back, max(2, round(radius * reach)), cells)
        trust = separation**2 / (separation**2 + doubt**2) * fade
        slope[cells] = direction * trust[:, None]
        offset[cells] = ramp * (1 - trust) - (direction * origin).sum(1) * trust
        rough = np.clip((slope * colour).sum(-1) + offset, 0, 1)
        front = np.where(band, np.clip(rough * 5 - 4, 0, 1), distance > 0).astype(np.float32)
        back = np.where(band, np.clip(1 - rough * 5, 0, 1), distance < 0).astype(np.float32)


def foreground_colours(image: Uint8Array, alpha: Uint8Array, edge_px: float) -> Uint8Array:
    """(h, w, 3) uint8 colours of the product alone: the backdrop's share is taken out where 0 < alpha < 255.

    Opaque pixels keep the photo's colour; pixels with alpha 0 become 0, so nothing of the place is left in the file.
    """
    height, width = alpha.shape
    scale = max(1, int(edge_px / _CELLS))
    photo, cover = _fit(image, scale), _fit(alpha, scale)
    colour, share = _shrink(photo, scale), _shrink(cover, scale) * np.float32(1 / 255)
    radius = max(2, round(edge_px / scale))
    front = _pad(_spread(colour, np.clip(share * 5 - 4, 0, 1) ** 2 + np.float32(1e-5) * share, radius))
    back = _pad(_spread(colour, np.clip(1 - share * 5, 0, 1) ** 2 + np.float32(1e-5) * (1 - share), radius))
    result = cv2.copyTo(photo, cv2.threshold(cover, 0, 255, cv2.THRESH_BINARY)[1])
    mixed = np.asarray(cv2.inRange(cover, 1, 254), np.uint8)
    for tile in _tiles(_shrink(mixed, scale) > 0):
        rows, columns = (slice(part.start * scale, part.stop * scale) for part in tile)
        near, far = _enlarge(front, tile, scale), _enlarge(back, tile, scale)
        weight = cv2.cvtColor(cover[rows, columns].astype(np.float32) / 255, cv2.COLOR_GRAY2RGB)
        rest = photo[rows, columns] - far - weight * (near - far)
        clean = cv2.add(near, cv2.multiply(weight, rest), dtype=cv2.CV_8U)
        cv2.copyTo(clean, mixed[rows, columns], result[rows, columns])
    return np.asarray(result[:height, :width], np.uint8)


def _spread(colour: FloatArray, weight: FloatArray, radius: int) -> FloatArray:
    """Weighted local mean of (h, w, 3) colours, from further away where nothing is near."""
    weighted = colour * weight[..., None]
    total, summed = _box(weight, radius), _box(weighted, radius)
    total += np.float32(0.01) * _box(weight, 4 * radius)
    summed += np.float32(0.01) * _box(weighted, 4 * radius)
    return np.asarray(summed / np.maximum(total, np.float32(1e-7))[..., None], np.float32)
