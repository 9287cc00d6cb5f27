"""The encoder to INT8: which layers bear it, and the graph with those quantised and the rest in FP16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from boothsam.engines.fp16 import SPARED, Fp16
from boothsam.engines.islands import Island, choose_islands
from boothsam.engines.precision import to_fp16
from boothsam.engines.quantize import find_layers, quantize, ranges_after
from boothsam.engines.sensitivity import Group, fewest_spared, group_layers, measure_groups
from boothsam.engines.simulate import BACKEND, simulated_encoder
from boothsam.runtime.backends.base import Session
from boothsam.runtime.errors import ProofError
from boothsam.runtime.fidelity import Fidelity
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import Uint8Array


class Int8:
    """One encoder's layers, calibrated; the decoders are `fp16`'s.

    limits: activation tensor -> where it is clipped. method: how those were found, for the report.
    """

    def __init__(self, fp16: Fp16, limits: Mapping[str, float], method: str) -> None:
        self.fp16, self.limits, self.method = fp16, limits, method
        self.source = fp16.sources["encoder"]
        self.layers, self.skipped = find_layers(self.source)
        self.lowered: tuple[str, ...] = tuple(layer.node for layer in self.layers)
        self.groups: tuple[Group, ...] = ()
        self.islands: tuple[Island, ...] = ()
        self._session: Session | None = None

    @property
    def encoder(self) -> onnx.ModelProto:
        """The graph with the layers chosen so far in INT8."""
        chosen = [layer for layer in self.layers if layer.node in set(self.lowered)]
        low = quantize(self.source, chosen, self.limits)
        largest = ranges_after(self.source, chosen, self.fp16.largest["encoder"])
        spared = {island.node: island for island in self.fp16.islands["encoder"] if island.reason == SPARED}
        found = {island.node: island for island in choose_islands(low, largest)} | spared
        self.islands = tuple(found[n.name] for n in low.graph.node if n.name in found)
        return to_fp16(low, found)

    @property
    def facts(self) -> dict[str, Any]:
        """What is INT8, what is not and why, and what each group loses alone, for the report."""
        chosen = set(self.lowered)
        return {
            "method": self.method,
            "nodes": len(self.source.graph.node),
            "quantised": [
                {"node": la.node, "op": la.op, "clipped_at": self.limits[la.activation]}
                for la in self.layers
                if la.node in chosen
            ],
            "spared": [la.node for la in self.layers if la.node not in chosen],
            "never": [{"node": s.node, "op": s.op, "reason": s.reason} for s in self.skipped],
            "groups": [group.to_dict() for group in self.groups],
            "islands": [island.to_dict() for island in self.islands],
        }

    def model(self) -> SamModel:
        """Everything in the simulator as a model."""
        if self._session is None:
            self._session = simulated_encoder(self.encoder, self.fp16.threads, self.fp16.memory)
        return self._with(self._session, self.fp16.sessions())

    def _with(self, encoder: Session, others: Mapping[str, Session]) -> SamModel:
        manifest = self.fp16.reference.manifest
        sessions = {**others, "encoder": encoder}
        return SamModel(manifest, sessions, backend=BACKEND, precision="int8", reason="simulated")

    def _alone(self, nodes: Sequence[str], photos: Mapping[str, Uint8Array]) -> Fidelity:
        """Only these layers in INT8 and all else in FP32: what the rounding of FP16 adds is measured elsewhere."""
        chosen = [layer for layer in self.layers if layer.node in set(nodes)]
        session = simulated_encoder(quantize(self.source, chosen, self.limits), self.fp16.threads, self.fp16.memory)
        try:
            return self.fp16.compare(self._with(session, self.fp16.reference.sessions), photos)
        finally:
            session.close()

    def _lower(self, nodes: Sequence[str], photos: Mapping[str, Uint8Array]) -> Fidelity:
        self.lowered = tuple(nodes)
        if self._session is not None:
            self._session.close()
        self._session = None
        return self.fp16.compare(self.model(), photos, searching=True)

    def search(self, photos: Mapping[str, Uint8Array]) -> Fidelity:
        """Measure every group alone, then keep as few as possible in FP16 for the gate to hold on `photos`.

        Raises:
            ProofError: no layer can be lowered, or the gate holds with none.
        """

        def step(what: str) -> None:
            self.fp16.step(f"int8: {what}")

        groups = group_layers([layer.node for layer in self.layers])
        measured = measure_groups(groups, lambda nodes: self._alone(nodes, photos), step)
        self.groups, report = fewest_spared(measured, lambda nodes: self._lower(nodes, photos), step)
        kept = {node for group in self.groups if group.kept for node in group.layers}
        self.lowered = tuple(layer.node for layer in self.layers if layer.node not in kept)
        if not self.lowered:
            figures = report.summary
            raise ProofError(
                f"no layer of this encoder can be INT8: with all of them in FP16 the mean mask IoU is "
                f"{figures.mask_iou_mean:.4f} (gate {report.gate.mean}), with any in INT8 the gate fails",
                hint="--precision fp16 alone, or calibrate on more photos like those of the booth",
            )
        return self._lower(self.lowered, photos)
