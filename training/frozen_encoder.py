"""A full-size SAM with masks that depend on the picture: a decoder trained over an encoder that never was.

python -m boothsam.training.frozen_encoder --work DIR --variant vit_t --scenes 100 --steps 3000

Reduced precision can be proven with it at real size on masks that mean something, where the published weights are not
at hand. DIR/sam.pt is a checkpoint for `boothsam export`. Interrupted, the same command goes on where it was.

The decoder treats image tokens as a set, and its upscaling keeps each token's 4 x 4 pixels to itself: training on a
sample of the 4096 tokens is exact but for the softmax over them. Most steps see such a sample, some the whole frame.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from boothsam.export.architectures.config import GRID, MASK_SIZE
from boothsam.export.architectures.mask_decoder import Attention
from boothsam.export.architectures.sam import Sam, build
from boothsam.training.frozen_scenes import Questions, Scene, ask, fill_cache, seeded_sam
from torch import Tensor, nn

TOKENS = GRID * GRID
HELD_OUT = 8  # scenes, the first ones, that training never sees
SAVE_EVERY = 250
WHOLE_EVERY = 16  # steps
log = logging.getLogger(__name__)


def attend(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attention(q, k, v)`, with a gradient: the exported operators have none."""

    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], attention.num_heads, -1).transpose(1, 2)

    q, k, v = attention.q_proj(q), attention.k_proj(k), attention.v_proj(v)
    mixed = F.scaled_dot_product_attention(split(q), split(k), split(v))
    y: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return y


