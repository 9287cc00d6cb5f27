"""A store of its own for each test, and small files to put into it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boothsam.service.captures.records import Capture, Content
from boothsam.service.captures.store import CaptureStore

FINGERPRINT = "f" * 64
Open = Callable[..., CaptureStore]


def contents(name: str, size: int = 3000) -> dict[str, Content]:
    """Files of a capture that no other name has."""
    block = hashlib.sha256(name.encode()).digest()
    photo = (block * (size // 32 + 1))[:size]
    return {
        "original": Content(photo, ".jpg"),
        "mask": Content(block * 3, ".png"),
        "cutout": Content(block * 5, ".png"),
    }


def put(store: CaptureStore, name: str, *, size: int = 3000, key: str | None = None, **facts: Any) -> Capture:
    """Store a capture and wait for it."""
    future = store.add(contents(name, size), {"sku": name} | facts, fingerprint=FINGERPRINT, key=key)
    return future.result(30).capture


def assert_whole(store: CaptureStore, capture: Capture, name: str, size: int = 3000) -> None:
    """The capture is listed, and its files hold what was put in."""
    assert store.get(capture.id) == capture
    for role, content in contents(name, size).items():
        assert store.path(capture, role).read_bytes() == content.data


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    """Open stores, by default in one folder; all are closed at the end."""
    opened: list[CaptureStore] = []

    def open_one(folder: Path = tmp_path / "captures", **options: Any) -> CaptureStore:
        store = CaptureStore.open(folder, **{"min_free_bytes": 0, "reserve_bytes": 4096} | options)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> CaptureStore:
    """An open, empty store."""
    return open_store()
