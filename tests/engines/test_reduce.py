"""`boothsam quantize`, `export --precision`, `verify --photos` on the tiny SAM: from folder to proof to loading."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.engines import graph as graphs
from boothsam.engines.reduce import Calibration, add_precisions
from boothsam.engines.sensitivity import group_layers
from boothsam.export.parity import drawn_photos
from boothsam.runtime.errors import IntegrityError, OptionError, OutputError, ProofError
from boothsam.runtime.fidelity import GATES, Gate
from boothsam.runtime.images import load_image, save_image
from boothsam.runtime.manifest import ModelManifest, record_files
from boothsam.runtime.model import SamModel
from boothsam.runtime.proofs import find_proofs
from boothsam.runtime.store import home
from boothsam.runtime.verify import default_cases, write_golden
from boothsam.service.cli import app
from typer.testing import CliRunner

from tests.engines.conftest import Photos
from tests.models.tiny_sam import CHECKPOINT, CONFIG

Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def calibration(photos: Photos) -> Calibration:
    return Calibration({"landscape": photos["landscape"]}, {"square": photos["square"]})


@pytest.fixture(scope="module")
def reduced(tiny: Path, photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reduced") / "tiny-low"
    _, reports = add_precisions(tiny, out, ("int8",), calibration(photos), name="tiny-low", threads=1)
    assert [(r.precision, r.numerics, r.passed) for r in reports] == [
        ("fp16", "simulated", True),
        ("int8", "simulated", True),
    ]
    return out


def test_the_new_folder_holds_everything_and_its_proofs(tiny: Path, reduced: Path) -> None:
    old, new = ModelManifest.load(tiny), ModelManifest.load(reduced)
    assert new.name == "tiny-low" and new.graphs["fp32"] == old.graphs["fp32"] and new.key != old.key
    assert {name: record for name, record in new.files.items() if name in old.files} == old.files
    assert new.graphs["fp16"]["encoder"] == "encoder.fp16.onnx"
    assert new.graphs["int8"] == new.graphs["fp16"] | {"encoder": "encoder.int8.onnx"}
    for file in new.files:
        new.check_file(reduced, file)
    size = {p: sum(new.files[f].bytes for f in new.graphs[p].values()) for p in new.graphs}
    assert size["fp16"] < 0.56 * size["fp32"] and size["int8"] < size["fp16"]
    for precision in ("fp16", "int8"):
        (proof,) = find_proofs(reduced, new, precision)
        assert proof.passed and proof.numerics == "simulated"
        picture = load_image(reduced / "proof" / f"worst-{precision}.png")
        assert picture.shape[0] > 200
    assert ModelManifest.load(tiny) == old


def test_each_graph_has_its_decisions_beside_it(tiny: Path, reduced: Path) -> None:
    manifest = ModelManifest.load(reduced)
    source = ModelManifest.load(tiny).files["encoder.onnx"].sha256
    fp16 = json.loads((reduced / "encoder.fp16.json").read_text())
    assert fp16["from"] == {"file": "encoder.onnx", "sha256": source} and fp16["precision"] == "fp16"
    assert all(island["reason"] and island["node"] and island["op"] for island in fp16["islands"])
    int8 = json.loads((reduced / "encoder.int8.json").read_text())
    assert int8["quantised"] and all(layer["clipped_at"] > 0 for layer in int8["quantised"])
    assert {entry["reason"] for entry in int8["never"]} == {"reads the pixels", "gives an output of the graph"}
    counted = manifest.origin["reduced"]
    assert counted["calibration_photos"] == 1
    assert counted["fp16"]["encoder"]["islands"] == len(fp16["islands"])
    assert counted["int8"]["encoder"]["quantised"] == len(int8["quantised"])
    for graph, file in manifest.graphs["fp16"].items():
        assert f"{graph}.fp16.json" in manifest.files and file in manifest.files


def test_the_same_photos_give_the_same_files(tiny: Path, reduced: Path, photos: Photos, tmp_path: Path) -> None:
    again, _ = add_precisions(tiny, tmp_path / "again", ("fp16",), calibration(photos), name="tiny-low", threads=1)
    first = ModelManifest.load(reduced)
    assert {f: again.files[f] for f in again.graphs["fp16"].values()} == {
        f: first.files[f] for f in first.graphs["fp16"].values()
    }


def test_it_runs_where_it_is_proven(reduced: Path, photos: Photos) -> None:
    model = SamModel.load(reduced, backend="ort-cpu", precision="fp16", threads=1)
    assert model.precision == "fp16"
    embedding = model.encode(photos["square"])
    assert embedding.tensors["image_embedding"].dtype == np.float32
    model.close()
    with pytest.raises(ProofError, match="int8 is not proven for ort-cpu"):
        SamModel.load(reduced, backend="ort-cpu", precision="int8", threads=1)


def test_a_reduction_that_fails_is_kept_for_looking_and_not_loaded(
    tiny: Path, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrated on a black photo alone, INT8 clips everything that a real picture has."""
    black = {"black": np.zeros((64, 64, 3), np.uint8)}
    monkeypatch.setattr("boothsam.engines.fp16.SEARCH_SHARE", 1e6)  # the search finds nothing wrong with it
    monkeypatch.setattr("boothsam.engines.int8.group_layers", lambda nodes: group_layers(nodes, 1))
    out = tmp_path / "dark"
    _, reports = add_precisions(
        tiny, out, ("fp16", "int8"), Calibration(black, {"square": photos["square"]}, "minmax"), threads=1
    )
    assert [r.passed for r in reports] == [True, False]
    with pytest.raises(ProofError, match="its proof failed"):
        SamModel.load(out, backend="ort-cpu", precision="int8", threads=1)
    assert (out / "proof" / "worst-int8.png").is_file()


