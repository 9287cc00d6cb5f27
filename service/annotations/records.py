"""What is known about one photo's annotations, on disk and in JSON, and what can go wrong with annotations."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from boothsam.runtime.errors import BoothsamError
from boothsam.runtime.masks import CocoRle

FORMAT = 1
MAX_NAME = 64
MAX_CATEGORIES = 500
MAX_OBJECTS = 200  # on one photo
SAVED = ("started", "done", "skipped")
Status = Literal["started", "done", "skipped"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class AnnotationError(BoothsamError):
    """Base of what can go wrong with annotations."""


class NoSuchPhoto(AnnotationError):
    """No photo of this key in the folder, or not any more."""


class PhotoChanged(AnnotationError):
    """The photo is not the one that the masks were made on."""


class PhotoTooLarge(AnnotationError):
    """The photo's file is larger than an upload may be."""


class CategoryInUse(AnnotationError):
    """Objects are of this category, so that it cannot go."""


class WrongAnnotation(AnnotationError, ValueError):
    """Objects or categories that make no sense."""


class StoreUnusable(AnnotationError):
    """The folder cannot be opened: no permission, or another process writes to it."""


class StorageFailed(AnnotationError):
    """The disk refused to write; what was stored before is unchanged."""


class DiskLow(AnnotationError):
    """Not enough free space; nothing was written."""


class DamagedRecord(AnnotationError, ValueError):
    """A record that is not one."""


@dataclass(frozen=True)
class Category:
    """A kind of product. id: 1 and up, never used again for another one; name: 1 to `MAX_NAME` characters."""

    id: int
    name: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"id": self.id, "name": self.name}


DEFAULT_CATEGORIES = (Category(1, "product"),)


@dataclass(frozen=True)
class MaskObject:
    """One accepted mask.

    id: 1 and up, unique on its photo. file: the PNG's path under masks/, with forward slashes; sha256: of its bytes.
    bbox: COCO's x, y, width, height in pixels. area: pixels. score: the model's own estimate of the mask's IoU, if it
    was told. segmentation: the mask's compressed run lengths, of the photo's upright size.
    """

    id: int
    category_id: int
    file: str
    sha256: str
    bbox: tuple[int, int, int, int]
    area: int
    score: float | None
    segmentation: CocoRle

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.__dict__, "bbox": list(self.bbox), "segmentation": dict(self.segmentation)}

    @classmethod
    def parse(cls, body: Any) -> MaskObject:
        """Raises KeyError, TypeError, ValueError for anything else."""
        x, y, width, height = (int(value) for value in body["bbox"])
        rows, columns = (int(value) for value in body["segmentation"]["size"])
        score = body["score"]
        return cls(
            int(body["id"]),
            int(body["category_id"]),
            str(body["file"]),
            _digest(body["sha256"]),
            (x, y, width, height),
            int(body["area"]),
            None if score is None else float(score),
            {"size": [rows, columns], "counts": str(body["segmentation"]["counts"])},
        )


@dataclass(frozen=True)
class PhotoRecord:
    """One photo's annotations.

    name: the photo's path in its folder, with forward slashes. sha256, nbytes, mtime_ns: of the file they were made on.
    size_hw: height and width as displayed, after its EXIF orientation; None for a skipped photo that was never opened.
    last_id: the highest id that an object of this photo ever had. saved_at: UTC, ISO 8601.
    """

    name: str
    sha256: str
    nbytes: int
    mtime_ns: int
    size_hw: tuple[int, int] | None
    status: Status
    objects: tuple[MaskObject, ...]
    last_id: int
    saved_at: str

    def encode(self) -> bytes:
        """The record's file."""
        body = {"format": FORMAT, **self.__dict__, "objects": [found.document() for found in self.objects]}
        return json.dumps(body, indent=1).encode()

    @classmethod
    def decode(cls, data: bytes) -> PhotoRecord:
        """Raises DamagedRecord for a file that is no record, or of another format."""
        try:
            body = json.loads(data)
            if body["format"] != FORMAT:
                raise DamagedRecord(f"a record of format {body['format']!r}; expected {FORMAT}")
            if body["status"] not in SAVED:
                raise ValueError(f"status {body['status']!r}")
            size = body["size_hw"]
            return cls(
                str(body["name"]),
                _digest(body["sha256"]),
                int(body["nbytes"]),
                int(body["mtime_ns"]),
                None if size is None else (int(size[0]), int(size[1])),
                body["status"],
                tuple(MaskObject.parse(found) for found in body["objects"]),
                int(body["last_id"]),
                str(body["saved_at"]),
            )
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            if isinstance(error, DamagedRecord):
                raise
            raise DamagedRecord(f"no annotation record: {type(error).__name__}: {error}") from error


