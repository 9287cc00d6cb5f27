"""Where annotations lie, reading them, and writing that survives a crash or a power cut.

masks/<folders>/<stem>-<n>.png   accepted masks: 8 bit, 0 and 255, of the photo's upright size
records/<key>.json               one photo's annotations; names its masks with their sha256
categories.json                  the categories, in the order of the keys 1 to 9
incoming/                        files that are being written; emptied at every start
quarantine/                      damaged records, and masks that no record names
lock                             held by the process that writes

A mask is durable before the record that names it, and no file that a record names is ever written again. So whenever
the process ends, each record is whole and so are its masks; at worst a mask is left that no record names.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from boothsam.service.annotations.records import (
    DEFAULT_CATEGORIES,
    Category,
    DamagedRecord,
    DiskLow,
    PhotoRecord,
    StorageFailed,
    StoreUnusable,
    decode_categories,
)
from boothsam.service.captures.files import FULL, make_folder, sync_folder

_log = logging.getLogger("boothsam")


@dataclass(frozen=True)
class Layout:
    """The paths of one folder of annotations."""

    folder: Path

    @property
    def masks(self) -> Path:
        return self.folder / "masks"

    @property
    def records(self) -> Path:
        return self.folder / "records"

    @property
    def categories(self) -> Path:
        return self.folder / "categories.json"

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    @property
    def quarantine(self) -> Path:
        return self.folder / "quarantine"

    def record(self, key: str) -> Path:
        """Where a photo's record lies."""
        return self.records / f"{key}.json"

    def create(self) -> None:
        """Make the folders. Raises StoreUnusable."""
        try:
            for folder in (self.masks, self.records, self.incoming):
                make_folder(folder)
        except OSError as error:
            raise self.unusable(error) from error

    def clear_incoming(self) -> None:
        """Remove what a crash left there; for whoever holds the lock. Raises StoreUnusable."""
        try:
            for path in self.incoming.iterdir():
                path.unlink()
        except OSError as error:
            raise self.unusable(error) from error

    def unusable(self, error: OSError) -> StoreUnusable:
        """The error for a folder that cannot be used at all."""
        return StoreUnusable(
            f"the annotations folder {self.folder} cannot be written: {(error.strerror or str(error)).lower()}",
            hint=f"chmod u+rwx {self.folder}, or choose another with -o",
        )

    def put_aside(self, path: Path, why: str) -> None:
        """Move a file into quarantine, where people can look at it. Raises OSError."""
        make_folder(self.quarantine)
        path.replace(self.quarantine / f"{path.name}.{secrets.token_hex(4)}")
        _log.warning("%s was moved to %s: %s", path, self.quarantine, why)

    def write(self, target: Path, data: bytes) -> None:
        """Write a file, whole and durable on return; an older one of that name stays until then.

        Raises:
            DiskLow, StorageFailed: nothing was changed, or a power cut may bring back what was there before.
        """
        partial = self.incoming / secrets.token_hex(8)
        try:
            try:
                with partial.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                # Not before: where the folder's disk was pulled out nothing is made in its place.
                make_folder(target.parent)
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            sync_folder(target.parent)
        except OSError as error:
            raise self.failed(error) from error

    def remove_record(self, key: str) -> None:
        """Take a record away for good. Raises OSError."""
        self.record(key).unlink(missing_ok=True)
        sync_folder(self.records)

    def failed(self, error: OSError) -> DiskLow | StorageFailed:
        """The error for a write that the disk refused."""
        if error.errno in FULL:
            return DiskLow(f"the disk of {self.folder} is full", hint="free some space; what was saved before is safe")
        reason = (error.strerror or errno.errorcode.get(error.errno or 0, str(error))).lower()
        return StorageFailed(f"{self.folder} cannot be written: {reason}", hint=f"df -h {self.folder}")


class Lock:
    """The right to write, held until `release` or the end of the process."""

    def __init__(self, layout: Layout) -> None:
        try:
            self._descriptor = os.open(layout.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise layout.unusable(error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if isinstance(error, BlockingIOError):
                raise StoreUnusable(
                    f"another process annotates into {layout.folder}", hint="end that one first, or choose another -o"
                ) from None
            raise layout.unusable(error) from error

    def release(self) -> None:
        """Let others write. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def read_records(layout: Layout) -> tuple[dict[str, PhotoRecord], dict[Path, str]]:
    """Every photo's record by its key, and the damaged files with what is wrong with each.

    Raises:
        StorageFailed: the folder cannot be read.
    """
    records: dict[str, PhotoRecord] = {}
    damaged: dict[Path, str] = {}
    try:
        for path in sorted(layout.records.glob("*.json")):
            try:
                records[path.stem] = _read_record(layout, path)
            except DamagedRecord as error:
                damaged[path] = error.message
            except FileNotFoundError:
                continue  # taken away since it was listed
    except OSError as error:
        raise layout.failed(error) from error
    return records, damaged


def _read_record(layout: Layout, path: Path) -> PhotoRecord:
    """Raises DamagedRecord, OSError."""
    data = path.read_bytes()
    while True:
        record = PhotoRecord.decode(data)
        lost = [found.file for found in record.objects if not _inside(layout, found.file)]
        if not lost:
            return record
        # Another process may have saved the photo anew in between, and removed the masks of before.
        before, data = data, path.read_bytes()
        if data == before:
            raise DamagedRecord(f"its mask {lost[0]} is missing")


def _inside(layout: Layout, name: str) -> bool:
    """Whether a record's mask is a file, and one below masks/."""
    parts = name.split("/")
    return not {"", ".", ".."} & set(parts) and (layout.masks / name).is_file()


def read_categories(layout: Layout) -> tuple[tuple[Category, ...], int]:
    """The categories in their order, and the highest id ever given; `product` where none were chosen.

    Raises:
        DamagedRecord, StorageFailed.
    """
    path = layout.categories
    try:
        return decode_categories(path.read_bytes())
    except FileNotFoundError:
        return DEFAULT_CATEGORIES, max(c.id for c in DEFAULT_CATEGORIES)
    except DamagedRecord as error:
        hint = f"mend it, or rm {path}: objects keep the numbers of their categories"
        raise DamagedRecord(f"{path} is {error.message}", hint=hint) from error
    except OSError as error:
        raise layout.failed(error) from error
