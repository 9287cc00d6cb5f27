"""What a picture keeps of its photo's metadata, in all three formats; and what hostile metadata can do: nothing."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.containers import put_metadata, read_metadata, sniff
from boothsam.runtime.credits import Credits, read_credits, with_credits
from boothsam.runtime.errors import OutputError
from boothsam.runtime.images import encode_image, load_image, probe
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
ANN = Credits("Ann Müller", "© 2026 Ann & <Co>", TYPE)
KINDS = ("jpg", "png", "webp")
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description {attribute}>'
    "<dc:creator><rdf:Seq><rdf:li>Ann</rdf:li> <rdf:li>Bob &amp; Co</rdf:li></rdf:Seq></dc:creator>"
    '<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© Ann</rdf:li></rdf:Alt></dc:rights>{element}'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def photo(kind: str = "JPEG", **options: Any) -> bytes:
    """A photo with everything in it that must not get out."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Model", 6
    exif[0x013B], exif[0x8298] = "Ann", "Ann 2026"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8769).update({0xA431: "SERIAL-1", 0x927C: b"made by Maker", 0x9003: "2026:01:01 00:00:00"})
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **{"exif": exif} | options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_of_a_full_photo_only_the_credits_stay(kind: str) -> None:
    data = photo(kind)
    credits = read_credits(data)
    assert credits == Credits("Ann", "Ann 2026")
    for target in KINDS:
        made = with_credits(encode_image(load_image(data), target), credits)
        assert read_credits(made) == credits
        assert probe(made).orientation == 1 and probe(made).size_hw == (60, 40)  # turned upright
        with Image.open(io.BytesIO(made)) as picture:
            picture.load()
            exif = picture.getexif()
            assert set(exif) == {0x013B, 0x8298} and not exif.get_ifd(0x8825) and not exif.get_ifd(0x8769)
        assert b"SERIAL" not in made and b"Maker" not in made and b"2026:01:01" not in made


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_and_the_profile_stay(kind: str) -> None:
    plain = encode_image(PIXELS, kind)
    made = with_credits(plain, ANN, dpi=300)
    assert read_credits(made) == ANN and read_credits(plain) == Credits()
    assert np.array_equal(load_image(made), load_image(plain))
    assert made == with_credits(plain, ANN, dpi=300)
    with Image.open(io.BytesIO(made)) as picture:
        assert kind == "png" or picture.info["icc_profile"]
        picture.load()
        if kind != "webp":
            assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert kind != "png" or picture.info["srgb"] == 1
    assert with_credits(plain, Credits()) == plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("credits", [Credits("A"), Credits("", "©"), Credits("", "", TYPE), Credits("abc", "x" * 1999)])
def test_any_part_of_the_credits(kind: str, credits: Credits) -> None:
    assert read_credits(with_credits(encode_image(PIXELS, kind), credits)) == credits


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "source", [f'Iptc4xmpExt:DigitalSourceType="{TYPE}"', f'x="1" Iptc4xmpExt:DigitalSourceType = "{TYPE}"']
)
def test_xmp(kind: str, source: str) -> None:
    packet = XMP.format(attribute=source, element="").encode()
    assert read_credits(photo(kind, exif=b"", xmp=packet)) == Credits("Ann; Bob & Co", "© Ann", TYPE)
    element = f"<Iptc4xmpExt:DigitalSourceType>{TYPE}</Iptc4xmpExt:DigitalSourceType>"
    packet = XMP.format(attribute="", element=element).encode()
    assert read_credits(photo(kind, exif=b"", xmp=packet)).digital_source_type == TYPE


@pytest.mark.parametrize("compressed", [False, True])
def test_texts_and_xmp_of_a_png(compressed: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Ann")
    info.add_itxt("Copyright", "© Ann", zip=compressed)
    info.add_itxt("XML:com.adobe.xmp", XMP.format(attribute=f'DigitalSourceType="{TYPE}"', element=""), zip=compressed)
    data = photo("PNG", exif=b"", pnginfo=info)
    assert read_credits(data) == Credits("Ann; Bob & Co", "© Ann", TYPE)


def _iptc(*datasets: tuple[int, bytes]) -> bytes:
    body = b"".join(b"\x1c\x02" + struct.pack(">BH", number, len(text)) + text for number, text in datasets)
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(body)) + body + bytes(len(body) % 2)
    other = b"8BIM\x03\xed\x03abc" + struct.pack(">I", 3) + b"xyz\0"
    payload = b"Photoshop 3.0\0" + other + resource
    return b"\xff\xed" + struct.pack(">H", len(payload) + 2) + payload


def test_iptc() -> None:
    plain = photo(exif=b"")
    data = plain[:2] + _iptc((80, b"Ann"), (80, "Jörg".encode()), (90, b"Vienna"), (116, b"(c) Ann")) + plain[2:]
    assert read_credits(data) == Credits("Ann; Jörg", "(c) Ann")


def test_exif_goes_before_the_others() -> None:
    data = photo(xmp=XMP.format(attribute="", element="").encode())
    assert read_credits(data) == Credits("Ann", "Ann 2026")


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_short_values(order: str) -> None:
    tiff = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8) + struct.pack(f"{order}H", 2)
    tiff += (
        struct.pack(f"{order}HHI", 0x013B, 2, 3) + b"Al\0\0" + struct.pack(f"{order}HHII", 0x8298, 2, 8, 38) + bytes(4)
    )
    data = photo(exif=b"Exif\0\0" + tiff + b"Al\0Bo\0\0\0")
    assert read_credits(data) == Credits("Al", "Al; Bo")


def test_control_characters_and_long_texts_are_cleaned() -> None:
    exif = Image.Exif()
    exif[0x013B], exif[0x8298] = "Ann\nMiller\x1b[31m", "x" * 5000
    found = read_credits(photo(exif=exif))
    assert found.artist == "Ann Miller [31m"
    assert len(found.copyright) == 2000


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=30), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_damaged_metadata_never_fails(at: int, garbage: bytes, kind: str) -> None:
    data = bytearray(_FULL[kind])
    place = 12 + at % (len(data) - 12)
    data[place : place + len(garbage)] = garbage
    assert isinstance(read_credits(bytes(data)), Credits)
    assert isinstance(read_credits(bytes(data[:place])), Credits)


_FULL = {kind: photo(kind) for kind in ("JPEG", "PNG", "WEBP")}


def test_a_thousand_compressed_texts_are_not_unpacked() -> None:
    packed = b"Copyright\0\1\0\0\0" + zlib.compress(bytes(50 << 20), 9)
    chunk = struct.pack(">I", len(packed)) + b"iTXt" + packed + struct.pack(">I", zlib.crc32(b"iTXt" + packed))
    plain = encode_image(PIXELS, "png")
    found = read_metadata(plain[:33] + chunk * 200 + plain[33:])
    assert [(key, len(text)) for key, text in found.texts] == [("Copyright", 1 << 20)]


def test_what_cannot_take_metadata_is_refused() -> None:
    plain = encode_image(PIXELS, "jpg")
    assert sniff(plain) == "jpg" and sniff(b"GIF89a") == ""
    for data in (b"GIF89a", plain[:2] + plain[20:], b"RIFF\0\0\0\0WEBPVP8 "):
        with pytest.raises(OutputError, match="cannot put metadata"):
            put_metadata(data, exif=b"II*\0")
    with pytest.raises(OutputError, match="holds 65533 bytes"):
        put_metadata(plain, xmp=bytes(70_000))
