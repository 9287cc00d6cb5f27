"""`boothsam segment`: masks as PNG and as COCO records, checked against pycocotools."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.masks import rle_to_mask
from PIL import Image
from pycocotools import mask as coco

from tests.service.conftest import DISC_BOX

Run = Callable[..., Any]


def test_coco_records_on_stdout(run: Run, photos: Path) -> None:
    result = run("segment", photos / "one.png", "--point", "400,150")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["images"] == [{"id": 1, "file_name": "one.png", "width": 600, "height": 400}]
    records = document["annotations"]
    assert [r["candidate"] for r in records] == [0, 1, 2]
    assert sum(r["best"] for r in records) == 1
    best = next(r for r in records if r["best"])
    assert best["predicted_iou"] == max(r["predicted_iou"] for r in records)
    assert best["bbox"] == pytest.approx([320, 70, 160, 160], abs=8)
    assert best["area"] == pytest.approx(np.pi * 80**2, rel=0.06)
    assert best["prompt"] == {"point_coords": [[400, 150]], "point_labels": [1]}
    with warnings.catch_warnings():  # pycocotools 2.0.11 against NumPy 2's copy keyword
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = coco.decode(coco.frPyObjects(best["segmentation"], 400, 600)).astype(bool)
    assert np.array_equal(theirs, rle_to_mask(best["segmentation"]))
    assert theirs.sum() == best["area"]


def test_png_masks_in_a_folder(run: Run, photos: Path, tmp_path: Path) -> None:
    result = run("segment", photos / "one.png", "--box", DISC_BOX, "-o", tmp_path / "masks", "--json")
    assert result.exit_code == 0, result.stderr
    records = json.loads(result.stdout)["annotations"]
    assert [Path(r["file_name"]).name for r in records] == ["one-1.png", "one-2.png", "one-3.png"]
    for record in records:
        with Image.open(record["file_name"]) as picture:
            assert (picture.mode, picture.size) == ("L", (600, 400))
            pixels = np.asarray(picture)
        assert set(np.unique(pixels)) == {0, 255}
        assert np.array_equal(pixels > 0, rle_to_mask(record["segmentation"]))


def test_the_best_mask_as_one_file(run: Run, photos: Path, tmp_path: Path) -> None:
    for prompt in (("--box", DISC_BOX), ("--point", "400,150"), ("--auto",)):
        target = tmp_path / f"{prompt[0]}.png"
        result = run("segment", photos / "one.png", *prompt, "--best", "-o", target)
        assert result.exit_code == 0, result.stderr
        assert result.stdout == f"{target}\n"
        assert "predicted_iou" in result.stderr
        with Image.open(target) as picture:
            assert (np.asarray(picture) > 0).sum() == pytest.approx(np.pi * 80**2, rel=0.1)


def test_three_masks_do_not_fit_one_file(run: Run, photos: Path, tmp_path: Path) -> None:
    result = run("segment", photos / "one.png", "--point", "400,150", "-o", tmp_path / "mask.png")
    assert result.exit_code == 2
    assert "3 pictures cannot be written to the one file" in result.stderr


def test_a_json_file_is_not_replaced_without_force(run: Run, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "masks.json"
    arguments = ("segment", photos / "two.jpg", "--box", DISC_BOX, "--box", "60,60,240,240", "--best", "-o", target)
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert [r["product"] for r in json.loads(target.read_text())["annotations"]] == [1, 2]
    result = run(*arguments)
    assert result.exit_code == 1
    assert "exists" in result.stderr
    assert run(*arguments, "--force").exit_code == 0
