"""Captures for other programs: the files as they are, a CSV table, or a COCO dataset; into a zip or a folder.

A COCO dataset (cocodataset.org, "Data format") holds the photos, one annotation for each capture with a mask, and as
categories the products: `gtin` or `sku`, else "product". Masks are in the upright frame; a photo that only its EXIF
orientation turns upright is therefore written upright, as PNG, since not every trainer reads EXIF.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boothsam.runtime.errors import ImageError, OptionError
from boothsam.service.captures.reader import Reader
from boothsam.service.captures.records import ROLES, Capture

FORMATS = ("zip", "csv", "coco")
COLUMNS = (
    "seq", "id", "received_at", "sku", "gtin", "angle", "width", "height", "prompts", "model", "precision", "backend",
    "predicted_iou", "box_x0", "box_y0", "box_x1", "box_y1", *ROLES, "original_sha256",
)  # fmt: skip
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of an export: its name with forward slashes, and its bytes or the file that has them."""

    name: str
    source: bytes | Path

    def blocks(self) -> Iterator[bytes]:
        """The content, a MiB at a time. Raises FileNotFoundError for a capture that was deleted since it was listed."""
        if isinstance(self.source, bytes):
            yield self.source
            return
        with self.source.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


def stem(capture: Capture) -> str:
    """The name of a capture's files in exports, without ending; sorts as they were taken."""
    return f"{capture.seq:09d}-{capture.id[:8]}"


def members(store: Reader, captures: Iterable[Capture], format: str) -> Iterator[Member]:
    """The files of an export.

    Raises:
        OptionError: a format not in `FORMATS`.
    """
    if format not in FORMATS:
        raise OptionError(f"unknown export format {format!r}", hint=f"use one of {', '.join(FORMATS)}")
    kinds: dict[str, Callable[[Reader, Iterable[Capture]], Iterator[Member]]] = {"zip": _plain, "coco": _coco}
    if format == "csv":
        return iter([Member("captures.csv", b"".join(csv_blocks(captures)))])
    return kinds[format](store, captures)


def _plain(store: Reader, captures: Iterable[Capture]) -> Iterator[Member]:
    kept = []
    for capture in captures:
        if not all(store.path(capture, role).is_file() for role in capture.files):
            continue  # deleted since it was listed
        kept.append(capture)
        for role, file in capture.files.items():
            yield Member(f"{role}/{stem(capture)}{file.suffix}", store.path(capture, role))
        yield Member(f"records/{stem(capture)}.json", capture.encode())
    yield Member("captures.csv", b"".join(csv_blocks(kept)))


def csv_blocks(captures: Iterable[Capture]) -> Iterator[bytes]:
    """A CSV table (RFC 4180, UTF-8) with `COLUMNS`, a block for each row; file names are those of the zip export."""
    yield _csv_row(COLUMNS)
    for capture in captures:
        facts = capture.facts
        height, width = facts.get("size_hw") or ("", "")
        files = [
            f"{role}/{stem(capture)}{capture.files[role].suffix}" if role in capture.files else "" for role in ROLES
        ]
        prompts = json.dumps(facts["prompts"]) if facts.get("prompts") else ""
        yield _csv_row(
            [
                capture.seq,
                capture.id,
                capture.received_at,
                *(facts.get(name) for name in ("sku", "gtin", "angle")),
                width,
                height,
                prompts,
                *(facts.get(name) for name in ("model", "precision", "backend", "predicted_iou")),
                *(facts.get("product_xyxy") or [""] * 4),
                *files,
                capture.files["original"].sha256,
            ]
        )


def _csv_row(values: Iterable[Any]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow([spreadsheet_cell(value) for value in values])
    return out.getvalue().encode()


def spreadsheet_cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value


def _coco(store: Reader, captures: Iterable[Capture]) -> Iterator[Member]:
    from boothsam.runtime.images import encode_image, load_image, probe
    from boothsam.runtime.masks import mask_to_box, mask_to_rle

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for capture in captures:
        path = store.path(capture, "original")
        try:
            info = probe(path)
            name = f"images/{stem(capture)}{path.suffix if info.orientation == 1 else '.png'}"
            source = path.read_bytes() if info.orientation == 1 else encode_image(load_image(path), "png")
            mask = load_image(store.path(capture, "mask"))[..., 0] >= 128 if "mask" in capture.files else None
        except (ImageError, FileNotFoundError):
            if all(store.path(capture, role).is_file() for role in capture.files):
                raise
            continue  # deleted since it was listed
        yield Member(name, source)
        height, width = info.size_hw
        record = {"id": capture.seq, "file_name": name.partition("/")[2], "width": width, "height": height}
        images.append(record | {"date_captured": capture.received_at})
        if mask is None or not mask.any():
            continue
        x0, y0, x1, y1 = mask_to_box(mask)
        product = str(capture.facts.get("gtin") or capture.facts.get("sku") or "product")
        annotations.append(
            {
                "id": capture.seq,
                "image_id": capture.seq,
                "category_id": categories.setdefault(product, len(categories) + 1),
                "segmentation": mask_to_rle(mask),
                "area": int(mask.sum()),
                "bbox": [x0, y0, x1 + 1 - x0, y1 + 1 - y0],
                "iscrowd": 0,
            }
        )
    names = [{"id": number, "name": name, "supercategory": "product"} for name, number in categories.items()]
    dataset = {
        "info": {"description": "boothsam captures", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": names,
    }
    yield Member("annotations.json", json.dumps(dataset).encode())


class _Pipe(io.RawIOBase):
    """What zipfile writes to, emptied after each block; not seekable, so that sizes follow the data."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def zip_blocks(found: Iterable[Member]) -> Iterator[bytes]:
    """A zip archive, block by block; neither memory nor disk ever holds all of it. Photos are stored as they are."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for member in found:
            entry = zipfile.ZipInfo(member.name)
            entry.external_attr = 0o644 << 16
            if isinstance(member.source, bytes) and not member.name.startswith("images/"):
                entry.compress_type = zipfile.ZIP_DEFLATED
            blocks = member.blocks()
            try:
                block = next(blocks, b"")
            except FileNotFoundError:
                continue  # deleted since it was listed
            with archive.open(entry, "w", force_zip64=True) as file:
                while block:
                    file.write(block)
                    yield pipe.take()
                    block = next(blocks, b"")
            yield pipe.take()
    yield pipe.take()


def write_folder(found: Iterable[Member], folder: Path) -> int:
    """Write an export's files below a folder, which is created; returns their number.

    Raises:
        OutputError: a file cannot be written.
    """
    from boothsam.runtime.images import write_atomic
    from boothsam.service.outputs import make_parent

    count = 0
    for member in found:
        try:
            data = b"".join(member.blocks())
        except FileNotFoundError:
            continue  # deleted since it was listed
        target = folder / member.name
        make_parent(target)
        write_atomic(target, data)
        count += 1
    return count
