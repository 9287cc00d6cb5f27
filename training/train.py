"""Trains the starter model: python -m boothsam.training.train training/starter.toml

Stages go from small frames to the full 1024; every batch depends on (seed, step) alone, so a run that was interrupted
goes on exactly where its last checkpoint stood. Writes log.csv, curves.png, checkpoint.pt with moving averages of the
weights (`ema`) inside it, and sample pictures into the run folder.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from boothsam.training.batches import Batch, make_batch
from boothsam.training.curves import draw_curves
from boothsam.training.losses import Losses, total_loss
from boothsam.training.pictures import sample_sheet
from boothsam.training.prompts import correction
from boothsam.training.student import Student
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Stage:
    """`steps` batches of `batch` scenes x `prompts` prompts in a side x side frame from the scenes of some folders.

    A folder that is named several times is drawn from as often.
    """

    pools: tuple[str, ...]
    side: int
    batch: int
    prompts: int
    steps: int


@dataclass(frozen=True)
class TrainConfig:
    """One run; read from TOML."""

    run: str
    stages: tuple[Stage, ...]
    seed: int = 1
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.02
    warmup: int = 60
    ema: float = 0.997
    start_from: str = ""  # a checkpoint whose weights to begin with; what it lacks starts afresh
    corrected: float = 0.4  # share of a round's prompts that go through another, with one more click where it erred
    rounds: int = 2  # such rounds at most
    threads: int = 2
    workers: int = 1  # processes that make batches; a GPU wants most of the machine's cores
    device: str = "cpu"
    bfloat16: bool = True
    checkpoint_every: int = 100
    picture_every: int = 200

    @staticmethod
    def read(path: Path) -> TrainConfig:
        """Parse a TOML file; unknown keys are errors."""
        data = tomllib.loads(path.read_text())
        stages = tuple(Stage(**stage | {"pools": tuple(stage["pools"])}) for stage in data.pop("stages", []))
        unknown = set(data) - {f.name for f in fields(TrainConfig)}
        if unknown or not stages:
            raise ValueError(
                f"{path}: unknown keys {sorted(unknown)}, {len(stages)} stages; hint: see training/starter.toml"
            )
        return TrainConfig(stages=stages, **data)

    @property
    def steps(self) -> int:
        """All steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to 2 %."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


@dataclass
class Round:
    """Prompts and answers so far: rows (R,) of the batch, coords (R, N, 2), labels (R, N), logits, scores."""

    rows: Tensor
    coords: Tensor
    labels: Tensor
    logits: Tensor
    scores: Tensor


class Trainer:
    """Model, optimiser, moving average and step counter of one run."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = torch.device(config.device)
        self.model = Student().to(self.device)
        self.model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.start_from:
            state = torch.load(config.start_from, map_location=self.device, weights_only=True)
            unused = self.model.load_state_dict(state["ema"], strict=False).unexpected_keys
            if unused:
                raise ValueError(f"{config.start_from} holds {unused[0]} and more that this student does not have")
        self.average = Student().to(self.device)
        self.average.load_state_dict(self.model.state_dict())
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=config.learning_rate,
        )
        self.step = 0
        self.seconds = 0.0

    def save(self, path: Path) -> None:
        """Write everything a run needs to go on."""
        state = {
            "config": asdict(self.config),
            "student": self.model.config.to_dict(),
            "model": self.model.state_dict(),
            "ema": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Read what `save` wrote."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])

    def train_step(self, batch: Batch) -> tuple[Losses, Losses | None, float]:
        """One optimiser step on first and, for some, corrected prompts; returns their losses and the gradient norm."""
        config, rng = self.config, np.random.default_rng([self.config.seed, self.step, 7])
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate_at(self.step)
        batch = to_device(batch, self.device)
        frame = batch.frame[batch.image_of]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bfloat16):
            image = batch.image.to(memory_format=torch.channels_last)
            features = self.model.encoder(image)
            logits, scores = self.model.decoder(*features, batch.coords, batch.labels, image_of=batch.image_of)
        first = total_loss(logits, scores, batch.readings, batch.valid, batch.single, frame)
        weighted, prompts, second = first.total * len(logits), len(logits), None
        state = Round(torch.arange(len(logits), device=self.device), batch.coords, batch.labels, logits, scores)
        for _ in range(config.rounds):
            again = np.sort(rng.permutation(len(state.rows))[: int(config.corrected * len(state.rows))])
            if len(again) == 0:
                break
            state, losses = self._correct(rng, batch, features, state, again, frame)
            weighted, prompts = weighted + losses.total * len(state.rows), prompts + len(state.rows)
            second = second or losses
        loss = weighted / prompts
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0))
        if math.isfinite(norm):
            self.optimiser.step()
        self._average()
        self.step += 1
        return first, second, norm

    def _correct(
        self,
        rng: np.random.Generator,
        batch: Batch,
        features: tuple[Tensor, ...],
        before: Round,
        again: np.ndarray,
        frame: Tensor,
    ) -> tuple[Round, Losses]:
        """Another round for some of the prompts of the one before."""
        coords, labels, previous, used = corrected_prompts(rng, batch, before, again)
        rows = before.rows[torch.from_numpy(again).to(self.device)]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            logits, scores = self.model.decoder(*features, coords, labels, previous, used, batch.image_of[rows])
        only, first = torch.zeros_like(batch.valid[rows]), torch.zeros_like(batch.single[rows])
        losses = total_loss(logits, scores, batch.readings[rows], only, first, frame[rows])
        return Round(rows, coords, labels, logits, scores), losses

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        new = self.model.state_dict()
        for name, value in self.average.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(new[name], 1 - keep)
            else:
                value.copy_(new[name])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on a device."""
    return Batch(**{f.name: getattr(batch, f.name).to(device) for f in fields(Batch)})


