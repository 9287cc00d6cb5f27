"""`boothsam batch` on a real session: the pictures of `crop`, the journal, going on, failures."""

from __future__ import annotations

import csv
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boothsam.runtime.images import save_image

from tests.service.batch.conftest import BOX, files, journal, picture

Batch = Callable[..., Any]


def test_pictures_are_those_of_crop(batch: Batch, run: Batch, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    options = ("--box", BOX, "--background", "white", "--fill", "0.8")
    result = batch(folder, "-o", out, *options, "--json")
    assert result.exit_code == 0, result.stderr
    made = files(out)
    assert sorted(made) == ["a.png", "sub/a.png", "sub/a_2.png", "sub/b.png"]
    photos = {"a.png": "a.png", "sub/a.png": "sub/a.jpg", "sub/a_2.png": "sub/a.png", "sub/b.png": "sub/b.jpg"}
    for output, photo in photos.items():
        single = tmp_path / "single.png"
        assert run("crop", folder / photo, *options, "--force", "-o", single).exit_code == 0
        assert made[output] == single.read_bytes(), output
    summary = json.loads(result.stdout)
    assert (summary["done"], summary["failed"], summary["total"]) == (4, 0, 4)
    assert {line["photo"] for line in journal(out)} == {str(folder / photo) for photo in photos.values()}
    line = next(line for line in journal(out) if line["photo"] == str(folder / "a.png"))
    assert line["status"] == "done" and line["ambiguous"] is False and len(line["sha256"]) == 64
    assert line["products"][0]["output"] == "a.png" and 0.9 < line["products"][0]["predicted_iou"] <= 1
    assert set(line["ms"]) == {"decode_photo", "encode", "decode", "cut_out", "write"}
    assert list((out / ".batch" / "incoming").iterdir()) == []


def test_the_same_again_does_what_changed_and_nothing_else(batch: Batch, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    assert batch(folder, "-o", out, "--box", BOX).exit_code == 0
    before, lines = files(out), journal(out)
    result = batch(folder, "-o", out, "--box", BOX)
    assert result.exit_code == 0 and "as before" in result.stderr
    assert journal(out) == lines

    save_image(folder / "a.png", picture(150))
    (out / "sub" / "b.png").unlink()
    save_image(folder / "sub" / "A.webp", picture(140))
    assert batch(folder, "-o", out, "--box", BOX, "--trust-times").exit_code == 0
    added = journal(out)[len(lines) :]
    assert sorted(Path(line["photo"]).name for line in added) == ["A.webp", "a.png", "b.jpg"]
    after = files(out)
    assert sorted(after) == sorted([*before, "sub/A_3.png"])  # taken for a name in use where case does not count
    assert after["sub/b.png"] == before["sub/b.png"] and after["a.png"] != before["a.png"]
    assert after["sub/a.png"] == before["sub/a.png"] and after["sub/a_2.png"] == before["sub/a_2.png"]

    assert batch(folder / "a.png", "-o", out, "--box", "310,60,490,239").exit_code == 0
    assert len(journal(out)) == len(lines) + 4


def test_failures_are_collected_and_stay_until_asked_for(batch: Batch, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    (folder / "broken.jpg").write_bytes((folder / "sub" / "b.jpg").read_bytes()[:900])
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_text("not a photo")
    (folder / ".hidden.png").write_bytes(b"")
    result = batch(folder, "-o", out, "--box", BOX, "--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["done"], summary["failed"], summary["codes"]) == (4, 2, {"broken_image": 2})
    rows = list(csv.DictReader((out / "failures.csv").read_text().splitlines()))
    assert [(Path(row["path"]).name, row["code"]) for row in rows] == [
        ("broken.jpg", "broken_image"),
        ("phone.heic", "broken_image"),
    ]
    assert "HEIC" in rows[1]["message"] and "HEIC" in result.stderr
    assert "hint" in next(line for line in journal(out) if line["status"] == "failed")["error"]

    lines = journal(out)
    again = batch(folder, "-o", out, "--box", BOX)
    assert again.exit_code == 1 and "--retry-failed" in again.stderr
    assert journal(out) == lines and (out / "failures.csv").exists()
    (folder / "phone.heic").unlink()
    save_image(folder / "broken.jpg", picture(100))
    assert batch(folder, "-o", out, "--box", BOX, "--retry-failed").exit_code == 0
    assert not (out / "failures.csv").exists() and "broken.png" in files(out)


def test_an_empty_backdrop_is_a_failure_that_retry_asks_again(batch: Batch, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    assert batch(photos / "empty.png", "-o", out).exit_code == 1
    assert batch(photos / "empty.png", "-o", out).exit_code == 1
    assert [line["error"]["code"] for line in journal(out)] == ["nothing_found"]
    assert batch(photos / "empty.png", "-o", out, "--retry-failed").exit_code == 1
    assert len(journal(out)) == 2


def test_without_a_prompt_the_product_is_found_and_ambiguity_told(
    batch: Batch, run: Batch, photos: Path, tmp_path: Path
) -> None:
    result = batch(photos / "two.jpg", "-o", tmp_path / "cut")
    assert result.exit_code == 0 and "1 ambiguous" in result.stderr
    assert journal(tmp_path / "cut")[0]["ambiguous"] is True
    assert run("crop", photos / "two.jpg", "--auto", "-o", tmp_path / "single.png").exit_code == 0
    assert files(tmp_path / "cut")["two.png"] == (tmp_path / "single.png").read_bytes()


def test_files_of_others_stay_without_force(batch: Batch, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    out.mkdir()
    (out / "a.png").write_bytes(b"mine")
    result = batch(folder / "a.png", "-o", out, "--box", BOX)
    assert result.exit_code == 1 and "not of this batch" in result.stderr and "hint: --force" not in result.stdout
    assert (out / "a.png").read_bytes() == b"mine"
    assert batch(folder / "a.png", "-o", out, "--box", BOX, "--force").exit_code == 0
    assert (out / "a.png").read_bytes().startswith(b"\x89PNG")


def test_two_batches_into_one_folder_are_refused(batch: Batch, folder: Path, tmp_path: Path) -> None:
    corner = tmp_path / "cut" / ".batch"
    (corner / "incoming").mkdir(parents=True)
    (corner / "incoming" / "half").write_bytes(b"of a killed batch")
    with (corner / "lock").open("w+") as lock:
        lock.write('{"pid": 12345, "host": "booth-1"}')
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = batch(folder, "-o", tmp_path / "cut", "--box", BOX)
        assert result.exit_code == 1
        assert "process 12345 on booth-1" in result.stderr and "hint:" in result.stderr
        assert (corner / "incoming" / "half").exists()
    # The process is gone and its lock file is still there: nobody holds it.
    assert batch(folder / "a.png", "-o", tmp_path / "cut", "--box", BOX).exit_code == 0
    assert not (corner / "incoming" / "half").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photos", "-o", "photos"), "lie in the output folder"),
        (("photos/sub", "-o", "photos"), "lie in the output folder"),
        (("link", "-o", "photos"), "lie in the output folder"),
        (("nothing", "-o", "cut"), "no such photo, folder or table"),
        (("none*.png", "-o", "cut"), "no photo in none*.png"),
        (("photos", "-o", "cut", "--format", "gif"), "unknown format 'gif'"),
        (("photos", "-o", "cut", "--format", "jpg"), "cannot be transparent"),
        (("photos", "-o", "cut", "--box", "1,2,3"), "3 numbers"),
        (("photos", "-o", "cut", "--auto", "--box", "1,2,3,4"), "exclude each other"),
        (("photos", "-o", "cut", "--move-done", "done"), "--watch"),
        (("photos/a.png", "-o", "cut", "--watch"), "--watch takes one folder"),
        (("photos", "-o", "cut", "--watch", "--ray", "local"), "exclude each other"),
        (("photos", "-o", "photos/a.png"), "is a file"),
    ],
)
def test_wrong_command_lines(
    batch: Batch, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("link").symlink_to(folder)
    result = batch(*arguments)
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr
    assert not Path("cut").exists()


def test_a_glob_and_an_output_folder_among_the_photos(
    batch: Batch, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for _ in range(2):
        result = batch("**/*.png", "sub/a.png", "-o", "cut", "--box", BOX, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["total"] == 2
    assert sorted(files(Path("cut"))) == ["a.png", "sub/a.png"]


def test_a_full_disk_stops_and_blames_no_photo(
    batch: Batch, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from boothsam.service.batch.outfolder import OutFolder

    kept = OutFolder.write

    def full(self: OutFolder, target: Path, data: bytes) -> None:
        if target.name == "a_2.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        kept(self, target, data)

    monkeypatch.setattr(OutFolder, "write", full)
    result = batch(folder, "-o", tmp_path / "cut", "--box", BOX)
    assert result.exit_code == 1 and "no space left" in result.stderr and "goes on where it stopped" in result.stderr
    assert all(line["status"] == "done" for line in journal(tmp_path / "cut"))
    monkeypatch.undo()
    monkeypatch.setenv("NO_COLOR", "1")
    assert batch(folder, "-o", tmp_path / "cut", "--box", BOX).exit_code == 0
    assert len(journal(tmp_path / "cut")) == 4 and len(files(tmp_path / "cut")) == 4


def test_a_photo_that_was_to_be_moved_away_is_not_done_again(batch: Batch, folder: Path, tmp_path: Path) -> None:
    from boothsam.service.batch.names import Names
    from boothsam.service.batch.outfolder import OutFolder

    out = tmp_path / "cut"
    assert batch(folder / "a.png", "-o", out, "--box", BOX).exit_code == 0
    names = Names(OutFolder(out), {})
    names.release([str(folder / "a.png")])  # and then the power went
    names.close()
    lines = journal(out)
    assert batch(folder / "a.png", "-o", out, "--box", BOX).exit_code == 0
    assert journal(out) == lines and sorted(files(out)) == ["a.png"]
