"""Every rule: a good picture passes, and each mutilated one fails exactly the rule that it breaks."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.errors import ImageError
from boothsam.runtime.images import encode_image
from boothsam.service.presets.check import check, check_name
from boothsam.service.presets.preset import load_preset, parse_preset, preset_names
from PIL import Image, ImageCms, PngImagePlugin

from tests.service.presets.pictures import canvas, file_name, jpeg

DAY = date(2026, 11, 21)
Encode = Callable[[Any], bytes]


def failed(data: bytes, preset: str = "amazon", name: str | None = None, day: date = DAY) -> list[str]:
    """Kinds of the broken rules that must be kept."""
    report = check(data, load_preset(preset), name=name or file_name(preset), today=day)
    assert all(finding.mend and finding.source for finding in report.failed)
    return [finding.rule for finding in report.failed]


def pillow(picture: Any, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, kind, **{"quality": 95, "subsampling": 0} | options if kind == "JPEG" else options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", preset_names())
def test_a_good_picture_passes(name: str) -> None:
    assert failed(jpeg(canvas(0.88, 1500)), name) == []


def test_other_encoders_leave_the_background_alone() -> None:
    for quality in (75, 85, 92, 100):
        for subsampling in (0, 2):
            assert failed(pillow(canvas(), quality=quality, subsampling=subsampling)) == []
    assert failed(encode_image(canvas(), "png"), name="B0.png") == []


@pytest.mark.parametrize(
    ("where", "colour"),
    [((0, 300), 128), ((599, 599), 250), ((300, 0), 254), ((60, 60), 128), ((540, 30), 200), ((10, 300), 254)],
)
def test_one_pixel_that_is_not_background(where: tuple[int, int], colour: int) -> None:
    picture = canvas()
    picture[where] = colour
    assert failed(encode_image(picture, "png"), name="B0.png") == ["background"]
    finding = check(encode_image(picture, "png"), load_preset("amazon")).failed[0]
    assert f"at {where[1]}, {where[0]} it is {colour}, {colour}, {colour}" in finding.found


def test_one_grey_border_pixel_of_a_jpeg() -> None:
    picture = canvas()
    picture[0, 300] = 128
    assert failed(jpeg(picture)) == ["background"]


def test_an_off_white_background_and_a_haze_over_it() -> None:
    off = canvas()
    off[off == 255] = 253
    assert "background" in failed(jpeg(off))
    haze = canvas()
    haze[40:200, 20:120] = 250
    assert failed(jpeg(haze)) == ["background"]


def test_a_transparent_background() -> None:
    picture = canvas()
    rgba = np.dstack([picture, np.where((picture == 255).all(2), 0, 255).astype(np.uint8)])
    assert failed(encode_image(rgba, "png"), name="B0.png") == ["background"]


@pytest.mark.parametrize(("fill", "rules"), [(0.5, ["min_fill"]), (0.84, ["min_fill"]), (0.86, []), (0.96, [])])
def test_the_fill_is_the_boxs(fill: float, rules: list[str]) -> None:
    assert failed(jpeg(canvas(fill))) == rules
    report = check(jpeg(canvas(fill)), load_preset("amazon"))
    assert report.fill == pytest.approx(fill, abs=0.003)


def test_a_thin_product_fills_by_its_length() -> None:
    picture = np.full((600, 600, 3), 255, np.uint8)
    picture[40:560, 299:301] = 40
    assert failed(jpeg(picture)) == []


def test_an_empty_canvas_has_no_product() -> None:
    assert failed(jpeg(np.full((600, 600, 3), 255, np.uint8))) == ["min_fill"]


def test_too_small_and_too_large_pictures() -> None:
    assert failed(jpeg(canvas(side=400))) == ["min_longest"]
    assert failed(jpeg(canvas(side=99)), "google") == ["min_side"]
    wide = np.full((600, 4500, 3), 255, np.uint8)
    wide[40:560, 2000:2400] = 60
    assert failed(jpeg(wide), "shopify") == ["max_longest"]


def test_a_rule_with_a_date() -> None:
    small = jpeg(canvas(0.84, 300))
    assert failed(small, "google", day=date(2027, 1, 30)) == []
    assert failed(small, "google", day=date(2027, 1, 31)) == ["min_side"]
    advice = check(small, load_preset("google"), today=DAY).advice
    assert any("from 2027-01-31 on" in finding.wanted for finding in advice)


def test_cmyk_and_foreign_profiles() -> None:
    assert failed(pillow(Image.fromarray(canvas()).convert("CMYK"))) == ["colour"]
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert failed(pillow(canvas(), icc_profile=lab)) == ["colour"]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert failed(pillow(canvas(), icc_profile=srgb)) == []
    assert failed(pillow(Image.fromarray(canvas()).convert("L"))) == []


def _srgb_called(name: str) -> bytes:
    """An sRGB profile of another name of 13 characters."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    renamed = plain.replace("sRGB built-in".encode("utf-16-be"), name.encode("utf-16-be"))
    assert renamed != plain or name == "sRGB built-in"
    return renamed


