"""The store while others work on the same folder: slow disks, exports, a service that ends."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from boothsam.service.annotations import files as files_module
from boothsam.service.annotations import store as store_module
from boothsam.service.annotations.coco import read_export
from boothsam.service.annotations.files import Layout
from boothsam.service.annotations.photos import Photo
from boothsam.service.annotations.records import NoSuchPhoto, StorageFailed, StoreUnusable
from boothsam.service.annotations.store import AnnotationStore

from tests.service.annotations.conftest import Open, drawn
from tests.service.annotations.test_store import BOX, save, status


def test_a_photo_that_cannot_be_read_does_not_hide_the_others(
    open_store: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    save(store, "photo-1.png", drawn(*BOX))
    save(store, "photo-2.jpg", drawn(*BOX))
    store.close()
    for name in ("photo-1.png", "photo-2.jpg"):
        os.utime(folder / name, (1, 1))
    real = Photo.sha256

    def sha256(photo: Photo) -> str:
        if photo.name == "photo-1.png":
            raise NoSuchPhoto(f"{photo.name} cannot be read: permission denied")
        return real(photo)

    monkeypatch.setattr(Photo, "sha256", sha256)
    found = status(open_store())
    assert found == {"photo-1.png": "changed", "photo-2.jpg": "done", "photo-10.jpg": "open"}


def test_a_slow_listing_stops_nobody_from_saving(store: AnnotationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real, begun, go_on = store_module.list_photos, threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return real(*args)

    monkeypatch.setattr(store_module, "list_photos", slow)
    listing = threading.Thread(target=store.scan)
    listing.start()
    try:
        assert begun.wait(30)
        saving = threading.Thread(target=save, args=(store, "photo-1.png", drawn(*BOX)))
        saving.start()
        saving.join(30)
        assert not saving.is_alive()
    finally:
        go_on.set()
        listing.join()
    assert status(store)["photo-1.png"] == "done"


def test_closing_waits_for_a_save_and_lets_none_begin(
    store: AnnotationStore, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun, go_on = os.fsync, threading.Event(), threading.Event()

    def fsync(descriptor: int) -> None:
        begun.set()
        assert go_on.wait(30)
        real(descriptor)

    monkeypatch.setattr(files_module.os, "fsync", fsync)
    saving = threading.Thread(target=save, args=(store, "photo-1.png", drawn(*BOX)))
    saving.start()
    assert begun.wait(30)
    closing = threading.Thread(target=store.close)
    closing.start()
    closing.join(0.05)
    with pytest.raises(StoreUnusable, match="another process"):
        open_store()
    go_on.set()
    for thread in (saving, closing):
        thread.join(30)
    with pytest.raises(StorageFailed, match="shutting down"):
        save(store, "photo-2.jpg", drawn(*BOX))
    assert status(open_store()) == {"photo-1.png": "done", "photo-2.jpg": "open", "photo-10.jpg": "open"}


@pytest.mark.parametrize("meanwhile", ["saved", "forgotten"])
def test_an_export_beside_a_save_loses_no_photo(
    store: AnnotationStore, folder: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """The record is read, then its masks are replaced, then they are looked for."""
    for name in ("photo-1.png", "photo-2.jpg"):
        save(store, name, drawn(*BOX))
    real, changed = files_module._inside, threading.Event()

    def inside(layout: Layout, name: str) -> bool:
        if not changed.is_set():
            changed.set()
            for photo in ("photo-1.png", "photo-2.jpg"):
                save(store, photo, *([drawn(5, 5, 9, 9)] if meanwhile == "saved" else []), done=meanwhile == "saved")
        return real(layout, name)

    monkeypatch.setattr(files_module, "_inside", inside)
    if meanwhile == "forgotten":
        found = read_export(folder, store.layout.folder)
        assert [item.why for item in found.left_out] == ["not annotated"] * 3
        return
    found = read_export(folder, store.layout.folder)
    assert [item.why for item in found.left_out] == ["not annotated"]  # photo-10
    assert [made["bbox"] for made in found.dataset()["annotations"]] == [[5, 5, 4, 4]] * 2


def test_a_mask_that_goes_during_an_export_is_told_as_that(store: AnnotationStore, folder: Path) -> None:
    save(store, "photo-1.png", drawn(*BOX))
    found = read_export(folder, store.layout.folder)
    save(store, "photo-1.png", drawn(5, 5, 9, 9))
    with pytest.raises(StorageFailed, match="went while it was exported"):
        found.dataset()
