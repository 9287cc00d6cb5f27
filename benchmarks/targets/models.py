"""What is measured: MobileSAM (a checkpoint, or seeded weights of the same cost) and the bundled starter."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boothsam.bench.plan import Plan, Subject
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.store import find_model

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Model:
    """A model folder and the PyTorch file of the same weights. seeded: from a rule, not from training."""

    name: str
    folder: Path
    checkpoint: Path
    seeded: bool

    @property
    def manifest(self) -> ModelManifest:
        """Of the folder."""
        return ModelManifest.load(self.folder)

    def facts(self) -> dict[str, Any]:
        """For the JSON: what tells this model from another."""
        return {"variant": self.manifest.variant, "key": self.manifest.key, "seeded": self.seeded}

    def plan(
        self, threads: int, subjects: tuple[Subject, ...], names: tuple[str, ...], peers: str, *, drawn: bool
    ) -> Plan:
        """Of these implementations."""
        folder, checkpoint = str(self.folder), str(self.checkpoint)
        return Plan(folder, checkpoint, self.manifest.variant, self.seeded, threads, subjects, names, peers, drawn)


def starter() -> Model:
    """The bundled model and the checkpoint that it was exported from."""
    return Model("starter", find_model(None), ROOT / "training" / "starter.pt", seeded=False)


def mobile_sam(checkpoint: Path | None, cache: Path = CACHE) -> Model:
    """Exported into the cache when it is not there yet: from the checkpoint, or with seeded weights.

    The folder is named by what made it, so that changed code or another checkpoint exports anew.
    """
    from boothsam.export.folder import export_checkpoint

    code = hashlib.sha256()
    for file in sorted((ROOT / "export").rglob("*.py")):
        code.update(file.read_bytes())
    code.update(checkpoint.read_bytes() if checkpoint else b"seeded")
    name = f"{'mobile_sam' if checkpoint else 'seeded_vit_t'}-{code.hexdigest()[:12]}"
    folder, weights = cache / name, checkpoint or cache / f"{name}.pt"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        if checkpoint is None:
            _seed(weights)
        export_checkpoint("vit_t", weights, folder, licence="none" if checkpoint is None else None, verify=False)
    return Model("mobile_sam", folder, weights, seeded=checkpoint is None)


def _seed(file: Path) -> None:
    """MobileSAM's architecture with weights from a rule: masks with two sides, of nothing in particular."""
    import torch
    from boothsam.export.architectures.sam import build

    from tests.export.deterministic import fill

    sam = build("vit_t")
    fill(sam)
    torch.save(sam.state_dict(), file)
