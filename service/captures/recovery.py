"""After a crash, or with a damaged index: sidecars and files are the truth.

A capture becomes visible in this order: files, sidecar, row. So whatever a crash leaves is one of these:

- files without a sidecar: the capture was never acknowledged; they are removed;
- a sidecar without a row: the capture is whole but was not acknowledged; it is taken in, and a client that sends it
  again with the same idempotency key gets it;
- a row without a sidecar: a deletion was not finished, nor acknowledged; the sidecar is written again.

An index that SQLite finds damaged is put aside and built again from the sidecars. Files that no sidecar names are then
put aside too, not removed: the sidecar that named them may be among the damaged ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import sqlite3
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from boothsam.service.captures.files import Layout, make_folder, publish, sync_folder
from boothsam.service.captures.index import Index
from boothsam.service.captures.records import Capture, DamagedRecord, StoredFile

CLEAN = "closed"
_SIDECAR = re.compile(r"(\d{12,})-([0-9a-f]{32})\.json")
_log = logging.getLogger("boothsam")


@dataclass
class Findings:
    """What was found, and mended unless only a look was asked for. Names are paths inside the store, or ids.

    index: what SQLite's check said of the index, "" when sound. rebuilt: number of captures the new index has, when it
    was built again. adopted: captures without a row. sidecars: captures without their sidecar. orphans: files of no
    capture. bad_sidecars: unreadable ones. lost: captures whose files are missing or, after a deep look, changed.
    """

    index: str = ""
    rebuilt: int | None = None
    adopted: list[str] = field(default_factory=list)
    sidecars: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    bad_sidecars: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing was out of order."""
        return self == Findings()

    def document(self) -> dict[str, Any]:
        """For JSON and logs."""
        return asdict(self)


def is_corrupt(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is damaged, and not that it is full, locked or read-only."""
    return type(error) is sqlite3.DatabaseError  # Python's class for SQLITE_CORRUPT and SQLITE_NOTADB; others derive


def open_index(layout: Layout) -> tuple[Index, Findings]:
    """The index, checked; rebuilt from the sidecars when damaged; reconciled when the last writer did not close it.

    Raises:
        OSError, sqlite3.Error, StoreUnusable: the folder or the disk.
    """
    found = Findings()
    try:
        index = Index.open(layout.index)
        try:
            found.index = index.damage()
        except sqlite3.Error:
            index.close()
            raise
    except sqlite3.Error as error:
        if not is_corrupt(error):
            raise
        found.index = str(error)
    else:
        if not found.index:
            if index.fresh and layout.sidecar_paths():
                found.index = "missing"
                _rebuild(index, layout, found)
            elif index.get(CLEAN) != "1":
                reconcile(index, layout, found)
            _settle(index, layout, found)
            return index, found
        index.close()
    _put_index_aside(layout)
    index = Index.open(layout.index)
    _rebuild(index, layout, found)
    _settle(index, layout, found)
    return index, found


def _settle(index: Index, layout: Layout, found: Findings) -> None:
    sync_folder(layout.folder)
    with index.transaction():
        index.put(CLEAN, "0")
    if not found.sound:
        _log.warning("captures in %s were put in order: %s", layout.folder, found.document())


def _rebuild(index: Index, layout: Layout, found: Findings) -> None:
    _adopt_sidecars(index, layout, found, deep=False, repair=True)
    found.rebuilt, found.adopted = len(found.adopted), []
    _handle_orphans(index, layout, found, repair=True, keep=True)


def reconcile(
    index: Index, layout: Layout, found: Findings | None = None, *, deep: bool = False, repair: bool = True
) -> Findings:
    """Compare rows, sidecars and files, and mend what can be mended.

    deep: read every sidecar and file, and compare the files' sha256 with their names. Otherwise names alone are
    compared, which takes a second for a hundred thousand captures.
    """
    found = Findings() if found is None else found
    _adopt_sidecars(index, layout, found, deep=deep, repair=repair)
    there = {path.name for path in layout.sidecar_paths()}
    for seq, id in sorted(index.identities().items()):
        if f"{seq:012d}-{id}.json" not in there:
            found.sidecars.append(id)
            if repair:
                capture = index.page(1, after=seq - 1)[0]
                publish(capture.encode(), layout.sidecar(capture), layout.incoming)
    _check_files(index, layout, found, deep=deep)
    _handle_orphans(index, layout, found, repair=repair, keep=False)
    return found


def _adopt_sidecars(index: Index, layout: Layout, found: Findings, *, deep: bool, repair: bool) -> None:
    rows = index.identities()
    for path in layout.sidecar_paths():
        named = _SIDECAR.fullmatch(path.name)
        if named and rows.get(int(named[1])) == named[2] and not deep:
            continue
        try:
            capture = Capture.decode(path.read_bytes())
            if layout.sidecar(capture) != path:
                raise DamagedRecord(f"{path} holds the record of another capture, {capture.id}")
        except DamagedRecord as error:
            _refuse(layout, found, path, error.message, repair)
            continue
        if rows.get(capture.seq) == capture.id:
            continue
        if not all(_present(layout, file, deep) for file in capture.files.values()):
            found.lost.append(capture.id)
            continue
        if repair:
            try:
                with index.transaction():
                    index.insert(capture)
            except sqlite3.IntegrityError as error:  # its seq or key is another's: nobody can tell which one is right
                _refuse(layout, found, path, str(error), repair)
                continue
        found.adopted.append(capture.id)


def _refuse(layout: Layout, found: Findings, path: Path, reason: str, repair: bool) -> None:
    _log.warning("%s: %s", path, reason)
    found.bad_sidecars.append(str(path.relative_to(layout.folder)))
    if repair:
        _put_aside(layout, path)


def _check_files(index: Index, layout: Layout, found: Findings, *, deep: bool) -> None:
    there = layout.file_names()
    for id, file in index.all_files():
        if (file.name not in there or (deep and not _present(layout, file, deep))) and id not in found.lost:
            found.lost.append(id)


def _present(layout: Layout, file: StoredFile, deep: bool) -> bool:
    path = layout.path(file)
    try:
        if path.stat().st_size != file.bytes:
            return False
        return not deep or _sha256(path) == file.sha256
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _handle_orphans(index: Index, layout: Layout, found: Findings, *, repair: bool, keep: bool) -> None:
    used = {file.name for _, file in index.all_files()}
    rows = index.identities()
    for path in layout.sidecar_paths():  # those that were not taken in still own what is left of their files
        named = _SIDECAR.fullmatch(path.name)
        if not named or rows.get(int(named[1])) != named[2]:
            with contextlib.suppress(DamagedRecord):
                used |= {file.name for file in Capture.decode(path.read_bytes()).files.values()}
    for name in sorted(layout.file_names() - used):
        found.orphans.append(name)
        if repair and keep:
            _put_aside(layout, layout.files / name)
        elif repair:
            (layout.files / name).unlink()


def _put_aside(layout: Layout, path: Path) -> None:
    make_folder(layout.quarantine)
    path.replace(layout.quarantine / path.name)
    sync_folder(layout.quarantine)


def _put_index_aside(layout: Layout) -> None:
    number = 1
    while (layout.quarantine / f"index-{number}").exists():  # numbered: clocks jump
        number += 1
    target = layout.quarantine / f"index-{number}"
    make_folder(target)
    for suffix in ("", "-wal", "-shm"):
        path = layout.index.with_name(layout.index.name + suffix)
        if path.exists():
            path.replace(target / path.name)
    sync_folder(target)
    sync_folder(layout.folder)
