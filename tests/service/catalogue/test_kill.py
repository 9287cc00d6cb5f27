"""A catalogue that is ended at any point: the next run does only what is missing, and ends where one run would have."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boothsam.runtime.images import load_image

from tests.service.catalogue.conftest import files, journal, photo, report

PHOTOS, KILLS = 6, 3


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for index in range(PHOTOS):
        centre = (300, 200) if index % 4 else (20, 200)  # every fourth is cut off
        photo(folder / f"p{index // 2}_{index % 2}.png", 190 + 5 * index, centre)
    return folder


def wait_for_lines(process: subprocess.Popen[str], out: Path, wanted: int) -> None:
    deadline = time.monotonic() + 120
    while len(journal(out)) < wanted and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_at_random_points(
    spawn: Callable[..., subprocess.Popen[str]], catalogue: Callable[..., Any], many: Path, tmp_path: Path
) -> None:
    chance = random.Random(11)
    out, whole = tmp_path / "out", tmp_path / "whole"
    for _ in range(KILLS):
        process = spawn(many, "-o", out)
        wait_for_lines(process, out, len(journal(out)) + chance.randrange(0, 3))
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
        for name in files(out):
            load_image(out / name)  # whole, or it raises
        for line in journal(out):
            assert all((out / product["output"]).is_file() for product in line["products"])
    assert catalogue(many, "-o", out).exit_code == 1
    lines = journal(out)
    assert max(Counter(line["photo"] for line in lines).values()) == 1 and len(lines) == PHOTOS
    assert catalogue(many, "-o", whole).exit_code == 1
    assert files(out) == files(whole)
    first, second = report(out), report(whole)
    assert first["totals"] == second["totals"] and first["pictures"] == second["pictures"]
    assert first["totals"]["retake"] == 2 and first["totals"]["ready"] == PHOTOS - 2
    assert list((out / ".catalogue" / "incoming").iterdir()) == []


def test_a_signal_ends_cleanly_with_a_report_of_what_is_done(
    spawn: Callable[..., subprocess.Popen[str]], catalogue: Callable[..., Any], many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = spawn(many, "-o", out, "--json")
    wait_for_lines(process, out, 1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "the same command goes on from here" in stderr and '"stopped": true' in stdout
    totals = report(out)["totals"]
    done = len(journal(out))
    assert totals["waiting"] == PHOTOS - done and totals["ready"] + totals["retake"] == done
    if totals["waiting"]:
        assert "Not done yet" in (out / "report.html").read_text()
    assert catalogue(many, "-o", out).exit_code == 1 and report(out)["totals"]["waiting"] == 0
