"""Embeddings that outlive their request: an LRU bounded in bytes and time, with each one's earlier logits and, where a
client asked for it, its photo.

An embedding's id is a content hash of upload, model, precision and resize, so it can be looked up before anything is
decoded, and the same photo never costs two encodes. What is dropped is not closed: a decode that still runs on it ends
well, and the memory goes with the last reference.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from boothsam.runtime.model import ImageEmbedding
from boothsam.runtime.transforms import FloatArray, Uint8Array
from boothsam.service.detections import Box
from boothsam.service.prompts import Answer

_LONGEST_SLEEP_S = 60.0
KEPT_LOGITS = 24  # masks per photo that can be refined: eight answers of three


@dataclass(frozen=True)
class EarlierMask:
    """One mask of an earlier answer.

    logits: (1, 256, 256) float32. iou_prediction: the model's own estimate. asked: the prompt, for JSON, in the words
    of `prompts.Answer.facts`.
    """

    logits: FloatArray
    iou_prediction: float
    asked: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, limits: Box | None = None) -> Answer:
        """The same as the model's answer now. limits: a box in photo pixels instead of the one it was asked with."""
        asked = self.asked.get("box_xyxy")
        box = limits if limits is not None else None if asked is None else (asked[0], asked[1], asked[2], asked[3])
        return Answer(self.logits, np.array([self.iou_prediction], np.float32), 0, box, dict(self.asked))


@dataclass
class Entry:
    """One photo's embedding. masks: by logits id, oldest first. photo: the upload, where it is kept."""

    embedding: ImageEmbedding
    used: float
    masks: OrderedDict[str, EarlierMask] = field(default_factory=OrderedDict)
    photo: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Bytes on device and host."""
        return self.embedding.nbytes + sum(mask.logits.nbytes for mask in self.masks.values()) + len(self.photo or b"")


def embedding_id(photo_sha256: str, model_key: str, precision: str, resize: str = "exact") -> str:
    """64 hex digits that name one photo as one model sees it."""
    return hashlib.sha256(f"{photo_sha256}:{model_key}:{precision}:{resize}".encode()).hexdigest()


def logits_id(logits: FloatArray) -> str:
    """32 hex digits: a content hash of one mask's logits."""
    return hashlib.sha256(logits.tobytes()).hexdigest()[:32]


class EmbeddingCache:
    """Least recently used first out; safe to use from any thread.

    max_bytes: 0 keeps nothing. ttl_s: seconds after its last use that an embedding is kept. pixel_bytes: decoded pixels
    of kept photos, beside max_bytes. clock: seconds, monotonic.
    """

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic, *, pixel_bytes: int = 0
    ) -> None:
        self.max_bytes, self.ttl_s, self.pixel_bytes = max_bytes, ttl_s, pixel_bytes
        self.hits = self.misses = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._pixels: OrderedDict[str, Uint8Array] = OrderedDict()
        self._making: dict[str, Future[ImageEmbedding]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes held, without the pixels."""
        with self._lock:
            self._expire()
            return self._held()

    @property
    def pixel_nbytes(self) -> int:
        """Bytes of decoded pixels held."""
        with self._lock:
            self._expire()
            return self._held_pixels()

    def expire(self) -> None:
        """Drop what nobody used for `ttl_s`; every other call does it too."""
        with self._lock:
            self._expire()

    async def keep_expiring(self) -> None:
        """Forever: drop what is too old, so that a visitor's photo is gone in time although nobody comes after."""
        while True:
            await asyncio.sleep(min(self.ttl_s / 4, _LONGEST_SLEEP_S))
            self.expire()

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

    def remember(self, key: str, mask: EarlierMask) -> str | None:
        """Keep one mask for a later question; its id, None when the photo is gone."""
        with self._lock:
            entry = self._find(key)
            if entry is None:
                return None
            name = logits_id(mask.logits)
            entry.masks[name] = mask
            entry.masks.move_to_end(name)
            while len(entry.masks) > KEPT_LOGITS:
                entry.masks.popitem(last=False)
            self._shrink()
            return name if key in self._entries else None

    def recall(self, key: str, name: str) -> EarlierMask | None:
        """A mask of an earlier answer, None when it is gone or was never there."""
        with self._lock:
            entry = self._find(key)
            return None if entry is None else entry.masks.get(name)

    def keep_photo(self, key: str, photo: bytes) -> bool:
        """Keep the upload beside its embedding; False when that is gone, or when the two exceed the cache together."""
        with self._lock:
            entry = self._find(key)
            if entry is None:
                return False
            if entry.photo is None:
                if entry.nbytes + len(photo) > self.max_bytes:
                    return False  # the embedding alone is worth more than neither
                entry.photo = photo
                self._shrink()
            return True

    def photo(self, key: str) -> bytes | None:
        """The kept upload, None when there is none."""
        with self._lock:
            entry = self._find(key)
            return None if entry is None else entry.photo

    def keep_pixels(self, key: str, image: Uint8Array) -> None:
        """Keep a kept photo's (H, W, 3) pixels as well, while `pixel_bytes` lasts; read-only from now on."""
        with self._lock:
            entry = self._find(key)
            if entry is None or entry.photo is None or image.nbytes > self.pixel_bytes:
                return
            image.flags.writeable = False  # several cut-outs read it at once
            self._pixels[key] = image
            self._pixels.move_to_end(key)
            held = self._held_pixels()
            while held > self.pixel_bytes:
                held -= self._pixels.popitem(last=False)[1].nbytes

    def pixels(self, key: str) -> Uint8Array | None:
        """(H, W, 3) uint8 of a kept photo, None when it has to be decoded."""
        with self._lock:
            if self._find(key) is None or key not in self._pixels:
                return None
            self._pixels.move_to_end(key)
            return self._pixels[key]

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._entries.clear()
            self._pixels.clear()

    def _find(self, key: str) -> Entry | None:
        self._expire()
        entry = self._entries.get(key)
        if entry is not None:
            entry.used = self._clock()
            self._entries.move_to_end(key)
        return entry

    def _expire(self) -> None:
        now = self._clock()
        # Oldest first: the first one that is young enough ends the search.
        while self._entries and now - next(iter(self._entries.values())).used > self.ttl_s:
            self._drop_oldest()

    def _held(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())

    def _held_pixels(self) -> int:
        return sum(image.nbytes for image in self._pixels.values())

    def _shrink(self) -> None:
        held = self._held()
        while self._entries and held > self.max_bytes:
            held -= self._drop_oldest()

    def _drop_oldest(self) -> int:
        key, entry = self._entries.popitem(last=False)
        self._pixels.pop(key, None)
        return entry.nbytes
