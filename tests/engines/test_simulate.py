"""The simulator against NumPy's float16, where it must round, overflow, and where it must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
from boothsam.engines import graph as graphs
from boothsam.engines import simulate
from boothsam.engines.precision import to_fp16
from boothsam.engines.simulate import rounding_works, simulated_model, simulated_session, simulation
from boothsam.runtime.errors import BackendUnavailable, ModelError
from boothsam.runtime.model import SamModel
from onnx import TensorProto

Array = npt.NDArray[Any]
_HEAD = '<ir_version: 9, opset_import: ["" : 19]>'


def graph(text: str) -> onnx.ModelProto:
    """A model of ONNX's own text form, its nodes named after what they give."""
    model = onnx.parser.parse_model(f"{_HEAD} {text}")
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def half(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16)


def run(model: onnx.ModelProto, **feeds: Array) -> Array:
    session = simulated_session(model, threads=1)
    try:
        result: Array = next(iter(session.run(feeds).values()))
        return result
    finally:
        session.close()


def values(seed: int, shape: tuple[int, ...] = (4096,)) -> Array:
    """Float32 numbers of every magnitude: subnormal in float16, ordinary, and near its largest."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(-7, 4.7, shape), np.float32)


@pytest.mark.parametrize(
    ("expression", "reference"),
    [
        ("Add(a, b)", lambda a, b: a + b),
        ("Sub(a, b)", lambda a, b: a - b),
        ("Mul(a, b)", lambda a, b: a * b),
        ("Div(a, b)", lambda a, b: a / b),
        ("Max(a, b)", np.maximum),
    ],
)
def test_an_operation_gives_what_numpy_gives_in_float16(expression: str, reference: Any) -> None:
    model = to_fp16(graph(f"g (float[n] a, float[n] b) => (float[n] y) {{ y = {expression} }}"))
    a, b = values(1), values(2)
    with np.errstate(all="ignore"):
        expected = reference(half(a), half(b)).astype(np.float32)
    assert np.isinf(expected).any() or expression == "Max(a, b)"
    np.testing.assert_array_equal(run(model, a=a, b=b), expected)


def test_every_node_of_a_chain_rounds() -> None:
    """Each step's rounding counts: rounding at the end alone would give other numbers."""
    model = to_fp16(graph("g (float[n] a, float[n] b) => (float[n] y) { p = Mul(a, b) q = Add(p, b) y = Sub(q, a) }"))
    a, b = values(3) % 8, values(4) % 8
    stepwise = (half(a) * half(b) + half(b) - half(a)).astype(np.float32)
    at_the_end = half(a.astype(np.float16).astype(np.float32) * half(b).astype(np.float32) + half(b) - half(a))
    assert (stepwise != at_the_end).mean() > 0.1
    np.testing.assert_array_equal(run(model, a=a, b=b), stepwise)


def test_what_overflows_in_between_stays_infinite() -> None:
    """ONNX Runtime on a CPU computes the same FP16 graph in FP32 and gives 1000: why there is a simulator at all."""
    model = to_fp16(graph("g (float[n] x) => (float[n] y) { square = Mul(x, x) y = Div(square, x) }"))
    x = np.array([1000, 200, -300], np.float32)
    np.testing.assert_array_equal(run(model, x=x), np.array([np.inf, 200, -np.inf], np.float32))
    session = graphs.open_graph(model, 1)
    assert np.isfinite(session.run({"x": x})["y"]).all()
    session.close()


def test_an_island_does_not_overflow() -> None:
    model = to_fp16(graph("g (float[n] x) => (float[n] y) { square = Mul(x, x) y = Div(square, x) }"), {"square", "y"})
    np.testing.assert_array_equal(run(model, x=np.array([1000], np.float32)), np.array([1000], np.float32))


