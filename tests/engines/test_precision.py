"""FP32 to mixed FP16: types, islands and their reasons, and the outlier model that shows what they are for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from boothsam.engines import graph as graphs
from boothsam.engines.calibrate import Ranges, calibrate
from boothsam.engines.islands import LEAST, LIMIT, choose_islands
from boothsam.engines.precision import is_reduced, to_fp16
from boothsam.engines.simulate import simulated_model
from boothsam.runtime.errors import ModelError, OptionError
from boothsam.runtime.fidelity import Fidelity, measure
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.model import SamModel
from boothsam.runtime.store import starter_folder
from boothsam.runtime.transforms import preprocess
from onnx import TensorProto, numpy_helper

from tests.engines.test_simulate import graph, run

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
GRAPHS = ("encoder", "prepare", "decoder", "decoder_mask")


def mixed(folder: Path, name: str, ranges: dict[str, Ranges]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """One graph in FP32 and with its islands."""
    model = graphs.read_graph(folder / ModelManifest.load(folder).graphs["fp32"][name])
    islands = choose_islands(model, ranges[name].largest)
    return model, to_fp16(model, [island.node for island in islands])


@pytest.mark.parametrize("name", GRAPHS)
def test_the_mixed_graph_is_valid_and_keeps_its_contract(
    name: str, tiny: Path, tiny_ranges: dict[str, Ranges], tmp_path: Path
) -> None:
    model, low = mixed(tiny, name, tiny_ranges)
    graphs.write_graph(low, tmp_path / "low.onnx")  # checks: full check, strict inference with data propagation
    assert low.graph.input == model.graph.input and low.graph.output == model.graph.output
    types = graphs.element_types(low)
    layers = [n for n in low.graph.node if n.op_type in ("Conv", "MatMul", "Gemm", "ConvTranspose")]
    halves = [n for n in layers if types[n.output[0]] == FLOAT16]
    assert len(halves) >= len(layers) - 1  # all but the product with the Gaussian matrix
    assert (tmp_path / "low.onnx").stat().st_size < 0.6 * (tiny / f"{name}.onnx").stat().st_size


@pytest.mark.parametrize("name", GRAPHS)
def test_twice_is_once_and_repeating_gives_the_same_bytes(
    name: str, tiny: Path, tiny_ranges: dict[str, Ranges], tmp_path: Path
) -> None:
    model, low = mixed(tiny, name, tiny_ranges)
    before = model.SerializeToString(deterministic=True)
    again = mixed(tiny, name, tiny_ranges)[1]
    graphs.write_graph(low, tmp_path / "a.onnx")
    graphs.write_graph(again, tmp_path / "b.onnx")
    graphs.write_graph(to_fp16(graphs.read_graph(tmp_path / "a.onnx")), tmp_path / "c.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()
    assert is_reduced(low) and not is_reduced(model)
    assert model.SerializeToString(deterministic=True) == before


def test_an_output_that_is_read_inside_too_keeps_its_name() -> None:
    """The starter model's encoder gives feature maps that its own later layers read."""
    text = "g (float[n] x) => (float[n] y, float[n] z) { y = Mul(x, x) a = Add(y, x) z = Exp(y) b = Sub(a, z) }"
    for islands in ((), ("y",), ("z",), ("a", "z"), ("y", "a", "z", "b")):
        low = to_fp16(graph(text), islands)
        onnx.checker.check_model(low, full_check=True)
        assert [o.name for o in low.graph.output] == ["y", "z"]
        found = run(low, x=np.array([1.0, 3.0], np.float32))
        np.testing.assert_allclose(found, [1.0, 9.0])


def test_a_weight_read_by_both_kinds_of_nodes_is_stored_in_both() -> None:
    text = "g (float[2] x) => (float[2] y) <float[2] w = {0.1, 0.2}> { a = Mul(x, w) y = Add(a, w) }"
    low = to_fp16(graph(text), {"y"})
    stored = {t.name: t.data_type for t in low.graph.initializer}
    assert stored == {"w": FLOAT, "w/fp16": FLOAT16}
    exact = np.float32(np.float16(0.1)) + np.float32(0.1)
    assert run(low, x=np.array([1, 1], np.float32))[0] == exact


