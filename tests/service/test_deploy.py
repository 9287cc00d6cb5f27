"""deploy/boothsam.service and the snippets of docs/deploy.md: understood by systemd, and in line with the defaults."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from boothsam.service.settings import Settings, load

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "boothsam.service"
PAGE = (ROOT / "docs" / "deploy.md").read_text()


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def _options(text: str) -> dict[str, str]:
    """The last value of each option, whatever section it is in."""
    lines = [line for line in text.splitlines() if line and line[0] not in "#["]
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+=.*", line) for line in lines), lines
    return dict(line.split("=", 1) for line in lines)


def test_the_unit_fits_the_defaults() -> None:
    options, defaults = _options(UNIT.read_text()), Settings.model_fields
    assert options["Type"] == "notify" and options["NotifyAccess"] == "main" and options["KillMode"] == "mixed"
    assert options["WatchdogSec"] == "30" and options["Restart"] == "always"
    assert int(options["TimeoutStopSec"]) >= defaults["drain_s"].default + 5
    assert options["MemoryMax"] == "2G" and options["OOMPolicy"] == "continue"
    assert options["ExecStart"].endswith("/boothsam serve")


def _verify(unit: Path) -> str:
    """What systemd has to say about a unit, with a command that exists here."""
    text = re.sub(r"^(ExecStart|ExecStartPre)=\S+", rf"\1={sys.executable}", unit.read_text(), flags=re.MULTILINE)
    unit.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    # What it says of other units of this machine is not about ours.
    return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if unit.name in line)


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze to ask")


@needs_systemd
def test_systemd_understands_the_unit_and_its_drop_ins(tmp_path: Path) -> None:
    drop_ins = [block for block in _blocks("ini") if "[Unit]" not in block]
    assert len(drop_ins) >= 3
    for number, drop_in in enumerate(["", *drop_ins]):
        unit = tmp_path / f"boothsam{number}.service"
        unit.write_text(UNIT.read_text() + drop_in)
        assert _verify(unit) == ""
    mistaken = tmp_path / "mistaken.service"
    mistaken.write_text(UNIT.read_text().replace("WatchdogSec", "WatchDogSeconds"))
    assert "WatchDogSeconds" in _verify(mistaken)


@needs_systemd
def test_systemd_understands_the_kiosks_unit(tmp_path: Path) -> None:
    (block,) = [block for block in _blocks("ini") if "[Unit]" in block]
    unit = tmp_path / "kiosk.service"
    unit.write_text(block)
    assert _verify(unit) == ""


def test_the_settings_that_are_shown_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = _blocks("toml")
    path = tmp_path / "boothsam.toml"
    path.write_text(block)
    monkeypatch.setenv("BOOTHSAM_CONFIG", str(path))
    loaded = load()
    assert loaded.settings.retention_days == 30 and loaded.origins["queue"] == str(path)


def test_the_names_in_the_page_exist() -> None:
    for name in re.findall(r"`([a-z]+_[a-z_]+)(?: = [^`]*)?`", PAGE):
        known = name in Settings.model_fields or name in ROOT.joinpath("service/problems.py").read_text()
        metric = (
            name.removeprefix("boothsam_")
            in (ROOT / "service/app.py").read_text() + (ROOT / "service/metrics.py").read_text()
        )
        assert known or metric or name == "proxy_request_buffering", name
