"""The capture store: photo durable, then row committed, then acknowledged.

One thread writes, in the order in which work was handed over; readers have connections of their own. One process at a
time may open a store for writing; others may read.
"""

from __future__ import annotations

import logging
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from boothsam.service.captures.files import FULL, Lock, free_bytes, publish, sync_folder, unusable
from boothsam.service.captures.index import Index
from boothsam.service.captures.reader import Reader
from boothsam.service.captures.records import (
    Capture,
    CaptureError,
    Content,
    DiskLow,
    KeyConflict,
    NoSuchCapture,
    NotForwarded,
    StorageFailed,
    StoredFile,
    StoreUnusable,
)
from boothsam.service.captures.recovery import CLEAN, Findings, is_corrupt, open_index, reconcile

T = TypeVar("T")
RESERVE = 16 << 20
MIN_FREE = 512 << 20
_NEXT = "next_seq"
_BLOCK = 1000  # sequence numbers that are set aside with one write of the file `sequence`
_log = logging.getLogger("boothsam")


@dataclass(frozen=True)
class _Job:
    """Work for the writer thread. may_use_reserve: it makes room or keeps books, and is tried again without the
    reserve when the disk is full; a new photo is not."""

    future: Future[Any]
    work: Callable[[Index], Any]
    may_use_reserve: bool


@dataclass(frozen=True)
class Added:
    """The answer to `add`: the capture, and whether it was there already under its idempotency key."""

    capture: Capture
    replayed: bool


