"""`boothsam doctor`: what it finds on a sound installation, and each thing that can be wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.model import SamModel
from boothsam.runtime.store import home
from boothsam.runtime.verify import default_cases, write_golden
from boothsam.service import installation

from tests.models.color_model import build_color_model

Run = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An installed colour model with golden answers."""
    folder = build_color_model(home() / "models" / "color")
    photo = np.full((300, 400, 3), 220, np.uint8)
    photo[100:200, 150:300] = (180, 40, 40)
    write_golden(SamModel.load(folder, threads=1), folder, {"drawn": photo}, default_cases({"drawn": photo}))
    return build_color_model(folder)  # the same graphs again, and a manifest that lists the golden files


@pytest.fixture(autouse=True)
def _color_is_the_starter(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boothsam.runtime.store.starter_folder", lambda: model)


def by_name(result: Any) -> dict[str, Any]:
    return {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}


def test_a_sound_installation(run: Run) -> None:
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.stdout
    found = by_name(result)
    for name in (
        "machine",
        "python",
        "packages",
        "opencv",
        "onnxruntime",
        "backend ort-cpu",
        "model color",
        "self-test",
    ):
        assert found[name]["state"] == "ok", found[name]
    assert "sha256" in found["model color"]["detail"]
    assert "golden answers met" in found["self-test"]["detail"]
    assert "CPU cores" in found["machine"]["detail"]


def test_the_report_is_one_block_without_names(run: Run, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("HOME", str(home().parent))
    result = run("doctor", "--report")
    assert result.exit_code == 0
    lines = result.stdout.strip().splitlines()
    assert lines[0] == lines[-1] == "```"
    assert lines[1].startswith("boothsam ")
    assert str(home().parent) not in result.stdout
    assert "~/boothsam-home/models/color" in result.stdout


def test_an_altered_model_is_broken(run: Run, model: Path) -> None:
    with (model / "encoder.onnx").open("ab") as file:
        file.write(b"\0")
    result = run("doctor", "--json")
    assert result.exit_code == 1
    found = by_name(result)
    assert found["model color"]["state"] == found["self-test"]["state"] == "broken"
    assert "altered" in found["model color"]["detail"]
    assert "error: " in result.stderr and "model color" in result.stderr


def test_wrong_answers_are_broken(run: Run, model: Path) -> None:
    golden = model / "golden" / "golden.npz"
    arrays = dict(np.load(golden))
    name = next(n for n in arrays if n.endswith("low_res_masks"))
    arrays[name] = -arrays[name]
    np.savez(golden, allow_pickle=False, **arrays)
    build_color_model(model)  # with the hashes of the wrong answers
    result = run("doctor", "--json")
    assert result.exit_code == 1
    found = by_name(result)
    assert found["model color"]["state"] == "ok"
    assert "disagrees with its golden answers" in found["self-test"]["detail"]


def test_a_garbled_manifest_is_broken(run: Run, model: Path) -> None:
    (model / "manifest.json").write_text("{")
    result = run("doctor")
    assert result.exit_code == 1
    assert "BROKEN  model " in result.stdout
    assert "no model manifest" in result.stdout


def lone(name: str, folder: Path, files: dict[str, bytes]) -> None:
    """A distribution's metadata as pip leaves it, in a folder of its own on the path."""
    for file, data in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},sha256=x,{len(data)}\n" for file, data in files.items()))


def test_two_opencvs_overwrite_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lone("opencv-python", tmp_path / "site", {})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    finding = installation._opencv()
    assert finding.state == "warning"
    assert "opencv-python and opencv-python-headless overwrite" in finding.detail
    assert finding.hint is not None and finding.hint.startswith("pip uninstall -y opencv-python opencv-python-headless")


def test_two_onnxruntimes_hide_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lone("onnxruntime-gpu", tmp_path / "site", {})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    finding = installation._onnxruntime()
    assert finding.state == "warning"
    assert "onnxruntime and onnxruntime-gpu are both installed" in finding.detail


def test_overwritten_files_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lone(
        "some-package",
        tmp_path / "site",
        {"some/module.py": b"a = 1\n", "some/lib.so": b"1234", "some/notes.txt": b"x"},
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert distribution("some-package").version == "1.0"
    assert installation.altered_files("some-package") == []
    (tmp_path / "site/some/module.py").write_bytes(b"a = 1  # of another package\n")
    (tmp_path / "site/some/lib.so").unlink()
    assert installation.altered_files("some-package") == ["some/module.py", "some/lib.so"]


def test_a_cv2_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    finding = installation._opencv()
    assert finding.state == "broken"
    assert finding.hint is not None and "--force-reinstall opencv-python-headless" in finding.hint


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "LOW_DISK_GIB", 1e9)
    assert installation._disk().state == "warning"