def corrected_prompts(
    rng: np.random.Generator, batch: Batch, before: Round, again: np.ndarray
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The next round's prompts: one more click on the larger error, and mostly the logits so far.

    `again` (R,) picks rows of the round before. Returns coords (R, N, 2), labels (R, N), previous logits (R, 1, M, M)
    and which rows use them (R,).
    """
    coords, labels = before.coords[again].cpu().clone(), before.labels[again].cpu().clone()
    logits, scores = before.logits.detach()[again], before.scores.detach()[again]
    tokens = np.where(rng.random(len(again)) < 0.5, 0, 1 + scores[:, 1:].argmax(1).cpu().numpy())
    previous = logits[np.arange(len(again)), tokens][:, None]
    guess = (previous[:, 0] > 0).cpu().numpy()
    wanted = (batch.readings[before.rows[again], 0] >= 0.5).cpu().numpy()
    for k in range(len(again)):
        click = correction(rng, guess[k], wanted[k])
        free = torch.nonzero(labels[k] == -1)[:, 0]
        if click is not None and len(free):
            coords[k, free[0]] = torch.from_numpy(click[0]).to(coords) * 1024 - 0.5
            labels[k, free[0]] = click[1]
    used = torch.from_numpy((rng.random(len(again)) < 0.75).astype(np.float32))
    device = logits.device
    return coords.to(device), labels.to(device), previous.clamp(-20, 20), used.to(device)


class Steps(Dataset[Batch]):
    """The batches of all steps from `start` on, each made from (seed, step) alone."""

    def __init__(self, config: TrainConfig, start: int) -> None:
        self.config, self.start = config, start
        named = {pool for stage in config.stages for pool in stage.pools}
        self.files = {pool: sorted(Path(pool).glob("*.npz")) for pool in named}
        empty = sorted(pool for pool, found in self.files.items() if not found)
        if empty:
            raise FileNotFoundError(f"no scenes in {empty}; hint: python -m boothsam.training.pool --out {empty[0]}")

    def __len__(self) -> int:
        return max(0, self.config.steps - self.start)

    def __getitem__(self, index: int) -> Batch:
        step = self.start + index
        if step >= self.config.steps:
            raise IndexError(step)
        stage = self.config.stage_at(step)
        files = [path for pool in stage.pools for path in self.files[pool]]
        return make_batch(files, self.config.seed, step, stage.side, stage.batch, stage.prompts)


def batches(config: TrainConfig, start: int) -> Iterator[Batch]:
    """Batches from step `start` on, in order, made by `workers` processes (by this one where that is 0)."""
    loader = DataLoader(
        Steps(config, start),
        batch_size=None,
        num_workers=config.workers,
        worker_init_fn=_one_thread,
        pin_memory=config.device != "cpu",
    )
    return iter(loader)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def run(config: TrainConfig) -> Path:
    """Train to the end (or on from the checkpoint); returns the checkpoint's path."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    folder = Path(config.run)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = folder / "checkpoint.pt", folder / "log.csv"
    trainer = Trainer(config)
    if checkpoint.exists():
        trainer.load(checkpoint)
    before, start = trainer.seconds, time.perf_counter()
    for batch in batches(config, trainer.step):
        first, second, norm = trainer.train_step(batch)
        trainer.seconds = before + time.perf_counter() - start
        _log(log, trainer, batch, first, second, norm)
        done = trainer.step == config.steps
        if done or trainer.step % config.checkpoint_every == 0:
            trainer.save(checkpoint)
        if done or trainer.step % config.picture_every == 0:
            sample_sheet(trainer.average, batch, folder / f"sample-{trainer.step:06d}.png")
            draw_curves([log], folder / "curves.png")
    return checkpoint


def _log(path: Path, trainer: Trainer, batch: Batch, first: Losses, second: Losses | None, norm: float) -> None:
    boxed = (batch.labels == 2).any(1)
    clicked = ~boxed & ((batch.labels >= 0).sum(1) == 1)

    def mean(values: Tensor, chosen: Tensor | None = None) -> str:
        values = values if chosen is None else values[chosen]
        return f"{float(values.float().mean()):.4f}" if values.numel() else ""

    row = {
        "step": str(trainer.step),
        "seconds": f"{trainer.seconds:.1f}",
        "side": str(batch.image.shape[-1]),
        "loss": f"{float(first.total.detach()):.4f}",
        "mask": f"{float(first.mask):.4f}",
        "score": f"{float(first.score):.4f}",
        "box_single": mean(first.single_iou, boxed),
        "box_best": mean(first.best_iou, boxed),
        "click_best": mean(first.best_iou, clicked),
        "click_top": mean(first.top_iou, clicked),
        "second_single": mean(second.single_iou) if second else "",
        "score_error": mean(first.score_error),
        "norm": f"{norm:.2f}",
    }
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    sys.stdout.write(f"{run(TrainConfig.read(parser.parse_args().config))}\n")


if __name__ == "__main__":
    main()
