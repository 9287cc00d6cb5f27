"""Metadata blocks of JPEG, PNG and WebP files, found and put in without decoding a pixel.

JPEG: segments up to the first scan (ITU T.81, annex B). PNG: chunks (W3C PNG, third edition). WebP: RIFF chunks (the
WebP container specification). Files may be hostile: every length is checked, and the number of blocks looked at is
bounded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from boothsam.runtime.errors import OutputError

MAX_BLOCK = 1 << 20  # bytes of one metadata block; longer ones are left out
_MOST_BLOCKS = 50_000
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_KEYWORDS = (_XMP_KEYWORD, b"Author", b"Copyright")
_PHOTOSHOP = b"Photoshop 3.0\0"
_IPTC_RESOURCE = 0x0404
_INCH_CM = 0.0254
# VP8X flags of the WebP container.
_HAS_XMP, _HAS_EXIF = 0x04, 0x08


@dataclass(frozen=True)
class Metadata:
    """The blocks of a file, empty where there is none.

    exif: TIFF structure. xmp: the packet. iptc: IIM datasets. texts: PNG's texts Author and Copyright.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()


def sniff(data: bytes) -> str:
    """ "jpg", "png" or "webp" by the first bytes; empty for everything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else ""


def is_lossless(data: bytes) -> bool:
    """Whether the pixels of a PNG or WebP are stored as they were; false for everything else."""
    kind = sniff(data)
    return kind == "png" or (kind == "webp" and any(name == b"VP8L" for name, _, _ in _riff_chunks(data)))


def read_metadata(data: bytes) -> Metadata:
    """The metadata of an encoded picture; what is damaged or too long is left out."""
    kind = sniff(data)
    if kind == "jpg":
        return _of_jpeg(data)
    if kind == "png":
        return _of_png(data)
    return _of_webp(data) if kind == "webp" else Metadata()


def put_metadata(data: bytes, *, exif: bytes = b"", xmp: bytes = b"", dpi: int | None = None) -> bytes:
    """The same picture with these blocks; pixels and everything else stay byte for byte.

    Args:
        data: a JPEG that begins with a JFIF segment, a PNG or a WebP with a VP8X header, without such blocks.
        exif: TIFF structure without the `Exif` marker. xmp: a packet of less than 64 kB.
        dpi: pixels per inch, for JPEG and PNG; WebP has no such field.

    Raises:
        OutputError: a file of another kind or build.
    """
    if not (exif or xmp or dpi):
        return data
    kind = sniff(data)
    if kind == "jpg" and data[6:11] == b"JFIF\0":
        return _into_jpeg(data, exif, xmp, dpi)
    if kind == "png":
        return _into_png(data, exif, xmp, dpi)
    if kind == "webp" and data[12:16] == b"VP8X":
        return _into_webp(data, exif, xmp)
    raise OutputError(f"cannot put metadata into this {kind or 'file'}; expected JPEG with JFIF, PNG or extended WebP")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and payload of each segment before the first scan."""
    at = 2
    for _ in range(_MOST_BLOCKS):
        if at + 4 > len(data) or data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _of_jpeg(data: bytes) -> Metadata:
    exif = xmp = iptc = b""
    for marker, payload in jpeg_segments(data):
        if marker == 0xE1 and payload.startswith(_EXIF):
            exif = exif or payload[len(_EXIF) :]
        elif marker == 0xE1 and payload.startswith(_XMP):
            xmp = xmp or payload[len(_XMP) :]
        elif marker == 0xED and payload.startswith(_PHOTOSHOP):
            iptc = iptc or _iptc_in(payload[len(_PHOTOSHOP) :])
    return Metadata(exif, xmp, iptc)