def test_what_has_a_type_of_its_own_stays() -> None:
    """Scales of Resize are float32 in ONNX, whatever is resized; integers and shapes are nobody's business."""
    text = """g (float[1,1,2,2] x) => (float[1,1,4,4] y, int64[4] s)
    <float[4] scales = {1, 1, 2, 2}, float[0] roi = {}> { y = Resize<mode = "linear">(x, roi, scales) s = Shape(x) }"""
    low = to_fp16(graph(text))
    onnx.checker.check_model(low, full_check=True)
    assert {t.name: t.data_type for t in low.graph.initializer} == {"scales": FLOAT, "roi": FLOAT}
    assert graphs.element_types(low)["y/fp16"] == FLOAT16


def test_islands_by_rule_are_listed_with_reasons(tiny: Path, tiny_ranges: dict[str, Ranges]) -> None:
    decoder = graphs.read_graph(tiny / "decoder.onnx")
    islands = {i.node: i for i in choose_islands(decoder, tiny_ranges["decoder"].largest)}
    reason = {node: island.reason.split(":")[0] for node, island in islands.items()}
    for node in decoder.graph.node:
        if node.op_type in ("LayerNormalization", "Softmax"):
            assert reason[node.name] == {"LayerNormalization": "normalisation", "Softmax": "softmax"}[node.op_type]
    assert reason["/pe_layer/MatMul"] == reason["/Add"] == "coordinates"
    assert reason["/pe_layer/Sin"] == "position encoding"
    assert "/self_attn/q_proj/MatMul" not in islands  # encoded points are features
    assert all(island.value is None for island in islands.values())
    encoder = graphs.read_graph(tiny / "encoder.onnx")
    reason = {i.node: i.reason for i in choose_islands(encoder, tiny_ranges["encoder"].largest)}
    assert reason["/Sub"].startswith("input") and reason["/Cast"].startswith("input")
    assert not any(node.endswith("/patch_embed/proj/Conv") for node in reason)


def test_measured_islands_carry_their_figures(outlier: Path, outlier_ranges: dict[str, Ranges]) -> None:
    encoder = graphs.read_graph(outlier / "encoder.onnx")
    found = choose_islands(encoder, outlier_ranges["encoder"].largest)
    islands = {island.node.split("/", 2)[-1]: island for island in found}  # without the root, the encoder's own name
    qkv = islands["blocks.0/attn/qkv/MatMul"]
    assert qkv.reason.startswith("measured") and qkv.value is not None and qkv.value > LIMIT
    assert qkv.to_dict() == {"node": qkv.node, "op": "MatMul", "reason": qkv.reason, "value": qkv.value}
    norm = islands["blocks.0/norm2/LayerNormalization"]
    assert "outside float16's normal range" in norm.reason or norm.reason.startswith("measured")
    assert "patch_embed/proj/Conv" not in islands  # nothing large there


def test_values_and_constants_too_small_for_float16_are_islands() -> None:
    text = "g (float[n] x) => (float[n] y) <float e = {0.00001}> { a = Mul(x, x) b = Add(a, e) c = Neg(b) y = Abs(c) }"
    model = graph(text)
    largest = {"x": 1.0, "a": 1.0, "b": 1.0, "c": 1.0, "y": 1.0}
    reasons = {i.node: i.reason.split(":")[0] for i in choose_islands(model, largest)}
    assert reasons == {"a": "square", "b": "constant"}
    small = largest | {"c": LEAST / 2}
    assert {i.node: i.value for i in choose_islands(model, small)}["c"] == LEAST / 2
    # what calibration could not measure is no small matter either
    assert {i.node for i in choose_islands(model, largest | {"c": float("nan")})} == {"a", "b", "c", "y"}


def fidelity(folder: Path, photos: Any, ranges: dict[str, Ranges] | None) -> Fidelity:
    """FP16 with the islands that `ranges` ask for, or plain, simulated, against FP32."""

    def reduce(name: str, model: onnx.ModelProto) -> onnx.ModelProto:
        chosen = choose_islands(model, ranges[name].largest) if ranges else ()
        return to_fp16(model, [island.node for island in chosen])

    reference = SamModel.load(folder, backend="ort-cpu", threads=1)
    low = simulated_model(folder, "fp16", threads=1, reduce=reduce)
    try:
        return measure(low, reference, photos, against="fp32 (ort-cpu)", numerics="simulated")
    finally:
        low.close()
        reference.close()


