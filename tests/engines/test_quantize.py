"""Explicit INT8: which layers, with which scales, and the search for those that bear it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from boothsam.engines import graph as graphs
from boothsam.engines.calibrate import Ranges
from boothsam.engines.fp16 import SPARED, Fp16
from boothsam.engines.int8 import Int8
from boothsam.engines.quantize import activation_scale, find_layers, quantize, ranges_after, weight_scales
from boothsam.engines.sensitivity import Group, RememberedModel, fewest_spared, group_layers, measure_groups
from boothsam.engines.simulate import simulated_session
from boothsam.runtime.errors import ModelError, ProofError
from boothsam.runtime.fidelity import Fidelity, Gate, Row, measure
from boothsam.runtime.model import SamModel
from onnx import TensorProto, numpy_helper

from tests.engines.conftest import Photos
from tests.engines.test_simulate import graph


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> onnx.ModelProto:
    return graphs.read_graph(tiny / "encoder.onnx")


def test_convolutions_and_linear_layers_only(encoder: onnx.ModelProto) -> None:
    layers, skipped = find_layers(encoder)
    names = {layer.node.split("/", 2)[2] for layer in layers}  # without the root, the encoder's own name
    for block in ("blocks.0", "blocks.1"):
        assert {f"{block}/{part}/MatMul" for part in ("attn/qkv", "attn/proj", "mlp/lin1", "mlp/lin2")} <= names
    assert not any(name.endswith(("attn/MatMul", "attn/MatMul_1")) for name in names)  # products of two activations
    reasons = {s.node.split("/", 2)[2]: s.reason for s in skipped}
    assert reasons == {
        "patch_embed/proj/Conv": "reads the pixels",
        "neck/neck.2/Conv": "gives an output of the graph",
    }


def test_depthwise_and_narrow_layers_are_left_alone() -> None:
    text = """g (float[1,32,8,8] x) => (float[1,8,8,8] y)
    <float[32,1,3,3] d = {}, float[8,32,1,1] n = {}, float[32,32,1,1] w = {}>
    { a = Relu(x) b = Conv<group = 32, pads = [1,1,1,1]>(a, d) c = Conv(b, w) e = Conv(c, n) y = Relu(e) }"""
    layers, skipped = find_layers(graph(text))
    assert [layer.node for layer in layers] == ["c"]
    assert {s.node: s.reason.split(":")[0] for s in skipped} == {"b": "depthwise", "e": "fewer than 16 channels"}


def test_scales_are_float16_numbers_that_clip_nothing() -> None:
    rng = np.random.default_rng(0)
    for limit in (*10.0 ** rng.uniform(-4, 5, 200), 0.0):
        scale = activation_scale(float(limit))
        assert scale.dtype == np.float16 and np.float64(scale) * 127 >= limit and scale > 0
        assert limit < 1e-2 or np.float64(scale) * 127 <= limit * 1.002
    weight = rng.standard_normal((32, 8)).astype(np.float32) * np.linspace(1e-6, 2, 8, dtype=np.float32)
    scales = weight_scales(weight, 1)
    assert scales.dtype == np.float16 and scales.shape == (8,)
    assert (np.abs(weight).max(0) <= scales.astype(np.float64) * 127).all()


def test_the_graph_holds_symmetric_pairs_with_a_scale_per_channel(
    encoder: onnx.ModelProto, tiny_ranges: dict[str, Ranges], tmp_path: Path
) -> None:
    layers, _ = find_layers(encoder)
    low = quantize(encoder, layers, tiny_ranges["encoder"].largest)
    weights = graphs.constants(low)
    for node in low.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = numpy_helper.to_array(weights[node.input[2]])
            assert zero.dtype == np.int8 and not zero.any()
    makers = graphs.producers(low)
    for layer in layers:
        node = next(n for n in low.graph.node if n.name == layer.node)
        assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
        back = makers[node.input[1]]
        original = numpy_helper.to_array(graphs.constants(encoder)[layer.weight])
        stored = numpy_helper.to_array(weights[back.input[0]])
        scale = numpy_helper.to_array(weights[back.input[1]])
        assert stored.dtype == np.int8 and scale.shape == (original.shape[layer.axis],)
        sides = [-1 if i == layer.axis else 1 for i in range(original.ndim)]
        error = np.abs(stored * scale.reshape(sides) - original)
        assert (error <= 0.5001 * scale.reshape(sides)).all()
    graphs.write_graph(low, tmp_path / "a.onnx")
    graphs.write_graph(quantize(encoder, layers, tiny_ranges["encoder"].largest), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert not any(n.op_type == "QuantizeLinear" for n in encoder.graph.node)  # the source is as it was
    largest = ranges_after(encoder, layers, tiny_ranges["encoder"].largest)
    assert largest[f"{layers[0].activation}/int8/back"] == largest[layers[0].activation]


def test_a_range_that_is_no_number_is_refused(encoder: onnx.ModelProto, tiny_ranges: dict[str, Ranges]) -> None:
    layers, _ = find_layers(encoder)
    limits = dict(tiny_ranges["encoder"].largest) | {layers[0].activation: float("nan")}
    with pytest.raises(ModelError, match="measured as nan"):
        quantize(encoder, layers, limits)


def test_int8_stays_near_fp32(
    tiny: Path, encoder: onnx.ModelProto, tiny_ranges: dict[str, Ranges], photos: Photos
) -> None:
    layers, _ = find_layers(encoder)
    session = simulated_session(quantize(encoder, layers, tiny_ranges["encoder"].largest), 1)
    model = SamModel.load(tiny, backend="ort-cpu", threads=1)
    low = SamModel(
        model.manifest, {**model.sessions, "encoder": session}, backend="simulated", precision="int8", reason=""
    )
    photo = photos["square"]
    ours, theirs = (m.encode(photo).tensors["image_embedding"].numpy() for m in (low, model))
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert 0.001 < error < 0.1  # quantised indeed, and only that
    model.close()


def test_groups_follow_the_modules_and_are_joined_where_there_are_many() -> None:
    nodes = [f"/image_encoder/blocks.{i}/{part}/x/MatMul" for i in range(12) for part in ("attn", "mlp")]
    groups = group_layers(nodes, 24)
    assert [g.name for g in groups[:2]] == ["blocks.0/attn", "blocks.0/mlp"] and len(groups) == 24
    few = group_layers(nodes, 5)
    assert len(few) == 5 and [n for g in few for n in g.layers] == nodes
    assert few[0].name.startswith("blocks.0/attn to ")
    assert few[-1].name.endswith("blocks.11/mlp")


def row(iou: float) -> Row:
    return Row("p", "box", iou, iou, 0.0, (iou,) * 4, True, 0.5, True)


def report(iou: float) -> Fidelity:
    return Fidelity("m", "int8", "simulated", "fp32", "simulated", Gate(0.98, 0.93), (row(iou),))


def test_the_search_spares_as_few_groups_as_hold_the_gate() -> None:
    losses = {"a": 0.001, "b": 0.05, "c": 0.004, "d": 0.03, "e": 0.002}
    groups = [Group(name, (name,)) for name in losses]
    asked: list[tuple[str, ...]] = []

    def lower(nodes: Sequence[str]) -> Fidelity:
        asked.append(tuple(nodes))
        return report(1.0 - sum(losses[n] for n in nodes))

    measured = measure_groups(groups, lower)
    assert {g.name: round(g.lost or 0, 6) for g in measured} == losses
    found, result = fewest_spared(measured, lower)
    assert [g.name for g in found if g.kept] == ["b", "d"]
    assert result.passed and result.summary.mask_iou_mean == pytest.approx(1 - 0.007)
    every = [Group(name, (name,), lost=1.0) for name in losses]
    found, result = fewest_spared(every, lambda nodes: report(1.0 if not nodes else 0.5))
    assert all(g.kept for g in found) and result.passed
    found, result = fewest_spared(every, lambda nodes: report(0.999))
    assert not any(g.kept for g in found)


@pytest.fixture
def fp16(tiny: Path, tiny_ranges: dict[str, Ranges]) -> Fp16:
    sources = {name: graphs.read_graph(tiny / f"{name}.onnx") for name in tiny_ranges}
    reference = RememberedModel(SamModel.load(tiny, backend="ort-cpu", threads=1))
    return Fp16(sources, {name: r.largest for name, r in tiny_ranges.items()}, reference, threads=1)


def test_a_remembered_model_answers_the_same_and_outlives_its_callers(tiny: Path, photos: Photos) -> None:
    plain = SamModel.load(tiny, backend="ort-cpu", threads=1)
    remembered = RememberedModel(plain)
    for _ in range(2):
        found = measure(remembered, plain, {"square": photos["square"]}, against="itself", numerics="device")
        assert found.summary.mask_iou_min == 1.0 and found.summary.score_error_max == 0.0
    plain.close()


def test_int8_holds_its_gate_and_reports_every_group(
    fp16: Fp16, tiny_ranges: dict[str, Ranges], photos: Photos
) -> None:
    assert fp16.search({"square": photos["square"]}).passed
    int8 = Int8(fp16, tiny_ranges["encoder"].largest, "minmax")
    assert int8.search({"square": photos["square"]}).passed
    facts = int8.facts
    assert {g["name"] for g in facts["groups"]} >= {"blocks.0/attn", "blocks.0/mlp", "blocks.1/attn", "blocks.1/mlp"}
    assert all(g["lost"] is not None for g in facts["groups"])
    assert len(facts["quantised"]) + len(facts["spared"]) == len(int8.layers) > len(facts["spared"])
    types = graphs.element_types(int8.encoder)
    quantisers = [n for n in int8.encoder.graph.node if n.op_type == "QuantizeLinear"]
    assert quantisers and all(types[n.input[0]] == TensorProto.FLOAT16 for n in quantisers)
    other = {name: photo for name, photo in photos.items() if name != "square"}
    assert fp16.compare(int8.model(), other).summary.mask_iou_mean > 0.97


def test_when_no_layer_bears_it_the_search_says_so(
    fp16: Fp16, tiny_ranges: dict[str, Ranges], photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8 = Int8(fp16, tiny_ranges["encoder"].largest, "minmax")
    monkeypatch.setattr("boothsam.engines.fp16.GATES", {"int8": Gate(1.1, 1.1)})  # a gate that nothing can hold
    monkeypatch.setattr("boothsam.engines.int8.group_layers", lambda nodes: group_layers(nodes, 2))
    with pytest.raises(ProofError, match="no layer of this encoder can be INT8"):
        int8.search({"square": photos["square"]})


def test_fp16_spares_what_loses_most(fp16: Fp16, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate just above what FP16 reaches makes the search add islands, with the reason written down."""
    square = {"square": photos["square"]}
    reached = fp16.compare(fp16.model(), square).summary.mask_iou_mean
    before = {name: len(islands) for name, islands in fp16.islands.items()}
    gate = Gate(1 - (1 - reached) / 2, 0.0)
    monkeypatch.setattr("boothsam.engines.fp16.SEARCH_SHARE", 1.0)
    monkeypatch.setattr("boothsam.engines.fp16.GATES", {"fp16": gate})
    assert fp16.search(square).passed
    added = [i for islands in fp16.islands.values() for i in islands if i.reason == SPARED]
    assert added and sum(len(i) for i in fp16.islands.values()) == sum(before.values()) + len(added)
    assert any(g["kept"] for facts in fp16.facts.values() for g in facts["groups"])