def test_a_matrix_product_accumulates_in_float32_and_rounds_its_sum() -> None:
    model = to_fp16(graph("g (float[8,512] a, float[512,8] b) => (float[8,8] y) { y = MatMul(a, b) }"))
    a, b = values(5, (8, 512)) % 1, values(6, (512, 8)) % 1
    found = run(model, a=a, b=b)
    exact = half(a).astype(np.float64) @ half(b).astype(np.float64)
    assert np.array_equal(found, half(found).astype(np.float32))  # holds float16 values only
    assert np.abs(found - exact).max() <= np.spacing(np.abs(exact).max().astype(np.float16)) * 0.51
    one = np.ones((8, 512), np.float32) * 200
    assert np.isinf(run(model, a=one, b=one.T.copy())).all()  # 512 * 40000: the sum fits FP32 only


def test_weights_are_rounded_too() -> None:
    text = "g (float[2] x) => (float[2] y) <float[2] w = {0.1, 70000.0}> { y = Mul(x, w) }"
    found = run(to_fp16(graph(text)), x=np.array([1, 1], np.float32))
    np.testing.assert_array_equal(found, np.array([np.float16(0.1), np.inf], np.float32))


def test_the_casts_are_carried_out_and_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rounding_works()
    model = to_fp16(graph("g (float[n] x) => (float[n] y) { y = Mul(x, x) }"))
    casts = [n.attribute[0].i for n in simulation(model).graph.node if n.op_type == "Cast"]
    assert casts == [TensorProto.FLOAT16, TensorProto.FLOAT] * 2 + [TensorProto.FLOAT]  # in, after Mul, out
    monkeypatch.setattr(simulate, "rounding_works", lambda: False)
    with pytest.raises(BackendUnavailable, match="drops casts"):
        simulated_session(model)


QUANTISED = """g (float[n,4] x) => (float[n,3] y)
<float s = {0.5}, int8 z = {0}, int8[4,3] w = {1,2,3, -4,5,6, 127,-127,0, 9,9,9}, float[3] ws = {0.25, 0.5, 1.0},
 int8[3] wz = {0,0,0}>
{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis = 1>(w, ws, wz) y = MatMul(d, v) }
"""


def test_quantised_layers_round_half_to_even_and_saturate() -> None:
    x = np.array([[0.25, 0.75, -1.25, 0.1], [1e6, -1e6, 63.5, -64]], np.float32)
    steps = np.clip(np.round(x / 0.5), -128, 127)
    assert steps[0].tolist() == [0, 2, -2, 0] and steps[1].tolist() == [127, -128, 127, -128]
    weights = np.array([1, 2, 3, -4, 5, 6, 127, -127, 0, 9, 9, 9]).reshape(4, 3) * [0.25, 0.5, 1.0]
    np.testing.assert_array_equal(run(graph(QUANTISED), x=x), (steps * 0.5 @ weights).astype(np.float32))
    np.testing.assert_array_equal(run(to_fp16(graph(QUANTISED)), x=x), half(steps * 0.5 @ weights).astype(np.float32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g (float16[n] x) => (float16[n] y) { y = Mul(x, x) }", "float32 inputs and outputs"),
        (
            "g (float[n] x) => (float[n] y) <float s = {1}, uint8 z = {128}> "
            "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
            "not symmetric int8",
        ),
        (
            "g (float[n] x) => (float[n] y) <float s = {1}, int8 z = {3}> "
            "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
            "not symmetric int8",
        ),
    ],
)
def test_what_it_cannot_simulate_it_refuses(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        simulation(graph(text))


def test_an_fp32_model_is_simulated_as_itself(tiny: Path, photos: Any) -> None:
    """A graph without float16 has nothing to round: the same numbers, to the last bit."""
    photo = photos["square"]
    embeddings = []
    for model in (simulated_model(tiny, "fp32", threads=1), SamModel.load(tiny, backend="ort-cpu", threads=1)):
        embeddings.append(model.encode(photo).tensors["image_embedding"].numpy())
        model.close()
    np.testing.assert_array_equal(*embeddings)


def test_a_precision_that_the_model_lacks(tiny: Path) -> None:
    with pytest.raises(ModelError, match="no precision 'fp16'; it has fp32"):
        simulated_model(tiny, "fp16")
