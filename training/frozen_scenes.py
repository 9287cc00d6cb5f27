"""Generated scenes with prompts for a decoder whose encoder is never trained: its weights, and what it says of them.

The encoder has PyTorch's seeded weights; only its BatchNorm statistics are measured, so that nothing fades or grows
through the layers. What it computes of a scene is cached beside prompts drawn once.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from boothsam.export.architectures.config import IMAGE_SIZE, MASK_SIZE
from boothsam.export.architectures.sam import Sam, build
from boothsam.export.to_onnx import export_graph, graph_specs
from boothsam.runtime.backends.ort import OrtSession
from boothsam.training.batches import KIND_WEIGHT, thin_out
from boothsam.training.generator import MIN_AREA_SHARE, Sample, Sources, compose
from boothsam.training.photos import CutoutBank, PhotoBank
from boothsam.training.prompts import candidates, draw_prompt
from boothsam.training.textures import Rng
from numpy.typing import NDArray
from torch import Tensor, nn

PROMPTS = 24  # drawn per scene, once
LEVELS = 16  # of a mask pixel's coverage: it is the mean of 4 x 4 pixels of the frame
STATISTICS = 6  # scenes for the BatchNorm statistics
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scene:
    """A cached scene with its prompts.

    embedding (C, 64, 64) float16; points (N, 8, 2) float32, x y in pixels of the frame less SAM's 0.5, labels (N, 8)
    int32, SAM's; readings (N, 3, 256, 256) uint8 coverage in sixteenths, valid (N, 3), single (N,) as in
    `prompts.Prompt`.
    """

    embedding: NDArray[np.float16]
    points: NDArray[np.float32]
    labels: NDArray[np.int32]
    readings: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    single: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write one .npz, complete or not at all."""
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **vars(self))
        temporary.replace(path)

    @staticmethod
    def load(path: Path) -> Scene:
        """Read what `save` wrote."""
        with np.load(path) as data:
            return Scene(**{name: data[name] for name in data.files})


@dataclass(frozen=True)
class Questions:
    """P prompts of one length N about scenes: embedding (P, C, 64, 64), points (P, N, 2), labels (P, N), readings
    (P, 3, 256, 256) coverage 0..1, valid (P, 3), single (P,), previous (P, 1, 256, 256) logits, used (P,) where they
    are given.
    """

    embedding: Tensor
    points: Tensor
    labels: Tensor
    readings: Tensor
    valid: Tensor
    single: Tensor
    previous: Tensor
    used: Tensor


