"""Names of results: no collision, nothing overwritten by accident, no half-written file."""

from __future__ import annotations

from pathlib import Path

import pytest
from boothsam.runtime.errors import NothingFound, OptionError, OutputError
from boothsam.service import outputs


def names(tasks: list[outputs.Task]) -> list[list[str]]:
    return [[o.name for o in task.outputs] for task in tasks]


def test_stems_numbers_and_collisions(tmp_path: Path) -> None:
    photos = [Path(p) for p in ("a/mug.jpg", "b/mug.jpg", "b/Mug.png", "jar.jpg", "jar-1.jpg", "none.jpg")]
    missing = NothingFound("no box")
    tasks = outputs.plan(photos, [1, 1, 1, 2, 1, missing], tmp_path, folder=True, ending=".png", force=False)
    assert names(tasks) == [["mug.png"], ["mug_2.png"], ["Mug_3.png"], ["jar-1.png", "jar-2.png"], ["jar-1_2.png"], []]
    assert [task.error for task in tasks] == [None] * 5 + [missing]


def test_existing_files_need_force(tmp_path: Path) -> None:
    (tmp_path / "mug.png").write_bytes(b"mine")
    (tmp_path / "jar.png").mkdir()
    photos = [Path("mug.jpg"), Path("jar.jpg")]
    first, second = outputs.plan(photos, [1, 1], tmp_path, folder=True, ending=".png", force=False)
    assert isinstance(first.error, OutputError)
    assert first.error.hint == "--force replaces it"
    first, second = outputs.plan(photos, [1, 1], tmp_path, folder=True, ending=".png", force=True)
    assert first.error is None
    assert second.error is not None and "is a folder" in second.error.message


def test_a_photo_is_never_overwritten(tmp_path: Path) -> None:
    photo = tmp_path / "mug.png"
    photo.write_bytes(b"photo")
    (task,) = outputs.plan([photo], [1], tmp_path, folder=True, ending=".png", force=True)
    assert task.error is not None and "is one of the photos" in task.error.message
    (tmp_path / "link.png").symlink_to(photo)
    (task,) = outputs.plan([photo], [1], tmp_path / "link.png", folder=False, ending=".png", force=True)
    assert task.error is not None


def test_many_results_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"2 pictures cannot be written to the one file out\.png") as caught:
        outputs.plan([Path("mug.jpg")], [2], Path("out.png"), folder=False, ending=".png", force=False)
    assert caught.value.hint == "name a folder: -o out/"


def test_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "old.png").mkdir()
    assert outputs.is_folder(tmp_path / "old.png", "old.png")
    assert outputs.is_folder(Path("new"), "new/")
    assert outputs.is_folder(Path("new"), "new")
    assert outputs.is_folder(Path("batch.7"), "batch.7")
    assert not outputs.is_folder(Path("a.JPG"), "a.JPG")
    with pytest.raises(OptionError, match=r"ending '.tif'"):
        outputs.is_folder(Path("a.tif"), "a.tif")


def test_formats() -> None:
    assert outputs.choose_format(Path("a.jpeg"), None) == "jpg"
    assert outputs.choose_format(Path("folder"), None) == "png"
    assert outputs.choose_format(Path("folder"), "webp") == "webp"
    with pytest.raises(OptionError, match="contradict"):
        outputs.choose_format(Path("a.png"), "jpg")
    with pytest.raises(OptionError, match="unknown format 'bmp'"):
        outputs.choose_format(Path("folder"), "bmp")


def test_text_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "new" / "masks.json"
    outputs.write_text(target, "{}", force=False)
    assert target.read_text() == "{}"
    with pytest.raises(OutputError, match="exists"):
        outputs.write_text(target, "[]", force=False)
    outputs.write_text(target, "[]", force=True)
    assert [p.name for p in target.parent.iterdir()] == ["masks.json"]
    with pytest.raises(OutputError, match="cannot create the folder"):
        outputs.write_text(target / "below" / "x.json", "", force=False)
