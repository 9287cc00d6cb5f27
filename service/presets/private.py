"""Private metadata of a picture's file: GPS position, serial numbers, maker notes, wherever a writer may put them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from itertools import islice

from PIL import Image

_GPS, _EXIF = 0x8825, 0x8769
# Exif 2.32: MakerNote, BodySerialNumber, LensSerialNumber; DNG: CameraSerialNumber.
_MAKER_NOTE, _SERIALS = 0x927C, (0xA431, 0xA435, 0xC62F)
_BLOCK = b"Exif\0\0"
_LONGEST, _MOST_BLOCKS = 1 << 16, 16
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error)


def private_metadata(picture: Image.Image, data: bytes) -> tuple[str, ...]:
    """Which of GPS position, serial numbers and maker notes a file holds, sorted.

    EXIF is read wherever a block of it begins: a second one, and those of a picture behind the picture, as phones write
    it, count as well. XMP and texts are searched for the properties' names: a packet may be split, doubled or packed.

    Args:
        picture: Pillow's image of the file, its pixels loaded. data: the file's bytes.

    Raises:
        One of `DAMAGED`: metadata that cannot be read.
    """
    texts = [data, *_texts(picture)]
    found = _in_exif(picture.getexif())
    for block in islice(_blocks(texts), _MOST_BLOCKS):
        exif = Image.Exif()
        try:
            exif.load(block)
            found |= _in_exif(exif)
        except DAMAGED:  # the rest of a long block, or what only looks like one
            continue
    for text in texts:
        if b"GPSLatitude" in text or b"GPSLongitude" in text:
            found.add("GPS position")
        if b"SerialNumber" in text:
            found.add("serial numbers")
    return tuple(sorted(found))


def _in_exif(exif: Image.Exif) -> set[str]:
    found = set()
    if exif.get_ifd(_GPS):
        found.add("GPS position")
    details = exif.get_ifd(_EXIF)
    if _MAKER_NOTE in details:
        found.add("maker notes")
    if any(tag in details or tag in exif for tag in _SERIALS):
        found.add("serial numbers")
    return found


def _blocks(texts: Iterable[bytes]) -> Iterator[bytes]:
    for text in texts:
        at = text.find(_BLOCK)
        while at >= 0:
            yield text[at : at + _LONGEST]
            at = text.find(_BLOCK, at + 1)


def _texts(picture: Image.Image) -> Iterator[bytes]:
    """A PNG's texts, unpacked within Pillow's limits, and the profiles that some write there in hexadecimal."""
    for name, value in getattr(picture, "text", {}).items():
        yield value.encode(errors="replace")
        if name.lower().startswith("raw profile type "):
            # A line break, the profile's name, its length, and the digits.
            digits = re.sub(r"\s", "", "".join(value.split("\n")[3:]))
            if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", digits):
                yield bytes.fromhex(digits)
