"""This project's runtime as one implementation of the lab."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from boothsam.bench.plan import Plan, Subject, ellipse_logits
from boothsam.bench.runners import Cropped, fastest_batch
from boothsam.runtime.cutout import cut_out
from boothsam.runtime.images import encode_image, load_image
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.runtime.transforms import mask_window, upscale_logits_window, upscale_mask
from boothsam.service.stages import Stages

BATCHES = (8, 32)  # prompts at once that `tune` tries
_PACKAGES = {"ort-cpu": "onnxruntime", "ort-cuda": "onnxruntime-gpu", "ov": "openvino", "trt": "tensorrt"}


class BoothsamRunner:
    """The exported model in one backend, with the exact or the fast resize."""

    def __init__(self, plan: Plan, backend: str, resize: str) -> None:
        self._plan, self._backend = plan, backend
        self._model = SamModel.load(plan.model, backend=backend, threads=plan.threads, resize=resize)
        self._embedding: ImageEmbedding | None = None
        self._batch = 64
        self._box = np.zeros(4)

    def crop(self, subject: Subject) -> Cropped:
        """Alpha is what cut_out takes beyond the mask's upscaling, which is timed by itself on the same window."""
        stages = Stages()
        with stages.time("decode photo"):
            image = load_image(Path(subject.file).read_bytes())
        with stages.time("resize"):
            frame, size_hw = self._model.preprocess(image)
        hw = (image.shape[0], image.shape[1])
        with stages.time("encoder"):
            embedding = self._model.encode_frame(frame, size_hw, hw)
        with stages.time("decoder"):
            masks, scores = self._model.decode(embedding, Prompts.make(box_xyxy=subject.box_xyxy)).select(False)
        logits = masks[0, 0]
        drawn = ellipse_logits(subject.box_xyxy, hw) if self._plan.drawn else logits
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

    def embed(self, subject: Subject) -> float:
        """Encoder and `prepare`, without decoding and resizing the photo."""
        image = load_image(Path(subject.file).read_bytes())
        frame, size_hw = self._model.preprocess(image)
        start = perf_counter()
        self._embedding = self._model.encode_frame(frame, size_hw, (image.shape[0], image.shape[1]))
        self._box = np.asarray(subject.box_xyxy)
        return 1e3 * (perf_counter() - start)

    def tune(self) -> int:
        """The decoder takes any number in one call; what a CPU's caches hold is fewer than what a GPU needs."""
        self._batch = fastest_batch(lambda size: self._in_batches(max(BATCHES), size), BATCHES)
        return self._batch

    def decode(self, prompts: int) -> None:
        """In batches of what `tune` found, all at once before."""
        self._in_batches(prompts, self._batch)

    def _in_batches(self, prompts: int, size: int) -> None:
        photo = self._photo()
        for start in range(0, prompts, size):
            boxes = np.tile(self._box, (min(size, prompts - start), 1))
            self._model.decode(photo, Prompts.make(box_xyxy=boxes))

    def click(self) -> Mapping[str, float]:
        """From a click to the photo-sized mask, as SamPredictor.predict does it; "decoder" is the network alone."""
        embedding = self._photo()
        middle = [[(self._box[0] + self._box[2]) / 2, (self._box[1] + self._box[3]) / 2]]
        with _network_ms(self._model) as spent:
            start = perf_counter()
            masks, _ = self._model.decode(embedding, Prompts.make(middle, [1])).select(False)
            drawn = ellipse_logits(self._box.tolist(), embedding.original_hw) if self._plan.drawn else masks[0, 0]
            upscale_mask(drawn, embedding.original_hw)
            total = 1e3 * (perf_counter() - start)
        return {"total": total, "decoder": sum(spent)}

    def _photo(self) -> ImageEmbedding:
        if self._embedding is None:
            raise RuntimeError("crop or embed comes first")
        return self._embedding

    def versions(self) -> dict[str, str]:
        """The backend's package."""
        package = _PACKAGES[self._backend]
        return {package: version(package)}


@contextmanager
def _network_ms(model: SamModel) -> Iterator[list[float]]:
    """Milliseconds of every network that runs meanwhile."""
    spent: list[float] = []

    def timed(run: Any) -> Any:
        def wrapper(*args: Any, **options: Any) -> Any:
            start = perf_counter()
            try:
                return run(*args, **options)
            finally:
                spent.append(1e3 * (perf_counter() - start))

        return wrapper

    originals = {session: session.run for session in model.sessions.values()}
    for session, run in originals.items():
        session.run = timed(run)  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        for session in originals:
            del session.run
