"""Bad photos, prompts, models, places: one clear error with a hint, no traceback, nothing half-written."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import load_image
from PIL import Image

from tests.runtime.test_images import _wide_gamut_profile
from tests.service.conftest import DISC, DISC_BOX, RED, disc

Run = Callable[..., Any]


def check_refusal(result: Any, out: Path, code: int, *messages: str, hint: bool = True) -> None:
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", *(["hint"] if hint else [])], result.stderr
    for message in messages:
        assert message in result.stderr
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.glob(".*"))


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it is this large and holds next to nothing: 43 bytes for 900 megapixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
BAD_PHOTOS = {
    "text.jpg": (b"this is a shopping list, not a photo", "no image"),
    "empty.jpg": (b"", "0 bytes"),
    "truncated.jpg": (encoded(PICTURE, "JPEG")[:9000], "truncated"),
    "truncated.png": (encoded(PICTURE, "PNG")[:9000], "truncated"),
    "header.jpg": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "damaged"),
    "old.gif": (encoded(PICTURE, "GIF"), "GIF"),
    "bomb.png": (png_of(30_000, 30_000), "too large"),
    "strip.png": (encoded(Image.new("RGB", (20_000, 1)), "PNG"), "20000x1"),
}


@pytest.mark.parametrize("name", BAD_PHOTOS)
def test_bad_photos(run: Run, tmp_path: Path, name: str) -> None:
    data, message = BAD_PHOTOS[name]
    photo = tmp_path / name
    photo.write_bytes(data)
    out = tmp_path / "new" / "cut.png"
    check_refusal(run("crop", photo, "--box", "1,1,90,90", "-o", out), out, 1, name, message)
    check_refusal(run("segment", photo, "--box", "1,1,90,90", "--best", "-o", out), out, 1, name, message)


def test_no_photo_and_a_folder(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "cut.png"
    check_refusal(run("crop", tmp_path / "none.jpg", "--auto", "-o", out), out, 1, "no such photo")
    check_refusal(run("crop", tmp_path, "--auto", "-o", out), out, 1, "is a folder")


def disc_photo(size: tuple[int, int] = (600, 400)) -> Image.Image:
    pixels = np.full((400, 600, 3), 230, np.uint8)
    disc(pixels, *DISC, RED)
    return Image.fromarray(pixels).resize(size)


def grey16() -> bytes:
    grey = np.asarray(disc_photo().convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


def rotated(orientation: int) -> bytes:
    """The photo stored so that this EXIF orientation shows it upright."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = disc_photo()
    if orientation in undo:
        picture = picture.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, "JPEG", quality=95, exif=exif)


