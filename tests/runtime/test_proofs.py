"""Proof sidecars: what they hold, and what is loaded, refused or loaded with a warning because of them."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime import proofs
from boothsam.runtime.errors import OptionError, ProofError
from boothsam.runtime.fidelity import Fidelity, Gate, Row
from boothsam.runtime.manifest import ModelManifest, record_files
from boothsam.runtime.model import SamModel
from boothsam.runtime.proofs import choose_precision, device_key, find_proofs, judge, write_proof
from boothsam.runtime.store import home
from boothsam.runtime.verify import default_cases, verify_golden, write_golden


@pytest.fixture
def folder(color_folder: Path, tmp_path: Path) -> Path:
    """The colour model with an fp16 and an int8 of its own: the FP32 graphs under other names, for what is refused."""
    out = tmp_path / "model"
    shutil.copytree(color_folder, out)
    manifest = ModelManifest.load(out)
    graphs = {"fp32": dict(manifest.graphs["fp32"])}
    for precision in ("fp16", "int8"):
        graphs[precision] = {}
        for graph, file in manifest.graphs["fp32"].items():
            name = f"{graph}.{precision}.onnx"
            # other bytes, so that each precision has a sha256 of its own
            (out / name).write_bytes((out / file).read_bytes() + b"\x72\x00" * (1 + (precision == "int8")))
            graphs[precision][graph] = name
    dataclasses.replace(manifest, graphs=graphs, files=record_files(out)).save(out)
    return out


def report(precision: str, *, passed: bool, numerics: str = "simulated", backend: str = "simulated") -> Fidelity:
    iou = 1.0 if passed else 0.5
    row = Row("a.png", "box", iou, iou, 0.0, (iou,) * 4, True, 0.4, True)
    return Fidelity("color", precision, backend, "fp32 (ort-cpu)", numerics, Gate(0.9, 0.9), (row,))


def prove(where: Path, folder: Path, **what: Any) -> Path:
    precision = what.pop("precision", "fp16")
    return write_proof(where, ModelManifest.load(folder), report(precision, **what), photos=["a.png"], extra={"x": 1})


def load(folder: Path, precision: str = "fp16", **options: Any) -> SamModel:
    return SamModel.load(folder, backend="ort-cpu", precision=precision, threads=1, **options)


def test_without_a_proof_nothing_reduced_is_loaded(folder: Path) -> None:
    for precision in ("fp16", "int8"):
        with pytest.raises(ProofError, match="no proof was made on ort-cpu") as caught:
            load(folder, precision)
        assert f"boothsam verify {folder} --precision {precision}" in str(caught.value)
    load(folder, "fp32").close()
    assert load(folder, "auto").precision == "fp32"


def test_a_simulated_proof_lets_the_cpu_use_fp16_and_not_int8(folder: Path) -> None:
    path = prove(folder, folder, passed=True)
    manifest = ModelManifest.load(folder)
    assert path.name == f"{manifest.files['encoder.fp16.onnx'].sha256}-simulated.json"
    body = json.loads(path.read_text())
    assert body["passed"] is True and body["numerics"] == "simulated" and body["x"] == 1
    assert body["files"] == {f: manifest.files[f].sha256 for f in manifest.graphs["fp16"].values()}
    model = load(folder)
    assert model.precision == "fp16"
    model.close()
    prove(folder, folder, precision="int8", passed=True)
    with pytest.raises(ProofError, match="no proof was made on ort-cpu"):  # its integers are computed for real there
        load(folder, "int8")
    prove(home(), folder, precision="int8", passed=True, numerics="device", backend="ort-cpu")
    load(folder, "int8").close()


def test_a_failed_proof_is_refused(folder: Path) -> None:
    prove(folder, folder, passed=False)
    with pytest.raises(ProofError, match=r"its proof failed .*mean mask IoU 0\.5000 \(gate 0\.9\)"):
        load(folder)


def test_the_device_decides_whichever_way_it_went(folder: Path) -> None:
    prove(folder, folder, passed=False)
    prove(home(), folder, passed=True, numerics="none", backend="ort-cpu")
    load(folder).close()
    prove(folder, folder, passed=True)
    prove(home(), folder, passed=False, numerics="none", backend="ort-cpu")
    with pytest.raises(ProofError, match="its proof failed"):
        load(folder)


def test_an_override_warns(folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    with caplog.at_level(logging.WARNING, "boothsam"):
        load(folder, unproven=True).close()
        assert "used without proof: no proof was made on ort-cpu" in caplog.text
        caplog.clear()
        monkeypatch.setenv(proofs.OVERRIDE, "1")
        load(folder).close()
        assert "used without proof" in caplog.text
    monkeypatch.setenv(proofs.OVERRIDE, "no")
    with pytest.raises(ProofError):
        load(folder)


def test_a_proof_of_other_files_proves_nothing(folder: Path) -> None:
    prove(folder, folder, passed=True)
    manifest = ModelManifest.load(folder)
    decoder = folder / "decoder.fp16.onnx"
    decoder.write_bytes(decoder.read_bytes() + b"\x72\x00")
    dataclasses.replace(manifest, files=record_files(folder)).save(folder)
    with pytest.raises(ProofError, match="proofs there are: none"):
        load(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "kind": "reduced precision", "precision": "fp16"}'])
def test_what_cannot_be_read_proves_nothing(folder: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = prove(folder, folder, passed=True)
    path.write_text(text)
    with caplog.at_level(logging.WARNING, "boothsam"):
        assert find_proofs(folder, ModelManifest.load(folder), "fp16") == []
    assert "is no proof" in caplog.text


def test_a_gpu_wants_a_proof_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "_gpu_name", lambda: "orin-nano")
    manifest = ModelManifest.load(folder)
    prove(folder, folder, passed=True)
    assert "no proof was made on ort-cuda-orin-nano" in (judge(folder, manifest, "fp16", "ort-cuda") or "")
    precision, why = choose_precision(folder, manifest, "ort-cuda")
    assert precision == "fp32" and "fp16 passed over" in why
    prove(home(), folder, passed=True, numerics="device", backend="ort-cuda")
    assert judge(folder, manifest, "fp16", "ort-cuda") is None
    assert choose_precision(folder, manifest, "ort-cuda") == ("fp16", "fp16 is proven on ort-cuda-orin-nano")
    monkeypatch.setattr(proofs, "_gpu_name", lambda: "another")
    assert "proofs there are: ort-cuda-orin-nano, simulated" in (judge(folder, manifest, "fp16", "ort-cuda") or "")
    assert choose_precision(folder, manifest, "ort-cpu") == ("fp32", "fp32")


def test_device_keys_are_fit_for_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_key("ort-cpu") == "ort-cpu" and device_key("ov") == "ov"
    assert all(c.isalnum() or c == "-" for c in device_key("ort-cuda"))


def test_a_precision_that_is_not_there(color_folder: Path) -> None:
    with pytest.raises(OptionError, match="no precision 'fp16'; it has fp32") as caught:
        load(color_folder)
    assert "boothsam quantize" in str(caught.value)


def test_golden_answers_are_held_to_the_gate_of_the_precision(folder: Path) -> None:
    """A few pixels at a rim fail FP32, where they would mean a fault, and pass FP16, where they are rounding."""
    photo = np.full((300, 400, 3), 220, np.uint8)
    photo[75:225, 100:300] = (180, 40, 40)
    fp32 = load(folder, "fp32")
    cases = default_cases({"drawn": photo})
    write_golden(fp32, folder, {"drawn": photo}, cases)
    manifest = ModelManifest.load(folder)
    dataclasses.replace(manifest, files=record_files(folder)).save(folder)
    plain = verify_golden(load(folder, "fp32"), folder)
    reduced = verify_golden(load(folder, unproven=True), folder)
    assert plain.passed and reduced.passed and reduced.numerics == "none" and plain.numerics == "device"
    worse = [dataclasses.replace(c, mask_iou_mean=0.99, mask_iou_min=0.9, disagreeing=3) for c in plain.cases]
    assert not dataclasses.replace(plain, cases=tuple(worse)).passed
    low = dataclasses.replace(reduced, cases=(*reduced.cases[1:], worse[0]))
    assert low.passed and low.case_passed(worse[0])
    low = dataclasses.replace(reduced, cases=tuple(worse))
    assert not low.passed  # each case may be at 0.99, not all of them
    with pytest.raises(ProofError, match=r"strays from its golden answers: mean mask IoU 0\.9900 \(gate 0\.995\)"):
        low.require()
    bad = dataclasses.replace(worse[0], mask_iou_mean=0.9)
    assert not dataclasses.replace(reduced, cases=(*reduced.cases[1:], bad)).passed
