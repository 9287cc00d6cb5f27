"""`boothsam catalogue` with the colour model, on drawn photos, for a market with small pictures."""

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

from tests.service.conftest import RED, disc

PRESET = """
name = "market"
title = "A market of ours"
base = "amazon"

[make]
size = 512
name = "{sku}_{n}"
"""


def photo(path: Path, shade: int = 230, centre: tuple[int, int] = (300, 200), radius: int = 80) -> Path:
    """A red disc on a grey backdrop of this shade, 600x400; radius 0: nothing but the backdrop."""
    image = np.full((400, 600, 3), shade, np.uint8)
    if radius:
        disc(image, centre, radius, RED)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, image)
    return path


def report(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text()))


def by_photo(out: Path) -> dict[str, dict[str, Any]]:
    """The report's entries by photo; for photos of one picture."""
    return {entry["photo"]: entry for entry in report(out)["pictures"]}


def files(out: Path) -> dict[str, bytes]:
    """Every visible picture and thumbnail."""
    found = (p for place in ("ready", "needs-work", "thumbs") for p in sorted((out / place).rglob("*")))
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in found}


def journal(out: Path) -> list[dict[str, Any]]:
    """The journal's whole lines."""
    path = out / ".catalogue" / "journal.jsonl"
    lines = path.read_text().splitlines(True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.fixture
def market(tmp_path: Path) -> Path:
    path = tmp_path / "market.toml"
    path.write_text(PRESET)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """MUG-7 from two sides, a cup that is cut off, an empty booth, a broken file."""
    place = tmp_path / "photos"
    photo(place / "MUG-7_back.jpg", 225)
    photo(place / "MUG-7_front.jpg", 230)
    photo(place / "cup.jpg", centre=(20, 200))
    photo(place / "empty.png", radius=0)
    (place / "torn.jpg").write_bytes((place / "cup.jpg").read_bytes()[:900])
    return place


Words = tuple[object, ...]


def _words(arguments: Words, market: Path, color_folder: Path) -> list[str]:
    words = [str(a) for a in arguments]
    preset = [] if "--preset" in words else ["--preset", str(market)]
    return ["catalogue", *words, *preset, "--model", str(color_folder), "--threads", "1"]


@pytest.fixture
def catalogue(color_folder: Path, market: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `boothsam catalogue ...`."""
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *arguments: CliRunner().invoke(app, _words(arguments, market, color_folder))


@pytest.fixture
def spawn(color_folder: Path, market: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the same as a process."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "boothsam.service.cli", *_words(arguments, market, color_folder)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        with process:  # closes its pipes
            process.kill()
