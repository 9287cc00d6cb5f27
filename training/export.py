"""A trained student to a model folder: encoder.onnx, decoder.onnx, decoder_mask.onnx (opset 19), golden/ and manifest.

    python -m boothsam.training.export CHECKPOINT OUT [--photo FILE]...

The graphs take and give what boothsam's runtime expects of any SAM: see `boothsam.runtime.model`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from boothsam.export.to_onnx import GraphSpec, Port, export_graph
from boothsam.export.torch_session import TorchSession
from boothsam.runtime.images import load_image
from boothsam.runtime.manifest import ModelManifest, record_files
from boothsam.runtime.model import Prompts, SamModel
from boothsam.runtime.transforms import Uint8Array
from boothsam.runtime.verify import Case, Report, compare, default_cases, write_golden
from boothsam.training.layers import MEAN, STD, StudentConfig
from boothsam.training.student import Student
from onnx import TensorProto
from torch import Tensor, nn

FRAME = 1024
MASK = FRAME // 4
BACKEND = "ort-cpu"
EMBEDDING = ("image_embedding", "features_16", "features_8", "features_4", "looks_8", "looks_4")


class EncoderGraph(nn.Module):
    """image (1024, 1024, 3) uint8 and size_hw (2,) int32 -> the student's feature maps and looks."""

    mean: Tensor
    scale: Tensor
    index: Tensor

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder = student.encoder
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("scale", 1.0 / torch.tensor(STD)[:, None, None])
        self.register_buffer("index", torch.arange(FRAME, dtype=torch.int32))

    def forward(self, image: Tensor, size_hw: Tensor) -> tuple[Tensor, ...]:
        # Channels first before any arithmetic: with three values in a row ONNX Runtime takes four times as long.
        pixels = (image.float().permute(2, 0, 1) - self.mean) * self.scale
        rows = (self.index < size_hw[0]).float()[:, None]
        columns = (self.index < size_hw[1]).float()[None, :]
        features: tuple[Tensor, ...] = self.encoder((pixels * (rows * columns))[None])
        return features


class DecoderGraph(nn.Module):
    """The decoder for one image and P prompts, without or with previous logits."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.decoder = student.decoder

    def forward(
        self,
        image_embedding: Tensor,
        features_16: Tensor,
        features_8: Tensor,
        features_4: Tensor,
        looks_8: Tensor,
        looks_4: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        features = (image_embedding, features_16, features_8, features_4, looks_8, looks_4)
        answer: tuple[Tensor, Tensor] = self.decoder(*features, point_coords, point_labels, mask_input)
        return answer


def load_student(checkpoint: Path) -> Student:
    """The averaged weights of a training checkpoint, in inference mode.

    Raises KeyError when the file is no checkpoint of this trainer.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in state["student"].items()}
    student = Student(StudentConfig(**config))
    student.load_state_dict(state["ema"])
    return student.eval()


def write_weights(checkpoint: Path, out: Path) -> None:
    """A checkpoint's averaged weights alone, as float16: an eighth of its bytes, to begin another training with.

    Half precision is enough for that (each weight keeps 11 bits); the exported model is made from the whole ones.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    half = {name: v.half() if v.dtype.is_floating_point else v for name, v in state["ema"].items()}
    torch.save({"student": state["student"], "ema": half, "step": state["step"]}, out)


def graph_specs(config: StudentConfig) -> dict[str, GraphSpec]:
    """What the three graphs take and give, by graph name."""
    f32, i32 = TensorProto.FLOAT, TensorProto.INT32
    wide = (config.embedding, config.features_16, config.features_8, config.features_4)
    channels = (*wide, config.looks_8, config.looks_4)
    sides = (FRAME // 32, FRAME // 16, FRAME // 8, MASK, FRAME // 8, MASK)
    features = tuple(Port(n, f32, (1, c, s, s)) for n, c, s in zip(EMBEDDING, channels, sides, strict=True))
    points = (Port("point_coords", f32, ("prompts", "points", 2)), Port("point_labels", i32, ("prompts", "points")))
    mask = Port("mask_input", f32, ("prompts", 1, MASK, MASK))
    results = (Port("low_res_masks", f32, ("prompts", 4, MASK, MASK)), Port("iou_predictions", f32, ("prompts", 4)))
    image = (Port("image", TensorProto.UINT8, (FRAME, FRAME, 3)), Port("size_hw", i32, (2,)))
    specs = (
        GraphSpec("encoder", image, features),
        GraphSpec("decoder", (*features, *points), results),
        GraphSpec("decoder_mask", (*features, *points, mask), results),
    )
    return {spec.name: spec for spec in specs}


def export_graphs(student: Student, out: Path) -> Mapping[str, Path]:
    """Write the three graphs into `out` and check them against `graph_specs`; graph name -> file."""
    out.mkdir(parents=True, exist_ok=True)
    decoder = DecoderGraph(student)
    modules: dict[str, nn.Module] = {"encoder": EncoderGraph(student), "decoder": decoder, "decoder_mask": decoder}
    paths = {}
    for name, spec in graph_specs(student.config).items():
        paths[name] = out / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"boothsam\.training")  # sides that are fixed are traced as such
            export_graph(modules[name].eval(), spec, paths[name])
    return paths


def torch_model(student: Student, manifest: ModelManifest) -> SamModel:
    """The student itself behind the runtime's classes, for comparing its export with it."""
    specs, decoder = graph_specs(student.config), DecoderGraph(student).eval()
    modules: dict[str, nn.Module] = {
        "encoder": EncoderGraph(student).eval(),
        "decoder": decoder,
        "decoder_mask": decoder,
    }
    sessions = {name: TorchSession(specs[name], module) for name, module in modules.items()}
    return SamModel(manifest, sessions, backend="torch", precision="fp32", reason="reference")


