"""Hostile and ordinary image files, built byte by byte; shared by the tests of the service's limits."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def photo(height: int = 60, width: int = 90) -> npt.NDArray[np.uint8]:
    """Smooth, and different in each corner."""
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs * 255 // width, ys * 255 // height, np.full_like(xs, 90)], -1).astype(np.uint8)


def encoded(picture: npt.NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *, data: bytes = b"", extra: bytes = b"") -> bytes:
    """An 8-bit grey PNG with the given compressed rows; `extra` chunks come before them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_bomb(side: int) -> bytes:
    """A complete, valid PNG of side x side zeros: about a thousand times smaller than its pixels."""
    packer, row = zlib.compressobj(9), bytes(side + 1)
    return png(side, side, data=b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()]))


def webp_bomb(side: int) -> bytes:
    """A lossless WebP of one colour: under a KiB whatever its side, up to 16383."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).convert("RGB").save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def jpeg_bomb(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG", quality=10)
    return buffer.getvalue()
