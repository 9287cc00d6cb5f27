"""What a built engine computes in, layer by layer, against what the graph asked for.

A strongly typed network cannot change a layer's type. That the wrong graph, a weakly typed build or a parser that fell
back made an FP32 engine out of an FP16 order has happened to others without a word; so it is counted, twice: in the
network as parsed (anywhere), and by the engine inspector in what was built (on the device). The inspector's count is
recorded and decides nothing: a graph that was fused into one node shows its FP32 inputs and outputs only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from boothsam.engines.trt_adapter import QUANTIZE, Layer
from boothsam.runtime.errors import EngineError

# An engine holds kernels too: under so many bytes of weights its size says nothing.
TELLING_WEIGHTS = 32 << 20
MOST_SIZE_RATIO = 0.75
_WORDS = {"Half": "fp16", "FP16": "fp16", "Float": "fp32", "FP32": "fp32", "Int8": "int8", "INT8": "int8"}


@dataclass(frozen=True)
class Audit:
    """parsed: mixing layers of the network by type. quantised: its tensors that are made INT8. silent: mixing layers in
    FP32 that no island explains. built: tensors of the engine by type, None where no inspector ran. size_ratio: engine
    bytes to those of the weights in FP32; None where the weights are too small to tell.
    """

    precision: str
    parsed: Mapping[str, int]
    quantised: int
    silent: tuple[str, ...]
    built: Mapping[str, int] | None
    size_ratio: float | None
    failures: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def require(self) -> None:
        """Raise what was found.

        Raises:
            EngineError: the engine is not what the graph asks for.
        """
        if self.failures:
            raise EngineError(
                f"the engine is no {self.precision} engine: {'; '.join(self.failures)}",
                hint="report this with the output of boothsam doctor --report",
            )


def audit(
    precision: str,
    layers: Sequence[Layer],
    islands: Sequence[str],
    *,
    expect_int8: bool = False,
    engine_bytes: int,
    fp32_bytes: int,
    inspected: Sequence[Mapping[str, Any]] | None,
) -> Audit:
    """Judge one engine.

    layers: of the parsed network. islands: names of the graph's nodes that stay FP32 on purpose. expect_int8: whether
    the graph has quantised layers. fp32_bytes: size of the graph's FP32 file, 0 where the
    folder has none. inspected: the engine inspector's layers, None without a GPU.
    """
    quantised = sum(layer.kind == QUANTIZE for layer in layers)
    layers = [layer for layer in layers if layer.kind != QUANTIZE]
    parsed = Counter(layer.dtype for layer in layers)
    spared = {layer.name for layer in layers if _is_island(layer.name, set(islands))}
    silent = tuple(layer.name for layer in layers if layer.dtype == "fp32" and layer.name not in spared)
    built = None if inspected is None else _types(inspected)
    ratio = engine_bytes / fp32_bytes if fp32_bytes >= TELLING_WEIGHTS else None
    failures = []
    if precision == "fp32":
        reduced = [layer for layer in layers if layer.dtype != "fp32"]
        if reduced:
            failures.append(f"{len(reduced)} layers compute in less, first {reduced[0].name} in {reduced[0].dtype}")
        return Audit(precision, dict(parsed), quantised, (), built, ratio, tuple(failures))
    if silent:
        failures.append(f"{len(silent)} of {len(layers)} layers compute in FP32 unasked, first {silent[0]}")
    if expect_int8 and not quantised:
        failures.append("nothing in it is made INT8")
    if ratio is not None and not spared and ratio > MOST_SIZE_RATIO:
        failures.append(f"it has {ratio:.2f} of the FP32 weights' bytes (expected {MOST_SIZE_RATIO} or less)")
    return Audit(precision, dict(parsed), quantised, silent, built, ratio, tuple(failures))


def _is_island(layer: str, islands: set[str]) -> bool:
    """TensorRT names a layer like its node, or adds to that."""
    return layer in islands or any(layer.startswith(f"{name}_") or layer.startswith(f"{name} ") for name in islands)


def _types(inspected: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Types of all tensors that the inspector tells, as its versions spell them."""
    found: Counter[str] = Counter()
    for layer in inspected:
        for tensor in (*layer.get("Inputs", ()), *layer.get("Outputs", ())):
            text = str(tensor.get("Format/Datatype", tensor.get("Datatype", "")))
            for word, name in _WORDS.items():
                if word in text:
                    found[name] += 1
                    break
    return dict(found)
