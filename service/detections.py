"""Boxes from a detector: what drives the model when nobody points at the product.

    COCO results    [{"bbox": [x, y, width, height], "score": 0.9, "category_id": 3, "file_name": "mug.jpg"}, ...]
    COCO data set   {"images": [{"id": 7, "file_name": "mug.jpg"}, ...], "annotations": [{"image_id": 7, "bbox": ...}]}
    plain list      [[x0, y0, x1, y1], ...]
    YOLO labels     one object a line: class centre_x centre_y width height [confidence], shares of the sides;
                    a .txt file for one photo, or a folder with <stem>.txt for each

Pixels are those of the photo after its EXIF rotation. A record belongs to the photo of its `file_name`, else to the
one whose stem is its `image_id`; a record with neither, and every record when there is one photo and one image,
belongs to the photo.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boothsam.runtime.errors import NothingFound, PromptError

if TYPE_CHECKING:
    from boothsam.runtime.transforms import Size

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """One box of a detector.

    box: x0, y0, x1, y1 in photo pixels, or in shares of the photo's sides when `relative`.
    where: file and line or record, for messages. photo: file name or image id it belongs to, if it says so.
    """

    box: Box
    where: str
    relative: bool = False
    score: float | None = None
    category: str | int | None = None
    photo: str | int | None = None

    def box_xyxy(self, size_hw: Size) -> Box:
        """Photo pixels."""
        if not self.relative:
            return self.box
        height, width = size_hw
        x0, y0, x1, y1 = self.box
        return x0 * width, y0 * height, x1 * width, y1 * height


class Detections:
    """All boxes of one file or folder, checked when read."""

    def __init__(self, source: Path, records: Sequence[Detection] | Mapping[str, Sequence[Detection]]) -> None:
        self.source = source
        self._by_stem = records if isinstance(records, Mapping) else None
        self._records = () if isinstance(records, Mapping) else tuple(records)

    def of(self, photo: Path, *, only: bool) -> list[Detection]:
        """The photo's boxes. only: it is the only photo of the command.

        Raises:
            NothingFound: there is none. PromptError: a record that could belong to any of several photos.
        """
        if self._by_stem is not None:
            found = list(self._by_stem.get(photo.stem, ()))
        else:
            named = [r for r in self._records if r.photo is not None and _names(r.photo, photo)]
            loose = [r for r in self._records if r.photo is None]
            if loose and not only:
                raise PromptError(
                    f"{loose[0].where} does not say to which of the photos it belongs",
                    hint='add "file_name" to each record, or give one photo at a time',
                )
            found = named + loose
            if only and not found and len({r.photo for r in self._records}) == 1:
                found = list(self._records)
        if not found:
            raise NothingFound(
                f"{self.source} holds no box for {photo.name}", hint="look at the file names, image ids and --min-score"
            )
        return found


def read_detections(source: Path, min_score: float = 0.0) -> Detections:
    """Read and check a detector's file or folder; records scored below `min_score` are left out.

    Raises:
        PromptError: unreadable, another format, or a malformed record, named by its line or number.
    """
    if source.is_dir():
        labels = {path.stem: _kept(_read_yolo(path), min_score) for path in sorted(source.glob("*.txt"))}
        if not labels:
            raise PromptError(
                f"{source} holds no .txt file", hint="--boxes takes a JSON file, a YOLO .txt file or a folder of those"
            )
        return Detections(source, labels)
    if source.suffix.lower() == ".txt":
        return Detections(source, _kept(_read_yolo(source), min_score))
    try:
        body = json.loads(_text(source))
    except (json.JSONDecodeError, RecursionError) as error:
        raise PromptError(f"{source} is no JSON: {error}", hint="YOLO labels need the ending .txt") from None
    return Detections(source, _kept(_read_json(source, body), min_score))


def _kept(records: list[Detection], min_score: float) -> list[Detection]:
    return [r for r in records if r.score is None or r.score >= min_score]


def _names(name: str | int, photo: Path) -> bool:
    if isinstance(name, int):
        return photo.stem.isdecimal() and int(photo.stem) == name
    return Path(name).name == photo.name or name == photo.stem


def _text(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8")
    except OSError as error:
        raise PromptError(f"cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PromptError(
            f"{source} is no text file", hint="--boxes takes a JSON file, a YOLO .txt file or a folder of those"
        ) from None


def _numbers(value: Any, where: str, expected: str) -> list[float]:
    if (
        not isinstance(value, list)
        or len(value) != 4
        or any(isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in value)
    ):
        raise PromptError(f"{where}: expected {expected}, found {json.dumps(value)[:80]}")
    return [float(v) for v in value]


def _read_json(source: Path, body: Any) -> list[Detection]:
    names: dict[Any, str] = {}
    what = "record"
    if isinstance(body, dict) and isinstance(body.get("annotations"), list):
        images = body["images"] if isinstance(body.get("images"), list) else []
        known = [i for i in images if isinstance(i, dict) and isinstance(i.get("id"), str | int) and "file_name" in i]
        names = {image["id"]: str(image["file_name"]) for image in known}
        body, what = body["annotations"], "annotation"
    if not isinstance(body, list):
        raise PromptError(
            f"{source} holds {type(body).__name__}; expected a list of detections",
            hint='[{"bbox": [x, y, width, height], "file_name": "mug.jpg"}, ...] or [[x0, y0, x1, y1], ...]',
        )
    if not body:
        raise PromptError(f"{source} lists no detection")
    return [_read_record(entry, f"{source}, {what} {number}", names) for number, entry in enumerate(body, 1)]


def _read_record(entry: Any, where: str, names: Mapping[Any, str]) -> Detection:
    if isinstance(entry, list):
        x0, y0, x1, y1 = _numbers(entry, where, "[x0, y0, x1, y1]")
        if x1 <= x0 or y1 <= y0:
            raise PromptError(
                f"{where}: the box {entry} is empty or reversed; expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1",
                hint='boxes with width and height belong into COCO records: {"bbox": [x, y, width, height]}',
            )
        return Detection((x0, y0, x1, y1), where)
    if not isinstance(entry, dict) or "bbox" not in entry:
        raise PromptError(f'{where}: expected {{"bbox": [x, y, width, height], ...}}, found {json.dumps(entry)[:80]}')
    x, y, width, height = _numbers(entry["bbox"], where, '"bbox": [x, y, width, height]')
    if width <= 0 or height <= 0:
        raise PromptError(
            f"{where}: the box {entry['bbox']} has width {width:g} and height {height:g}; both must be above 0"
        )
    score = entry.get("score")
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)
    ):
        raise PromptError(f'{where}: "score" must be a number, found {json.dumps(score)[:80]}')
    category = next(
        (entry[k] for k in ("category", "category_name", "category_id") if isinstance(entry.get(k), str | int)), None
    )
    image_id = entry.get("image_id")
    photo = entry.get("file_name", names.get(image_id, image_id) if isinstance(image_id, str | int) else None)
    if photo is not None and not isinstance(photo, str | int):
        raise PromptError(f'{where}: "file_name" must be text, found {json.dumps(photo)[:80]}')
    return Detection(
        (x, y, x + width, y + height), where, False, None if score is None else float(score), category, photo
    )


def _read_yolo(source: Path) -> list[Detection]:
    records = []
    for number, line in enumerate(_text(source).splitlines(), 1):
        where = f"{source}, line {number}"
        words = line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) not in (5, 6) or not all(map(math.isfinite, values)):
            hint = "this looks like a segmentation label; give boxes" if len(values) > 6 else None
            raise PromptError(
                f"{where}: expected `class centre_x centre_y width height [confidence]`, found `{line.strip()[:80]}`",
                hint=hint,
            )
        kind, x, y, width, height = values[:5]
        if not (0 <= x <= 1 and 0 <= y <= 1 and 0 < width <= 1 and 0 < height <= 1):
            raise PromptError(
                f"{where}: centre {x:g} {y:g} and size {width:g} {height:g} are not shares of the photo, 0 to 1",
                hint="pixel boxes belong into a JSON file: [[x0, y0, x1, y1], ...]",
            )
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        score = values[5] if len(values) == 6 else None
        records.append(Detection(box, where, True, score, int(kind)))
    return records
