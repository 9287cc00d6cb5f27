"""`resize="fast"` from the command line, in batches and in the service; what it does to pixels is test_transforms'."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime import transforms
from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import load_image, save_image
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.model import Prompts, SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.service.batch.predictor import ModelChoice, Predictor
from boothsam.service.embeddings import embedding_id
from boothsam.service.inference import Inference
from boothsam.service.settings import load

Run = Callable[..., Any]
CLICK = "1500,1100"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one photo that the fast resize shrinks its own way: 7 megapixels with a red disc."""
    image = np.random.default_rng(0).integers(205, 235, (2240, 3200, 3), np.uint8)
    rows, columns = np.ogrid[:2240, :3200]
    image[(columns - 1500) ** 2 + (rows - 1100) ** 2 < 700**2] = (190, 40, 35)
    folder = tmp_path_factory.mktemp("large")
    save_image(folder / "disc.jpg", image, quality=90)
    return folder


@pytest.fixture
def resized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modes that photos were resized in."""
    modes: list[str] = []
    real = transforms.resize_longest_side

    def record(image: transforms.Uint8Array, image_size: int = 1024, resize: str = "exact") -> transforms.Uint8Array:
        modes.append(resize)
        return real(image, image_size, resize)

    monkeypatch.setattr(transforms, "resize_longest_side", record)
    return modes


def test_a_model_resizes_as_it_was_told(color_folder: Path, large: Path) -> None:
    exact = SamModel.load(color_folder, backend="ort-cpu", threads=1)
    fast = exact.with_resize("fast")
    assert (exact.resize, fast.resize) == ("exact", "fast") and fast.sessions["encoder"] is exact.sessions["encoder"]
    photo = load_image(large / "disc.jpg")
    frames = [model.preprocess(photo) for model in (exact, fast)]
    assert not np.array_equal(frames[0][0], frames[1][0]) and np.array_equal(frames[0][1], frames[1][1])
    masks = []
    for model in (exact, fast):
        embedding = model.encode(photo)
        masks.append(model.decode(embedding, Prompts.make([[1500, 1100]], [1])).low_res_masks[0, 0] > 0)
    assert masks[0].any() and mask_iou(masks[0], masks[1]) >= 0.995


def test_an_unknown_resize_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'quick'; expected exact or fast"):
        SamPredictor.load(tmp_path / "no-model", resize="quick")


@pytest.mark.parametrize("resize", ["exact", "fast"])
def test_crop_and_segment(run: Run, large: Path, tmp_path: Path, resized: list[str], resize: str) -> None:
    photo = large / "disc.jpg"
    done = run("crop", photo, "--point", CLICK, "--resize", resize, "-o", tmp_path / "cut.png")
    assert done.exit_code == 0, done.output
    asked = run("segment", photo, "--point", CLICK, "--best", "--resize", resize)
    assert asked.exit_code == 0, asked.output
    assert resized == [resize, resize]
    record = json.loads(asked.stdout)["annotations"][0]
    assert record["area"] == pytest.approx(np.pi * 700**2, rel=0.02)


def test_crop_says_what_it_expected(run: Run, large: Path, tmp_path: Path) -> None:
    done = run("crop", large / "disc.jpg", "--point", CLICK, "--resize", "quick", "-o", tmp_path / "cut.png")
    assert done.exit_code == 2 and "expected exact or fast" in done.output
    assert not (tmp_path / "cut.png").exists()


def test_a_batch_does_a_photo_again_when_the_resize_changed(color_folder: Path, tmp_path: Path) -> None:
    keys = {
        resize: Predictor(ModelChoice(str(color_folder), "ort-cpu", "fp32", 1, resize), tmp_path)._key
        for resize in ("exact", "fast")
    }
    assert keys["exact"] != keys["fast"]
    manifest = SamModel.load(color_folder, backend="ort-cpu", threads=1).manifest
    assert keys["exact"] == f"{manifest.key} fp32"  # what journals of earlier versions hold


def test_an_embedding_is_not_taken_for_that_of_another_resize(color_folder: Path) -> None:
    keys = []
    for resize in ("exact", "fast"):
        inference = Inference(model=color_folder, backend="ort-cpu", threads=1, resize=resize)
        inference.load()
        assert inference.model.resize == resize
        keys.append(inference.key(hashlib.sha256(b"photo").hexdigest()))
        inference.close()
    assert keys[0] != keys[1]
    assert embedding_id("a", "m", "fp32", "fast") != embedding_id("a", "m", "fp32", "exact")


def test_the_service_takes_it_as_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load().settings.resize == "exact"
    monkeypatch.setenv("BOOTHSAM_RESIZE", "fast")
    assert load().settings.resize == "fast"
    monkeypatch.setenv("BOOTHSAM_RESIZE", "quick")
    with pytest.raises(OptionError, match=r"resize 'quick' \(BOOTHSAM_RESIZE\)"):
        load()


def test_verify_compares_with_the_exact_resize(run: Run, large: Path, tmp_path: Path) -> None:
    done = run("verify", "starter", "--resize", "fast", "--photos", large, "--backend", "ort-cpu", "--threads", "1")
    assert done.exit_code == 0, done.output
    assert "against the exact resize; gate: mean 0.995, p5 0.98" in done.output
    assert "every answer agrees" in done.output


def test_verify_fails_a_resize_that_moves_masks(run: Run, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By twelve pixels of the frame."""
    exact = transforms._resized_in_strips
    monkeypatch.setattr(transforms, "_shrunk_fast", lambda image, target: np.roll(exact(image, target), 12, 1))
    done = run("verify", "starter", "--resize", "fast", "--photos", large, "--backend", "ort-cpu", "--threads", "1")
    assert done.exit_code == 1, done.output
    assert "against the exact resize: mean mask IoU" in done.output


@pytest.mark.parametrize("more", [[], ["--photos", ".", "--numerics", "device"]])
def test_verify_refuses_what_does_not_go_together(run: Run, more: list[str]) -> None:
    done = run("verify", "starter", "--resize", "fast", *more)
    assert done.exit_code == 2 and "--resize fast is compared with the exact one on --photos" in done.output
