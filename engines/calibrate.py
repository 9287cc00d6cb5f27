"""What values flow through a model's graphs on real photos: the FP32 model runs as ever, with reductions read beside.

Photos go through `runtime.transforms` and prompts through `SamModel`, so the graphs see what they will see in service.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from boothsam.engines import graph as graphs
from boothsam.engines.stages import StagedSession
from boothsam.runtime.backends.base import DeviceTensor, Session, TensorSpec
from boothsam.runtime.errors import OptionError
from boothsam.runtime.fidelity import questions
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import FloatArray, Uint8Array
from onnx import TensorProto, helper, numpy_helper

METHODS = ("minmax", "percentile")
PERCENTILE = 99.99
SAMPLES = 2**18  # values kept per tensor over all photos, for percentiles
RANGES = "boothsam/ranges"


@dataclass
class Ranges:
    """Largest absolute value of every float tensor of one graph over all photos; samples of some for percentiles."""

    largest: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[FloatArray]] = field(default_factory=dict)

    def limit(self, tensor: str, method: str = "minmax", percentile: float = PERCENTILE) -> float:
        """Where quantisation should clip a tensor.

        Raises:
            OptionError: another method than METHODS.
        """
        if method == "minmax":
            return self.largest[tensor]
        if method == "percentile":
            return float(np.percentile(np.concatenate(self.samples[tensor]), percentile))
        raise OptionError(f"calibration method {method!r}; expected {' or '.join(METHODS)}", hint="--method minmax")


class RangeSession:
    """One FP32 graph behind the Session protocol, which notes ranges while it answers.

    inputs: whether to note those of the graph too; what joins two parts of one was noted as an output.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        ranges: Ranges,
        *,
        sampled: Collection[str] = (),
        per_run: int = SAMPLES,
        threads: int | None = None,
        inputs: bool = True,
    ) -> None:
        self._ranges = ranges
        types = graphs.element_types(model)
        computed = [name for node in model.graph.node for name in node.output]
        watched = [*(i.name for i in model.graph.input if inputs), *computed]
        self._watched = [name for name in watched if types.get(name) == TensorProto.FLOAT]
        self._per_run = per_run
        counts = graphs.sizes(model) if sampled else {}
        free = [name for name in sampled if counts.get(name) is None]
        if free:
            raise OptionError(f"{free[0]} has sides that vary; only tensors of fixed shape can be sampled")
        self._sampled = {name: counts[name] or 0 for name in self._watched if name in set(sampled)}
        self._session = graphs.open_graph(_instrument(model, self._watched, self._sampled, per_run), threads)
        self.inputs: Mapping[str, TensorSpec] = self._session.inputs
        self.outputs: Mapping[str, TensorSpec] = {n: s for n, s in self._session.outputs.items() if n != RANGES}
        self.device = self._session.device

    def run(self, feeds: Mapping[str, Any | DeviceTensor], keep: Collection[str] = ()) -> dict[str, Any]:
        results = self._session.run(feeds, keep)
        noted, values, at = self._ranges.largest, results[RANGES], 0
        for name in self._watched:
            value = float(values[at])
            # not max(): it would lose a NaN
            noted[name] = value if not value <= noted.get(name, 0.0) else noted.get(name, 0.0)
            at += 1
            if name in self._sampled:
                count = _count(self._sampled[name], self._per_run)
                self._ranges.samples.setdefault(name, []).append(values[at : at + count].copy())
                at += count
        return {name: results[name] for name in self.outputs}

    def close(self) -> None:
        self._session.close()


