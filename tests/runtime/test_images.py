"""Reading odd photos and writing pictures atomically; every file is made here."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime import images
from boothsam.runtime.errors import ImageError, OptionError, OutputError
from boothsam.runtime.images import encode_image, load_image, probe, save_image
from PIL import Image, ImageCms

Uint8Array = npt.NDArray[np.uint8]


def _photo(height: int = 60, width: int = 90) -> Uint8Array:
    """Smooth, with a bright corner at the top left, so that each orientation differs."""
    ys, xs = np.mgrid[:height, :width]
    photo = np.stack([40 + xs * 2, 30 + ys * 3, np.full_like(xs, 90)], -1)
    photo[: height // 3, : width // 3] = (250, 240, 230)
    return photo.clip(0, 255).astype(np.uint8)


def _file(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(rows, 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def only_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode with Pillow, on Python 3.10 too: the files of these tests are our own and need no mended decoder."""
    monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    monkeypatch.setattr(images.PIL, "__version__", "13.0.0")


@pytest.fixture(params=["simplejpeg", "pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each JPEG test runs through both decoders."""
    if request.param == "pillow":
        only_pillow(monkeypatch)
    else:
        pytest.importorskip("simplejpeg")
    return str(request.param)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied(decoder: str, kind: str, orientation: int) -> None:
    upright = _photo()
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = _file(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    loaded = load_image(data)
    assert loaded.shape == upright.shape and loaded.flags.c_contiguous
    assert np.abs(loaded.astype(int) - upright).mean() < 2  # JPEG q98; PNG and WebP are exact
    info = probe(data)
    assert (info.format, info.size_hw, info.orientation) == (kind, (60, 90), orientation)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_both_jpeg_decoders_agree(monkeypatch: pytest.MonkeyPatch, subsampling: int, progressive: bool) -> None:
    pytest.importorskip("simplejpeg")
    data = _file(
        Image.fromarray(_photo(203, 305)), "JPEG", quality=88, subsampling=subsampling, progressive=progressive
    )
    turbo = load_image(data)
    only_pillow(monkeypatch)
    assert np.abs(turbo.astype(int) - load_image(data)).max() <= 2  # the same library, maybe another SIMD rounding


def test_old_pillow_does_not_decode_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    monkeypatch.setattr(images.PIL, "__version__", "12.3.0")
    with pytest.raises(ImageError, match="pip install simplejpeg"):
        load_image(_file(Image.fromarray(_photo()), "JPEG"))


def test_grey_jpeg_and_png(decoder: str) -> None:
    grey = Image.fromarray(_photo()[..., 0])
    for kind in ("JPEG", "PNG"):
        loaded = load_image(_file(grey, kind))
        assert loaded.shape == (60, 90, 3)
        assert np.abs(loaded.astype(int) - _photo()[..., :1]).mean() < 2


def test_cmyk_jpeg(decoder: str) -> None:
    ink = np.zeros((40, 50, 4), np.uint8)
    ink[:, :25] = (0, 255, 255, 0)  # red
    ink[:, 25:, 3] = 255  # black
    loaded = load_image(_file(Image.fromarray(ink, "CMYK"), "JPEG", quality=95))
    assert (loaded[:, :20] >= (230, 0, 0)).all() and (loaded[:, :20, 1:] < 25).all()
    assert loaded[:, 30:].max() < 25


def _wide_gamut_profile() -> bytes:
    """A Display-P3 profile: sRGB's profile with the P3 primaries (Bradford-adapted, as in SMPTE EG 432-1) put in."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for index in range(struct.unpack(">I", data[128:132])[0]):
        name, offset, size = struct.unpack(">4sII", data[132 + 12 * index : 144 + 12 * index])
        if name in primaries:
            data[offset + 8 : offset + 20] = struct.pack(">3i", *(round(v * 65536) for v in primaries[name]))
        if name == b"desc":
            data[offset : offset + size] = bytes(data[offset : offset + size]).replace(b"s\0R\0G\0B", b"W\0i\0d\0e")
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_display_p3_becomes_srgb(decoder: str, kind: str) -> None:
    options: dict[str, Any] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    stored = np.full((32, 32, 3), (200, 120, 80), np.uint8)
    loaded = load_image(_file(Image.fromarray(stored), kind, icc_profile=_wide_gamut_profile(), **options))
    # P3 (200, 120, 80) by the published matrices and the sRGB curve: linear P3 -> linear sRGB.
    linear = np.where(
        stored[0, 0] / 255 <= 0.04045, stored[0, 0] / 255 / 12.92, ((stored[0, 0] / 255 + 0.055) / 1.055) ** 2.4
    )
    matrix = [[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]
    expected = np.asarray(matrix) @ linear
    expected = (1.055 * expected ** (1 / 2.4) - 0.055) * 255
    assert np.abs(loaded.reshape(-1, 3) - expected).max() < 2.5
    assert np.abs(expected - stored[0, 0]).max() > 8, "the test can tell conversion from stripping"


def test_grey_and_transparent_with_rgb_profile() -> None:
    profile = _wide_gamut_profile()
    assert load_image(_file(Image.new("L", (4, 4), 128), "PNG", icc_profile=profile)).shape == (4, 4, 3)
    assert (load_image(_file(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "PNG", icc_profile=profile)) == 255).all()


def test_broken_profile_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    loaded = load_image(_file(Image.fromarray(_photo()), "PNG", icc_profile=b"no profile at all" * 10))
    np.testing.assert_array_equal(loaded, _photo())
    assert "ICC" in caplog.text


def test_16_bit_keeps_the_upper_byte() -> None:
    ramp = (np.arange(64 * 8) * 128).astype(">u2").reshape(8, 64)
    grey = b"".join(b"\0" + row.tobytes() for row in ramp)
    np.testing.assert_array_equal(load_image(_png(64, 8, 16, 0, grey))[..., 1], ramp >> 8)
    colour = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in ramp)
    np.testing.assert_array_equal(load_image(_png(64, 8, 16, 2, colour))[..., 2], ramp >> 8)


def test_palettes_and_transparency_are_laid_on_white() -> None:
    palette = Image.new("P", (4, 2), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    assert load_image(_file(palette, "PNG"))[0, :2].tolist() == [[10, 20, 30], [200, 100, 50]]
    assert load_image(_file(palette, "PNG", transparency=0))[0, :2].tolist() == [[255, 255, 255], [200, 100, 50]]
    assert load_image(_file(Image.new("LA", (2, 2), (0, 128)), "PNG"))[0, 0].tolist() == [127, 127, 127]
    assert load_image(_file(Image.new("RGBA", (2, 2), (255, 0, 0, 0)), "WEBP"))[0, 0].tolist() == [255, 255, 255]
    assert load_image(_file(Image.new("1", (9, 2), 1), "PNG")).min() == 255
    keyed = _file(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert load_image(keyed).min() == 255


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    data = _file(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert load_image(data).min() == 255


@pytest.mark.parametrize(
    "wrap", [lambda p: p, str, lambda p: p.read_bytes(), lambda p: memoryview(p.read_bytes()), open]
)
def test_sources(tmp_path: Path, wrap: Callable[[Path], Any]) -> None:
    path = tmp_path / "photo.txt"  # the bytes count, not the name
    path.write_bytes(_file(Image.fromarray(_photo()), "PNG"))
    if wrap is open:
        with path.open("rb") as file:
            np.testing.assert_array_equal(load_image(file), _photo())
        with path.open("r", encoding="latin-1") as text, pytest.raises(ImageError, match="'rb'"):
            load_image(text)  # type: ignore[arg-type]
    else:
        np.testing.assert_array_equal(load_image(wrap(path)), _photo())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"hello, I am a text", "no image"),
        (_file(Image.new("RGB", (4, 4)), "GIF"), "GIF"),
        (_file(Image.new("RGB", (4, 4)), "TIFF"), "TIFF"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(8), "damaged"),
    ],
)
def test_no_photo(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(ImageError, match=rf"(?s){message}.*hint:"):
            load_image(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated(decoder: str, kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    data = _file(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match="hint:"):
        load_image(data[: int(len(data) * share)])


def test_mutated_files_give_an_image_or_an_image_error(decoder: str) -> None:
    rng = np.random.default_rng(3)
    originals = [_file(Image.fromarray(_photo()), kind) for kind in ("JPEG", "PNG", "WEBP")]
    for _ in range(60):
        for original in originals:
            data = bytearray(original)
            for at in rng.integers(0, len(data), 4):
                data[at] = rng.integers(256)
            with contextlib.suppress(ImageError):
                assert load_image(bytes(data), max_pixels=10**6).ndim == 3


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="no such photo"):
        load_image(tmp_path / "none.jpg")
    if os.geteuid():
        secret = tmp_path / "secret.png"
        secret.write_bytes(_file(Image.fromarray(_photo()), "PNG"))
        secret.chmod(0)
        with pytest.raises(ImageError, match="permission"):
            load_image(secret)


def test_sizes() -> None:
    assert load_image(_file(Image.new("RGB", (1, 1), "red"), "PNG")).tolist() == [[[255, 0, 0]]]
    long = _file(Image.new("L", (20000, 1)), "PNG")
    with pytest.raises(ImageError, match="20000x1"):
        load_image(long)
    assert load_image(long, max_side=30000).shape == (1, 20000, 3)
    with pytest.raises(ImageError, match="90x60"):
        probe(_file(Image.fromarray(_photo()), "PNG"), max_pixels=5000)


def _bomb(side: int) -> bytes:
    return _png(side, side, 1, 0, bytes(1 + side // 8) * 2000)  # damaged as well, but nobody should come so far


@pytest.mark.parametrize("side", [9000, 11000, 30000])
def test_bomb_is_refused_from_its_header(side: int) -> None:
    """Below Pillow's warning, between warning and error, above."""
    data = _bomb(side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with pytest.raises(ImageError, match=r"(?s)(pixels|too large).*hint:"):
        load_image(data)
    assert time.perf_counter() - start < 0.15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_webp_canvas_bomb() -> None:
    canvas = (16382).to_bytes(3, "little") * 2
    data = b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + bytes(8)
    with pytest.raises(ImageError, match="16383x16383"):
        load_image(data)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_encoding_round_trip(kind: str, channels: int) -> None:
    rgba = np.dstack([_photo(), np.full((60, 90), 255, np.uint8)])
    array = rgba[..., 0] if channels == 1 else rgba[..., :channels]
    if (kind, channels) == ("jpg", 4):
        with pytest.raises(OutputError, match=r"hint:.*png"):
            encode_image(array, kind)
        return
    data = encode_image(array, kind)
    with Image.open(io.BytesIO(data)) as picture:
        if kind != "webp":
            assert picture.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        if kind == "png":
            np.testing.assert_array_equal(np.asarray(picture), array)
            assert picture.info["srgb"] == 1
        elif channels > 1:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
            assert "sRGB" in (profile.profile.profile_description or "") and len(picture.info["icc_profile"]) < 1000
    assert np.abs(load_image(data).astype(int) - (array[..., None] if channels == 1 else array[..., :3])).mean() < 3
    assert encode_image(array, kind) == data


def test_jpeg_encoders_agree(decoder: str) -> None:
    with Image.open(io.BytesIO(encode_image(_photo(), "jpg"))) as picture:
        assert "icc_profile" in picture.info
        assert np.abs(np.asarray(picture).astype(int) - _photo()).mean() < 2


@pytest.mark.parametrize(
    ("array", "options", "error"),
    [
        (_photo().astype(np.float32), {}, OutputError),
        (np.zeros((0, 4, 3), np.uint8), {}, OutputError),
        (np.zeros((4, 4, 2), np.uint8), {}, OutputError),
        ([[1]], {}, OutputError),
        (_photo(), {"quality": 0}, OptionError),
        (_photo(), {"level": 10}, OptionError),
        (_photo(), {"format": "bmp"}, OptionError),
        (np.zeros((1, 20000, 3), np.uint8), {"format": "webp"}, OutputError),
    ],
)
def test_bad_encodings(array: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_image(array, **{"format": "png", **options})


def test_mask_and_level() -> None:
    mask = _photo()[..., 0] > 100
    np.testing.assert_array_equal(load_image(encode_image(mask, "png", level=9))[..., 0], mask * 255)


@pytest.mark.parametrize("name", ["a.png", "b.JPG", "c.jpeg", "d.webp"])
def test_save(tmp_path: Path, name: str) -> None:
    path = save_image(tmp_path / name, _photo())
    assert load_image(path).shape == (60, 90, 3)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_output_errors(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="mkdir -p"):
        save_image(tmp_path / "none" / "a.png", _photo())
    with pytest.raises(OutputError, match="suffix"):
        save_image(tmp_path / "a.bmp", _photo())
    (tmp_path / "b.png").mkdir()
    with pytest.raises(OutputError, match="folder"):
        save_image(tmp_path / "b.png", _photo())
    if os.geteuid():
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        with pytest.raises(OutputError, match="chmod"):
            save_image(closed / "a.png", _photo())


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="free some space"):
        save_image(path, _photo())
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_real_write_limit(tmp_path: Path) -> None:
    """The kernel stops the write half-way (RLIMIT_FSIZE), as a full disk does."""
    code = f"""
import resource, numpy as np; from boothsam.runtime.images import save_image, OutputError
picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_image({str(tmp_path / "a.png")!r}, picture)
except OutputError as error:
    raise SystemExit(0 if "free some space" in str(error) else 3)
raise SystemExit(4)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
    assert list(tmp_path.iterdir()) == []