def _iptc_in(resources: bytes) -> bytes:
    """The IIM datasets among Photoshop's image resources."""
    at = 0
    while resources[at : at + 4] == b"8BIM" and at + 12 <= len(resources):
        number = int.from_bytes(resources[at + 4 : at + 6], "big")
        name = 1 + resources[at + 6]
        at += 6 + name + name % 2
        length = int.from_bytes(resources[at : at + 4], "big")
        at += 4
        if number == _IPTC_RESOURCE:
            return resources[at : at + length]
        at += length + length % 2
    return b""


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and length of each chunk's data."""
    at = 8
    for _ in range(_MOST_BLOCKS):
        if at + 12 > len(data):
            return
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, length
        at += 12 + length


def _of_png(data: bytes) -> Metadata:
    exif, found = b"", dict[bytes, bytes]()
    for kind, start, length in _png_chunks(data):
        if length > MAX_BLOCK:
            continue
        content = data[start : start + length]
        if kind == b"eXIf":
            exif = exif or content
        elif kind in (b"tEXt", b"iTXt"):
            keyword, _, rest = content.partition(b"\0")
            # Only the first of each keyword that is read, or a file of compressed texts would take minutes.
            if keyword in _KEYWORDS and keyword not in found:
                text = rest.decode("latin-1").encode() if kind == b"tEXt" else _international(rest)
                found[keyword] = text
    texts = tuple((key.decode(), text.decode(errors="replace")) for key, text in found.items() if key != _XMP_KEYWORD)
    return Metadata(exif, found.get(_XMP_KEYWORD, b""), b"", texts)


def _international(rest: bytes) -> bytes:
    """The text of an iTXt chunk behind its keyword; empty where it cannot be read."""
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return b""
    if not rest[0]:
        return parts[2]
    try:
        return zlib.decompressobj().decompress(parts[2], MAX_BLOCK)
    except zlib.error:
        return b""


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    for _ in range(_MOST_BLOCKS):
        if at + 8 > len(data):
            return
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, length
        at += 8 + length + length % 2


def _of_webp(data: bytes) -> Metadata:
    exif = xmp = b""
    for kind, start, length in _riff_chunks(data):
        if length > MAX_BLOCK:
            continue
        if kind == b"EXIF":
            exif = exif or data[start : start + length].removeprefix(_EXIF)
        elif kind == b"XMP ":
            xmp = xmp or data[start : start + length]
    return Metadata(exif, xmp)


def _into_jpeg(data: bytes, exif: bytes, xmp: bytes, dpi: int | None) -> bytes:
    head = bytearray(data[: 4 + int.from_bytes(data[4:6], "big")])  # SOI and the JFIF segment
    rest = data[len(head) :]
    if dpi is not None:
        head[13:18] = struct.pack(">BHH", 1, dpi, dpi)
    blocks = [_EXIF + exif if exif else b"", _XMP + xmp if xmp else b""]
    if any(len(block) > 65533 for block in blocks):
        raise OutputError(f"a JPEG segment holds 65533 bytes; found {max(map(len, blocks))} bytes of metadata")
    segments = [b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block for block in blocks if block]
    return b"".join([bytes(head), *segments, rest])


def _into_png(data: bytes, exif: bytes, xmp: bytes, dpi: int | None) -> bytes:
    chunks = []
    if dpi is not None:
        chunks.append((b"pHYs", struct.pack(">IIB", *[round(dpi / _INCH_CM)] * 2, 1)))
    if exif:
        chunks.append((b"eXIf", exif))
    if xmp:
        chunks.append((b"iTXt", _XMP_KEYWORD + bytes(5) + xmp))
    made = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    # Behind the header and OpenCV's sRGB chunk, before the pixels: pHYs and eXIf must stand there.
    end = next(start - 8 for kind, start, _ in _png_chunks(data) if kind == b"IDAT")
    return b"".join([data[:end], *made, data[end:]])


def _into_webp(data: bytes, exif: bytes, xmp: bytes) -> bytes:
    flags = data[20] | (_HAS_EXIF if exif else 0) | (_HAS_XMP if xmp else 0)
    body = data[8:20] + bytes([flags]) + data[21:]
    for kind, content in ((b"EXIF", exif), (b"XMP ", xmp)):
        if content:
            body += kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body
