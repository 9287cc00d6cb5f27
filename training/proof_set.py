"""Hand-drawn masks of real photos: listings of polygons such as tests/data/proof.json, and the photos they belong to.

A listing is JSON: {"masks": [{"name", "group", "file", "sha256", "source", "polygons", and optionally "category",
"auto", "second"}]}. Polygons are rings of [x, y] in photo pixels, a pixel's centre at whole numbers; rings inside rings
are holes (even-odd). `second` holds the rings of a second, independent drawing of the same thing. The photos are no
part of the project: each is found by its file name and taken only if its sha256 is the listed one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from boothsam.runtime.images import load_image
from boothsam.training.photos import PHOTO_SUFFIXES, Image
from boothsam.training.prompts import Bits


@dataclass(frozen=True)
class Subject:
    """One thing to find.

    image (h, w, 3) uint8 RGB; mask (h, w) bool; source and category: what results are grouped by; auto: whether it is
    the one thing that anybody would cut out of this photo; second: (h, w) bool of an independent drawing, or None.
    """

    name: str
    source: str
    image: Image
    mask: Bits
    category: str = "other"
    auto: bool = False
    second: Bits | None = None


def fill_rings(rings: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> Bits:
    """(height, width) bool mask of polygon rings, even-odd; pixels that the outline crosses belong to it."""
    canvas = np.zeros((height, width), np.uint8)
    # Fixed point with 4 bits behind the point: cv2 takes integers only.
    fixed = [np.round(np.array(ring) * 16).astype(np.int32) for ring in rings]
    cv2.fillPoly(canvas, fixed, 1, cv2.LINE_8, 4)
    return canvas.astype(np.bool_)


def read_listing(listing: Path) -> list[dict[str, Any]]:
    """The entries of a listing. Raises ValueError when it holds none, or when two of them have one name."""
    entries: list[dict[str, Any]] = json.loads(listing.read_text(encoding="utf-8"))["masks"]
    names = [entry["name"] for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not entries or twice:
        found = f"the names {twice} twice" if twice else "no mask"
        raise ValueError(f"{listing} holds {found}; hint: give every mask a name of its own")
    return entries


def find_photos(entries: Iterable[dict[str, Any]], folders: Sequence[Path]) -> dict[str, Path]:
    """sha256 -> file, for every photo of the entries, searched by file name below the folders.

    Raises FileNotFoundError that names all photos that are missing and where the first can be had.
    """
    wanted = {entry["sha256"]: entry for entry in entries}
    names = {Path(entry["file"]).name for entry in wanted.values()}
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES and p.name in names):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest in wanted:
                found.setdefault(digest, path)
    missing = [entry for digest, entry in wanted.items() if digest not in found]
    if missing:
        listed = ", ".join(sorted(entry["file"] for entry in missing))
        first = missing[0]
        raise FileNotFoundError(
            f"{len(missing)} of {len(wanted)} photos are in none of {[str(f) for f in folders]} with the listed "
            f"sha256: {listed}; hint: get {first['file']} ({first['sha256'][:16]}...) from {first['source']} and pass "
            "its folder with --photos"
        )
    return found


def read_subjects(listing: Path, folders: Sequence[Path]) -> list[Subject]:
    """All subjects of a listing with their photos, in the listing's order.

    Raises FileNotFoundError for a photo that is missing or has other content, ValueError for an empty mask.
    """
    entries = read_listing(listing)
    paths = find_photos(entries, folders)
    images: dict[str, Image] = {}
    subjects = []
    for entry in entries:
        image = images.setdefault(entry["sha256"], load_image(paths[entry["sha256"]]))
        height, width = image.shape[:2]
        mask = fill_rings(entry["polygons"], height, width)
        if not mask.any():
            raise ValueError(f"{listing}: the polygons of {entry['name']!r} lie outside the {width}x{height} photo")
        subjects.append(
            Subject(
                entry["name"],
                entry["group"],
                image,
                mask,
                entry.get("category", "other"),
                bool(entry.get("auto", False)),
                fill_rings(entry["second"], height, width) if "second" in entry else None,
            )
        )
    return subjects