def _digest(text: Any) -> str:
    if not isinstance(text, str) or not _SHA256.fullmatch(text):
        raise ValueError(f"{text!r} is no sha256")
    return text


def encode_categories(categories: Sequence[Category], last_id: int) -> bytes:
    """The file of categories. last_id: the highest id ever given."""
    return json.dumps({"format": FORMAT, "last_id": last_id, "categories": [c.document() for c in categories]}).encode()


def decode_categories(data: bytes) -> tuple[tuple[Category, ...], int]:
    """Categories and the highest id ever given. Raises DamagedRecord."""
    try:
        body = json.loads(data)
        categories = tuple(Category(int(c["id"]), check_name(c["name"])) for c in body["categories"])
        if not categories or len({c.id for c in categories}) < len(categories):
            raise ValueError("none, or one id twice")
        return categories, int(body["last_id"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedRecord(f"no list of categories: {type(error).__name__}: {error}") from error


def check_name(name: Any) -> str:
    """A category's name, without spaces around it. Raises WrongAnnotation."""
    text = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(text) <= MAX_NAME or _CONTROL.search(text) or any("\ud800" <= c <= "\udfff" for c in text):
        raise WrongAnnotation(
            f"{str(name)[:80]!r} is no category name; expected 1 to {MAX_NAME} printable characters",
            hint="name it like the product: mug",
        )
    return text


def changed_categories(
    old: Sequence[Category], last_id: int, wanted: Sequence[tuple[int | None, str]], used: set[int]
) -> tuple[tuple[Category, ...], int]:
    """The wanted categories in their order, and the highest id ever given.

    wanted: (id, name): an id keeps or renames that category, None makes a new one, or keeps the one of that name.
    used: ids that objects have.

    Raises:
        WrongAnnotation: none, too many, an unknown id, two of one name or id. CategoryInUse: one of `used` is missing.
    """
    known, by_name = {c.id for c in old}, {c.name: c.id for c in old}
    made: list[Category] = []
    if not 1 <= len(wanted) <= MAX_CATEGORIES:
        raise WrongAnnotation(f"{len(wanted)} categories; expected 1 to {MAX_CATEGORIES}", hint="name at least one")
    named = {number for number, _ in wanted}
    for number, text in wanted:
        name = check_name(text)
        if number is None and by_name.get(name) not in named:
            number = by_name.get(name)
        if number is None:
            last_id += 1
            number = last_id
        elif number not in known:
            raise WrongAnnotation(
                f"no category {number}; known are {sorted(known)}", hint="leave the id out to add one"
            )
        if any(c.name == name or c.id == number for c in made):
            raise WrongAnnotation(f"the category {name!r} or its id {number} is listed twice", hint="list it once")
        made.append(Category(number, name))
    gone = used - {c.id for c in made}
    if gone:
        names = ", ".join(sorted(c.name for c in old if c.id in gone))
        raise CategoryInUse(f"objects are of the category {names}", hint="give them another category first, or keep it")
    return tuple(made), last_id


def with_status(record: PhotoRecord, status: Status, saved_at: str) -> PhotoRecord:
    """The record with another status."""
    return replace(record, status=status, saved_at=saved_at)
