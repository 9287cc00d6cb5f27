"""From --box, --point, --boxes, --plate and --auto to questions for the model, and the model's answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boothsam.runtime.errors import NothingFound, PromptError
from boothsam.service.detections import Box, Detections, read_detections

if TYPE_CHECKING:
    from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
    from boothsam.runtime.plate import Plate
    from boothsam.runtime.transforms import FloatArray, Size, Uint8Array

BOX_MARGIN = 0.1
NO_PROMPT_HINT = (
    "--auto finds the main product; or give --box x0,y0,x1,y1, --point x,y, --boxes detections.json, --plate empty.jpg"
)


@dataclass(frozen=True)
class Answer:
    """What the model said to one product's prompt.

    low_res_masks: (C, 256, 256) float32 logits, the chosen one at `best`. iou_predictions: (C,) its own estimates.
    box_xyxy: the box it was asked with. facts: the prompt and what is known about it, for JSON.
    """

    low_res_masks: FloatArray
    iou_predictions: FloatArray
    best: int
    box_xyxy: Box | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    warning: tuple[str, str] | None = None

    @property
    def logits(self) -> FloatArray:
        """(256, 256) of the chosen mask.

        Raises:
            NothingFound: not one pixel is in it.
        """
        chosen: FloatArray = self.low_res_masks[self.best]
        if not (chosen > 0).any():
            raise NothingFound(
                "the mask is empty: the model sees no object at this prompt",
                hint="try another point, or a box around it",
            )
        return chosen

    @property
    def limits(self) -> Box | None:
        """The box with a tenth of its sides around it: what the mask says beyond is no part of the product."""
        if self.box_xyxy is None:
            return None
        x0, y0, x1, y1 = self.box_xyxy
        x, y = BOX_MARGIN * (x1 - x0), BOX_MARGIN * (y1 - y0)
        return x0 - x, y0 - y, x1 + x, y1 + y


@dataclass(frozen=True)
class Request:
    """The prompts of one command line, applied to each of its photos."""

    boxes: tuple[Box, ...] = ()
    points: tuple[tuple[float, float, int], ...] = ()
    detections: Detections | None = None
    auto: bool = False
    plate: Plate | None = None

    @classmethod
    def parse(
        cls,
        box: Sequence[str] | None,
        point: Sequence[str] | None,
        boxes: Path | None = None,
        min_score: float = 0.0,
        auto: bool = False,
        plate: Sequence[Path] | None = None,
    ) -> Request:
        """From the texts of the command line. plate: photos of the empty booth.

        Raises:
            PromptError: nothing given, malformed numbers, or kinds of prompts that exclude each other.
            ImageError, OptionError: a plate's photo that cannot be read or does not fit the others.
        """
        given = (("--auto", auto), ("--plate", plate), ("--boxes", boxes), ("--box or --point", box or point))
        kinds = [name for name, value in given if value]
        if not kinds:
            raise PromptError("no prompt was given", hint=NO_PROMPT_HINT)
        if len(kinds) > 1:
            raise PromptError(f"{' and '.join(kinds)} exclude each other", hint="give one kind of prompt")
        parsed_boxes = tuple(_parse_box(text) for text in box or ())
        points = tuple(_parse_point(text) for text in point or ())
        if len(parsed_boxes) > 1 and points:
            raise PromptError(
                f"{len(parsed_boxes)} boxes with --point: it is not clear which box the points refine",
                hint="give one --box",
            )
        if points and not parsed_boxes and not any(label for _, _, label in points):
            raise PromptError(
                "every --point is a background point (,0)", hint="give at least one --point x,y on the product"
            )
        detections = read_detections(boxes, min_score) if boxes else None
        return cls(parsed_boxes, points, detections, auto, _read_plate(plate) if plate else None)

    def count(self, photo: Path, *, only: bool) -> int:
        """Number of products this photo is asked for.

        Raises:
            NothingFound, PromptError: the detector's file has none for it.
        """
        if self.detections is not None:
            return len(self.detections.of(photo, only=only))
        return max(1, len(self.boxes))

    def ask(
        self,
        model: SamModel,
        embedding: ImageEmbedding,
        image: Uint8Array,
        photo: Path,
        *,
        only: bool,
        multimask: bool | None = None,
    ) -> list[Answer]:
        """One answer per product.

        multimask: three candidates or one mask; None takes three for a single click, which may mean a part or the
        whole, and one for everything else, as SAM's authors advise.
        """
        if self.auto:
            return [_auto(model, embedding, image)]
        if self.plate is not None:
            return [ask_with_plate(model, embedding, image, self.plate)]
        prompts, facts = self._prompts(photo, embedding.original_hw, only)
        points = 0 if prompts.point_coords is None else prompts.point_coords.shape[1]
        three = (prompts.box_xyxy is None and points == 1) if multimask is None else multimask
        masks, scores = model.decode(embedding, prompts).select(three)
        return [
            Answer(m, s, int(s.argmax()), tuple(f["box_xyxy"]) if "box_xyxy" in f else None, f)
            for m, s, f in zip(masks, scores, facts, strict=True)
        ]

    def _prompts(self, photo: Path, size_hw: Size, only: bool) -> tuple[Prompts, list[dict[str, Any]]]:
        import numpy as np
        from boothsam.runtime.model import Prompts
        from boothsam.runtime.transforms import check_boxes

        facts: list[dict[str, Any]] = []
        boxes: list[Box] = list(self.boxes)
        if self.detections is not None:
            for record in self.detections.of(photo, only=only):
                boxes.append(record.box_xyxy(size_hw))
                try:
                    check_boxes(np.array(boxes[-1:], np.float64), size_hw)
                except PromptError as error:
                    raise PromptError(f"{record.where}: {error.message}", hint=error.hint) from None
                known = {"category": record.category, "detector_score": record.score}
                facts.append({"box_xyxy": list(boxes[-1])} | {k: v for k, v in known.items() if v is not None})
        else:
            facts = [{"box_xyxy": list(box)} for box in boxes] or [{}]
        coords = labels = None
        if self.points:
            facts[0] |= {"point_coords": [[x, y] for x, y, _ in self.points]}
            facts[0] |= {"point_labels": [label for _, _, label in self.points]}
            coords = np.array([[point[:2] for point in self.points]], np.float64)
            labels = np.array([[point[2] for point in self.points]], np.int32)
        return Prompts.make(coords, labels, np.array(boxes, np.float64) if boxes else None), facts


def _auto(model: SamModel, embedding: ImageEmbedding, image: Uint8Array) -> Answer:
    import numpy as np
    from boothsam.runtime.auto import find_product_in

    result = find_product_in(model, embedding, image)
    found = result.product
    facts = {
        "auto": {
            "box_xyxy": [round(v, 1) for v in found.box_xyxy],
            "agreement": round(found.score, 4),
            "contrast": round(found.contrast, 2),
            "prompts": list(found.prompts),
            "ambiguous": result.ambiguous,
            "rivals_xyxy": [[round(v, 1) for v in rival] for rival in result.rivals_xyxy],
        }
    }
    warning = None
    if result.ambiguous:
        places = [",".join(f"{v:.0f}" for v in box) for box in (found.box_xyxy, *result.rivals_xyxy)]
        warning = (
            f"ambiguous: {len(places)} objects could be the main product; took the one at {places[0]}",
            "choose with " + " or ".join(f"--box {place}" for place in places[1:]),
        )
    return Answer(found.low_res_mask[None], np.array([found.iou_prediction], np.float32), 0, None, facts, warning)


def ask_with_plate(model: SamModel, embedding: ImageEmbedding, image: Uint8Array, plate: Plate) -> Answer:
    """What the plate sees, as a prompt for the model.

    Raises:
        NothingFound: the booth is empty. CameraMoved: the photo does not show the plate's booth.
    """
    match = plate.compare(image)
    masks, scores = model.decode(embedding, match.prompts).select(multimask_output=False)
    return Answer(masks[0], scores[0], int(scores[0].argmax()), match.box_xyxy, {"plate": match.facts})


def _read_plate(photos: Sequence[Path]) -> Plate:
    from boothsam.runtime.images import load_image
    from boothsam.runtime.plate import Plate

    return Plate.from_images(load_image(photo) for photo in photos)


def _parse_numbers(text: str, option: str, form: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise PromptError(
            f"{option} {text!r}: expected {form} in finite numbers",
            hint=f"{option} takes photo pixels, separated by commas",
        )
    return numbers


def _parse_box(text: str) -> Box:
    form = "x0,y0,x1,y1"
    numbers = _parse_numbers(text, "--box", form)
    if len(numbers) != 4:
        raise PromptError(f"--box {text!r} has {len(numbers)} numbers; expected {form}")
    x0, y0, x1, y1 = numbers
    if x1 <= x0 or y1 <= y0:
        raise PromptError(
            f"--box {text!r} is empty or reversed; expected {form} with x0 < x1 and y0 < y1",
            hint=f"if these are x,y,width,height, write {x0:g},{y0:g},{x0 + x1:g},{y0 + y1:g}"
            if min(x1, y1) > 0
            else None,
        )
    return x0, y0, x1, y1


def _parse_point(text: str) -> tuple[float, float, int]:
    form = "x,y or x,y,1 (product) or x,y,0 (background)"
    numbers = _parse_numbers(text, "--point", form)
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] not in (0, 1)):
        raise PromptError(f"--point {text!r}: expected {form}")
    return numbers[0], numbers[1], int(numbers[2]) if len(numbers) == 3 else 1
