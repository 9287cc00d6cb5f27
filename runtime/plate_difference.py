"""Which pixels of a photo are no longer the empty booth, told apart from its shadows.

A shadow scales the backdrop's brightness smoothly and nearly keeps its colour (the brightness and chromaticity
distortions of Horprasert, Harwood and Davis, 1999, with room for the blue of skylight); a product changes the colour,
is brighter, far darker, or brings edges of its own. Edges alone make a product too where nothing else is there: white
on white has an outline and no colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.runtime.masks import BoolArray
from boothsam.runtime.plate_light import WHITE, total
from boothsam.runtime.transforms import FloatArray, Uint8Array

_STRONG = 4.5  # deviations of the noise
_DEEP = 0.28  # of the backdrop's brightness: no shadow in a booth is darker
_SHADE = 1.01  # of the backdrop's brightness: what is not brighter may be shadow
_TINT = 0.18  # how far a shadow's colour may leave the backdrop's, in shares of what it takes away
_GLOW = 0.06
_EDGE = 0.012  # least change of the brightness ratio's logarithm from one pixel to the next that makes an edge
_DARK = 8.0
_LINE = 20  # pixels that an edge must span to count as part of an outline
_OUTLINED = 0.4  # of an outline that must be seen
_MIRRORED = 0.8  # correlation with its mirror image from which a foot is a reflection
_ROUGH = 0.008  # least mean deviation of the ratio's logarithm from its own blur that makes a texture
_TEXTURED = 0.5  # share of such pixels inside a piece from which it is no shadow
_SURE_SHARE = 0.2  # of a region: as much sure product, and the rest may be called its shadow


@dataclass(frozen=True)
class Difference:
    """What changed.

    strong: pixels that are product for sure; edges, rough: new edges and texture; darker: pixels that a shadow would
    explain; all (h, w) bool. strength: (h, w) float32, in deviations of the noise. change: (h, w, 3) float32 levels,
    photo less expected.
    """

    strong: BoolArray
    edges: BoolArray
    rough: BoolArray
    darker: BoolArray
    strength: FloatArray
    change: FloatArray


def difference(
    expected: FloatArray, photo: FloatArray, noise: FloatArray, unknown: BoolArray, slack: float
) -> Difference:
    """Compare a photo with what the empty booth would look like.

    expected, photo: (h, w, 3) float32 levels. noise: (h, w) float32, deviation of a difference of two such pixels.
    unknown: (h, w, 3) bool, where `expected` is a lower bound only. slack: pixels by which the two may still lie apart.
    """
    grey, other = (np.asarray(total(picture) / 3, np.float32) for picture in (expected, photo))
    # Where the backdrop has edges, what is left of the camera's shaking looks like change.
    slope = np.asarray(cv2.dilate(_slope(grey), _disc(3)), np.float32)
    sigma = np.asarray(np.sqrt(noise * noise + (np.float32(slack) * slope) ** 2), np.float32)
    seen = np.where(unknown, np.minimum(photo, expected), photo)
    length = total(expected * expected) + np.float32(3 * _DARK * _DARK)
    ratio = (total(seen * expected) + np.float32(3 * _DARK * _DARK)) / length
    residual = seen - ratio[..., None] * expected
    colour = np.sqrt(total(residual * residual))
    size = np.sqrt(length)
    room = np.where(ratio < 1, np.float32(_TINT) * (1 - ratio), np.float32(_GLOW) * (ratio - 1)) * size
    light = (ratio - 1) * size / np.float32(np.sqrt(3))
    bright, deep = np.where(ratio > 1 + _GLOW, light, 0), np.where(ratio < _DEEP, -light, 0)
    strength = np.maximum(np.maximum(colour - room, bright), deep) / sigma
    strength[(_darkest(photo) > WHITE) & (_darkest(expected) > WHITE - 8)] = 0
    strength = np.asarray(cv2.GaussianBlur(np.asarray(strength, np.float32), (0, 0), 1.0), np.float32)
    strong = strength > _STRONG
    edges = _new_edges(grey, other, noise) & ~_grown(total(unknown.astype(np.uint8)) > 0, 5)
    darker = (ratio > _DEEP) & (ratio < _SHADE) & ~strong
    return Difference(strong, edges, _rough(grey, other, noise), darker, strength, seen - expected)


def product_mask(found: Difference, min_area: float) -> BoolArray:
    """(h, w) bool: the regions that are product, holes filled; shadows at their feet left out.

    min_area: share of the frame below which a region is a speck.
    """
    filled = _filled(_closed(found.strong | _dense(found.edges), 9))
    least = min_area * found.strong.size
    result = np.zeros(found.strong.shape, np.bool_)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(_byte(_opened(filled, 3)), connectivity=8)
    weak = []
    for label in range(1, count):
        area = int(stats[label, cv2.CC_STAT_AREA])
        if area < least:
            continue
        region = labels == label
        hull = _hull(_opened(found.strong & region, 3))
        if np.count_nonzero(hull & region) >= max(least, _SURE_SHARE * area):
            kept = region & ~_shadows(region & ~hull, hull, found)
            result |= kept & ~_reflection(kept, found.change)
        elif _sharp(region, found.edges):
            weak.append(region)
    sure = np.count_nonzero(result)
    for region in weak:
        shadow = found.darker[region].mean() > 0.8 and sure > 0.5 * np.count_nonzero(region)
        if not shadow:
            result |= region
    if not sure:
        result |= _outlined(found.edges, least)
    return _filled(_opened(result, 3))


def _outlined(edges: BoolArray, least: float) -> BoolArray:
    """What an outline with gaps encloses, where nothing but edges is new: white on white."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(_byte(edges), connectivity=8)
    lines = np.max(stats[:, cv2.CC_STAT_WIDTH : cv2.CC_STAT_HEIGHT + 1], 1) >= _LINE
    lines[0] = False
    hull = _hull(lines[labels], grown=0)
    drawn = np.count_nonzero(lines[labels])
    outlines, _ = cv2.findContours(_byte(hull), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    around = sum(cv2.arcLength(outline, True) for outline in outlines)
    if np.count_nonzero(hull) < 4 * least or drawn < _OUTLINED * around:
        return np.zeros(edges.shape, np.bool_)
    return hull


def _hull(solid: BoolArray, grown: int = 5) -> BoolArray:
    """The convex hull of what is product for sure, a little larger: panels in the backdrop's colour lie inside."""
    drawn = np.zeros(solid.shape, np.uint8)
    if solid.any():
        points = np.ascontiguousarray(np.argwhere(solid)[:, ::-1]).astype(np.int32)
        cv2.fillConvexPoly(drawn, cv2.convexHull(points), 1)
    return _grown(drawn > 0, grown) if grown else drawn > 0


def _shadows(outside: BoolArray, hull: BoolArray, found: Difference) -> BoolArray:
    """The pieces of a region that a shadow would explain: the backdrop's colour, darker, not over the product."""
    x, y, w, h = cv2.boundingRect(_byte(hull))
    over = np.s_[: y + h // 2, x : x + w]
    broad = _opened(outside, 5)
    shadows = outside & ~broad & found.darker  # the seam between product and shadow
    shadows[over] = False
    count, labels = cv2.connectedComponents(_byte(broad), connectivity=8)
    for label in range(1, count):
        piece = labels == label
        inner = piece & (cv2.erode(_byte(piece), _disc(11)) > 0)
        textured = inner.any() and found.rough[inner].mean() > _TEXTURED
        above = np.count_nonzero(piece[over]) >= 0.4 * np.count_nonzero(piece)
        if not textured and not above and found.darker[piece].mean() > 0.8:
            shadows |= piece
    return shadows


def _reflection(region: BoolArray, change: FloatArray) -> BoolArray:
    """The foot of a region that repeats, upside down and fainter, what stands above it: a glossy floor."""
    x, y, w, h = cv2.boundingRect(_byte(region))
    found = np.zeros(region.shape, np.bool_)
    if h < 24 or w < 8:
        return found
    rows = min(h, 72)
    size = (max(4, min(w, 48)), rows)
    window = np.where(region[y : y + h, x : x + w, None], change[y : y + h, x : x + w], 0)
    window = np.asarray(window, np.float32)
    small = np.asarray(cv2.resize(window, size, interpolation=cv2.INTER_AREA), np.float32)
    best, foot = _MIRRORED, 0
    for row in range(round(0.5 * rows), round(0.92 * rows)):
        reach = min(row, rows - row)
        above, below = small[row - reach : row][::-1], small[row : row + reach]
        energy = float((above * above).sum()) + 1e-3
        both = float((above * below).sum())
        alike = both / np.sqrt(energy * (float((below * below).sum()) + 1e-3))
        step = float((below[:2] ** 2).sum()) / (float((above[:2] ** 2).sum()) + 1e-3)
        if alike > best and both < 0.65 * energy and step < 0.5 and _fades(above, below):
            best, foot = alike, row
    if foot:
        found[y + round(foot * h / rows) : y + h] = True
    return found & region


def _fades(above: FloatArray, below: FloatArray) -> bool:
    """Whether a mirror image loses strength on its way down, as no print on a product does."""
    third = max(2, len(above) // 3)
    near, far = (
        float((above[rows] * below[rows]).sum()) / (float((above[rows] ** 2).sum()) + 1e-3)
        for rows in (slice(0, third), slice(len(above) - third, None))
    )
    return far < 0.8 * near


def _darkest(levels: FloatArray) -> FloatArray:
    """Of the three channels."""
    return np.minimum(np.minimum(levels[..., 0], levels[..., 1]), levels[..., 2])


def _slope(values: FloatArray) -> FloatArray:
    """Change from one pixel to the next."""
    x, y = (cv2.Sobel(values, cv2.CV_32F, *order, scale=0.125) for order in ((1, 0), (0, 1)))
    return np.asarray(cv2.magnitude(x, y), np.float32)


def _new_edges(grey: FloatArray, other: FloatArray, noise: FloatArray) -> BoolArray:
    """Where the ratio of the pictures jumps, and the photo more than the backdrop does nearby."""
    dark = np.float32(_DARK)
    plate, photo = np.log(grey + dark), np.log(other + dark)
    jump = _slope(np.asarray(cv2.GaussianBlur(photo - plate, (0, 0), 0.8), np.float32))
    own = _slope(np.asarray(cv2.GaussianBlur(photo, (0, 0), 0.8), np.float32))
    known = np.float32(1.2) * cv2.dilate(_slope(plate), _disc(5))
    limit = np.maximum(np.float32(_EDGE), np.float32(1.1) * noise / (grey + dark))
    return np.asarray(np.minimum(jump, own - known) > limit, np.bool_)


def _rough(grey: FloatArray, other: FloatArray, noise: FloatArray) -> BoolArray:
    """Where the ratio of the pictures has a texture: no shadow has."""
    dark = np.float32(_DARK)
    ratio = np.log((other + dark) / (grey + dark))
    fine = np.abs(ratio - cv2.GaussianBlur(ratio, (0, 0), 1.5))
    limit = np.maximum(np.float32(_ROUGH), np.float32(0.8) * noise / (grey + dark))
    return np.asarray(cv2.GaussianBlur(fine, (0, 0), 3) > limit, np.bool_)


def _dense(edges: BoolArray) -> BoolArray:
    """Edges that belong to a line or a texture, not to the noise."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(_byte(edges), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= 12
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)


def _sharp(region: BoolArray, edges: BoolArray) -> bool:
    """Whether a region's border is an edge for the most part."""
    rim = region & ~(cv2.erode(_byte(region), np.ones((3, 3), np.uint8)) > 0)
    return bool((_grown(edges, 5)[rim]).mean() > 0.6)


def _byte(mask: BoolArray) -> Uint8Array:
    return mask.astype(np.uint8)


def _disc(size: int) -> Uint8Array:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def _closed(mask: BoolArray, size: int) -> BoolArray:
    return np.asarray(cv2.morphologyEx(_byte(mask), cv2.MORPH_CLOSE, _disc(size)) > 0, np.bool_)


def _opened(mask: BoolArray, size: int) -> BoolArray:
    return np.asarray(cv2.morphologyEx(_byte(mask), cv2.MORPH_OPEN, _disc(size)) > 0, np.bool_)


def _grown(mask: BoolArray, size: int) -> BoolArray:
    return np.asarray(cv2.dilate(_byte(mask), _disc(size)) > 0, np.bool_)


def _filled(mask: BoolArray) -> BoolArray:
    """Holes closed: what the frame's border cannot reach."""
    padded = cv2.copyMakeBorder(_byte(mask), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(padded, None, (0, 0), 2)
    return np.asarray(padded[1:-1, 1:-1] != 2, np.bool_)