def decode_tokens(sam: Sam, asked: Questions, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The plain decoder on some image tokens of each prompt, with a gradient.

    chosen: (P, K) int64, tokens row by row. Returns (P, 4, K, 16) logits, a token's 4 x 4 pixels row by row, and
    (P, 4) predicted IoU.
    """
    prompts, decoder = sam.prompt_encoder, sam.mask_decoder
    dense = prompts.no_mask()
    if bool(asked.used.any()):
        dense = torch.where(asked.used[:, None, None, None], prompts.masks(asked.previous), dense)
    image = _pick((asked.embedding + dense).flatten(2).transpose(1, 2), chosen)
    place = prompts.image_positions()[0][chosen]
    points = prompts.points(asked.points, asked.labels, prompts.label_table())
    tokens = torch.cat([decoder.output_tokens().expand(len(points), -1, -1), points], 1)
    first = tokens
    for block in decoder.transformer.blocks():
        own = tokens if block.first else tokens + first
        attended = attend(block.self_attn, own, own, tokens)
        tokens = block.norm1(attended if block.first else tokens + attended)
        tokens = block.norm2(tokens + attend(block.cross_attn_token_to_image, tokens + first, image + place, image))
        tokens = block.norm3(tokens + block.mlp(tokens))
        image = block.norm4(image + attend(block.cross_attn_image_to_token, image + place, tokens + first, tokens))
    last = decoder.transformer
    attended = attend(last.final_attn_token_to_image, tokens + first, image + place, image)
    tokens = last.norm_final_attn(tokens + attended)
    # one row of tokens: (P, C/8, 4, 4 K), in which a token's pixels are four columns
    fine = decoder.output_upscaling(image.transpose(1, 2).unsqueeze(2))
    fine = fine.reshape(*fine.shape[:3], -1, MASK_SIZE // GRID).transpose(2, 3).flatten(3)
    filters = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1)
    logits = torch.einsum("pmc,pckx->pmkx", filters, fine)
    return logits, decoder.iou_prediction_head(tokens[:, 0])


def _pick(values: Tensor, chosen: Tensor) -> Tensor:
    """(P, T, C) at (P, K) -> (P, K, C)."""
    return values.gather(1, chosen[..., None].expand(-1, -1, values.shape[-1]))


def by_token(masks: Tensor) -> Tensor:
    """(P, R, 256, 256) to (P, R, 4096, 16), as `decode_tokens` orders pixels."""
    step = MASK_SIZE // GRID
    blocks = masks.reshape(*masks.shape[:2], GRID, step, GRID, step)
    return blocks.transpose(3, 4).reshape(*masks.shape[:2], TOKENS, step * step)


def choose_tokens(wanted: Tensor, count: int) -> Tensor:
    """(P, count) tokens: half of them anywhere, half where the mask (P, 256, 256) is, mostly on its rim."""
    share = F.avg_pool2d(wanted[:, None], MASK_SIZE // GRID)
    near = F.max_pool2d(share, 5, 1, 2)
    rim = near + F.max_pool2d(-share, 5, 1, 2)
    weight = (0.02 + 0.4 * near + rim).flatten(1)
    anywhere = torch.rand(len(wanted), TOKENS).argsort(1)[:, : count - count // 2]
    return torch.cat([anywhere, torch.multinomial(weight, count // 2)], 1)


def losses(logits: Tensor, wanted: Tensor) -> Tensor:
    """(P, 4) cross entropy plus dice of (P, 4, K, 16) logits against (P, K, 16) coverage."""
    target = wanted[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((2, 3))
    probability = logits.sigmoid()
    overlap, both = (probability * target).sum((2, 3)), (probability + target).sum((2, 3))
    return 2 * entropy + 1 - (2 * overlap + 1) / (both + 1)


def overlaps(logits: Tensor, wanted: Tensor) -> Tensor:
    """(P, 4) IoU."""
    found, truth = logits > 0, wanted[:, None] >= 0.5
    return (found & truth).sum((2, 3)) / (found | truth).sum((2, 3)).clamp(min=1)


def step_loss(logits: Tensor, scores: Tensor, asked: Questions, chosen: Tensor) -> Tensor:
    """The single mask to its reading, the best of three to the wanted one, another one to each further reading.

    Predicted IoUs are held to the true ones where the whole frame was decoded.
    """
    readings = by_token(asked.readings)
    targets = [_pick(readings[:, r], chosen) for r in range(readings.shape[1])]
    found = torch.stack([losses(logits, target) for target in targets], 1)  # (P, readings, 4)
    rows = torch.arange(len(logits))
    main = found[:, 0, 1:]
    total = 0.7 * found[rows, asked.single, 0] + 0.95 * main.min(1).values + 0.05 * main.mean(1)
    taken = F.one_hot(main.argmin(1), main.shape[1])
    for reading in range(1, found.shape[1]):
        total = total + 0.5 * asked.valid[:, reading] * (found[:, reading, 1:] + 10 * taken).min(1).values
    loss = total.mean()
    if chosen.shape[1] == TOKENS:
        loss = loss + 2 * F.smooth_l1_loss(scores, overlaps(logits.detach(), targets[0]), beta=0.1)
    return loss


@dataclass
class Run:
    """Decoder under training, its moving average, and how far it is."""

    sam: Sam
    average: Sam
    optimiser: torch.optim.Optimizer
    steps: int
    step: int = 0

    @staticmethod
    def start(sam: Sam, steps: int, rate: float) -> Run:
        """From a seeded model, whose encoder stays as it is."""
        sam.image_encoder.requires_grad_(False)
        trained = [p for p in sam.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)
        return Run(sam, copy.deepcopy(sam), optimiser, steps)

    def save(self, path: Path) -> None:
        """Everything to go on from, complete or not at all."""
        state = {
            "sam": self.sam.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.sam.load_state_dict(state["sam"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])

    def advance(self, files: Sequence[Path], tokens: int, rate: float) -> float:
        """One step, which depends on the seed of its number alone; returns the loss."""
        rng = np.random.default_rng([17, self.step])
        torch.manual_seed(self.step)
        whole = self.step % WHOLE_EVERY == WHOLE_EVERY - 1
        done = self.step / self.steps
        for group in self.optimiser.param_groups:
            group["lr"] = rate * min(1.0, (self.step + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * done)))
        scene = _scene(files[int(rng.integers(len(files)))])
        asked = ask(scene, rng.choice(len(scene.single), 2 if whole else 4, replace=False).tolist(), rng)
        chosen = torch.arange(TOKENS).expand(len(asked.single), -1)
        if not whole:
            chosen = choose_tokens(asked.readings[:, 0], tokens)
        loss = step_loss(*decode_tokens(self.sam, asked, chosen), asked, chosen)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        trained = [p for p in self.sam.parameters() if p.requires_grad]
        if math.isfinite(float(nn.utils.clip_grad_norm_(trained, 1.0))):
            self.optimiser.step()
        keep = min(0.995, self.step / (self.step + 20))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.sam.parameters(), strict=True):
                if value.requires_grad:
                    mean.lerp_(value, 1 - keep)
        self.step += 1
        return float(loss.detach())


@lru_cache(maxsize=200)
def _scene(file: Path) -> Scene:
    return Scene.load(file)


@torch.inference_mode()
def evaluate(sam: Sam, files: Sequence[Path], prompts: int = 2) -> tuple[float, float]:
    """Mean IoU on whole frames: of the single mask to prompts with a box, and of the best of three to the others."""
    boxed: list[float] = []
    clicked: list[float] = []
    for file in files:
        scene = _scene(file)
        for index in range(min(prompts, len(scene.single))):
            asked = ask(scene, [index])
            chosen = torch.arange(TOKENS).expand(1, -1)
            found = overlaps(decode_tokens(sam, asked, chosen)[0], by_token(asked.readings)[:, 0])[0]
            (boxed if bool((asked.labels == 2).any()) else clicked).append(
                float(found[0] if bool((asked.labels == 2).any()) else found[1:].max())
            )
    return float(np.mean(boxed or [math.nan])), float(np.mean(clicked or [math.nan]))


def train(work: Path, variant: str, *, scenes: int, steps: int, tokens: int, rate: float, seed: int) -> Path:
    """Cache, train and write the averaged weights; goes on from what is in `work`.

    Returns:
        The checkpoint, official names, for `boothsam export`.
    """
    work.mkdir(parents=True, exist_ok=True)
    start, state = work / "start.pt", work / "state.pt"
    if start.exists():
        sam = build(variant)
        sam.load_state_dict(torch.load(start, map_location="cpu", weights_only=True))
    else:
        sam = seeded_sam(variant, seed)
        torch.save(sam.state_dict(), start)
    files = fill_cache(sam, work / "scenes", scenes, seed, torch.get_num_threads())
    run = Run.start(sam, steps, rate)
    if state.exists():
        run.load(state)
    begun, shown = time.monotonic(), []
    while run.step < steps:
        shown.append(run.advance(files[HELD_OUT:], tokens, rate))
        if run.step % SAVE_EVERY == 0 or run.step == steps:
            run.save(state)
            box, click = evaluate(run.average, files[:HELD_OUT])
            minutes = (time.monotonic() - begun) / 60
            log.info(
                "%5.1f min, step %d: loss %.3f, held out: box %.3f, click %.3f",
                *(minutes, run.step, float(np.mean(shown)), box, click),
            )
            shown.clear()
            torch.save(run.average.state_dict(), work / "sam.pt")
    return work / "sam.pt"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--variant", default="vit_t", help="or a configuration, as `boothsam export` takes it")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--tokens", type=int, default=256, help="of the image's, in most steps")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    options = {name: getattr(arguments, name) for name in ("scenes", "steps", "tokens", "rate", "seed")}
    log.info("wrote %s", train(arguments.work, arguments.variant, **options))


if __name__ == "__main__":
    main()
