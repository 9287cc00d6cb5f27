"""`boothsam export-triton`: a model folder to a model repository of NVIDIA's Triton Inference Server.

    REPOSITORY/
      README.md, SHA256SUMS            how to run it; every file's hash, for `sha256sum -c`
      NAME/config.pbtxt, 1/model.py    what clients ask: photo and prompts in, masks out (service/triton_model.py)
      NAME/1/boothsam.json             the manifest, and what the graphs below take and give
      NAME_encoder/config.pbtxt, 1/encoder.onnx
      NAME_decoder, NAME_decoder_mask, and NAME_prepare where the model has that graph

Names, types and shapes come from the manifest and the graphs it lists; the graphs are copied byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import boothsam
import onnx
from boothsam.engines.triton_config import FREE, Configuration, Tensor, dims
from boothsam.engines.triton_readme import Plan, readme
from boothsam.runtime import proofs
from boothsam.runtime.errors import ManifestError, ModelError, OptionError, OutputError, ProofError
from boothsam.runtime.folders import fresh_folder
from boothsam.runtime.manifest import GRAPHS, ModelManifest

FORMAT = 1  # of boothsam.json
VERSION = 1  # every model's, and its folder's name
FACTS, SUMS = "boothsam.json", "SHA256SUMS"
BACKENDS = ("onnxruntime", "tensorrt")
DEVICES = ("gpu", "cpu")
PLAN = "model.plan"
Tensors = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # inputs and outputs of a graph
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MODEL = '''"""The model {name}, written by boothsam {version}: its code is that of the installed package."""

from boothsam.service.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

_PROMPTS = (FREE, FREE)
INPUTS = (
    Tensor("image", "object", (1,), optional=True),
    Tensor("image_rgb", "uint8", (FREE, FREE, 3), optional=True),
    Tensor("embedding_id", "object", (1,), optional=True),
    Tensor("point_coords", "float32", (*_PROMPTS, 2), optional=True),
    Tensor("point_labels", "int32", _PROMPTS, optional=True),
    Tensor("box", "float32", (FREE, 4), optional=True),
    Tensor("mask_input", "float32", (FREE, 1, 256, 256), optional=True),
    Tensor("multimask_output", "bool", (1,), optional=True),
)
OUTPUTS = (
    Tensor("masks", "uint8", (FREE, FREE, FREE, FREE)),
    Tensor("iou_predictions", "float32", _PROMPTS),
    Tensor("low_res_masks", "float32", (*_PROMPTS, 256, 256)),
    Tensor("original_hw", "int32", (2,)),
    Tensor("embedding_id", "object", (1,)),
)
_NO_BATCHES = (
    "max_batch_size 0: the first side of a prompt tensor counts prompts on one photo, and photo tensors have none.",
    "No dynamic batching for the same reason: prompts of two photos cannot share a call.",
)
_UNPROVEN_HINT = "--precision fp32"


@dataclass(frozen=True)
class Settings:
    """What the model that clients ask may use; each becomes a parameter of its config.pbtxt.

    cache_bytes: memory for embeddings. cache_ttl_s: seconds after its last use that one is kept. threads: requests in
    work at once; 0 answers one at a time within `execute`. max_prompts: per request. max_points: per prompt, SAM's own
    included. max_pixels: of a photo.
    """

    cache_bytes: int = 512 << 20
    cache_ttl_s: int = 900
    threads: int = 4
    max_prompts: int = 64
    max_points: int = 32
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        least = {"cache_ttl_s": 1, "max_prompts": 1, "max_points": 2, "max_pixels": 1}
        for name, value in asdict(self).items():
            if value < least.get(name, 0):
                raise OptionError(f"found {name} {value}; expected {least.get(name, 0)} or more")


@dataclass(frozen=True)
class Repository:
    """What was written. models: their names, the one that clients ask first."""

    path: Path
    models: tuple[str, ...]
    manifest: ModelManifest


def export_repository(
    folder: Path,
    out: Path,
    *,
    name: str | None = None,
    precision: str = "fp32",
    backend: str = "onnxruntime",
    device: str = "gpu",
    settings: Settings | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Repository:
    """Write a model repository to `out`, which appears whole or not at all and must not be there yet.

    name: of the model that clients ask; default: the manifest's. precision: of the graphs. backend: one of BACKENDS;
    with "tensorrt" the plans have to be built where they will run, README.md says how. device: one of DEVICES.

    Raises:
        OptionError: an unknown precision, backend or device, or a name that Triton or a shell would stumble over.
        OutputError: `out` is there, or cannot be written. ProofError: a reduced precision that nobody proved.
        IntegrityError, ManifestError, ModelError: the model folder.
    """
    settings = settings or Settings()
    manifest = ModelManifest.load(folder)
    name = manifest.name if name is None else name
    _check_options(manifest, folder, name, precision, backend, device)
    if out.exists() or out.is_symlink():
        raise OutputError(f"{out} exists already; a repository is never overwritten", hint="give another -o")
    proof = _proof(folder, manifest, precision)
    graphs = {graph: _read_graph(folder, manifest, precision, graph) for graph in GRAPHS
              if graph in manifest.graphs[precision]}  # fmt: skip
    _check_graphs(manifest, graphs)
    configurations = [_front(name, manifest, precision, settings)]
    configurations += [
        _graph(f"{name}_{graph}", manifest, manifest.graphs[precision][graph], tensors, precision, backend, device)
        for graph, tensors in graphs.items()
    ]
    with fresh_folder(out) as scratch:
        for configuration in configurations:
            place = scratch / configuration.name / str(VERSION)
            place.mkdir(parents=True)
            (place.parent / "config.pbtxt").write_text(configuration.to_pbtxt(), encoding="utf-8")
        for graph in graphs:
            file = manifest.graphs[precision][graph]
            say(f"{name}_{graph}: {file}")
            for part in _parts(manifest, file):
                _copy(folder, manifest, part, scratch / f"{name}_{graph}" / str(VERSION))
        front = scratch / name / str(VERSION)
        (front / "model.py").write_text(_MODEL.format(name=name, version=boothsam.__version__), encoding="utf-8")
        facts = _facts(name, manifest, precision, graphs)
        (front / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        text = readme(
            name,
            manifest,
            {"precision": precision, "proof": proof, "backend": backend, "device": device},
            _plans(name, manifest, precision, graphs) if backend == "tensorrt" else (),
            version=VERSION,
            most_prompts=settings.max_prompts,
            most_points=settings.max_points,
        )
        (scratch / "README.md").write_text(text, encoding="utf-8")
        (scratch / SUMS).write_text(_sums(scratch), encoding="utf-8")
        if out.exists():
            raise OutputError(f"{out} was made by somebody else meanwhile", hint="give another -o")
    return Repository(out, tuple(c.name for c in configurations), manifest)


def _check_options(manifest: ModelManifest, folder: Path, name: str, precision: str, backend: str, device: str) -> None:
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"found the name {name!r}; expected up to 100 letters, digits, '_', '-' and '.', a letter or digit first",
            hint="--name NAME",
        )
    if precision not in manifest.graphs:
        raise OptionError(
            f"model {manifest.name!r} has no precision {precision!r}; it has {', '.join(manifest.graphs)}",
            hint=f"boothsam quantize {folder} --precision {precision} --calibration PHOTOS -o FOLDER",
        )
    for option, value, known in (("--platform", backend, BACKENDS), ("--device", device, DEVICES)):
        if value not in known:
            raise OptionError(f"found {option} {value!r}; expected {' or '.join(known)}")
    if (backend, device) == ("tensorrt", "cpu"):
        raise OptionError("TensorRT runs on GPUs only, found --device cpu", hint="--platform onnxruntime")


def _proof(folder: Path, manifest: ModelManifest, precision: str) -> str:
    """What is known about a reduced precision, in words; the server's own device nobody can know here.

    Raises:
        ProofError: there is no proof, or one failed.
    """
    if precision == "fp32":
        return "FP32 needs no proof"
    found = proofs.find_proofs(folder, manifest, precision)
    failed = [p for p in found if not p.passed]
    if not found or failed:
        wrong = f"its proof failed ({failed[0].path.name})" if failed else "no proof was made"
        raise ProofError(f"model {manifest.name!r} in {precision} is not exported: {wrong}", hint=_UNPROVEN_HINT)
    return f"{precision} was proven on: {', '.join(sorted({p.device for p in found}))}"


def _read_graph(folder: Path, manifest: ModelManifest, precision: str, graph: str) -> Tensors:
    """Inputs and outputs of a graph; weights beside it are not read."""
    file = manifest.graphs[precision][graph]
    data = manifest.read_file(folder, file)
    try:
        body = onnx.load_from_string(data).graph
    except Exception as error:  # protobuf's and onnx's own classes
        raise ModelError(f"{folder / file} is no ONNX graph ({error})", hint="export the model again") from None
    return tuple(map(_tensor, body.input)), tuple(map(_tensor, body.output))


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        raise ModelError(f"the graph does not say the shape of {value.name!r}", hint="export the model again")
    sides = tuple(side.dim_value if side.HasField("dim_value") else FREE for side in kind.shape.dim)
    return Tensor(value.name, str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), sides)


def _check_graphs(manifest: ModelManifest, graphs: Mapping[str, Tensors]) -> None:
    """The graphs fit together as the manifest says: what each is fed is made by another, or by the runtime.

    Raises:
        ManifestError: a tensor that nobody makes, or that the manifest promises and no graph gives.
    """
    made = {graph: {t.name for t in outputs} for graph, (_, outputs) in graphs.items()}
    photo = made["encoder"] | made.get("prepare", set())
    prompts = {"point_coords", "point_labels"}
    known = {
        "encoder": {"image", "size_hw"},
        "prepare": made["encoder"],
        "decoder": photo | prompts,
        "decoder_mask": photo | prompts | {"mask_input"},
    }
    promised = {
        "encoder": set(manifest.embedding),
        "prepare": set(manifest.prepared),
        "decoder": {"low_res_masks", "iou_predictions"},
        "decoder_mask": {"low_res_masks", "iou_predictions"},
    }
    for graph, (inputs, _) in graphs.items():
        strange, missing = {t.name for t in inputs} - known[graph], promised[graph] - made[graph]
        if strange or missing:
            raise ManifestError(
                f"the graph {graph} of model {manifest.name!r} does not fit: nobody makes its inputs "
                f"{sorted(strange)}, and its promised outputs {sorted(missing)} are missing",
                hint="export the model again",
            )


def _graph(
    name: str,
    manifest: ModelManifest,
    file: str,
    tensors: Tensors,
    precision: str,
    backend: str,
    device: str,
) -> Configuration:
    """Of one graph. TF32 rounds the factors of FP32 products to 10 bits: not FP32, so it is switched off."""
    on_gpu = device == "gpu"
    parts = {f"sha256_{Path(part).name}": manifest.files[part].sha256 for part in _parts(manifest, file)}
    return Configuration(
        name=name,
        backend=backend,
        file=PLAN if backend == "tensorrt" else Path(file).name,
        inputs=tensors[0],
        outputs=tensors[1],
        on_gpu=on_gpu,
        version=VERSION,
        accelerator={"use_tf32": "0"} if on_gpu and backend == "onnxruntime" else {},
        parameters={"model_key": manifest.key, "precision": precision, **parts},
        comments=_NO_BATCHES,
    )


def _front(name: str, manifest: ModelManifest, precision: str, settings: Settings) -> Configuration:
    """Of the model that clients ask. One instance: each has a process, and so a cache, of its own."""
    limits = {key: str(value) for key, value in asdict(settings).items()}
    return Configuration(
        name=name,
        backend="python",
        file="model.py",
        inputs=INPUTS,
        outputs=OUTPUTS,
        on_gpu=False,
        version=VERSION,
        parameters={"model_key": manifest.key, "precision": precision, **limits},
        comments=(*_NO_BATCHES, "One instance: an instance is a process with a cache of its own; see threads."),
    )


def _plans(name: str, manifest: ModelManifest, precision: str, graphs: Mapping[str, Tensors]) -> tuple[Plan, ...]:
    files = manifest.graphs[precision]
    return tuple(
        Plan(f"{name}_{graph}", Path(files[graph]).name, tuple(t for t in inputs if FREE in t.shape))
        for graph, (inputs, _) in graphs.items()
    )


def _facts(
    name: str,
    manifest: ModelManifest,
    precision: str,
    graphs: Mapping[str, Tensors],
) -> dict[str, object]:
    return {
        "format": FORMAT,
        "boothsam": boothsam.__version__,
        "precision": precision,
        "graphs": {
            graph: {"model": f"{name}_{graph}", "version": VERSION, "inputs": dims(inputs), "outputs": dims(outputs)}
            for graph, (inputs, outputs) in graphs.items()
        },
        "manifest": json.loads(manifest.to_json()),
    }


def _parts(manifest: ModelManifest, file: str) -> tuple[str, ...]:
    """A graph's file and that of its external data, which it names relative to its own folder."""
    return tuple(part for part in (file, f"{file}.data") if part in manifest.files)


def _copy(folder: Path, manifest: ModelManifest, file: str, place: Path) -> None:
    """Copy one listed file, and hash what was copied: external data may have gigabytes."""
    try:
        with (folder / file).open("rb") as source, (place / Path(file).name).open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
    except FileNotFoundError:
        manifest.check_file(folder, file)  # says what is missing
        raise
    if _sha256(place / Path(file).name) != manifest.files[file].sha256:
        manifest.check_file(folder, file)  # says what differs
        raise OutputError(f"{place / Path(file).name} differs from what was read", hint="check the disk, and try again")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sums(folder: Path) -> str:
    """As `sha256sum` writes and reads it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
