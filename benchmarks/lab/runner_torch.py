"""PyTorch eager, or compiled, with the NumPy and Pillow around it that the original's examples show.

Imports no more of boothsam than the architectures, so that PyTorch's cold start pays for nothing of ours.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from boothsam.bench.naive import compose, to_png
from boothsam.bench.plan import Plan, Subject, ellipse_logits
from boothsam.bench.runners import Cropped, fastest_batch
from boothsam.service.stages import Stages
from PIL import Image
from torch.nn.functional import interpolate

_FRAME = 1024
BATCHES = (1, 2, 4, 8)  # prompts at once that `tune` tries
Size = tuple[int, int]
# (1024, 1024, 3) uint8 frame and (2,) int32 size -> feature maps; these, (P, N, 2) points and labels -> logits, scores
Encode = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]
Decode = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def load_torch(plan: Plan) -> tuple[Encode, Decode]:
    """Encoder and decoder of the plan's checkpoint."""
    if plan.variant == "student":
        return _load_student(Path(plan.checkpoint))
    from boothsam.export.checkpoints import load_checkpoint

    sam = load_checkpoint(Path(plan.checkpoint), plan.variant).sam

    def encode(image: torch.Tensor, size_hw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (sam.encode(image, size_hw),)

    return encode, sam.decode


def _load_student(checkpoint: Path) -> tuple[Encode, Decode]:
    from boothsam.training.layers import MEAN, STD, StudentConfig
    from boothsam.training.student import Student

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in state["student"].items()}
    student = Student(StudentConfig(**config))
    student.load_state_dict(state["ema"])
    student.eval()
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]

    def encode(image: torch.Tensor, size_hw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pixels = (image.permute(2, 0, 1).float() - mean) / std
        pixels[:, int(size_hw[0]) :] = 0
        pixels[:, :, int(size_hw[1]) :] = 0
        features: tuple[torch.Tensor, ...] = student.encoder(pixels[None])
        return features

    return encode, student.decoder


class TorchRunner:
    """What a user of segment_anything has: set_image, predict with one mask, upscaling of that mask to the photo."""

    def __init__(self, plan: Plan, *, compiled: bool) -> None:
        torch.set_num_threads(plan.threads)
        self._plan = plan
        self._encode, self._decode = load_torch(plan)
        if compiled:
            # Empty, or the first call would find what an earlier run compiled.
            self._cache = tempfile.TemporaryDirectory()
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = self._cache.name
            self._encode = torch.compile(self._encode, dynamic=False)
            self._decode = torch.compile(self._decode, dynamic=False)
        self._batch = 1
        self._features: tuple[torch.Tensor, ...] = ()
        self._hw: tuple[Size, Size] = (0, 0), (0, 0)
        self._box: tuple[float, ...] = ()

    def crop(self, subject: Subject) -> Cropped:
        """Reading, resizing and writing with Pillow; composition with NumPy, as the usual examples do it."""
        stages = Stages()
        with stages.time("decode photo"):
            image = np.asarray(Image.open(subject.file).convert("RGB"))
        with stages.time("resize"):
            frame, inside = _resize(image)
        with stages.time("encoder"):
            self._set(frame, inside, (image.shape[0], image.shape[1]), subject)
        with stages.time("decoder"):
            masks, scores = self._ask(self._corners(1), [2, 3])
        logits = masks[0, 0].numpy()
        with stages.time("mask"):
            mask = self._upscale(logits)
        with stages.time("alpha"):
            layered = compose(image, mask)
        with stages.time("encode picture"):
            picture = to_png(layered)
        return Cropped(picture, stages.ms, logits, float(scores[0, 0]))

    def embed(self, subject: Subject) -> float:
        """The encoder, from a frame that was resized before."""
        image = np.asarray(Image.open(subject.file).convert("RGB"))
        frame, inside = _resize(image)
        start = perf_counter()
        self._set(frame, inside, (image.shape[0], image.shape[1]), subject)
        return 1e3 * (perf_counter() - start)

    def tune(self) -> int:
        """On CPUs eager PyTorch gets slower with large batches; which is best hangs on the machine, so it is tried."""
        self._batch = fastest_batch(lambda size: self._in_batches(max(BATCHES), size), BATCHES)
        return self._batch

    def decode(self, prompts: int) -> None:
        """In batches of what `tune` found, one at a time before."""
        self._in_batches(prompts, self._batch)

    def _in_batches(self, prompts: int, size: int) -> None:
        for start in range(0, prompts, size):
            self._ask(self._corners(min(size, prompts - start)), [2, 3])

    def click(self) -> Mapping[str, float]:
        """A click, as predict with multimask_output=False answers it, to the photo-sized mask."""
        box = self._corners(1)[0]
        start = perf_counter()
        points = np.concatenate([box.mean(0, keepdims=True), np.zeros((1, 2), np.float32)])[None]
        masks, _ = self._ask(points, [1, -1])
        decoded = perf_counter()
        self._upscale(masks[0, 0].numpy())
        return {"total": 1e3 * (perf_counter() - start), "decoder": 1e3 * (decoded - start)}

    def versions(self) -> dict[str, str]:
        """PyTorch and what surrounds it."""
        return {"torch": torch.__version__, "pillow": PIL.__version__}

    def _set(self, frame: npt.NDArray[np.uint8], inside: Size, hw: Size, subject: Subject) -> None:
        with torch.inference_mode():
            self._features = self._encode(torch.from_numpy(frame), torch.tensor(inside, dtype=torch.int32))
        self._hw, self._box = (hw, inside), subject.box_xyxy

    def _corners(self, prompts: int) -> npt.NDArray[np.float32]:
        """(P, 2, 2) copies of the box's corners in frame pixels."""
        (height, width), (down, across) = self._hw
        corners = np.asarray(self._box, np.float64).reshape(1, 2, 2) * (across / width, down / height)
        return np.repeat(corners, prompts, 0).astype(np.float32)

    def _ask(self, points: npt.NDArray[np.float32], labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._features:
            raise RuntimeError("crop or embed comes first")
        with torch.inference_mode():
            kinds = torch.tensor([labels] * len(points), dtype=torch.int32)
            return self._decode(*self._features, torch.from_numpy(points), kinds)

    def _upscale(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        (hw, (down, across)) = self._hw
        with torch.inference_mode():
            low = torch.from_numpy(ellipse_logits(self._box, hw) if self._plan.drawn else logits)[None, None]
            inside = interpolate(low, (_FRAME, _FRAME), mode="bilinear", align_corners=False)[..., :down, :across]
            return np.asarray((interpolate(inside, hw, mode="bilinear", align_corners=False) > 0)[0, 0].numpy())


def _resize(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], Size]:
    """The photo in the upper left of a (1024, 1024, 3) frame, and its (height, width) there, as ResizeLongestSide."""
    scale = _FRAME / max(image.shape[:2])
    down, across = int(image.shape[0] * scale + 0.5), int(image.shape[1] * scale + 0.5)
    frame = np.zeros((_FRAME, _FRAME, 3), np.uint8)
    frame[:down, :across] = np.asarray(Image.fromarray(image).resize((across, down), Image.Resampling.BILINEAR))
    return frame, (down, across)
