"""A batch that is ended at any point: nothing lost, nothing done twice, no half file to be seen."""

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
from boothsam.runtime.images import load_image, save_image

from tests.service.batch.conftest import BOX, files, journal, picture

Spawn = Callable[..., subprocess.Popen[str]]
PHOTOS, KILLS = 12, 4


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for shade in range(PHOTOS):
        save_image(folder / f"{shade:02d}.png", picture(180 + 5 * shade))
    return folder


def lines_so_far(out: Path) -> int:
    try:
        return (out / "batch.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def wait_for_lines(process: subprocess.Popen[str], out: Path, wanted: int) -> None:
    deadline = time.monotonic() + 120
    while lines_so_far(out) < wanted and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def check(out: Path) -> None:
    for name in files(out):
        load_image(out / name)  # whole, or it raises
    done = [line["photo"] for line in journal_lines(out)]
    assert max(Counter(done).values(), default=1) == 1
    for line in journal_lines(out):
        assert line["status"] == "done" and (out / line["products"][0]["output"]).is_file()


def journal_lines(out: Path) -> list[dict[str, Any]]:
    """Without a last line that was cut."""
    import json

    if not (out / "batch.jsonl").exists():
        return []
    return [json.loads(line) for line in (out / "batch.jsonl").read_text().splitlines(True) if line.endswith("\n")]


def test_killed_at_random_points(spawn: Spawn, batch: Callable[..., Any], many: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    out, whole = tmp_path / "cut", tmp_path / "whole"
    for _ in range(KILLS):
        process = spawn(many, "-o", out, "--box", BOX)
        wait_for_lines(process, out, lines_so_far(out) + chance.randrange(0, 3))
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
        check(out)
    assert batch(many, "-o", out, "--box", BOX).exit_code == 0
    check(out)
    assert len(journal(out)) == PHOTOS
    assert batch(many, "-o", whole, "--box", BOX).exit_code == 0
    assert files(out) == files(whole)
    assert list((out / ".batch" / "incoming").iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_cleanly_and_says_how_to_go_on(
    spawn: Spawn, many: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "cut"
    process = spawn(many, "-o", out, "--box", BOX, "--json")
    wait_for_lines(process, out, 2)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "stopping" in stderr and "the same command goes on from here" in stderr
    assert '"stopped": true' in stdout
    check(out)
    # What was under way is finished and journalled: no picture without its line.
    assert len(files(out)) == len(journal(out)) >= 2
    assert "Traceback" not in stderr
