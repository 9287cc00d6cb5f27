"""The student learns from a teacher's labels: masks, predicted IoUs and, through a projection, the embedding itself.

The projection (1x1, from the student's embedding to the teacher's) exists in training alone and is not exported.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from boothsam.runtime.errors import CheckpointError, OptionError
from boothsam.training.distill_batches import DistillBatch, make_batch
from boothsam.training.layers import StudentConfig
from boothsam.training.losses import iou, total_loss
from boothsam.training.student import Student
from boothsam.training.teacher import LabelConfig
from boothsam.training.train import Round, corrected_prompts, to_device
from torch import Tensor, nn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STRIDE = 32  # of the student's embedding, and half of what its frame must be a multiple of

STARTER = Path(__file__).parent / "starter.pt"  # the bundled model's weights as float16, for --start-from starter


@dataclass(frozen=True)
class DistillConfig:
    """One distillation; read from TOML, where [labels] and [student] are tables of their own.

    side: of the training frame, a multiple of 128. embedding_weight: of the embedding's loss beside the masks'.
    corrected: share of the prompts that get a second round with one more click. hold_out: share of the photos that are
    never trained on. bfloat16: faster on GPUs and on CPUs that have it, slower on others.
    """

    seed: int = 1
    side: int = 1024
    batch: int = 4
    prompts: int = 6
    steps: int = 3000
    learning_rate: float = 6e-4
    weight_decay: float = 0.02
    warmup: int = 60
    ema: float = 0.997
    corrected: float = 0.4
    embedding_weight: float = 0.5
    hold_out: float = 0.1
    min_masks: int = 20
    threads: int = 0  # 0: PyTorch's own choice
    device: str = "cpu"
    bfloat16: bool = False
    checkpoint_every: int = 100
    labels: LabelConfig = field(default_factory=LabelConfig)
    student: StudentConfig = field(default_factory=StudentConfig)

    def __post_init__(self) -> None:
        if self.side % 128 or self.side < 128:
            raise OptionError(f"side {self.side} is no multiple of 128", hint="use 512, 768 or 1024")
        if self.batch == 1 and self.side < 256:
            raise OptionError(
                f"batch 1 at side {self.side} leaves BatchNorm a single value", hint="batch = 2, or side = 256"
            )
        for name in ("batch", "prompts", "steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 < self.hold_out < 1:
            raise OptionError(f"hold_out is {self.hold_out}, expected a share above 0 and below 1")

    @staticmethod
    def read(path: Path | None, **overrides: Any) -> DistillConfig:
        """From a TOML file, or the defaults; `overrides` that are not None replace what stands there.

        Raises:
            OptionError: no TOML, an unknown key, or a value out of range.
        """
        try:
            data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise OptionError(f"{path} is no configuration: {error}", hint="give a TOML file") from None
        data |= {name: value for name, value in overrides.items() if value is not None}
        labels = _section(LabelConfig, data.pop("labels", {}), f"[labels] of {path}")
        student = _section(StudentConfig, data.pop("student", {}), f"[student] of {path}")
        return DistillConfig(**_known(DistillConfig, data, str(path)), labels=labels, student=student)

    def rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to 2 %."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def _known(kind: type[Any], data: Mapping[str, Any], where: str) -> dict[str, Any]:
    names = [f.name for f in fields(kind)]
    unknown = sorted(set(data) - set(names))
    if unknown:
        raise OptionError(f"{where} has the unknown keys {', '.join(unknown)}", hint=f"known are {', '.join(names)}")
    return dict(data)


def _section(kind: type[Any], data: Mapping[str, Any], where: str) -> Any:
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in _known(kind, data, where).items()})


def read_student(checkpoint: Path) -> tuple[StudentConfig, Mapping[str, Tensor]]:
    """Configuration and averaged weights of a training checkpoint.

    Raises:
        CheckpointError: another kind of file.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        config = _section(StudentConfig, state["student"], str(checkpoint))
        return config, state["ema"]
    except OSError as error:
        raise CheckpointError(f"{checkpoint} cannot be read ({error})", hint="--start-from takes a file") from None
    except Exception as error:  # torch raises whatever its zip and pickle readers stumble over
        raise CheckpointError(
            f"{checkpoint} is no checkpoint of boothsam's training ({type(error).__name__}: {error})",
            hint="--start-from takes checkpoint.pt of `python -m boothsam.training.train` or of `boothsam distill`",
        ) from None


@dataclass(frozen=True)
class StepLosses:
    """Scalars of one step, and the mean IoU of the single mask by box and of the best of three by click."""

    total: float
    mask: float
    score: float
    embedding: float
    norm: float
    single_iou: float
    best_iou: float


