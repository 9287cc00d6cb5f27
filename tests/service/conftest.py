"""The command line in-process, and drawn photos that the colour model answers exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.images import save_image
from boothsam.service.cli import app
from typer.testing import CliRunner

RED, BLUE = (190, 40, 35), (30, 60, 160)
DISC = ((400, 150), 80)  # centre x, y and radius of the product on `one.png`
DISC_BOX = "310,60,490,240"


def disc(image: npt.NDArray[np.uint8], centre: tuple[int, int], radius: int, colour: tuple[int, int, int]) -> None:
    cv2.circle(image, centre, radius, colour, -1)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one.png: a red disc off the centre; two.jpg: two equal ones; empty.png: the backdrop alone; 600x400 each."""
    folder = tmp_path_factory.mktemp("photos")
    image = np.full((400, 600, 3), 230, np.uint8)
    save_image(folder / "empty.png", image)
    disc(image, *DISC, RED)
    save_image(folder / "one.png", image)
    disc(image, (150, 150), 80, RED)
    save_image(folder / "two.jpg", image, quality=95)
    return folder


@pytest.fixture
def run(color_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `boothsam ...`; crop and segment get the colour model unless they name one."""
    monkeypatch.setenv("NO_COLOR", "1")

    def invoke(*arguments: object) -> Any:
        words = [str(a) for a in arguments]
        if words and words[0] in ("crop", "segment", "batch"):
            words += ["--model", str(color_folder)] if "--model" not in words else []
            words += ["--threads", "1"] if "--threads" not in words else []
        return CliRunner().invoke(app, words)

    return invoke
