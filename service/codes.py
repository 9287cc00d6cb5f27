"""Barcodes on a photo, and the GTINs in them; by zxing-cpp, an extra.

Bars are found along rows and columns, up to some 15 degrees askew. So the photo is looked at again at 30 and 60
degrees, and enlarged where it is small, until a GTIN is found or the time is up. A large photo is made smaller first:
one look at 50 megapixels takes several seconds, during which nobody else's photo is decoded.

zxing-cpp is C++ that is fed by strangers: the service calls `read_codes` in the decoding worker alone.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

MAX_CODES = 32
_BUDGET_S = 1.5  # no further attempt is begun after it; the worker's own limit ends one that hangs
_SMALL = 2_500_000  # pixels below which a photo is enlarged as well
_LARGE = 16_000_000  # pixels above which it is halved
_FORMATS = (
    "EAN13", "EAN8", "UPCA", "UPCE", "ITF14", "DataBar", "DataBarExpanded", "Code128", "QRCode", "DataMatrix",
)  # fmt: skip
_RETAIL = {"EAN-13": (12, 13), "EAN-8": (8,), "UPC-A": (12, 13), "UPC-E": (12, 13), "ITF": (14,)}  # digits of a GTIN
_LONG = ("EAN-13", "UPC-A")  # of these alone a wrong check digit is told: short ones are read into anything
# GS1: element string with brackets, and Digital Link (a web address whose path has the same AI).
_GTIN_IN_TEXT = re.compile(r"\(01\)(\d{14})|^https?://[^?#]*/01/(\d{8,14})(?=[/?#]|$)")

Uint8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Code:
    """One barcode.

    Attributes:
        text: what it says; for GS1 codes with their application identifiers in brackets.
        format: such as EAN-13, QR Code.
        valid: whether the check digit of its GTIN is right; None when it holds no GTIN.
        gtin14: the GTIN with leading zeros, None when there is none or it is not valid.
        quad_xy: top left, top right, bottom right and bottom left corner as the code is read, in photo pixels.
    """

    text: str
    format: str
    valid: bool | None
    gtin14: str | None
    quad_xy: list[list[float]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def installed() -> bool:
    """Whether zxing-cpp is there."""
    return importlib.util.find_spec("zxingcpp") is not None


def read_codes(image: Uint8Array) -> list[Code]:
    """The barcodes of a (H, W, 3) uint8 RGB photo: those with a valid GTIN first, at most `MAX_CODES`.

    A retail code whose check digit is wrong is listed only when no other GTIN is found: most are misread ones.

    Raises:
        ModuleNotFoundError: zxing-cpp is not installed.
    """
    found: dict[tuple[str, str], Code] = {}
    for view, to_photo in _views(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)):
        for code in _read(view, to_photo):
            found.setdefault((code.format, code.text), code)
        if any(code.gtin14 for code in found.values()):
            break
    good = any(code.gtin14 for code in found.values())
    kept = [code for code in found.values() if not (good and code.valid is False)]
    return sorted(kept, key=lambda code: code.gtin14 is None)[:MAX_CODES]


def _views(grey: Uint8Array) -> Iterator[tuple[Uint8Array, FloatArray]]:
    """Ways to look at the photo, with the (2, 3) matrix from their pixels back to the photo's."""
    began = perf_counter()
    grey, to_photo = _reduced(grey)
    for scale in (1, 2) if grey.size <= _SMALL else (1,):
        for angle in (0, 30, 60):
            if perf_counter() - began > _BUDGET_S:
                return
            view, back = _turned(grey, angle, scale)
            yield view, to_photo[:, :2] @ back + np.c_[np.zeros((2, 2)), to_photo[:, 2]]


def _reduced(grey: Uint8Array) -> tuple[Uint8Array, FloatArray]:
    """Halved until at most `_LARGE` pixels are left, with the (2, 3) matrix from its pixels back to the photo's."""
    height, width = grey.shape
    halved = grey
    while halved.size > _LARGE:
        size = max(1, halved.shape[1] // 2), max(1, halved.shape[0] // 2)
        halved = np.asarray(cv2.resize(halved, size, interpolation=cv2.INTER_AREA), np.uint8)
    across, down = width / halved.shape[1], height / halved.shape[0]
    # Pixels are squares: the middle of the first one lies at half a pixel in both.
    back = np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5]], np.float64)
    return halved, back


def _turned(grey: Uint8Array, angle: float, scale: int) -> tuple[Uint8Array, FloatArray]:
    height, width = grey.shape
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale), np.float64)
    reach = np.abs(matrix[:, :2]) @ (width, height)
    size = int(np.ceil(reach[0])), int(np.ceil(reach[1]))
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    back = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    if angle == 0 and scale == 1:
        return grey, back
    # The border is repeated: an edge of its own would look like a bar.
    view = cv2.warpAffine(grey, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(view, np.uint8), back


def _read(view: Uint8Array, to_photo: FloatArray) -> Iterator[Code]:
    import zxingcpp

    formats = zxingcpp.BarcodeFormats([getattr(zxingcpp.BarcodeFormat, name) for name in _FORMATS])
    for read in zxingcpp.read_barcodes(view, formats=formats, return_errors=True):
        kind = str(read.format)
        miscounted = read.error is not None and read.error.type == zxingcpp.ErrorType.Checksum
        if not read.text or not (read.valid or (miscounted and kind in _LONG)):
            continue
        gtin = _gtin(kind, read.text)
        good = None if gtin is None else read.valid and _has_right_check_digit(gtin)
        corners = [getattr(read.position, name) for name in ("top_left", "top_right", "bottom_right", "bottom_left")]
        quad = np.array([[corner.x, corner.y, 1.0] for corner in corners]) @ to_photo.T
        gtin14 = gtin.zfill(14) if gtin is not None and good else None
        yield Code(read.text, kind, good, gtin14, np.round(quad, 1).tolist())


def _gtin(kind: str, text: str) -> str | None:
    if kind in _RETAIL:
        return text if text.isascii() and text.isdigit() and len(text) in _RETAIL[kind] else None
    found = _GTIN_IN_TEXT.search(text)
    return None if found is None else found[1] or found[2]


def _has_right_check_digit(gtin: str) -> bool:
    """GS1's weights, from the right: 1, 3, 1, 3 and so on add up to a multiple of ten."""
    digits = [int(digit) for digit in reversed(gtin)]
    return (sum(digits[::2]) + 3 * sum(digits[1::2])) % 10 == 0
