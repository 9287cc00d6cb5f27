"""The whole way from a model folder to published engines, on a fake GPU that really runs the graphs."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from boothsam.engines.build import SMALL, Options, build_model
from boothsam.engines.build_child import Order, Outcome
from boothsam.engines.trt_adapter import Layer
from boothsam.runtime import engine_files
from boothsam.runtime.backends import cuda, trt, trt_library
from boothsam.runtime.errors import BoothsamError, EngineError, IntegrityError, OptionError, ProofError
from boothsam.runtime.manifest import ModelManifest, record_files
from boothsam.runtime.model import SamModel
from boothsam.runtime.proofs import find_proofs
from boothsam.runtime.verify import default_cases, write_golden
from boothsam.service.cli import app
from boothsam.service.installation import examine
from typer.testing import CliRunner

from tests.runtime.fake_tensorrt import make_engine
from tests.runtime.gpu_machine import Machine


@pytest.fixture
def folder(color_folder: Path, tmp_path: Path) -> Path:
    """The colour model with golden answers and an fp16 that is the FP32 graphs under other names."""
    out = tmp_path / "model"
    shutil.copytree(color_folder, out)
    photo = np.full((120, 160, 3), 240, np.uint8)
    photo[20:100, 40:120] = (200, 30, 30)
    photos = {"square": photo}
    reference = SamModel.load(out, backend="ort-cpu", threads=1)
    write_golden(reference, out, photos, default_cases(photos))
    low = {graph: f"{graph}.fp16.onnx" for graph in ("encoder", "decoder", "decoder_mask")}
    for graph, name in low.items():
        (out / name).write_bytes((out / f"{graph}.onnx").read_bytes() + b"\x72\x00")
    manifest = ModelManifest.load(out)
    both = {"fp32": dict(manifest.graphs["fp32"]), "fp16": low}
    replace(manifest, graphs=both, files=record_files(out)).save(out)
    return out


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(trt_library, "unavailable_reason", lambda: None)
    monkeypatch.setattr(trt_library, "library", lambda name=None: found.trt)
    monkeypatch.setattr(trt, "library", lambda name=None: found.trt)
    monkeypatch.setattr(cuda, "open_device", lambda index=0: found.device)
    return found


def runner(alter: Callable[[str, bytes], bytes] = lambda graph, model: model) -> Any:
    """Stands for the child: the fake's engines, of the ordered graph or of what `alter` makes of it."""

    def run(order: Order, report: Any, *, keep_open: Sequence[int]) -> Outcome:
        assert len(keep_open) == 1 and order.settings == SMALL
        report(1.0, "done")
        path = Path(order.graph)
        engine = make_engine(alter(path.name, path.read_bytes()), tuple(p.most_prompts for p in order.profiles))
        precision = "fp16" if ".fp16." in path.name else "fp32"
        run.built.append(path.name)  # type: ignore[attr-defined]
        return Outcome(engine, (Layer("mix", "CONVOLUTION", precision),), 0.1)

    run.built = []  # type: ignore[attr-defined]
    return run


def engines_of(folder: Path, machine: Machine, precision: str = "fp32", run: Any = None, **options: Any) -> Any:
    wanted = Options((1, 8), **options)
    return build_model(folder, precision, wanted, machine.trt, machine.device, run=run or runner())


def test_engines_are_verified_published_and_taken_by_auto(folder: Path, machine: Machine) -> None:
    assert SamModel.load(folder, threads=1).backend == "ort-cpu"
    run = runner()
    found = engines_of(folder, machine, run=run)
    left = engine_files.folder() / f".{found[0].path.name}.build-killed"
    left.mkdir()  # by a builder that was killed
    assert [e.header["graph"] for e in found] == ["encoder", "decoder", "decoder_mask"]
    header = found[1].header
    assert header["verified"]["passed"] is True and header["verified"]["cases"] == 4
    assert header["profiles"] == [[1, 32], [8, 32]] and header["identity"]["gpu"] == "Fake Orin"
    model = SamModel.load(folder, threads=1)
    assert (model.backend, model.precision) == ("trt", "fp32") and "built and proven" in model.reason
    model.close()
    engines_of(folder, machine, run=run)
    assert len(run.built) == 3  # there, whole and verified again
    engines_of(folder, machine, run=run, force=True)
    assert len(run.built) == 6
    assert not [p for p in engine_files.folder().iterdir() if p.suffix not in (".engine", ".lock")]


def test_fp16_needs_and_gets_a_proof_from_the_device(folder: Path, machine: Machine) -> None:
    engines_of(folder, machine, "fp16")
    (proof,) = find_proofs(folder, ModelManifest.load(folder), "fp16")
    assert proof.passed and proof.numerics == "device" and proof.device.startswith("trt-")
    model = SamModel.load(folder, threads=1)
    assert (model.backend, model.precision) == ("trt", "fp16")
    model.close()
    proof.path.unlink()
    assert SamModel.load(folder, threads=1).backend == "ort-cpu"  # built, but no longer proven
    with pytest.raises(ProofError, match="not proven for trt"):
        SamModel.load(folder, backend="trt", precision="fp16")


