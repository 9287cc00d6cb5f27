"""A reduced-precision graph executed as hardware would: rounded to float16 after every FP16 node, overflow included.

ONNX Runtime on a CPU computes FP16 nodes in FP32, so it cannot tell whether a graph survives FP16. Here the graph is
rewritten: every tensor is float32 again, and what a float16 node gives goes through a cast to float16 and back, so that
it holds exactly the values that float16 can hold, infinity among them. Sums inside a node (a convolution, a matrix
product, a softmax) are float32, as tensor cores accumulate; quantised layers multiply exact 8-bit integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from boothsam.engines import graph as graphs
from boothsam.engines.stages import Memory, StagedSession
from boothsam.runtime.backends.base import Session
from boothsam.runtime.backends.ort import OrtSession
from boothsam.runtime.errors import BackendUnavailable, ModelError
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.model import SamModel
from onnx import NodeProto, TensorProto, helper, numpy_helper

BACKEND = "simulated"
FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
# These pick or move values, and so give float16 from float16 without rounding.
EXACT = frozenset(
    ("Abs", "Clip", "Concat", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Max", "MaxPool", "Min", "Neg")
    + ("Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose")
    + ("Unsqueeze", "Where")
)


def simulation(model: onnx.ModelProto, *, inner: bool = False) -> onnx.ModelProto:
    """The float32 graph that computes what `model` would on FP16 hardware. `model` is not changed.

    Its inputs and outputs are those of `model`, which must be float32 or integers. A graph without float16 and without
    quantisation comes back as it is, but for names. inner: `model` is a part of a graph; what is float16 or int8 at its
    ends becomes float32 that holds such values.

    Raises:
        ModelError: an input or output in float16, or a quantisation that is not symmetric int8.
    """
    types = graphs.element_types(model)
    for value in (*model.graph.input, *model.graph.output):
        if types[value.name] == FLOAT16 and not inner:
            raise ModelError(
                f"{value.name} of graph {model.graph.name!r} is float16; expected float32 inputs and outputs",
                hint="boothsam quantize MODEL -o FOLDER writes such graphs",
            )
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.value_info[:]
    for value in (*result.graph.input, *result.graph.output):
        if value.type.tensor_type.elem_type in (FLOAT16, TensorProto.INT8):
            value.type.tensor_type.elem_type = FLOAT
    writer = _Writer(result, types)
    for node in model.graph.node:
        writer.add(node)
    for tensor in result.graph.initializer:
        if tensor.data_type == FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    graphs.drop_unused(result)
    return result


class _Writer:
    """Appends the float32 stand-in of each node."""

    def __init__(self, model: onnx.ModelProto, types: Mapping[str, int]) -> None:
        self.graph = model.graph
        self.types = types
        self.weights = graphs.constants(model)

    def add(self, node: NodeProto) -> None:
        if node.op_type == "QuantizeLinear":
            self._quantize(node)
        elif node.op_type == "DequantizeLinear":
            self._dequantize(node)
        elif node.op_type == "Cast" and FLOAT16 in (self.types[node.input[0]], self.types[node.output[0]]):
            self._cast(node)
        else:
            self._compute(node)

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.graph.node.append(helper.make_node(op, inputs, [output], name=f"simulated/{output}", **attributes))
        return output

    def _round(self, source: str, target: str) -> None:
        """Two casts: the only way to the values of float16. `rounding_works` proves that they are carried out."""
        half = self._node("Cast", [source], f"{target}/half", to=FLOAT16)
        self._node("Cast", [half], target, to=FLOAT)

    def _cast(self, node: NodeProto) -> None:
        source, target = node.input[0], node.output[0]
        if self.types[target] != FLOAT16:  # from float16, whose values the source has already
            kind = self.types[target]
            self._node("Cast", [source], target, to=kind)
        elif self.types[source] == FLOAT:
            self._round(source, target)
        else:
            self._round(self._node("Cast", [source], f"{target}/exact", to=FLOAT), target)

    def _compute(self, node: NodeProto) -> None:
        copy = self.graph.node.add()
        copy.CopyFrom(node)
        for attribute in copy.attribute:
            if attribute.name == "value" and attribute.t.data_type == FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
        if node.op_type in EXACT:
            return
        for index, name in enumerate(node.output):
            if name and self.types.get(name) == FLOAT16:
                copy.output[index] = f"{name}/exact"
                self._round(copy.output[index], name)

    def _scale(self, node: NodeProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """The float32 value of the scale, after a check that the zero point is int8 and 0."""
        zeros = numpy_helper.to_array(self.weights[node.input[2]]) if len(node.input) > 2 else None
        if zeros is None or zeros.dtype != np.int8 or zeros.any() or node.input[1] not in self.weights:
            raise ModelError(
                f"{node.name} is not symmetric int8 with a constant scale, which is all that TensorRT takes",
                hint="boothsam quantize MODEL --precision int8 -o FOLDER",
            )
        return numpy_helper.to_array(self.weights[node.input[1]]).astype(np.float32)

    def _constant(self, value: np.ndarray[tuple[int, ...], np.dtype[np.float32]], name: str) -> str:
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _quantize(self, node: NodeProto) -> None:
        target = node.output[0]
        scale = self._constant(self._scale(node), f"{target}/scale")
        low = self._constant(np.array(-128, np.float32), f"{target}/low")
        high = self._constant(np.array(127, np.float32), f"{target}/high")
        steps = self._node("Div", [node.input[0], scale], f"{target}/steps")
        whole = self._node("Round", [steps], f"{target}/whole")  # halves to even, as QuantizeLinear has it
        self._node("Clip", [whole, low, high], target)

    def _dequantize(self, node: NodeProto) -> None:
        """Not rounded to float16: hardware multiplies the integers and applies the scales to the sum."""
        source, target, scale = node.input[0], node.output[0], self._scale(node)
        if source in self.weights:
            steps = numpy_helper.to_array(self.weights[source]).astype(np.float32)
            if scale.ndim:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                scale = scale.reshape([-1 if side == axis % steps.ndim else 1 for side in range(steps.ndim)])
            self._constant(steps * scale, target)
        else:
            self._node("Mul", [source, self._constant(scale, f"{target}/scale")], target)


@lru_cache(maxsize=1)
def rounding_works() -> bool:
    """Whether this ONNX Runtime carries the casts out: x * x / x for 1000 is infinite in float16, and 1000 without."""
    x = np.array([1000.0, 1.0004883, 3.14159, 1e-4], np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], name="square"),
        helper.make_node("Div", ["square", "x"], ["y"], name="y"),
    ]
    nodes = [
        helper.make_node("Cast", ["a"], ["x"], name="in", to=FLOAT16),
        *nodes,
        helper.make_node("Cast", ["y"], ["b"], name="out", to=FLOAT),
    ]
    first, last = (helper.make_tensor_value_info(name, FLOAT, [4]) for name in "ab")
    graph = helper.make_graph(nodes, "check", [first], [last])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", graphs.OPSET)], ir_version=9)
    session = graphs.open_graph(simulation(model), 1)
    found = session.run({"a": x})["b"]
    session.close()
    with np.errstate(over="ignore"):
        low = x.astype(np.float16)
        expected = (low * low / low).astype(np.float32)
    return bool(np.array_equal(found, expected))


def simulated_session(model: onnx.ModelProto, threads: int | None = None) -> OrtSession:
    """A session over `simulation(model)`.

    Raises:
        BackendUnavailable: this ONNX Runtime optimises the rounding away.
    """
    _require_rounding()
    return graphs.open_graph(simulation(model), threads)


def simulated_encoder(
    model: onnx.ModelProto, threads: int | None = None, memory: Memory | None = None
) -> StagedSession:
    """As `simulated_session`, in parts: an encoder may be too large to be held three times over, and a search asks many
    that differ in one block.

    Raises:
        BackendUnavailable: this ONNX Runtime optimises the rounding away.
    """
    _require_rounding()
    return StagedSession(model, lambda part: graphs.open_graph(simulation(part, inner=True), threads), memory=memory)


def _require_rounding() -> None:
    if not rounding_works():
        raise BackendUnavailable(
            "this ONNX Runtime drops casts to float16 and back, so nothing can be simulated with it",
            hint="pip install --upgrade onnxruntime",
        )


def simulated_model(
    folder: Path,
    precision: str,
    *,
    threads: int | None = None,
    reduce: Callable[[str, onnx.ModelProto], onnx.ModelProto] | None = None,
) -> SamModel:
    """A model folder's graphs of one precision in the simulator, as a SamModel.

    reduce: (graph name, FP32 graph) -> the graph to simulate, for trying a precision that the folder does not have.

    Raises:
        ModelError: altered files, or graphs that cannot be simulated.
    """
    manifest = ModelManifest.load(folder)
    source = "fp32" if reduce else precision
    if source not in manifest.graphs:
        raise ModelError(
            f"model {manifest.name!r} has no precision {precision!r}; it has {', '.join(manifest.graphs)}",
            hint=f"boothsam quantize {folder} --precision {precision} --calibration PHOTOS -o FOLDER",
        )
    sessions: dict[str, Session] = {}
    for name, file in manifest.graphs[source].items():
        for part in (file, f"{file}{graphs.DATA_SUFFIX}"):
            if part in manifest.files:
                manifest.check_file(folder, part)
        model = graphs.read_graph(folder / file)
        reduced = reduce(name, model) if reduce else model
        sessions[name] = (
            simulated_encoder(reduced, threads) if name == "encoder" else simulated_session(reduced, threads)
        )
    return SamModel(manifest, sessions, backend=BACKEND, precision=precision, reason="rounded as hardware would")
