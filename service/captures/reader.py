"""What can be read of a store, also while another process writes to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from boothsam.service.captures.files import Layout, free_bytes
from boothsam.service.captures.index import Delivery, Index
from boothsam.service.captures.records import Capture, NoSuchCapture, StoreUnusable
from boothsam.service.captures.recovery import Findings, is_corrupt, reconcile


@dataclass(frozen=True)
class Status:
    """How a store is: number of captures, deliveries by state for the configured target, bytes left for
    photos."""

    captures: int
    pending: int
    parked: int
    room_bytes: int


class Reader:
    """A store opened for reading; nothing is held open between calls, which may come from any thread."""

    def __init__(self, folder: Path, target: str = "") -> None:
        self.layout = Layout(folder)
        self.target = target

    @contextmanager
    def _index(self) -> Iterator[Index]:
        try:
            with closing(Index.read(self.layout.index)) as index:
                yield index
        except sqlite3.Error as error:
            where = self.layout.folder
            raise StoreUnusable(
                f"the captures in {where} cannot be read: {error}",
                hint=f"boothsam captures fsck --folder {where}"
                if self.layout.index.exists()
                else "name a captures folder",
            ) from error

    def get(self, id: str) -> Capture:
        """One capture. Raises NoSuchCapture."""
        with self._index() as index:
            found = index.by_id(id)
        if found is None:
            raise NoSuchCapture(f"no capture {id[:40]!r}", hint="GET /captures lists them")
        return found

    def find_key(self, key: str) -> Capture | None:
        """The capture of an idempotency key."""
        with self._index() as index:
            return index.by_key(key)

    def page(
        self,
        limit: int = 100,
        *,
        after: int = 0,
        before: int | None = None,
        sku: str | None = None,
        gtin: str | None = None,
    ) -> list[Capture]:
        """Captures in the order of `seq` beyond `after`; with `before`, the newest first and older than that."""
        with self._index() as index:
            return index.page(limit, after=after, before=before, sku=sku, gtin=gtin)

    def walk(self, *, after: int = 0, sku: str | None = None, gtin: str | None = None) -> Iterator[Capture]:
        """All captures beyond `after`, a page at a time, so that nothing is held open in between."""
        while found := self.page(500, after=after, sku=sku, gtin=gtin):
            yield from found
            after = found[-1].seq

    def received_before(self, moment: str, now: str) -> list[str]:
        """Ids of captures that came before an ISO 8601 moment; see `Index.received_before`."""
        with self._index() as index:
            return index.received_before(moment, now)

    def path(self, capture: Capture, role: str) -> Path:
        """The file of a role. Raises NoSuchCapture when the capture has none."""
        if role not in capture.files:
            raise NoSuchCapture(f"capture {capture.id} has no {role}; it has {', '.join(capture.files)}")
        return self.layout.path(capture.files[role])

    def deliveries(self, state: str, limit: int = 100) -> list[Delivery]:
        """Open deliveries to the configured target: "pending" in the order of trial, or "parked"."""
        with self._index() as index:
            return (index.parked if state == "parked" else index.pending)(self.target, limit)

    def check(self, *, deep: bool = False) -> Findings:
        """What opening the store for writing, or `CaptureStore.repair`, would mend; changes nothing."""
        with self._index() as index:
            try:
                found = Findings(index=index.damage())
            except sqlite3.Error as error:
                if not is_corrupt(error):
                    raise
                found = Findings(index=str(error))
            return found if found.index else reconcile(index, self.layout, found, deep=deep, repair=False)

    def status(self, min_free_bytes: int = 0) -> Status:
        """Counts and room, for readiness and metrics."""
        with self._index() as index:
            states = index.states(self.target)
            captures = index.count()
        room = max(0, free_bytes(self.layout.folder) - min_free_bytes)
        return Status(captures, states["pending"], states["parked"], room)
