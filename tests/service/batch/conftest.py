"""`boothsam batch` in this process, and in one of its own for what ends a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import save_image
from boothsam.service.cli import app
from typer.testing import CliRunner

from tests.service.conftest import DISC, RED, disc

BOX = "310,60,490,240"


def picture(shade: int = 230) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A red disc on a grey backdrop of this shade, 600x400: photos of different shades are different photos."""
    image = np.full((400, 600, 3), shade, np.uint8)
    disc(image, *DISC, RED)
    return image


def journal(out: Path) -> list[dict[str, Any]]:
    """The journal's lines."""
    return [json.loads(line) for line in (out / "batch.jsonl").read_text().splitlines()]


def files(out: Path) -> dict[str, bytes]:
    """Every visible picture of the output folder."""
    found = [p for p in sorted(out.rglob("*")) if p.is_file() and ".batch" not in p.parts]
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in found if p.suffix in (".png", ".jpg", ".webp")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png and sub/a.png, sub/a.jpg, sub/b.jpg: discs on different greys."""
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    for shade, name in enumerate(("a.png", "sub/a.jpg", "sub/a.png", "sub/b.jpg")):
        save_image(place / name, picture(220 + 5 * shade))
    return place


@pytest.fixture
def batch(color_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `boothsam batch ...` with the colour model and one thread."""
    monkeypatch.setenv("NO_COLOR", "1")

    def invoke(*arguments: object) -> Any:
        words = [str(a) for a in arguments]
        return CliRunner().invoke(app, ["batch", *words, "--model", str(color_folder), "--threads", "1"])

    return invoke


@pytest.fixture
def spawn(color_folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the same as a process."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        words = [str(a) for a in arguments] + ["--model", str(color_folder), "--threads", "1"]
        command = [sys.executable, "-m", "boothsam.service.cli", "batch", *words]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        with process:  # closes its pipes
            process.kill()
