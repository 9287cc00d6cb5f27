"""What a model folder holds: one immutable manifest beside the graphs.

    mobile_sam/
      manifest.json     this module
      encoder.onnx      image, size_hw -> embedding tensors
      prepare.onnx      optional: embedding tensors -> what else depends on the image alone
      decoder.onnx      embedding and prepared tensors, points -> four masks, four scores
      decoder_mask.onnx the same with mask_input
      golden/           photos, prompts and FP32 logits that prove an installation (see verify.py)

A second precision adds files and an entry under `graphs`; proofs are sidecars and never change the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from boothsam.runtime.errors import IntegrityError, ManifestError

FORMAT = 1
FILE_NAME = "manifest.json"
GRAPHS = ("encoder", "prepare", "decoder", "decoder_mask")
PIXEL_MEAN = (123.675, 116.28, 103.53)  # SAM's, in 0-255 units, RGB
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class FileRecord:
    """Size and hash of one file of the model folder."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class ModelManifest:
    """Facts about one model. Frozen: whatever is learned later (proofs, timings) lies in files beside it.

    graphs: precision ("fp32", "fp16", "int8") -> graph name (one of GRAPHS) -> file name.
    embedding: names of the encoder's outputs, `image_embedding` first.
    prepared: names of prepare's outputs, empty without such a graph.
    files: every file of the folder but the manifest, relative path with "/" -> size and sha256.
    origin: where the weights come from (checkpoint name, sha256, source, tool versions), for people.
    """

    name: str
    variant: str
    licence: str
    graphs: Mapping[str, Mapping[str, str]]
    embedding: tuple[str, ...]
    files: Mapping[str, FileRecord]
    prepared: tuple[str, ...] = ()
    image_size: int = 1024
    mask_size: int = 256
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    pixel_std: tuple[float, ...] = PIXEL_STD
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graphs = {precision: MappingProxyType(dict(files)) for precision, files in self.graphs.items()}
        for name, value in (("graphs", graphs), ("files", dict(self.files)), ("origin", dict(self.origin))):
            object.__setattr__(self, name, MappingProxyType(value))
        for precision, listed in self.graphs.items():
            unknown = set(listed) - set(GRAPHS)
            missing = {"encoder", "decoder", "decoder_mask"} - set(listed)
            if unknown or missing:
                raise ManifestError(
                    f"precision {precision!r} lists the graphs {sorted(listed)}; "
                    "expected encoder, decoder, decoder_mask and optionally prepare"
                )
            for file in listed.values():
                if file not in self.files:
                    raise ManifestError(f"the graph {file!r} of precision {precision!r} is not among its files")
        if not self.graphs or "image_embedding" not in self.embedding:
            raise ManifestError("a manifest needs at least one precision and an embedding tensor `image_embedding`")

    @property
    def key(self) -> str:
        """Sixteen hex digits that name these exact weights: sha256 over the names and hashes of all graph files."""
        graphs = sorted({file for files in self.graphs.values() for file in files.values()})
        return hashlib.sha256("".join(f"{f}:{self.files[f].sha256};" for f in graphs).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The manifest as text, stable for the same content."""
        body = {
            "format": FORMAT,
            "name": self.name,
            "variant": self.variant,
            "licence": self.licence,
            "image_size": self.image_size,
            "mask_size": self.mask_size,
            "pixel_mean": list(self.pixel_mean),
            "pixel_std": list(self.pixel_std),
            "embedding": list(self.embedding),
            "prepared": list(self.prepared),
            "graphs": {p: dict(g) for p, g in self.graphs.items()},
            "files": {n: {"sha256": r.sha256, "bytes": r.bytes} for n, r in sorted(self.files.items())},
            "origin": dict(self.origin),
        }
        return json.dumps(body, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = FILE_NAME) -> ModelManifest:
        """Read a manifest back.

        Raises:
            ManifestError: no JSON, another format number, a missing or ill-typed entry, or a path that leaves the
            folder.
        """
        try:
            body = json.loads(text)
            found = body["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{where} is no model manifest ({error!r})", hint="export or download the model again"
            ) from None
        if found != FORMAT:
            raise ManifestError(
                f"{where} has format {found!r}, this boothsam reads format {FORMAT}",
                hint="export the model again with this version, or upgrade boothsam",
            )
        try:
            files = {n: FileRecord(str(r["sha256"]), int(r["bytes"])) for n, r in body["files"].items()}
            manifest = cls(
                name=str(body["name"]),
                variant=str(body["variant"]),
                licence=str(body["licence"]),
                graphs={p: {str(g): str(f) for g, f in graphs.items()} for p, graphs in body["graphs"].items()},
                embedding=tuple(body["embedding"]),
                prepared=tuple(body["prepared"]),
                files=files,
                image_size=int(body["image_size"]),
                mask_size=int(body["mask_size"]),
                pixel_mean=tuple(float(v) for v in body["pixel_mean"]),
                pixel_std=tuple(float(v) for v in body["pixel_std"]),
                origin=dict(body["origin"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ManifestError):
                raise
            raise ManifestError(
                f"{where} lacks or garbles an entry ({error!r})", hint="export or download the model again"
            ) from None
        for name in files:
            if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
                raise ManifestError(f"{where} lists the file {name!r}, which leaves the model folder")
        return manifest

    @classmethod
    def load(cls, folder: Path) -> ModelManifest:
        """Read `folder`/manifest.json."""
        path = folder / FILE_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(
                f"{folder} is no model folder: {FILE_NAME} cannot be read ({error})",
                hint="boothsam models lists what is installed",
            ) from None
        return cls.from_json(text, where=str(path))

    def save(self, folder: Path) -> Path:
        """Write the manifest into `folder` and return its path."""
        path = folder / FILE_NAME
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    def read_file(self, folder: Path, name: str) -> bytes:
        """The bytes of one listed file, hash-checked: what is checked is what is loaded.

        Raises:
            IntegrityError: the file is missing, truncated or altered.
        """
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise self._missing(folder / name, error) from None
        self._compare(folder / name, name, FileRecord(hashlib.sha256(data).hexdigest(), len(data)))
        return data

    def check_file(self, folder: Path, name: str) -> None:
        """Hash one listed file without holding it in memory: external data may have gigabytes.

        Raises:
            IntegrityError: the file is missing, truncated or altered.
        """
        try:
            found = _record(folder / name)
        except OSError as error:
            raise self._missing(folder / name, error) from None
        self._compare(folder / name, name, found)

    def _missing(self, path: Path, error: OSError) -> IntegrityError:
        return IntegrityError(
            f"model {self.name!r} lacks its file {path} ({error.strerror})",
            hint="export, download or reinstall the model",
        )

    def _compare(self, path: Path, name: str, found: FileRecord) -> None:
        record = self.files[name]
        if found.sha256 != record.sha256:
            raise IntegrityError(
                f"{path} has {found.bytes} bytes with sha256 {found.sha256[:16]}..., the manifest "
                f"records {record.bytes} with {record.sha256[:16]}...: truncated, altered or mixed with another export",
                hint="export, download or reinstall the model",
            )


def _record(path: Path) -> FileRecord:
    """Size and sha256 of a file, read in blocks."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return FileRecord(digest.hexdigest(), size)


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Size and sha256 of every file under `folder` except the manifest and proofs."""
    records = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            path.is_file()
            and name != FILE_NAME
            and not name.startswith(("proof/", "__pycache__/"))
            and path.suffix != ".py"
        ):
            records[name] = _record(path)
    return records
