"""Shadows under a cut-out: in the same layer as the product, so that they lie right on any canvas.

drop      the product's outline, pushed down and blurred: as if it floated over paper; for flat lays
contact   a dark band where the product stands, tight at the points that touch, fading where it rises
cast      the same, and the product's outline flattened on the ground, lit from the upper left
"""

from __future__ import annotations

import cv2
import numpy as np
from boothsam.runtime.cutout import Background, Box, CutOut
from boothsam.runtime.errors import OptionError
from boothsam.runtime.transforms import Uint8Array
from boothsam.service.shadow_ground import cast_shade, contact_shade
from boothsam.service.shadow_shade import FloatArray, Outline, Shade, blurred

SHADOWS = ("none", "drop", "contact", "cast")
OPACITY = 0.35  # of a drop shadow
MOST = 0.49
_BLUR, _DROP = 0.03, 0.025  # a drop's standard deviation and way down, as shares of the product's longest side
_BORDER = 0.06  # of a canvas, in which a shadow fades out, as a share of its longest side
_STRIP = 256  # rows laid down at once: keeps the float copies small


def with_shadow(cut: CutOut, opacity: float | None = None, kind: str = "drop") -> CutOut:
    """The cut-out with its shadow behind it. The window of the result may reach out of the photo.

    opacity: of the darkest part, 0 to 0.49; None takes 0.35 for a drop shadow and 0.49 for the others. Below one half,
    because what is half opaque counts as product where a canvas is laid out or a picture is checked: so the shadow does
    not. kind: one of `SHADOWS`.

    Raises:
        OptionError: an unknown kind, or an opacity outside its range.
    """
    check_shadow(kind)
    if kind == "none":
        return cut
    return _lay_under(cut, _shade(cut.alpha, kind), _checked(opacity, kind))


def check_shadow(kind: str) -> None:
    """Raises OptionError for a kind that is none of `SHADOWS`."""
    if kind not in SHADOWS:
        raise OptionError(f"unknown shadow {kind!r}; expected {', '.join(SHADOWS)}", hint="--shadow contact")


def on_canvas_with_shadow(
    cut: CutOut,
    kind: str,
    background: Background,
    size: int | tuple[int, int] | None,
    fill: float | None,
    margin: int | None,
    box_xyxy: Box | None = None,
) -> Uint8Array:
    """`CutOut.on_canvas` with a shadow, which fades out before the canvas ends instead of being cut off there.

    The product is the same to the pixel as without its shadow. Raises OptionError.
    """
    check_shadow(kind)
    canvas = cut.on_canvas(background, size=size, fill=fill, margin=margin, box_xyxy=box_xyxy)
    if kind == "none":
        return canvas
    transparent = canvas.shape[2] == 4
    whole = (canvas.shape[1], canvas.shape[0]) if isinstance(background, np.ndarray) and size is None else size
    layer = canvas if transparent else cut.on_canvas(None, size=whole, fill=fill, margin=margin, box_xyxy=box_xyxy)
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(layer[..., 3]))
    if not width:  # a product so faint that nothing of it is left on this canvas
        return canvas
    shade = _shade(np.ascontiguousarray(layer[top : top + height, left : left + width, 3]), kind)
    opacity, across = _checked(None, kind), canvas.shape[1]
    fade = [_ramp(side, max(canvas.shape[:2])) for side in canvas.shape[:2]]
    for first in range(0, canvas.shape[0], _STRIP):
        part = canvas[first : first + _STRIP]
        last = first + len(part)
        dark = shade.at(first - top, last - top, -left, across - left)
        dark *= opacity * np.minimum(fade[0][first:last, None], fade[1][None])
        if transparent:
            _put_behind(part, dark)
            continue
        over = layer[first:last].astype(np.float32)
        product = over[..., :3] * (over[..., 3:] / 255)
        part[:] = np.rint(np.clip(part - np.maximum(part - product, 0) * dark[..., None], 0, 255))
    return canvas


def _ramp(side: int, longest: int) -> FloatArray:
    """0 at both ends of a side, 1 inside, without a kink."""
    pixels = np.arange(side)
    share = np.clip(np.minimum(pixels, pixels[::-1]) / max(1.0, _BORDER * longest), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def _checked(opacity: float | None, kind: str) -> float:
    if opacity is None:
        opacity = OPACITY if kind == "drop" else MOST
    if not 0 <= opacity <= MOST:
        raise OptionError(f"a shadow's opacity {opacity} must lie in 0..{MOST}", hint=f"use {OPACITY}")
    return opacity


def _shade(alpha: Uint8Array, kind: str) -> Shade:
    made = {"drop": _drop_shade, "contact": contact_shade, "cast": cast_shade}[kind](alpha)
    return made.trimmed(0.5 / (255 * MOST))


def _drop_shade(alpha: Uint8Array) -> Shade:
    longest = max(alpha.shape)
    # Room for three standard deviations and the drop; a thin product's unit is short, so the room is given in it.
    room = (3 * _BLUR + _DROP) * longest / float(np.sqrt(alpha.shape[0] * alpha.shape[1]))
    outline = Outline(alpha, room)
    scale = min(1.0, outline.unit / float(np.sqrt(alpha.shape[0] * alpha.shape[1])))
    drop = round(_DROP * longest * scale)
    moved = np.zeros_like(outline.solid)
    moved[drop:] = outline.solid[: moved.shape[0] - drop]
    return outline.shade(blurred(moved, max(1.0, _BLUR * longest * scale), flat=1.0))


def _lay_under(cut: CutOut, shade: Shade, opacity: float) -> CutOut:
    """Product over shade, in straight alpha."""
    top, bottom, left, right = shade.pads
    result = np.asarray(
        cv2.copyMakeBorder(cut.rgba, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0)), np.uint8
    )
    for first in range(0, result.shape[0], _STRIP):
        part = result[first : first + _STRIP]
        rows = first - top, first - top + len(part)
        _put_behind(part, opacity * shade.at(*rows, -left, cut.rgba.shape[1] + right))
    x0, y0, x1, y1 = cut.window_xyxy
    return CutOut(result, (x0 - left, y0 - top, x1 + right, y1 + bottom), cut.original_hw)


def _put_behind(rgba: Uint8Array, dark: FloatArray) -> None:
    """Put a black veil of these opacities, 0 to 1, behind a (h, w, 4) layer in straight alpha."""
    alpha = rgba[..., 3].astype(np.float32) / 255
    total = alpha + dark * (1 - alpha)
    total = np.where(rgba[..., 3] < 128, np.minimum(total, 127 / 255), total)  # what is no product stays none
    # The shadow is black: straight colour is the product's, weighted by its part of the whole coverage.
    weight = np.divide(alpha, total, out=np.zeros_like(alpha), where=total > 0)
    rgba[..., :3] = np.rint(rgba[..., :3] * weight[..., None])
    rgba[..., 3] = np.rint(255 * total)
    rgba[..., :3][rgba[..., 3] == 0] = 0
