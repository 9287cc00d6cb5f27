"""`boothsam demo` writes six pictures, names them and says how long each stage took."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from boothsam.runtime.images import load_image
from boothsam.service.commands.demo import draw
from boothsam.service.prompts import Request
from PIL import Image

Run = Callable[..., Any]
NAMES = (
    "box-outline.jpg",
    "box-transparent.png",
    "box-white.jpg",
    "click-outline.jpg",
    "click-transparent.png",
    "click-white.jpg",
)
STAGES = ("load model", "decode JPEG", "resize and encode", "decode prompt", "mask and alpha", "encode pictures")


def test_demo(run: Run, color_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    result = run("demo", "--model", color_folder, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split() == [str(out / name) for name in NAMES]
    for stage in STAGES:
        assert stage in result.stderr
    assert load_image(out / "box-outline.jpg").shape == (400, 600, 3)
    assert np.abs(load_image(out / "box-white.jpg")[0, 0].astype(int) - 255).max() <= 1
    with Image.open(out / "click-transparent.png") as picture:
        alpha = np.asarray(picture)[..., 3]
    assert alpha.min() == 0 and alpha.max() == 255
    # Which backend, in a line; why the ones before it cannot be used is doctor's to say.
    first = result.stderr.splitlines()[0]
    assert first.startswith("model color on ") and len(first) < 140 and "passed over" not in result.stderr
    again = run("demo", "--model", color_folder, "-o", out, "--json")
    report = json.loads(again.stdout)
    assert again.exit_code == 0 and set(report["ms"]) == set(STAGES) and len(report["pictures"]) == 6


def test_the_outline_lies_on_the_rim() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    mask = np.zeros((100, 120), np.bool_)
    mask[30:70, 40:90] = True
    picture = draw(image, mask, Request.parse(["20,10,110,95"], ["60,50", "10,90,0"]))
    assert not image.any()
    assert picture[30, 60].tolist() == [255, 0, 160]
    assert picture[10, 60].tolist() == [0, 160, 255]
    assert picture[50, 60].tolist() == [0, 200, 80] and picture[90, 10].tolist() == [230, 30, 30]
    assert not picture[60, 75].any()
