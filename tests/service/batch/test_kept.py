"""What a batch keeps about itself: lines that survive being cut, names that stay."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

import pytest
from boothsam.service.batch.lines import LineFile
from boothsam.service.batch.names import Names
from boothsam.service.batch.outfolder import OutFolder
from boothsam.service.batch.work import Item, Policy
from boothsam.service.cropping import Look
from boothsam.service.prompts import Request


def item(photo: str, boxes: int = 1, format: str = "png") -> Item:
    request = Request(boxes=((0.0, 0.0, 9.0, 9.0),) * boxes)
    look = Look(format, "white")
    return Item(f"/photos/{photo}", Path("/photos") / photo, PurePosixPath(photo).with_suffix(""), request, look)


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_line_cut_anywhere_is_gone_and_the_others_stay(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "lines.jsonl"
    lines = LineFile(path)
    lines.append([{"n": 1}, {"n": 2}])
    lines.append([{"n": 3, "a": 5}])
    lines.close()
    path.write_bytes(path.read_bytes()[:-cut])
    again = LineFile(path)
    assert list(again.read()) == [{"n": 1}, {"n": 2}]
    again.append([{"n": 4}])
    again.close()
    assert path.read_bytes() == b'{"n": 1}\n{"n": 2}\n{"n": 4}\n'


def test_a_damaged_line_is_told_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"n": 1}\n\0\0\0\0\n[1]\n{"n": 2}\n')
    lines = LineFile(path)
    logging.getLogger("boothsam").addHandler(caplog.handler)
    try:
        assert list(lines.read()) == [{"n": 1}, {"n": 2}]
    finally:
        logging.getLogger("boothsam").removeHandler(caplog.handler)
        lines.close()
    assert "line 2 is damaged" in caplog.text and "line 3 is damaged" in caplog.text


def test_names_stay_with_their_photos(tmp_path: Path) -> None:
    out = OutFolder(tmp_path)
    with out.locked():
        names = Names(out, {})
        first = [item("b.jpg"), item("sub/B.jpg"), item("b-1.jpg"), item("b.png", boxes=2), item("B.webp")]
        given = {work.item.id: work.outputs for work in names.plan(first, {}, Policy())}
        assert given["/photos/b.jpg"] == ("b.png",)
        assert given["/photos/sub/B.jpg"] == ("sub/B.png",)
        assert given["/photos/b-1.jpg"] == ("b-1.png",)
        assert given["/photos/b.png"] == ("b_2-1.png", "b_2-2.png")  # b-1.png is taken
        assert given["/photos/B.webp"] == ("B_2.png",)
        flat = [name.casefold() for outputs in given.values() for name in outputs]
        assert len(flat) == len(set(flat))
        names.close()
        # Another run, with a photo more that comes first by its name.
        names = Names(out, {})
        later = [item("B.jpeg"), *reversed(first)]
        again = {work.item.id: work.outputs for work in names.plan(later, {}, Policy())}
        assert {id: again[id] for id in given} == given
        assert again["/photos/B.jpeg"] == ("B_3.png",)
        # Another format is another file; the old name is not given to anybody else.
        (other,) = names.plan([item("b.jpg", format="jpg")], {}, Policy())
        assert other.outputs == ("b.jpg",)
        # Moved away: the next photo of that path is another one.
        names.release(["/photos/sub/B.jpg"])
        (fresh,) = names.plan([item("sub/B.jpg")], {}, Policy())
        assert fresh.outputs == ("sub/B_2.png",)
        names.close()


def test_no_photo_is_overwritten_even_by_force(tmp_path: Path) -> None:
    photos, link = tmp_path / "photos", tmp_path / "link"
    photos.mkdir()
    link.symlink_to(photos)
    (photos / "a.png").write_bytes(b"a photo")
    out = OutFolder(link)
    one = Item("x", photos / "a.png", PurePosixPath("a"), Request(auto=True), Look("png"))
    with out.locked():
        names = Names(out, {})
        (work,) = names.plan([one], {}, Policy(redo=True))
        names.close()
    assert work.error is not None and "one of the photos" in work.error.message
    assert work.outputs == ("a.png",)
