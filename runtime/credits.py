"""Whose picture it is: the only metadata of a photo that its product pictures keep.

Read from EXIF (Artist, Copyright), XMP (dc:creator, dc:rights, Iptc4xmpExt:DigitalSourceType), IPTC-IIM (2:80 By-line,
2:116 Copyright Notice) and PNG's texts, in this order of trust; written as EXIF and XMP, as the Metadata Working
Group's guidelines (2010) ask of writers. Place, serial numbers and maker notes of the photo never reach a picture:
nothing else is copied.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from html import unescape
from xml.sax.saxutils import escape

from boothsam.runtime.containers import put_metadata, read_metadata

_ARTIST, _COPYRIGHT = 0x013B, 0x8298
_ASCII = 2
_MOST_ENTRIES = 500
_LONGEST = 2000
_LI = r"\s*<rdf:li[^>]{0,200}>([^<]{1,4000})</rdf:li>"
_CREATOR = re.compile(r"<dc:creator>\s*<rdf:(?:Seq|Bag)>((?:" + _LI + r"){1,20})")
_RIGHTS = re.compile(r"<dc:rights>\s*<rdf:Alt>" + _LI)
_SOURCE_TYPE = re.compile(
    r"DigitalSourceType.{0,120}?(https?://cv\.iptc\.org/newscodes/digitalsourcetype/[A-Za-z0-9]{1,80})", re.DOTALL
)
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
{}</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


@dataclass(frozen=True)
class Credits:
    """Texts without control characters, empty where the photo says nothing.

    digital_source_type: IPTC's newscode as a URI; shops must keep it where a picture was generated.
    """

    artist: str = ""
    copyright: str = ""
    digital_source_type: str = ""

    def __bool__(self) -> bool:
        return bool(self.artist or self.copyright or self.digital_source_type)


NO_CREDITS = Credits()


def read_credits(data: bytes) -> Credits:
    """The credits in an encoded JPEG, PNG or WebP; decodes no pixels and never fails."""
    found = read_metadata(data)
    texts = {keyword.lower(): text for keyword, text in reversed(found.texts)}
    exif, iptc = _from_exif(found.exif), _from_iptc(found.iptc)
    packet = found.xmp.decode(errors="replace")
    creators = _CREATOR.search(packet)
    rights, kind = _RIGHTS.search(packet), _SOURCE_TYPE.search(packet)
    by = "; ".join(unescape(name) for name in re.findall(_LI, creators[1])) if creators else ""
    owner = unescape(rights[1]) if rights else ""
    return Credits(
        _first(exif.get(_ARTIST, ""), by, iptc.get(80, ""), texts.get("author", "")),
        _first(exif.get(_COPYRIGHT, ""), owner, iptc.get(116, ""), texts.get("copyright", "")),
        kind[1] if kind else "",
    )


def with_credits(data: bytes, credits: Credits, dpi: int | None = None) -> bytes:
    """An encoded picture of ours with these credits and this density; the same bytes where there are none.

    Raises:
        OutputError: see `containers.put_metadata`.
    """
    if not credits:
        return put_metadata(data, dpi=dpi)
    return put_metadata(data, exif=_to_exif(credits), xmp=_to_xmp(credits), dpi=dpi)


def _first(*texts: str) -> str:
    """The first text that says something, cleaned."""
    for text in texts:
        clean = " ".join("".join(c if c.isprintable() else " " for c in text[:_LONGEST]).split())
        if clean:
            return clean
    return ""


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _from_exif(exif: bytes) -> dict[int, str]:
    """The ASCII values of the two tags in the first directory of a TIFF structure."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return {}
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return {}
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    values = {}
    for entry in range(min(count, _MOST_ENTRIES)):
        at = start + 2 + 12 * entry
        if at + 12 > len(exif):
            break
        tag, kind, length, offset = struct.unpack_from(f"{order}HHII", exif, at)
        if tag in (_ARTIST, _COPYRIGHT) and kind == _ASCII:
            place = at + 8 if length <= 4 else offset
            # Copyright may hold the photographer's and, behind a NUL, the editor's notice.
            parts = [part for part in exif[place : place + length].split(b"\0") if part.strip()]
            values[tag] = "; ".join(map(_text, parts))
    return values


def _from_iptc(datasets: bytes) -> dict[int, str]:
    """The datasets of record 2, each one's first value; names that repeat are joined."""
    values: dict[int, list[str]] = {}
    at = 0
    while at + 5 <= len(datasets) and datasets[at] == 0x1C:
        record, number, length = datasets[at + 1], datasets[at + 2], int.from_bytes(datasets[at + 3 : at + 5], "big")
        if length & 0x8000:  # an extended dataset: none of these texts is that long
            break
        if record == 2:
            values.setdefault(number, []).append(_text(datasets[at + 5 : at + 5 + length]))
        at += 5 + length
    return {number: "; ".join(texts) for number, texts in values.items()}


def _to_exif(credits: Credits) -> bytes:
    """A TIFF structure of one directory (Exif 2.32, section 4.6.2); texts are UTF-8."""
    texts = [(_ARTIST, credits.artist), (_COPYRIGHT, credits.copyright)]
    entries = [(tag, text.encode() + b"\0") for tag, text in texts if text]
    if not entries:
        return b""
    directory, values = struct.pack("<H", len(entries)), b""
    start = 8 + 2 + 12 * len(entries) + 4
    for tag, value in entries:
        padded = value if len(value) > 4 else value.ljust(4, b"\0")
        place = struct.pack("<I", start + len(values)) if len(value) > 4 else padded
        directory += struct.pack("<HHI", tag, _ASCII, len(value)) + place
        if len(value) > 4:
            values += value + bytes(len(value) % 2)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + values


def _to_xmp(credits: Credits) -> bytes:
    parts = []
    if credits.artist:
        parts.append(f"<dc:creator><rdf:Seq><rdf:li>{escape(credits.artist)}</rdf:li></rdf:Seq></dc:creator>\n")
    if credits.copyright:
        text = escape(credits.copyright)
        parts.append(f'<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></dc:rights>\n')
    if credits.digital_source_type:
        uri = escape(credits.digital_source_type)
        parts.append(f"<Iptc4xmpExt:DigitalSourceType>{uri}</Iptc4xmpExt:DigitalSourceType>\n")
    return _PACKET.format("".join(parts)).encode()
