"""`boothsam everything` on the tiny real SAM: files, the COCO document, progress, and what it refuses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import load_image, save_image
from boothsam.service.everything import lower_thresholds, tint
from pycocotools.coco import COCO

from tests.models.pictures import test_picture
from tests.models.tiny_folder import export_tiny_sam

Run = Callable[..., Any]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_sam(tmp_path_factory.mktemp("models") / "tiny_sam")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "shapes.png"
    save_image(path, test_picture("landscape").image)
    return path


@pytest.fixture
def everything(run: Run, tiny: Path, photo: Path) -> Run:
    """Run it with few points."""

    def invoke(*arguments: object) -> Any:
        small = ("--model", tiny, "--threads", 1, "--points-per-side", 6)
        return run("everything", photo, *small, *arguments)

    return invoke


def mask_at(path: Path) -> np.ndarray[Any, np.dtype[np.bool_]]:
    picture = load_image(path)
    assert set(np.unique(picture)) == {0, 255}
    return np.asarray(picture[..., 0] == 255)


def test_masks_document_and_overlay(everything: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "masks"
    result = everything("-o", out)
    assert result.exit_code == 0, result.stderr
    written = [Path(line) for line in result.stdout.splitlines()]
    count = len(written) - 2
    assert count >= 3
    assert [p.name for p in written] == [f"mask-{i:03d}.png" for i in range(1, count + 1)] + [
        "masks.json",
        "overlay.jpg",
    ]
    assert set(written) == set(out.iterdir())
    assert f"{count} masks (exact)" in result.stderr
    dataset = COCO(str(out / "masks.json"))
    image = load_image(photo)
    (info,) = dataset.loadImgs([1])
    assert (info["file_name"], info["height"], info["width"]) == ("shapes.png", *image.shape[:2])
    records = dataset.loadAnns(dataset.getAnnIds(imgIds=[1]))
    assert len(records) == count
    for record in records:
        mask = mask_at(out / record["file_name"])
        assert np.array_equal(dataset.annToMask(record), mask)
        assert record["area"] == mask.sum()
        x, y, w, h = record["bbox"]
        assert mask[y : y + h + 1, x : x + w + 1].sum() == mask.sum()
        assert record["predicted_iou"] > 0.88 and record["stability_score"] >= 0.95
    assert [r["predicted_iou"] for r in records] == sorted((r["predicted_iou"] for r in records), reverse=True)
    overlay = load_image(out / "overlay.jpg").astype(int)
    assert overlay.shape == image.shape
    covered = np.any([dataset.annToMask(record) for record in records], axis=0)
    change = np.abs(overlay - image).max(axis=2)
    assert change[covered].mean() > 40 > 10 > change[~covered].mean()


def test_fast_mode_thresholds_and_json(everything: Run, tmp_path: Path) -> None:
    options = ("--mode", "fast", "--pred-iou-thresh", 0.8, "--stability-score-thresh", 0.9, "--json")
    result = everything("-o", tmp_path / "masks", *options)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["info"]["settings"]["mode"] == "fast"
    assert document["info"]["settings"]["pred_iou_thresh"] == 0.8
    assert document == json.loads((tmp_path / "masks" / "masks.json").read_text())
    assert document["model"]["name"] == "tiny_sam" and len(document["annotations"]) >= 3


def test_earlier_results_are_replaced_with_force_only(everything: Run, tmp_path: Path) -> None:
    (tmp_path / "mask-099.png").write_bytes(b"earlier")
    (tmp_path / "notes.txt").write_text("mine")
    result = everything("-o", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path} holds earlier results: mask-099.png" in result.stderr and "hint: --force" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask-099.png", "notes.txt"]
    result = everything("-o", tmp_path, "--force")
    assert result.exit_code == 0, result.stderr
    names = {p.name for p in tmp_path.iterdir()}
    assert "mask-001.png" in names and "notes.txt" in names and "mask-099.png" not in names


@pytest.mark.parametrize("model", ["starter", "mobile_sam"])
def test_the_thresholds_to_try_next_are_lower_than_those_that_found_nothing(model: str) -> None:
    for asked in ((0.88, 0.95), (0.5, 0.5), (0.3, 0.2)):
        assert all(0 <= new < old for new, old in zip(lower_thresholds(model, *asked), asked, strict=True))
    assert lower_thresholds(model, 0.0, 0.0) == (0.0, 0.0)


def test_what_it_refuses(everything: Run, run: Run, tiny: Path, photo: Path, tmp_path: Path) -> None:
    result = everything("-o", tmp_path / "out", "--mode", "quick")
    assert result.exit_code == 2 and "unknown mode 'quick'; expected exact or fast" in result.stderr
    result = everything("-o", tmp_path / "out", "--pred-iou-thresh", 1, "--stability-score-thresh", 1)
    assert result.exit_code == 1
    assert "no mask of" in result.stderr and "hint: --pred-iou-thresh 0.85" in result.stderr
    starter = ("--threads", 1, "--points-per-side", 2)
    result = run("everything", photo, "-o", tmp_path / "out", *starter)
    assert result.exit_code == 1
    assert "hint: --pred-iou-thresh 0.50 --stability-score-thresh 0.50, or --model mobile_sam" in result.stderr
    result = everything("-o", photo)
    assert result.exit_code == 1 and "is a file, expected a folder" in result.stderr
    result = everything("-o", tmp_path / "out", "--points-per-side", 0)
    assert result.exit_code == 2
    result = run("everything", tmp_path / "absent.jpg", "-o", tmp_path / "out", "--model", tiny)
    assert result.exit_code == 1 and "no such photo" in result.stderr and "hint:" in result.stderr
    assert not (tmp_path / "out").exists()
    own = tmp_path / "own" / "overlay.jpg"
    own.parent.mkdir()
    save_image(own, load_image(photo))
    result = run("everything", own, "-o", own.parent, "--model", tiny, "--force")
    assert result.exit_code == 1 and "would be overwritten" in result.stderr


def test_progress_on_a_terminal(tiny: Path, photo: Path, tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "boothsam.service.cli", "everything", str(photo), "-o", str(tmp_path / "masks")]
    options = ["--model", str(tiny), "--points-per-side", "6", "--threads", "1"]
    process = subprocess.Popen(
        command + options, stdout=subprocess.DEVNULL, stderr=terminal, env=os.environ | {"TERM": "xterm"}
    )
    os.close(terminal)
    seen = b""
    try:
        while chunk := os.read(screen, 4096):
            seen += chunk
    except OSError:  # the terminal is closed when the process ends
        pass
    os.close(screen)
    assert process.wait() == 0, seen
    assert b"batch of points 1/18" in seen and b"batch of points 18/18" in seen and b"s left" in seen


def test_each_mask_is_tinted_where_it_is() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:45] = True
    tint(image, mask, 0)
    assert (image[~mask] == 100).all() and (image[mask] != 100).any(axis=1).all()
    assert image[10, 30].tolist() != image[15, 36].tolist()  # the rim stands out
    again = image.copy()
    tint(again, mask & False, 1)
    assert np.array_equal(again, image)
