"""A drop folder: complete files only, each once, over restarts."""

from __future__ import annotations

import io
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from boothsam.runtime.images import encode_image, save_image
from boothsam.service.batch.watch import PATIENCE, Watcher, ends_whole, move_away
from PIL import Image

from tests.service.batch.conftest import BOX, files, journal, picture

Spawn = Callable[..., subprocess.Popen[str]]


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF holds a JPEG."""
    small, data = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture()).resize((60, 40)).save(small, "JPEG")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + small.getvalue()
    Image.fromarray(picture()).save(data, "JPEG", exif=exif)
    return data.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "thumbnail"])
def test_the_end_of_a_file(tmp_path: Path, kind: str) -> None:
    data = with_thumbnail() if kind == "thumbnail" else encode_image(picture(), kind)
    path = tmp_path / "photo"
    path.write_bytes(data)
    assert ends_whole(path)
    # What phones hang behind a JPEG's end; the other two end by their length or mark.
    path.write_bytes(data + bytes(5000))
    assert ends_whole(path)
    for share in (0.0, 0.01, 0.3, 0.7, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        assert not ends_whole(path), share
    path.write_bytes(data[:-2])
    assert not ends_whole(path)


def test_a_file_is_handed_out_once_it_has_settled_and_again_when_it_changed(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, settle_s=2, poll_s=1, exclude=[tmp_path / "done"])
    data = encode_image(picture(), "jpg")
    photo = tmp_path / "sub" / "a.jpg"
    photo.parent.mkdir()
    photo.write_bytes(data[:3000])
    for name in (".hidden.jpg", "b.jpg.part", "c.tmp", "d.crdownload", "notes.txt", "done/e.jpg", ".trash/f.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert watcher.look(0) == []
    photo.write_bytes(data[:6000])
    assert watcher.look(1.9) == []
    assert watcher.look(5) == []  # the same for long, but without its end
    photo.write_bytes(data)
    assert watcher.look(6) == []
    assert watcher.look(7.9) == []
    assert watcher.look(8) == [photo]
    assert watcher.look(20) == []
    photo.write_bytes(encode_image(picture(99), "jpg"))
    assert watcher.look(21) == [] and watcher.look(23) == [photo]
    photo.unlink()
    assert watcher.look(24) == []
    photo.write_bytes(data)
    assert watcher.look(25) == [] and watcher.look(27) == [photo]


def test_a_file_that_never_ends_is_handed_out_after_a_while(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, settle_s=1, poll_s=1)
    (tmp_path / "a.png").write_bytes(encode_image(picture(), "png")[:-9])
    assert watcher.look(0) == watcher.look(PATIENCE - 1) == []
    assert watcher.look(PATIENCE) == [tmp_path / "a.png"]
    assert watcher.look(PATIENCE + 1) == []


def test_a_share_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    share, away = tmp_path / "share", tmp_path / "away"
    share.mkdir()
    watcher = Watcher(share, settle_s=0, poll_s=0.05)
    save_image(share / "a.png", picture())
    assert watcher.look(0) == [share / "a.png"]
    share.rename(away)
    assert watcher.look(1) == []
    away.rename(share)
    assert watcher.look(2) == []  # the same file in the same state
    stop = threading.Event()
    for found in watcher.batches(stop):
        assert found == []
        stop.set()


@pytest.mark.parametrize("links", [True, False])
def test_moving_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:  # as between two file systems

        def refuse(*paths: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr("os.link", refuse)
    root, done = tmp_path / "in", tmp_path / "done"
    for number in (b"1", b"2", b"3"):
        (root / "sub").mkdir(parents=True, exist_ok=True)
        (root / "sub" / "a.jpg").write_bytes(number)
        move_away(root / "sub" / "a.jpg", root, done)
        assert not (root / "sub" / "a.jpg").exists()
    names = {p.name: p.read_bytes() for p in (done / "sub").iterdir()}
    assert names == {"a.jpg": b"1", "a_2.jpg": b"2", "a_3.jpg": b"3"}


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def lines(out: Path) -> int:
    return len(journal(out)) if (out / "batch.jsonl").exists() else 0


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


def test_a_booth_drops_photos(spawn: Spawn, tmp_path: Path) -> None:
    drop, out, done = tmp_path / "drop", tmp_path / "cut", tmp_path / "drop" / "done"
    drop.mkdir()
    arguments = (drop, "-o", out, "--watch", "--settle", "0.2", "--poll", "0.05", "--move-done", done, "--box", BOX)
    save_image(drop / "IMG_1.png", picture(200))
    process = spawn(*arguments)
    wait_for(lambda: lines(out) == 1, process)
    # Written slowly, as over a cable: a part that stays the same for longer than the settle time.
    data = encode_image(picture(210), "jpg")
    with (drop / "IMG_2.jpg").open("wb") as slow:
        slow.write(data[: len(data) // 2])
        slow.flush()
        time.sleep(0.6)
        slow.write(data[len(data) // 2 :])
    wait_for(lambda: lines(out) == 2 and not list(drop.glob("*.*")), process)
    # The camera's counter starts again: the same name, another photo.
    save_image(drop / "IMG_1.png", picture(220))
    wait_for(lambda: lines(out) == 3 and not list(drop.glob("*.*")), process)
    code, stderr = stop(process)
    assert code == 0, stderr
    assert sorted(files(out)) == ["IMG_1.png", "IMG_1_2.png", "IMG_2.png"]
    assert sorted(p.name for p in done.iterdir()) == ["IMG_1.png", "IMG_1_2.png", "IMG_2.jpg"]
    assert all(line["status"] == "done" for line in journal(out))


def test_a_restart_does_nothing_again(spawn: Spawn, tmp_path: Path) -> None:
    drop, out = tmp_path / "drop", tmp_path / "cut"
    (drop / "sub").mkdir(parents=True)
    save_image(drop / "sub" / "a.png", picture(200))
    save_image(drop / "broken.png", picture(100))
    (drop / "broken.png").write_bytes((drop / "broken.png").read_bytes()[:200] + b"IEND\xaeB`\x82")
    arguments = (drop, "-o", out, "--watch", "--settle", "0", "--poll", "0.05", "--box", BOX)
    process = spawn(*arguments)
    wait_for(lambda: lines(out) == 2, process)
    process.kill()
    process.communicate()
    before = journal(out)
    process = spawn(*arguments)
    wait_for(lambda: (out / ".batch" / "lock").read_bytes() != b"", process)
    save_image(drop / "b.png", picture(210))
    wait_for(lambda: lines(out) == 3, process)
    code, stderr = stop(process, signal.SIGINT)
    assert code == 130, stderr
    assert journal(out)[:2] == before and journal(out)[2]["photo"] == str(drop / "b.png")
    assert sorted(files(out)) == ["b.png", "sub/a.png"]
    assert "broken_image" in (out / "failures.csv").read_text() and "failed before" in stderr
