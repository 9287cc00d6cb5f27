"""Engines on disk: $BOOTHSAM_HOME/engines/<graph>-<key>.engine, each one file that says what it is.

A first line with the format, a line of JSON (the header), then TensorRT's bytes. One file, so that one rename publishes
it whole and a reader never sees half of it or a header of another engine. An engine is code: the folder must belong to
the user and be closed to others, and the bytes must have the sha256 of the header before TensorRT sees them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boothsam.runtime import proofs
from boothsam.runtime.errors import BackendUnavailable, BoothsamError, EngineError, IntegrityError
from boothsam.runtime.store import home

if TYPE_CHECKING:
    from boothsam.runtime.backends.cuda import Device
    from boothsam.runtime.backends.trt_library import TensorRt
    from boothsam.runtime.manifest import ModelManifest

log = logging.getLogger("boothsam")

MAGIC = b"boothsam-engine 1\n"
SUFFIX = ".engine"
MOST_HEADER = 1 << 20  # bytes
_PREFIX = 16  # hex digits of the graph's sha256, and of the key, in a file name


@dataclass(frozen=True)
class Identity:
    """What an engine depends on beside its graph: an engine runs where all of it is the same."""

    library: str
    version: str
    cuda: str
    gpu: str
    compute_capability: str
    multiprocessors: int

    def __str__(self) -> str:
        gpu = f"{self.gpu} (compute capability {self.compute_capability}, {self.multiprocessors} multiprocessors)"
        return f"{self.library} {self.version}, CUDA {self.cuda}, {gpu}"


def identify(tensorrt: TensorRt, device: Device) -> Identity:
    """This machine's."""
    return Identity(
        tensorrt.name,
        tensorrt.version,
        device.cuda_version,
        device.name,
        device.compute_capability,
        device.multiprocessors,
    )


def engine_key(graph: str, identity: Identity, precision: str, profiles: Sequence[Sequence[int]]) -> str:
    """Sixteen hex digits. graph: `graph_sha256`. profiles: (most prompts, most points) of each, empty when static."""
    facts = {"graph": graph, **asdict(identity), "precision": precision, "profiles": [list(p) for p in profiles]}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_PREFIX]


def graph_sha256(model: bytes, external_data: Path | None = None) -> str:
    """What names a graph with its weights: the file's sha256, with external data that of both sha256."""
    own = hashlib.sha256(model).hexdigest()
    if external_data is None:
        return own
    with external_data.open("rb") as file:
        weights = hashlib.sha256()
        while chunk := file.read(1 << 20):
            weights.update(chunk)
    return joined_sha256(own, weights.hexdigest())


def joined_sha256(graph: str, weights: str) -> str:
    """`graph_sha256` of a graph with external data, from the two files' sha256."""
    return hashlib.sha256(f"{graph}:{weights}".encode()).hexdigest()


def listed_sha256(manifest: ModelManifest, file: str) -> str:
    """`graph_sha256` of a model's graph by its manifest, without reading it."""
    own, weights = manifest.files[file].sha256, manifest.files.get(f"{file}.data")
    return own if weights is None else joined_sha256(own, weights.sha256)


def folder() -> Path:
    """Where engines lie; not created here."""
    return home() / "engines"


def file_name(graph: str, key: str) -> str:
    return f"{graph[:_PREFIX]}-{key}{SUFFIX}"


def pack(header: Mapping[str, Any], engine: bytes) -> bytes:
    """The file's bytes; adds the engine's sha256 and size to the header."""
    facts = {**header, "engine_sha256": hashlib.sha256(engine).hexdigest(), "engine_bytes": len(engine)}
    line = json.dumps(facts, allow_nan=False, sort_keys=True).encode() + b"\n"
    if len(line) > MOST_HEADER:
        raise EngineError(f"the engine's header has {len(line)} bytes; expected at most {MOST_HEADER}")
    return MAGIC + line + engine


@dataclass(frozen=True)
class EngineFile:
    """A published engine. header: what `pack` was given, and the engine's sha256 and size."""

    path: Path
    header: Mapping[str, Any]

    @property
    def identity(self) -> Identity:
        return Identity(**self.header["identity"])

    def read(self) -> bytes:
        """TensorRT's bytes, hash-checked: what is checked is what is loaded. A rename in between is no harm.

        Raises:
            IntegrityError: altered, truncated or gone. EngineError: the folder is open to other users.
        """
        check_folder(self.path.parent)
        try:
            data = self.path.read_bytes()
            header, start = _split(data)
        except (OSError, ValueError) as error:
            raise IntegrityError(
                f"the engine {self.path} cannot be read ({error})", hint="boothsam build --force"
            ) from None
        engine = data[start:]
        found = hashlib.sha256(engine).hexdigest()
        if found != header.get("engine_sha256"):
            raise IntegrityError(
                f"the engine {self.path} has sha256 {found[:16]}... and {len(engine)} bytes; its header expects "
                f"{str(header.get('engine_sha256'))[:16]}... and {header.get('engine_bytes')}",
                hint="boothsam build --force",
            )
        return engine


