"""What the store promises while nothing goes wrong."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from boothsam.runtime.errors import OptionError
from boothsam.service.captures import files as durable
from boothsam.service.captures.reader import Reader
from boothsam.service.captures.records import (
    Capture,
    Content,
    DamagedRecord,
    KeyConflict,
    NoSuchCapture,
    NotForwarded,
    StoreUnusable,
    check_key,
    check_text,
    fingerprint,
)
from boothsam.service.captures.store import CaptureStore

from tests.service.captures.conftest import FINGERPRINT, Open, assert_whole, contents, put


def test_what_was_stored_is_there_after_reopening(open_store: Open) -> None:
    store = open_store()
    captures = [put(store, f"mug-{i}") for i in range(5)]
    store.close()
    again = open_store()
    assert again.found.sound
    assert again.page() == captures
    for i, capture in enumerate(captures):
        assert_whole(again, capture, f"mug-{i}")
    assert put(again, "late").seq == 6


def test_the_index_is_written_with_full_sync(store: CaptureStore) -> None:
    index = store._index_of_writer
    assert index.pragma("journal_mode") == "wal"
    assert index.pragma("synchronous") == 2  # FULL: with NORMAL a power cut takes committed rows back
    assert index.pragma("foreign_keys") == 1


def test_photo_then_sidecar_then_row_then_answer(store: CaptureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    root = str(store.layout.folder.resolve())
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        real_sync(descriptor)
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink()).removeprefix(root + "/")
        events.append(f"sync {path.split('/')[0]}" + ("/" if Path(root, path).is_dir() else ""))

    def move(source: Path, target: Path) -> Path:
        moved = real_replace(source, target)
        events.append(f"rename to {target.relative_to(root).parts[0]}")
        return moved

    put(store, "first")  # makes folders
    monkeypatch.setattr(durable.os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", move)
    store._index_of_writer._db.set_trace_callback(lambda text: events.append(text) if text == "COMMIT" else None)
    only = {"original": contents("second")["original"]}
    future = store.add(only, {}, fingerprint=FINGERPRINT)
    future.add_done_callback(lambda _: events.append("answer"))
    future.result(30)
    events = [event for event in events if event != f"sync {Path(root).name}/"]
    wanted = ["sync incoming", "rename to files", "sync files/"]
    wanted += ["sync incoming", "rename to sidecars", "sync sidecars/", "COMMIT", "answer"]
    folders = [event for event in events if event in wanted]
    assert folders[-8:] == wanted
    assert set(events) <= set(wanted)


def test_the_same_key_stores_once(store: CaptureStore) -> None:
    first = store.add(contents("a"), {"sku": "a"}, fingerprint=FINGERPRINT, key="k1").result(30)
    again = store.add(contents("a"), {"sku": "a"}, fingerprint=FINGERPRINT, key="k1").result(30)
    assert not first.replayed and again.replayed
    assert again.capture == first.capture == store.find_key("k1")
    with pytest.raises(KeyConflict, match="another content"):
        store.add(contents("b"), {}, fingerprint="0" * 64, key="k1").result(30)
    assert len(store.page()) == 1
    store.delete(first.capture.id).result(30)
    assert not store.add(contents("b"), {}, fingerprint="0" * 64, key="k1").result(30).replayed


def test_ten_at_once_under_one_key_store_once(store: CaptureStore) -> None:
    futures = []
    lock = threading.Lock()

    def send() -> None:
        future = store.add(contents("a"), {}, fingerprint=FINGERPRINT, key="same")
        with lock:
            futures.append(future)

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({future.result(30).capture.id for future in futures}) == 1
    assert sum(not future.result().replayed for future in futures) == 1


def test_pages_follow_seq(store: CaptureStore) -> None:
    captures = [put(store, f"n{i}", gtin="4006381333931" if i % 2 else "96385074") for i in range(7)]
    assert store.page(3) == captures[:3]
    assert store.page(3, after=captures[2].seq) == captures[3:6]
    assert store.page(2, before=captures[5].seq) == captures[4:2:-1]
    assert store.page(sku="n4") == [captures[4]]
    assert store.page(gtin="4006381333931") == captures[1::2]
    assert list(store.walk(after=2)) == captures[2:]


def test_deleting_takes_files_that_nobody_else_has(store: CaptureStore) -> None:
    one, other = put(store, "same"), put(store, "same")
    kept = store.path(one, "original")
    store.delete(one.id).result(30)
    assert kept.is_file()
    assert_whole(store, other, "same")
    store.delete(other.id).result(30)
    assert not kept.exists()
    assert store.layout.file_names() == set() and store.layout.sidecar_paths() == []
    with pytest.raises(NoSuchCapture):
        store.delete(other.id).result(30)
    with pytest.raises(NoSuchCapture):
        store.get(other.id)


def test_seq_is_not_used_again_after_deleting_the_newest(open_store: Open) -> None:
    store = open_store()
    put(store, "a")
    newest = put(store, "b")
    store.delete(newest.id).result(30)
    store.close()
    assert put(open_store(), "c").seq == newest.seq + 1


def test_seq_of_an_adopted_capture_is_not_used_again_either(open_store: Open) -> None:
    """Found by killing: stored but not acknowledged, taken in at the start, deleted, and the service restarted."""
    store = open_store()
    put(store, "a")
    newest = put(store, "b")
    with store._index_of_writer.transaction():  # as before the commit
        store._index_of_writer.remove(newest.seq)
        store._index_of_writer.put("next_seq", str(newest.seq))
    store.close()
    _leave_unclean(store)
    again = open_store()
    assert again.found.adopted == [newest.id]
    again.delete(newest.id).result(30)
    again.close()
    assert put(open_store(), "c").seq == newest.seq + 1


def _leave_unclean(store: CaptureStore) -> None:
    db = sqlite3.connect(store.layout.index)
    db.execute("UPDATE meta SET value = '0' WHERE key = 'closed'")
    db.commit()
    db.close()


def test_what_is_still_to_be_forwarded_is_not_deleted(open_store: Open) -> None:
    store = open_store(target="url:http://127.0.0.1:1/")
    capture = put(store, "a")
    with pytest.raises(NotForwarded, match="pending"):
        store.delete(capture.id).result(30)
    store.mark(capture.seq, "parked", 8, "refused").result(30)
    with pytest.raises(NotForwarded, match="parked"):
        store.delete(capture.id).result(30)
    store.mark(capture.seq, "delivered", 8).result(30)
    store.delete(capture.id).result(30)
    other = put(store, "b")
    store.delete(other.id, force=True).result(30)
    assert store.page() == []


def test_one_process_writes_and_others_read(store: CaptureStore) -> None:
    capture = put(store, "a")
    partial = store.layout.incoming / "partial"
    partial.write_bytes(b"of a capture that is being stored")
    with pytest.raises(StoreUnusable, match="another process"):
        CaptureStore.open(store.layout.folder)
    assert partial.exists()
    reader = Reader(store.layout.folder)
    assert reader.page() == [capture]
    assert reader.check(deep=True).sound
    assert reader.status().captures == 1


def test_reading_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="cannot be read"):
        Reader(tmp_path).page()


def test_a_closed_store_says_so(open_store: Open) -> None:
    store = open_store()
    store.close()
    store.close()
    with pytest.raises(Exception, match="closed"):
        store.add(contents("a"), {}, fingerprint=FINGERPRINT).result(5)


def test_work_handed_over_before_closing_is_done(open_store: Open) -> None:
    store = open_store()
    futures = [store.add(contents(f"n{i}"), {}, fingerprint=FINGERPRINT) for i in range(20)]
    store.close()
    assert len(open_store().page()) == 20
    assert all(future.done() for future in futures)


def test_a_newer_index_is_left_alone(open_store: Open) -> None:
    store = open_store()
    put(store, "a")
    store.close()
    db = sqlite3.connect(store.layout.index)
    db.execute("PRAGMA user_version = 9")
    db.commit()
    db.close()
    with pytest.raises(StoreUnusable, match="version 9"):
        open_store()
    assert not store.layout.quarantine.exists()


def test_a_file_whose_bytes_rotted_is_written_again(store: CaptureStore) -> None:
    capture = put(store, "a")
    path = store.path(capture, "original")
    path.write_bytes(b"?" * capture.files["original"].bytes)
    assert_whole(store, put(store, "a"), "a")


SPOILT: dict[str, Callable[[Any], Any]] = {
    "another format": lambda d: d | {"format": 2},
    "an id that is a path": lambda d: d | {"id": "../../x"},
    "a negative seq": lambda d: d | {"seq": -1},
    "a seq that is text": lambda d: d | {"seq": "1"},
    "no files": lambda d: d | {"files": {}},
    "no facts": lambda d: {name: value for name, value in d.items() if name != "facts"},
    "a hash that is a path": lambda d: d | {"files": {"original": d["files"]["original"] | {"sha256": "../a"}}},
    "an unknown role": lambda d: d | {"files": d["files"] | {"virus": d["files"]["mask"]}},
    "a list": lambda d: [d],
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_sidecar_is_not_believed_blindly(store: CaptureStore, spoil: Callable[[Any], Any]) -> None:
    document = put(store, "a").document()
    assert Capture.decode(json.dumps(document).encode()).document() == document
    with pytest.raises(DamagedRecord):
        Capture.decode(json.dumps(spoil(document)).encode())
    with pytest.raises(DamagedRecord):
        Capture.decode(json.dumps(document).encode()[:-20])


def test_a_record_survives_its_own_encoding(store: CaptureStore) -> None:
    capture = put(store, "Tässe 杯 \u202e", prompts={"box_xyxy": [1.5, 2, 3, 4]})
    assert Capture.decode(capture.encode()) == capture
    assert Capture.decode(replace(capture, idempotency_key="k").encode()).idempotency_key == "k"


@pytest.mark.parametrize("text", ["", " a", "a ", "x" * 65, "a\nb", "a\0b", "\u202ea"])
def test_labels_are_checked(text: str) -> None:
    with pytest.raises(OptionError, match="1 to 64 printable"):
        check_text("sku", text)
    assert check_text("sku", "../MUG 7 ä") == "../MUG 7 ä"


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "ä", "a\n"])
def test_keys_are_checked(key: str) -> None:
    with pytest.raises(OptionError, match="idempotency key"):
        check_key(key)


def test_a_fingerprint_tells_files_and_fields_apart(store: CaptureStore) -> None:
    files = put(store, "a").files
    marks = {fingerprint(files, {"sku": sku}) for sku in ("a", "b")} | {fingerprint({}, {"sku": "a"})}
    assert len(marks) == 3
    assert fingerprint(files, {"a": 1, "b": 2}) == fingerprint(dict(reversed(files.items())), {"b": 2, "a": 1})


def test_only_pictures_are_stored() -> None:
    for content in ((b"", ".jpg"), (b"x", ".exe"), (b"x", "")):
        with pytest.raises(OptionError, match="cannot store"):
            Content(*content)
