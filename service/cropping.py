"""One photo to its product pictures: decode, encode, ask, cut out, write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from boothsam.runtime.cutout import AlphaOptions, CutOut, cut_out
from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import load_image, save_image
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import Uint8Array, preprocess
from boothsam.service.outputs import Task, make_parent
from boothsam.service.prompts import Answer, Request
from boothsam.service.stages import Stages

SMALL = 0.001  # share of the photo below which a hole or an island is small


@dataclass(frozen=True)
class Look:
    """How the product picture shall look; None leaves a choice to `CutOut.on_canvas`."""

    format: str
    background: str | None = None
    fill: float | None = None
    margin: int | None = None
    size: int | None = None
    quality: int = 92
    fill_holes: bool = False
    drop_islands: bool = False
    small_area: int | None = None

    def __post_init__(self) -> None:
        if self.format == "jpg" and self.background in (None, "transparent"):
            raise OptionError("a JPEG cannot be transparent", hint="--background white, or --format png")
        if self.size is not None and 2 * (self.margin or 0) >= self.size:
            raise OptionError(f"a margin of {self.margin} pixels leaves nothing of a canvas of {self.size} pixels")
        # One product pixel on its own canvas: a background or fill that is wrong is found before a model is loaded.
        CutOut(np.full((1, 1, 4), 255, np.uint8), (0, 0, 1, 1), (1, 1)).on_canvas(self.background, fill=self.fill)

    def picture(self, image: Uint8Array, answer: Answer) -> tuple[Uint8Array, CutOut]:
        """The finished picture and the cut-out it was made of."""
        small = self.small_area or max(1, round(SMALL * image.shape[0] * image.shape[1]))
        edges = AlphaOptions(fill_holes=small if self.fill_holes else 0, drop_islands=small if self.drop_islands else 0)
        cut = cut_out(image, answer.logits, box=answer.limits, options=edges)
        if self.background in (None, "transparent") and (self.fill, self.margin, self.size) == (None, None, None):
            return cut.rgba, cut
        return cut.on_canvas(self.background, size=self.size, fill=self.fill, margin=self.margin), cut


def crop_photo(model: SamModel, task: Task, request: Request, look: Look, *, only: bool) -> dict[str, Any]:
    """Cut all products of one photo, then write them: a prompt that fails leaves no picture of the others.

    only: it is the only photo of the command, so that detections without a name are its own. Returns the record for
    JSON.
    """
    stages = Stages()
    with stages.time("decode_photo"):
        image = load_image(task.photo)
    with stages.time("encode"):
        frame, size_hw = preprocess(image, model.manifest.image_size)
        embedding = model.encode_frame(frame, size_hw, image.shape[:2])
    try:
        with stages.time("decode"):
            answers = request.ask(model, embedding, image, task.photo, only=only)
    finally:
        embedding.close()
    with stages.time("cut_out"):
        pictures = [look.picture(image, answer) for answer in answers]
    products = []
    for answer, (picture, cut), output in zip(answers, pictures, task.outputs, strict=True):
        with stages.time("write"):
            make_parent(output)
            save_image(output, picture, quality=look.quality)
        score = round(float(answer.iou_predictions[answer.best]), 4)
        facts = {"window_xyxy": list(cut.window_xyxy), "product_xyxy": list(cut.box_xyxy), "predicted_iou": score}
        products.append({"output": str(output), "size_hw": list(picture.shape[:2])} | facts | answer.facts)
    return {
        "photo": str(task.photo),
        "size_hw": list(image.shape[:2]),
        "products": products,
        "model": model.manifest.name,
        "backend": model.backend,
        "precision": model.precision,
        "ms": stages.rounded(),
        "warnings": [dict(zip(("message", "hint"), a.warning, strict=True)) for a in answers if a.warning is not None],
    }
