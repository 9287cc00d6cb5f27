"""This project's runtime as one implementation of the lab."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from boothsam.bench.plan import Plan, Subject, ellipse_logits
from boothsam.bench.runners import Cropped
from boothsam.runtime.cutout import cut_out
from boothsam.runtime.images import encode_image, load_image
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.runtime.transforms import mask_window, preprocess, upscale_logits_window
from boothsam.service.stages import Stages

_PACKAGES = {"ort-cpu": "onnxruntime", "ort-cuda": "onnxruntime-gpu", "ov": "openvino", "trt": "tensorrt"}


class BoothsamRunner:
    """The exported model in one backend."""

    def __init__(self, plan: Plan, backend: str) -> None:
        self._plan, self._backend = plan, backend
        self._model = SamModel.load(plan.model, backend=backend, threads=plan.threads)
        self._embedding: ImageEmbedding | None = None
        self._box = np.zeros(4)

    def crop(self, subject: Subject) -> Cropped:
        """Alpha is what cut_out takes beyond the mask's upscaling, which is timed by itself on the same window."""
        stages = Stages()
        with stages.time("decode photo"):
            image = load_image(Path(subject.file).read_bytes())
        with stages.time("resize"):
            frame, size_hw = preprocess(image, self._model.manifest.image_size)
        hw = (image.shape[0], image.shape[1])
        with stages.time("encoder"):
            embedding = self._model.encode_frame(frame, size_hw, hw)
        with stages.time("decoder"):
            masks, scores = self._model.decode(embedding, Prompts.make(box_xyxy=subject.box_xyxy)).select(False)
        logits = masks[0, 0]
        drawn = ellipse_logits() if self._plan.seeded else logits
        with stages.time("alpha"):
            cut = cut_out(image, drawn, box=subject.box_xyxy)
        with stages.time("encode picture"):
            picture = encode_image(cut.rgba, "png")
        window = mask_window(drawn, hw)
        with stages.time("mask"):
            if window is not None:
                upscale_logits_window(drawn, hw, window)
        ms = dict(stages.ms)
        ms["alpha"] = max(0.0, ms["alpha"] - ms["mask"])
        self._embedding, self._box = embedding, np.asarray(subject.box_xyxy)
        return Cropped(picture, ms, logits, float(scores[0, 0]))

    def decode(self, prompts: int) -> None:
        """All prompts in one call."""
        if self._embedding is None:
            raise RuntimeError("crop comes first")
        self._model.decode(self._embedding, Prompts.make(box_xyxy=np.tile(self._box, (prompts, 1))))

    def versions(self) -> dict[str, str]:
        """The backend's package."""
        package = _PACKAGES[self._backend]
        return {package: version(package)}
