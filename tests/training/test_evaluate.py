"""Evaluation: masks from polygons, figures of a model whose answers are known, and the report made of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import load_image
from boothsam.runtime.model import SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.training import evaluate as command
from boothsam.training.measures import Row, auto_verdict, grabcut, measure
from boothsam.training.proof_set import Subject, fill_rings, read_listing, read_subjects
from boothsam.training.report import END, START, agreement_line, embed, mean, report, table, worst, worst_sheet

from tests.training.conftest import circle

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def subjects(listing: Path) -> list[Subject]:
    return read_subjects(listing, [listing.parent / "photos"])


@pytest.fixture(scope="module")
def predictor(color_folder: Path) -> SamPredictor:
    return SamPredictor(SamModel.load(color_folder, backend="ort-cpu", threads=1))


@pytest.fixture(scope="module")
def rows(predictor: SamPredictor, subjects: list[Subject]) -> list[Row]:
    return command.evaluate(predictor, subjects, baselines=True)


def test_rings_inside_rings_are_holes() -> None:
    mask = fill_rings([circle(50, 50, 40), circle(50, 50, 20), circle(50, 50, 8)], 100, 100)
    assert mask[50, 50] and mask[50, 20] and not mask[50, 65] and not mask[5, 5]
    assert mask.sum() == pytest.approx(np.pi * (40**2 - 20**2 + 8**2), rel=0.06)


def test_photos_are_found_by_content_below_any_folder(listing: Path, subjects: list[Subject]) -> None:
    disc, square = subjects
    assert (disc.source, disc.category, disc.auto, square.auto) == ("a", "fruit", True, False)
    assert disc.image.shape == (300, 400, 3)
    assert disc.second is not None and square.second is None
    with pytest.raises(FileNotFoundError, match=r"2 of 2 photos.*hint: get x/"):
        read_subjects(listing, [listing.parent / "photos" / "deep" / "nothing"])


def test_a_photo_with_other_bytes_is_refused(listing: Path, tmp_path: Path) -> None:
    (tmp_path / "disc.png").write_bytes(b"other")
    (tmp_path / "square.png").write_bytes((listing.parent / "photos" / "deep" / "square.png").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"1 of 2 photos.*x/disc\.png"):
        read_subjects(listing, [tmp_path])


def test_names_are_unique(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"masks": [{"name": "x"}, {"name": "x"}]}))
    with pytest.raises(ValueError, match="hint:"):
        read_listing(path)


@pytest.mark.parametrize("path", [DATA / "proof.json", DATA / "tuning.json"], ids=lambda p: p.name)
def test_committed_listings_hold_what_evaluation_needs(path: Path) -> None:
    for entry in read_listing(path):
        assert {"name", "group", "file", "sha256", "source", "polygons"} <= set(entry), entry["name"]
        assert len(entry["sha256"]) == 64
        assert not Path(entry["file"]).is_absolute()
        for ring in entry["polygons"] + entry.get("second", []):
            assert len(ring) >= 3 and all(len(point) == 2 for point in ring), entry["name"]


def test_a_model_that_is_right_gets_the_figures_of_one(rows: list[Row]) -> None:
    disc = rows[0]
    # The colour model sees in cells of 8 frame pixels, 3 photo pixels here: its rim is a pixel or two off.
    for figure in ("box", "click_best", "click_top", "three_clicks"):
        assert disc.figures[figure] > 0.9, figure
    assert 0.3 < disc.figures["box_boundary"] <= 1
    assert disc.figures["box_jittered"] <= disc.figures["box"]
    assert disc.figures["filled_box"] == pytest.approx(np.pi / 4, abs=0.02)
    assert disc.figures["grabcut"] > 0.95
    assert disc.auto == "right" and rows[1].auto is None
    assert disc.twice == pytest.approx((58 / 60) ** 2, abs=0.02)


def test_figures_depend_on_the_subject_alone(predictor: SamPredictor, subjects: list[Subject], rows: list[Row]) -> None:
    assert measure(predictor, subjects[1]) == rows[1]


def test_auto_is_wrong_when_it_cuts_out_another_thing_or_nothing(
    predictor: SamPredictor, subjects: list[Subject]
) -> None:
    disc = subjects[0]
    corner = np.zeros_like(disc.mask)
    corner[:40, :40] = True
    predictor.set_image(disc.image)
    assert auto_verdict(predictor, disc) == "right"
    assert auto_verdict(predictor, Subject("other", "a", disc.image, corner, auto=True)) == "wrong"
    blank = np.full_like(disc.image, 200)
    predictor.set_image(blank)
    assert auto_verdict(predictor, Subject("blank", "a", blank, disc.mask, auto=True)) == "nothing"


def test_grabcut_of_a_whole_photo_is_the_photo(subjects: list[Subject]) -> None:
    whole = np.ones((30, 40), np.bool_)
    assert grabcut(np.full((30, 40, 3), 90, np.uint8), whole) == 1


def row(name: str, source: str, box: float, **more: Any) -> Row:
    figures = {"box": box, "grabcut": 0.8, "score_error": 0.1}
    return Row(name, source, more.pop("category", "fruit"), figures, **more)


def test_the_report_says_what_the_rows_hold() -> None:
    found = [
        row("a", "one", 0.9, auto="right", twice=0.95, twice_boundary=0.8),
        row("b", "one", 0.7, auto="nothing"),
        row("c", "two", 0.6, category="bottle", twice=0.91, twice_boundary=0.7),
    ]
    assert mean(found, "over_grabcut") == pytest.approx(0.7333 - 0.8, abs=1e-3)
    assert mean(found, "click_best") is None
    lines = table(found, lambda r: r.source).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| one | 2 | 0.800 | 0.800 | +0.000 | 0.100 | 1 of 2 |"
    assert lines[3].startswith("| two | 1 | 0.600 | 0.800 | −0.200")
    assert lines[4].startswith("| **all** | 3 | 0.733")
    assert lines[5].startswith("| goal |")
    assert [r.name for r in worst(found, 2)] == ["c", "b"]
    assert "2 masks were drawn a second time" in agreement_line(found)
    assert "lowest 0.910 (c)" in agreement_line(found)
    text = report(found)
    assert "1 of 2 photos of one product" in text and "b (nothing found)" in text
    assert "| bottle | 1 |" in text
    assert agreement_line(found[1:2]) == ""


def test_the_card_is_changed_between_its_markers_only(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text(f"before\n\n{START}\nold\n{END}\n\nafter\n")
    embed(card, "new")
    embed(card, "newer")
    assert card.read_text() == f"before\n\n{START}\n\nnewer\n\n{END}\n\nafter\n"
    for wrong in ("none", f"{END}{START}", f"{START}{START}{END}"):
        card.write_text(wrong)
        with pytest.raises(ValueError, match="hint:"):
            embed(card, "new")


def test_the_worst_are_drawn(predictor: SamPredictor, subjects: list[Subject], rows: list[Row]) -> None:
    page = worst_sheet(predictor, subjects, rows, side=120)
    assert page.dtype == np.uint8 and page.ndim == 3
    assert page.shape[1] > 4 * 120  # two pairs beside each other
    assert len(np.unique(page.reshape(-1, 3), axis=0)) > 50


def test_the_command_writes_table_json_sheet_and_card(
    listing: Path,
    color_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card = tmp_path / "card.md"
    card.write_text(f"{START}{END}")
    words = ["evaluate", "photos", str(color_folder), str(listing), "--photos", str(listing.parent)]
    words += ["--json", str(tmp_path / "a.json"), "--sheet", str(tmp_path / "a.png"), "--card", str(card)]
    monkeypatch.setattr(sys, "argv", words)
    command.main()
    printed = capsys.readouterr().out
    assert printed.startswith("|  | n | box |")
    assert printed.strip() in card.read_text()
    body = json.loads((tmp_path / "a.json").read_text())
    assert body["masks"] == 2 and body["model"]["name"] == "color"
    assert body["rows"][0]["auto"] == "right"
    assert load_image(tmp_path / "a.png").shape[2] == 3


def test_synthetic_scenes_are_measured_too(
    color_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", "synthetic", str(color_folder), "--count", "2"])
    command.main()
    assert "| synthetic | " in capsys.readouterr().out
