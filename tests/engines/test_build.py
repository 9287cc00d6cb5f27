"""Building engines: progress, the audit, the child process, and TensorRT-RTX on the processor."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest
from boothsam.engines import graph as graphs
from boothsam.engines.audit import TELLING_WEIGHTS, audit
from boothsam.engines.build import Options, check_model
from boothsam.engines.build_child import Order, run_child
from boothsam.engines.calibrate import Ranges
from boothsam.engines.islands import Island, choose_islands
from boothsam.engines.precision import to_fp16
from boothsam.engines.quantize import find_layers, quantize, ranges_after
from boothsam.engines.trt_adapter import Adapter, Layer, Profile, ProgressTree, Settings
from boothsam.runtime import engine_files
from boothsam.runtime.backends import trt_library
from boothsam.runtime.errors import EngineError, IntegrityError, OptionError
from boothsam.runtime.manifest import ModelManifest
from boothsam.service.cli import app
from typer.testing import CliRunner

from tests.runtime.gpu_machine import decoder

QUICK = Settings(1024, 0)


# progress


def test_progress_of_nested_phases_never_falls_and_ends_at_one() -> None:
    told: list[float] = []
    tree = ProgressTree(lambda fraction, phase: told.append(fraction))
    tree.start("build", 2)
    tree.start("parse", 4)
    for step in range(4):
        tree.step("parse", step)
    assert told[-1] == 0.5
    tree.finish("parse")
    tree.step("build", 0)
    tree.start("time", 10)
    tree.step("time", 4)
    assert told[-1] == 0.75
    tree.finish("time")
    tree.step("stranger", 3)
    tree.finish("stranger")
    tree.finish("build")
    assert told[-1] == 1.0 and told == sorted(told) and told[0] == 0


# the audit


def layers(*dtypes: str) -> list[Layer]:
    return [Layer(f"/l{i}/MatMul", "MATRIX_MULTIPLY", dtype) for i, dtype in enumerate(dtypes)]


def judged(precision: str, found: Sequence[Layer], islands: Sequence[str] = (), **more: Any) -> tuple[str, ...]:
    sizes = {"engine_bytes": 100, "fp32_bytes": 100, "inspected": None}
    return audit(precision, found, islands, **(sizes | more)).failures


def test_the_audit_passes_what_was_asked_for() -> None:
    assert judged("fp32", layers("fp32", "fp32")) == ()
    assert judged("fp16", layers("fp16", "fp16")) == ()
    assert judged("fp16", layers("fp16", "fp32"), ["/l1/MatMul"]) == ()
    assert judged("int8", [*layers("fp16"), Layer("q", "QUANTIZE", "int8")], expect_int8=True) == ()


def test_the_audit_finds_layers_that_are_silently_fp32() -> None:
    assert judged("fp16", layers("fp16", "fp32", "fp32"), ["/l1/MatMul"]) == (
        "1 of 3 layers compute in FP32 unasked, first /l2/MatMul",
    )
    assert judged("fp16", layers("fp32"), ["/l0/Mat"]) != ()  # another node's name
    assert judged("int8", layers("fp16"), expect_int8=True) == ("nothing in it is made INT8",)
    assert judged("fp32", layers("fp32", "fp16")) == ("1 layers compute in less, first /l1/MatMul in fp16",)
    with pytest.raises(EngineError, match="is no fp16 engine: 1 of 1 layers"):
        audit("fp16", layers("fp32"), [], engine_bytes=1, fp32_bytes=1, inspected=None).require()


def test_the_audit_reads_the_inspector_and_the_size() -> None:
    def told(*words: str) -> list[dict[str, Any]]:
        return [{"Inputs": [{"Format/Datatype": word}], "Outputs": []} for word in words]

    sizes = {"engine_bytes": 1, "fp32_bytes": 1}
    words = told("Half", "Row major linear FP16 format", "Float", "Int8", "Other")
    found = audit("fp16", layers("fp16"), [], inspected=words, **sizes)
    assert found.built == {"fp16": 2, "fp32": 1, "int8": 1} and found.failures == ()
    # one fused node, of which only the FP32 ends show
    assert judged("fp16", layers("fp16"), inspected=told("Float")) == ()
    big = {"fp32_bytes": TELLING_WEIGHTS, "engine_bytes": TELLING_WEIGHTS}
    assert "1.00 of the FP32 weights' bytes" in judged("fp16", layers("fp16"), **big)[0]
    assert judged("fp16", layers("fp16"), **(big | {"engine_bytes": TELLING_WEIGHTS // 2})) == ()
    assert judged("fp16", layers("fp16"), **(big | {"fp32_bytes": 0})) == ()  # a folder without FP32


# options


@pytest.mark.parametrize("prompts", [(), (0, 1), (8, 1), (1, 1)])
def test_prompts_must_rise(prompts: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="expected rising numbers"):
        Options(prompts)


def test_building_needs_neither_onnx_nor_a_framework() -> None:
    """A Jetson has TensorRT from its platform, and not much else."""
    code = "import sys, boothsam.engines.build, boothsam.engines.build_child; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"onnx", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx_bindings"} & set(loaded)


# the child


def order_for(folder: Path, graph: str, scratch: Path, profiles: Sequence[Profile] = (), **change: Any) -> Order:
    path = folder / graph
    found = Order(
        graph=str(path),
        external_data=None,
        sha256=engine_files.graph_sha256(path.read_bytes()),
        library="tensorrt_rtx",
        profiles=tuple(profiles),
        settings=QUICK,
        timing=str(scratch / "timing"),
        out=str(scratch / "engine"),
    )
    return replace(found, **change)


def test_an_order_survives_json(color_folder: Path, tmp_path: Path) -> None:
    order = order_for(color_folder, "decoder.onnx", tmp_path, [Profile(1, 32), Profile(8, 32)])
    assert Order.from_json(order.to_json()) == order


def stand_in(tmp_path: Path, script: str) -> str:
    """An executable in Python's place."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -9 $$", "was killed by signal 9: most likely out of memory"),
        (
            'echo \'{"event": "progress", "fraction": 0.4, "phase": "timing"}\'; kill -9 $$',
            r"at 40% \(timing\): most li",
        ),
        ("echo broken >&2; exit 3", "ended with 3: broken"),
        ("exit 0", "ended with 0"),
    ],
)
def test_a_builder_that_dies(color_folder: Path, tmp_path: Path, script: str, message: str) -> None:
    order = order_for(color_folder, "decoder.onnx", tmp_path)
    with pytest.raises(EngineError, match=message) as caught:
        run_child(order, lambda fraction, phase: None, python=stand_in(tmp_path, script))
    assert caught.value.hint and "--workspace" in caught.value.hint


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A parent is killed while its child waits for an order; the child must not live on."""
    code = (
        "import os, signal, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'boothsam.engines.build_child'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(signal.SIGKILL)

    def gone() -> bool:
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"

    until = time.monotonic() + 30
    while not gone() and time.monotonic() < until:
        time.sleep(0.05)
    assert gone()


# TensorRT-RTX, which builds on the processor


@pytest.fixture(scope="module")
def rtx() -> trt_library.TensorRt:
    pytest.importorskip("tensorrt_rtx_libs", reason="needs tensorrt-rtx-cu13-libs and -bindings")
    return trt_library.library("tensorrt_rtx")


@pytest.mark.needs_trt_rtx
def test_a_child_builds_and_tells_its_progress(rtx: Any, tiny: Path, tmp_path: Path) -> None:
    told: list[float] = []
    order = order_for(tiny, "decoder.onnx", tmp_path, [Profile(1, 32)])
    outcome = run_child(order, lambda fraction, phase: told.append(fraction))
    assert told[0] == 0 and told[-1] == 1.0 and told == sorted(told) and len(told) > 10
    assert outcome.engine == (tmp_path / "engine").read_bytes() and len(outcome.engine) > 10_000
    assert {layer.dtype for layer in outcome.layers} == {"fp32"} and len(outcome.layers) > 20


@pytest.mark.needs_trt_rtx
def test_a_graph_that_is_not_the_ordered_one(rtx: Any, tiny: Path, tmp_path: Path) -> None:
    order = order_for(tiny, "decoder.onnx", tmp_path, [Profile(1, 32)], sha256="0" * 64)
    with pytest.raises(EngineError, match=r"has sha256 .*; expected 0000"):
        run_child(order, lambda fraction, phase: None)


@pytest.mark.needs_trt_rtx
def test_a_graph_that_tensorrt_refuses(rtx: Any) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 19]> g (float16[2,2] a, float[2,2] b) => (float[2,2] c) {c = MatMul(a, b)}'
    )
    with pytest.raises(EngineError, match=r"does not take the graph.*MatMul"):
        Adapter(rtx).build(model.SerializeToString(), (), QUICK)
    with pytest.raises(EngineError, match="does not take the graph"):
        Adapter(rtx).build(b"no graph", (), QUICK)


@pytest.mark.needs_trt_rtx
def test_what_the_real_library_cannot_load(rtx: Any) -> None:
    with pytest.raises(EngineError, match=r"tensorrt_rtx .* cannot load an engine of 700 bytes: .*Serialization"):
        rtx.deserialize(b"garbage" * 100)


@pytest.mark.needs_trt_rtx
def test_every_profile_is_built(rtx: Any) -> None:
    sizes = [
        len(Adapter(rtx).build(decoder(), [Profile(prompts, 32) for prompts in several], QUICK).engine)
        for several in ((1,), (1, 8), (1, 8, 64))
    ]
    assert sizes == sorted(set(sizes))
    with pytest.raises(EngineError, match="expected profiles"):
        Adapter(rtx).build(decoder(), [], QUICK)


@pytest.mark.needs_trt_rtx
def test_too_little_workspace_is_an_error(rtx: Any, tiny: Path) -> None:
    with pytest.raises(EngineError, match="cannot build") as caught:
        Adapter(rtx).build((tiny / "decoder.onnx").read_bytes(), [Profile(64, 32)], Settings(1, 0))
    assert caught.value.hint and "--workspace" in caught.value.hint


@pytest.mark.needs_trt_rtx
def test_reduced_graphs_pass_the_audit_and_the_wrong_graph_does_not(
    rtx: Any, outlier: Path, outlier_ranges: dict[str, Ranges]
) -> None:
    """The outlier model has islands among the layers that mix: the parsed names must be those of the nodes."""
    model, largest = graphs.read_graph(outlier / "encoder.onnx"), outlier_ranges["encoder"].largest

    def build(reduced: Any) -> tuple[Layer, ...]:
        return Adapter(rtx).build(reduced.SerializeToString(), (), QUICK).layers

    def found(precision: str, built: Sequence[Layer], islands: Sequence[Island]) -> tuple[str, ...]:
        return judged(precision, built, [i.node for i in islands], expect_int8=precision == "int8")

    islands = choose_islands(model, largest)
    fp16 = build(to_fp16(model, [i.node for i in islands]))
    assert {layer.dtype for layer in fp16} == {"fp16", "fp32"}
    assert found("fp16", fp16, islands) == () and found("fp16", fp16, []) != ()
    assert found("fp16", build(model), islands) != ()  # the FP32 graph in its place
    assert found("int8", fp16, islands) == ("nothing in it is made INT8",)
    chosen, _ = find_layers(model)
    quantised = quantize(model, chosen, largest)
    spared = choose_islands(quantised, ranges_after(model, chosen, largest))
    assert found("int8", build(to_fp16(quantised, [i.node for i in spared])), spared) == ()


@pytest.mark.needs_trt_rtx
def test_the_command_checks_without_a_gpu(rtx: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["build", str(tiny), "--check", "--prompts", "1", "--level", "0", "--json"])
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    fractions = [e["fraction"] for e in events if e["event"] == "progress"]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    checked = {e["graph"]: e for e in events if e["event"] == "checked"}
    assert set(checked) == set(ModelManifest.load(tiny).graphs["fp32"])
    assert all(e["audit"]["parsed"].keys() == {"fp32"} and e["bytes"] > 10_000 for e in checked.values())
    assert not engine_files.folder().exists()
    monkeypatch.setattr(trt_library, "unavailable_reason", lambda: "no CUDA")
    result = CliRunner().invoke(app, ["build", str(tiny)])
    assert result.exit_code == 1
    assert "no engine can be verified here, so none is built: no CUDA" in result.stderr
    assert "--check" in result.stderr


@pytest.mark.needs_trt_rtx
def test_check_refuses_an_altered_file(rtx: Any, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "m")
    data = (tmp_path / "m" / "encoder.onnx").read_bytes()
    (tmp_path / "m" / "encoder.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        check_model(tmp_path / "m", "fp32", Options((1,)))
