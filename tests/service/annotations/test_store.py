"""The store: what is saved, what is found again, and what a crash, a full disk or another photo cannot do to it."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from boothsam.runtime.images import load_image
from boothsam.service.annotations import files as files_module
from boothsam.service.annotations.drawing import decode_rle
from boothsam.service.annotations.records import (
    CategoryInUse,
    DamagedRecord,
    DiskLow,
    NoSuchPhoto,
    PhotoChanged,
    PhotoRecord,
    StorageFailed,
    StoreUnusable,
    WrongAnnotation,
)
from boothsam.service.annotations.store import AnnotationStore, Kept

from tests.service.annotations.conftest import SIZE, Open, draw_photo, drawn, keys, png, rectangle, sha256

BOX = (10, 20, 110, 70)


def save(store: AnnotationStore, name: str, *objects: object, done: bool = True) -> None:
    store.save(keys(store)[name], sha256(store.photos_folder / name), SIZE, objects, done=done)  # type: ignore[arg-type]


def status(store: AnnotationStore) -> dict[str, str]:
    return {entry.photo.name: entry.status for entry in store.entries()}


def test_masks_are_png_files_beside_a_coco_record(store: AnnotationStore) -> None:
    save(store, "photo-2.jpg", drawn(*BOX), drawn(200, 100, 260, 300, score=None))
    first, second = store.entry(keys(store)["photo-2.jpg"]).objects
    assert (first.file, second.file) == ("photo-2-1.png", "photo-2-2.png")
    found = png(store, first.file)
    assert found.shape == SIZE and set(np.unique(found)) == {0, 255}
    assert ((found == 255) == rectangle(*BOX)).all()
    assert (first.bbox, first.area, first.score, second.score) == ((10, 20, 100, 50), 5000, 0.9, None)
    assert first.sha256 == sha256(store.layout.masks / first.file)
    assert (decode_rle(SIZE, first.segmentation["counts"]) == rectangle(*BOX)).all()
    (path,) = store.layout.records.iterdir()
    body = json.loads(path.read_text())
    assert body["name"] == "photo-2.jpg" and body["size_hw"] == [400, 600] and body["status"] == "done"
    assert [found["bbox"] for found in body["objects"]] == [[10, 20, 100, 50], [200, 100, 60, 200]]


def test_it_goes_on_where_it_stopped(open_store: Open) -> None:
    store = open_store()
    save(store, "photo-1.png", drawn(*BOX))
    save(store, "photo-2.jpg", drawn(*BOX), done=False)
    store.skip(keys(store)["photo-10.jpg"])
    store.set_categories([(1, "mug"), (None, "bottle")])
    before = [entry.record for entry in store.entries()]
    store.close()
    again = open_store()
    assert [entry.record for entry in again.entries()] == before
    assert status(again) == {"photo-1.png": "done", "photo-2.jpg": "started", "photo-10.jpg": "skipped"}
    assert [(c.id, c.name) for c in again.categories] == [(1, "mug"), (2, "bottle")]
    counts = again.progress()
    assert (counts["total"], counts["done"], counts["started"], counts["skipped"]) == (3, 1, 1, 1)
    assert counts["objects"] == 2


def test_objects_are_kept_changed_and_removed(store: AnnotationStore) -> None:
    store.set_categories([(1, "mug"), (None, "lid")])
    name, masks = "photo-1.png", store.layout.masks
    save(store, name, drawn(*BOX), drawn(0, 0, 50, 50), done=False)
    save(store, name, Kept(2, 2), drawn(100, 100, 200, 200))
    objects = store.entry(keys(store)[name]).objects
    assert [(found.id, found.category_id, found.file) for found in objects] == [
        (2, 2, "photo-1-2.png"),
        (3, 1, "photo-1-3.png"),
    ]
    assert sorted(path.name for path in masks.iterdir()) == ["photo-1-2.png", "photo-1-3.png"]
    save(store, name, done=False)
    assert status(store)[name] == "open" and not list(masks.iterdir()) and not list(store.layout.records.iterdir())
    save(store, name, done=True)
    assert status(store)[name] == "done", "a photo without products is a finding too"


@pytest.mark.parametrize(
    "objects", [[Kept(7, 1)], [Kept(1, 1), Kept(1, 1)], [Kept(1, 9)], [drawn(*BOX, category=9)], [drawn(*BOX)] * 201]
)
def test_mistakes_change_nothing(store: AnnotationStore, objects: list[object]) -> None:
    save(store, "photo-1.png", drawn(*BOX))
    before = store.entry(keys(store)["photo-1.png"]).record
    with pytest.raises(WrongAnnotation):
        save(store, "photo-1.png", *objects)
    assert store.entry(keys(store)["photo-1.png"]).record == before
    assert [path.name for path in store.layout.masks.iterdir()] == ["photo-1-1.png"]


def test_another_photo_under_the_same_name_is_found_out(open_store: Open, folder: Path) -> None:
    store = open_store()
    save(store, "photo-1.png", drawn(*BOX))
    old = sha256(folder / "photo-1.png")
    draw_photo(folder / "photo-1.png", (60, 60), 30)
    store.scan()
    assert status(store)["photo-1.png"] == "changed"
    key = keys(store)["photo-1.png"]
    assert not store.entry(key).objects and store.progress()["changed"] == 1
    with pytest.raises(PhotoChanged):
        store.save(key, old, SIZE, [], done=True)
    store.close()
    store = open_store()
    assert status(store)["photo-1.png"] == "changed"
    with pytest.raises(WrongAnnotation):  # the old photo's objects are not this one's
        save(store, "photo-1.png", Kept(1, 1))
    save(store, "photo-1.png", drawn(0, 0, 20, 20))
    (found,) = store.entry(key).objects
    assert status(store)["photo-1.png"] == "done" and found.file == "photo-1-2.png"
    assert [path.name for path in store.layout.masks.iterdir()] == ["photo-1-2.png"]


def test_a_replacement_of_the_same_size_and_time_is_found_when_it_is_opened(
    store: AnnotationStore, folder: Path
) -> None:
    path, key = folder / "photo-1.png", keys(store)["photo-1.png"]
    save(store, "photo-1.png", drawn(*BOX))
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    store.digest(key)
    assert store.entry(key).status == "changed"


def test_a_touched_photo_keeps_its_annotations(open_store: Open, folder: Path) -> None:
    store = open_store()
    save(store, "photo-1.png", drawn(*BOX))
    os.utime(folder / "photo-1.png", ns=(1, 1))
    store.scan()
    assert status(store)["photo-1.png"] == "done"
    store.close()
    assert status(open_store())["photo-1.png"] == "done"


def test_photos_come_and_go(store: AnnotationStore, folder: Path) -> None:
    save(store, "photo-1.png", drawn(*BOX))
    kept = (folder / "photo-1.png").rename(folder.parent / "away.png")
    draw_photo(folder / "photo-3.png")
    store.scan()
    assert list(status(store)) == ["photo-2.jpg", "photo-3.png", "photo-10.jpg"]
    assert store.progress()["missing"] == 1
    with pytest.raises(NoSuchPhoto):
        store.entry("0" * 32)
    kept.rename(folder / "photo-1.png")
    store.scan()
    assert status(store)["photo-1.png"] == "done", "it came back, and so did its annotations"
    (folder / "photo-3.png").unlink()
    with pytest.raises(NoSuchPhoto):
        store.skip(keys(store)["photo-3.png"])


def test_photos_of_one_stem_do_not_share_masks(store: AnnotationStore, folder: Path) -> None:
    save(store, "photo-1.png", drawn(*BOX))
    draw_photo(folder / "photo-1.jpg")
    draw_photo(folder / "shelf" / "photo-1.png")
    store.scan()
    save(store, "photo-1.jpg", drawn(0, 0, 9, 9))
    save(store, "shelf/photo-1.png", drawn(0, 0, 5, 5))
    names = {entry.photo.name: entry.objects[0].file for entry in store.entries() if entry.objects}
    assert names["photo-1.png"] == "photo-1-1.png" and names["shelf/photo-1.png"] == "shelf/photo-1-1.png"
    assert names["photo-1.jpg"].startswith("photo-1.jpg-")
    assert png(store, names["photo-1.png"]).sum() == 255 * 5000
    assert png(store, names["photo-1.jpg"]).sum() == 255 * 81


def test_categories(store: AnnotationStore) -> None:
    assert [(c.id, c.name) for c in store.categories] == [(1, "product")]
    store.set_categories([(None, "bottle"), (1, "mug")])
    assert [(c.id, c.name) for c in store.categories] == [(2, "bottle"), (1, "mug")]
    save(store, "photo-1.png", drawn(*BOX, category=2))
    with pytest.raises(CategoryInUse, match="bottle"):
        store.set_categories([(1, "mug")])
    store.set_categories([(2, "flask")])
    store.set_categories([(2, "flask"), (None, "new")])
    assert [(c.id, c.name) for c in store.categories] == [(2, "flask"), (3, "new")], "1 is never given again"
    for wrong in ([], [(9, "x")], [(2, "a"), (None, "a")], [(2, " ")], [(2, "a\nb")], [(2, "x" * 65)], [(2, "\ud800")]):
        with pytest.raises(WrongAnnotation):
            store.set_categories(wrong)


def test_lost_categories_keep_their_objects(open_store: Open) -> None:
    store = open_store()
    store.set_categories([(1, "mug"), (None, "lid")])
    save(store, "photo-1.png", drawn(*BOX, category=2))
    store.close()
    store.layout.categories.unlink()
    again = open_store()
    assert [(c.id, c.name) for c in again.categories] == [(1, "product"), (2, "category-2")]
    again.close()
    again.layout.categories.write_text('{"categories": 7}')
    with pytest.raises(DamagedRecord, match="categories") as caught:
        open_store()
    assert "rm " in str(caught.value.hint)


def test_only_one_process_writes(open_store: Open) -> None:
    open_store()
    with pytest.raises(StoreUnusable, match="another process") as caught:
        open_store()
    assert caught.value.hint


# Crashes and disks


def test_what_a_crash_left_is_put_aside(open_store: Open, folder: Path) -> None:
    store = open_store()
    for name in ("photo-1.png", "photo-2.jpg", "photo-10.jpg"):
        save(store, name, drawn(*BOX))
    store.close()
    layout = store.layout
    (layout.incoming / "half").write_bytes(b"x")
    (layout.masks / "photo-1-2.png").write_bytes(b"x")  # written, but the record was not
    record = layout.record(keys(store)["photo-2.jpg"])
    record.write_bytes(record.read_bytes()[:100])
    (layout.masks / "photo-10-1.png").unlink()
    again = open_store()
    assert status(again) == {"photo-1.png": "done", "photo-2.jpg": "open", "photo-10.jpg": "open"}
    assert not any(layout.incoming.iterdir())
    assert sorted(path.name for path in layout.masks.iterdir()) == ["photo-1-1.png"]
    aside = sorted(path.name.rpartition(".")[0] for path in layout.quarantine.iterdir())
    names = [f"{keys(again)[name]}.json" for name in ("photo-2.jpg", "photo-10.jpg")]
    assert aside == sorted(["photo-1-2.png", "photo-2-1.png", *names])
    save(again, "photo-2.jpg", drawn(0, 0, 5, 5))
    assert status(again)["photo-2.jpg"] == "done"


def test_a_record_never_names_a_file_outside(open_store: Open, folder: Path) -> None:
    store = open_store()
    save(store, "photo-1.png", drawn(*BOX))
    store.close()
    record = store.layout.record(keys(store)["photo-1.png"])
    record.write_text(record.read_text().replace("photo-1-1.png", "../../photo-1.png"))
    assert status(open_store())["photo-1.png"] == "open"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_changes_nothing(
    store: AnnotationStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    save(store, "photo-1.png", drawn(*BOX))
    real, calls = os.fsync, iter(range(1000))
    for failing in range(4):  # the mask, its folder, the record, its folder
        key = keys(store)["photo-1.png"]
        before = store.entry(key).record
        assert before is not None
        calls = iter(range(1000))

        def fsync(descriptor: int, calls: object = calls, failing: int = failing) -> None:
            if next(calls) == failing:  # type: ignore[call-overload]
                raise OSError(code, os.strerror(code))
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(files_module.os, "fsync", fsync)
            with pytest.raises(DiskLow if code == errno.ENOSPC else StorageFailed) as caught:
                save(store, "photo-1.png", Kept(before.objects[0].id, 1), drawn(5, 5, 9, 9))
        assert caught.value.hint
        assert store.entry(key).record == before
        assert all((store.layout.masks / found.file).is_file() for found in before.objects)
        on_disk = PhotoRecord.decode(store.layout.record(key).read_bytes())
        assert all(sha256(store.layout.masks / found.file) == found.sha256 for found in on_disk.objects)
        save(store, "photo-1.png", drawn(*BOX), drawn(7, 7, 9, 9))  # and it goes on


def test_room_is_kept_on_the_disk(open_store: Open) -> None:
    store = open_store(min_free_bytes=1 << 60)
    with pytest.raises(DiskLow, match="must stay free"):
        save(store, "photo-1.png", drawn(*BOX))
    assert not list(store.layout.masks.iterdir())


def test_the_longest_names_have_masks_too(store: AnnotationStore, folder: Path) -> None:
    name = "é" * 125 + ".jpg"  # 254 bytes of the 255 that file systems take
    draw_photo(folder / "sub" / name)
    store.scan()
    save(store, f"sub/{name}", drawn(*BOX))
    key = keys(store)[f"sub/{name}"]
    assert [found.file for found in store.entry(key).objects] == [f"sub/{key}-1.png"]


WRITER = """
import sys
from pathlib import Path
import numpy as np
from boothsam.service.annotations.drawing import draw
from boothsam.service.annotations.store import AnnotationStore, Kept
photos = Path(sys.argv[1])
store = AnnotationStore.open(photos, photos / "annotations")
found = {entry.photo.name: entry.photo.key for entry in store.entries()}
numbers = dict.fromkeys(found, 0)
while True:
    for name, key in found.items():
        kept = store.entry(key).objects[-1:]
        numbers[name] += 1
        mask = np.zeros((400, 600), bool)
        mask[:10, : 10 + numbers[name] % 300] = True
        objects = [*(Kept(o.id, 1) for o in kept), draw(mask, 1, 0.9)]
        made = store.save(key, store.digest(key), mask.shape, objects, done=True)
        print(name, ",".join(f"{o.id}:{o.sha256}" for o in made.objects), flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(folder: Path, open_store: Open) -> None:
    chance = random.Random(7)
    root = Path(__file__).parents[3]
    acknowledged = 0
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=root
        )
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(chance.uniform(0.01, 0.2))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        last = {words[0]: words[1] for line in lines if line.endswith("\n") and len(words := line.split()) == 2}
        acknowledged += len(lines)
        store = open_store()
        for entry in store.entries():
            assert all(sha256(store.layout.masks / found.file) == found.sha256 for found in entry.objects)
            assert all((load_image(store.layout.masks / o.file)[..., 0] > 0).sum() == o.area for o in entry.objects)
            told = last.get(entry.photo.name)
            if told is not None:
                state = {f"{found.id}:{found.sha256}" for found in entry.objects}
                newest = told.split(",")[-1]
                # What was told is there, or was replaced by the one save that the kill left untold.
                assert newest in state, (told, state)
        store.close()
    assert acknowledged > 10
