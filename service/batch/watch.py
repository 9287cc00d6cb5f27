"""A drop folder: which of its files are complete, and where they go when they are done.

The folder is looked through again and again, so that network shares work too. A file is complete when its size and
modification time have stayed the same for the settle time and it ends as its format ends. One that has stayed the same
for much longer and still has no end is damaged: it is handed on, so that it fails and is told.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import BinaryIO

from boothsam.runtime.errors import OutputError
from boothsam.service.batch.outfolder import absolute
from boothsam.service.batch.sources import walk
from boothsam.service.captures.files import make_folder, sync_folder
from boothsam.service.console import explain

PATIENCE = 30.0  # seconds that an unchanged file without its end is given, at least; for a camera's slow card
_TAIL = 1 << 16  # what phones hang behind the end of a JPEG (thumbnails, depth maps) is found within this
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
_log = logging.getLogger(__name__)

State = tuple[int, int]  # size in bytes, modification time in ns


def ends_whole(path: Path) -> bool:
    """Whether a JPEG, PNG or WebP file has its end; true for any other, which fails for what it is. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(16)
        size = file.seek(0, os.SEEK_END)
        if head.startswith(b"\xff\xd8\xff"):
            # Before the picture's own data there may be a thumbnail, which has an end mark as well.
            start = _jpeg_data(file)
            return start is not None and b"\xff\xd9" in _from(file, max(start, size - _TAIL))
        if head.startswith(b"\x89PNG"):
            return b"IEND\xaeB`\x82" in _from(file, max(0, size - _TAIL))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return size >= 8 + int.from_bytes(head[4:8], "little")
    return size > 0


def _from(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return file.read()


def _jpeg_data(file: BinaryIO) -> int | None:
    """Where the first scan of a JPEG starts; None if the file ends before, or is none (ITU T.81, B.1.1.4)."""
    place = 2
    while True:
        file.seek(place)
        mark = file.read(4)
        if len(mark) < 4 or mark[0] != 0xFF:
            return None
        if mark[1] == 0xDA:
            return place
        place += 1 if mark[1] == 0xFF else 2 + int.from_bytes(mark[2:], "big")


@dataclass
class _Seen:
    state: State
    since: float
    handed: bool = False


class Watcher:
    """Looks through a folder and hands out its complete files, each state of a file once.

    settle_s: seconds that a file must stay the same. poll_s: seconds between two looks. exclude: folders inside that
    hold no photos of it.
    """

    def __init__(self, folder: Path, settle_s: float, poll_s: float, exclude: Sequence[Path] = ()) -> None:
        self.folder = absolute(folder)
        self._settle, self._poll = settle_s, poll_s
        self._exclude = tuple(absolute(path) for path in exclude)
        self._seen: dict[str, _Seen] = {}
        self._away = False

    def batches(self, stop: threading.Event) -> Iterator[list[Path]]:
        """Files that have become complete, look by look, until `stop` is set. A look that finds none gives an empty
        list."""
        while not stop.is_set():
            yield self.look(monotonic())
            stop.wait(self._poll)

    def look(self, now: float) -> list[Path]:
        """The files that are complete at monotonic time `now` and were not handed out in their present state."""
        states: dict[str, State] = {}
        try:
            for entry in walk(self.folder, self._exclude):
                try:
                    stat = entry.stat()
                except OSError:  # taken away between the two calls
                    continue
                states[entry.path] = (stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            if not self._away:
                _log.warning("cannot look through %s: %s; waiting for it", self.folder, explain(error)[0])
            self._away = True
            return []
        self._away = False
        self._seen = {path: seen for path, seen in self._seen.items() if path in states}
        ready = []
        for path, state in states.items():
            seen = self._seen.get(path)
            if seen is None or seen.state != state:
                self._seen[path] = seen = _Seen(state, now)
            if not seen.handed and self._complete(Path(path), now - seen.since):
                seen.handed = True
                ready.append(Path(path))
        return ready

    def _complete(self, path: Path, unchanged: float) -> bool:
        if unchanged < self._settle:
            return False
        try:
            return ends_whole(path) or unchanged >= max(PATIENCE, 5 * self._settle)
        except OSError:  # still locked by its writer, or gone
            return unchanged >= max(PATIENCE, 5 * self._settle)


def move_away(photo: Path, root: Path, target: Path) -> Path:
    """Move a photo to the same place under `target`, without replacing anything there; returns where it is now.

    The photo is in one of the two places at any time, or in both; over file systems it is copied and synced first.

    Raises:
        OutputError: it could not be moved, and is where it was.
    """
    wanted = target / (photo.relative_to(root) if root in photo.parents else photo.name)
    try:
        make_folder(wanted.parent)
        number, place = 1, wanted
        while not _put(photo, place):
            number += 1
            place = wanted.with_name(f"{wanted.stem}_{number}{wanted.suffix}")
        sync_folder(place.parent)
        photo.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot move {photo} to {wanted}: {(error.strerror or str(error)).lower()}",
            hint=f"look at the folder {target}; the photo's pictures are written",
        ) from error
    return place


def _put(photo: Path, place: Path) -> bool:
    """Make the photo appear at `place` as well; False if something is there. Raises OSError."""
    try:
        os.link(photo, place)  # refuses to replace anything; a rename does not
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    if place.exists():
        return False
    partial = place.with_name(f".{place.name[:100]}.{os.getpid()}.part")
    try:
        shutil.copy2(photo, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
    return True
