"""Settings: four sources in order, each value with its origin, mistakes named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boothsam.runtime.errors import OptionError
from boothsam.service.settings import Settings, load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BOOTHSAM_CONFIG", raising=False)


def test_the_command_line_beats_the_variable_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("boothsam.toml").write_text('port = 1111\nqueue = 3\nin_flight = 2\nallowed_hosts = ["booth.local"]\n')
    monkeypatch.setenv("BOOTHSAM_PORT", "2222")
    monkeypatch.setenv("BOOTHSAM_QUEUE", "4")
    loaded = load(port=3333, host=None)
    found = loaded.settings
    assert (found.port, found.queue, found.in_flight, found.drain_s) == (3333, 4, 2, 10)
    assert found.allowed_hosts == ("booth.local",)
    origins = [loaded.origins[name] for name in ("port", "queue", "in_flight", "drain_s", "host")]
    assert origins == ["command line", "BOOTHSAM_QUEUE", "boothsam.toml", "default", "default"]


def test_a_named_file_replaces_the_one_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("boothsam.toml").write_text("port = 1111\n")
    named = tmp_path / "other.toml"
    named.write_text("queue = 3\n")
    monkeypatch.setenv("BOOTHSAM_CONFIG", str(named))
    loaded = load()
    assert (loaded.settings.port, loaded.settings.queue) == (8765, 3)
    assert loaded.origins["queue"] == str(named)
    named.unlink()
    with pytest.raises(OptionError, match=r"other\.toml: no such file"):
        load()


def test_lists_are_split_and_settings_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTHSAM_ALLOWED_ORIGINS", "https://a.example, https://b.example")
    found = load().settings
    assert found.allowed_origins == ("https://a.example", "https://b.example")
    with pytest.raises(ValueError, match="frozen"):
        found.port = 1  # type: ignore[misc]


def test_mistakes_name_the_value_and_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTHSAM_PORT", "eighty")
    with pytest.raises(OptionError, match=r"port 'eighty' \(BOOTHSAM_PORT\): .*integer"):
        load()
    monkeypatch.setenv("BOOTHSAM_PORT", "80")
    Path("boothsam.toml").write_text("prot = 80\n")
    with pytest.raises(OptionError, match=r"unknown setting 'prot' \(boothsam.toml\); did you mean port\?"):
        load()
    Path("boothsam.toml").write_text("port = \n")
    with pytest.raises(OptionError, match=r"boothsam\.toml cannot be read"):
        load()


def test_a_secret_is_not_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("boothsam.toml").write_text('token = ["hush"]\n')
    with pytest.raises(OptionError) as caught:
        load()
    assert "token" in str(caught.value) and "hush" not in str(caught.value)
    assert "hush" not in repr(Settings(token="hush"))


def test_variables_that_no_setting_reads_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTHSAM_QUEUES", "4")
    assert load().unknown == {"BOOTHSAM_QUEUES": "BOOTHSAM_QUEUE"}


def test_captures_lie_in_the_users_folder_and_can_be_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load().settings.captures_dir == tmp_path / "boothsam-home" / "captures"
    monkeypatch.setenv("BOOTHSAM_CAPTURES_DIR", "")
    assert load().settings.captures_dir is None


def test_config_show_prints_value_and_origin(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTHSAM_PORT", "4242")
    monkeypatch.setenv("BOOTHSAM_TOKEN", "hush")
    monkeypatch.setenv("BOOTHSAM_PROT", "1")
    result = run("config", "show")
    assert result.exit_code == 0, result.stderr
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert lines["port"] == ["4242", "BOOTHSAM_PORT"]
    assert lines["queue"] == ["8", "default"]
    assert set(lines) == set(Settings.model_fields)
    assert "hush" not in result.output
    assert "BOOTHSAM_PROT" in result.stderr and "rename it to BOOTHSAM_PORT" in result.stderr
    shown = json.loads(run("config", "show", "--json").stdout)
    assert shown["port"] == {"value": 4242, "origin": "BOOTHSAM_PORT"}
    assert shown["token"]["value"] == "(set, not shown)"


def test_config_show_ends_with_2_on_a_wrong_value(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTHSAM_QUEUE", "-1")
    result = run("config", "show")
    assert result.exit_code == 2
    assert "error: queue '-1' (BOOTHSAM_QUEUE)" in result.stderr and "hint:" in result.stderr
