"""How the command line behaves as a Unix program: exit codes, streams, Ctrl-C, a closed pipe, and no traceback."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boothsam
import pytest
from boothsam.service import console
from boothsam.service.cli import app
from typer.main import get_command

from tests.service.conftest import DISC_BOX

Run = Callable[..., Any]
COMMAND = [sys.executable, "-m", "boothsam.service.cli"]


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*COMMAND, *map(str, arguments)], text=True, **pipes)


def test_version_help_and_no_command(run: Run) -> None:
    assert run("--version").stdout == f"boothsam {boothsam.__version__}\n"
    for arguments in ((), ("--help",), ("-h",)):
        result = run(*arguments)
        assert result.exit_code == 0
        for command in ("crop", "segment", "demo", "models", "download", "export", "verify", "doctor"):
            assert f"\n  {command} " in result.stdout


def test_every_command_and_option_is_explained() -> None:
    group: Any = get_command(app)
    commands = dict(group.commands)
    for name in ("config", "captures"):
        commands |= {f"{name} {inner}": command for inner, command in commands.pop(name).commands.items()}
    assert {"crop", "segment", "serve", "batch", "config show", "captures export", "doctor"} <= set(commands)
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help, (name, parameter.name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("corp",), "No such command 'corp'"),
        (("check", "--preset", "amazon"), "Missing argument"),
        (("crop", "a.jpg", "--auto"), "Missing option"),
        (("crop", "a.jpg", "--auto", "-o", "x.png", "--wings"), "--wings"),
    ],
)
def test_usage_errors(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ") and message in first and not first.endswith(".")
    assert second.startswith("hint: boothsam") and second.endswith("--help")


def test_a_bug_is_one_line_and_a_traceback_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("boothsam.runtime.store.list_manifests", broken)
    result = run("models")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "error: unexpected ZeroDivisionError: by zero"
    assert "boothsam doctor --report" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("BOOTHSAM_DEBUG", "1")
    assert "Traceback" in run("models").stderr


def test_a_bug_in_one_photo_does_not_stop_the_rest(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module("boothsam.service.cropping").load_image

    def broken(file: Any) -> Any:
        if Path(file.name).name == "empty.png":
            raise MemoryError
        return real(file)

    monkeypatch.setattr("boothsam.service.cropping.load_image", broken)
    out = tmp_path / "cut"
    result = run("crop", photos / "empty.png", photos / "one.png", "--box", DISC_BOX, "-o", out)
    assert result.exit_code == 1
    assert result.stdout == f"{out / 'one.png'}\n"
    assert "not enough memory" in result.stderr


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in console._paint("error:", "red")
    monkeypatch.setenv("NO_COLOR", "1")
    assert console._paint("error:", "red") == "error:"
    monkeypatch.delenv("NO_COLOR")
    console.say_error("it broke")  # captured stderr is no terminal
    assert capsys.readouterr().err == "error: it broke\n"


def test_verbose_says_what_was_chosen(run: Run, photos: Path, tmp_path: Path) -> None:
    result = run("crop", photos / "one.png", "--box", DISC_BOX, "-v", "-o", tmp_path / "a.png")
    assert "info: model color (fp32), backend ort-cpu" in result.stderr
    quiet = run("crop", photos / "one.png", "--box", DISC_BOX, "-o", tmp_path / "b.png")
    assert quiet.stderr == ""


def test_home_is_abbreviated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert console.shown("/home/anna/models/x") == "~/models/x"
    assert console.shown("/home/annabel/x") == "/home/annabel/x"
    assert (
        console.without_home("in /home/anna/x and '/home/anna', not /home/annabel")
        == "in ~/x and '~', not /home/annabel"
    )


def test_the_real_command(photos: Path, color_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.png"
    process = start("crop", photos / "one.png", "--box", DISC_BOX, "--model", color_folder, "-o", out)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (0, f"{out}\n", "")
    assert out.is_file()
    process = start("crop", photos / "one.png", "-o", out)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (2, "")
    assert stderr.startswith("error: no prompt was given\nhint: --auto")


def test_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start("models", stdout=writer)
    os.close(writer)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == console.BROKEN_PIPE
    assert stderr == ""


def test_ctrl_c_ends_cleanly(photos: Path, color_folder: Path, tmp_path: Path) -> None:
    many = [photos / "one.png"] * 200
    process = start("crop", *many, "--auto", "--model", color_folder, "-o", tmp_path / "cut")
    assert process.stdout is not None
    process.stdout.readline()  # the first photo is done
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == ""
    written = list((tmp_path / "cut").iterdir())
    assert 1 <= len(written) < 200
    assert all(path.suffix == ".png" and not path.name.startswith(".") for path in written)