def _instrument(
    model: onnx.ModelProto, watched: Sequence[str], sampled: Mapping[str, int], per_run: int
) -> onnx.ModelProto:
    """The graph with one more output: per watched tensor its largest absolute value, then samples if it is sampled.

    ONNX Runtime orders nodes depth-first from the last ones back. So that each tensor is reduced as soon as it is there
    and its memory is given back, everything ends in one node, and the reductions are listed from the last tensor to the
    first; in the other order all tensors of the graph would be kept until its end, 6 GB for a MobileSAM.
    """
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    graph = extended.graph
    constants = {"one": [1], "flat": [-1], "from": [0], "to": [2**62], "axis": [0]}
    for key, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), f"{RANGES}/{key}"))
    parts: list[str] = []
    nodes: list[list[onnx.NodeProto]] = []

    def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes[-1].append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    for index, name in enumerate(watched):
        nodes.append([])
        base = f"{RANGES}/{index}"
        absolute = node("Abs", [name], f"{base}/absolute")
        part = node("ReduceMax", [absolute], f"{base}/peak", keepdims=0)
        part = node("Reshape", [part, f"{RANGES}/one"], f"{base}/part")
        if name in sampled:
            step = numpy_helper.from_array(np.array([_step(sampled[name], per_run)], np.int64), f"{base}/step")
            graph.initializer.append(step)
            flat = node("Reshape", [absolute, f"{RANGES}/flat"], f"{base}/flat")
            bounds = [f"{RANGES}/from", f"{RANGES}/to", f"{RANGES}/axis", step.name]
            part = node("Concat", [part, node("Slice", [flat, *bounds], f"{base}/samples")], f"{base}/both", axis=0)
        parts.append(part)
    for group in reversed(nodes):
        graph.node.extend(group)
    graph.node.append(helper.make_node("Concat", parts, [RANGES], name=RANGES, axis=0))
    length = len(parts) + sum(_count(size, per_run) for size in sampled.values())
    graph.output.append(helper.make_tensor_value_info(RANGES, TensorProto.FLOAT, [length]))
    return extended


def _step(size: int, per_run: int) -> int:
    """Every k-th value, k odd: an even one would always meet the same channels of a channels-last tensor."""
    return max(1, size // per_run) | 1


def _count(size: int, per_run: int) -> int:
    return -(-size // _step(size, per_run))


def _session(
    name: str, model: onnx.ModelProto, ranges: Ranges, sampled: Collection[str], per_run: int, threads: int | None
) -> Session:
    """A graph that notes its ranges; the encoder in parts, for every one of its tensors is looked at."""
    if name != "encoder":
        return RangeSession(model, ranges, sampled=sampled, per_run=per_run, threads=threads)
    whole = {value.name for value in model.graph.input}

    def open_part(part: onnx.ModelProto) -> Session:
        arriving = {value.name for value in part.graph.input}
        inside = {tensor for node in part.graph.node for tensor in node.output} | (arriving & whole)
        chosen = [tensor for tensor in sampled if tensor in inside]
        return RangeSession(
            part, ranges, sampled=chosen, per_run=per_run, threads=threads, inputs=bool(arriving & whole)
        )

    return StagedSession(model, open_part)


def calibrate(
    folder: Path,
    photos: Mapping[str, Uint8Array],
    *,
    sampled: Mapping[str, Collection[str]] = MappingProxyType({}),
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Ranges]:
    """Run every graph of a model folder in FP32 on photos and prompts of every kind; graph name -> Ranges.

    sampled: graph name -> tensors of which values are kept too, for percentiles; graphs with fixed shapes only.

    Raises:
        OptionError: no photo. ModelError: files that are altered or no graphs.
    """
    if not photos:
        raise OptionError("calibration needs photos, found none", hint="give a folder with 8 or more of your photos")
    manifest = ModelManifest.load(folder)
    ranges = {name: Ranges() for name in manifest.graphs["fp32"]}
    sessions: dict[str, Session] = {}
    for name, file in manifest.graphs["fp32"].items():
        manifest.check_file(folder, file)
        if f"{file}{graphs.DATA_SUFFIX}" in manifest.files:
            manifest.check_file(folder, f"{file}{graphs.DATA_SUFFIX}")
        model = graphs.read_graph(folder / file)
        per_run = max(1, SAMPLES // len(photos))
        sessions[name] = _session(name, model, ranges[name], sampled.get(name, ()), per_run, threads)
    model_ = SamModel(manifest, sessions, backend="ort-cpu", precision="fp32", reason="calibration")
    try:
        for name, photo in photos.items():
            if progress:
                progress(name)
            embedding = model_.encode(photo)
            first = None
            for kind, prompts in questions(photo).items():
                decoded = model_.decode(embedding, prompts)
                first = decoded.low_res_masks[:, 1:2] if kind == "point" else first
            model_.decode(embedding, questions(photo, first)["mask"])
            embedding.close()
    finally:
        model_.close()
    return ranges
