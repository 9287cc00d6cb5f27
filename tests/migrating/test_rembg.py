"""rembg's code and commands before and after, on a drawn red mug.

What was before runs where rembg is installed, with weights that find red (tests/migrating/u2net.py) in place of its
own, in a process of its own: its libraries compile when they are imported. What remains runs everywhere.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import typer.main
from boothsam.runtime.images import load_image
from boothsam.runtime.masks import BoolArray, mask_iou
from boothsam.service.cli import app
from PIL import Image
from typer.testing import CliRunner

from tests.kiosk.scenes import as_file, mug_scene
from tests.migrating.diffs import Diff
from tests.migrating.scripts import run_script, working_in
from tests.migrating.u2net import write_u2net
from tests.service.http_client import serving

MUG = mug_scene("red")
needs_rembg = pytest.mark.skipif(
    find_spec("rembg") is None, reason="rembg is not installed; hint: pip install 'rembg[cpu,cli]'"
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The working folder, with the photo and a folder of two."""
    photo = as_file(MUG.image, "JPEG")
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        (tmp_path / name).write_bytes(photo)
    with working_in(tmp_path):
        yield tmp_path


def alpha(path: Path | str) -> BoolArray:
    """Where a PNG is solid."""
    with Image.open(path) as picture:
        assert picture.mode == "RGBA"
        return np.asarray(picture)[..., 3] >= 128


def rembg(folder: Path, *command: str) -> None:
    """Run it with the weights that find red."""
    write_u2net(folder / "rembg")
    environment = os.environ | {"REMBG_HOME": str(folder / "rembg"), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@needs_rembg
def test_before_and_after_cut_out_the_same(folder: Path, diffs: dict[str, Diff]) -> None:
    rembg(folder, sys.executable, "-c", diffs["rembg"].before)
    before = alpha("product.png")
    cut = run_script(diffs["rembg"].after)["cut"]
    assert mask_iou(before, cut.full_alpha >= 128) >= 0.9
    assert mask_iou(before, MUG.product) >= 0.9


def test_after_cuts_out_the_product(folder: Path, diffs: dict[str, Diff]) -> None:
    cut = run_script(diffs["rembg"].after)["cut"]
    assert mask_iou(cut.full_alpha >= 128, MUG.product) >= 0.9
    x0, y0, x1, y1 = cut.window_xyxy
    assert (alpha("product.png") == (cut.full_alpha >= 128)[y0:y1, x0:x1]).all()


def commands(lines: list[str], program: str) -> list[list[str]]:
    """The arguments of each line that calls this program."""
    return [words[1:] for words in map(shlex.split, lines) if words[0] == program]


def test_every_command_of_the_page_is_understood(diffs: dict[str, Diff]) -> None:
    """Also those that run for ever: parsed and not run."""
    group = typer.main.get_command(app)
    lines = commands(diffs["rembg-cli"].added, "boothsam")
    assert {words[0] for words in lines} == {"crop", "segment", "batch", "serve"}
    for words in lines:
        parent = group.make_context("boothsam", list(words))
        command = group.get_command(parent, words[0])  # type: ignore[attr-defined]
        command.make_context(words[0], words[1:], parent=parent)


def test_the_commands_after(folder: Path, diffs: dict[str, Diff]) -> None:
    (crop, white, mask) = commands(diffs["rembg-cli"].added, "boothsam")[:3]
    batch = commands(diffs["rembg-cli"].added, "boothsam")[3]
    for words in (crop, white, mask, batch):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    assert 0.2 < alpha("product.png").mean() < 0.9, "the product and its border"
    assert load_image("white.png")[0, 0].tolist() == [255, 255, 255]
    assert mask_iou(load_image("mask.png")[..., 0] == 255, MUG.product) >= 0.9
    assert sorted(path.name for path in Path("pictures").glob("*.png")) == ["a.png", "b.png"]


@needs_rembg
@pytest.mark.skipif(shutil.which("rembg") is None, reason="rembg's command line is not on the PATH")
def test_the_commands_before(folder: Path, diffs: dict[str, Diff]) -> None:
    crop = commands(diffs["rembg-cli"].removed, "rembg")[0]
    rembg(folder, "rembg", *crop)
    assert mask_iou(alpha("product.png"), MUG.product) >= 0.9


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl to ask with")
def test_the_request_after(folder: Path, diffs: dict[str, Diff]) -> None:
    (line,) = [line for line in diffs["rembg-cli"].added if line.startswith("curl")]
    with serving(None) as url:
        subprocess.run(shlex.split(line.replace("http://127.0.0.1:7000", url)), check=True, timeout=120)
    picture = load_image("white.png")
    assert picture.shape == MUG.image.shape, "as large as the photo, like rembg's"
    assert mask_iou((picture != 255).any(2), MUG.product) >= 0.9