def test_an_engine_that_answers_something_else_is_not_published(folder: Path, machine: Machine) -> None:
    def other(graph: str, model: bytes) -> bytes:
        return _turned(model) if graph == "decoder.onnx" else model

    with pytest.raises(ProofError, match="disagrees with its golden answers"):
        engines_of(folder, machine, run=runner(other))
    assert list(engine_files.published()) == []
    assert SamModel.load(folder, threads=1).backend == "ort-cpu"


def _turned(model: bytes) -> bytes:
    """The same decoder with the sign of its logits turned."""
    graph = onnx.load_from_string(model)
    (last,) = [node for node in graph.graph.node if "low_res_masks" in node.output]
    assert last.op_type == "Identity"
    last.op_type = "Neg"
    return bytes(graph.SerializeToString())


def test_islands_are_those_of_the_graphs_own_file(folder: Path, machine: Machine) -> None:
    """An int8 model takes fp16's decoders: what is FP32 in them is listed beside those."""
    manifest = ModelManifest.load(folder)
    for graph in ("encoder", "decoder", "decoder_mask"):
        listed = {"islands": [{"node": "mix", "op": "Conv", "reason": "test"}] if graph == "decoder" else []}
        (folder / f"{graph}.fp16.json").write_text(json.dumps(listed))
    graphs = {"fp32": manifest.graphs["fp32"], "fp16": manifest.graphs["fp16"], "int8": manifest.graphs["fp16"]}
    replace(manifest, graphs=graphs, files=record_files(folder)).save(folder)

    def run(order: Order, report: Any, *, keep_open: Sequence[int]) -> Outcome:
        outcome = runner()(order, report, keep_open=keep_open)
        mix = Layer("mix", "CONVOLUTION", "fp32" if "decoder." in order.graph else "fp16")
        return replace(outcome, layers=(mix, Layer("q", "QUANTIZE", "int8"), Layer("more", "CONVOLUTION", "fp16")))

    for precision in ("fp16", "int8"):
        assert len(engines_of(folder, machine, precision, run=run)) == 3


def test_an_engine_that_fails_its_audit_is_not_published(folder: Path, machine: Machine) -> None:
    def weak(order: Order, report: Any, *, keep_open: Sequence[int]) -> Outcome:
        outcome = runner()(order, report, keep_open=keep_open)
        return replace(outcome, layers=(Layer("mix", "CONVOLUTION", "fp32"),))

    with pytest.raises(EngineError, match="is no fp16 engine"):
        engines_of(folder, machine, "fp16", run=weak)
    assert list(engine_files.published()) == []


def test_a_flipped_byte_is_found_at_load_and_mended_by_building(folder: Path, machine: Machine) -> None:
    path = engines_of(folder, machine)[0].path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="its header expects") as caught:
        SamModel.load(folder, backend="trt", precision="fp32")
    assert caught.value.hint == "boothsam build --force"
    run = runner()
    engines_of(folder, machine, run=run)
    assert run.built == ["encoder.onnx"]
    SamModel.load(folder, backend="trt", precision="fp32").close()


def test_engines_of_another_tensorrt_are_not_taken(folder: Path, machine: Machine) -> None:
    engines_of(folder, machine)
    machine.trt.version = "10.16.2"
    assert SamModel.load(folder, threads=1).backend == "ort-cpu"
    with pytest.raises(EngineError, match=r"was built for tensorrt 10\.3\.0.*expected tensorrt 10\.16\.2"):
        SamModel.load(folder, backend="trt", precision="fp32")


def test_two_builders_of_one_model(folder: Path, machine: Machine) -> None:
    """One builds, the other waits and finds the engines; the GPU's answers stay right under both."""
    run, errors = runner(), []

    def build() -> None:
        try:
            engines_of(folder, machine, run=run)
        except BoothsamError as error:
            errors.append(error)

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors and len(run.built) == 3


def test_a_model_without_this_precision(folder: Path, machine: Machine) -> None:
    with pytest.raises(OptionError, match="has no precision 'int8'") as caught:
        engines_of(folder, machine, "int8")
    assert caught.value.hint and caught.value.hint.startswith("boothsam quantize")


def test_the_command_publishes(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boothsam.engines.build.run_child", runner())
    command = ["build", str(folder), "--precision", "fp32", "--prompts", "1,8"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    paths = [Path(line) for line in result.stdout.split()]
    assert len(paths) == 3 and all(path.suffix == ".engine" and path.is_file() for path in paths)
    assert "tensorrt 10.3.0 on Fake Orin, compute capability 8.7" in result.stderr


def test_doctor_tells_which_engines_fit(folder: Path, machine: Machine) -> None:
    def told() -> Any:
        return next(finding for finding in examine() if finding.name == "backend trt")

    assert told().state == "ok" and "0 engines for it (none), 0 for others" in told().detail
    assert told().hint and told().hint.startswith("boothsam build")
    engines_of(folder, machine)
    assert "3 engines for it (color fp32), 0 for others" in told().detail and told().hint is None
    machine.trt.version = "11.4.0"
    assert "0 engines for it (none), 3 for others" in told().detail
