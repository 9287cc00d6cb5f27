"""Which photos a batch is about: folders, globs, single photos, tables."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from boothsam.runtime.errors import OptionError
from boothsam.service.batch.outfolder import absolute
from boothsam.service.batch.tables import SUFFIXES as TABLES
from boothsam.service.batch.tables import Row, read_table
from boothsam.service.batch.work import Item
from boothsam.service.cropping import Look
from boothsam.service.prompts import Request

# What a camera or a designer calls a picture. Those that boothsam cannot read are taken as well: they fail and say so.
PHOTOS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff", ".bmp", ".gif"]
    + [".dng", ".cr2", ".cr3", ".nef", ".arw"]
)
_UNFINISHED = frozenset([".part", ".tmp", ".crdownload", ".partial", ".download", ".filepart"])


@dataclass(frozen=True)
class Defaults:
    """The command line's prompts and look, for every photo that no table says more about."""

    request: Request
    look: Look


def is_photo(name: str) -> bool:
    """Whether a file of this name is one of a folder's photos: not hidden, not unfinished, ending like a picture."""
    suffix = PurePosixPath(name).suffix.lower()
    return not name.startswith(".") and suffix not in _UNFINISHED and suffix in PHOTOS


def walk(folder: Path, exclude: Sequence[Path] = ()) -> Iterator[os.DirEntry[str]]:
    """The photos of a folder and its subfolders, sorted, without hidden ones and those under `exclude`.

    Folders behind symbolic links are not entered: they can form circles. Raises OSError.
    """
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith(".") and Path(entry.path) not in exclude:
                yield from walk(Path(entry.path), exclude)
        elif is_photo(entry.name) and entry.is_file():
            yield entry


def find_items(sources: Sequence[str], out: Path, defaults: Defaults) -> list[Item]:
    """Every photo of the sources once, in the order of the sources.

    out: the output folder, whose contents are never photos.

    Raises:
        OptionError: a source that does not exist, holds no photo or is the output folder; a table that is none.
    """
    out = absolute(out)
    found: list[tuple[Path, PurePosixPath, Row | None]] = []
    for source in sources:
        photos = list(_expand(source, out))
        if not photos:
            raise OptionError(f"no photo in {source}", hint=f"photos end in {', '.join(sorted(PHOTOS)[:6])} ...")
        found += photos
    items: list[Item] = []
    seen: dict[str, int] = {}
    only = len(found) == 1
    for photo, name, row in found:
        id = str(photo) + (f"#{row.name}" if row is not None and row.name else "")
        seen[id] = seen.get(id, 0) + 1
        if seen[id] > 1:
            if row is None:
                continue
            id = f"{id}#{seen[id]}"
        items.append(make_item(id, photo, name, defaults, row, only=only))
    return items


def make_item(
    id: str, photo: Path, name: PurePosixPath, defaults: Defaults, row: Row | None = None, *, only: bool = False
) -> Item:
    """An item with the defaults, overruled by its table's row."""
    if row is None:
        return Item.make(id, photo, name, defaults.request, defaults.look, only=only)
    item = Item.make(id, photo, name, row.request or defaults.request, defaults.look, only=only)
    if row.error is not None:
        return replace(item, error=row.error)
    try:
        return replace(item, look=replace(defaults.look, **row.look))
    except OptionError as error:
        return replace(item, error=OptionError(f"{row.where}: {error.message}", hint=error.hint))


def _expand(source: str, out: Path) -> Iterator[tuple[Path, PurePosixPath, Row | None]]:
    path = absolute(source)
    if path.is_dir():
        check_apart(path, out)
        for entry in walk(path, (out,)):
            photo = Path(entry.path)
            yield photo, _stem(photo, path), None
    elif path.suffix.lower() in TABLES and not glob.has_magic(source):
        root = path.parent
        for row in read_table(path):
            photo = absolute(root / row.photo)
            stem = _stem(photo, root)
            yield photo, stem.with_name(row.name) if row.name else stem, row
    elif path.is_file():
        yield path, PurePosixPath(path.stem), None
    elif glob.has_magic(source):
        root = path
        while glob.has_magic(str(root)):
            root = root.parent
        check_apart(root, out)
        for photo in sorted(root.glob(str(path.relative_to(root)))):
            hidden = any(part.startswith(".") for part in photo.relative_to(root).parts)
            if not hidden and is_photo(photo.name) and photo.is_file() and out not in photo.parents:
                yield photo, _stem(photo, root), None
    else:
        raise OptionError(f"no such photo, folder or table: {source}", hint="check the path; put a glob into quotes")


def check_apart(root: Path, out: Path) -> None:
    """Raises OptionError where pictures would land among the photos."""
    real_root, real_out = Path(os.path.realpath(root)), Path(os.path.realpath(out))
    if real_root == real_out or real_out in real_root.parents:
        raise OptionError(
            f"the photos of {root} lie in the output folder {out}: pictures would be taken for photos",
            hint=f"-o {root.parent / (root.name + '-cut')}",
        )


def _stem(photo: Path, root: Path) -> PurePosixPath:
    inside = photo.relative_to(root) if root in photo.parents else Path(photo.name)
    return PurePosixPath(inside.with_suffix(""))
