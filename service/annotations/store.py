"""The annotations of one folder of photos: what is done, what is left, and saving that a crash does not undo."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from boothsam.service.annotations.drawing import Drawn
from boothsam.service.annotations.files import Layout, Lock, read_categories, read_records
from boothsam.service.annotations.photos import Photo, check_folders, list_photos, mask_base
from boothsam.service.annotations.records import (
    MAX_OBJECTS,
    Category,
    DiskLow,
    MaskObject,
    NoSuchPhoto,
    PhotoChanged,
    PhotoRecord,
    Status,
    StorageFailed,
    WrongAnnotation,
    changed_categories,
    encode_categories,
)
from boothsam.service.captures.files import free_bytes

STATUSES = ("open", "started", "done", "skipped", "changed", "broken")
_log = logging.getLogger("boothsam")


@dataclass(frozen=True)
class Kept:
    """An object that is saved already, by its id, perhaps in another category."""

    id: int
    category_id: int


@dataclass(frozen=True)
class Entry:
    """A photo and its annotations.

    status: one of `STATUSES`. "changed": another photo lies under this name than `record` is about.
    """

    photo: Photo
    record: PhotoRecord | None
    status: str
    trouble: str = ""

    @property
    def objects(self) -> tuple[MaskObject, ...]:
        """Those on the photo that lies there now."""
        return self.record.objects if self.record is not None and self.status != "changed" else ()

    def document(self) -> dict[str, Any]:
        """As JSON in lists."""
        return {
            "key": self.photo.key,
            "name": self.photo.name,
            "status": self.status,
            "objects": len(self.objects),
            "trouble": self.trouble,
        }


class AnnotationStore:
    """One process' hold on a folder of annotations. Every method blocks, and may be called from any thread."""

    def __init__(self, photos_folder: Path, layout: Layout, lock: Lock, min_free_bytes: int) -> None:
        self.photos_folder, self.layout, self.min_free_bytes = photos_folder, layout, min_free_bytes
        self._lock, self._mutex, self._scanning = lock, threading.RLock(), threading.Lock()
        self._closed = False
        self._photos: dict[str, Photo] = {}
        self._digests: dict[str, tuple[int, int, str]] = {}  # key -> nbytes, mtime_ns, sha256
        self._undecodable: dict[str, tuple[str, str]] = {}  # key -> sha256, why
        self._records: dict[str, PhotoRecord] = {}
        self.categories: tuple[Category, ...] = ()
        self._last_category = 0

    @classmethod
    def open(cls, photos_folder: Path, folder: Path, *, min_free_bytes: int = 0) -> AnnotationStore:
        """Lock the folder, put damaged files aside, and list the photos.

        Raises:
            OptionError: no folder of photos, or annotations that would lie among them. StoreUnusable: the folder of
                annotations. StorageFailed: it cannot be read. DamagedRecord: its categories.
        """
        photos_folder, folder = check_folders(photos_folder, folder)
        layout = Layout(folder)
        layout.create()
        store = cls(photos_folder, layout, Lock(layout), min_free_bytes)
        try:
            layout.clear_incoming()
            store._recover()
            store.scan()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Let others write, once what is being saved is on the disk; nothing is saved afterwards. Idempotent."""
        with self._mutex:
            self._closed = True
            self._lock.release()

    def _recover(self) -> None:
        self.categories, self._last_category = read_categories(self.layout)
        self._records, damaged = read_records(self.layout)
        named = {found.file for record in self._records.values() for found in record.objects}
        try:
            for path, why in damaged.items():
                self.layout.put_aside(path, why)
            for path in sorted(self.layout.masks.rglob("*.png")):
                if path.relative_to(self.layout.masks).as_posix() not in named:
                    self.layout.put_aside(path, "no record names it")
        except OSError as error:
            raise self.layout.unusable(error) from error
        unknown = self._used() - {c.id for c in self.categories}
        if unknown:  # the list was lost or edited: objects keep their numbers
            self.categories += tuple(Category(number, f"category-{number}") for number in sorted(unknown))
        self._last_category = max([self._last_category, *(c.id for c in self.categories)])

    def _used(self) -> set[int]:
        return {found.category_id for record in self._records.values() for found in record.objects}

    def scan(self) -> None:
        """List the photos again; meanwhile others save. Raises OptionError when the folder cannot be listed."""
        with self._scanning:
            with self._mutex:
                known = dict(self._photos)
            found = list_photos(self.photos_folder, self.layout.folder, known)
            with self._mutex:
                self._photos = {photo.key: photo for photo in found}
                touched = [photo for photo in found if self._is_touched(photo)]
            for photo in touched:
                with contextlib.suppress(NoSuchPhoto):  # it went, or may not be read: then it is another one
                    digest = photo.sha256()
                    with self._mutex:
                        self._digests[photo.key] = (photo.nbytes, photo.mtime_ns, digest)

    def _is_touched(self, photo: Photo) -> bool:
        """Whether only the file's bytes can tell if it is the one that was annotated."""
        record, (size, mtime_ns, _) = self._records.get(photo.key), self._digests.get(photo.key, (-1, -1, ""))
        if record is None or photo.same_file(size, mtime_ns):
            return False
        return not photo.same_file(record.nbytes, record.mtime_ns)

    def entries(self) -> list[Entry]:
        """Every photo in order, as of the last `scan`."""
        with self._mutex:
            return [self._entry(photo) for photo in self._photos.values()]

    def progress(self) -> dict[str, int]:
        """Photos by status, their `total`, the `objects` on them, and the records whose photo is `missing`."""
        with self._mutex:
            entries = self.entries()
            counts = Counter(entry.status for entry in entries)
            found = {name: counts[name] for name in STATUSES}
            objects = sum(len(entry.objects) for entry in entries)
            missing = len(self._records.keys() - self._photos.keys())
            return {"total": len(entries)} | found | {"objects": objects, "missing": missing}

    def entry(self, key: str) -> Entry:
        """One photo. Raises NoSuchPhoto."""
        with self._mutex:
            return self._entry(self._photo(key))

    def digest(self, key: str) -> str:
        """sha256 of the photo's bytes, read anew. Raises NoSuchPhoto."""
        with self._mutex:
            photo = self._refreshed(key)
        digest = photo.sha256()
        with self._mutex:
            self._digests[key] = (photo.nbytes, photo.mtime_ns, digest)
        return digest

    def known_digest(self, key: str) -> str:
        """sha256 of the photo's bytes, read anew only where the file looks touched. Raises NoSuchPhoto."""
        with self._mutex:
            return self._hash(self._refreshed(key))

    def read(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        """The photo's bytes and their sha256, for another try to decode them. Raises NoSuchPhoto, PhotoTooLarge."""
        with self._mutex:
            self._undecodable.pop(key, None)
            photo = self._refreshed(key)
        data = photo.read(max_bytes)
        digest = hashlib.sha256(data).hexdigest()
        with self._mutex:
            self._digests[key] = (photo.nbytes, photo.mtime_ns, digest)
        return data, digest

    def cannot_decode(self, key: str, sha256: str, why: str) -> None:
        """Remember that these bytes are no photo, until the file is replaced or another try decodes it."""
        with self._mutex:
            self._undecodable[key] = (sha256, why)

    def save(
        self, key: str, sha256: str, size_hw: tuple[int, int] | None, objects: Sequence[Kept | Drawn], *, done: bool
    ) -> Entry:
        """Replace the photo's objects; all of it is on the disk on return, or nothing is changed.

        sha256: of the photo that the masks were made on. size_hw: its upright size; None with nothing to save.

        Raises:
            NoSuchPhoto; PhotoChanged; WrongAnnotation: an unknown object or category, or too many; DiskLow,
            StorageFailed.
        """
        with self._mutex:
            photo = self._refreshed(key)
            if self._hash(photo) != sha256:
                raise PhotoChanged(
                    f"{photo.name} was replaced by another photo meanwhile", hint="load it again, then point anew"
                )
            old = self._records.get(key)
            current = old if old is not None and old.sha256 == sha256 else None
            self._check(objects, current)
            if not objects and not done:
                self._forget(key)
                return self._entry(photo)
            made, last_id, new = self._place(photo, objects, current, 0 if old is None else old.last_id)
            status: Status = "done" if done else "started"
            record = PhotoRecord(
                photo.name, sha256, photo.nbytes, photo.mtime_ns, size_hw, status, tuple(made), last_id, _now()
            )
            self._write(key, record, new)
            return self._entry(photo)

    def skip(self, key: str) -> Entry:
        """Leave the photo out; its objects are kept. Raises NoSuchPhoto, DiskLow, StorageFailed."""
        with self._mutex:
            photo = self._refreshed(key)
            sha256, old = self._hash(photo), self._records.get(key)
            if old is not None and old.sha256 == sha256:
                record = replace(old, status="skipped", saved_at=_now())
            else:
                last_id = 0 if old is None else old.last_id
                record = PhotoRecord(
                    photo.name, sha256, photo.nbytes, photo.mtime_ns, None, "skipped", (), last_id, _now()
                )
            self._write(key, record, {})
            return self._entry(photo)

    def set_categories(self, wanted: Sequence[tuple[int | None, str]]) -> tuple[Category, ...]:
        """Replace the list, as `records.changed_categories` says. Raises what that raises; DiskLow, StorageFailed."""
        with self._mutex:
            self._need_open()
            made, last_id = changed_categories(self.categories, self._last_category, wanted, self._used())
            self.layout.write(self.layout.categories, encode_categories(made, last_id))
            self.categories, self._last_category = made, last_id
            return made

    def _photo(self, key: str) -> Photo:
        photo = self._photos.get(key)
        if photo is None:
            raise NoSuchPhoto(f"no photo {key[:80]!r} in {self.photos_folder}", hint="GET /annotations lists them")
        return photo

    def _refreshed(self, key: str) -> Photo:
        """The photo with its file's size and time as they are now. Raises NoSuchPhoto."""
        photo = self._photo(key)
        try:
            stat = photo.path.stat()
        except OSError as error:
            raise NoSuchPhoto(f"{photo.name} is gone", hint="GET /annotations lists what is there") from error
        if not photo.same_file(stat.st_size, stat.st_mtime_ns):
            photo = self._photos[key] = replace(photo, nbytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
        return photo

    def _hash(self, photo: Photo) -> str:
        """sha256 of the file; it is read again only when it looks touched."""
        size, mtime_ns, digest = self._digests.get(photo.key, (-1, -1, ""))
        if not photo.same_file(size, mtime_ns):
            digest = photo.sha256()
            self._digests[photo.key] = (photo.nbytes, photo.mtime_ns, digest)
        return digest

    def _entry(self, photo: Photo) -> Entry:
        record = self._records.get(photo.key)
        size, mtime_ns, digest = self._digests.get(photo.key, (-1, -1, ""))
        known = digest if photo.same_file(size, mtime_ns) else None
        broken = self._undecodable.get(photo.key)
        if photo.header is None:
            return Entry(photo, record, "broken", photo.trouble)
        if broken is not None and broken[0] == known:
            return Entry(photo, record, "broken", broken[1])
        if record is None:
            return Entry(photo, None, "open")
        same = known == record.sha256 if known else photo.same_file(record.nbytes, record.mtime_ns)
        if not same:
            return Entry(photo, record, "changed", "another photo was annotated under this name")
        return Entry(photo, record, record.status)

    def _check(self, objects: Sequence[Kept | Drawn], current: PhotoRecord | None) -> None:
        if len(objects) > MAX_OBJECTS:
            raise WrongAnnotation(f"{len(objects)} objects on one photo; at most {MAX_OBJECTS}")
        known = {c.id for c in self.categories}
        ids = [found.id for found in objects if isinstance(found, Kept)]
        saved = set() if current is None else {found.id for found in current.objects}
        for found in objects:
            if found.category_id not in known:
                raise WrongAnnotation(
                    f"no category {found.category_id}; known are {sorted(known)}", hint="PUT /annotations/categories"
                )
        if len(set(ids)) != len(ids) or not set(ids) <= saved:
            raise WrongAnnotation(
                f"objects {ids} are named; saved on this photo are {sorted(saved)}", hint="name each saved object once"
            )

    def _place(
        self, photo: Photo, objects: Sequence[Kept | Drawn], current: PhotoRecord | None, last_id: int
    ) -> tuple[list[MaskObject], int, dict[str, bytes]]:
        """The objects with ids and files, the highest id so far, and the new files' bytes."""
        saved = {} if current is None else {found.id: found for found in current.objects}
        others = [p.name for p in self._photos.values() if p.key != photo.key]
        others += [record.name for key, record in self._records.items() if key != photo.key]
        base, made, new = mask_base(photo, others), [], {}
        for found in objects:
            if isinstance(found, Kept):
                made.append(replace(saved[found.id], category_id=found.category_id))
                continue
            last_id += 1
            while (self.layout.masks / f"{base}-{last_id}.png").exists():  # of a save that failed half-way
                last_id += 1
            name, digest = f"{base}-{last_id}.png", hashlib.sha256(found.png).hexdigest()
            new[name] = found.png
            made.append(
                MaskObject(
                    last_id, found.category_id, name, digest, found.bbox, found.area, found.score, found.segmentation
                )
            )
        return made, last_id, new

    def _write(self, key: str, record: PhotoRecord, new: dict[str, bytes]) -> None:
        """Masks first, then the record that names them, then away with those that no record names any more."""
        self._need_open()
        needed = sum(map(len, new.values())) + (64 << 10)
        free = _try(lambda: free_bytes(self.layout.folder), self.layout)
        if free - needed < self.min_free_bytes:
            raise DiskLow(
                f"{free} bytes are free on the disk of {self.layout.folder}; {self.min_free_bytes} must stay free",
                hint="free some space, or lower min_free_bytes",
            )
        old = self._records.get(key)
        try:
            for name, png in new.items():
                self.layout.write(self.layout.masks / name, png)
        except BaseException:
            self._remove(set(new))
            raise
        # When this fails the record may be there all the same, so that its masks must stay.
        self.layout.write(self.layout.record(key), record.encode())
        self._records[key] = record
        if record.objects:
            self._undecodable.pop(key, None)  # whoever made masks of it has seen it
        self._remove({found.file for found in (old.objects if old else ())} - {found.file for found in record.objects})

    def _forget(self, key: str) -> None:
        """Take the photo's record away, and then its masks."""
        self._need_open()
        record = self._records.get(key)
        if record is None:
            return
        _try(lambda: self.layout.remove_record(key), self.layout)
        del self._records[key]
        self._remove({found.file for found in record.objects})

    def _need_open(self) -> None:
        if self._closed:
            raise StorageFailed("the service is shutting down", hint="save it again in a moment")

    def _remove(self, names: set[str]) -> None:
        """Masks that no record names; one that cannot go is put aside at the next start."""
        for name in sorted(names):
            try:
                (self.layout.masks / name).unlink(missing_ok=True)
            except OSError as error:
                _log.warning("%s could not be removed: %s", self.layout.masks / name, error)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _try(action: Callable[[], Any], layout: Layout) -> Any:
    try:
        return action()
    except OSError as error:
        raise layout.failed(error) from error
