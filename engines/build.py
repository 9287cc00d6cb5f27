"""`boothsam build`: a model's graphs to engines of this device, audited and verified before anybody can load them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from boothsam.engines.audit import Audit, audit
from boothsam.engines.build_child import Order, Outcome, run_child
from boothsam.engines.publish import build_lock, open_folder, publish
from boothsam.engines.trt_adapter import Adapter, Profile, Settings
from boothsam.runtime import engine_files
from boothsam.runtime.backends.cuda import Device
from boothsam.runtime.backends.trt import TrtSession
from boothsam.runtime.backends.trt_library import TensorRt
from boothsam.runtime.engine_files import EngineFile, Identity
from boothsam.runtime.errors import BoothsamError, OptionError
from boothsam.runtime.fidelity import measure
from boothsam.runtime.images import load_image
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.model import SamModel
from boothsam.runtime.proofs import write_proof
from boothsam.runtime.store import home
from boothsam.runtime.verify import GOLDEN, verify_golden

PROMPTS, POINTS = (1, 8, 64), 32
RTX = "tensorrt_rtx"
# Boards with less memory than this build with smaller steps; an Orin Nano has 8 GB for everything.
SMALL_MEMORY = 12 << 30
# The decoder's maps of 64 prompts take more than 512 MiB of scratch memory in FP32 (measured with TensorRT-RTX).
SMALL, LARGE = Settings(1024, 2), Settings(4096, 3)

Report = Callable[[str, float, str], None]  # graph, fraction of it, phase
Runner = Callable[..., Outcome]


@dataclass(frozen=True)
class Options:
    """prompts: the most prompts of each decoder profile, rising. points: the most per prompt, SAM's own included."""

    prompts: tuple[int, ...] = PROMPTS
    points: int = POINTS
    settings: Settings | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not self.prompts or list(self.prompts) != sorted(set(self.prompts)) or self.prompts[0] < 1:
            raise OptionError(f"found --prompts {self.prompts}; expected rising numbers such as 1,8,64")
        if not 2 <= self.points <= 1024:
            raise OptionError(f"found --points {self.points}; expected 2 to 1024")

    @property
    def profiles(self) -> tuple[Profile, ...]:
        return tuple(Profile(prompts, self.points) for prompts in self.prompts)


@dataclass(frozen=True)
class Checked:
    """What building a graph without a GPU showed."""

    graph: str
    engine_bytes: int
    seconds: float
    audit: Audit


def check_model(
    folder: Path,
    precision: str,
    options: Options,
    *,
    library: str = RTX,
    report: Report = lambda graph, fraction, phase: None,
) -> list[Checked]:
    """Parse and build every graph of a precision with TensorRT-RTX on the processor; nothing is kept.

    It shows that a strongly typed NVIDIA parser takes the graphs and in what they compute; not how fast they are nor
    what they answer.

    Raises:
        EngineError: a graph is refused. IntegrityError: an altered file.
    """
    manifest, graphs = _read(folder, precision)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for graph, file in graphs.items():
            order = _order(folder, manifest, file, library, options, LARGE, Path(scratch))
            outcome = run_child(order, partial(report, graph))
            judged = _audit(folder, manifest, precision, graph, outcome, None)
            found.append(Checked(graph, len(outcome.engine), outcome.seconds, judged))
            judged.require()
    return found


def build_model(
    folder: Path,
    precision: str,
    options: Options,
    tensorrt: TensorRt,
    device: Device,
    *,
    report: Report = lambda graph, fraction, phase: None,
    say: Callable[[str], None] = lambda text: None,
    run: Runner | None = None,
) -> list[EngineFile]:
    """Build, audit, verify and publish the engines of one precision; those that are there already are verified again.

    Nothing is published unless all graphs together give the golden answers of the model's folder on this device and, in
    a reduced precision, the masks of FP32 on its photos; that comparison is written as the device's proof.

    Raises:
        EngineError: a build failed, or made something else than asked. ProofError: the answers differ.
        IntegrityError: an altered file. ManifestError: no golden answers.
    """
    manifest, graphs = _read(folder, precision)
    identity = engine_files.identify(tensorrt, device)
    settings = options.settings or (SMALL if device.memory()[1] < SMALL_MEMORY else LARGE)
    sides = [[p.most_prompts, p.most_points] for p in options.profiles]
    shas = {graph: engine_files.listed_sha256(manifest, file) for graph, file in graphs.items()}
    names = {
        graph: engine_files.file_name(sha, engine_files.engine_key(sha, identity, precision, sides))
        for graph, sha in shas.items()
    }
    locks: dict[str, int] = {}
    with ExitStack() as stack:
        # In one order for every builder: none waits for another in a circle.
        for graph in sorted(names, key=names.__getitem__):
            lock = build_lock(names[graph], partial(say, f"another process builds {graph}; waiting for it"))
            locks[graph] = stack.enter_context(lock)
        place, mine = open_folder(), f".{names['encoder']}.build-"
        for left in place.glob(f"{mine}*"):  # by a builder that was killed: its lock is ours now
            shutil.rmtree(left, ignore_errors=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place, prefix=mine)))
        engines: dict[str, bytes] = {}
        headers: dict[str, dict[str, Any]] = {}
        for graph, file in graphs.items():
            held = None if options.force else _published(names[graph])
            if held is not None:
                say(f"{graph}: an engine for this device is there")
                engines[graph], headers[graph] = held
                continue
            order = _order(folder, manifest, file, tensorrt.name, options, settings, scratch, _timing(identity))
            outcome = (run or run_child)(order, partial(report, graph), keep_open=(locks[graph],))
            inspected = Adapter(tensorrt).inspect(outcome.engine)
            judged = _audit(folder, manifest, precision, graph, outcome, inspected)
            judged.require()
            engines[graph] = outcome.engine
            headers[graph] = {
                "graph": graph,
                "graph_sha256": shas[graph],
                "model": manifest.name,
                "precision": precision,
                "profiles": sides,
                "identity": asdict(identity),
                "builder": {**asdict(settings), "tf32": False, "strongly_typed": True},
                "seconds": outcome.seconds,
                "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "audit": judged.to_dict(),
            }
        say("asking the golden questions of the engines")
        verified = _verify(folder, manifest, precision, engines, tensorrt, device, identity)
        return [publish(names[g], {**headers[g], "verified": verified}, engines[g]) for g in graphs]


