"""One photo to its product pictures: decode, encode, ask, cut out, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from boothsam.runtime.cutout import AlphaOptions, Background, CutOut, cut_out
from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import Source, encode_image, load_image, write_atomic
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import Uint8Array, preprocess
from boothsam.service.outputs import Task, make_parent
from boothsam.service.prompts import Answer, Request
from boothsam.service.shadow import SHADOWS, with_shadow
from boothsam.service.stages import Stages

Write = Callable[[Path, bytes], None]
SMALL = 0.001  # share of the photo below which a hole or an island is small


@dataclass(frozen=True)
class Look:
    """How the product picture shall look; None leaves a choice to `CutOut.on_canvas`."""

    format: str
    background: Background = None
    fill: float | None = None
    margin: int | None = None
    size: int | None = None
    quality: int = 92
    fill_holes: bool = False
    drop_islands: bool = False
    small_area: int | None = None
    shadow: str = "none"

    def __post_init__(self) -> None:
        if self.shadow not in SHADOWS:
            raise OptionError(f"unknown shadow {self.shadow!r}; expected {', '.join(SHADOWS)}")
        if self.format == "jpg" and self.transparent:
            raise OptionError("a JPEG cannot be transparent", hint="--background white, or --format png")
        if self.size is not None and 2 * (self.margin or 0) >= self.size:
            raise OptionError(f"a margin of {self.margin} pixels leaves nothing of a canvas of {self.size} pixels")
        # One product pixel on a small canvas: a background or fill that is wrong is found before a model is loaded.
        CutOut(np.full((1, 1, 4), 255, np.uint8), (0, 0, 1, 1), (1, 1)).on_canvas(
            self.background, size=8, fill=self.fill
        )

    @property
    def transparent(self) -> bool:
        """Whether the picture keeps an alpha channel."""
        return self.background is None or (isinstance(self.background, str) and self.background == "transparent")

    def picture(self, image: Uint8Array, answer: Answer) -> tuple[Uint8Array, CutOut]:
        """The finished picture and the cut-out it was made of."""
        small = self.small_area or max(1, round(SMALL * image.shape[0] * image.shape[1]))
        edges = AlphaOptions(fill_holes=small if self.fill_holes else 0, drop_islands=small if self.drop_islands else 0)
        cut = cut_out(image, answer.logits, box=answer.limits, options=edges)
        shown = with_shadow(cut) if self.shadow == "drop" else cut
        if self.transparent and (self.fill, self.margin, self.size) == (None, None, None):
            return shown.rgba, cut
        return shown.on_canvas(self.background, size=self.size, fill=self.fill, margin=self.margin), cut


@dataclass
class Photo:
    """A decoded photo on its way to its product pictures.

    image: (H, W, 3) uint8 sRGB. frame, frame_hw: what `preprocess` made of it. stages: its times so far.
    """

    image: Uint8Array
    frame: Uint8Array
    frame_hw: npt.NDArray[np.int32]
    stages: Stages


def read_photo(source: Source, image_size: int) -> Photo:
    """Decode a photo and lay it on the model's frame. Raises ImageError."""
    stages = Stages()
    with stages.time("decode_photo"):
        image = load_image(source)
    with stages.time("encode"):
        frame, frame_hw = preprocess(image, image_size)
    return Photo(image, frame, frame_hw, stages)


def ask_model(model: SamModel, photo: Photo, request: Request, path: Path, *, only: bool) -> list[Answer]:
    """One answer per product. path, only: as `Request.ask` takes them. Raises PromptError, NothingFound."""
    with photo.stages.time("encode"):
        embedding = model.encode_frame(photo.frame, photo.frame_hw, photo.image.shape[:2])
    try:
        with photo.stages.time("decode"):
            return request.ask(model, embedding, photo.image, path, only=only)
    finally:
        embedding.close()


def write_products(
    photo: Photo, answers: Sequence[Answer], outputs: Sequence[Path], look: Look, write: Write
) -> list[dict[str, Any]]:
    """Cut all products out, then write them: one that fails leaves no picture of the others.

    write: takes a path and the bytes of a file. Returns one record per product, for JSON. Raises NothingFound and what
    `write` raises.
    """
    with photo.stages.time("cut_out"):
        pictures = [look.picture(photo.image, answer) for answer in answers]
    products = []
    for answer, (picture, cut), output in zip(answers, pictures, outputs, strict=True):
        with photo.stages.time("write"):
            write(output, encode_image(picture, output.suffix, quality=look.quality))
        score = round(float(answer.iou_predictions[answer.best]), 4)
        facts = {"window_xyxy": list(cut.window_xyxy), "product_xyxy": list(cut.box_xyxy), "predicted_iou": score}
        products.append({"output": str(output), "size_hw": list(picture.shape[:2])} | facts | answer.facts)
    return products


def describe(
    model: SamModel, path: Path, photo: Photo, answers: Sequence[Answer], products: list[dict[str, Any]]
) -> dict[str, Any]:
    """The photo's record, for JSON."""
    return {
        "photo": str(path),
        "size_hw": list(photo.image.shape[:2]),
        "products": products,
        "model": model.manifest.name,
        "backend": model.backend,
        "precision": model.precision,
        "ms": photo.stages.rounded(),
        "warnings": [dict(zip(("message", "hint"), a.warning, strict=True)) for a in answers if a.warning is not None],
    }


def crop_photo(model: SamModel, task: Task, request: Request, look: Look, *, only: bool) -> dict[str, Any]:
    """Cut all products of one photo out and write them. Returns the record for JSON.

    only: it is the only photo of the command, so that detections without a name are its own.
    """
    photo = read_photo(task.photo, model.manifest.image_size)
    answers = ask_model(model, photo, request, task.photo, only=only)
    products = write_products(photo, answers, task.outputs, look, _write)
    return describe(model, task.photo, photo, answers, products)


def _write(output: Path, data: bytes) -> None:
    make_parent(output)
    write_atomic(output, data)
