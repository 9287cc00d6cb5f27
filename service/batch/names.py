"""Which output files belong to which photo, for good.

A photo keeps its names over interruptions, restarts and photos that come later; of two photos that would give the same
name the second gets `_2`. The names are written down before anything else is, so that a file that exists is known to
be the batch's own or somebody else's.
"""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path, PurePosixPath

from boothsam.runtime.errors import BoothsamError, OutputError
from boothsam.service.batch.lines import LineFile
from boothsam.service.batch.outfolder import OutFolder
from boothsam.service.batch.work import Item, Known, Policy, Work
from boothsam.service.outputs import FORMATS, product_names


class Names:
    """The names given so far. `plan` and `release` may be called from different threads. Raises OSError."""

    def __init__(self, out: OutFolder, known: Mapping[str, Known]) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._file = LineFile(out.names)
        self._owned: dict[str, tuple[str, ...]] = {}
        self._taken: dict[str, set[str]] = {}
        for name, entry in known.items():
            if entry.done:
                self._own(name, entry.outputs)
        for record in self._file.read():
            if record.get("released"):
                self._owned.pop(record["id"], None)
            else:
                self._own(record["id"], tuple(record["outputs"]))

    def close(self) -> None:
        self._file.close()

    def plan(self, items: Iterable[Item], known: Mapping[str, Known], policy: Policy) -> list[Work]:
        """Work for each item, its new names written down. Raises OSError."""
        items = list(items)
        photos = {_real(item.photo) for item in items}
        with self._lock:
            return self._plan(items, photos, known, policy)

    def _plan(self, items: Iterable[Item], photos: Set[str], known: Mapping[str, Known], policy: Policy) -> list[Work]:
        works, claims = [], []
        for item in items:
            outputs, error = self._owned.get(item.id, ()), item.error
            if error is None and not self._fits(item, outputs):
                outputs = self._choose(item)
                error = self._strangers(outputs, photos, policy.redo)
                if error is None:
                    self._own(item.id, outputs)
                    claims.append({"id": item.id, "outputs": list(outputs)})
            works.append(Work(item, outputs, known.get(item.id), policy, error))
        self._file.append(claims)
        return works

    def release(self, ids: Sequence[str]) -> None:
        """The photos of these ids are moved away: the next ones of the same paths are other photos, with names of
        their own. Raises OSError."""
        with self._lock:
            self._file.append([{"id": name, "released": True} for name in ids])
            for name in ids:
                self._owned.pop(name, None)

    def _own(self, id: str, outputs: tuple[str, ...]) -> None:
        self._owned[id] = outputs
        for output in outputs:
            path = PurePosixPath(output)
            self._taken.setdefault(_folded(str(path.parent)), set()).add(_folded(path.name))

    @staticmethod
    def _fits(item: Item, outputs: Sequence[str]) -> bool:
        return len(outputs) == item.products and all(o.endswith(FORMATS[item.look.format]) for o in outputs)

    def _choose(self, item: Item) -> tuple[str, ...]:
        taken = self._taken.get(_folded(str(item.name.parent)), set())
        paths = product_names(
            unicodedata.normalize("NFC", item.name.name),
            item.products,
            Path(item.name.parent),
            FORMATS[item.look.format],
            taken,
        )
        return tuple(path.as_posix() for path in paths)

    def _strangers(self, outputs: Sequence[str], photos: Set[str], force: bool) -> BoothsamError | None:
        for path in (self._out.folder / output for output in outputs):
            if _real(path) in photos:
                return OutputError(
                    f"{path} is one of the photos and would be overwritten", hint="write into another folder: -o cut"
                )
            if not force and os.path.lexists(path):
                return OutputError(
                    f"{path} exists and is not of this batch", hint="--force replaces it; or choose another -o"
                )
        return None


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _real(path: Path) -> str:
    """The path without symbolic links among its folders."""
    return f"{_real_folder(str(path.parent))}/{path.name}"


def _folded(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()
