"""Which layers can be lowered: the loss of each group alone, and the fewest groups to spare so that a gate holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from boothsam.runtime.backends.ort import OrtTensor
from boothsam.runtime.fidelity import Fidelity
from boothsam.runtime.model import ImageEmbedding, SamModel
from boothsam.runtime.transforms import Uint8Array

MOST_GROUPS = 16  # each costs an encoder run per photo


@dataclass(frozen=True)
class Group:
    """Layers that are lowered or spared together. lost: mean mask IoU lost when only they are lowered."""

    name: str
    layers: tuple[str, ...]
    lost: float | None = None
    kept: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"layers": list(self.layers)}


def group_layers(nodes: Sequence[str], most: int = MOST_GROUPS) -> tuple[Group, ...]:
    """Layers by the block that holds them, in the graph's order, neighbours joined until there are at most `most`.

    A node's name is the path of its module, so `/image_encoder/blocks.3/mlp/lin1/MatMul` belongs to `blocks.3/mlp`.
    """
    groups: dict[str, list[str]] = {}
    for node in nodes:
        parts = node.strip("/").split("/")[1:-1]  # without the root and the operator
        groups.setdefault("/".join(parts[:2]) or node.strip("/"), []).append(node)
    items = list(groups.items())
    while len(items) > most:
        at = min(range(len(items) - 1), key=lambda i: len(items[i][1]) + len(items[i + 1][1]))
        (first, a), (second, b) = items[at : at + 2]
        items[at : at + 2] = [(f"{first.split(' to ')[0]} to {second.split(' to ')[-1]}", a + b)]
    return tuple(Group(name, tuple(layers)) for name, layers in items)


class RememberedModel(SamModel):
    """A SamModel that keeps its embeddings, for being asked about the same photos again and again."""

    def __init__(self, model: SamModel) -> None:
        super().__init__(
            model.manifest, model.sessions, backend=model.backend, precision=model.precision, reason=model.reason
        )
        self._kept: dict[str, ImageEmbedding] = {}

    def encode(self, image: Uint8Array) -> ImageEmbedding:
        """As SamModel's; what the caller closes is its own."""
        key = hashlib.sha256(image.tobytes() + repr(image.shape).encode()).hexdigest()
        if key not in self._kept:
            self._kept[key] = super().encode(image)
        kept = self._kept[key]
        tensors = {
            name: OrtTensor(t.value, t.device, t.dtype) for name, t in kept.tensors.items() if isinstance(t, OrtTensor)
        }
        return ImageEmbedding(MappingProxyType(tensors), kept.original_hw, kept.input_hw, kept.model_key)


def measure_groups(
    groups: Sequence[Group],
    lower: Callable[[Sequence[str]], Fidelity],
    progress: Callable[[str], None] | None = None,
) -> tuple[Group, ...]:
    """Each group with the mean mask IoU that is lost when it alone is lowered; `lower` takes node names."""
    found = []
    for index, group in enumerate(groups):
        if progress:
            progress(f"layer group {index + 1} of {len(groups)}, {group.name}")
        found.append(replace(group, lost=1.0 - lower(group.layers).summary.mask_iou_mean))
    return tuple(found)


def fewest_spared(
    groups: Sequence[Group],
    lower: Callable[[Sequence[str]], Fidelity],
    progress: Callable[[str], None] | None = None,
) -> tuple[tuple[Group, ...], Fidelity]:
    """Spare the groups that lose most, as few as let the gate hold, found by bisection over their order.

    groups: measured, or not measured where sparing none might do.
    lower: node names to lower -> how that compares; called with none of them at the very end of the search.

    Returns:
        The groups, those spared marked as kept, and the comparison. When even lowering nothing fails, or nothing may be
        lowered, every group is kept; the caller decides what that means.
    """
    order = sorted(range(len(groups)), key=lambda i: (-(groups[i].lost or 0.0), i))

    def spare(count: int) -> Fidelity:
        if progress:
            progress(f"sparing {count} of {len(groups)} groups")
        kept = set(order[:count])
        return lower([node for i, group in enumerate(groups) if i not in kept for node in group.layers])

    low, high = 0, len(groups)
    reports = {low: spare(low)}
    if reports[low].passed:
        high = low
    while high - low > 1:
        middle = (low + high) // 2
        reports[middle] = spare(middle)
        low, high = (low, middle) if reports[middle].passed else (middle, high)
    if high not in reports:
        reports[high] = spare(high)
    kept = set(order[:high])
    return tuple(replace(group, kept=i in kept) for i, group in enumerate(groups)), reports[high]
