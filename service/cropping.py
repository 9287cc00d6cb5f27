"""One photo to its product pictures: decode, encode, ask, cut out, write."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from boothsam.runtime.credits import NO_CREDITS, Credits, read_credits
from boothsam.runtime.cutout import DEFAULT_FILL, AlphaOptions, Background, CutOut, cut_out
from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import Source, load_image, read_source, write_atomic
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import Size, Uint8Array
from boothsam.service.outputs import Task, make_parent
from boothsam.service.presets.finish import Finished, encode, finish_for
from boothsam.service.presets.layout import ATTEMPTS, Placed, Strictness, place
from boothsam.service.presets.look import broken_rules
from boothsam.service.presets.preset import Preset
from boothsam.service.prompts import Answer, Request
from boothsam.service.shadow import check_shadow, on_canvas_with_shadow, with_shadow
from boothsam.service.stages import Stages

Write = Callable[[Path, bytes], None]
SMALL = 0.001  # share of the photo below which a hole or an island is small


@dataclass(frozen=True)
class Look:
    """How the product picture shall look; None leaves a choice to `CutOut.on_canvas`.

    preset: the market whose rules the picture is made for and checked against; see `presets.look.preset_look`.
    """

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
    preset: Preset | None = None

    def __post_init__(self) -> None:
        check_shadow(self.shadow)
        if self.format == "jpg" and self.transparent:
            raise OptionError("a JPEG cannot be transparent", hint="--background white, or --format png")
        if self.canvas is not None and 2 * (self.margin or 0) >= min(self.canvas):
            sides = f"{min(self.canvas)} pixels"
            raise OptionError(f"a margin of {self.margin} pixels leaves nothing of a canvas of {sides}")
        # One product pixel on a small canvas: a background or fill that is wrong is found before a model is loaded.
        CutOut(np.full((1, 1, 4), 255, np.uint8), (0, 0, 1, 1), (1, 1)).on_canvas(
            self.background, size=8, fill=self.fill
        )

    @property
    def transparent(self) -> bool:
        """Whether the picture keeps an alpha channel."""
        return self.background is None or (isinstance(self.background, str) and self.background == "transparent")

    @property
    def canvas(self) -> Size | None:
        """(width, height) of the canvas in pixels: the chosen square, else the preset's; None leaves it open."""
        if self.size is not None:
            return self.size, self.size
        return self.preset.make.size if self.preset is not None else None

    def picture(self, image: Uint8Array, answer: Answer) -> tuple[Uint8Array, CutOut]:
        """The finished picture, not yet encoded, and the cut-out it was made of."""
        cut = self.cut(image, answer)
        return self._draw(cut), cut

    def cut(self, image: Uint8Array, answer: Answer) -> CutOut:
        """The product without its background. Raises NothingFound."""
        small = self.small_area or max(1, round(SMALL * image.shape[0] * image.shape[1]))
        edges = AlphaOptions(fill_holes=small if self.fill_holes else 0, drop_islands=small if self.drop_islands else 0)
        return cut_out(image, answer.logits, box=answer.limits, options=edges)

    def finish(self, cut: CutOut, credits: Credits = NO_CREDITS) -> Finished:
        """The encoded picture of a cut-out, with the photo's credits; with a preset it has passed its check.

        Raises:
            PresetError: a rule of the preset cannot be kept, whatever of the product is taken for visible.
        """

        def written(array: Uint8Array, exact: bool = False) -> bytes:
            return encode(array, self.format, self.quality, self.preset, credits, exact=exact)

        if self.preset is None:
            array = self._draw(cut)
            return Finished(written(array), (array.shape[0], array.shape[1]), cut)
        chosen = [rule.kind for rule, _ in broken_rules(self)]
        return finish_for(self.preset, cut, lambda strict: self._draw_visible(cut, strict), written, chosen)

    def _draw(self, cut: CutOut) -> Uint8Array:
        """The picture's pixels."""
        if self.preset is not None:
            return self._draw_visible(cut, ATTEMPTS[0])[0]
        if self.transparent and (self.fill, self.margin, self.size) == (None, None, None):
            return with_shadow(cut, kind=self.shadow).rgba
        return on_canvas_with_shadow(cut, self.shadow, self.background, self.size, self.fill, self.margin)

    def _draw_visible(self, cut: CutOut, strict: Strictness) -> tuple[Uint8Array, Placed]:
        """The picture's pixels, laid out by what of the cut-out they show, and what that is."""
        fill, margin = self.fill or DEFAULT_FILL, self.margin or 0
        placed = place(cut, self.background, self.canvas, fill, margin, strict)
        room = self.canvas, fill, margin
        return on_canvas_with_shadow(placed.cut, self.shadow, self.background, *room, placed.box_xyxy), placed


@dataclass
class Photo:
    """A decoded photo on its way to its product pictures.

    image: (H, W, 3) uint8 sRGB. frame, frame_hw: what `SamModel.preprocess` made of it. stages: its times so far.
    credits: whose photo it is.
    """

    image: Uint8Array
    frame: Uint8Array
    frame_hw: npt.NDArray[np.int32]
    stages: Stages
    credits: Credits = NO_CREDITS


class _Named(io.BytesIO):
    """A photo's bytes with its name, for messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def read_photo(source: Source, model: SamModel) -> Photo:
    """Decode a photo and lay it on the model's frame. Raises ImageError."""
    stages = Stages()
    with stages.time("decode_photo"):
        data, name = read_source(source)
        image = load_image(_Named(data, name))
    with stages.time("encode"):
        frame, frame_hw = model.preprocess(image)
    return Photo(image, frame, frame_hw, stages, read_credits(data))


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
        pictures = [look.finish(look.cut(photo.image, answer), photo.credits) for answer in answers]
    products = []
    for answer, picture, output in zip(answers, pictures, outputs, strict=True):
        with photo.stages.time("write"):
            write(output, picture.data)
        cut, score = picture.cut, round(float(answer.iou_predictions[answer.best]), 4)
        facts = {"window_xyxy": list(cut.window_xyxy), "product_xyxy": list(cut.box_xyxy), "predicted_iou": score}
        product: dict[str, Any] = {"output": str(output), "size_hw": list(picture.size_hw)} | facts | answer.facts
        if picture.report is not None:
            product |= {"preset": picture.report.to_dict(), "warnings": warnings_json(picture.warnings)}
        products.append(product)
    return products


def warnings_json(warnings: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Messages and hints, for JSON."""
    return [dict(zip(("message", "hint"), warning, strict=True)) for warning in warnings]


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
        "warnings": warnings_json([a.warning for a in answers if a.warning is not None]),
    }


def crop_photo(model: SamModel, task: Task, request: Request, look: Look, *, only: bool) -> dict[str, Any]:
    """Cut all products of one photo out and write them. Returns the record for JSON.

    only: it is the only photo of the command, so that detections without a name are its own.
    """
    photo = read_photo(task.photo, model)
    answers = ask_model(model, photo, request, task.photo, only=only)
    products = write_products(photo, answers, task.outputs, look, _write)
    return describe(model, task.photo, photo, answers, products)


def _write(output: Path, data: bytes) -> None:
    make_parent(output)
    write_atomic(output, data)