class CaptureStore(Reader):
    """A store opened for writing. Create it with `open`; `close` it at the end.

    Methods that write return a Future, which is done when the change is durable.
    """

    _lock: Lock
    _index_of_writer: Index

    def __init__(self, folder: Path, target: str, min_free_bytes: int, reserve_bytes: int) -> None:
        super().__init__(folder, target)
        self.min_free_bytes = min_free_bytes
        self.reserve_bytes = reserve_bytes
        self.found = Findings()
        self.on_added: Callable[[], None] = lambda: None
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="captures", daemon=True)
        self._closed = False
        self._handing_over = threading.Lock()

    @classmethod
    def open(
        cls, folder: Path, *, target: str = "", min_free_bytes: int = MIN_FREE, reserve_bytes: int = RESERVE
    ) -> CaptureStore:
        """Open or create a store, and put in order what a crash left; `found` says what that was.

        target: where captures are to be forwarded, see `outbox`; "" nowhere. min_free_bytes: free space below which
        captures are refused. reserve_bytes: further space kept so that the index can be written on a full disk.

        Raises:
            StoreUnusable: not writable, in use by another process, of another version.
            DiskLow: the disk is so full that not even the index can be opened, with the reserve given up.
        """
        store = cls(folder, target, min_free_bytes, reserve_bytes)
        store.layout.create()
        store._lock = Lock(store.layout)
        try:
            store.layout.clear_incoming()
            try:
                store._index_of_writer = store._open_index()
            except DiskLow:
                if not store._give_up_reserve():
                    raise
                store._index_of_writer = store._open_index()
        except BaseException:
            store._lock.release()
            raise
        store._thread.start()
        return store

    def _open_index(self) -> Index:
        """The writing connection, recovered and numbered; what goes wrong as a CaptureError."""
        try:
            return self._recover()
        except OSError as error:
            if error.errno in FULL:
                raise self._disk_low() from error
            raise unusable(self.layout.folder, error) from error
        except sqlite3.Error as error:
            if _is_full(error):
                raise self._disk_low() from error
            raise StoreUnusable(
                f"the index of {self.layout.folder} cannot be opened: {error}", hint="look at the folder's permissions"
            ) from error

    def _recover(self) -> Index:
        index, self.found = open_index(self.layout)
        try:
            self._number = max(int(index.get(_NEXT) or 1), index.last_seq() + 1)
            self._bound = self._read_bound()
            if self.found.rebuilt is not None:
                self._number = max(self._number, self._bound + 1)
            with index.transaction():
                # Noted at once: what was taken in from a sidecar may be deleted before anything new is stored.
                index.put(_NEXT, str(self._number))
                if self.target:
                    index.enqueue_all(self.target)
        except BaseException:
            index.close()
            raise
        return index

    def close(self) -> None:
        """Write what was handed over, then let go of the folder. Further calls do nothing."""
        with self._handing_over:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        try:
            with self._index_of_writer.transaction():
                self._index_of_writer.put(CLEAN, "1")
        except sqlite3.Error as error:  # then the next start looks closer
            _log.warning("captures in %s: %s", self.layout.folder, error)
        finally:
            self._index_of_writer.close()
            self._lock.release()

    def add(
        self, files: Mapping[str, Content], facts: Mapping[str, Any], *, fingerprint: str, key: str | None = None
    ) -> Future[Added]:
        """Store a capture.

        files: by role, `original` at least. facts: a JSON object. fingerprint, key: a second request with the same key
        gets the first one's capture when the fingerprints agree.

        The future raises:
            KeyConflict: same key, other fingerprint.
            DiskLow: too little free space. StorageFailed: the disk refused. Nothing was stored in either case.
        """
        return self._hand_over(lambda index: self._add(index, files, facts, fingerprint, key), may_use_reserve=False)

    @staticmethod
    def same(known: Capture, fingerprint: str) -> Capture:
        """The capture that a key belongs to. Raises KeyConflict when something else was asked for then."""
        if known.fingerprint != fingerprint:
            raise KeyConflict(
                f"the idempotency key {known.idempotency_key!r} belongs to capture {known.id}, of another content",
                hint="use a new key for a new photo",
            )
        return known

    def need_room(self, size: int) -> None:
        """Raise DiskLow where `size` more bytes leave too little free; for a look before work is done. Blocks.

        Raises:
            StorageFailed: the folder is gone, or does not answer.
        """
        try:
            free = free_bytes(self.layout.folder)
        except OSError as error:
            raise StorageFailed(
                f"the captures folder {self.layout.folder} cannot be read: {(error.strerror or str(error)).lower()}",
                hint=f"ls -ld {self.layout.folder}; mount its disk again",
            ) from error
        if free - size < self.min_free_bytes:
            raise self._disk_low()

    def delete(self, id: str, *, force: bool = False) -> Future[None]:
        """Delete a capture; its files go when no other capture has them.

        The future raises:
            NoSuchCapture. NotForwarded: it is still to be forwarded, and `force` was not given.
        """
        return self._hand_over(lambda index: self._delete(index, id, force))

    def mark(self, seq: int, state: str, attempts: int, error: str = "") -> Future[None]:
        """Set how far a delivery to the configured target is."""

        def job(index: Index) -> None:
            with index.transaction():
                index.mark(self.target, seq, state, attempts, error)

        return self._hand_over(job)

    def release_parked(self) -> Future[int]:
        """Parked deliveries are tried again; how many."""

        def job(index: Index) -> int:
            with index.transaction():
                return index.release_parked(self.target)

        return self._hand_over(job)

    def repair(self, *, deep: bool = False) -> Future[Findings]:
        """Mend what `check` finds."""
        return self._hand_over(lambda index: reconcile(index, self.layout, deep=deep))

    # The writer thread: everything below runs on it.

    def _hand_over(self, work: Callable[[Index], T], *, may_use_reserve: bool = True) -> Future[T]:
        future: Future[T] = Future()
        with self._handing_over:
            if self._closed:
                future.set_exception(StorageFailed("the store is closed", hint="try again after the restart"))
            else:
                self._jobs.put(_Job(future, work, may_use_reserve))
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(self._attempt(job))
            except BaseException as error:
                job.future.set_exception(error)

    def _attempt(self, job: _Job) -> Any:
        try:
            try:
                return job.work(self._index_of_writer)
            except (sqlite3.Error, OSError) as error:
                if not self._mended(error, job):
                    raise
                return job.work(self._index_of_writer)
        except (sqlite3.Error, OSError) as error:
            if _is_full(error):
                raise self._disk_low() from error
            raise StorageFailed(
                f"the captures folder could not be written: {error}", hint="boothsam captures fsck; look at the disk"
            ) from error

    def _mended(self, error: sqlite3.Error | OSError, job: _Job) -> bool:
        """Whether something was done after which the same work may succeed."""
        if is_corrupt(error):
            _log.error("the index in %s is damaged: %s", self.layout.folder, error)
            self._index_of_writer.close()
            self._index_of_writer = self._open_index()
            return True
        if not (_is_full(error) and job.may_use_reserve):
            return False
        given_up = self._give_up_reserve()
        return self._index_of_writer.shorten_log() or given_up

    def _add(
        self,
        index: Index,
        contents: Mapping[str, Content],
        facts: Mapping[str, Any],
        fingerprint: str,
        key: str | None,
    ) -> Added:
        known = index.by_key(key) if key else None
        if known is not None:
            return Added(self.same(known, fingerprint), True)
        self._make_room(sum(len(c.data) for c in contents.values()))
        stored = {role: StoredFile.of(content) for role, content in contents.items()}
        now = datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="milliseconds")
        capture = Capture(self._next_number(), secrets.token_hex(16), now, key, fingerprint, facts, stored)
        try:
            for role, content in contents.items():
                publish(content.data, self.layout.path(stored[role]), self.layout.incoming)
            publish(capture.encode(), self.layout.sidecar(capture), self.layout.incoming)
            with index.transaction():
                index.insert(capture, self.target)
                index.put(_NEXT, str(capture.seq + 1))
        except BaseException:
            # The sidecar goes first: a crash in between must not leave one whose files are gone.
            self.layout.sidecar(capture).unlink(missing_ok=True)
            self._remove_unused(index, stored)
            raise
        self._number += 1
        self.on_added()
        return Added(capture, False)

    def _delete(self, index: Index, id: str, force: bool) -> None:
        capture = index.by_id(id)
        if capture is None:
            raise NoSuchCapture(f"no capture {id[:40]!r}", hint="GET /captures lists them")
        delivery = index.delivery(self.target, capture.seq) if self.target else None
        if delivery is not None and delivery.state != "delivered" and not force:
            raise NotForwarded(
                f"capture {id} is {delivery.state}: it has not been forwarded yet",
                hint="force=true deletes it nevertheless",
            )
        # Without its sidecar a rebuilt index cannot bring it back; a crash before the commit restores the sidecar.
        sidecar = self.layout.sidecar(capture)
        try:
            sidecar.unlink(missing_ok=True)
            sync_folder(sidecar.parent)
            with index.transaction():
                index.remove(capture.seq)
        except BaseException:
            publish(capture.encode(), sidecar, self.layout.incoming)
            raise
        self._remove_unused(index, capture.files)

    def _remove_unused(self, index: Index, files: Mapping[str, StoredFile]) -> None:
        for file in files.values():
            if not index.is_used(file):
                self.layout.path(file).unlink(missing_ok=True)

    # Room and numbers

    def _make_room(self, size: int) -> None:
        self.need_room(size)
        free = free_bytes(self.layout.folder)
        if (
            self.reserve_bytes
            and free - size - self.reserve_bytes >= self.min_free_bytes
            and not self.layout.reserve.exists()
        ):
            publish(bytes(self.reserve_bytes), self.layout.reserve, self.layout.incoming)

    def _give_up_reserve(self) -> bool:
        try:
            self.layout.reserve.unlink()
        except FileNotFoundError:
            return False
        _log.warning("the disk of %s is full: its reserve was given up", self.layout.folder)
        return True

    def _disk_low(self) -> CaptureError:
        free = free_bytes(self.layout.folder)
        return DiskLow(
            f"{free / 1e6:.1f} MB are free on the captures' disk, {self.min_free_bytes / 1e6:.1f} MB must stay free",
            hint="free some space, forward and delete captures, or set BOOTHSAM_RETENTION_DAYS",
        )

    def _next_number(self) -> int:
        if self._number > self._bound:
            publish(f"{self._number + _BLOCK - 1}\n".encode(), self.layout.sequence, self.layout.incoming)
            self._bound = self._number + _BLOCK - 1
        return self._number

    def _read_bound(self) -> int:
        try:
            return int(self.layout.sequence.read_text())
        except (FileNotFoundError, ValueError):
            return 0


def _is_full(error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    return "full" in str(error)
