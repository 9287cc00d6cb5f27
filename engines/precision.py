"""FP32 graph to mixed FP16 graph: every tensor that may be float16 is, but for the nodes named as islands.

Precision lives in the graph alone: casts stand where an island begins and ends, weights are stored in the type of the
node that reads them, inputs and outputs stay float32. The result is strongly typed, so every TensorRT from 10.3 on
builds it as it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from boothsam.engines import graph as graphs
from onnx import NodeProto, TensorProto, helper, numpy_helper

FP16_MAX = float(np.finfo(np.float16).max)  # 65504
FP16_TINY = float(np.finfo(np.float16).tiny)  # smallest normal number, 6.1e-5
FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
_ALLOWED = "tensor(float16)"


def converted_slots(node: NodeProto) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Which inputs and which outputs of a node turn to float16 with it, by the operator's schema.

    What has a type of its own (the scales of Resize are always float32) or shares one that has no float16 stays.
    """
    schema = onnx.defs.get_schema(node.op_type, graphs.OPSET, "")
    open_types = {c.type_param_str for c in schema.type_constraints if _ALLOWED in c.allowed_type_strs}
    if node.op_type == "Resize":
        open_types -= {"T2"}  # the region of interest: unused by SAM, and TensorRT reads it on the host

    def slots(formal: list[onnx.defs.OpSchema.FormalParameter], count: int) -> tuple[bool, ...]:
        return tuple(formal[min(i, len(formal) - 1)].type_str in open_types for i in range(count))

    return slots(list(schema.inputs), len(node.input)), slots(list(schema.outputs), len(node.output))


def is_reduced(model: onnx.ModelProto) -> bool:
    """Whether a graph holds float16 already."""
    return FLOAT16 in graphs.element_types(model).values()


def can_convert(node: NodeProto, types: Mapping[str, int]) -> bool:
    """Whether float16 would change this node at all."""
    takes, gives = converted_slots(node)
    pairs = [*zip(takes, node.input, strict=True), *zip(gives, node.output, strict=True)]
    return any(slot and types.get(name) == FLOAT for slot, name in pairs)


def to_fp16(model: onnx.ModelProto, islands: Collection[str] = ()) -> onnx.ModelProto:
    """The mixed graph; a graph that holds float16 already is returned as it is, so twice is once.

    Args:
        model: FP32, as `graph.read_graph` gives it. Not changed.
        islands: names of the nodes that stay FP32. Without any it is plain FP16, which is for showing why not.

    Returns:
        A new graph with the same inputs and outputs, names, types and shapes; the same for the same arguments.
    """
    if is_reduced(model):
        result = onnx.ModelProto()
        result.CopyFrom(model)
        return result
    return _Caster(model, frozenset(islands)).run()


class _Caster:
    """One conversion. Only weights that stay as they are get copied: a model may be half of the memory there is."""

    def __init__(self, source: onnx.ModelProto, islands: frozenset[str]) -> None:
        self.source, self.model = source, graphs.skeleton(source)
        self.islands = islands
        self.types = graphs.element_types(source)
        self.weights = graphs.constants(source)
        self.lowered: list[TensorProto] = []
        self.outputs = {output.name for output in source.graph.output}
        # where a float tensor lies in each type: (name in the FP32 graph, type) -> name now
        self.places: dict[tuple[str, int], str] = {(i.name, FLOAT): i.name for i in source.graph.input}
        self.nodes: list[NodeProto] = []

    def run(self) -> onnx.ModelProto:
        """The mixed graph."""
        for node in list(self.model.graph.node):
            low = node.name not in self.islands and can_convert(node, self.types)
            takes, gives = converted_slots(node)
            for index, name in enumerate(node.input):
                if self.types.get(name) == FLOAT:
                    node.input[index] = self._place(name, FLOAT16 if low and takes[index] else FLOAT)
            for index, name in enumerate(node.output):
                if self.types.get(name) != FLOAT:
                    continue
                kind = FLOAT16 if low and gives[index] else FLOAT
                # an output of the graph keeps its name for the float32 tensor that leaves it
                place = f"{name}/fp16" if kind == FLOAT16 and name in self.outputs else name
                node.output[index] = place
                self.places[name, kind] = place
                if kind == FLOAT16:
                    _retype(node)
            self.nodes.append(node)
        for name in sorted(self.outputs):
            if self.types[name] == FLOAT:
                self._place(name, FLOAT)
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        self.model.graph.initializer.extend(graphs.read_constants(self.model, self.source))
        self.model.graph.initializer.extend(self.lowered)
        return self.model

    def _place(self, name: str, kind: int) -> str:
        """The name of a float tensor in the wanted type, cast or stored anew where there is none yet."""
        if (name, kind) in self.places:
            return self.places[name, kind]
        if name in self.weights:
            place = name if kind == FLOAT else f"{name}/fp16"
            if kind == FLOAT16:
                with np.errstate(over="ignore"):  # plain FP16 may lose a weight to infinity: that is its defect
                    value = numpy_helper.to_array(self.weights[name]).astype(np.float16)
                self.lowered.append(numpy_helper.from_array(value, place))
        else:
            have = FLOAT16 if kind == FLOAT else FLOAT
            suffix = "fp16" if kind == FLOAT16 else "fp32"
            place = name if kind == FLOAT and name in self.outputs else f"{name}/{suffix}"
            self.nodes.append(
                helper.make_node("Cast", [self.places[name, have]], [place], name=f"{name}/to_{suffix}", to=kind)
            )
        self.places[name, kind] = place
        return place


def _retype(node: NodeProto) -> None:
    """Let what a node declares about its output say float16, in place."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to":
            attribute.i = FLOAT16
        elif node.op_type == "ConstantOfShape" and attribute.name == "value":
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))