def prove(student: Student, model: SamModel, photos: Mapping[str, Uint8Array]) -> Report:
    """ONNX against torch on every photo: clicks, boxes, and the same again with a mask prompt.

    Raises ProofError when a mask IoU is below 0.995 or a score differs by more than 0.002.
    """
    reference = torch_model(student, model.manifest)
    cases = default_cases(photos)
    for name, photo in photos.items():
        middle = [[0.5 * photo.shape[1], 0.5 * photo.shape[0]]]
        first = reference.decode(reference.encode(photo), Prompts.make(middle, [1])).low_res_masks[:, 1:2]
        cases.append(Case(f"{name}/click and mask", name, Prompts.make(middle, [1], mask_input=first)))
        cases.append(Case(f"{name}/mask", name, Prompts.make(mask_input=first)))
    report = compare(model, reference, photos, cases)
    report.require()
    return report


def write_model(
    student: Student,
    out: Path,
    *,
    name: str = "starter",
    licence: str = "Apache-2.0",
    origin: Mapping[str, Any] | None = None,
    photos: Mapping[str, Uint8Array] | None = None,
) -> ModelManifest:
    """Graphs and manifest into `out`, which should be empty; returns the manifest.

    With `photos` (name -> RGB, free to ship) also golden answers and a proof that the graphs answer as torch does.
    """
    paths = export_graphs(student, out)

    def describe() -> ModelManifest:
        manifest = ModelManifest(
            name=name,
            variant="student",
            licence=licence,
            graphs={"fp32": {graph: path.name for graph, path in paths.items()}},
            embedding=EMBEDDING,
            files=record_files(out),
            image_size=FRAME,
            mask_size=MASK,
            origin=dict(origin or {}),
        )
        manifest.save(out)
        return manifest

    manifest = describe()
    if not photos:
        return manifest
    model = SamModel.load(out, backend=BACKEND)
    report = prove(student, model, photos)
    write_golden(model, out, photos, default_cases(photos))
    model.close()
    manifest = describe()
    graphs = {path.name: manifest.files[path.name].sha256 for path in paths.values()}
    body = {"format": 1, "kind": "parity with torch", "precision": "fp32", "numerics": "device", "files": graphs}
    proof = out / "proof" / f"{graphs['encoder.onnx']}-{BACKEND}.json"
    proof.parent.mkdir(exist_ok=True)
    proof.write_text(json.dumps(body | {"parity": report.to_dict()}, indent=1) + "\n", encoding="utf-8")
    return manifest


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--photo", type=Path, action="append", default=[], help="for golden answers; must be free to ship"
    )
    parser.add_argument("--weights", type=Path, help="also write the averaged weights as float16 into this file")
    arguments = parser.parse_args()
    state = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    origin = {
        "recipe": "training/starter.toml",
        "steps": int(state["step"]),
        "training_seconds": round(float(state["seconds"])),
        "checkpoint_sha256": hashlib.sha256(arguments.checkpoint.read_bytes()).hexdigest(),
        "torch": torch.__version__,
    }
    photos = {path.stem: load_image(path) for path in arguments.photo}
    manifest = write_model(load_student(arguments.checkpoint), arguments.out, origin=origin, photos=photos)
    if arguments.weights:
        write_weights(arguments.checkpoint, arguments.weights)
    sys.stdout.write(manifest.to_json())


if __name__ == "__main__":
    main()
