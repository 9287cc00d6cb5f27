"""Embeddings that outlive their request: an LRU bounded in bytes and time, with each one's earlier logits.

An embedding's id is a content hash of upload, model and precision, so it can be looked up before anything is decoded,
and the same photo never costs two encodes. What is dropped is not closed: a decode that still runs on it ends well, and
the memory goes with the last reference.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from boothsam.runtime.model import ImageEmbedding
from boothsam.runtime.transforms import FloatArray

KEPT_LOGITS = 24  # masks per photo that can be refined: eight answers of three


@dataclass
class Entry:
    """One photo's embedding. logits: id -> (1, 256, 256) float32 of an earlier answer, oldest first."""

    embedding: ImageEmbedding
    used: float
    logits: OrderedDict[str, FloatArray] = field(default_factory=OrderedDict)

    @property
    def nbytes(self) -> int:
        """Bytes on device and host."""
        return self.embedding.nbytes + sum(array.nbytes for array in self.logits.values())


def embedding_id(photo_sha256: str, model_key: str, precision: str) -> str:
    """64 hex digits that name one photo as one model sees it."""
    return hashlib.sha256(f"{photo_sha256}:{model_key}:{precision}".encode()).hexdigest()


def logits_id(logits: FloatArray) -> str:
    """32 hex digits: a content hash of one mask's logits."""
    return hashlib.sha256(logits.tobytes()).hexdigest()[:32]


class EmbeddingCache:
    """Least recently used first out; safe to use from any thread.

    max_bytes: 0 keeps nothing. ttl_s: seconds after its last use that an embedding is kept. clock: seconds, monotonic.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes, self.ttl_s = max_bytes, ttl_s
        self.hits = self.misses = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._making: dict[str, Future[ImageEmbedding]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        with self._lock:
            return self._held()

    def get(self, key: str) -> ImageEmbedding | None:
        """The embedding, now the most recently used; None when there is none, or none any more."""
        with self._lock:
            entry = self._find(key)
            if entry is None:
                self.misses += 1
                return None
            self.hits += 1
            return entry.embedding

    def get_or_make(self, key: str, make: Callable[[], ImageEmbedding]) -> tuple[ImageEmbedding, bool]:
        """The embedding and whether it was there; of several threads that ask at once, one makes it."""
        own: Future[ImageEmbedding] = Future()
        with self._lock:
            entry = self._find(key)
            if entry is not None:
                self.hits += 1
                return entry.embedding, True
            pending = self._making.get(key)
            if pending is None:
                self.misses += 1
                self._making[key] = own
        if pending is not None:
            return pending.result(), True
        try:
            embedding = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            own.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._entries[key] = Entry(embedding, self._clock())
            self._shrink()
        own.set_result(embedding)
        return embedding, False

    def remember(self, key: str, logits: FloatArray) -> str | None:
        """Keep one mask's (1, 256, 256) logits for a later `mask_input`; its id, None when the photo is gone."""
        with self._lock:
            entry = self._find(key)
            if entry is None:
                return None
            name = logits_id(logits)
            entry.logits[name] = logits
            entry.logits.move_to_end(name)
            while len(entry.logits) > KEPT_LOGITS:
                entry.logits.popitem(last=False)
            self._shrink()
            return name if key in self._entries else None

    def recall(self, key: str, name: str) -> FloatArray | None:
        """Logits of an earlier answer, None when they are gone or were never there."""
        with self._lock:
            entry = self._find(key)
            return None if entry is None else entry.logits.get(name)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._entries.clear()

    def _find(self, key: str) -> Entry | None:
        now = self._clock()
        # Oldest first: the first one that is young enough ends the search.
        while self._entries and now - next(iter(self._entries.values())).used > self.ttl_s:
            self._entries.popitem(last=False)
        entry = self._entries.get(key)
        if entry is not None:
            entry.used = now
            self._entries.move_to_end(key)
        return entry

    def _held(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())

    def _shrink(self) -> None:
        held = self._held()
        while self._entries and held > self.max_bytes:
            held -= self._entries.popitem(last=False)[1].nbytes
