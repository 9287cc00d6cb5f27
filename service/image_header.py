"""Format and size of an uploaded photo from its first bytes, in plain Python: no decoder runs in the service's process.

Nothing is inflated and nothing allocated, so a bomb is refused in microseconds whatever it would unfold to. What lies
behind the header is the decoding worker's business (`decoding`).

Sources: PNG specification (3rd edition), section 11.2.1; ITU-T T.81, annex B; RFC 9649 (WebP), sections 2.5 to 2.7 and
RFC 6386, section 9.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from boothsam.service.problems import problem

# A photo has a few dozen JPEG segments, one with a large profile a few hundred. The bound keeps a file made of nothing
# but empty segments from holding the event loop.
_MAX_SEGMENTS = 4096
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_OTHERS = {
    b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF", b"%!PS": "PostScript",
    b"<svg": "SVG", b"<?xm": "XML", b"<!DO": "HTML", b"8BPS": "PSD", b"SIMPLE": "FITS", b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip", b"\xd0\xcf\x11\xe0": "OLE (FlashPix, Office)", b"\0\0\x01\0": "ICO", b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cjP": "JPEG 2000", b"\xd7\xcd\xc6\x9a": "WMF",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the header says: "JPEG", "PNG" or "WEBP", and the stored size, before the EXIF orientation."""

    format: str
    width: int
    height: int


def read_header(data: bytes | bytearray | memoryview) -> Header:
    """Format by magic bytes, size from the header.

    Raises:
        ServiceProblem: `unsupported_media` for any other format, `broken_image` for a header without a size.
    """
    head = bytes(data[:32])
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _header("PNG", _png(head))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _header("WEBP", _webp(head))
    if head.startswith(b"\xff\xd8\xff"):
        return _header("JPEG", _jpeg(data))
    if not head:
        raise problem("broken_image", "the image is empty (0 bytes)", "take the photo again")
    found = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        found = "HEIC or AVIF"
    what = f"is a {found} file" if found else f"begins with {head[:8].hex(' ')}"
    raise problem(
        "unsupported_media",
        f"the image {what}; expected JPEG, PNG or WebP, by content whatever the name says",
        "send a JPEG, PNG or WebP",
    )


def check_size(header: Header, max_pixels: int, max_side: int) -> None:
    """Raises ServiceProblem `too_many_pixels` where the header announces more than is accepted."""
    width, height = header.width, header.height
    if max(width, height) > max_side or width * height > max_pixels:
        raise problem(
            "too_many_pixels",
            f"the image has {width}x{height} pixels; accepted are {max_side} a side and {max_pixels / 1e6:g} million",
            "scale the photo down, or raise max_pixels and max_side",
        )


def _header(kind: str, size: tuple[int, int] | None) -> Header:
    if size is None or size[0] < 1 or size[1] < 1:
        raise problem(
            "broken_image",
            f"the image begins like a {kind} but its header " + ("holds no size" if size is None else "says 0 pixels"),
            "take or copy the photo again",
        )
    return Header(kind, *size)


def _png(head: bytes) -> tuple[int, int] | None:
    if len(head) < 24 or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _webp(head: bytes) -> tuple[int, int] | None:
    if len(head) < 30:
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    if kind == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _jpeg(data: bytes | bytearray | memoryview) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _STANDALONE:
            at += 2
        elif marker in _START_OF_FRAME:
            if at + 9 > len(data):
                return None
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        elif marker in (0xD8, 0xD9, 0xDA):  # a second start, the end, or a scan before any frame
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
