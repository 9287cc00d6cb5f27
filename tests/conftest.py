"""Shared by all tests: a boothsam home of its own for each test, and no network but loopback (see addopts)."""

from pathlib import Path

import pytest

from tests.models.color_model import build_color_model


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTHSAM_HOME", str(tmp_path / "boothsam-home"))


@pytest.fixture(scope="session")
def color_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder that segments by colour (tests/models/color_model.py)."""
    return build_color_model(tmp_path_factory.mktemp("models") / "color")
