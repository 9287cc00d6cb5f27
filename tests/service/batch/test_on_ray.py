"""The same photos on a real Ray of several processes, started here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service.batch.conftest import BOX, files, journal


def test_without_ray_the_extra_is_named(
    batch: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = batch(folder, "-o", tmp_path / "cut", "--ray", "local")
    assert result.exit_code == 1
    assert "--ray needs ray" in result.stderr and "pip install 'boothsam[ray]'" in result.stderr


@pytest.mark.slow
def test_the_same_pictures_from_ray_actors(
    batch: Callable[..., Any], color_folder: Path, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray.data", reason="boothsam[ray] is not installed")
    out, here = tmp_path / "cut", tmp_path / "here"
    (folder / "broken.jpg").write_bytes((folder / "sub" / "b.jpg").read_bytes()[:900])
    command = [sys.executable, "-m", "boothsam.service.cli", "batch", str(folder), "-o", str(out), "--box", BOX]
    command += [
        "--ray",
        "local",
        "--ray-actors",
        "2",
        "--cpus-per-actor",
        "0.5",
        "--json",
        "--model",
        str(color_folder),
    ]
    # Ray's own socket paths must be short; its processes are no children of pytest's guarded sockets.
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"NO_COLOR": "1"})
    assert result.returncode == 1, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["done"], summary["failed"], summary["codes"]) == (4, 1, {"broken_image": 1})
    assert batch(folder, "-o", here, "--box", BOX).exit_code == 1
    assert files(out) == files(here)
    lines = journal(out)
    # A run on this machine goes on where Ray stopped: it is the same journal.
    assert batch(folder, "-o", out, "--box", BOX).exit_code == 1
    assert journal(out) == lines
