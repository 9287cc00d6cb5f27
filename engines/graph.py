"""ONNX graphs in memory: reading, constants, element types, checks, and sessions over them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from boothsam.runtime.backends.ort import OrtSession
from boothsam.runtime.errors import ModelError
from onnx import NodeProto, TensorProto, numpy_helper, shape_inference

# Protobuf ends at 2^31 bytes; names and nodes need some of them.
EXTERNAL_DATA_BYTES = 2**31 - 2**24
DATA_SUFFIX = ".data"
OPSET = 19
_SMALL = 1024  # bytes: constants up to here may be shapes, which inference has to read

Array = npt.NDArray[Any]


def read_graph(path: Path) -> onnx.ModelProto:
    """An ONNX file with its external data, every `Constant` node lifted to an initializer.

    Raises:
        ModelError: not ONNX, not opset 19 alone, or two nodes of one name.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's classes share no public base with OSError
        raise ModelError(f"{path} is no ONNX graph ({error})", hint="export the model again") from None
    found = [(o.domain, o.version) for o in model.opset_import]
    if found != [("", OPSET)]:
        raise ModelError(
            f"{path.name} uses the operator sets {found}, expected opset {OPSET} alone", hint="export the model again"
        )
    lift_constants(model)
    names = [node.name for node in model.graph.node]
    if "" in names or len(set(names)) != len(names):
        raise ModelError(f"{path.name} has nodes without a name of their own", hint="export the model again")
    return model


def lift_constants(model: onnx.ModelProto) -> None:
    """Replace `Constant` nodes by initializers, in place: one kind of constant for all that follows."""
    kept: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Constant":
            kept.append(node)
            continue
        (attribute,) = node.attribute
        if attribute.name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(attribute.t)
        else:
            value = onnx.helper.get_attribute_value(attribute)
            dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
            tensor = numpy_helper.from_array(np.asarray(value, dtype))
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def constants(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Initializers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def largest(tensor: TensorProto) -> float:
    """Largest absolute value of a constant; 0 when it is empty."""
    value = np.abs(numpy_helper.to_array(tensor))
    return float(value.max()) if value.size else 0.0


def producers(model: onnx.ModelProto) -> dict[str, NodeProto]:
    """Tensor name -> the node that computes it."""
    return {name: node for node in model.graph.node for name in node.output if name}


def consumers(model: onnx.ModelProto) -> dict[str, list[NodeProto]]:
    """Tensor name -> the nodes that read it, in order."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            if name:
                found.setdefault(name, []).append(node)
    return found


def infer(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with `value_info` of every tensor, under strict type and shape inference; big weights left out.

    Raises:
        ModelError: a type or shape that contradicts another.
    """
    light = onnx.ModelProto()
    light.CopyFrom(_without_weights(model))
    try:
        return shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError) as error:
        raise ModelError(f"the graph {model.graph.name!r} fails strict inference: {error}") from None


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without constants and inferred values: nothing of a large model's size is copied."""
    light = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    return light


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    light = skeleton(model)
    graph = light.graph
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) <= _SMALL:
            graph.initializer.append(tensor)
            continue
        graph.initializer.append(
            TensorProto(
                name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, data_location=TensorProto.EXTERNAL
            )
        )
        graph.initializer[-1].external_data.add(key="location", value="left-out")
    return light


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor name -> ONNX element type of inputs, constants and computed tensors."""
    inferred = infer(model)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    types = {value.name: int(value.type.tensor_type.elem_type) for value in values}
    return types | {tensor.name: int(tensor.data_type) for tensor in model.graph.initializer}


def sizes(model: onnx.ModelProto) -> dict[str, int | None]:
    """Tensor name -> its number of elements, None where a side is free."""
    inferred = infer(model)
    found: dict[str, int | None] = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        sides = value.type.tensor_type.shape.dim
        fixed = all(side.HasField("dim_value") for side in sides)
        found[value.name] = int(np.prod([side.dim_value for side in sides], dtype=np.int64)) if fixed else None
    return found


def read_constants(model: onnx.ModelProto, source: onnx.ModelProto) -> list[TensorProto]:
    """Those initializers of `source`, in its order, that a node of `model` reads or an output gives."""
    used = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    return [tensor for tensor in source.graph.initializer if tensor.name in used]


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove initializers that no node reads and no output gives, in place."""
    used = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def write_graph(model: onnx.ModelProto, path: Path, external_data_bytes: int | None = None) -> None:
    """Write and check a graph: the same model gives the same bytes.

    Weights of more than `external_data_bytes` (default EXTERNAL_DATA_BYTES) go to one file beside it, `path` plus
    DATA_SUFFIX.

    Raises:
        ModelError: not valid ONNX, or types and shapes that contradict each other.
    """
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if weights > (EXTERNAL_DATA_BYTES if external_data_bytes is None else external_data_bytes):
        _save_in_two(model, path)
    else:
        path.write_bytes(model.SerializeToString(deterministic=True))
    check_file(path)


def _save_in_two(model: onnx.ModelProto, path: Path) -> None:
    """The graph and its weights beside it. Of a copy: saving takes the weights out of what it saves."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save_model(copy, path, save_as_external_data=True, location=path.name + DATA_SUFFIX, size_threshold=_SMALL)


def check_file(path: Path) -> None:
    """onnx.checker's full check, and strict shape and type inference with data propagation, of a file.

    Raises:
        ModelError: with the first finding.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
        with tempfile.TemporaryDirectory() as scratch:
            # by path: a graph with its weights may be too large for one message
            shape_inference.infer_shapes_path(str(path), str(Path(scratch) / "inferred.onnx"), True, True, True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise ModelError(f"{path.name} is not valid ONNX: {error}", hint="report this graph as a bug") from None


def open_graph(model: onnx.ModelProto, threads: int | None = None) -> OrtSession:
    """An ONNX Runtime session on the CPU over a graph in memory, with or without more than protobuf's 2 GiB."""
    if model.ByteSize() <= EXTERNAL_DATA_BYTES:
        return OrtSession(model.SerializeToString(), threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        _save_in_two(model, path)
        return OrtSession(path.read_bytes(), threads=threads, external_data=Path(f"{path}{DATA_SUFFIX}"))


def rename_inputs(node: NodeProto, names: Mapping[str, str]) -> None:
    """Let a node read other tensors, in place."""
    for index, name in enumerate(node.input):
        if name in names:
            node.input[index] = names[name]