def _read(folder: Path, precision: str) -> tuple[ModelManifest, Mapping[str, str]]:
    """The manifest, and a precision's graphs with all their files hashed."""
    manifest = ModelManifest.load(folder)
    if precision not in manifest.graphs:
        raise OptionError(
            f"model {manifest.name!r} has no precision {precision!r}; it has {', '.join(manifest.graphs)}",
            hint=f"boothsam quantize {folder} --precision {precision} --calibration PHOTOS -o FOLDER",
        )
    graphs = manifest.graphs[precision]
    for file in graphs.values():
        for part in (file, f"{file}.data"):
            if part in manifest.files:
                manifest.check_file(folder, part)
    return manifest, graphs


def _order(
    folder: Path,
    manifest: ModelManifest,
    file: str,
    library: str,
    options: Options,
    settings: Settings,
    scratch: Path,
    timing: Path | None = None,
) -> Order:
    external = f"{file}.data" if f"{file}.data" in manifest.files else None
    return Order(
        graph=str((folder / file).absolute()),
        external_data=str((folder / external).absolute()) if external else None,
        sha256=engine_files.listed_sha256(manifest, file),
        library=library,
        profiles=options.profiles,
        settings=options.settings or settings,
        timing=str(timing or scratch / "timing"),
        out=str(scratch / f"{file}.engine"),
    )


def _timing(identity: Identity) -> Path:
    """The timing cache of this device and TensorRT."""
    facts = json.dumps(asdict(identity), sort_keys=True).encode()
    return engine_files.folder() / f"timing-{hashlib.sha256(facts).hexdigest()[:16]}.cache"


def _published(name: str) -> tuple[bytes, dict[str, Any]] | None:
    """An engine that is there and whole, with its header; None when it has to be built."""
    try:
        found = engine_files.read_header(engine_files.folder() / name)
        return found.read(), dict(found.header)
    except (OSError, ValueError, BoothsamError):
        return None


def _audit(
    folder: Path,
    manifest: ModelManifest,
    precision: str,
    graph: str,
    outcome: Outcome,
    inspected: Sequence[Mapping[str, Any]] | None,
) -> Audit:
    """Against the islands that the reduction listed beside the graph."""
    islands: list[str] = []
    listed = f"{manifest.graphs[precision][graph].removesuffix('.onnx')}.json"  # of int8's decoders: fp16's
    if listed in manifest.files:
        body = json.loads(manifest.read_file(folder, listed))
        islands = [str(island["node"]) for island in body.get("islands", ())]
    fp32 = manifest.graphs.get("fp32", {}).get(graph, "")
    weights = sum(manifest.files[f].bytes for f in (fp32, f"{fp32}.data") if f in manifest.files)
    return audit(
        precision,
        outcome.layers,
        islands,
        expect_int8=(precision, graph) == ("int8", "encoder"),  # nothing else is quantised
        engine_bytes=len(outcome.engine),
        fp32_bytes=weights,
        inspected=inspected,
    )


def _verify(
    folder: Path,
    manifest: ModelManifest,
    precision: str,
    engines: Mapping[str, bytes],
    tensorrt: TensorRt,
    device: Device,
    identity: Identity,
) -> dict[str, Any]:
    """The golden questions and, in a reduced precision, FP32's masks; what an engine's header records of it."""
    sessions = {g: TrtSession(engine, device=device, tensorrt=tensorrt) for g, engine in engines.items()}
    model = SamModel(manifest, sessions, backend="trt", precision=precision, reason="just built")
    try:
        golden = verify_golden(model, folder)
        golden.require()
        worst = min(case.mask_iou_min for case in golden.cases)
        verified: dict[str, Any] = {"passed": True, "cases": len(golden.cases), "mask_iou_min": worst}
        if precision != "fp32":
            names = [f for f in manifest.files if f.startswith(f"{GOLDEN}/") and f.endswith(".png")]
            photos = {Path(name).stem: load_image(manifest.read_file(folder, name)) for name in names}
            reference = SamModel.load(folder, backend="ort-cpu", precision="fp32")
            found = measure(model, reference, photos, against="fp32 (ort-cpu)", numerics="device")
            reference.close()
            extra = {"against": "fp32 (ort-cpu)", "device_facts": asdict(identity)}
            write_proof(home(), manifest, found, photos=photos, extra=extra)
            found.require()
            verified["mask_iou_mean"] = found.summary.mask_iou_mean
        return verified
    finally:
        model.close()
