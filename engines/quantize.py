"""FP32 encoder to explicit INT8: symmetric Quantize/Dequantize pairs before convolutions and linear layers.

Weights are stored as int8 with one scale per output channel; activations get one scale per tensor from calibration.
Products of two activations (attention), softmax, normalisation and GELU are left alone, and so is the decoder. Every
scale is a float16 number, so that the graph means the same when its casts to FP16 come after.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from boothsam.engines import graph as graphs
from boothsam.engines.islands import exact_paths
from boothsam.runtime.errors import ModelError
from onnx import NodeProto, helper, numpy_helper

LEVELS = 127
# Narrower layers have no INT8 kernel worth its conversion; TensorRT's own placement tool draws the line here too.
LEAST_CHANNELS = 16
_SMALLEST_SCALE = float(np.finfo(np.float16).smallest_subnormal) * 8


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer. axis: the weight's output channels; activation: what it reads."""

    node: str
    op: str
    activation: str
    weight: str
    axis: int


@dataclass(frozen=True)
class Skipped:
    """A layer that is never quantised, and why."""

    node: str
    op: str
    reason: str


def find_layers(model: onnx.ModelProto) -> tuple[tuple[Layer, ...], tuple[Skipped, ...]]:
    """The layers of a graph that INT8 is for, in its order, and those with constant weights that it is not for."""
    weights = graphs.constants(model)
    readers = graphs.consumers(model)
    pixels = exact_paths(model)
    makers = graphs.producers(model)
    leaving = {output.name for output in model.graph.output}
    layers: list[Layer] = []
    skipped: list[Skipped] = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm") or len(node.input) < 2 or node.input[1] not in weights:
            continue
        shape = tuple(weights[node.input[1]].dims)
        maker = makers.get(node.input[0])
        if node.op_type == "MatMul" and len(shape) != 2:
            reason = "a batch of matrices"
        elif maker is None or maker.name in pixels:
            reason = "reads the pixels"
        elif _ends_in(node, readers, leaving):
            reason = "gives an output of the graph"
        elif node.op_type == "Conv" and shape[1] == 1 and shape[0] > 1:
            reason = "depthwise: little arithmetic, and the most sensitive of all"
        elif min(shape[:2]) < LEAST_CHANNELS:
            reason = f"fewer than {LEAST_CHANNELS} channels"
        else:
            layers.append(Layer(node.name, node.op_type, node.input[0], node.input[1], _axis(node)))
            continue
        skipped.append(Skipped(node.name, node.op_type, reason))
    return tuple(layers), tuple(skipped)


def _axis(node: NodeProto) -> int:
    """Where the output channels of the weight are."""
    if node.op_type == "Conv":
        return 0
    return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1


def _ends_in(node: NodeProto, readers: Mapping[str, list[NodeProto]], leaving: Collection[str]) -> bool:
    """Whether nothing but moves and a normalisation lies between a layer and an output of the graph."""
    name = node.output[0]
    while name not in leaving:
        after = readers.get(name, [])
        if len(after) != 1 or after[0].op_type not in ("LayerNormalization", "Transpose", "Reshape", "Add"):
            return False
        name = after[0].output[0]
    return True


def activation_scale(limit: float) -> np.float16:
    """The float16 step with which 127 steps reach `limit`: rounded up, so that nothing is clipped by rounding."""
    return np.float16(_round_up(np.array(limit / LEVELS)))


def weight_scales(weight: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float16]:
    """One float16 step per output channel."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    return _round_up(np.abs(weight).max(axis=others) / LEVELS)


def _round_up(exact: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    exact = np.maximum(np.asarray(exact, np.float64), _SMALLEST_SCALE)
    low = exact.astype(np.float16)
    up = np.nextafter(low, np.float16(np.inf))
    return np.asarray(np.where(low.astype(np.float64) < exact, up, low), np.float16)


def quantize(model: onnx.ModelProto, layers: Collection[Layer], limits: Mapping[str, float]) -> onnx.ModelProto:
    """The FP32 graph with Q/DQ around `layers`; the same for the same arguments. `model` is not changed.

    Args:
        model: FP32, as `graph.read_graph` gives it.
        layers: from `find_layers`.
        limits: activation tensor -> where quantisation clips it (`Ranges.limit`).

    Raises:
        ModelError: an activation without a finite limit.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    wanted = {layer.node: layer for layer in layers}
    weights = graphs.constants(result)
    nodes: list[NodeProto] = []
    added: list[onnx.TensorProto] = []
    done: dict[str, str] = {}

    def constant(name: str, value: npt.NDArray[np.generic]) -> str:
        added.append(numpy_helper.from_array(value, name))
        return name

    for node in result.graph.node:
        layer = wanted.get(node.name)
        if layer is not None:
            limit = limits.get(layer.activation, float("nan"))
            if not (np.isfinite(limit) and limit / LEVELS < np.finfo(np.float16).max):
                raise ModelError(
                    f"{layer.activation}, which {layer.node} reads, was measured as {limit}; expected a finite range",
                    hint="calibrate on photos that the FP32 model answers, and leave this layer in FP16",
                )
            if layer.activation not in done:
                base = f"{layer.activation}/int8"
                scale = constant(f"{base}/scale", np.asarray(activation_scale(limit), np.float32))
                zero = constant(f"{base}/zero", np.array(0, np.int8))
                inputs = [layer.activation, scale, zero]
                nodes.append(helper.make_node("QuantizeLinear", inputs, [base], name=f"{base}/quantize"))
                out = f"{base}/back"
                nodes.append(helper.make_node("DequantizeLinear", [base, scale, zero], [out], name=f"{base}/back"))
                done[layer.activation] = out
            key = f"{layer.weight}/{layer.axis}"
            if key not in done:
                value = numpy_helper.to_array(weights[layer.weight]).astype(np.float32)
                steps = weight_scales(value, layer.axis).astype(np.float32)
                sides = [-1 if i == layer.axis else 1 for i in range(value.ndim)]
                whole = np.clip(np.round(value / steps.reshape(sides)), -LEVELS, LEVELS).astype(np.int8)
                base = f"{layer.weight}/int8" + ("" if layer.axis == 0 else f"/{layer.axis}")
                inputs = [
                    constant(base, whole),
                    constant(f"{base}/scale", steps),
                    constant(f"{base}/zero", np.zeros(len(steps), np.int8)),
                ]
                out = f"{base}/back"
                nodes.append(helper.make_node("DequantizeLinear", inputs, [out], name=out, axis=layer.axis))
                done[key] = out
            graphs.rename_inputs(node, {layer.activation: done[layer.activation], layer.weight: done[key]})
        nodes.append(node)
    result.graph.initializer.extend(added)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    graphs.drop_unused(result)
    return result


def ranges_after(model: onnx.ModelProto, layers: Collection[Layer], largest: Mapping[str, float]) -> dict[str, float]:
    """`largest` for the tensors of the quantised graph too: what comes back from INT8 is as large as what went in."""
    weights = graphs.constants(model)
    found = dict(largest)
    for layer in layers:
        if layer.activation in largest:
            found[f"{layer.activation}/int8/back"] = largest[layer.activation]
        base = f"{layer.weight}/int8" + ("" if layer.axis == 0 else f"/{layer.axis}")
        found[f"{base}/back"] = graphs.largest(weights[layer.weight])
    return found
