"""A graph in parts answers what the whole one does, holds one part at a time, and computes nothing twice."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from boothsam.engines import graph as graphs
from boothsam.engines.calibrate import Ranges, RangeSession, calibrate
from boothsam.engines.islands import choose_islands
from boothsam.engines.precision import to_fp16
from boothsam.engines.quantize import find_layers
from boothsam.engines.simulate import simulated_encoder, simulated_session
from boothsam.engines.stages import Memory, Parts, StagedSession
from boothsam.runtime.backends.base import DeviceTensor, Session
from boothsam.runtime.errors import TensorError
from boothsam.runtime.transforms import preprocess
from onnx import TensorProto, helper, numpy_helper

from tests.engines.conftest import Photos
from tests.engines.test_simulate import graph

Feeds = Mapping[str, Any]


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> onnx.ModelProto:
    return graphs.read_graph(tiny / "encoder.onnx")


@pytest.fixture(scope="module")
def feeds(photos: Photos) -> Feeds:
    frame, size_hw = preprocess(photos["landscape"], 1024)
    return {"image": frame, "size_hw": np.asarray(size_hw, np.int32)}


@pytest.fixture(scope="module")
def chain() -> onnx.ModelProto:
    """Eight blocks, each a matrix product, a Relu and the sum with what came in."""
    nodes, weights, rng = [], [], np.random.default_rng(0)
    for i in range(8):
        weight = rng.standard_normal((32, 32)).astype(np.float32) / 6
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes += [
            helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"m{i}"], name=f"m{i}"),
            helper.make_node("Relu", [f"m{i}"], [f"r{i}"], name=f"r{i}"),
            helper.make_node("Add", [f"x{i}", f"r{i}"], [f"x{i + 1}"], name=f"x{i + 1}"),
        ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 32]) for name in ("x0", "x8")]
    body = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", graphs.OPSET)], ir_version=9)


VALUES = {"x0": np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)}


def plain(part: onnx.ModelProto) -> Session:
    return graphs.open_graph(part, 1)


def answer(session: Session, feeds: Feeds) -> Any:
    try:
        return session.run(feeds)["image_embedding"]
    finally:
        session.close()


class Counted:
    """Sessions over parts: how many were opened, and how many at most at a time."""

    def __init__(self) -> None:
        self.open, self.most, self.opened = 0, 0, 0

    def __call__(self, part: onnx.ModelProto) -> Session:
        session = graphs.open_graph(part, 1)
        self.open, self.opened = self.open + 1, self.opened + 1
        self.most = max(self.most, self.open)
        close = session.close

        def counted() -> None:
            self.open -= 1
            close()

        session.close = counted  # type: ignore[method-assign]
        return session


def test_every_node_is_in_one_part_and_one_tensor_joins_two(encoder: onnx.ModelProto) -> None:
    parts = Parts(encoder, 6)
    assert 4 <= parts.count <= 6
    names = [node.name for index in range(parts.count) for node in parts.nodes(index)]
    assert names == [node.name for node in encoder.graph.node]
    made = [parts.part(index) for index in range(parts.count)]
    for before, after in pairwise(made):
        assert len(before.graph.output) == 1
        assert {value.name for value in after.graph.input} == {before.graph.output[0].name}
    assert [value.name for value in made[-1].graph.output] == ["image_embedding"]
    held = sum(len(tensor.raw_data) for part in made for tensor in part.graph.initializer)
    assert held < 1.01 * sum(len(tensor.raw_data) for tensor in encoder.graph.initializer)  # none carries the others'


def test_parts_answer_what_the_whole_does(
    encoder: onnx.ModelProto, tiny_ranges: dict[str, Ranges], feeds: Feeds
) -> None:
    exact = answer(plain(encoder), feeds)
    np.testing.assert_allclose(answer(StagedSession(encoder, plain), feeds), exact, atol=2e-5)
    low = to_fp16(encoder, [i.node for i in choose_islands(encoder, tiny_ranges["encoder"].largest)])
    whole = answer(simulated_session(low, 1), feeds)
    staged = answer(simulated_encoder(low, 1), feeds)
    # float16 carries a difference in the last bit of one sum on: far less than the rounding itself
    assert np.abs(staged - whole).mean() < 0.2 * np.abs(exact - whole).mean()


def test_overflow_crosses_parts(outlier: Path, feeds: Feeds) -> None:
    low = to_fp16(graphs.read_graph(outlier / "encoder.onnx"))
    assert Parts(low).count > 4
    assert not np.isfinite(answer(simulated_encoder(low, 1), feeds)).any()


def test_only_what_changed_is_computed_again(chain: onnx.ModelProto) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(chain)
    changed.graph.initializer[5].CopyFrom(numpy_helper.from_array(np.eye(32, dtype=np.float32), "w5"))
    memory, opened = Memory(), Counted()

    def ask(model: onnx.ModelProto, feeds: Feeds = VALUES) -> Any:
        session = StagedSession(model, opened, most=8, memory=memory)
        return session.run(feeds)["x8"]

    first = ask(chain)
    assert (opened.opened, memory.hits) == (8, 0)
    np.testing.assert_array_equal(ask(chain), first)
    assert (opened.opened, memory.hits) == (8, 8)
    np.testing.assert_array_equal(ask(changed), plain(changed).run(VALUES)["x8"])
    assert (opened.opened, memory.hits) == (8 + 3, 8 + 5)
    other = {"x0": VALUES["x0"] + 1}
    np.testing.assert_array_equal(ask(chain, other), plain(chain).run(other)["x8"])
    assert memory.hits == 8 + 5


def test_what_is_remembered_is_bounded_and_stays_as_it_was(chain: onnx.ModelProto) -> None:
    memory = Memory(most_bytes=3 * VALUES["x0"].nbytes)
    session = StagedSession(chain, plain, memory=memory)
    first = session.run(VALUES)["x8"]
    expected = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(session.run(VALUES)["x8"], expected)
    assert memory.nbytes == memory.most_bytes
    session.close()


def test_one_part_is_held_at_a_time(chain: onnx.ModelProto) -> None:
    opened = Counted()
    session = StagedSession(chain, opened, most=8)
    for _ in range(2):
        np.testing.assert_array_equal(session.run(VALUES)["x8"], plain(chain).run(VALUES)["x8"])
    assert (opened.most, opened.open, opened.opened) == (1, 0, 16)
    session.close()
    with pytest.raises(TensorError, match="was closed"):
        session.run(VALUES)


def test_it_is_a_session_like_others(chain: onnx.ModelProto) -> None:
    whole, staged = plain(chain), StagedSession(chain, plain)
    assert dict(staged.inputs) == dict(whole.inputs) and dict(staged.outputs) == dict(whole.outputs)
    assert staged.device == whole.device
    kept = staged.run(VALUES, keep=["x8"])["x8"]
    assert isinstance(kept, DeviceTensor) and kept.shape == (64, 32)
    with pytest.raises(TensorError):
        staged.run({"x1": VALUES["x0"]})


def test_ranges_in_parts_are_those_of_the_whole(
    tiny: Path, encoder: onnx.ModelProto, feeds: Feeds, photos: Photos
) -> None:
    chosen = [layer.activation for layer in find_layers(encoder)[0]]
    whole = Ranges()
    answer(RangeSession(encoder, whole, sampled=chosen, per_run=1000, threads=1), feeds)
    found = calibrate(tiny, {"one": photos["landscape"]}, sampled={"encoder": chosen}, threads=1)["encoder"]
    assert found.largest.keys() == whole.largest.keys()
    for name, value in whole.largest.items():
        assert found.largest[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert {name: len(sample) for name, sample in found.samples.items()} == dict.fromkeys(chosen, 1)


def test_what_cannot_be_cut_is_one_part() -> None:
    parts = Parts(graph("g (float[4] x) => (float[4] y) { a = Relu(x) b = Neg(x) y = Add(a, b) }"))
    assert parts.count == 1 and [node.name for node in parts.nodes(0)] == ["a", "b", "y"]


def test_parts_may_meet_between_quantising_and_its_reversal() -> None:
    """There an int8 tensor alone carries all that comes after."""
    nodes, ends = [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 32]) for name in ("x0", "x4")]
    weights = [numpy_helper.from_array(np.float32(0.02), "scale"), numpy_helper.from_array(np.int8(0), "zero")]
    for i in range(4):
        nodes += [
            helper.make_node("QuantizeLinear", [f"x{i}", "scale", "zero"], [f"q{i}"], name=f"q{i}"),
            helper.make_node("DequantizeLinear", [f"q{i}", "scale", "zero"], [f"d{i}"], name=f"d{i}"),
            helper.make_node("Relu", [f"d{i}"], [f"x{i + 1}"], name=f"x{i + 1}"),
        ]
    body = helper.make_graph(nodes, "quantised", ends[:1], ends[1:], weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", graphs.OPSET)], ir_version=9)
    parts = Parts(model)
    kinds = {v.type.tensor_type.elem_type for i in range(parts.count) for v in parts.part(i).graph.output}
    assert TensorProto.INT8 in kinds  # or this test tests nothing
    staged, whole = simulated_encoder(model, 1), simulated_session(model, 1)
    np.testing.assert_array_equal(staged.run(VALUES)["x4"], whole.run(VALUES)["x4"])
    staged.close()
    whole.close()
