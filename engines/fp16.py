"""All graphs of a model to FP16 with islands, and the search for more of them while the gate does not hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from boothsam.engines import graph as graphs
from boothsam.engines.islands import LIMIT, Island, choose_islands
from boothsam.engines.precision import can_convert, to_fp16
from boothsam.engines.sensitivity import Group, fewest_spared, group_layers, measure_groups
from boothsam.engines.simulate import BACKEND, simulated_encoder, simulated_session
from boothsam.engines.stages import Memory
from boothsam.runtime.backends.base import Session
from boothsam.runtime.fidelity import GATES, Fidelity, Gate, measure
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import Uint8Array

SPARED = "sensitivity: the gate did not hold with it in FP16"
SEARCH_SHARE = 0.75  # the rest of the allowed loss is left for photos that the search did not see
AGAINST = "fp32 (ort-cpu)"


class Fp16:
    """FP32 graphs by name, measured ranges, and the mixed graphs made of them.

    reference: the FP32 model that everything is compared with; asked often, so one that remembers its embeddings.
    """

    def __init__(
        self,
        sources: Mapping[str, onnx.ModelProto],
        largest: Mapping[str, Mapping[str, float]],
        reference: SamModel,
        threads: int | None = None,
        step: Callable[[str], None] | None = None,
    ) -> None:
        self.sources, self.largest, self.reference = sources, largest, reference
        self.threads, self.step = threads, step or (lambda _what: None)
        self.islands = {name: choose_islands(model, largest[name]) for name, model in sources.items()}
        self.groups: tuple[Group, ...] = ()
        self.memory = Memory()
        self._sessions: dict[str, Session] = {}
        self._opened: dict[str, tuple[Island, ...]] = {}

    @property
    def graphs(self) -> dict[str, onnx.ModelProto]:
        """The mixed graphs with the islands chosen so far."""
        return {name: self._graph(name) for name in self.sources}

    def _graph(self, name: str) -> onnx.ModelProto:
        return to_fp16(self.sources[name], [island.node for island in self.islands[name]])

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """What is FP32 and why, by graph name, for the reports."""
        return {
            name: {
                "nodes": len(model.graph.node),
                "range_limit": LIMIT,
                "islands": [island.to_dict() for island in self.islands[name]],
                "groups": [g.to_dict() for g in self.groups if g.name.split("/")[0] == name],
            }
            for name, model in self.sources.items()
        }

    def sessions(self) -> dict[str, Session]:
        """The mixed graphs in the simulator; one is opened anew when its islands changed."""
        for name, islands in self.islands.items():
            if self._opened.get(name) != islands:
                if name in self._sessions:
                    self._sessions[name].close()
                graph = self._graph(name)
                self._sessions[name] = (
                    simulated_encoder(graph, self.threads, self.memory)
                    if name == "encoder"
                    else simulated_session(graph, self.threads)
                )
                self._opened[name] = islands
        return self._sessions

    def model(self) -> SamModel:
        """The mixed graphs in the simulator as a model; its sessions are this object's."""
        return SamModel(self.reference.manifest, self.sessions(), backend=BACKEND, precision="fp16", reason="simulated")

    def compare(self, candidate: SamModel, photos: Mapping[str, Uint8Array], *, searching: bool = False) -> Fidelity:
        """A simulated model against the FP32 reference. searching: held to SEARCH_SHARE of the loss that the gate
        allows."""
        gate = GATES[candidate.precision]
        if searching:
            gate = Gate(1 - SEARCH_SHARE * (1 - gate.mean), 1 - SEARCH_SHARE * (1 - gate.p5))
        return measure(candidate, self.reference, photos, against=AGAINST, numerics="simulated", gate=gate)

    def search(self, photos: Mapping[str, Uint8Array]) -> Fidelity:
        """Add islands until the gate holds on `photos`: as few groups of layers as do, those that lose most first."""
        self.step("fp16: comparing with FP32, simulated")
        report = self.compare(self.model(), photos, searching=True)
        if report.passed:
            return report
        chosen = self.islands
        groups = self._groups()

        def lower(nodes: Sequence[str]) -> Fidelity:
            low = set(nodes)
            every = [node for group in groups for node in group.layers]
            self._spare(chosen, [node for node in every if node not in low])
            return self.compare(self.model(), photos, searching=True)

        measured = measure_groups(groups, lower, lambda what: self.step(f"fp16: {what}"))
        self.groups, report = fewest_spared(measured, lower, lambda what: self.step(f"fp16: {what}"))
        self._spare(chosen, [node for group in self.groups if group.kept for node in group.layers])
        return report

    def _groups(self) -> tuple[Group, ...]:
        """The encoder by blocks, every other graph as one; nodes as `graph/node`."""
        found = []
        for name, model in self.sources.items():
            types = graphs.element_types(model)
            islands = {island.node for island in self.islands[name]}
            low = [n.name for n in model.graph.node if n.name not in islands and can_convert(n, types)]
            if name != "encoder":
                found.append(Group(name, tuple(f"{name}:{node}" for node in low)))
                continue
            for group in group_layers(low):
                found.append(Group(f"{name}/{group.name}", tuple(f"{name}:{node}" for node in group.layers)))
        return tuple(found)

    def _spare(self, chosen: Mapping[str, tuple[Island, ...]], nodes: Sequence[str]) -> None:
        """Islands as chosen, and these nodes too."""
        spared = set(nodes)
        islands = {}
        for name, model in self.sources.items():
            known = {island.node: island for island in chosen[name]}
            more = {n.name: Island(n.name, n.op_type, SPARED) for n in model.graph.node if f"{name}:{n.name}" in spared}
            islands[name] = tuple((known | more)[n.name] for n in model.graph.node if n.name in known or n.name in more)
        self.islands = islands
