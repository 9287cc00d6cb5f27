"""A detector's files: what is read, whose photo it is, and that each malformed record is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from boothsam.runtime.errors import NothingFound, PromptError
from boothsam.service.detections import read_detections

MUG = Path("photos/mug.jpg")
SIZE_HW = (400, 600)


def write(folder: Path, body: object, name: str = "boxes.json") -> Path:
    path = folder / name
    path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ([{"bbox": [60, 80, 120, 160], "score": 0.9, "category_id": 3}], "boxes.json"),
        ([{"bbox": [60, 80, 120, 160], "image_id": 12, "score": 0.9}], "boxes.json"),
        ([{"bbox": [60, 80, 120, 160], "file_name": "elsewhere/mug.jpg"}], "boxes.json"),
        (
            {
                "images": [{"id": 7, "file_name": "mug.jpg"}],
                "annotations": [{"image_id": 7, "bbox": [60, 80, 120, 160]}],
            },
            "boxes.json",
        ),
        ([[60, 80, 180, 240]], "boxes.json"),
        ("0 0.2 0.4 0.2 0.4\n\n", "mug.txt"),
        ("0 0.2 0.4 0.2 0.4 0.93\n", "mug.txt"),
    ],
)
def test_every_format_gives_the_same_box(tmp_path: Path, body: object, name: str) -> None:
    (found,) = read_detections(write(tmp_path, body, name)).of(MUG, only=True)
    assert found.box_xyxy(SIZE_HW) == pytest.approx((60, 80, 180, 240))


def test_records_go_to_their_photos(tmp_path: Path) -> None:
    body = [
        {"bbox": [1, 1, 5, 5], "file_name": "mug.jpg"},
        {"bbox": [2, 2, 5, 5], "file_name": "jar.jpg"},
        {"bbox": [3, 3, 5, 5], "image_id": "mug"},
        {"bbox": [4, 4, 5, 5], "image_id": 42},
    ]
    detections = read_detections(write(tmp_path, body))
    assert [d.box[0] for d in detections.of(MUG, only=False)] == [1, 3]
    assert [d.box[0] for d in detections.of(Path("000042.png"), only=False)] == [4]
    with pytest.raises(NothingFound, match=r"holds no box for pan\.jpg"):
        detections.of(Path("pan.jpg"), only=False)


def test_a_folder_of_yolo_labels(tmp_path: Path) -> None:
    write(tmp_path, "3 0.5 0.5 1 1\n3 0.5 0.5 0.1 0.1 0.2\n", "mug.txt")
    write(tmp_path, "4 0.5 0.5 0.5 0.5\n", "jar.txt")
    detections = read_detections(tmp_path, min_score=0.5)
    (found,) = detections.of(MUG, only=False)
    assert found.box_xyxy(SIZE_HW) == (0, 0, 600, 400)
    assert found.category == 3
    with pytest.raises(NothingFound):
        detections.of(Path("pan.jpg"), only=True)


def test_anonymous_boxes_need_a_single_photo(tmp_path: Path) -> None:
    detections = read_detections(write(tmp_path, [[0, 0, 10, 10]]))
    assert len(detections.of(MUG, only=True)) == 1
    with pytest.raises(PromptError, match="record 1 does not say to which of the photos"):
        detections.of(MUG, only=False)


def test_scores_and_categories(tmp_path: Path) -> None:
    body = [{"bbox": [0, 0, 9, 9], "score": s, "category": "cup"} for s in (0.9, 0.3)]
    (found,) = read_detections(write(tmp_path, body), min_score=0.5).of(MUG, only=True)
    assert (found.score, found.category) == (0.9, "cup")


GOOD = {"bbox": [0, 0, 9, 9]}


@pytest.mark.parametrize(
    ("body", "name", "message"),
    [
        ("{", "b.json", r"b\.json is no JSON: .*line 1 column"),
        ({"a": 1}, "b.json", "holds dict; expected a list"),
        ("null", "b.json", "holds NoneType; expected a list"),
        ([], "b.json", "lists no detection"),
        ([GOOD, {"box": [0, 0, 1, 1]}], "b.json", r'record 2: expected \{"bbox"'),
        ([GOOD, GOOD, {"bbox": [0, 0, 1]}], "b.json", r"record 3: expected .*found \[0, 0, 1\]"),
        ([{"bbox": [0, 0, "9", 9]}], "b.json", r'record 1: expected .*found \[0, 0, "9", 9\]'),
        ('[{"bbox": [0, 0, NaN, 9]}]', "b.json", r"record 1: expected .*NaN"),
        ([{"bbox": [0, 0, 0, 9]}], "b.json", "record 1: the box .* width 0 and height 9"),
        ([{"bbox": [0, 0, 1, 9], "score": "high"}], "b.json", 'record 1: "score" must be a number'),
        ([{"bbox": [0, 0, 1, 9], "file_name": [1]}], "b.json", 'record 1: "file_name" must be text'),
        ([[0, 0, 9, 9], [5, 5, 2, 9]], "b.json", "record 2: the box .* empty or reversed"),
        ({"images": 3, "annotations": [GOOD, 4]}, "b.json", "annotation 2: expected"),
        ("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n", "b.txt", "line 2: expected `class centre_x"),
        ("cup 0.5 0.5 0.1 0.1\n", "b.txt", "line 1: expected"),
        ("\n0 120 80 40 40\n", "b.txt", "line 2: centre 120 80 .* not shares"),
        ("0 nan 0.5 0.1 0.1\n", "b.txt", "line 1: expected"),
        ("0 .1 .1 .2 .1 .2 .2 .1 .2\n", "b.txt", "segmentation label"),
    ],
)
def test_malformed_records_are_named(tmp_path: Path, body: object, name: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        read_detections(write(tmp_path, body, name))


def test_no_file_no_text_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="cannot read"):
        read_detections(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(PromptError, match="no text file"):
        read_detections(tmp_path / "b.json")
    with pytest.raises(PromptError, match=r"holds no \.txt file"):
        read_detections(tmp_path)
