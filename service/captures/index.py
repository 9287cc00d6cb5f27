"""The index of a store in SQLite: WAL with synchronous=FULL, so that a committed row survives a power cut.

SQLite's documentation says of WAL with synchronous=NORMAL that committed transactions may roll back after a power
loss. One connection writes (the store's writer thread); each reader opens its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boothsam.service.captures.records import Capture, StoredFile, StoreUnusable

VERSION = 1
_EARLIEST = "2026-01-01"  # boothsam did not exist before: an earlier time is a clock without a battery
_SCHEMA = """
CREATE TABLE captures (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, idempotency_key TEXT UNIQUE, received_at TEXT NOT NULL,
    sku TEXT, gtin TEXT, document TEXT NOT NULL);
CREATE INDEX captures_sku ON captures (sku, seq) WHERE sku IS NOT NULL;
CREATE INDEX captures_gtin ON captures (gtin, seq) WHERE gtin IS NOT NULL;
CREATE TABLE files (
    seq INTEGER NOT NULL REFERENCES captures (seq) ON DELETE CASCADE, role TEXT NOT NULL,
    sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, suffix TEXT NOT NULL, PRIMARY KEY (seq, role)) WITHOUT ROWID;
CREATE INDEX files_content ON files (sha256, suffix);
CREATE TABLE deliveries (
    target TEXT NOT NULL, seq INTEGER NOT NULL REFERENCES captures (seq) ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'parked')),
    attempts INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', PRIMARY KEY (target, seq)) WITHOUT ROWID;
CREATE INDEX deliveries_open ON deliveries (target, state, seq) WHERE state != 'delivered';
CREATE INDEX deliveries_seq ON deliveries (seq);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Delivery:
    """How far forwarding one capture to one target is."""

    capture: Capture
    state: str
    attempts: int
    error: str


