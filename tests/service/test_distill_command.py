"""`boothsam distill` from the command line: a model folder as teacher, every end it can come to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import save_image
from boothsam.runtime.manifest import ModelManifest

from tests.service.conftest import BLUE, RED, disc

Run = Callable[..., Any]

SMALL = """
side = 128
batch = 2
prompts = 2
min_masks = 2
checkpoint_every = 2
[labels]
points_per_side = 5
min_predicted_iou = 0.0
min_stability = 0.0
max_clicks = 4
[student]
stem = 8
widths = [16, 24, 32, 40, 40]
blocks = [1, 1, 1, 1, 1]
embedding = 32
features_16 = 16
features_8 = 16
features_4 = 8
deep = 32
"""


@pytest.fixture
def products(tmp_path: Path) -> Path:
    folder = tmp_path / "products" / "below"
    folder.mkdir(parents=True)
    for name, colour in (("red", RED), ("blue", BLUE)):
        image = np.full((300, 400, 3), 225, np.uint8)
        disc(image, (200, 150), 90, colour)
        save_image(folder / f"{name}.png", image)
    return tmp_path / "products"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_a_model_of_ones_own_and_going_on_with_it(
    run: Run, color_folder: Path, products: Path, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "models" / "mine"
    words = ["distill", "--teacher", color_folder, "--photos", products, "-o", out, "--config", config]
    result = run(*words, "--steps", 2, "--threads", 1, "--licence", "MIT")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out}\n"
    for line in ("photo 2 of 2", "1 photos to train on, 1 held out", "step 2 of 2", "before: ", "after:  ", "next: "):
        assert line in result.stderr
    manifest = ModelManifest.load(out)
    assert manifest.licence == "MIT" and manifest.origin["teacher"] == "color" and manifest.origin["steps"] == 2
    assert run("verify", out).exit_code == 0
    assert "exists already" in run(*words).stderr
    more = run(*words, "--steps", 3, "--threads", 1, "--force")
    assert more.exit_code == 0, more.stderr
    assert "going on after step 2" in more.stderr
    assert ModelManifest.load(out).origin["steps"] == 3


def test_a_teacher_that_finds_nothing(
    run: Run, color_folder: Path, products: Path, config: Path, tmp_path: Path
) -> None:
    config.write_text(SMALL.replace("min_predicted_iou = 0.0", "min_predicted_iou = 1.1"))
    result = run("distill", "--teacher", color_folder, "--photos", products, "-o", tmp_path / "out", "--config", config)
    assert result.exit_code == 1
    assert "is sure of 0 masks on 0 of 2 photos" in result.stderr and "hint: " in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--photos": "nowhere"}, "is no folder"),
        ({"--teacher": "nowhere.pt"}, "not there"),
        ({"--config": "nowhere.toml"}, "is no configuration"),
        ({"--start-from": "nowhere.pt"}, "cannot be read"),
    ],
)
def test_wrong_paths(
    run: Run, color_folder: Path, products: Path, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    options: dict[str, Any] = {"--teacher": color_folder, "--photos": products, "-o": tmp_path / "out"}
    options |= {name: tmp_path / value for name, value in change.items()}
    result = run("distill", *(word for pair in options.items() for word in pair))
    assert result.exit_code in (1, 2)
    assert message in result.stderr and "hint: " in result.stderr
    assert "unexpected" not in result.stderr


def test_without_torch_the_extra_is_named(
    run: Run, color_folder: Path, products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.startswith(("boothsam.training", "boothsam.export"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("distill", "--teacher", color_folder, "--photos", products, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "needs torch" in result.stderr
    assert "pip install 'boothsam[train]'" in result.stderr