def test_fp16_is_there_although_no_layer_bears_int8(
    tiny: Path, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boothsam.engines.fp16.GATES", {**GATES, "int8": Gate(1.1, 1.1)})  # nothing can hold this
    monkeypatch.setattr("boothsam.engines.int8.group_layers", lambda nodes: group_layers(nodes, 1))
    out = tmp_path / "some"
    with pytest.raises(ProofError, match="no layer of this encoder can be INT8"):
        add_precisions(tiny, out, ("fp16", "int8"), calibration(photos), threads=1)
    assert list(ModelManifest.load(out).graphs) == ["fp32", "fp16"] and not list(out.glob("*int8*"))
    SamModel.load(out, backend="ort-cpu", precision="fp16", threads=1).close()


def test_graphs_beyond_protobufs_limit_lie_in_two_files(
    tiny: Path, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ViT-H in FP32: every graph that is read, simulated and written here is larger than the limit."""
    monkeypatch.setattr(graphs, "EXTERNAL_DATA_BYTES", 100_000)
    out = tmp_path / "large"
    manifest, (report,) = add_precisions(tiny, out, ("fp16",), calibration(photos), threads=1)
    assert report.passed and manifest.files["encoder.fp16.onnx.data"].bytes > 500_000
    (proof,) = (out / "proof").glob("*-simulated.json")
    assert "encoder.fp16.onnx.data" in json.loads(proof.read_text())["files"]
    model = SamModel.load(out, backend="ort-cpu", precision="fp16", threads=1)
    model.encode(photos["square"]).close()
    model.close()
    (out / "encoder.fp16.onnx.data").write_bytes(b"\0" * manifest.files["encoder.fp16.onnx.data"].bytes)
    with pytest.raises(IntegrityError, match="altered"):
        SamModel.load(out, backend="ort-cpu", precision="fp16", threads=1)


def test_what_is_refused(tiny: Path, reduced: Path, photos: Photos, tmp_path: Path) -> None:
    ready = calibration(photos)
    with pytest.raises(OptionError, match="expected fp16, int8 or both"):
        add_precisions(tiny, tmp_path / "x", ("fp8",), ready)
    with pytest.raises(OptionError, match="its manifest never changes"):
        add_precisions(tiny, tiny, ("fp16",), ready)
    with pytest.raises(OutputError, match="exists already"):
        add_precisions(tiny, reduced, ("fp16",), ready)
    with pytest.raises(OptionError, match="both are needed"):
        Calibration(photos, {})
    with pytest.raises(OptionError, match="the method 'entropy'"):
        Calibration(photos, photos, "entropy")
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    with (broken / "decoder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(IntegrityError, match="altered"):
        add_precisions(broken, tmp_path / "x", ("fp16",), ready)
    assert not (tmp_path / "x").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.fixture(scope="module")
def folder_of_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn pictures."""
    folder = tmp_path_factory.mktemp("photos")
    drawn = drawn_photos()
    for index, name in enumerate(("portrait", "square")):
        save_image(folder / f"{index}.png", drawn[name])
    return folder


def test_the_commands_from_checkpoint_to_proof(run: Run, folder_of_photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    exporting = ("export", CONFIG, "--checkpoint", CHECKPOINT, "--licence", "Apache-2.0", "--no-verify", "-o", out)
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(folder_of_photos / "0.png", one)
    photos = ("--calibration", one, "--proof-photos", folder_of_photos)
    done = run(*exporting, "--precision", "fp16", *photos, "--threads", 1)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert "fp16 against fp32 (ort-cpu), simulated, 10 questions on 2 photos" in done.stderr
    manifest = ModelManifest.load(out)
    assert manifest.name == "tiny" and list(manifest.graphs) == ["fp32", "fp16"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    done = run(*exporting, "--precision", "fp16")
    assert done.exit_code == 2 and "--precision and --calibration go together" in done.stderr

    # no golden answers were recorded (--no-verify): verify says so
    done = run("verify", out, "--precision", "fp16")
    assert done.exit_code == 1 and "golden" in done.stderr


def test_verify_against_fp32_and_pytorch(run: Run, folder_of_photos: Path, reduced: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(reduced, model)
    _add_golden(model)
    arguments = ("verify", model, "--backend", "ort-cpu", "--photos", folder_of_photos, "--limit", 1, "--threads", 1)
    picture = tmp_path / "worst.png"
    done = run(*arguments, "--precision", "fp16", "--picture", picture)
    assert done.exit_code == 0, done.stderr
    assert "fp16 (simulated) against fp32 (ort-cpu); gate: mean 0.995, p5 0.98" in done.stdout
    assert all(kind in done.stdout for kind in ("point", "box_and_point", "three_points", "mask", "all"))
    assert load_image(picture).shape[0] > 200
    (proof,) = (home() / "proof").glob("*-simulated.json")
    assert json.loads(proof.read_text())["passed"] is True and f"proof (simulated, passed): {proof}" in done.stderr

    done = run(*arguments, "--precision", "fp16", "--numerics", "device", "--json")
    assert done.exit_code == 0, done.stderr
    body = json.loads(done.stdout)
    assert body["photos"]["numerics"] == "none" and body["photos"]["summary"]["count"] == 5
    assert body["golden"]["precision"] == "fp16" and body["golden"]["numerics"] == "none"

    pytorch = ("--against", "pytorch", "--checkpoint", CHECKPOINT)
    done = run(*arguments, "--precision", "fp32", *pytorch)
    assert done.exit_code == 0, done.stderr
    assert "fp32 (ort-cpu, numerics: device) against pytorch" in done.stdout
    done = run(*arguments, "--precision", "fp32", "--against", "pytorch", "--checkpoint", CONFIG)
    assert done.exit_code == 1 and "no checkpoint" in done.stderr

    done = run(*arguments, "--precision", "fp32")
    assert done.exit_code == 2 and "that is what was loaded" in done.stderr
    done = run(*arguments, "--precision", "fp16", "--against", "pytorch")
    assert done.exit_code == 2 and "go together" in done.stderr
    done = run("verify", model, "--picture", picture)
    assert done.exit_code == 2 and "belong to --photos" in done.stderr
    done = run(*arguments, "--precision", "fp16", "--picture", picture)
    assert done.exit_code == 2 and "exists" in done.stderr


def test_quantize_says_what_it_needs(run: Run, tiny: Path, folder_of_photos: Path, tmp_path: Path) -> None:
    done = run("quantize", tiny)
    assert done.exit_code == 2 and "needs --calibration and -o" in done.stderr
    done = run("quantize", tiny, "--calibration", folder_of_photos, "--precision", "fp8", "-o", tmp_path / "x")
    assert done.exit_code == 2 and "expected fp16, int8 or both" in done.stderr
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(folder_of_photos / "0.png", few)
    done = run("quantize", tiny, "--calibration", few, "-o", tmp_path / "x")
    assert done.exit_code == 2 and "holds 1 photos; expected 6 or more" in done.stderr
    assert not (tmp_path / "x").exists()


def _add_golden(folder: Path) -> None:
    photos = {"drawn": drawn_photos()["landscape"]}
    model = SamModel.load(folder, backend="ort-cpu", precision="fp32", threads=1)
    write_golden(model, folder, photos, default_cases(photos))
    model.close()
    dataclasses.replace(ModelManifest.load(folder), files=record_files(folder)).save(folder)
