"""What people see while a batch runs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from boothsam.service.batch import progress
from boothsam.service.batch.progress import Counter, Ticker, duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1:00 min"), (185, "3:05 min"), (7800, "2:10 h"), (360000, "100:00 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_rate_counts_what_was_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    counter = Counter(100)
    assert str(counter) == "0/100: 0 done, 0 failed"
    counter.done, counter.failed, counter.skipped, now[0] = 18, 2, 40, 110.0
    assert str(counter) == "60/100: 18 done, 2 failed, 40 as before, 2.0 photos/s, 20 s left"
    watched = Counter(None)
    watched.done, now[0] = 5, 120.0
    assert str(watched) == "5 done, 0 failed, 0.5 photos/s"


def test_a_log_gets_a_line_every_ten_seconds_and_no_repetition(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    counter = Counter(None)
    ticker = Ticker(counter)
    for second in range(31):
        now[0] = float(second)
        counter.done = min(second, 15)
        ticker.tick()
    ticker.clear()
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in shown] == ["10 done", "15 done", "15 done"]
    assert "\r" not in "".join(shown)


def test_a_terminal_gets_one_line_that_is_rewritten(photos: Path, color_folder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "boothsam.service.cli",
        "batch",
        str(photos / "one.png"),
        "-o",
        str(tmp_path / "o"),
    ]
    command += ["--box", "310,60,490,240", "--model", str(color_folder)]
    terminal, inside = pty.openpty()
    process = subprocess.Popen(command, stderr=inside, env=os.environ | {"TERM": "xterm", "NO_COLOR": "1"})
    os.close(inside)
    assert process.wait(60) == 0
    seen = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "\r\x1b[K1/1: 1 done, 0 failed" in seen and "\r\x1b[Kdone " in seen