def _wide() -> bytes:
    """Display P3's primaries in a profile that calls itself sRGB."""
    data = bytearray(_srgb_called("sRGB built-in"))
    primaries = {
        b"rXYZ": (0.5151, 0.2412, -0.0011),
        b"gXYZ": (0.2920, 0.6922, 0.0419),
        b"bXYZ": (0.1571, 0.0666, 0.7841),
    }
    for tag, xyz in primaries.items():
        (offset,) = struct.unpack_from(">I", data, data.index(tag) + 4)
        struct.pack_into(">3i", data, offset + 8, *(round(value * 65536) for value in xyz))
    return bytes(data)


def test_a_profile_is_judged_by_its_colours_not_by_its_name() -> None:
    assert failed(pillow(canvas(), icc_profile=_srgb_called("GIMP built-in"))) == []
    assert failed(pillow(canvas(), icc_profile=_wide())) == ["colour"]
    assert failed(pillow(canvas(), icc_profile=b"no profile")) == ["colour"]
    assert failed(pillow(Image.fromarray(canvas()).convert("L"), icc_profile=_srgb_called("GIMP built-in"))) == []


def test_a_phones_jpeg_with_a_second_picture_is_a_still_jpeg() -> None:
    preview = Image.fromarray(canvas(side=100))
    data = pillow(canvas(), "MPO", save_all=True, append_images=[preview], quality=95, subsampling=0)
    assert failed(data) == []
    hidden = data + pillow(preview, exif=_exif(0x8825, 1, "N"))
    assert failed(hidden) == ["private"]


def test_a_rotation_that_is_left_to_do() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert failed(pillow(canvas(), exif=exif)) == ["upright"]


