"""Pictures to send, all seeded: photos, decompression bombs, damaged files."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

SIZES_HW = {"24 MP": (4000, 6000), "12 MP": (3000, 4000), "2 MP": (1200, 1600), "small": (300, 400)}
_RED, _BACKDROP = (190, 40, 35), 225


def photo(height: int, width: int, *, grain: float = 25.0, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A red product on a light backdrop, (height, width, 3) uint8 RGB. grain: deviation of the sensor noise, which is
    what makes a camera's JPEG large and slow to decode.
    """
    image = np.full((height, width, 3), _BACKDROP, np.uint8)
    unit = min(height, width)
    cv2.ellipse(image, (width // 2, height // 2), (unit // 4, unit // 3), 0, 0, 360, _RED, -1)
    rng = np.random.default_rng(seed)
    rows = 512  # noise is repeated: fresh noise for 24 MP takes seconds
    noise = rng.normal(0, grain, (rows, width, 3)).astype(np.float32)
    for top in range(0, height, rows):
        block = image[top : top + rows]
        block[:] = np.clip(block + noise[: len(block)], 0, 255)
    return image


def encoded(picture: npt.NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    """A file. kind: Pillow's name of the format."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(size: str) -> bytes:
    """A noisy JPEG of one of SIZES_HW."""
    return encoded(photo(*SIZES_HW[size]), "JPEG", quality=92)


def distinct(data: bytes, number: int) -> list[bytes | memoryview]:
    """The same JPEG as another upload: a comment with a number after its first marker; in pieces, so that a hundred
    uploads of one photo share its bytes.
    """
    comment = str(number).encode()
    return [data[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment, memoryview(data)[2:]]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _zeros(count: int) -> bytes:
    """zlib's stream of `count` zero bytes, made of one compressed block that is repeated: no wait for gigabytes."""
    block, packer = 1 << 24, zlib.compressobj(9, wbits=-15)
    whole = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, wbits=-15)
    rest = packer.compress(bytes(count % block)) + packer.flush()
    return b"\x78\xda" + whole * (count // block) + rest + struct.pack(">HH", count % 65521, 1)


def _png_bomb(side: int) -> bytes:
    """A complete, valid RGB PNG of side x side black pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = _zeros((3 * side + 1) * side)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """Small files that unfold to 265 MB and more; name -> file, 7 KiB to 3 MiB each."""
    found = {f"PNG {side}x{side}": _png_bomb(side) for side in (9400, 13300, 30000)}
    found["JPEG 13300x13300"] = encoded(np.zeros((13300, 13300), np.uint8), "JPEG", quality=75)
    found["WebP 13300x13300"] = encoded(np.zeros((13300, 13300, 3), np.uint8), "WEBP", lossless=True, method=0)
    return found


def damaged(count: int, seed: int = 0) -> Iterator[bytes]:
    """Small JPEG, PNG and WebP files, each damaged in one of six ways; the same ones for the same seed."""
    rng = random.Random(seed)
    picture = photo(60, 90, grain=6)
    seeds = [
        encoded(picture, "JPEG", quality=85),
        encoded(picture, "JPEG", quality=85, progressive=True),
        encoded(picture, "JPEG", quality=85, exif=_exif()),
        encoded(picture, "PNG"),
        encoded(picture, "WEBP", quality=80),
        encoded(picture, "WEBP", lossless=True),
    ]
    for index in range(count):
        yield mutated(seeds[index % len(seeds)], rng)


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: on its side
    return exif.tobytes()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One file, damaged: bits flipped, cut off, a stretch removed, doubled, overwritten, or lengths and sizes near the
    start made absurd.
    """
    file = bytearray(data)
    way, at = rng.randrange(6), rng.randrange(len(file))
    length = min(len(file) - at, rng.randrange(1, 64))
    if way == 0:
        for _ in range(rng.randrange(1, 24)):
            file[rng.randrange(len(file))] ^= 1 << rng.randrange(8)
    elif way == 1:
        del file[max(1, at) :]
    elif way == 2:
        del file[at : at + length]
    elif way == 3:
        file[at:at] = file[at : at + length] * rng.randrange(1, 40)
    elif way == 4:
        file[at : at + length] = rng.randbytes(length)
    else:
        for _ in range(rng.randrange(1, 5)):
            file[min(rng.randrange(4, 240), len(file) - 1)] = rng.choice((0x00, 0x7F, 0x80, 0xFF))
    return bytes(file)