def _split(data: bytes) -> tuple[dict[str, Any], int]:
    """Header and where the engine begins. Raises ValueError for what is no engine file."""
    end = data.find(b"\n", len(MAGIC), len(MAGIC) + MOST_HEADER)
    if not data.startswith(MAGIC) or end < 0:
        raise ValueError("it is no engine file of this format")
    header = json.loads(data[len(MAGIC) : end])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, end + 1


def read_header(path: Path) -> EngineFile:
    """Without reading the engine.

    Raises:
        ValueError, OSError: no engine file, or an unreadable one.
    """
    with path.open("rb") as file:
        header, _ = _split(file.read(len(MAGIC) + MOST_HEADER))
    found = EngineFile(path, header)
    try:
        for entry in ("graph_sha256", "precision", "engine_sha256", "verified"):
            header[entry]
        _ = found.identity
    except (KeyError, TypeError) as error:
        raise ValueError(f"its header lacks or garbles {error}") from None
    return found


def check_folder(place: Path) -> None:
    """Refuse a folder of engines that others may write to: an engine is code.

    Raises:
        EngineError: another owner, or writable for group or others.
    """
    found = place.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EngineError(
            f"{place} belongs to user {found.st_uid} with mode {found.st_mode & 0o777:o}; engines are code, so it must "
            f"belong to user {os.geteuid()} and be writable for nobody else",
            hint=f"chmod 700 {place}",
        )


def published(graph: str | None = None) -> Iterator[EngineFile]:
    """Every readable engine, or those of one graph (`graph_sha256`), newest first; others are logged and left out."""

    def age(path: Path) -> float:
        try:
            return -path.stat().st_mtime
        except OSError:  # replaced just now
            return 0.0

    for path in sorted(folder().glob(f"{graph[:_PREFIX] if graph else ''}*{SUFFIX}"), key=age):
        try:
            found = read_header(path)
        except (OSError, ValueError) as error:
            log.warning("%s is no engine: %s", path, error)
            continue
        if graph is None or found.header["graph_sha256"] == graph:
            yield found


def find(graph: str, identity: Identity) -> EngineFile:
    """The verified engine of a graph for this device.

    Raises:
        BackendUnavailable: none. EngineError: only for other devices or versions.
    """
    others = []
    for found in published(graph):
        if found.identity == identity:
            return found
        others.append(str(found.identity))
    if others:
        raise EngineError(
            f"the engine of this graph was built for {others[0]}; expected {identity}",
            hint="boothsam build MODEL, on this device",
        )
    raise BackendUnavailable(
        f"no engine of the graph {graph[:_PREFIX]} in {folder()}; expected one for {identity}",
        hint="boothsam build MODEL --precision fp16 (or fp32)",
    )


def choose_precision(model_folder: Path, manifest: ModelManifest, precision: str = "auto") -> tuple[str | None, str]:
    """The precision that "trt" can run a model in here, and why; None when there is none.

    precision: the only one wanted, or "auto" for the first of `proofs.AUTO_PRECISIONS`, then fp32, that is both proven
    on this GPU and built.
    """
    from boothsam.runtime.backends import cuda
    from boothsam.runtime.backends.trt_library import library

    wanted = (*proofs.AUTO_PRECISIONS.get("trt", ()), "fp32") if precision == "auto" else (precision,)
    passed_over = []
    identity = None
    for candidate in wanted:
        if candidate not in manifest.graphs:
            passed_over.append(f"{candidate}: the model has none")
            continue
        wrong = proofs.judge(model_folder, manifest, candidate, "trt")
        try:
            identity = identity or identify(library(), cuda.open_device())
            for file in manifest.graphs[candidate].values():
                find(listed_sha256(manifest, file), identity)
        except BoothsamError as error:
            wrong = error.message
        if wrong is None:
            return candidate, f"{candidate} is built and proven on {proofs.device_key('trt')}"
        passed_over.append(f"{candidate}: {wrong}")
    return None, "; ".join(passed_over)
