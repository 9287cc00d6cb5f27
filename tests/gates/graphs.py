"""What a graph costs, as facts without noise: operators after ONNX Runtime's optimiser, multiplications of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

_COUNTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def operators(graph: Path, scratch: Path) -> Counter[str]:
    """Nodes by operator that are left after the optimisations that hang on no processor (level "extended")."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    options.optimized_model_filepath = str(scratch / f"optimised-{graph.name}")
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def flops(graph: Path, feeds: Mapping[str, np.ndarray[Any, Any]]) -> int:
    """Floating-point operations (2 for each multiplication with its addition) of the convolutions and matrix products
    of one run.

    Shapes are those of a real run, since a prompt's number of points decides them.
    """
    model = onnx.load(graph)
    nodes = [node for node in model.graph.node if node.op_type in _COUNTED]
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = {name for node in nodes for name in (*node.input[:2], node.output[0])} - set(constants) - set(feeds)
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted - present)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = sorted(wanted)
    found = dict(zip(names, session.run(names, dict(feeds)), strict=True)) if names else {}
    shapes = constants | {name: tensor.shape for name, tensor in [*found.items(), *feeds.items()]}
    return sum(_flops(node, shapes) for node in nodes)


def _flops(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    left, right, out = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":  # weights: out channels, in channels of a group, rows, columns
        return 2 * prod(out) * prod(right[1:])
    if node.op_type == "ConvTranspose":  # weights: in channels, out channels of a group, rows, columns
        return 2 * prod(left) * prod(right[1:])
    if node.op_type == "Gemm":
        turned = next((attribute.i for attribute in node.attribute if attribute.name == "transA"), 0)
        return 2 * prod(out) * left[0 if turned else 1]
    return 2 * prod(out) * left[-1]
