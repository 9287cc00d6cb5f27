"""The contact sheet: photos in turn, cut-outs of all three kinds, and cells that say when nothing was found."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from boothsam.runtime.images import load_image
from boothsam.runtime.model import SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.training import contact_sheet as command
from boothsam.training.contact_sheet import HEADS, choose, contact_sheet, row
from boothsam.training.proof_set import Subject
from boothsam.training.sheets import Tile, fit, on_checkerboard, outlined, sheet, window_around, with_prompt


def disc(name: str, source: str, shade: int, *, auto: bool = False) -> Subject:
    image = np.full((150, 200, 3), 230, np.uint8)
    mask = np.zeros((150, 200), np.uint8)
    cv2.circle(image, (100, 75), 40, (190, shade, 35), -1)
    cv2.circle(mask, (100, 75), 40, 1, -1)
    return Subject(name, source, image, mask.astype(np.bool_), auto=auto)


@pytest.fixture(scope="module")
def predictor(color_folder: Path) -> SamPredictor:
    return SamPredictor(SamModel.load(color_folder, backend="ort-cpu", threads=1))


def test_sources_take_turns_and_photos_come_once_first() -> None:
    a = [disc(f"a{k}", "a", 10 + k) for k in range(3)]
    b = [disc("b0", "b", 50), disc("b1", "b", 51, auto=True), disc("b2", "b", 51)]
    assert [s.name for s in choose([*a, *b], 10)] == ["b1", "a0", "b0", "a1", "a2", "b2"]
    assert [s.name for s in choose([*a, *b], 2)] == ["b1", "a0"]


def test_a_row_holds_the_product_cut_out_in_three_ways(predictor: SamPredictor) -> None:
    tiles = row(predictor, disc("disc", "a", 40, auto=True), 200)
    assert len(tiles) == len(HEADS)
    assert tiles[0].label == "disc"
    for tile in tiles[1:]:
        assert tile.label.startswith("IoU 0.9")
        assert np.abs(tile.picture[100, 100].astype(int) - (190, 40, 35)).max() < 12
        corner = tile.picture[:8, :8].reshape(-1, 3)
        assert set(map(tuple, corner.tolist())) <= {(255, 255, 255), (226, 226, 226)}


def test_a_cell_says_when_nothing_was_found(predictor: SamPredictor) -> None:
    subject = disc("disc", "a", 40, auto=True)
    blank = Subject("blank", "a", np.full_like(subject.image, 180), subject.mask, auto=True)
    last = row(predictor, blank, 160)[-1]
    assert last.label == ""
    assert not np.array_equal(last.picture, np.full_like(last.picture, last.picture[0, 0]))  # words on it


def test_a_photo_of_several_things_gets_no_figure_for_auto(predictor: SamPredictor) -> None:
    assert row(predictor, disc("disc", "a", 40), 160)[-1].label == "one of several"


def test_the_page_has_room_for_every_tile(predictor: SamPredictor) -> None:
    page = contact_sheet(predictor, [disc(f"{k}", "a", 40 + k) for k in range(3)], side=90)
    assert page.dtype == np.uint8
    assert page.shape[0] > 2 * 90 and page.shape[1] > 8 * 90
    with pytest.raises(ValueError, match="expected 2"):
        sheet("t", ("a", "b"), [[Tile(page)]], side=50)


def test_tiles_keep_the_picture_whole_and_outlines_where_they_belong() -> None:
    subject = disc("disc", "a", 40)
    assert fit(subject.image, 80).shape == (80, 80, 3)
    drawn = outlined(subject.image, subject.mask, (0, 200, 0), 200)
    green = (drawn[..., 1].astype(int) - drawn[..., 0] > 120) & (drawn[..., 2] < 90)
    ys, xs = np.nonzero(green)
    distance = np.hypot(xs - 100, ys - 100)  # the photo stands centred in the square: 25 pixels lower
    assert len(ys) > 100 and np.abs(distance - 40).max() < 4
    rows, columns = window_around(subject.mask, 0.1)
    assert rows.start < 35 < 115 < rows.stop <= 150 and columns.start < 60 < 140 < columns.stop
    with_box = with_prompt(subject.image, 200, [60, 35, 141, 116], [100, 75])
    assert tuple(with_box[100, 100]) == (255, 176, 0)
    assert tuple(with_box[60, 100]) == (255, 176, 0)
    half = on_checkerboard(np.full((20, 20, 4), (200, 100, 0, 128), np.uint8))
    assert tuple(half[0, 0]) == (213, 163, 113)


def test_the_command_writes_a_large_and_a_small_page(
    listing: Path,
    color_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, small = tmp_path / "images" / "a.png", tmp_path / "images" / "b.jpg"
    words = ["contact_sheet", str(color_folder), "--photos", str(listing.parent), "--listing", str(listing)]
    monkeypatch.setattr(sys, "argv", [*words, "--side", "100", "-o", str(out), "--small", str(small)])
    command.main()
    assert "2 photos" in capsys.readouterr().out
    assert load_image(out).shape[1] >= load_image(small).shape[1] > 400
