"""`boothsam export`: from a checkpoint file to a model folder that carries its proof."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from boothsam.export.architectures.config import SamConfig
from boothsam.export.checkpoints import Loaded, load_checkpoint
from boothsam.export.fast_decoder import PREPARED
from boothsam.export.parity import ParityReport, check_parity, drawn_photos
from boothsam.export.to_onnx import export_model
from boothsam.runtime.folders import check_target, fresh_folder
from boothsam.runtime.images import load_image
from boothsam.runtime.manifest import ModelManifest, record_files
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import Uint8Array
from boothsam.runtime.verify import default_cases, write_golden

log = logging.getLogger("boothsam")

BACKEND = "ort-cpu"
NOTICE = """\
{name}: an ONNX export of {what}.

{origin}
Licence of the weights: {licence}. Converted with boothsam; the weights were rearranged, not trained further.
The photos in golden/ are free to use: drawn by boothsam, and a smaller copy of its CC0 demo photo.
"""


def export_checkpoint(
    variant: str | SamConfig | None,
    checkpoint: Path,
    out: Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    verify: bool = True,
    photos: Mapping[str, Uint8Array] | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ModelManifest:
    """Turn a checkpoint into a model folder; either all of it appears at `out`, or nothing does.

    Args:
        variant: as `load_checkpoint` takes it.
        checkpoint: the PyTorch file.
        out: the model folder to make.
        name: the model's name, by default that of the folder.
        licence: of the weights; by default that of the published checkpoint with these bytes, else "unknown".
        verify: prove the graphs against the checkpoint, record golden answers and write the proof.
        photos: (H, W, 3) uint8 RGB by name to prove on; by default drawn ones of four shapes and the demo photo.
        force: replace a model folder that exists.
        progress: called with what is being done now.

    Returns:
        The manifest that was written.

    Raises:
        OutputError: `out` exists, or cannot be written.
        CheckpointError, OptionError, BackendUnavailable: see `load_checkpoint`.
        ParityError: a graph is not valid, or does not answer what the checkpoint answers; nothing is written then.
    """
    step = progress or (lambda what: log.info("%s", what))
    out = out.absolute()
    check_target(out, force)
    proof_photos = (drawn_photos() | {"coffee": _demo_photo()} if photos is None else photos) if verify else None
    step(f"reading {checkpoint}")
    loaded = load_checkpoint(checkpoint, variant)
    with fresh_folder(out) as scratch:
        manifest = _fill(scratch, loaded, name or out.name, licence, proof_photos, step)
    step(f"wrote {out}")
    return manifest


def _fill(
    folder: Path,
    loaded: Loaded,
    name: str,
    licence: str | None,
    photos: Mapping[str, Uint8Array] | None,
    step: Callable[[str], None],
) -> ModelManifest:
    """Everything of the model folder; without photos neither proof nor golden answers."""
    variant = loaded.sam.config.variant
    step(f"tracing {variant} to ONNX and checking the graphs")
    paths = export_model(loaded.sam, folder)
    known = loaded.known
    licence = licence or (known.licence if known else "unknown")
    origin = {
        "checkpoint": loaded.path.name,
        "checkpoint_sha256": loaded.sha256,
        "source": known.url if known else None,
        "config": loaded.sam.config.to_dict(),
        "made_with": _versions(),
    }
    source = f"Source: {known.url}\n" if known else ""
    what = known.name if known else f"a checkpoint of {variant}"
    notice = f"{source}Checkpoint {loaded.path.name}, sha256 {loaded.sha256}."
    (folder / "NOTICE.md").write_text(
        NOTICE.format(name=name, what=what, origin=notice, licence=licence), encoding="utf-8"
    )

    def describe() -> ModelManifest:
        ModelManifest(
            name=name,
            variant=variant,
            licence=licence,
            graphs={"fp32": {graph: path.name for graph, path in paths.items()}},
            embedding=("image_embedding",),
            prepared=PREPARED,
            files=record_files(folder),
            origin=origin,
        ).save(folder)
        return ModelManifest.load(folder)

    manifest = describe()
    if photos is not None:
        model = SamModel.load(folder, backend=BACKEND)
        step("comparing ONNX with PyTorch")
        report = check_parity(loaded.sam, model, photos)
        report.require()
        step(report.summary())
        step("recording golden answers")
        golden = {"drawn": drawn_photos()["landscape"], "coffee": _demo_photo()}
        write_golden(model, folder, golden, default_cases(golden))
        model.close()
        manifest = describe()
        write_proof(folder, manifest, report)
    return manifest


def _demo_photo() -> Uint8Array:
    """The package's CC0 demo photo, every second row and column."""
    return load_image(files("boothsam.runtime.demo").joinpath("coffee.jpg").read_bytes())[::2, ::2].copy()


def write_proof(folder: Path, manifest: ModelManifest, report: ParityReport) -> Path:
    """The parity figures as a sidecar, proof/<sha256 of the encoder>-<backend>.json; the manifest does not list it."""
    graphs = manifest.graphs["fp32"]
    path = folder / "proof" / f"{manifest.files[graphs['encoder']].sha256}-{BACKEND}.json"
    body = {
        "format": 1,
        "kind": "parity with the checkpoint",
        "precision": "fp32",
        "numerics": "device",
        "device": f"{BACKEND}, {platform.machine()}",
        "files": {file: manifest.files[file].sha256 for file in graphs.values()},
        "versions": _versions(),
        "parity": report.to_dict(),
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return path


def _versions() -> dict[str, Any]:
    found = {"python": platform.python_version()}
    for package in ("boothsam", "torch", "onnx", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