ODD_PHOTOS = {
    "grey.jpg": encoded(disc_photo().convert("L"), "JPEG", quality=95),
    "grey16.png": grey16(),
    "cmyk.jpg": encoded(disc_photo().convert("CMYK"), "JPEG", quality=95),
    "palette.png": encoded(disc_photo().convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "alpha.png": encoded(disc_photo().convert("RGBA"), "PNG"),
    "photo.webp": encoded(disc_photo(), "WEBP", quality=95),
    "display-p3.jpg": encoded(disc_photo(), "JPEG", quality=95, icc_profile=_wide_gamut_profile()),
    **{f"exif{o}.jpg": rotated(o) for o in range(1, 9)},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_PHOTOS)
def test_odd_photos_are_cut_like_plain_ones(run: Run, tmp_path: Path, name: str) -> None:
    """Prompts are pixels of the photo as people see it: upright, whatever it is stored as."""
    photo = tmp_path / name
    photo.write_bytes(ODD_PHOTOS[name])
    result = run("crop", photo, "--box", DISC_BOX, "--json", "-o", tmp_path / "cut.png")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["size_hw"] == [400, 600]
    assert record["products"][0]["product_xyxy"] == pytest.approx([320, 70, 481, 231], abs=8)


def test_one_pixel_is_a_photo(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (200, 30, 30)).save(tmp_path / "pixel.png")
    result = run("crop", tmp_path / "pixel.png", "--point", "0.5,0.5", "-o", tmp_path / "cut.png")
    assert result.exit_code == 0, result.stderr
    assert load_image(tmp_path / "cut.png").shape == (1, 1, 3)
    out = tmp_path / "auto.png"
    check_refusal(run("crop", tmp_path / "pixel.png", "--auto", "-o", out), out, 1, "no product stands out")


@pytest.mark.parametrize(
    ("prompt", "code", "message"),
    [
        ((), 2, "no prompt was given"),
        (("--box", "490,60,310,240"), 2, "empty or reversed"),
        (("--box", "1,2,3"), 2, "has 3 numbers"),
        (("--box", "nan,0,10,10"), 2, "finite numbers"),
        (("--point", "inf,0"), 2, "finite numbers"),
        (("--point", "10,10,5"), 2, "expected x,y or x,y,1"),
        (("--auto", "--box", "0,0,9,9"), 2, "exclude each other"),
        (("--boxes", "nowhere.json"), 2, "cannot read nowhere.json"),
        (("--box", "700,10,800,90"), 1, "outside the photo of 600x400"),
        (("--point", "300,401"), 1, "outside the photo of 600x400"),
        (("--point", "-5,10"), 1, "outside the photo of 600x400"),
    ],
)
@pytest.mark.parametrize("command", ["crop", "segment"])
def test_bad_prompts(
    run: Run, photos: Path, tmp_path: Path, command: str, prompt: tuple[str, ...], code: int, message: str
) -> None:
    out = tmp_path / "new" / "cut.png"
    one = ("--best",) if command == "segment" else ()
    result = run(command, photos / "one.png", *prompt, *one, "-o", out)
    check_refusal(result, out, code, message, hint="hint:" in result.stderr)
    if message not in ("has 3 numbers", "expected x,y or x,y,1", "cannot read nowhere.json"):
        assert "hint:" in result.stderr


def test_a_detection_outside_the_photo_is_named(run: Run, photos: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[[310, 60, 490, 240], [700, 10, 800, 90]]")
    out = tmp_path / "cut"
    result = run("crop", photos / "one.png", "--boxes", boxes, "-o", out)
    check_refusal(result, out, 1, f"{boxes}, record 2: box 700,10,800,90 lies outside the photo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "cut.jpg"), "a JPEG cannot be transparent"),
        (("-o", "cut.png", "--format", "jpg"), "contradict"),
        (("-o", "cut.bmp"), "no known format"),
        (("-o", "cut.png", "--background", "purple-ish"), "unknown background"),
        (("-o", "cut.png", "--fill", "0"), "fill 0"),
        (("-o", "cut.png", "--fill", "nan"), "fill nan"),
        (("-o", "cut.png", "--size", "50", "--margin", "25"), "leaves nothing"),
        (("-o", "cut.png", "--size", "999999"), "Invalid value"),
        (("-o", "cut.png", "--quality", "0"), "Invalid value"),
        (("-o", "cut.png", "--threads", "0"), "Invalid value"),
        (("-o", "cut.png", "--backend", "cuda"), "unknown backend"),
        (("-o", "cut.png", "--precision", "fp8"), "no precision"),
        (("-o", "cut.png", "--box", "0,0,9,9"), "2 pictures cannot be written to the one file"),
    ],
)
def test_bad_options(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("crop", photos / "one.png", "--box", DISC_BOX, *options)
    check_refusal(result, Path(options[1]), 2, message, hint="hint:" in result.stderr)


def test_a_missing_backend(run: Run, photos: Path, tmp_path: Path) -> None:
    from boothsam.runtime.backends import unavailable_reason

    if unavailable_reason("ort-cuda") is None:
        pytest.skip("this machine has the backend")
    out = tmp_path / "cut.png"
    result = run("crop", photos / "one.png", "--box", DISC_BOX, "--backend", "ort-cuda", "-o", out)
    check_refusal(result, out, 1, "backend ort-cuda is not available", "boothsam doctor")


def test_missing_and_tampered_models(run: Run, photos: Path, tmp_path: Path, color_folder: Path) -> None:
    out = tmp_path / "cut.png"

    def refused(model: object, message: str) -> None:
        check_refusal(run("crop", photos / "one.png", "--box", DISC_BOX, "--model", model, "-o", out), out, 1, message)

    refused("nope", "neither a model folder nor an installed model")
    refused("mobile_sam.pt", "PyTorch checkpoint")
    copy = tmp_path / "model"
    shutil.copytree(color_folder, copy)
    decoder = copy / "decoder.onnx"
    data = decoder.read_bytes()
    decoder.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(copy, "truncated, altered or mixed")
    decoder.write_bytes(data[: len(data) // 2])
    refused(copy, "truncated, altered or mixed")
    decoder.unlink()
    refused(copy, "lacks its file")
    decoder.write_bytes(data)
    (copy / "manifest.json").write_text('{"format": 99}')
    refused(copy, "format 99")
    (copy / "manifest.json").write_text("{}")
    refused(copy, "no model manifest")


def test_places_that_cannot_be_written(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "cut.png"
    result = run("crop", photos / "one.png", "--box", DISC_BOX, "-o", out)
    check_refusal(result, out, 1, "cannot create the folder")


def test_an_empty_mask_is_told(run: Run, tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "cut.png"
    # A box thinner than a cell of the colour model holds none of its cells.
    result = run("crop", photos / "one.png", "--box", "402.1,100,403.9,200", "-o", out)
    check_refusal(result, out, 1, "mask is empty")
