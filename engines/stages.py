"""A large graph run in parts, one after the other: less memory at a time, and nothing unchanged is computed again.

A part ends where a single tensor carries all that comes after: behind each block of a transformer. Each part is a graph
of its own, made when it is needed, so that nothing holds the weights of all of them but the graph they come from.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import onnx
from boothsam.engines import graph as graphs
from boothsam.runtime.backends.base import DeviceTensor, Session, TensorSpec, check_feeds
from boothsam.runtime.errors import TensorError
from onnx import NodeProto

PARTS = 12
REMEMBERED_BYTES = 1 << 30


class Parts:
    """`model` cut into at most `most` graphs; `count` of them, made by `part`."""

    def __init__(self, model: onnx.ModelProto, most: int = PARTS) -> None:
        self._model = model
        self._weights = graphs.constants(model)
        inferred = graphs.infer(model).graph
        self._values = {v.name: v for v in (*inferred.input, *inferred.value_info, *inferred.output)}
        self._ends = _ends(model, set(self._weights), most)

    @property
    def count(self) -> int:
        """Parts; 1 for a graph that cannot be cut."""
        return len(self._ends)

    def nodes(self, index: int) -> list[NodeProto]:
        """The nodes of a part."""
        first = self._ends[index - 1] if index else 0
        return list(self._model.graph.node[first : self._ends[index]])

    def part(self, index: int) -> onnx.ModelProto:
        """One part: its inputs and outputs are the whole graph's, or the tensor that joins it to its neighbour."""
        nodes = self.nodes(index)
        made = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in node.input if name}
        later = {n for k in range(index + 1, self.count) for node in self.nodes(k) for n in node.input}
        leaving = {value.name for value in self._model.graph.output}
        graph = onnx.GraphProto(name=f"{self._model.graph.name}/{index}")
        graph.node.extend(nodes)
        graph.input.extend(self._values[n] for n in sorted(read - made - set(self._weights)))
        graph.output.extend(self._values[n] for n in sorted(made & (later | leaving)))
        graph.initializer.extend(tensor for name, tensor in self._weights.items() if name in read)
        return onnx.ModelProto(ir_version=self._model.ir_version, opset_import=self._model.opset_import, graph=graph)


def _ends(model: onnx.ModelProto, weights: Collection[str], most: int) -> list[int]:
    """Behind which nodes to cut: where one tensor is all that later nodes read, parts of about as many nodes each."""
    nodes = model.graph.node
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        last.update(dict.fromkeys((n for n in node.input if n and n not in weights), index))
    last.update({value.name: len(nodes) for value in model.graph.output})
    alive = {value.name for value in model.graph.input if value.name in last}
    narrow: list[int] = []
    for index, node in enumerate(nodes[:-1]):
        alive |= {name for name in node.output if name in last}
        alive = {name for name in alive if last[name] > index}
        if len(alive) == 1 and alive <= set(node.output):
            narrow.append(index + 1)
    wanted = [round(k * len(nodes) / most) for k in range(1, most)]
    return [*sorted({min(narrow, key=lambda end: abs(end - w)) for w in wanted} if narrow else ()), len(nodes)]


class Memory:
    """What parts gave, by what they are and what they were fed; the least recently used is forgotten first."""

    def __init__(self, most_bytes: int = REMEMBERED_BYTES) -> None:
        self.most_bytes, self.hits = most_bytes, 0
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """What is held."""
        return sum(value.nbytes for kept in self._kept.values() for value in kept.values())

    def get(self, key: str) -> dict[str, Any] | None:
        """The outputs kept under a key."""
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Keep the outputs of a part."""
        self._kept[key] = outputs
        while self.nbytes > self.most_bytes:
            self._kept.popitem(last=False)


class StagedSession:
    """A graph behind the Session protocol, run in parts.

    open_part: a part -> a session over it. One is open at a time: ONNX Runtime never gives back what a session once
    needed, and twelve of a vit_b took 16 GB. memory: shared by sessions over graphs that differ in some parts only;
    what comes before the first part that differs is then computed once per input.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        open_part: Callable[[onnx.ModelProto], Session],
        *,
        most: int = PARTS,
        memory: Memory | None = None,
    ) -> None:
        self._parts, self._open_part, self._memory = Parts(model, most), open_part, memory
        self._digests: dict[int, str] = {}
        self._closed = False
        self.inputs: Mapping[str, TensorSpec] = {v.name: _spec(v) for v in model.graph.input}
        self.outputs: Mapping[str, TensorSpec] = {v.name: _spec(v) for v in model.graph.output}
        self.device = "ort:cpu"

    def run(self, feeds: Mapping[str, Any | DeviceTensor], keep: Collection[str] = ()) -> dict[str, Any]:
        if self._closed:
            raise TensorError("this session was closed")
        check_feeds(self.inputs, self.outputs, feeds, keep, self.device)
        found: dict[str, Any] = dict(feeds)
        key = _digest_of(feeds) if self._memory else ""
        for index in range(self._parts.count):
            kept = None
            if self._memory:
                key = hashlib.sha256(f"{key} {self._digest(index)}".encode()).hexdigest()
                kept = self._memory.get(key)
            outputs = self._run_part(index, found, keep) if kept is None else kept
            # what stays on a device belongs to the caller, who closes it
            if self._memory and kept is None and not set(keep) & set(outputs):
                self._memory.put(key, outputs)
            found = {n: v for n, v in found.items() if n in feeds or n in self.outputs} | outputs
        # copies: the caller owns its results, and what is remembered must not change
        return {n: found[n].copy() if isinstance(found[n], np.ndarray) else found[n] for n in self.outputs}

    def close(self) -> None:
        self._closed = True

    def _run_part(self, index: int, values: Mapping[str, Any], keep: Collection[str]) -> dict[str, Any]:
        session = self._open_part(self._parts.part(index))
        try:
            feeds = {name: values[name] for name in session.inputs}
            return session.run(feeds, [name for name in keep if name in session.outputs])
        finally:
            session.close()

    def _digest(self, index: int) -> str:
        if index not in self._digests:
            part = self._parts.part(index).SerializeToString(deterministic=True)
            self._digests[index] = hashlib.sha256(part).hexdigest()
        return self._digests[index]


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    sides = tuple(side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim)
    return TensorSpec(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), sides)


def _digest_of(feeds: Mapping[str, Any | DeviceTensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(feeds):
        value = feeds[name]
        array = np.ascontiguousarray(value if isinstance(value, np.ndarray) else value.numpy())
        whole.update(f"{name} {array.dtype} {array.shape} ".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()
