"""PyTorch eager, or compiled, with the NumPy and Pillow around it that the original's examples show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from boothsam.bench.plan import Plan, Subject, ellipse_logits
from boothsam.bench.runners import Cropped
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.runtime.transforms import input_size
from boothsam.service.stages import Stages
from PIL import Image
from torch.nn.functional import interpolate

_FRAME = 1024


def load_torch(plan: Plan) -> tuple[SamModel, Any]:
    """The plan's checkpoint behind the runtime's model class, and the module itself."""
    if plan.variant == "student":
        from boothsam.runtime.manifest import ModelManifest
        from boothsam.training.export import load_student, torch_model

        student = load_student(Path(plan.checkpoint))
        return torch_model(student, ModelManifest.load(Path(plan.model))), student
    from boothsam.export.checkpoints import load_checkpoint
    from boothsam.export.torch_session import torch_model as sam_model

    sam = load_checkpoint(Path(plan.checkpoint), plan.variant).sam
    return sam_model(sam, plan.variant), sam


class TorchRunner:
    """What a user of segment_anything has: set_image, predict with one mask, upscaling of that mask to the photo."""

    def __init__(self, plan: Plan, *, compiled: bool) -> None:
        torch.set_num_threads(plan.threads)
        self._plan = plan
        self._model, _ = load_torch(plan)
        if compiled:
            for session in self._model.sessions.values():
                session._run = torch.compile(session._run, dynamic=False)  # type: ignore[attr-defined]
        self._embedding: ImageEmbedding | None = None
        self._box = np.zeros(4)

    def crop(self, subject: Subject) -> Cropped:
        """Reading, resizing and writing with Pillow; composition with NumPy, as the usual examples do it."""
        stages = Stages()
        with stages.time("decode photo"):
            image = np.asarray(Image.open(subject.file).convert("RGB"))
        height, width = image.shape[:2]
        with stages.time("resize"):
            down, across = input_size((height, width))
            small = np.asarray(Image.fromarray(image).resize((across, down), Image.Resampling.BILINEAR))
            frame = np.zeros((_FRAME, _FRAME, 3), np.uint8)
            frame[:down, :across] = small
        with stages.time("encoder"):
            embedding = self._model.encode_frame(frame, np.array([down, across], np.int32), (height, width))
        with stages.time("decoder"):
            masks, scores = self._model.decode(embedding, Prompts.make(box_xyxy=subject.box_xyxy)).select(False)
        logits = masks[0, 0]
        with stages.time("mask"), torch.inference_mode():
            low = torch.from_numpy(ellipse_logits() if self._plan.seeded else logits.copy())[None, None]
            inside = interpolate(low, (_FRAME, _FRAME), mode="bilinear", align_corners=False)[..., :down, :across]
            full = interpolate(inside, (height, width), mode="bilinear", align_corners=False)
            mask = (full > 0)[0, 0].numpy()
        with stages.time("alpha"):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            layered = np.dstack([image[window], mask[window].astype(np.uint8) * 255])
        with stages.time("encode picture"):
            buffer = io.BytesIO()
            Image.fromarray(layered).save(buffer, "PNG")
        self._embedding, self._box = embedding, np.asarray(subject.box_xyxy)
        return Cropped(buffer.getvalue(), stages.ms, logits, float(scores[0, 0]))

    def decode(self, prompts: int) -> None:
        """One at a time: on CPUs eager PyTorch gets slower with the batch, so this is its best way."""
        if self._embedding is None:
            raise RuntimeError("crop comes first")
        prompt = Prompts.make(box_xyxy=self._box)
        for _ in range(prompts):
            self._model.decode(self._embedding, prompt)

    def versions(self) -> dict[str, str]:
        """PyTorch and what surrounds it."""
        return {"torch": torch.__version__, "pillow": PIL.__version__}
