"""What may happen to a booth's computer, each as a test: power, disk, database, clock."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from boothsam.service.captures import store as store_module
from boothsam.service.captures.index import Index
from boothsam.service.captures.records import CaptureError, DiskLow, StorageFailed, StoreUnusable
from boothsam.service.captures.store import CaptureStore

from benchmarks.kill_captures import run
from tests.service.captures.conftest import FINGERPRINT, Open, assert_whole, contents, put


def _mount(folder: Path, *options: str) -> None:
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 4 MB; not below pytest's own folder, whose cleaning would stumble over it."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here")
    folder = Path(tempfile.mkdtemp(prefix="boothsam-small-disk-"))
    try:
        _mount(folder, "-t", "tmpfs", "-o", "size=4m", "tmpfs")
        yield folder
    finally:
        while subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False).returncode == 0:
            pass
        folder.rmdir()


# Power


def test_kill_9_at_fifty_random_points(tmp_path: Path) -> None:
    *_, tally = run(tmp_path / "captures", kills=50, seed=4)
    assert tally.kills == 50
    assert tally.acknowledged > 10 and tally.deleted > 0, "the kills came before anything happened"
    assert (tally.lost, tally.half_files, tally.resurrected, tally.disorder) == (0, 0, 0, 0)


# Disk


def test_disk_of_four_megabytes_fills_up(small_disk: Path, open_store: Open) -> None:
    options = {"folder": small_disk / "captures", "reserve_bytes": 128 << 10, "min_free_bytes": 256 << 10}
    store = open_store(**options, target="url:http://127.0.0.1:1/")
    stored = {}
    with pytest.raises(DiskLow, match="must stay free"):
        for number in range(100):
            name = f"photo-{number}"
            stored[name] = put(store, name, size=300_000)
    assert 5 <= len(stored) < 14
    free = os.statvfs(small_disk)
    assert free.f_bavail * free.f_frsize >= 256 << 10, "room was kept"
    for name, capture in stored.items():
        assert_whole(store, capture, name, 300_000)
    assert store.check(deep=True).sound
    # Books can still be kept, and what was forwarded can go; then there is room again.
    first = stored.pop("photo-0")
    store.mark(first.seq, "delivered", 0).result(30)
    store.delete(first.id).result(30)
    stored["later"] = put(store, "later", size=300_000)
    store.close()
    again = open_store(**options)
    assert {capture.id for capture in again.page()} == {capture.id for capture in stored.values()}


def test_disk_filled_to_the_last_byte_by_others(small_disk: Path, open_store: Open) -> None:
    store = open_store(small_disk / "captures", reserve_bytes=512 << 10, target="url:http://127.0.0.1:1/")
    captures = {f"n{i}": put(store, f"n{i}", size=100_000) for i in range(4)}
    assert store.layout.reserve.stat().st_size == 512 << 10
    with pytest.raises(OSError, match="No space"), (small_disk / "log of somebody").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(DiskLow):
        put(store, "one more", size=100_000)
    assert not any(store.layout.incoming.iterdir()), "nothing was left behind"
    assert store.check(deep=True).sound
    store.close()
    store = open_store(small_disk / "captures", reserve_bytes=512 << 10, target="url:http://127.0.0.1:1/")
    assert len(store.page()) == 4, "a full disk does not stop the service from starting"
    # With not a byte free, the reserve lets the index go on: many rows are written, and one capture goes.
    for capture in captures.values():
        for attempt in range(50):
            store.mark(capture.seq, "pending", attempt, "x" * 400).result(30)
    store.mark(captures["n0"].seq, "delivered", 50).result(30)
    store.delete(captures["n0"].id).result(30)
    assert not store.layout.reserve.exists()
    (small_disk / "log of somebody").unlink()
    put(store, "one more", size=100_000)
    assert store.layout.reserve.stat().st_size == 512 << 10, "the reserve is back"


def test_an_index_that_cannot_grow_leaves_no_half_capture(store: CaptureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a")
    index = store._index_of_writer
    pages = index.pragma("page_count")
    index._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then answers "database or disk is full"
    with pytest.raises(DiskLow):
        for number in range(100):
            put(store, f"n{number}", note="x" * 3000)
    assert store.check(deep=True).sound
    index._db.execute("PRAGMA max_page_count = 1000000")
    put(store, "b")
    assert store.check(deep=True).sound


def test_a_deletion_that_fails_leaves_the_capture_whole(store: CaptureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = put(store, "a")

    def broken(self: Index, seq: int) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Index, "remove", broken)
    with pytest.raises(StorageFailed, match="disk I/O"):
        store.delete(capture.id).result(30)
    assert_whole(store, capture, "a")
    assert store.check(deep=True).sound


def test_a_disk_that_cannot_sync_gets_no_acknowledgement(store: CaptureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a")
    real = os.fsync

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageFailed, match="Input/output"):
        put(store, "b")
    monkeypatch.setattr(os, "fsync", real)
    assert len(store.page()) == 1
    assert store.check(deep=True).sound
    assert not any(store.layout.incoming.iterdir())


def test_read_only_folder(small_disk: Path, open_store: Open) -> None:
    store = open_store(small_disk / "captures")
    capture = put(store, "a")
    store.close()
    _mount(small_disk, "-o", "remount,ro")
    with pytest.raises(StoreUnusable, match="read-only") as caught:
        open_store(small_disk / "captures")
    assert "BOOTHSAM_CAPTURES_DIR" in str(caught.value.hint)
    _mount(small_disk, "-o", "remount,rw")
    assert_whole(open_store(small_disk / "captures"), capture, "a")


def test_folder_without_permission(tmp_path: Path, open_store: Open) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; the read-only mount shows the same")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(StoreUnusable, match="permission denied"):
        open_store(folder / "captures")


def test_file_system_that_turns_read_only_at_work(small_disk: Path, open_store: Open) -> None:
    store = open_store(small_disk / "captures")
    capture = put(store, "a")
    _mount_forced_read_only(small_disk)
    with pytest.raises(StorageFailed, match=r"(?i)read-only"):
        put(store, "b")
    assert_whole(store, capture, "a")  # what was stored can still be looked at
    _mount(small_disk, "-o", "remount,rw")
    put(store, "b")
    assert store.check(deep=True).sound


def _mount_forced_read_only(folder: Path) -> None:
    # A plain remount is refused while files are open for writing; a kernel that meets a broken disk does not ask.
    bound = subprocess.run(["mount", "-o", "remount,ro", str(folder)], capture_output=True, text=True, check=False)
    if bound.returncode:
        bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False)
        _mount(folder, "-o", "remount,ro,bind")


# Database


def _garbage_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 200] = os.urandom(200)
    path.write_bytes(data)


CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "garbage in the middle": _garbage_in_the_middle,
    "garbage in the header": lambda path: path.write_bytes(os.urandom(100) + path.read_bytes()[100:]),
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2 + 100),
    "no database at all": lambda path: path.write_bytes(b"<html>"),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("spoil", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_corrupted_database_is_rebuilt_from_sidecars(open_store: Open, spoil: Callable[[Path], object]) -> None:
    store = open_store()
    captures = {f"n{i}": put(store, f"n{i}", key=f"key-{i}") for i in range(12)}
    newest = put(store, "newest")
    store.delete(newest.id).result(30)
    store.close()
    spoil(store.layout.index)
    again = open_store()
    assert again.found.rebuilt == 12 and again.found.index
    assert again.page() == list(captures.values())
    for name, capture in captures.items():
        assert_whole(again, capture, name)
    assert again.find_key("key-3") == captures["n3"]
    assert put(again, "next").seq > newest.seq, "a number was used twice"
    assert again.check(deep=True).sound
    if again.found.index != "missing":
        kept = again.layout.quarantine / "index-1" / "index.sqlite3"
        assert kept.is_file(), "the damaged index was thrown away"
    again.close()
    assert open_store().found.sound


def test_database_corrupted_at_work_is_rebuilt(open_store: Open) -> None:
    store = open_store(target="url:http://127.0.0.1:1/")
    captures = [put(store, f"n{i}") for i in range(8)]
    store._index_of_writer._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _garbage_in_the_middle(store.layout.index)
    # SQLite has pages cached; whoever meets a damaged one first rebuilds, and nobody else notices.
    store._index_of_writer._db.execute("PRAGMA shrink_memory")
    later = [put(store, f"later{i}") for i in range(8)]
    assert store.page() == captures + later
    assert len(store.deliveries("pending")) == 16
    assert (store.layout.quarantine / "index-1" / "index.sqlite3").is_file()
    assert store.check(deep=True).sound


def test_a_full_or_locked_disk_is_not_taken_for_a_corrupted_database(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    put(store, "a")
    store.close()

    def refuse(path: Path) -> Index:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(Index, "open", refuse)
    with pytest.raises(StoreUnusable, match="unable to open"):
        open_store()
    assert not store.layout.quarantine.exists()


def test_half_sidecar_is_put_aside_and_its_photo_kept(open_store: Open) -> None:
    store = open_store()
    good, bad = put(store, "good"), put(store, "bad")
    store.close()
    sidecar = store.layout.sidecar(bad)
    sidecar.write_bytes(sidecar.read_bytes()[:100])
    store.layout.index.write_bytes(b"broken")
    again = open_store()
    assert again.page() == [good]
    assert again.found.bad_sidecars == [str(sidecar.relative_to(store.layout.folder))]
    assert (store.layout.quarantine / sidecar.name).is_file()
    for file in bad.files.values():  # nobody knows any more what they belong to; that is no reason to delete them
        assert (store.layout.quarantine / Path(file.name).name).is_file()


def test_lost_sidecar_is_written_again_from_the_row(open_store: Open) -> None:
    store = open_store()
    capture = put(store, "a")
    store.layout.sidecar(capture).unlink()
    assert store.check().sidecars == [capture.id]
    assert store.repair().result(30).sidecars == [capture.id]
    assert store.layout.sidecar(capture).read_bytes() == capture.encode()
    assert store.check(deep=True).sound


def test_changed_and_missing_files_are_told(open_store: Open) -> None:
    store = open_store()
    changed, missing, fine = (put(store, name) for name in ("changed", "missing", "fine"))
    store.path(changed, "original").write_bytes(b"?" * 3000)
    store.path(missing, "mask").unlink()
    assert store.check().lost == [missing.id]
    assert store.check(deep=True).lost == [changed.id, missing.id]
    assert_whole(store, fine, "fine")


# Clock


def test_clock_jumps_do_not_change_the_order(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [1_800_000_000.0, 1_800_086_400.0, 1_799_913_600.0, 0.0, 4_000_000_000.0, 1_800_000_100.0]
    store = open_store()
    captures = []
    for number, moment in enumerate(moments):
        monkeypatch.setattr(store_module.time, "time", lambda moment=moment: moment)
        captures.append(put(store, f"n{number}"))
    monkeypatch.undo()
    told = [datetime.fromisoformat(capture.received_at) for capture in captures]
    assert told == [datetime.fromtimestamp(moment, timezone.utc) for moment in moments]
    assert [capture.seq for capture in captures] == [1, 2, 3, 4, 5, 6]
    assert store.page() == captures
    store.close()
    store.layout.index.unlink()
    assert open_store().page() == captures, "the order is in the sidecars too"


def test_every_error_says_what_mends_it(store: CaptureStore, open_store: Open) -> None:
    for action in (
        lambda: store.get("nobody"),
        lambda: open_store(),
        lambda: (
            store.add(contents("a"), {}, fingerprint=FINGERPRINT, key="k").result(30)
            and store.add(contents("a"), {}, fingerprint="0" * 64, key="k").result(30)
        ),
    ):
        with pytest.raises(CaptureError) as caught:
            action()
        assert caught.value.hint