def test_the_outlier_model_breaks_in_plain_fp16_and_passes_with_islands(
    outlier: Path, outlier_ranges: dict[str, Ranges], photos: Any
) -> None:
    plain = fidelity(outlier, photos, None)
    assert not plain.passed and plain.summary.mask_iou_mean < 0.5
    assert "NaN or infinity" in plain.failures[0]
    ours = fidelity(outlier, photos, outlier_ranges)
    ours.require()
    assert ours.summary.count == 15 and ours.summary.mask_iou_mean > 0.998


def test_the_tiny_model_passes_with_islands(tiny: Path, tiny_ranges: dict[str, Ranges], photos: Any) -> None:
    fidelity(tiny, photos, tiny_ranges).require()


def test_the_starter_model_passes_with_islands(photos: Any) -> None:
    folder = starter_folder()
    fidelity(folder, photos, calibrate(folder, photos, threads=1)).require()


def test_ranges_are_those_of_the_tensors(tiny: Path, photos: Any) -> None:
    """Against the tensor itself, computed by a session that gives it out; samples are some of its values."""
    model = graphs.read_graph(tiny / "encoder.onnx")
    (name,) = (n.output[0] for n in model.graph.node if n.name.endswith("/blocks.0/norm1/LayerNormalization"))
    found = calibrate(tiny, photos, sampled={"encoder": [name]}, threads=1)["encoder"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, FLOAT, None))
    with_tensor = graphs.open_graph(model, 1)
    plain = SamModel.load(tiny, backend="ort-cpu", threads=1)
    values = []
    for photo in photos.values():
        frame, size_hw = preprocess(photo)
        values.append(np.abs(with_tensor.run({"image": frame, "size_hw": size_hw})[name]))
    plain.close()
    assert found.largest[name] == pytest.approx(max(v.max() for v in values), rel=1e-5)
    assert found.limit(name) == found.largest[name]
    exact = float(np.percentile(np.concatenate([v.ravel() for v in values]), 99.9))
    assert found.limit(name, "percentile", 99.9) == pytest.approx(exact, rel=0.02)
    assert found.limit(name, "percentile", 99.9) < found.limit(name)
    with pytest.raises(OptionError, match="calibration method 'entropy'"):
        found.limit(name, "entropy")


def test_calibration_needs_photos(tiny: Path) -> None:
    with pytest.raises(OptionError, match="found none"):
        calibrate(tiny, {})


def test_constants_written_as_nodes_become_initializers(tmp_path: Path) -> None:
    model = onnx.load(Path(starter_folder()) / "encoder.onnx")
    assert any(n.op_type == "Constant" for n in model.graph.node)
    graphs.lift_constants(model)
    assert not any(n.op_type == "Constant" for n in model.graph.node)
    onnx.checker.check_model(model, full_check=True)
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="is no ONNX graph"):
        graphs.read_graph(tmp_path / "no.onnx")
    model.opset_import[0].version = 17
    onnx.save(model, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match="expected opset 19 alone"):
        graphs.read_graph(tmp_path / "old.onnx")


def test_a_graph_over_the_limit_lies_in_two_files(tiny: Path, tiny_ranges: dict[str, Ranges], tmp_path: Path) -> None:
    low = mixed(tiny, "encoder", tiny_ranges)[1]
    graphs.write_graph(low, tmp_path / "big.onnx", external_data_bytes=1000)
    assert (tmp_path / "big.onnx.data").stat().st_size > 500_000
    read = graphs.read_graph(tmp_path / "big.onnx")
    stored = {t.name: numpy_helper.to_array(t) for t in low.graph.initializer}
    for tensor in read.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), stored[tensor.name])


def test_measuring_ranges_does_not_keep_every_tensor() -> None:
    """Forty tensors of 16 MB in a row; if each waited for the end of the graph to be reduced, 640 MB would be held."""
    code = """
import resource
import numpy as np
from boothsam.engines.calibrate import RangeSession, Ranges
from tests.engines.test_simulate import graph

lines = " ".join(f"t{i} = Sin(t{i - 1})" for i in range(1, 40))
model = graph(f"g (float[4000000] x) => (float[4000000] y) {{ t0 = Sin(x) {lines} y = Sin(t39) }}")
session = RangeSession(model, Ranges(), sampled=["t3", "t30"], per_run=1000, threads=1)
x = np.ones(4_000_000, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
session.run({"x": x})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 250_000  # kilobytes
