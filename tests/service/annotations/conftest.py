"""Folders of drawn photos, stores over them, and a service that annotates one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import save_image
from boothsam.runtime.masks import BoolArray
from boothsam.service.annotations.drawing import Drawn, draw
from boothsam.service.annotations.store import AnnotationStore
from PIL import Image
from starlette.testclient import TestClient

from tests.service.conftest import RED, disc
from tests.service.http_client import service

SIZE = (400, 600)
Open = Callable[..., AnnotationStore]


def draw_photo(path: Path, centre: tuple[int, int] = (400, 150), radius: int = 80) -> None:
    """A red disc on grey, 600x400."""
    image = np.full((*SIZE, 3), 230, np.uint8)
    disc(image, centre, radius, RED)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, image, quality=95)


def rectangle(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = SIZE) -> BoolArray:
    mask = np.zeros(size, np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def drawn(*corners: int, category: int = 1, score: float | None = 0.9) -> Drawn:
    return draw(rectangle(*corners), category, score)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def keys(store: AnnotationStore) -> dict[str, str]:
    return {entry.photo.name: entry.photo.key for entry in store.entries()}


def png(store: AnnotationStore, name: str) -> Any:
    """A mask's file as Pillow reads it."""
    with Image.open(store.layout.masks / name) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """photo-1.png, photo-2.jpg, photo-10.jpg."""
    photos = tmp_path / "photos"
    for number, name in enumerate(("photo-1.png", "photo-2.jpg", "photo-10.jpg")):
        draw_photo(photos / name, (150 + 100 * number, 150))
    return photos


@pytest.fixture
def open_store(folder: Path) -> Iterator[Open]:
    """Open stores over `folder`; all are closed at the end."""
    opened: list[AnnotationStore] = []

    def open_one(photos: Path = folder, **options: Any) -> AnnotationStore:
        opened.append(AnnotationStore.open(photos, options.pop("out", photos / "annotations"), **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> AnnotationStore:
    return open_store()


@pytest.fixture
def client(color_folder: Path, folder: Path) -> Iterator[TestClient]:
    """A ready service that annotates `folder`."""
    with service(color_folder, annotate_dir=folder, min_free_bytes=0) as started:
        yield started
