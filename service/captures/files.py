"""Where a store's things lie, and writing that survives a crash or a power cut.

index.sqlite3             the index (and its -wal, -shm)
files/ab/<sha256>.jpg     photos, masks, cut-outs, named by their content; captures may share them
sidecars/000000012/000000012345-<id>.json   each capture's record, from which the index can be rebuilt
incoming/                 files that are being written; emptied at every start
quarantine/               damaged indexes and sidecars, kept for people to look at
reserve                   bytes given up when the disk is full, so that the index can still be written
sequence                  the number up to which sequence numbers may have been used
lock                      held by the process that writes
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from boothsam.service.captures.records import Capture, StoredFile, StoreUnusable

FULL = (errno.ENOSPC, errno.EDQUOT)
_PER_FOLDER = 1000


@dataclass(frozen=True)
class Layout:
    """The paths of one store."""

    folder: Path

    @property
    def index(self) -> Path:
        return self.folder / "index.sqlite3"

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def sidecars(self) -> Path:
        return self.folder / "sidecars"

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    @property
    def quarantine(self) -> Path:
        return self.folder / "quarantine"

    @property
    def reserve(self) -> Path:
        return self.folder / "reserve"

    @property
    def sequence(self) -> Path:
        return self.folder / "sequence"

    def path(self, file: StoredFile) -> Path:
        """Where a file's bytes lie."""
        return self.files / file.name

    def sidecar(self, capture: Capture) -> Path:
        """Where a capture's record lies."""
        return self.sidecars / f"{capture.seq // _PER_FOLDER:09d}" / f"{capture.seq:012d}-{capture.id}.json"

    def file_names(self) -> set[str]:
        """The name of every stored file, as the folders have it; none is opened."""
        return {f"{folder.name}/{path.name}" for folder in self.files.iterdir() for path in folder.iterdir()}

    def sidecar_paths(self) -> list[Path]:
        """Every sidecar, oldest capture first; none is opened."""
        return sorted(path for folder in self.sidecars.iterdir() for path in folder.iterdir())

    def create(self) -> None:
        """Make the folders.

        Raises:
            StoreUnusable: not writable.
        """
        try:
            make_folder(self.folder)
            for folder in (self.files, self.sidecars, self.incoming):
                make_folder(folder)
        except OSError as error:
            raise unusable(self.folder, error) from error

    def clear_incoming(self) -> None:
        """Remove what a crash left there; for whoever holds the lock. Raises StoreUnusable."""
        try:
            for path in self.incoming.iterdir():
                path.unlink()
        except OSError as error:
            raise unusable(self.folder, error) from error


def unusable(folder: Path, error: OSError) -> StoreUnusable:
    """The error for a folder that cannot be used at all."""
    return StoreUnusable(
        f"the captures folder {folder} cannot be written: {(error.strerror or str(error)).lower()}",
        hint=f"chmod u+rwx {folder}, remount it writable, or set BOOTHSAM_CAPTURES_DIR to another folder",
    )


class Lock:
    """The right to write, held until `release` or the end of the process."""

    def __init__(self, layout: Layout) -> None:
        try:
            self._descriptor = os.open(layout.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(layout.folder, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise StoreUnusable(
                f"another process writes to {layout.folder}", hint="stop `boothsam serve` first: it forwards by itself"
            ) from None

    def release(self) -> None:
        os.close(self._descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents so that they survive a power cut. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make names that were added to or removed from a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network and FUSE file systems cannot sync a folder, and need not
            raise
    finally:
        os.close(descriptor)


def publish(data: bytes, target: Path, incoming: Path) -> bool:
    """Write bytes so that `target` is whole and durable on return; False if it was there already with these bytes.

    The bytes are synced under a name in `incoming`, renamed, and then the folder is synced. When anything fails nothing
    is left behind. Raises OSError.
    """
    make_folder(target.parent)
    partial = incoming / secrets.token_hex(8)
    try:
        if target.stat().st_size == len(data) and target.read_bytes() == data:
            sync_folder(target.parent)  # whoever renamed it may have died before this
            return False
    except FileNotFoundError:
        pass
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    try:
        sync_folder(target.parent)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return True


def free_bytes(folder: Path) -> int:
    """Bytes that an unprivileged process may still write. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
