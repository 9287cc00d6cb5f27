"""The picture that remove.bg's parameters describe: where the product goes, how large, and what lies behind it.

Unlike `CutOut.on_canvas`, which centres a product, this keeps the photo's frame unless told otherwise.
"""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.runtime.cutout import CutOut
from boothsam.runtime.images import encode_image
from boothsam.runtime.transforms import Uint8Array
from boothsam.service.problems import ServiceProblem, problem
from PIL import ImageColor

MEGAPIXELS = {
    "preview": 0.25, "small": 0.25, "regular": 0.25, "medium": 1.5, "hd": 4.0, "full": 25.0, "4k": 25.0, "auto": 25.0,
    "50mp": 50.0,
}  # fmt: skip
FORMATS = ("auto", "png", "jpg", "webp", "zip")
MAX_CANVAS, MAX_CANVAS_PIXELS = 16384, 50_000_000
_STRIP = 256  # rows composited at once: float copies stay small


@dataclass(frozen=True)
class Length:
    """A number of pixels, or a share (0 to 1) of something."""

    value: float
    relative: bool

    def of(self, whole: float) -> int:
        """In pixels."""
        return round(self.value * whole if self.relative else self.value)


@dataclass(frozen=True)
class Layout:
    """Where everything goes; lengths are of the working size.

    megapixels: most that the photo is worked at. roi: x0, y0, x1, y1. margins: top, right, bottom, left of a crop.
    scale: share of the canvas that the product spans, None: as it is. position: x and y, 0 (left, top) to 1, None:
    where it was. colour: RGBA 0..255 behind the product, None: transparent.
    """

    megapixels: float = 0.25
    roi: tuple[Length, Length, Length, Length] | None = None
    crop: bool = False
    margins: tuple[Length, Length, Length, Length] = (Length(0, False),) * 4
    scale: float | None = None
    position: tuple[float, float] | None = None
    colour: tuple[int, int, int, int] | None = None

    def region(self, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
        """The roi in pixels of a photo of (height, width), the whole photo without one.

        Raises:
            ServiceProblem: `invalid_field` for one that is empty.
        """
        height, width = size_hw
        if self.roi is None:
            return 0, 0, width, height
        sides = (width, height, width, height)
        x0, y0, x1, y1 = (min(max(edge.of(side), 0), side) for edge, side in zip(self.roi, sides, strict=True))
        if x1 - x0 < 8 or y1 - y0 < 8:
            raise problem("invalid_field", f"roi is {x1 - x0}x{y1 - y0} pixels of the photo of {width}x{height}")
        return x0, y0, x1, y1

    def working_scale(self, size_hw: tuple[int, int]) -> float:
        """By how much a photo of (height, width) is scaled down, at most 1."""
        return min(1.0, math.sqrt(self.megapixels * 1e6 / (size_hw[0] * size_hw[1])))


def lay_out(cut: CutOut, layout: Layout) -> Uint8Array:
    """The product on its transparent canvas, (h, w, 4) straight RGBA. cut: in the working size's pixels."""
    x0, y0, x1, y1 = cut.box_xyxy
    height, width = cut.original_hw
    if layout.crop:
        top, right, bottom, left = (
            margin.of(side) for margin, side in zip(layout.margins, (y1 - y0, x1 - x0) * 2, strict=True)
        )
        width, height = x1 - x0 + left + right, y1 - y0 + top + bottom
        if max(width, height) > MAX_CANVAS or width * height > MAX_CANVAS_PIXELS:
            raise problem(
                "invalid_field",
                f"crop_margin gives {width}x{height} pixels; at most {MAX_CANVAS} a side and "
                f"{MAX_CANVAS_PIXELS / 1e6:g} million",
                "send a smaller crop_margin or size",
            )
        return _place(cut.rgba, (width, height), left - (x0 - cut.window_xyxy[0]), top - (y0 - cut.window_xyxy[1]))
    layer, halo = cut.rgba, (x0 - cut.window_xyxy[0], y0 - cut.window_xyxy[1])
    across, down = x1 - x0, y1 - y0
    if layout.scale is not None:
        factor = layout.scale * min(width / across, height / down)
        across, down = max(1, round(factor * across)), max(1, round(factor * down))
        # Room for the soft edge and the shadow, which lie outside the product's box.
        window = cut.window_xyxy
        outside = max(x0 - window[0], y0 - window[1], window[2] - x1, window[3] - y1)
        rim = math.ceil(factor * outside) + 2
        layer = cut.on_canvas(None, size=(across + 2 * rim, down + 2 * rim), margin=rim, fill=1.0)
        halo = rim, rim
    position = layout.position or ((0.5, 0.5) if layout.scale is not None else None)
    left, top = (x0, y0) if position is None else (
        round(position[0] * (width - across)), round(position[1] * (height - down))
    )  # fmt: skip
    return _place(layer, (width, height), left - halo[0], top - halo[1])


def _place(layer: Uint8Array, size: tuple[int, int], left: int, top: int) -> Uint8Array:
    """An RGBA layer on a transparent canvas of (width, height); what hangs over is cut."""
    canvas = np.zeros((size[1], size[0], 4), np.uint8)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(size[0], left + layer.shape[1]), min(size[1], top + layer.shape[0])
    if x0 < x1 and y0 < y1:
        canvas[y0:y1, x0:x1] = layer[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas


def put_behind(rgba: Uint8Array, colour: tuple[int, int, int, int] | None, picture: Uint8Array | None) -> Uint8Array:
    """The canvas with a colour (RGBA) or a picture (h, w, 3), scaled to cover it, behind the product: straight RGBA."""
    height, width = rgba.shape[:2]
    if picture is None and colour is None:
        return rgba
    nothing = CutOut(np.zeros((1, 1, 4), np.uint8), (0, 0, 1, 1), (1, 1))
    behind = None if picture is None else nothing.on_canvas(picture, size=(width, height))
    result = np.empty_like(rgba)
    for top in range(0, height, _STRIP):
        rows = slice(top, top + _STRIP)
        front = rgba[rows, :, 3:].astype(np.float32) / 255
        if behind is None:
            flat = np.array(colour, np.float32)
            back, back_alpha = flat[:3], flat[3] / 255
        else:
            back, back_alpha = behind[rows].astype(np.float32), np.float32(1)
        alpha = front + back_alpha * (1 - front)
        mixed = rgba[rows, :, :3] * front + back * (back_alpha * (1 - front))
        result[rows, :, :3] = np.rint(np.divide(mixed, alpha, out=np.zeros_like(mixed), where=alpha > 0))
        result[rows, :, 3:] = np.rint(255 * alpha)
    return result


def encode(rgba: Uint8Array, kind: str, channels: str) -> tuple[bytes, str]:
    """File and format ("png", "jpg", "webp" or "zip"). "auto" is PNG where anything is transparent, else JPEG."""
    alpha = np.ascontiguousarray(rgba[..., 3])
    opaque = bool((alpha == 255).all())
    if channels == "alpha":
        kind = "png" if kind in ("auto", "zip") else kind
        return encode_image(alpha, kind), kind
    if kind == "auto":
        kind = "jpg" if opaque else "png"
    if kind == "zip":
        return _zip(rgba, alpha), "zip"
    if kind == "jpg" and not opaque:
        rgba = put_behind(rgba, (255, 255, 255, 255), None)
    flat = opaque or kind == "jpg"
    return encode_image(np.ascontiguousarray(rgba[..., :3]) if flat else rgba, kind), kind


def _zip(rgba: Uint8Array, alpha: Uint8Array) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        # A fixed date, so that equal pictures give equal files.
        for name, data in (
            ("color.jpg", encode_image(np.ascontiguousarray(rgba[..., :3]), "jpg")),
            ("alpha.png", encode_image(alpha, "png")),
        ):
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def shrink(image: Uint8Array, scale: float) -> Uint8Array:
    """A (h, w, 3) picture scaled down by area averaging; itself at scale 1."""
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def parse_length(text: str, name: str) -> Length:
    """ "12", "12px" or "12%". Raises `invalid_field`."""
    number, relative = (text[:-1], True) if text.endswith("%") else (text.removesuffix("px"), False)
    try:
        value = float(number) / (100 if relative else 1)
    except ValueError:
        value = math.nan
    if not -1e6 <= value <= 1e6:
        raise wrong(name, text, "pixels such as 12px, or percent such as 10%")
    return Length(value, relative)


def parse_roi(text: str) -> tuple[Length, Length, Length, Length] | None:
    """ "x1 y1 x2 y2" in px or %; None when empty."""
    if not text.strip():
        return None
    edges = [parse_length(part, "roi") for part in text.split()]
    if len(edges) != 4:
        raise wrong("roi", text, "x1 y1 x2 y2 in px or %")
    return edges[0], edges[1], edges[2], edges[3]


def parse_margins(text: str) -> tuple[Length, Length, Length, Length]:
    """One, two (vertical, horizontal) or four (top, right, bottom, left) lengths; at most 50 % or 500 px each."""
    parts = [parse_length(part, "crop_margin") for part in text.split()] or [Length(0, False)]
    if len(parts) not in (1, 2, 4) or any(not 0 <= p.value <= (0.5 if p.relative else 500) for p in parts):
        raise wrong("crop_margin", text, "1, 2 or 4 values, at most 50% or 500px each")
    top, right, bottom, left = {1: parts * 4, 2: parts * 2, 4: parts}[len(parts)]
    return top, right, bottom, left


def parse_scale(text: str) -> float | None:
    """ "original" (None) or "10%" to "100%"."""
    if text in ("", "original"):
        return None
    length = parse_length(text, "scale")
    if not length.relative or not 0.1 <= length.value <= 1:
        raise wrong("scale", text, "original, or 10% to 100%")
    return length.value


def parse_position(text: str) -> tuple[float, float] | None:
    """ "original" (None), "center", "x%" for both or "x% y%"."""
    if text in ("", "original"):
        return None
    if text == "center":
        return 0.5, 0.5
    parts = [parse_length(part, "position") for part in text.split()]
    if len(parts) not in (1, 2) or any(not p.relative or not 0 <= p.value <= 1 for p in parts):
        raise wrong("position", text, "original, center, or one or two values of 0% to 100%")
    return parts[0].value, parts[-1].value


def parse_colour(text: str) -> tuple[int, int, int, int] | None:
    """RGBA of 3, 4, 6 or 8 hex digits or a CSS colour's name; None when empty."""
    if not text:
        return None
    digits = text.removeprefix("#")
    is_hex = len(digits) in (3, 4, 6, 8) and all(c in "0123456789abcdefABCDEF" for c in digits)
    found: tuple[int, ...] = ()
    with contextlib.suppress(ValueError):
        found = ImageColor.getrgb(f"#{digits}" if is_hex else text)
    if not found or max(found) > 255:  # rgb(999,0,0)
        raise wrong("bg_color", text, "3, 4, 6 or 8 hex digits, or a colour's name")
    return found[0], found[1], found[2], found[3] if len(found) == 4 else 255


def wrong(name: str, text: str, expected: str) -> ServiceProblem:
    """`invalid_field` of a text."""
    return problem("invalid_field", f"{name} is {text[:80]!r}; expected {expected}", f"mend or leave out {name}")