def _exif(place: int, tag: int, value: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "a camera's maker"
    exif.get_ifd(place)[tag] = value
    return exif


@pytest.mark.parametrize(
    ("exif", "found"),
    [
        (_exif(0x8825, 1, "N"), "GPS position"),
        (_exif(0x8769, 0xA431, "A-1234"), "serial numbers"),
        (_exif(0x8769, 0x927C, b"made by a camera"), "maker notes"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_private_metadata(exif: Image.Exif, found: str, kind: str) -> None:
    data = pillow(canvas(), kind, exif=exif)
    assert failed(data, name="B0.jpg" if kind == "JPEG" else "B0.png") == ["private"]
    assert found in check(data, load_preset("amazon")).failed[0].found


def test_private_metadata_in_xmp() -> None:
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><exif:GPSLatitude>48,12N</exif:GPSLatitude></x:xmpmeta>'
    assert failed(pillow(canvas(), xmp=packet)) == ["private"]


PACKET = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description exif:GPSLatitude="48,12N"/></x:xmpmeta>'


def _with_segments(*payloads: bytes) -> bytes:
    data = jpeg(canvas())
    return data[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(p) + 2) + p for p in payloads) + data[2:]


def test_private_metadata_in_a_second_block_of_a_jpeg() -> None:
    plain, gps = Image.Exif(), _exif(0x8825, 1, "N")
    plain[0x013B] = "Ann"
    assert failed(_with_segments(plain.tobytes())) == []
    assert failed(_with_segments(plain.tobytes(), gps.tobytes())) == ["private"]
    xmp, extended = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
    assert failed(_with_segments(xmp + b"<x:xmpmeta/>", xmp + PACKET)) == ["private"]
    assert failed(_with_segments(extended + b"A" * 32 + struct.pack(">II", len(PACKET), 0) + PACKET)) == ["private"]


def test_private_metadata_in_packed_texts_of_a_png() -> None:
    def texts(name: str, value: str) -> bytes:
        info = PngImagePlugin.PngInfo()
        info.add_text(name, value, zip=True)
        return pillow(canvas(), "PNG", pnginfo=info)

    exif = _exif(0x8825, 1, "N").tobytes()
    assert failed(texts("Author", "Ann"), name="B0.png") == []
    assert failed(texts("XML:com.adobe.xmp", PACKET.decode()), name="B0.png") == ["private"]
    for kind, content in (("xmp", PACKET), ("APP1", exif), ("exif", exif)):
        value = f"\n{kind}\n{len(content):8}\n{content.hex()}\n"
        assert failed(texts(f"Raw profile type {kind}", value), name="B0.png") == ["private"], kind
    assert failed(texts("Raw profile type xmp", value[:-2]), name="B0.png") == []  # half a byte: no profile


@pytest.mark.parametrize("name", ["B0.png", "B0.webp", "B0", "B0.jpg.exe"])
def test_an_ending_that_lies(name: str) -> None:
    assert failed(jpeg(canvas()), name=name) == ["ending"]


def test_a_format_that_the_market_does_not_take() -> None:
    webp = encode_image(canvas(), "webp")
    assert failed(webp, name="B0.webp") == ["formats", "ending"]
    assert failed(pillow(canvas(), "GIF"), name="B0.gif") == ["formats"]
    assert "GIF by its content" in check(pillow(canvas(), "GIF"), load_preset("ebay")).failed[0].found


def test_an_animation() -> None:
    frames = [Image.fromarray(canvas()), Image.fromarray(canvas(0.95))]
    data = pillow(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert failed(data, name="B0.png") == ["still"]


def test_too_many_bytes() -> None:
    preset = parse_preset('base = "amazon"\n[[rules]]\nrule = "max_bytes"\nvalue = 2000', "own.toml")
    assert [finding.rule for finding in check(jpeg(canvas()), preset).failed] == ["max_bytes"]
    finding = check(jpeg(canvas()), preset).failed[0]
    assert "2,000 bytes or less" in finding.wanted and finding.source == "own.toml"


def test_density() -> None:
    report = check(pillow(canvas(), dpi=(72, 72)), load_preset("gs1"))
    assert [f.rule for f in report.advice] == ["min_longest", "min_dpi"]
    assert not [f for f in check(pillow(canvas(), dpi=(300, 300)), load_preset("gs1")).advice if f.rule == "min_dpi"]
    assert not [f for f in check(encode_image(canvas(), "png"), load_preset("gs1")).failed if f.rule == "min_dpi"]


@pytest.mark.parametrize(
    ("preset", "name", "rules"),
    [
        ("gs1", "04006381333931_A1N1.jpg", []),
        ("gs1", "04006381333931_E0N1_017.jpg", []),
        ("gs1", "04006381333932_A1N1.jpg", ["gtin_name"]),
        ("gs1", "4006381333931_A1N1.jpg", ["name", "gtin_name"]),
        ("gs1", "04006381333931_A4N1.jpg", ["name"]),
        ("gs1", "04006381333931_A1N1.jpeg", ["ending"]),
        ("vtex", "mug_7.jpg", ["name"]),
        ("vtex", "mug-7.jpeg", ["ending"]),
    ],
)
def test_names(preset: str, name: str, rules: list[str]) -> None:
    found = check_name(name, "jpg", load_preset(preset))
    assert [finding.rule for finding in found if finding.passed is False and finding.level == "must"] == rules
    assert failed(jpeg(canvas(side=1200)), preset, name) == rules


def test_amazons_names_are_advice() -> None:
    report = check(jpeg(canvas(side=1200)), load_preset("amazon"), name="my mug-1.jpg")
    assert report.passed and [finding.rule for finding in report.advice] == ["name"]
    assert not check(jpeg(canvas(side=1200)), load_preset("amazon"), name="B000123456.PT01.jpg").advice


def test_without_a_name_no_rule_of_names_is_judged() -> None:
    kinds = {finding.rule for finding in check(jpeg(canvas()), load_preset("gs1")).findings}
    assert not kinds & {"name", "gtin_name", "ending"}


def test_damaged_pictures() -> None:
    for data in (b"", b"no picture", jpeg(canvas())[:800]):
        with pytest.raises(ImageError, match="hint:"):
            check(data, load_preset("amazon"))


def test_a_fill_that_cannot_be_measured_is_said_so() -> None:
    preset = parse_preset('[[rules]]\nrule = "min_fill"\nvalue = 0.8', "own.toml")
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    (finding,) = (f for f in check(jpeg(noise), preset).findings if f.rule == "min_fill")
    assert finding.passed is None and "more than one colour" in finding.found


def test_the_report_as_json() -> None:
    told = check(jpeg(canvas(0.5)), load_preset("amazon"), name="B0.jpg").to_dict()
    assert told["passed"] is False and told["fill"] == pytest.approx(0.5, abs=0.01)
    (broken,) = (f for f in told["findings"] if f["passed"] is False and f["level"] == "must")
    assert broken["rule"] == "min_fill" and broken["mend"].startswith("boothsam crop") and broken["secondary"]
