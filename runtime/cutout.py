"""From a mask to the product picture: soft alpha, clean rim, transparent background or a flat canvas.

Known limits: one alpha per pixel knows no refraction, so glass stays as opaque as the mask says and keeps the
backdrop's colours; a product's own shadow is part of the backdrop and goes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime import images
from boothsam.runtime.errors import NothingFound, OptionError
from boothsam.runtime.masks import mask_to_box, remove_small_regions
from boothsam.runtime.matting import Reduced, cell_size, clean_rim, soft_alpha
from boothsam.runtime.transforms import check_boxes, check_image, mask_window, upscale_logits_window

Uint8Array = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
Background = str | npt.NDArray[np.uint8] | None
DEFAULT_FILL = 0.85

_COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128), "gray": (128, 128, 128)}
_EDGE_LOGITS = 2.0  # a mask's edge is trusted to this many pixels of the 256-pixel logits
_MAX_CANVAS = 16384
_STRIP_ROWS = 64
_MIN_FILL = 1 / _MAX_CANVAS  # one product pixel on the largest canvas


@dataclass(frozen=True)
class AlphaOptions:
    """How the edge is made.

    Attributes:
        refine: let the photo decide where the edge is; otherwise a narrow ramp along the mask's own contour.
        decontaminate: take the backdrop's colour out of half-transparent pixels.
        fill_holes: holes of fewer photo pixels become product; 0 keeps all.
        drop_islands: loose parts of fewer photo pixels are dropped (the largest stays); 0 keeps all.
        edge_px: how far from the mask's contour the true edge may lie, in photo pixels; None: two of the mask's logits,
            that is 1/128 of the photo's longest side.
        threshold: logits above it are product.
    """

    refine: bool = True
    decontaminate: bool = True
    fill_holes: int = 0
    drop_islands: int = 0
    edge_px: float | None = None
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.fill_holes < 0 or self.drop_islands < 0:
            raise OptionError(
                f"fill_holes {self.fill_holes} and drop_islands {self.drop_islands} are areas in pixels, 0 or more"
            )
        if self.edge_px is not None and not 0.5 <= self.edge_px <= 1000:
            raise OptionError(f"edge_px {self.edge_px} must lie in 0.5..1000 photo pixels")
        if not math.isfinite(self.threshold):
            raise OptionError(f"threshold {self.threshold} must be finite")


@dataclass(frozen=True, eq=False)
class CutOut:
    """A product without its background.

    Attributes:
        rgba: (h, w, 4) uint8, straight alpha, tight around everything with alpha > 0; colour is 0 where alpha is 0.
        window_xyxy: where rgba lies in the photo, x1 and y1 exclusive.
        original_hw: (height, width) of the photo.
    """

    rgba: Uint8Array
    window_xyxy: Box
    original_hw: tuple[int, int]

    @property
    def alpha(self) -> Uint8Array:
        """(h, w) uint8 view of the window's alpha."""
        return self.rgba[..., 3]

    @property
    def full_alpha(self) -> Uint8Array:
        """(H, W) uint8 alpha of the whole photo."""
        alpha = np.zeros(self.original_hw, np.uint8)
        x0, y0, x1, y1 = self.window_xyxy
        alpha[y0:y1, x0:x1] = self.alpha
        return alpha

    @property
    def box_xyxy(self) -> Box:
        """The box in the photo, x1 and y1 exclusive, of pixels that are at least half product (any, if none is)."""
        x0, y0, x1, y1 = self._box()
        left, top = self.window_xyxy[:2]
        return left + x0, top + y0, left + x1, top + y1

    def _box(self) -> Box:
        solid = self.alpha >= 128
        x0, y0, x1, y1 = mask_to_box(solid if solid.any() else self.alpha > 0)
        return x0, y0, x1 + 1, y1 + 1

    def save(self, path: str | os.PathLike[str], *, quality: int = 92, level: int | None = None) -> Path:
        """Write the transparent cut-out (.png or .webp), atomically. Raises OutputError; see `images.save_image`."""
        return images.save_image(path, self.rgba, quality=quality, level=level)

    def on_canvas(
        self,
        background: Background = None,
        *,
        size: int | tuple[int, int] | None = None,
        fill: float | None = None,
        margin: int | None = None,
        box_xyxy: Box | None = None,
    ) -> Uint8Array:
        """The product centred on a canvas: (height, width, 3) RGB, or (height, width, 4) RGBA when transparent.

        Args:
            background: None or "transparent", "white", "black", "grey", "#rrggbb", or a (h, w, 3) uint8 picture, scaled
                to cover the canvas. Untouched canvas pixels have exactly that colour.
            size: side of a square canvas, or (width, height). None keeps the product's pixels and puts an equal border
                around it; with a picture as background the picture's size is taken.
            fill: share of the usable canvas that the product's box spans on its tighter side, 0..1. Default 0.85, or 1
                when only a margin is given.
            margin: pixels that stay free on each side, before `fill` applies. Default 0.
            box_xyxy: what is centred and measured, in photo pixels, x1 and y1 exclusive. Default: `box_xyxy`.

        Raises:
            OptionError: a value outside its range.
        """
        picture = _picture(background)
        if fill is None:
            fill = DEFAULT_FILL if margin is None else 1.0
        margin = margin or 0
        if not _MIN_FILL <= fill <= 1:
            raise OptionError(
                f"fill {fill} must lie in 0..1, the share that the product's box takes", hint="use fill=0.85"
            )
        if margin < 0:
            raise OptionError(f"margin {margin} is a number of pixels, 0 or more")
        left, top = self.window_xyxy[:2]
        x0, y0, x1, y1 = np.subtract(box_xyxy or self.box_xyxy, (left, top, left, top)).tolist()
        if x1 <= x0 or y1 <= y0:
            raise OptionError(f"box_xyxy {box_xyxy} is empty", hint="leave it out to take the product's own box")
        if size is None and picture is not None and picture.ndim == 3:
            size = picture.shape[1], picture.shape[0]
        if size is None:
            border = 2 * (max(x1 - x0, y1 - y0) * (1 / fill - 1) / 2 + margin)
            width, height = math.ceil(x1 - x0 + border), math.ceil(y1 - y0 + border)
            scale = 1.0
        else:
            width, height = (size, size) if isinstance(size, int) else size
            usable = width - 2 * margin, height - 2 * margin
            if min(usable) < 1:
                raise OptionError(f"a margin of {margin} leaves nothing of a canvas of {width}x{height} pixels")
            scale = min(fill * usable[0] / (x1 - x0), fill * usable[1] / (y1 - y0))
        if not (1 <= width <= _MAX_CANVAS and 1 <= height <= _MAX_CANVAS):
            raise OptionError(f"a canvas of {width}x{height} pixels is out of range: 1..{_MAX_CANVAS} a side")
        layer = _scaled(self.rgba, scale)
        sy, sx = layer.shape[0] / self.rgba.shape[0], layer.shape[1] / self.rgba.shape[1]
        left, top = round((width - (x0 + x1) * sx) / 2), round((height - (y0 + y1) * sy) / 2)
        rows = slice(max(0, top), min(height, top + layer.shape[0]))
        columns = slice(max(0, left), min(width, left + layer.shape[1]))
        layer = layer[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        if picture is None:
            canvas = np.zeros((height, width, 4), np.uint8)
            canvas[rows, columns] = _straight(layer)
            return canvas
        canvas = _covering(picture, width, height)
        _lay_over(canvas[rows, columns], layer)
        return canvas


def cut_out(
    image: Uint8Array,
    logits: npt.NDArray[Any],
    *,
    box: npt.ArrayLike | None = None,
    options: AlphaOptions | None = None,
) -> CutOut:
    """Cut the product out of its photo.

    Args:
        image: (H, W, 3) uint8 RGB.
        logits: low-resolution logits (256, 256) as `predict` gives them, full-size logits (H, W) or a bool mask (H, W).
        box: x0, y0, x1, y1 in photo pixels; what the mask says outside it is ignored.
        options: see `AlphaOptions`.

    Raises:
        ImageError: `image` is no photo.
        OptionError: `logits` of another shape or dtype, or not finite.
        PromptError: a box outside the photo.
        NothingFound: the mask is empty.
    """
    options = options or AlphaOptions()
    original_hw = check_image(image)
    mask, (x0, y0, x1, y1), edge_px = _mask_in_window(np.asarray(logits), original_hw, options)
    if box is not None:
        limits = np.asarray(box, np.float64).reshape(-1)
        if limits.size != 4:
            raise OptionError(f"box has {limits.size} numbers, expected x0, y0, x1, y1")
        check_boxes(limits, original_hw)
        keep = np.zeros_like(mask)
        bx0, by0 = max(0, math.floor(limits[0]) - x0), max(0, math.floor(limits[1]) - y0)
        keep[by0 : max(0, math.ceil(limits[3]) - y0), bx0 : max(0, math.ceil(limits[2]) - x0)] = 255
        mask &= keep
    if options.fill_holes or options.drop_islands:
        mask = _clean(mask, (x0, y0, x1, y1), original_hw, options)
    if not cv2.countNonZero(mask):
        raise _nothing()
    photo = image[y0:y1, x0:x1]
    reduced = Reduced.of(photo, edge_px)
    alpha = soft_alpha(reduced, mask, edge_px, refine=options.refine)
    if not cv2.countNonZero(alpha):
        raise NothingFound(
            f"the mask of {np.count_nonzero(mask)} pixel(s) is too small for a cut-out",
            hint="pick another candidate mask, or move closer to the product",
        )
    left, top, across, down = cv2.boundingRect(alpha)
    inside = slice(top, top + down), slice(left, left + across)
    rgba = _layered(photo[inside], alpha[inside])
    if options.decontaminate:
        clean_rim(reduced, alpha, edge_px, rgba, (left, top))
    return CutOut(rgba, (x0 + left, y0 + top, x0 + left + across, y0 + top + down), original_hw)


def _layered(photo: Uint8Array, alpha: Uint8Array) -> Uint8Array:
    """(h, w, 4) of (h, w, 3) and (h, w): the photo's colours where alpha is not 0, else 0."""
    rgba = np.zeros((*alpha.shape, 4), np.uint8)
    room = np.empty((_STRIP_ROWS, alpha.shape[1], 4), np.uint8)  # strips: a whole layer more would not fit the caches
    for top in range(0, len(rgba), _STRIP_ROWS):
        cover = np.ascontiguousarray(alpha[top : top + _STRIP_ROWS])
        part = cv2.cvtColor(photo[top : top + _STRIP_ROWS], cv2.COLOR_RGB2RGBA, dst=room[: len(cover)])
        cv2.insertChannel(cover, part, 3)
        cv2.copyTo(part, cover, rgba[top : top + _STRIP_ROWS])
    return rgba


def shrink(picture: Uint8Array, max_side: int) -> Uint8Array:
    """A (h, w, 3) RGB or straight (h, w, 4) RGBA picture, its longer side at most `max_side` pixels, averaged by area.

    Returns the picture itself where it is no larger.
    """
    scale = max_side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    if picture.shape[2] == 4:
        return _straight(_scaled(picture, scale))
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _nothing() -> NothingFound:
    return NothingFound(
        "the mask is empty: no product there",
        hint="move the point or box onto the product, or pick another candidate mask",
    )


def _mask_in_window(
    logits: npt.NDArray[Any], original_hw: tuple[int, int], options: AlphaOptions
) -> tuple[Uint8Array, Box, float]:
    """Mask (0 or 255) in a window with room for the edge and the backdrop behind it, that window, and edge_px."""
    height, width = original_hw
    full = logits.shape == original_hw
    low = logits.ndim == 2 and logits.shape[0] == logits.shape[1] and logits.dtype != np.bool_
    if not (full or low) or not (logits.dtype == np.bool_ or np.issubdtype(logits.dtype, np.floating)):
        raise OptionError(
            "expected low-resolution logits (256, 256), or logits or a bool mask of the photo's size "
            f"({height}, {width}); found {logits.dtype} {logits.shape}",
            hint="take one of the candidates: cut_out(image, logits[scores.argmax()])",
        )
    if logits.dtype != np.bool_ and not np.isfinite(logits).all():
        raise OptionError("the logits hold NaN or infinity", hint="check the model: boothsam verify")
    edge_px = options.edge_px or max(2.0, _EDGE_LOGITS * max(original_hw) / 256)
    if full:
        solid = logits if logits.dtype == np.bool_ else logits > options.threshold
        tight = mask_to_box(solid) if solid.any() else None
        window = None if tight is None else (tight[0], tight[1], tight[2] + 1, tight[3] + 1)
    else:
        window = mask_window(logits, original_hw, options.threshold)
    if window is None:
        raise _nothing()
    room = math.ceil(3 * edge_px) + 1
    x0, y0 = max(0, window[0] - room), max(0, window[1] - room)
    x1, y1 = min(width, window[2] + room), min(height, window[3] + room)
    # Whole cells of the reduced picture save copies of the window.
    cell = cell_size(edge_px)
    wider, higher = x1 + (x0 - x1) % cell, y1 + (y0 - y1) % cell
    x1, y1 = wider if wider <= width else x1, higher if higher <= height else y1
    if full:
        return solid[y0:y1, x0:x1].astype(np.uint8) * np.uint8(255), (x0, y0, x1, y1), edge_px
    part = upscale_logits_window(logits, original_hw, (x0, y0, x1, y1))
    mask = np.greater(part, np.float32(options.threshold)).view(np.uint8)
    mask *= 255
    return mask, (x0, y0, x1, y1), edge_px


def _clean(mask: Uint8Array, window: Box, original_hw: tuple[int, int], options: AlphaOptions) -> Uint8Array:
    """Fill holes, then drop islands, as in the whole photo: backdrop around the window is put back where it counts."""
    x0, y0, x1, y1 = window
    ring = math.ceil(options.fill_holes / min(mask.shape))
    top, left = min(ring, y0), min(ring, x0)
    bottom, right = min(ring, original_hw[0] - y1), min(ring, original_hw[1] - x1)
    solid = cv2.copyMakeBorder(mask, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0) > 0
    if options.fill_holes:
        solid, _ = remove_small_regions(solid, options.fill_holes, "holes")
    if options.drop_islands and solid.any():
        solid, _ = remove_small_regions(solid, options.drop_islands, "islands")
    return solid[top : top + mask.shape[0], left : left + mask.shape[1]].astype(np.uint8) * np.uint8(255)


def _picture(background: Background) -> Uint8Array | None:
    """None for transparent, a colour (3,) or a picture (h, w, 3)."""
    if background is None or (isinstance(background, str) and background == "transparent"):
        return None
    if not isinstance(background, str):
        check_image(background)
        return background
    return flat_colour(background)


def flat_colour(name: str) -> Uint8Array:
    """(3,) uint8 RGB of "white", "black", "grey" or "#rrggbb". Raises OptionError."""
    if name in _COLOURS:
        return np.array(_COLOURS[name], np.uint8)
    try:
        value = bytes.fromhex(name[1:]) if name[:1] == "#" and len(name) == 7 else b""
    except ValueError:
        value = b""
    if len(value) != 3:
        raise OptionError(
            f"unknown background {name!r}",
            hint=f"use transparent, {', '.join(_COLOURS)}, #rrggbb or a picture array",
        )
    return np.frombuffer(value, np.uint8)


def _covering(picture: Uint8Array, width: int, height: int) -> Uint8Array:
    """A fresh (height, width, 3) canvas: a flat colour, or the picture scaled to cover it, its centre kept."""
    if picture.ndim == 1:
        return np.full((height, width, 3), picture, np.uint8)
    scale = max(width / picture.shape[1], height / picture.shape[0])
    across, down = max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    large = picture if scale == 1 else cv2.resize(picture, (across, down), interpolation=method)
    top, left = (down - height) // 2, (across - width) // 2
    return np.array(large[top : top + height, left : left + width], np.uint8)


def _scaled(rgba: Uint8Array, scale: float) -> npt.NDArray[np.uint16]:
    """Premultiplied (h, w, 4) uint16, colour x alpha in 0..65025, resized with antialiasing.

    Only premultiplied colours may be averaged: the zeros behind the product would darken its rim otherwise.
    """
    alpha = rgba[..., 3]
    weights = cv2.merge([alpha, alpha, alpha, np.full_like(alpha, 255)])
    layer = np.asarray(cv2.multiply(rgba, weights, dtype=cv2.CV_16U), np.uint16)
    if scale == 1:
        return layer
    width, height = max(1, round(rgba.shape[1] * scale)), max(1, round(rgba.shape[0] * scale))
    resized = cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if scale > 1:  # cubic overshoots
        np.minimum(resized, np.uint16(65025), out=resized)
        np.minimum(resized[..., :3], resized[..., 3:], out=resized[..., :3])
    return np.asarray(resized, np.uint16)


def _straight(layer: npt.NDArray[np.uint16]) -> Uint8Array:
    """Premultiplied uint16 back to straight uint8 RGBA; colour is 0 where alpha rounds to 0."""
    result = np.empty(layer.shape, np.uint8)
    for top in range(0, layer.shape[0], 256):  # strips keep the float copies small
        part = layer[top : top + 256].astype(np.float32)
        alpha = np.rint(part[..., 3] / 255)
        colour = np.rint(part[..., :3] * (255 / np.maximum(part[..., 3:], 1)))
        result[top : top + 256, :, :3] = np.minimum(colour, 255) * (alpha > 0)[..., None]
        result[top : top + 256, :, 3] = alpha
    return result


def _lay_over(canvas: Uint8Array, layer: npt.NDArray[np.uint16]) -> None:
    """Composite a premultiplied layer onto an equally large view of the canvas; exact where alpha is 0 or full."""
    for top in range(0, layer.shape[0], 256):
        part = layer[top : top + 256].astype(np.float32)
        view = canvas[top : top + 256]
        mixed = part[..., :3] * 255 + view * (65025 - part[..., 3:])
        view[:] = np.rint(mixed / 65025)
