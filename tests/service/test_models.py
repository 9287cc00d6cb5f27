"""`boothsam models`, `download`, `export`, `verify` on a local server, the tiny real SAM and the colour model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from boothsam.export import checkpoints
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.model import SamModel
from boothsam.runtime.store import home
from boothsam.runtime.verify import default_cases, write_golden

from tests.models.color_model import build_color_model

Run = Callable[..., Any]
TINY = Path(__file__).parents[1] / "models" / "tiny_sam.pt"


def test_models_lists_what_is_known_and_installed(run: Run) -> None:
    build_color_model(home() / "models" / "color")
    body = json.loads(run("models", "--json").stdout)
    vit_h = next(c for c in body["checkpoints"] if c["name"] == "sam_vit_h")
    assert vit_h["sha256"] == "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    assert (
        vit_h["licence"] == "Apache-2.0" and vit_h["bytes"] == 2_564_550_879 and vit_h["source"].startswith("https://")
    )
    color = next(m for m in body["installed"] if m["name"] == "color")
    assert color["variant"] == "color" and color["precisions"] == ["fp32"]
    text = run("models").stdout
    for checkpoint in body["checkpoints"]:
        assert checkpoint["name"] in text and checkpoint["sha256"] in text
    assert "color" in text


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the loopback address that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, directory=str(folder), **options)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_download_checks_the_hash(run: Run, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = server
    data = np.random.default_rng(0).bytes(300_000)
    (folder / "small.pt").write_bytes(data)
    small = dataclasses.replace(
        checkpoints.KNOWN["mobile_sam"],
        name="small",
        file="small.pt",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    monkeypatch.setattr(checkpoints, "KNOWN", MappingProxyType({"small": small}))
    monkeypatch.setenv("BOOTHSAM_MIRROR", address)
    result = run("download", "small")
    assert result.exit_code == 0, result.stderr
    target = home() / "checkpoints" / "small.pt"
    assert result.stdout == f"{target}\n"
    assert target.read_bytes() == data
    assert "boothsam export vit_t --checkpoint" in result.stderr
    target.unlink()
    (folder / "small.pt").write_bytes(data[::-1])
    result = run("download", "small")
    assert result.exit_code == 1
    assert "other bytes" in result.stderr and "hint:" in result.stderr
    assert not target.exists()
    result = run("download", "large")
    assert result.exit_code == 1
    assert "no known checkpoint 'large'; known are small" in result.stderr


def test_export_makes_a_model_that_crops(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    arguments = (
        "export",
        TINY.with_suffix(".json"),
        "--checkpoint",
        TINY,
        "--licence",
        "Apache-2.0",
        "--no-verify",
        "-o",
        out,
    )
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out}\n"
    assert "warning: the graphs were not proven" in result.stderr
    manifest = ModelManifest.load(out)
    assert (manifest.name, manifest.licence) == ("tiny", "Apache-2.0")
    result = run("crop", photos / "one.png", "--point", "400,150", "--model", out, "-o", tmp_path / "cut.png")
    assert result.exit_code == 0, result.stderr
    result = run(*arguments)
    assert result.exit_code == 1
    assert "exists" in result.stderr and "--force" in result.stderr


def test_export_of_something_else(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"no checkpoint")
    for arguments, message in (
        (("vit_t", "--checkpoint", bad), "no checkpoint"),
        (("vit_t", "--checkpoint", tmp_path / "none.pt"), "is not there"),
        (("vit_t", "--checkpoint", TINY), "does not fit vit_t"),
    ):
        result = run("export", *arguments, "-o", tmp_path / "model")
        assert result.exit_code == 1, result.stderr
        assert message in result.stderr and "hint:" in result.stderr
        assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("package", "command"), [("torch", "export"), ("onnx", "export"), ("pooch", "download")])
def test_a_missing_extra_names_the_pip_command(tmp_path: Path, package: str, command: str) -> None:
    arguments = {
        "export": ["vit_t", "--checkpoint", str(TINY), "-o", str(tmp_path / "model")],
        "download": ["mobile_sam", "-o", str(tmp_path)],
    }[command]
    code = f"import sys; sys.modules[{package!r}] = None; from boothsam.service.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, command, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(errors) == 2 and package in errors[0].lower()
    assert errors[1] == "hint: pip install 'boothsam[export]'"
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour model with golden answers."""
    folder = build_color_model(tmp_path_factory.mktemp("proven") / "color")
    photo = np.full((300, 400, 3), 220, np.uint8)
    photo[100:200, 150:300] = (180, 40, 40)
    write_golden(SamModel.load(folder, threads=1), folder, {"drawn": photo}, default_cases({"drawn": photo}))
    return build_color_model(folder)  # the same graphs again, and a manifest that lists the golden files


def test_verify_passes_and_notices_changes(run: Run, proven: Path, tmp_path: Path) -> None:
    result = run("verify", proven)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("  ok   ") == 4
    report = json.loads(run("verify", proven, "--json").stdout)
    assert report["golden"]["passed"] is True and len(report["golden"]["cases"]) == 4
    copy = tmp_path / "color"
    shutil.copytree(proven, copy)
    with (copy / "golden" / "drawn.png").open("ab") as file:
        file.write(b"\0")
    result = run("verify", copy)
    assert result.exit_code == 1
    assert "altered" in result.stderr


def test_verify_says_when_there_is_nothing_to_compare(run: Run, proven: Path, color_folder: Path, photos: Path) -> None:
    result = run("verify", color_folder)
    assert result.exit_code == 1
    assert "golden" in result.stderr
    result = run("verify", proven, "--photos", photos)
    assert result.exit_code == 2
    assert "--photos compares with ort-cpu in fp32" in result.stderr