def framed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of at most 1024 pixels a side in the upper left corner of a black frame."""
    frame = np.zeros((IMAGE_SIZE, IMAGE_SIZE, *image.shape[2:]), np.uint8)
    frame[: image.shape[0], : image.shape[1]] = image
    return frame


def scene_sample(seed: int, index: int) -> Sample:
    """Scene `index`, drawn without any photo."""
    return compose(np.random.default_rng([seed, index]), IMAGE_SIZE, Sources(PhotoBank([]), CutoutBank([])))


def seeded_sam(variant: str, seed: int) -> Sam:
    """PyTorch's own random weights, with BatchNorm statistics of a few generated scenes.

    The cross attentions of the decoder start with equal orthogonal query and key projections, so that a click finds its
    place in the image by its position from the first step.
    """
    torch.manual_seed(seed)
    sam = build(variant)
    norms = [module for module in sam.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.ones_(norm.weight)
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over what it sees
        norm.train()
    with torch.inference_mode():
        for index in range(STATISTICS if norms else 0):
            image = scene_sample(seed + 1, index).image
            sam.encode(torch.from_numpy(framed(image)), torch.tensor(image.shape[:2], dtype=torch.int32))
    transformer = sam.mask_decoder.transformer
    crossing = [transformer.final_attn_token_to_image]
    for block in transformer.blocks():
        crossing += [block.cross_attn_token_to_image, block.cross_attn_image_to_token]
    for attention in crossing:
        nn.init.orthogonal_(attention.q_proj.weight, 2.0)
        attention.k_proj.weight.data.copy_(attention.q_proj.weight.data)
    return sam.eval()


def draw_scene(rng: Rng, sample: Sample, embedding: NDArray[np.float16]) -> Scene | None:
    """Prompts for a scene, or None when nothing in it is large enough."""
    sample = thin_out(rng, sample)
    planes = Sample(sample.image, framed(sample.instances), framed(sample.parts), sample.part_owner, sample.groups)
    masks = candidates(planes, MIN_AREA_SHARE * 4 * IMAGE_SIZE**2)
    if not masks:
        return None
    weights = np.array([KIND_WEIGHT[kind] for kind, _ in masks])
    chosen = rng.choice(len(masks), PROMPTS, p=weights / weights.sum())
    drawn = [draw_prompt(rng, masks, int(index)) for index in chosen]
    return Scene(
        embedding,
        np.stack([p.points for p in drawn]) * np.float32(IMAGE_SIZE) - np.float32(0.5),
        np.stack([p.labels for p in drawn]),
        np.round(np.stack([p.readings for p in drawn]) * LEVELS).astype(np.uint8),
        np.stack([p.valid for p in drawn]),
        np.array([p.single for p in drawn], np.int64),
    )


class _Encoder(nn.Module):
    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, image: Tensor, size_hw: Tensor) -> Tensor:
        return self.sam.encode(image, size_hw)


def fill_cache(sam: Sam, folder: Path, count: int, seed: int, threads: int) -> list[Path]:
    """Encode scenes that are not there yet, through ONNX Runtime; the files of all, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(count) if not (folder / f"{i:05d}.npz").exists()]
    if missing:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "encoder.onnx"
            export_graph(_Encoder(sam), graph_specs(sam.config)["encoder"], path)
            session = OrtSession(path.read_bytes(), threads=threads)
        for index in missing:
            rng, sample = np.random.default_rng([seed, index, 1]), scene_sample(seed, index)
            size_hw = np.array(sample.image.shape[:2], np.int32)
            found = session.run({"image": framed(sample.image), "size_hw": size_hw})["image_embedding"]
            scene = draw_scene(rng, sample, np.asarray(found[0], np.float16))
            if scene is not None:
                scene.save(folder / f"{index:05d}.npz")
            if index % 20 == 0:
                log.info("scene %d of %d", index, count)
        session.close()
    return sorted(folder.glob("*.npz"))


def ask(scene: Scene, chosen: Sequence[int], rng: Rng | None = None) -> Questions:
    """Some prompts of a scene; with `rng`, some of them with a poor mask of what they ask for."""
    rows = list(chosen)
    longest = int((scene.labels[rows] >= 0).sum(1).max()) + 1
    readings = torch.from_numpy(scene.readings[rows]).float() / LEVELS
    used = torch.zeros(len(rows), dtype=torch.bool)
    previous = torch.zeros(len(rows), 1, MASK_SIZE, MASK_SIZE)
    if rng is not None and bool((drawn := rng.random(len(rows)) < 0.08).any()):
        used = torch.from_numpy(drawn)
        shift = [int(v) for v in rng.integers(-10, 11, 2)]
        poor = F.avg_pool2d(readings[:, :1], 13, 1, 6, count_include_pad=False)
        previous = (torch.roll(poor, shift, (2, 3)) - 0.5) * 20
    return Questions(
        torch.from_numpy(scene.embedding.astype(np.float32))[None].expand(len(rows), -1, -1, -1),
        torch.from_numpy(scene.points[rows, :longest]),
        torch.from_numpy(scene.labels[rows, :longest]),
        readings,
        torch.from_numpy(scene.valid[rows]),
        torch.from_numpy(scene.single[rows]),
        previous,
        used,
    )
