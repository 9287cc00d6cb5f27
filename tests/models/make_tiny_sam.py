"""Train the tiny real SAM that the tests run on: the reference architecture, small, on drawn shapes, on a CPU.

    python -m tests.models.make_tiny_sam --out tests/models/tiny_sam.pt

Every forward pass below is segment-anything's own modules. Two things make an hour on two busy cores enough:
- Most steps see a crop of the 1024 frame (256, then 512 pixels): the encoder runs with the crop's slice of `pos_embed`
  and of the relative positions, the decoder with the crop's slice of the positional encoding, prompts keep their place
  in the frame. Some steps see whole frames with their padding.
- Query and key projections of the decoder's cross attentions start equal and orthonormal, so that a click finds its
  place in the image by its positional encoding from the first step (from a random start that takes thousands of steps).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from boothsam.conformance.pictures import Scene, draw_scene
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.tiny_sam import CHECKPOINT, CONFIG
from tests.reference.segment_anything_reference import build_reference_sam

SEED = 20
GAIN = 4.0
N_CLICKS, N_BOXES = 5, 3
Prompts = tuple[list[Any], list[Any], list[int]]  # points (P, N, 2), labels (P, N), the object that each asks for


class Stage(NamedTuple):
    """Crop side (1024: the whole frame), pictures per step, steps, and its share of the learning-rate schedule."""

    side: int
    pictures: int
    steps: int
    share: float


STAGES = (Stage(256, 10, 2400, 0.45), Stage(512, 4, 350, 0.1), Stage(1024, 1, 320, 0.15), Stage(512, 3, 930, 0.3))
_log = logging.getLogger("make_tiny_sam")


def frame(scene: Scene, side: int) -> tuple[Tensor, NDArray[np.float32], tuple[int, int]]:
    """A scene as the encoder sees it: resized to `side`, normalised, padded right and bottom with zeros.

    Returns the image (3, side, side) float32, each object's share of every mask pixel (n, side/4, side/4) float32, and
    the unpadded (h, w).
    """
    h, w = scene.image.shape[:2]
    scale = side / max(h, w)
    new_h, new_w = int(h * scale + 0.5), int(w * scale + 0.5)
    pixels = np.asarray(Image.fromarray(scene.image).resize((new_w, new_h), Image.Resampling.BILINEAR), np.float32)
    normal = (pixels - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    image = np.zeros((3, side, side), np.float32)
    image[:, :new_h, :new_w] = normal.transpose(2, 0, 1)
    masks = np.zeros((len(scene.masks), side, side), np.float32)
    for target, mask in zip(masks, scene.masks, strict=True):
        target[:new_h, :new_w] = cv2.resize(mask.astype(np.float32), (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    share = masks.reshape(len(masks), side // 4, 4, side // 4, 4).mean((2, 4))
    return torch.from_numpy(image), share, (new_h, new_w)


def draw_training_scene(rng: np.random.Generator, side: int) -> Scene:
    """A random scene for a frame or crop of `side`: crops are square, frames have several aspect ratios and sizes."""
    scale = rng.choice([0.5, 0.625, 0.75, 1.0])
    long = int(side * scale)
    short = long if side < 1024 or rng.random() < 0.3 else int(long * rng.choice([0.5, 2 / 3, 0.75]))
    size_hw = (short, long) if rng.random() < 0.5 else (long, short)
    radius = (int(30 * scale), int(110 * scale))
    count = int(rng.integers(6, 18)) if side == 1024 else (8 if side == 512 else 3)
    while True:
        seed, contrast = int(rng.integers(1_000_000, 2**31)), int(rng.integers(90, 200))
        scene = draw_scene(seed, size_hw, count, radius, contrast, insets=10)
        if any(mask.sum() > 60 for mask in scene.masks):
            return scene


class Prompter:
    """Draws the prompts of one picture; points are pixels of its frame or crop, labels SAM's (2, 3 corners, -1 pad)."""

    def __init__(self, rng: np.random.Generator, share: NDArray[np.float32], size_hw: tuple[int, int]) -> None:
        self.rng = rng
        self.inside = np.zeros(share.shape[1:], np.float32)
        self.inside[: max(size_hw[0] // 4, 1), : max(size_hw[1] // 4, 1)] = 1
        ground = self.inside * (1 - share.max(0))
        self.targets = np.concatenate([share, ground[None]])  # the ground is the last object
        self.big = np.flatnonzero((share > 0.5).sum((1, 2)) >= 8)

    def pick(self, count: int) -> list[int]:
        return [int(i) for i in self.rng.choice(self.big, count)]

    def spot(self, weight: NDArray[Any]) -> list[float]:
        """A pixel (x, y) drawn from the places where `weight` is whole, or largest."""
        rows, cols = np.nonzero(weight >= min(0.99, weight.max()))
        k = int(self.rng.integers(len(rows)))
        return [cols[k] * 4 + self.rng.uniform(0, 4), rows[k] * 4 + self.rng.uniform(0, 4)]

    def corners(self, index: int) -> list[list[float]]:
        """The object's box with each edge off by up to 3 % of its side."""
        hit = self.targets[index] > 0.3
        rows, cols = np.flatnonzero(hit.any(1)) * 4, np.flatnonzero(hit.any(0)) * 4
        jitter = 1 + self.rng.uniform(-0.03, 0.03, (2, 2))
        low, high = np.array([cols[0], rows[0]]), np.array([cols[-1] + 3, rows[-1] + 3])
        return [list(low + (high - low) * (jitter[0] - 1)), list(high + (high - low) * (jitter[1] - 1))]

    def first(self) -> Prompts:
        """Clicks with their padding point (one in twelve on the ground), then boxes."""
        clicked = [len(self.targets) - 1 if self.rng.random() < 0.08 else i for i in self.pick(N_CLICKS)]
        boxed = self.pick(N_BOXES)
        points = [[self.spot(self.targets[i]), [0.0, 0.0]] for i in clicked] + [self.corners(i) for i in boxed]
        return points, [[1, -1]] * N_CLICKS + [[2, 3]] * N_BOXES, clicked + boxed

    def second(self, found: NDArray[np.float32], wanted: list[int], points: list[Any]) -> Prompts:
        """Corrections of the first click and the first box by a click where `found` (P, h, w) 0/1 is most wrong.

        A click keeps its padding point, a box has none: each has three tokens.
        """
        corrected, labels, targets = [], [], []
        for k in (0, N_CLICKS):
            target = self.targets[wanted[k]]
            lacking, surplus = target * (1 - found[k]), found[k] * (1 - target) * self.inside
            more = lacking.sum() >= surplus.sum()
            spot = self.spot(lacking if more else surplus)
            first = [points[k][0], spot, [0.0, 0.0]] if k < N_CLICKS else [spot, *points[k]]
            corrected.append(first)
            labels.append([1, int(more), -1] if k < N_CLICKS else [int(more), 2, 3])
            targets.append(wanted[k])
        return corrected, labels, targets


class Trainee:
    """The SAM under training, run on the whole frame or on a crop of it, many pictures at once."""

    def __init__(self, sam: Any, config: dict[str, Any]) -> None:
        self.sam, self.config = sam, config
        self.encoders = {side: build_reference_sam(config, side).image_encoder for side in (256, 512)}

    def encode(self, images: Tensor, offset_xy: tuple[int, int]) -> Tensor:
        """(B, 3, s, s) -> (B, C, s/16, s/16), at tokens offset_xy of the frame."""
        full, side = self.sam.image_encoder, images.shape[-1]
        if side == full.img_size:
            return full(images)
        n, (ox, oy) = side // 16, offset_xy
        parameters = dict(full.named_parameters())
        parameters["pos_embed"] = full.pos_embed[:, oy : oy + n, ox : ox + n]
        for i in self.config["encoder"]["global_attn_indexes"]:
            for name in (f"blocks.{i}.attn.rel_pos_h", f"blocks.{i}.attn.rel_pos_w"):
                middle = parameters[name].shape[0] // 2
                parameters[name] = parameters[name][middle - n + 1 : middle + n]
        return torch.func.functional_call(self.encoders[side], parameters, (images,))

    def decode(
        self, embedding: Tensor, offset_xy: tuple[int, int], points: Any, labels: Any, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`predict_masks` with an image each: (P, C, n, n), prompts (P, N) -> (P, 4, 4n, 4n) logits, (P, 4) scores."""
        prompt, decoder = self.sam.prompt_encoder, self.sam.mask_decoder
        n, (ox, oy) = embedding.shape[-1], offset_xy
        coords = torch.tensor(points, dtype=torch.float32) + torch.tensor(offset_xy) * 16 + 0.5
        label = torch.tensor(labels)
        table = torch.cat([prompt.not_a_point_embed.weight, *(e.weight for e in prompt.point_embeddings)])
        sparse = prompt.pe_layer.forward_with_coords(coords, prompt.input_image_size)
        sparse = sparse * (label >= 0)[..., None] + table[label + 1]
        dense = prompt.no_mask_embed.weight.reshape(1, -1, 1, 1)
        if previous is not None:
            dense = prompt._embed_masks(previous)
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([tokens.expand(len(sparse), -1, -1), sparse], dim=1)
        place = prompt.get_dense_pe()[..., oy : oy + n, ox : ox + n].expand(len(sparse), -1, -1, -1)
        hidden, image = decoder.transformer(embedding + dense, place, tokens)
        fine = decoder.output_upscaling(image.transpose(1, 2).reshape(embedding.shape))
        filters = torch.stack([mlp(hidden[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1)
        return torch.einsum("pkc,pchw->pkhw", filters, fine), decoder.iou_prediction_head(hidden[:, 0])


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """(P, K) per mask: focal loss and cross entropy, each over the object's area, + dice; target (P, h, w) in 0..1."""
    target = target[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    focal = entropy * (probability - target).abs().square()
    area = target.sum((2, 3)).clamp(min=30)
    overlap = (probability * target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + target.sum((2, 3)) + 1)
    return (0.5 * focal + 0.15 * entropy).sum((2, 3)) / area + dice


def true_iou(logits: Tensor, target: Tensor) -> Tensor:
    """(P, K) IoU of the thresholded logits with target (P, h, w) thresholded at one half."""
    found, wanted = logits > 0, (target > 0.5)[:, None]
    return (found & wanted).sum((2, 3)) / (found | wanted).sum((2, 3)).clamp(min=1)


def step_loss(trainee: Trainee, rng: np.random.Generator, side: int, n_images: int) -> tuple[Tensor, dict[str, float]]:
    """The loss of one step and mean IoUs to log: box (token 0), click (best of three, token 0), corrected (token 0)."""
    room = (1024 - side) // 16
    offset = (int(rng.integers(room + 1)), int(rng.integers(room + 1)))
    frames = [frame(draw_training_scene(rng, side), side) for _ in range(n_images)]
    embeddings = trainee.encode(torch.stack([f[0] for f in frames]), offset)
    prompters = [Prompter(rng, share, size_hw) for _, share, size_hw in frames]

    def gather(prompts: list[Prompts]) -> tuple[list[Any], list[Any], Tensor]:
        targets = [prompter.targets[list(p[2])] for prompter, p in zip(prompters, prompts, strict=True)]
        points, labels = (list(chain.from_iterable(p[i] for p in prompts)) for i in (0, 1))
        return points, labels, torch.from_numpy(np.concatenate(targets))

    firsts = [prompter.first() for prompter in prompters]
    points, labels, target = gather(firsts)
    logits, scores = trainee.decode(embeddings.repeat_interleave(N_CLICKS + N_BOXES, 0), offset, points, labels)
    iou = true_iou(logits.detach(), target)
    chosen = logits.detach()[torch.arange(len(logits)), 1 + iou[:, 1:].argmax(1)]
    found = (chosen > 0).float().reshape(n_images, -1, *chosen.shape[1:])
    seconds = [q.second(f.numpy(), first[2], first[0]) for q, f, first in zip(prompters, found, firsts, strict=True)]
    points, labels, target2 = gather(seconds)
    previous = chosen.reshape(found.shape)[:, [0, N_CLICKS]].reshape(-1, 1, *chosen.shape[1:])
    logits2, scores2 = trainee.decode(embeddings.repeat_interleave(2, 0), offset, points, labels, previous)

    losses = []
    for lg, sc, wanted in ((logits, scores, target), (logits2, scores2, target2)):
        loss = mask_loss(lg, wanted)
        best_of_three = loss[:, 1:].min(1).values + 0.1 * loss[:, 1:].mean(1)
        losses.append((loss[:, 0] + best_of_three).mean() + 4 * F.mse_loss(sc, true_iou(lg.detach(), wanted)))
    per_image = iou.reshape(n_images, -1, 4)
    figures = {
        "box": per_image[:, N_CLICKS:, 0],
        "click3": per_image[:, :N_CLICKS, 1:].max(2).values,
        "click0": per_image[:, :N_CLICKS, 0],
        "corrected": true_iou(logits2.detach(), target2)[:, 0],
        "score_error": (scores.detach() - iou).abs(),
    }
    return losses[0] + 0.3 * losses[1], {name: value.mean().item() for name, value in figures.items()}


def align_cross_attention(decoder: nn.Module, gain: float = 2.0) -> None:
    """Start each cross attention with equal orthonormal query and key projections, times `gain`."""
    for module in decoder.modules():
        for name in ("cross_attn_token_to_image", "cross_attn_image_to_token", "final_attn_token_to_image"):
            attention = getattr(module, name, None)
            if attention is not None:
                nn.init.orthogonal_(attention.q_proj.weight, gain)
                attention.k_proj.weight.data.copy_(attention.q_proj.weight.data)


def sharpen(sam: Any, gain: float) -> None:
    """Multiply all mask logits by `gain` and undo it where they come back as a mask prompt: no mask changes.

    What an hour does not reach is steepness: the rims of trained masks are too soft for the generator's stability
    threshold, which years of GPU time met.
    """
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        for parameter in mlp.layers[-1].parameters():
            parameter.data *= gain
    sam.prompt_encoder.mask_downscaling[0].weight.data /= gain


def schedule() -> Iterator[tuple[Stage, float]]:
    """The stage of each step in turn, and how much of the schedule is done."""
    done = 0.0
    for stage in STAGES:
        for step in range(stage.steps):
            yield stage, done + stage.share * step / stage.steps
        done += stage.share


def train(out: Path, lr: float) -> None:
    """Train through all stages, log twice a minute, write the averaged weights to `out` as it goes."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    config = json.loads(CONFIG.read_text())
    sam = build_reference_sam(config)
    nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)
    align_cross_attention(sam.mask_decoder)
    sam.train()
    average = copy.deepcopy(sam)
    trainee = Trainee(sam, config)
    decayed = [p for p in sam.parameters() if p.ndim > 1]
    plain = [p for p in sam.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
    start, logged = time.monotonic(), 0.0
    shown: dict[str, list[float]] = {}
    for step, (stage, progress) in enumerate(schedule(), 1):
        rate = lr * min(1, step / 100) * min(1, max(0.02, 1.6 * (1 - progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, figures = step_loss(trainee, rng, stage.side, stage.pictures)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            decay = min(0.995, step / (step + 20))
            for mean, value in zip(average.parameters(), sam.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        for key, value in {"loss": loss.item(), **figures}.items():
            shown.setdefault(key, []).append(value)
        if time.monotonic() - logged > 30:
            logged = time.monotonic()
            line = "  ".join(f"{key} {np.nanmean(values):.3f}" for key, values in shown.items())
            minutes = (logged - start) / 60
            _log.info("%5.1f min  step %5d  side %4d  lr %.1e  %s", minutes, step, stage.side, rate, line)
            shown.clear()
            torch.save(average.state_dict(), out)
    sharpen(average, GAIN)
    torch.save(average.state_dict(), out)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    out.with_suffix(".sha256").write_text(f"{digest}  {out.name}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    train(options.out, options.lr)


if __name__ == "__main__":
    main()
