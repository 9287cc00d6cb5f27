"""`boothsam quantize`: from a model folder to a new one that holds reduced precisions too, each with its proof.

No checkpoint is needed: the FP32 graphs of the folder are the source, and the reference.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from boothsam.engines import graph as graphs
from boothsam.engines.calibrate import METHODS, PERCENTILE, Ranges, calibrate
from boothsam.engines.fp16 import Fp16
from boothsam.engines.int8 import Int8
from boothsam.engines.quantize import find_layers
from boothsam.engines.sensitivity import RememberedModel
from boothsam.engines.stages import StagedSession
from boothsam.runtime.backends.base import Session
from boothsam.runtime.errors import ModelError, OptionError, ProofError
from boothsam.runtime.fidelity import Fidelity
from boothsam.runtime.folders import check_target, fresh_folder
from boothsam.runtime.images import encode_image
from boothsam.runtime.manifest import FILE_NAME, ModelManifest, record_files
from boothsam.runtime.model import SamModel
from boothsam.runtime.proofs import write_proof
from boothsam.runtime.transforms import Uint8Array
from boothsam.runtime.worst_cases import worst_cases

PRECISIONS = ("fp16", "int8")
SEARCH_PHOTOS = 4
BACKEND = "ort-cpu"


@dataclass(frozen=True)
class Calibration:
    """Photos and how to use them. photos: to calibrate and search on. proof: to prove on, seen by neither.

    method: "percentile" or "minmax", where INT8 clips activations. percentile: of absolute values. search: how many of
    `photos` the search for what to spare asks again and again.
    """

    photos: Mapping[str, Uint8Array]
    proof: Mapping[str, Uint8Array]
    method: str = "percentile"
    percentile: float = PERCENTILE
    search: int = SEARCH_PHOTOS

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"found the method {self.method!r}; expected {' or '.join(METHODS)}")
        if self.search < 1:
            raise OptionError(f"found {self.search} photos to search with; expected at least 1")
        if not self.photos or not self.proof:
            raise OptionError(
                f"found {len(self.photos)} photos to calibrate on and {len(self.proof)} to prove on; both are needed",
                hint="--calibration FOLDER with six photos or more, or --proof-photos FOLDER beside it",
            )


def add_precisions(
    folder: Path,
    out: Path,
    precisions: Sequence[str],
    calibration: Calibration,
    *,
    name: str | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> tuple[ModelManifest, tuple[Fidelity, ...]]:
    """Write a model folder with everything of `folder` and reduced precisions; all of it appears at `out`, or nothing.

    Args:
        folder: a model folder with FP32 graphs.
        out: the model folder to make; not `folder`, whose manifest never changes.
        precisions: "fp16", "int8" or both; int8 brings fp16 along, whose decoder it uses.
        calibration: see there.
        name: the new model's name, by default the old one's.
        threads: for ONNX Runtime, None for every core this process may use.
        force: replace a model folder that exists.
        progress: called with what is being done now.

    Returns:
        The new manifest, and how each precision compares with FP32 on the proof photos, simulated. One that fails its
        gate is in the folder with its failed proof, so that it can be looked into; nothing loads it.

    Raises:
        OptionError: unknown precisions, or none. OutputError: `out` exists, or cannot be written.
        ModelError: altered files, or a graph that cannot be reduced.
        ProofError: no layer of the encoder can be INT8; fp16 is written all the same.
    """
    wanted = tuple(p for p in PRECISIONS if p in {*precisions, "fp16"})
    if not precisions or set(precisions) - set(PRECISIONS):
        raise OptionError(f"found the precisions {list(precisions)}; expected {', '.join(PRECISIONS)} or both")
    folder, out = folder.absolute(), out.absolute()
    if out == folder:
        raise OptionError(f"{out} is the model to read; its manifest never changes", hint="give another -o")
    check_target(out, force)
    old = ModelManifest.load(folder)
    with fresh_folder(out) as scratch:
        work = _Work(folder, old, calibration, threads, progress or (lambda _what: None))
        manifest, reports = work.fill(scratch, wanted, name or old.name)
    if work.refused is not None:
        raise work.refused
    return manifest, reports


class _Work:
    """One run: the FP32 side is read and measured once for all precisions."""

    def __init__(
        self,
        folder: Path,
        manifest: ModelManifest,
        calibration: Calibration,
        threads: int | None,
        step: Callable[[str], None],
    ) -> None:
        self.folder, self.manifest, self.calibration = folder, manifest, calibration
        self.threads, self.step = threads, step
        self.refused: ProofError | None = None  # what kept INT8 out

    def fill(self, scratch: Path, precisions: Sequence[str], name: str) -> tuple[ModelManifest, tuple[Fidelity, ...]]:
        """Everything of the new folder."""
        self._copy(scratch)
        sources = {g: graphs.read_graph(self.folder / f) for g, f in self.manifest.graphs["fp32"].items()}
        ranges = self._ranges(sources, "int8" in precisions)
        reference = RememberedModel(self._reference(sources))
        search = {n: self.calibration.photos[n] for n in list(self.calibration.photos)[: self.calibration.search]}
        listed = {p: dict(g) for p, g in self.manifest.graphs.items() if p not in precisions}
        reduced: dict[str, Any] = {"calibration_photos": len(self.calibration.photos)}
        fp16 = Fp16(sources, {g: r.largest for g, r in ranges.items()}, reference, self.threads, self.step)
        fp16.search(search)
        reports = []
        for precision in precisions:
            if precision == "fp16":
                models, facts = fp16.graphs, fp16.facts
            else:
                limits = {
                    layer.activation: ranges["encoder"].limit(
                        layer.activation, self.calibration.method, self.calibration.percentile
                    )
                    for layer in find_layers(sources["encoder"])[0]
                }
                int8 = Int8(fp16, limits, self.calibration.method)
                try:
                    int8.search(search)
                except ProofError as error:
                    self.refused = error
                    continue
                models, facts = {"encoder": int8.encoder}, {"encoder": int8.facts}
            self.step(f"{precision}: proving on {len(self.calibration.proof)} other photos")
            candidate = fp16.model() if precision == "fp16" else int8.model()
            report = fp16.compare(candidate, self.calibration.proof)
            reports.append(report)
            files = self._write(scratch, precision, models, facts)
            listed[precision] = dict(listed.get("fp16", {})) | files
            reduced[precision] = {graph: _counts(f) for graph, f in facts.items()}
        manifest = replace(
            self.manifest,
            name=name,
            graphs=listed,
            files=record_files(scratch),
            origin={**self.manifest.origin, "reduced": reduced},
        )
        manifest.save(scratch)
        for report in reports:
            extra = {"against": report.against, "method": self.calibration.method}
            path = write_proof(scratch, manifest, report, photos=self.calibration.proof, extra=extra)
            picture = worst_cases(report, self.calibration.proof)
            path.with_name(f"worst-{report.precision}.png").write_bytes(encode_image(picture, "png"))
        reference.close()
        return manifest, tuple(reports)

    def _copy(self, scratch: Path) -> None:
        """All files that the manifest lists, hash-checked, and the proofs that came with them."""
        for file in self.manifest.files:
            self.manifest.check_file(self.folder, file)
            target = scratch / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / file, target)
        if (self.folder / "proof").is_dir():
            shutil.copytree(self.folder / "proof", scratch / "proof")
        if FILE_NAME in self.manifest.files:
            raise ModelError(f"{self.folder} lists its own manifest", hint="export the model again")

    def _reference(self, sources: Mapping[str, onnx.ModelProto]) -> SamModel:
        """The FP32 model, hash-checked when it was copied; its encoder in parts, as everything it is compared with."""
        sessions: dict[str, Session] = {
            name: StagedSession(model, lambda part: graphs.open_graph(part, self.threads))
            if name == "encoder"
            else graphs.open_graph(model, self.threads)
            for name, model in sources.items()
        }
        return SamModel(self.manifest, sessions, backend=BACKEND, precision="fp32", reason="what the rest is held to")

    def _ranges(self, sources: Mapping[str, onnx.ModelProto], sample: bool) -> dict[str, Ranges]:
        percentile = sample and self.calibration.method == "percentile"
        layers = find_layers(sources["encoder"])[0] if percentile else ()
        count = len(self.calibration.photos)
        return calibrate(
            self.folder,
            self.calibration.photos,
            sampled={"encoder": [layer.activation for layer in layers]},
            threads=self.threads,
            progress=lambda photo: self.step(f"measuring ranges on {count} photos: {photo}"),
        )

    def _write(
        self, scratch: Path, precision: str, models: Mapping[str, onnx.ModelProto], facts: Mapping[str, Any]
    ) -> dict[str, str]:
        """The graphs, and beside each a JSON that says what was decided and why; graph name -> file name."""
        files = {}
        for graph, model in models.items():
            source = self.manifest.graphs["fp32"][graph]
            files[graph] = f"{graph}.{precision}.onnx"
            graphs.write_graph(model, scratch / files[graph])
            body = {
                "format": 1,
                "graph": graph,
                "precision": precision,
                "from": {"file": source, "sha256": self.manifest.files[source].sha256},
                "calibration_photos": len(self.calibration.photos),
                **facts[graph],
            }
            (scratch / f"{graph}.{precision}.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
        return files


def _counts(facts: Mapping[str, Any]) -> dict[str, int]:
    """Lengths of what the report lists, for the manifest."""
    return {key: len(value) for key, value in facts.items() if isinstance(value, list)}
