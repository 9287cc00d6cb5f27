"""names.csv: a row a photo, saying which product it shows.

file      path in the folder of photos, or a file name (with or without its ending) that occurs once in it
sku       the shop's own number            gtin    8, 12, 13 or 14 digits with their check digit
angle     front, left, right, back, top, bottom, detail, or a frame of a turntable such as 3/24 (0/24 is the front)
n         the picture's place among its product's: 1, 2, ...

`file` and one of `sku` and `gtin` must be there. Comma, semicolon or tab; UTF-8.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from boothsam.runtime.errors import OptionError
from boothsam.service.presets.schema import nearest

COLUMNS = ("file", "sku", "gtin", "angle", "n")


@dataclass(frozen=True)
class Row:
    """One row. where: for messages. n: None where the order decides."""

    where: str
    file: str
    sku: str = ""
    gtin: str = ""
    angle: str = ""
    n: int | None = None


@dataclass(frozen=True)
class Matched:
    """The rows of each photo's path in the folder, and those for which there is no photo."""

    rows: Mapping[PurePosixPath, Row] = field(default_factory=dict)
    missing: tuple[Row, ...] = ()


def read_names(path: Path) -> list[Row]:
    """The table's rows.

    Raises:
        OptionError: unreadable, an unknown or missing column, or a row without file, without sku and gtin, or with a
            number that is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OptionError(f"cannot read the names {path}: {reason.lower()}", hint="save them as CSV in UTF-8") from None
    head = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max("\t;,", key=head.count))
    columns = [column.strip().lower() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    _check_columns(path, columns)
    try:
        return [_row(f"{path}, line {reader.line_num}", cells) for cells in reader if any(cells.values())]
    except csv.Error as error:
        raise OptionError(f"cannot read the names {path}: {error}", hint="save them as CSV in UTF-8") from None


def _check_columns(path: Path, columns: list[str]) -> None:
    for column in columns:
        if column not in COLUMNS:
            near = nearest(column, COLUMNS)
            meant = f"did you mean `{near}`?" if near else f"known are {', '.join(COLUMNS)}"
            raise OptionError(f"{path} has the unknown column `{column}`; {meant}", hint="rename or delete the column")
        if columns.count(column) > 1:
            raise OptionError(f"{path} has the column `{column}` twice", hint="delete one of them")
    if "file" not in columns or not {"sku", "gtin"} & set(columns):
        found = ", ".join(columns) or "nothing"
        raise OptionError(
            f"{path} has the columns {found}; expected `file`, and `sku` or `gtin`", hint="file,sku,gtin,angle,n"
        )


def _row(where: str, cells: Mapping[str | None, str | list[str] | None]) -> Row:
    if None in cells:
        raise OptionError(f"{where} has more cells than there are columns", hint="put texts with commas into quotes")
    texts = {name: str(cells.get(name) or "").strip() for name in COLUMNS}
    if not texts["file"]:
        raise OptionError(f"{where} names no file", hint="fill the column `file`, or delete the row")
    if not texts["sku"] and not texts["gtin"]:
        raise OptionError(f"{where} ({texts['file']}) has neither sku nor gtin", hint="fill one of them")
    n: int | None = None
    if texts["n"]:
        if not (texts["n"].isascii() and texts["n"].isdigit()) or not 1 <= int(texts["n"]) <= 9999:
            raise OptionError(f"{where}: n is {texts['n'][:40]!r}; expected 1 to 9999", hint="leave it empty")
        n = int(texts["n"])
    return Row(where, texts["file"], texts["sku"], texts["gtin"], texts["angle"], n)


def match(rows: Iterable[Row], photos: Iterable[PurePosixPath]) -> Matched:
    """Rows to photos. photos: paths in the folder, with their endings.

    Raises:
        OptionError: a row whose file could be several photos, or two rows for one photo.
    """
    known: dict[str, list[PurePosixPath]] = {}
    for photo in photos:
        for name in {str(photo), str(photo.with_suffix("")), photo.name, photo.stem}:
            known.setdefault(_folded(name), []).append(photo)
    found: dict[PurePosixPath, Row] = {}
    missing = []
    for row in rows:
        wanted = PurePosixPath(row.file.replace("\\", "/").removeprefix("./"))
        candidates = known.get(_folded(str(wanted)), [])
        exact = [photo for photo in candidates if photo == wanted] or candidates
        if not exact:
            missing.append(row)
            continue
        if len(exact) > 1:
            places = ", ".join(str(photo) for photo in exact[:3])
            raise OptionError(f"{row.where}: {row.file!r} could be {places}", hint="write the path in the folder")
        if exact[0] in found:
            raise OptionError(
                f"{row.where} and {found[exact[0]].where} are both about {exact[0]}", hint="delete one of them"
            )
        found[exact[0]] = row
    return Matched(found, tuple(missing))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
