"""The list of photos: order, keys, broken ones, and what is never a photo."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from boothsam.runtime.errors import OptionError
from boothsam.service.annotations import photos as photos_module
from boothsam.service.annotations.photos import check_folders, list_photos, natural_key
from PIL import Image

from tests.service.annotations.conftest import draw_photo


def test_natural_order_counts_as_people_do() -> None:
    names = ["b/2.jpg", "photo-10.jpg", "Photo-2.jpg", "photo-1.jpg", "b/10.jpg", "a1b20.png", "a1b3.png", "7.png"]
    assert sorted(names, key=natural_key) == [
        "7.png", "a1b3.png", "a1b20.png", "b/2.jpg", "b/10.jpg", "photo-1.jpg", "Photo-2.jpg", "photo-10.jpg",
    ]  # fmt: skip


def test_a_folder_is_listed_by_headers(tmp_path: Path) -> None:
    draw_photo(tmp_path / "shelf" / "mug.png")
    draw_photo(tmp_path / "cup.jpg")
    Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(tmp_path / "bag.webp")
    whole = (tmp_path / "cup.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])  # its header is whole: only decoding finds out
    (tmp_path / "heic.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("no photo either, and does not say so")
    draw_photo(tmp_path / ".hidden.png")
    draw_photo(tmp_path / "annotations" / "masks" / "mug-1.png")
    found = list_photos(tmp_path, tmp_path / "annotations", {})
    assert [photo.name for photo in found] == [
        "bag.webp", "cup.jpg", "cut.jpg", "empty.png", "heic.heic", "shelf/mug.png", "text.jpg",
    ]  # fmt: skip
    broken = {photo.name: photo.trouble for photo in found if photo.header is None}
    assert set(broken) == {"empty.png", "heic.heic", "text.jpg"}
    assert "HEIC" in broken["heic.heic"] and "0 bytes" in broken["empty.png"]
    bag = found[0].header
    assert bag is not None and (bag.format, bag.width, bag.height) == ("WEBP", 50, 30)
    assert len({photo.key for photo in found}) == len(found)


def test_a_header_behind_a_large_profile_is_found(tmp_path: Path) -> None:
    draw_photo(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    segment = b"\xff\xe2" + (65000).to_bytes(2, "big") + bytes(64998)
    (tmp_path / "a.jpg").write_bytes(data[:2] + segment * 8 + data[2:])
    (photo,) = list_photos(tmp_path, tmp_path / "none", {})
    assert photo.header is not None and photo.header.width == 600


def test_untouched_files_are_not_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_photo(tmp_path / "a.jpg")
    draw_photo(tmp_path / "b.jpg")
    known = {photo.key: photo for photo in list_photos(tmp_path, tmp_path / "none", {})}
    opened = []
    real = photos_module._header
    monkeypatch.setattr(photos_module, "_header", lambda path: (opened.append(path.name), real(path))[1])
    os.utime(tmp_path / "b.jpg", ns=(1, 1))
    list_photos(tmp_path, tmp_path / "none", known)
    assert opened == ["b.jpg"]


def test_names_that_are_no_utf8_and_links_out(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path / "photos") + b"/caf\xe9.png"
    (tmp_path / "photos").mkdir()
    draw_photo(tmp_path / "outside.png")
    (tmp_path / "outside.png").rename(Path(os.fsdecode(raw)))
    (tmp_path / "photos" / "folder").symlink_to(tmp_path)
    (found,) = list_photos(tmp_path / "photos", tmp_path / "none", {})
    assert found.name == "caf\ufffd.png" and found.header is not None
    assert len(found.read(1 << 20)) == found.nbytes


def test_masks_never_lie_among_the_photos(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for out in (photos, tmp_path, photos / ".." / "photos"):
        with pytest.raises(OptionError, match="taken for photos") as caught:
            check_folders(photos, out)
        assert caught.value.hint
    assert check_folders(photos, photos / "annotations")[1] == photos / "annotations"
    with pytest.raises(OptionError, match="no such folder"):
        check_folders(tmp_path / "nowhere", tmp_path / "out")
