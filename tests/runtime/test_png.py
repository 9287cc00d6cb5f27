"""The strip writer: other decoders read back what was written, whatever the size and the deflate library."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime import png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

Uint8Array = npt.NDArray[np.uint8]


def picture(height: int, width: int, channels: int, seed: int = 0) -> Uint8Array:
    """Smooth with noise and flat parts, as photos have them."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
    pixels[: height // 3] = 255
    pixels[height // 3 : height // 2] //= 64
    return pixels[..., 0] if channels == 1 else pixels


def read(data: bytes) -> Uint8Array:
    """By Pillow, which checks every checksum, and by OpenCV: both must agree."""
    with Image.open(io.BytesIO(data)) as opened:
        opened.verify()
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    other = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    swap = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
    assert np.array_equal(pixels, other if other.ndim == 2 else cv2.cvtColor(other, swap[other.shape[2]]))
    return pixels


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def deflate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "zlib":
        monkeypatch.setattr(png, "_deflate", lambda: zlib)
    else:
        assert png._deflate().__name__ == "isal.isal_zlib"
    return str(request.param)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (64, 48), (1200, 1601), (3, 600_000)])
def test_pixels_come_back(size: tuple[int, int], channels: int) -> None:
    pixels = picture(*size, channels)
    assert np.array_equal(read(png.encode_png(pixels)), pixels)


def test_a_view_that_is_not_contiguous() -> None:
    pixels = picture(40, 30, 3)
    assert np.array_equal(read(png.encode_png(pixels[::2, ::-1])), pixels[::2, ::-1])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([1, 3, 4]), st.integers(1, 5000))
def test_any_size_in_any_strips(height: int, width: int, channels: int, strip_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "_STRIP_BYTES", strip_bytes)
        pixels = picture(height, width, channels, seed=height)
        assert np.array_equal(read(png.encode_png(pixels)), pixels)


@given(st.lists(st.binary(max_size=3000), min_size=2, max_size=4))
def test_checksums_of_pieces_join(pieces: list[bytes]) -> None:
    checksum = 1
    for piece in pieces:
        checksum = png._joined_adler(checksum, zlib.adler32(piece), len(piece))
    assert checksum == zlib.adler32(b"".join(pieces))


def test_the_bytes_do_not_depend_on_the_number_of_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = picture(1500, 1000, 4)
    several = png.encode_png(pixels)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert png.encode_png(pixels) == several


def test_the_file_says_srgb_and_has_the_chunks_of_the_specification() -> None:
    data, kinds, at = png.encode_png(picture(1200, 900, 3)), [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kinds.append(data[at + 4 : at + 8].decode())
        at += 12 + length
    assert kinds[:2] == ["IHDR", "sRGB"] and kinds[-1] == "IEND" and set(kinds[2:-1]) == {"IDAT"}
    assert at == len(data)


def test_without_isal_zlib_writes() -> None:
    code = (
        "import sys; sys.modules['isal'] = None\n"
        "from boothsam.runtime import png; import numpy as np\n"
        "print(png._deflate().__name__, len(png.encode_png(np.zeros((9, 9, 3), np.uint8))) > 60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["zlib", "True"]
