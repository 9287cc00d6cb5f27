"""Shared by all tests: a boothsam home of its own for each test, and no network but loopback (see addopts)."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTHSAM_HOME", str(tmp_path / "boothsam-home"))
