"""Which nodes stay FP32 in an FP16 graph, and why: each with its reason, from the graph and from measured ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import onnx
from boothsam.engines import graph as graphs
from boothsam.engines.precision import FP16_MAX, FP16_TINY, can_convert
from onnx import NodeProto, TensorProto

# Photos that calibration did not see go beyond what it measured; a quarter of float16's largest leaves room.
LIMIT = FP16_MAX / 4
# Below, float16 has fewer than its eleven bits: 2^-24 is its smallest step.
LEAST = 2 * FP16_TINY

_RULES = {
    "LayerNormalization": "normalisation: mean and variance are sums over all channels",
    "InstanceNormalization": "normalisation: mean and variance are sums over all pixels",
    "GroupNormalization": "normalisation: mean and variance are sums over channels and pixels",
    "Softmax": "softmax: exponentials and their sum",
    "LogSoftmax": "softmax: exponentials and their sum",
    "Exp": "exponential: part of a softmax or a Gaussian",
    "Log": "logarithm: magnifies what float16 rounded",
    "Pow": "power: leaves float16's range from 256 on",
    "Sqrt": "square root: of a variance",
    "Reciprocal": "reciprocal: of a deviation",
    "ReduceSum": "sum: over more values than float16 can add up",
    "ReduceMean": "sum: a mean is a long one",
    "ReduceSumSquare": "sum: of squares",
    "ReduceL2": "sum: of squares",
    "Sin": "position encoding: an angle of several turns",
    "Cos": "position encoding: an angle of several turns",
}
_COORDINATES = "coordinates: float16 cannot tell neighbouring pixels of a 1024 frame apart"
_PIXELS = "input: pixels are scaled and masked before they are rounded"
# Inputs that are questions or pixels, not features.
_EXACT_INPUTS = {"point_coords": _COORDINATES, "point_labels": _COORDINATES, "image": _PIXELS, "size_hw": _PIXELS}
_MIXERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Island:
    """One node that stays FP32. value: the measured figure behind the reason, None for a rule."""

    node: str
    op: str
    reason: str
    value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def choose_islands(model: onnx.ModelProto, largest: Mapping[str, float]) -> tuple[Island, ...]:
    """The FP32 nodes of one graph in its order.

    Args:
        model: FP32, as `graph.read_graph` gives it.
        largest: tensor -> largest absolute value over calibration photos, of every computed float tensor.

    Returns:
        Nodes that float16 would change and must not: by operator, on the way of coordinates and pixels, with constants
        that float16 cannot hold, with measured values beyond LIMIT or below LEAST, and what lies between such nodes.
    """
    types = graphs.element_types(model)
    candidates = {node.name: node for node in model.graph.node if can_convert(node, types)}
    reasons: dict[str, tuple[str, float | None]] = {}
    on_the_way = exact_paths(model)
    weights = graphs.constants(model)
    for name, node in candidates.items():
        found = (
            _by_range(node, types, largest, weights)
            or _by_operator(node, weights)
            or ((on_the_way[name], None) if name in on_the_way else None)
        )
        if found:
            reasons[name] = found
    _fill_gaps(model, candidates, reasons, types, weights)
    return tuple(Island(n, candidates[n].op_type, *reasons[n]) for n in candidates if n in reasons)


def _by_range(
    node: NodeProto, types: Mapping[str, int], largest: Mapping[str, float], weights: Mapping[str, TensorProto]
) -> tuple[str, float] | None:
    for name in (*node.input, *node.output):
        if types.get(name) != TensorProto.FLOAT:
            continue
        if name in weights:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                continue  # a scale may be subnormal: `quantize` chose it among float16's numbers
            value = graphs.largest(weights[name])
            # as many as there are small numbers in a weight: what matters is its largest
            if value > FP16_MAX or 0 < value < FP16_TINY:
                return f"constant: {name} lies outside float16's normal range", value
        elif name in largest:
            value = largest[name]
            if not value <= LIMIT:
                return f"measured: {name} exceeds {LIMIT:.0f}, a quarter of float16's largest", value
            if 0 < value < LEAST:
                return f"measured: {name} stays below {LEAST:.1g}, where float16 loses its bits", value
    return None


def _by_operator(node: NodeProto, weights: Mapping[str, TensorProto]) -> tuple[str, None] | None:
    if node.op_type in _RULES:
        return _RULES[node.op_type], None
    if node.op_type == "Mul" and node.input[0] == node.input[1] and node.input[0] not in weights:
        return "square: leaves float16's range from 256 on", None
    return None


def exact_paths(model: onnx.ModelProto) -> dict[str, str]:
    """Nodes between an exact input and the first layer that mixes it with features, or the end of its encoding."""
    readers, weights = graphs.consumers(model), graphs.constants(model)
    found: dict[str, str] = {}
    for start, reason in _EXACT_INPUTS.items():
        open_tensors = [start]
        while open_tensors:
            for node in readers.get(open_tensors.pop(), ()):
                if node.name in found:
                    continue
                if node.op_type in _MIXERS and not _leads_to_angles(node, readers, weights):
                    continue
                found[node.name] = reason
                if node.op_type not in ("Sin", "Cos"):
                    open_tensors.extend(node.output)
    return found


def _leads_to_angles(
    node: NodeProto, readers: Mapping[str, list[NodeProto]], weights: Mapping[str, TensorProto]
) -> bool:
    """Whether a product with constants only is scaled into the argument of a sine."""
    if not any(name in weights for name in node.input):
        return False
    after = readers.get(node.output[0], [])
    scaled = [n for first in after if first.op_type == "Mul" for n in readers.get(first.output[0], ())]
    return any(n.op_type in ("Sin", "Cos") for n in (*after, *scaled))


def _fill_gaps(
    model: onnx.ModelProto,
    candidates: Mapping[str, NodeProto],
    reasons: dict[str, tuple[str, float | None]],
    types: Mapping[str, int],
    weights: Mapping[str, TensorProto],
) -> None:
    """Add cheap nodes whose every float neighbour stays FP32, in place: a cast in and out would only cost and round."""
    makers, readers = graphs.producers(model), graphs.consumers(model)
    leaving = {output.name for output in model.graph.output}
    arriving = {value.name for value in model.graph.input}

    def fp32(name: str, node: NodeProto | None) -> bool:
        """Whether a tensor's other end is FP32: an island, a type that never changes, an input or output."""
        if node is None:
            return name in arriving or name in leaving
        return node.name in reasons or node.name not in candidates

    changed = True
    while changed:
        changed = False
        for name, node in candidates.items():
            if name in reasons or node.op_type in _MIXERS:
                continue
            taken = [i for i in node.input if types.get(i) == TensorProto.FLOAT and i not in weights]
            given = [o for o in node.output if types.get(o) == TensorProto.FLOAT]
            inner = [fp32(i, makers.get(i)) for i in taken]
            outer = [fp32(o, n) for o in given for n in readers.get(o, ())]
            outer += [True for o in given if o in leaving]
            if inner and outer and all(inner) and all(outer):
                reasons[name] = "gap: between FP32 nodes, where casts would only round", None
                changed = True
