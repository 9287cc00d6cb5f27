"""CSV and Parquet tables: a photo a row, with its own prompts, name and look.

photo       path, absolute or relative to the table's folder; the one column that must be there
name, sku   what its pictures are called, instead of the photo's name
box         x0,y0,x1,y1 in photo pixels; several, for several products, with ; between
points      x,y; several, to refine one product, with ; between
labels      1 (product) or 0 (background) for each point, with ; or , between; all 1 if left out
background, fill, margin, size, quality, fill_holes, drop_islands, small_area, shadow: as the options of `boothsam crop`

An empty cell leaves the choice to the command line. Parquet may hold lists of numbers where CSV has text. A row that
is wrong makes its own photo fail.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boothsam.runtime.errors import BoothsamError, OptionError, PromptError
from boothsam.service.console import need_extra
from boothsam.service.prompts import Request

SUFFIXES = (".csv", ".tsv", ".parquet")
_PROMPTS = ("box", "points", "labels")
_NAMES = ("name", "sku")
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
_MOST_NAME = 150  # bytes: leaves room for numbers and the ending in a file name of 255
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One row: where it stands, its photo, and what it says about it. request: None leaves it to the command line."""

    where: str
    photo: str
    name: str = ""
    request: Request | None = None
    look: Mapping[str, Any] = field(default_factory=dict)
    error: BoothsamError | None = None


def read_table(path: Path) -> Iterator[Row]:
    """The rows of a .csv, .tsv or .parquet file.

    Raises:
        OptionError: unreadable, without a column `photo`, or a row without a photo. BackendUnavailable: Parquet without
            pyarrow.
    """
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    for number, cells in rows:
        where = f"{path}, row {number}"
        texts = {name: _text(value) for name, value in cells.items()}
        if not texts["photo"]:
            raise OptionError(f"{where} names no photo", hint="fill the column `photo`, or delete the row")
        try:
            yield _row(where, texts)
        except BoothsamError as error:
            yield Row(where, texts["photo"], error=type(error)(f"{where}: {error.message}", hint=error.hint))


def _row(where: str, texts: Mapping[str, str]) -> Row:
    name = next((texts[column] for column in _NAMES if texts.get(column)), "")
    if name and (re.search(r"[/\\\x00-\x1f]", name) or name.startswith(".") or len(name.encode()) > _MOST_NAME):
        raise OptionError(
            f"{name[:80]!r} cannot be a file's name", hint=f"no slash, no leading dot, at most {_MOST_NAME} bytes"
        )
    look = {column: read(column, texts[column]) for column, read in _LOOK.items() if texts.get(column)}
    return Row(where, texts["photo"], name, _request(texts), look)


def _request(texts: Mapping[str, str]) -> Request | None:
    boxes = [part for part in texts.get("box", "").split(";") if part.strip()]
    points = [part.strip() for part in texts.get("points", "").split(";") if part.strip()]
    labels = [part for part in re.split("[;, ]+", texts.get("labels", "")) if part]
    if labels and len(labels) != len(points):
        raise PromptError(f"{len(points)} points but {len(labels)} labels", hint="one label for each point, or none")
    if not boxes and not points:
        return None
    return Request.parse(boxes, [f"{p},{label}" for p, label in zip(points, labels, strict=True)] if labels else points)


def _number(column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"{column} {text[:80]!r} is no number") from None


def _within(low: int, high: int) -> Any:
    def read(column: str, text: str) -> int:
        value = _number(column, text)
        if value != int(value) or not low <= value <= high:
            raise OptionError(f"{column} {text[:80]!r}; expected a whole number, {low} to {high}")
        return int(value)

    return read


def _flag(column: str, text: str) -> bool:
    if text.lower() not in _YES + _NO:
        raise OptionError(f"{column} {text[:80]!r}; expected true or false")
    return text.lower() in _YES


_LOOK: dict[str, Any] = {
    "background": lambda column, text: text,
    "fill": _number,
    "margin": _within(0, 16384),
    "size": _within(1, 16384),
    "quality": _within(1, 100),
    "fill_holes": _flag,
    "drop_islands": _flag,
    "small_area": _within(1, 1 << 31),
    "shadow": lambda column, text: text,
}


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "photo" not in columns:
        raise OptionError(
            f"{path} has no column `photo`; it has {', '.join(columns) or 'none'}",
            hint="name the column with the photos' paths `photo`",
        )
    used = {"photo", *_PROMPTS, *_NAMES, *_LOOK}
    others = [column for column in columns if column not in used]
    if others:
        _log.warning("%s: columns that mean nothing here: %s", path, ", ".join(others))


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            # Spreadsheets of half the world write ; because their , is the decimal sign.
            rows = csv.DictReader(file, delimiter=max("\t;,", key=head.count))
            columns = [column.strip() for column in rows.fieldnames or ()]
            rows.fieldnames = columns
            _check_columns(path, columns)
            for cells in rows:
                if any(value for value in cells.values()):
                    yield rows.line_num, {column: cells[column] for column in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OptionError(f"cannot read the table {path}: {error}", hint="save it as CSV in UTF-8") from None


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with need_extra("batch", "a Parquet table"):
        import pyarrow
        import pyarrow.parquet
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = [str(column) for column in file.schema_arrow.names]
            _check_columns(path, columns)
            number = 0
            for batch in file.iter_batches():
                for cells in batch.to_pylist():
                    number += 1
                    yield number, cells
    except (OSError, pyarrow.ArrowException) as error:
        raise OptionError(f"cannot read the table {path}: {error}", hint="is it a Parquet file?") from None


def _text(value: Any) -> str:
    """A cell as CSV has it: numbers of a list joined by commas, lists of a list by semicolons."""
    if value is None or value != value:
        return ""
    if isinstance(value, list | tuple):
        return (";" if any(isinstance(part, list | tuple) for part in value) else ",").join(map(_text, value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