class DistillTrainer:
    """Student, projection, optimiser, moving average and step counter of one distillation."""

    def __init__(self, config: DistillConfig, channels: int, start: Mapping[str, Tensor] | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, torch.device(config.device)
        self.model = Student(config.student)
        if start is not None:
            self.model.load_state_dict(start)
        self.average = Student(config.student)
        self.average.load_state_dict(self.model.state_dict())
        self.project = nn.Conv2d(config.student.embedding, channels, 1)
        for part in (self.model, self.average, self.project):
            part.to(self.device)
        self.average.eval()
        weights = [*self.model.parameters(), *self.project.parameters()]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
        )
        self.step, self.seconds = 0, 0.0

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write everything a run needs to go on, complete or not at all; `facts` say which run it is."""
        state = {
            "facts": dict(facts),
            "config": asdict(self.config),
            "student": self.model.config.to_dict(),
            "model": self.model.state_dict(),
            "ema": self.average.state_dict(),
            "project": self.project.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `save` wrote."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["ema"])
        self.project.load_state_dict(state["project"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])

    def train_step(self, batch: DistillBatch) -> StepLosses:
        """One optimiser step on first prompts and, for some, a corrected round."""
        config, rng = self.config, np.random.default_rng([self.config.seed, self.step, 7])
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate_at(self.step)
        asked = to_device(batch.prompts, self.device)
        worth = batch.worth.to(self.device)
        frame = asked.frame[asked.image_of]
        with self._mixed():
            features = self.model.encoder(asked.image)
            logits, scores = self.model.decoder(*features, asked.coords, asked.labels, image_of=asked.image_of)
        # Scores are held to the teacher's below; detached, they leave total_loss with the masks alone.
        first = total_loss(logits, scores.detach(), asked.readings, asked.valid, asked.single, frame)
        target = score_targets(logits.detach(), asked.readings, worth, frame)
        score = F.smooth_l1_loss(scores.float(), target, beta=0.1)
        alike = embedding_loss(
            self.project(features[0].float()), batch.embedding.to(self.device), batch.inside.to(self.device)
        )
        loss = first.total + 2 * score
        again = np.sort(rng.permutation(len(logits))[: int(config.corrected * len(logits))])
        if len(again):
            rows = torch.from_numpy(again).to(self.device)
            so_far = Round(torch.arange(len(logits), device=self.device), asked.coords, asked.labels, logits, scores)
            coords, labels, previous, used = corrected_prompts(rng, asked, so_far, again)
            with self._mixed():
                logits, scores = self.model.decoder(*features, coords, labels, previous, used, asked.image_of[rows])
            wanted, only = asked.readings[rows], torch.zeros_like(asked.valid[rows])
            main = torch.zeros_like(asked.single[rows])
            second = total_loss(logits, scores.detach(), wanted, only, main, frame[rows])
            target = score_targets(logits.detach(), wanted[:, :1], worth[rows, :1], frame[rows])
            more = second.total + 2 * F.smooth_l1_loss(scores.float(), target, beta=0.1)
            loss = (loss * len(asked.labels) + more * len(again)) / (len(asked.labels) + len(again))
        loss = loss + config.embedding_weight * alike
        norm = self._descend(loss)
        boxed = (asked.labels == 2).any(1)
        return StepLosses(
            float(loss.detach()),
            float(first.mask),
            float(score.detach()),
            float(alike.detach()),
            norm,
            _mean(first.single_iou[boxed]),
            _mean(first.best_iou[~boxed]),
        )

    def _mixed(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16)

    def _descend(self, loss: Tensor) -> float:
        """One optimiser step and the moving average's; returns the gradient's norm. Infinite gradients are skipped."""
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        weights = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(weights, 1.0))
        if math.isfinite(norm):
            self.optimiser.step()
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        new = self.model.state_dict()
        with torch.no_grad():
            for name, value in self.average.state_dict().items():
                if value.dtype.is_floating_point:
                    value.lerp_(new[name], 1 - keep)
                else:
                    value.copy_(new[name])
        self.step += 1
        return norm


def _mean(values: Tensor) -> float:
    return float(values.float().mean()) if values.numel() else math.nan


def score_targets(logits: Tensor, readings: Tensor, worth: Tensor, frame: Tensor) -> Tensor:
    """(P, 4) what the teacher would say of the student's masks: its score of the reading times the IoU with it.

    The best reading counts. logits (P, 4, M, M); readings (P, R, M, M); worth (P, R), 0 where none; frame (P, M, M).
    """
    found = [worth[:, r, None] * iou(logits, readings[:, r], frame) for r in range(readings.shape[1])]
    return torch.stack(found).amax(0)


def embedding_loss(projected: Tensor, wanted: Tensor, inside: Tensor) -> Tensor:
    """Scalar: smooth L1 plus one minus the cosine, averaged over the cells with the photo in them.

    projected, wanted (B, C, G, G); inside (B, G, G). `wanted` is divided by its deviation: teachers differ in scale.
    """
    cells = inside.sum().clamp(min=1)
    mask = inside[:, None]
    deviation = ((wanted**2 * mask).sum() / (cells * wanted.shape[1])).sqrt().clamp(min=1e-6)
    wanted = wanted / deviation
    far = (F.smooth_l1_loss(projected, wanted, reduction="none").mean(1) * inside).sum() / cells
    turned = ((1 - F.cosine_similarity(projected, wanted, dim=1)) * inside).sum() / cells
    return far + turned


def batches(config: DistillConfig, files: Sequence[Path], start: int) -> Iterator[DistillBatch]:
    """Batches from step `start` on, one made ahead in a thread."""

    def make(step: int) -> DistillBatch:
        return make_batch(
            files,
            config.seed,
            step,
            side=config.side,
            grid=config.side // STRIDE,
            batch=config.batch,
            prompts=config.prompts,
        )

    with ThreadPoolExecutor(1) as worker:
        waiting = worker.submit(make, start)
        for step in range(start, config.steps):
            ready = waiting.result()
            if step + 1 < config.steps:
                waiting = worker.submit(make, step + 1)
            yield ready