class Index:
    """One connection. Every method may raise sqlite3.Error.

    fresh: the tables were made just now, so that captures whose sidecars exist are unknown to it.
    """

    def __init__(self, connection: sqlite3.Connection, *, fresh: bool = False) -> None:
        self._db = connection
        self.fresh = fresh

    @classmethod
    def open(cls, path: Path) -> Index:
        """The writing connection; creates the tables in a new file.

        Raises:
            sqlite3.Error: no database, damaged, or not writable.
            StoreUnusable: written by another version.
        """
        # The writer thread is not the one that opens; the store gives every call to one thread at a time.
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            # A short log: on a full disk it has to fit into the reserve, together with what the database grows by.
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "wal_autocheckpoint = 64"):
                db.execute(f"PRAGMA {pragma}")
            db.execute("PRAGMA journal_size_limit = 262144")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise StoreUnusable(
                    f"{path} is of version {version}, expected {VERSION}", hint="use the boothsam that wrote it"
                )
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        except BaseException:
            db.close()
            raise
        return cls(db, fresh=version == 0)

    @classmethod
    def read(cls, path: Path) -> Index:
        """A reading connection to an index that exists."""
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, timeout=10)
        return cls(db)

    def close(self) -> None:
        self._db.close()

    def damage(self) -> str:
        """What SQLite's own check finds, "" when sound; of a badly damaged file it raises instead."""
        rows = [str(row[0]) for row in self._db.execute("PRAGMA quick_check(5)")]
        return "" if rows == ["ok"] else "; ".join(rows)

    def pragma(self, name: str) -> Any:
        """A setting of this connection."""
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside, or none; durable when the block has ended."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def shorten_log(self) -> bool:
        """Move the write-ahead log into the database and empty it, for a full disk; False when that does not work."""
        try:
            return bool(self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
        except sqlite3.OperationalError:
            return False

    # captures

    def insert(self, capture: Capture, target: str = "") -> None:
        """A new row, its files and, with a target, the duty to forward it."""
        facts = capture.facts
        self._db.execute(
            "INSERT INTO captures VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                capture.seq,
                capture.id,
                capture.idempotency_key,
                capture.received_at,
                facts.get("sku"),
                facts.get("gtin"),
                capture.encode().decode(),
            ),
        )
        rows = [(capture.seq, role, f.sha256, f.bytes, f.suffix) for role, f in capture.files.items()]
        self._db.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?)", rows)
        if target:
            values = (target, capture.seq)
            self._db.execute("INSERT INTO deliveries (target, seq, state) VALUES (?, ?, 'pending')", values)

    def remove(self, seq: int) -> None:
        """Forget a capture with its files and deliveries."""
        self._db.execute("DELETE FROM captures WHERE seq = ?", (seq,))

    def by_id(self, id: str) -> Capture | None:
        return self._one("id = ?", (id,))

    def by_key(self, key: str) -> Capture | None:
        return self._one("idempotency_key = ?", (key,))

    def _one(self, where: str, values: Sequence[Any]) -> Capture | None:
        row = self._db.execute(f"SELECT document FROM captures WHERE {where}", values).fetchone()
        return None if row is None else Capture.decode(row[0].encode())

    def page(
        self, limit: int, *, after: int = 0, before: int | None = None, sku: str | None = None, gtin: str | None = None
    ) -> list[Capture]:
        """Captures in the order of `seq` beyond `after`; with `before`, the newest first and older than that."""
        where, values = ["seq > ?"], [after]
        filters: list[Any] = []
        if before is not None:
            where.append("seq < ?")
            values.append(before)
        for column, wanted in (("sku", sku), ("gtin", gtin)):
            if wanted is not None:
                where.append(f"{column} = ?")
                filters.append(wanted)
        order = "ASC" if before is None else "DESC"
        rows = self._db.execute(
            f"SELECT document FROM captures WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?",
            (*values, *filters, limit),
        )
        return [Capture.decode(row[0].encode()) for row in rows.fetchall()]

    def identities(self) -> dict[int, str]:
        """seq -> id of every capture."""
        return dict(self._db.execute("SELECT seq, id FROM captures").fetchall())

    def received_before(self, moment: str, now: str) -> list[str]:
        """Ids of captures that came before an ISO 8601 moment, oldest first; `now` is the time of a trusted clock.

        A capture came after all earlier ones, so the latest plausible time among those and itself counts: one that was
        taken while the clock stood in 1970 is as old as its predecessor, or of unknown age and not returned.
        """
        rows = self._db.execute(
            "SELECT id FROM (SELECT id, seq, max(CASE WHEN received_at BETWEEN ? AND ? THEN received_at END) "
            "OVER (ORDER BY seq) AS known FROM captures) WHERE known < ? ORDER BY seq",
            (_EARLIEST, now, moment),
        )
        return [row[0] for row in rows.fetchall()]

    def is_used(self, file: StoredFile) -> bool:
        """Whether some capture has this file."""
        found = self._db.execute("SELECT 1 FROM files WHERE (sha256, suffix) = (?, ?)", (file.sha256, file.suffix))
        return found.fetchone() is not None

    def all_files(self) -> list[tuple[str, StoredFile]]:
        """(capture's id, file) of every capture, oldest first."""
        rows = self._db.execute(
            "SELECT id, sha256, bytes, suffix FROM files JOIN captures USING (seq) ORDER BY seq, role"
        )
        return [(row[0], StoredFile(*row[1:])) for row in rows]

    def count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM captures").fetchone()[0])

    def last_seq(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(seq), 0) FROM captures").fetchone()[0])

    # deliveries

    def enqueue_all(self, target: str) -> None:
        """Every capture that this target has not been given becomes pending."""
        self._db.execute(
            "INSERT OR IGNORE INTO deliveries (target, seq, state) SELECT ?, seq, 'pending' FROM captures", (target,)
        )

    def release_parked(self, target: str) -> int:
        """Parked ones become pending again; how many."""
        return self._db.execute(
            "UPDATE deliveries SET state = 'pending', attempts = 0 WHERE target = ? AND state = 'parked'", (target,)
        ).rowcount

    def pending(self, target: str, limit: int) -> list[Delivery]:
        """Open deliveries: those that never failed first, oldest first, then by the number of failures."""
        return self._deliveries("d.state = 'pending'", target, "d.attempts, d.seq", limit)

    def parked(self, target: str, limit: int) -> list[Delivery]:
        """Deliveries that were given up, oldest first."""
        return self._deliveries("d.state = 'parked'", target, "d.seq", limit)

    def delivery(self, target: str, seq: int) -> Delivery | None:
        found = self._deliveries(f"d.seq = {int(seq)}", target, "d.seq", 1)
        return found[0] if found else None

    def _deliveries(self, where: str, target: str, order: str, limit: int) -> list[Delivery]:
        rows = self._db.execute(
            "SELECT c.document, d.state, d.attempts, d.error FROM deliveries d JOIN captures c USING (seq) "
            f"WHERE d.target = ? AND {where} ORDER BY {order} LIMIT ?",
            (target, limit),
        )
        return [Delivery(Capture.decode(r[0].encode()), r[1], r[2], r[3]) for r in rows.fetchall()]

    def mark(self, target: str, seq: int, state: str, attempts: int, error: str = "") -> None:
        self._db.execute(
            "UPDATE deliveries SET state = ?, attempts = ?, error = ? WHERE target = ? AND seq = ?",
            (state, attempts, error, target, seq),
        )

    def states(self, target: str) -> dict[str, int]:
        """Number of deliveries in each state."""
        rows = self._db.execute("SELECT state, count(*) FROM deliveries WHERE target = ? GROUP BY state", (target,))
        return {"pending": 0, "delivered": 0, "parked": 0} | dict(rows.fetchall())

    # meta

    def get(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
