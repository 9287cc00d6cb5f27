"""From a photo's pixels to the files and facts of a capture; runs on the service's inference threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from boothsam.runtime.cutout import CutOut, cut_out
from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import encode_image
from boothsam.runtime.masks import stability_score
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import Uint8Array
from boothsam.service.captures.records import Content
from boothsam.service.cropping import Look
from boothsam.service.inference import Inference
from boothsam.service.products import Picture, make_pictures, make_products
from boothsam.service.prompts import Answer, Request
from boothsam.service.retake import judge
from boothsam.service.stages import Stages


@dataclass(frozen=True)
class Made:
    """Files by role besides the original, and facts for the record.

    facts["made_by"]: "model" or "client" say where the mask is from; "none" that there is none, facts["reason"] why.
    """

    facts: dict[str, Any]
    files: dict[str, Content] = field(default_factory=dict)


@dataclass(frozen=True)
class Tidy:
    """Which small faults of the model's mask are mended before it is stored; small as `cropping.SMALL` has it."""

    fill_holes: bool = False
    drop_islands: bool = False

    @property
    def look(self) -> Look:
        """The cut-out as it is stored: transparent, and the one that /cutout makes with the same fields."""
        return Look("png", fill_holes=self.fill_holes, drop_islands=self.drop_islands)


AS_DRAWN = Tidy()  # nothing is mended


def from_model(
    inference: Inference,
    key: str,
    image: Uint8Array,
    request: Request,
    max_pixels: int,
    stages: Stages,
    tidy: Tidy = AS_DRAWN,
) -> Made:
    """Mask and cut-out of one product; blocks.

    Raises:
        BoothsamError: as `make_products`; ServiceProblem: `not_ready`.
    """
    inference.need_ready()
    picture = make_products(inference, key, image, request, tidy.look, max_pixels, stages)[0]
    return _of_picture(inference.model, image, picture, stages)


def from_earlier(
    inference: Inference,
    image: Uint8Array,
    answer: Answer,
    max_pixels: int,
    stages: Stages,
    tidy: Tidy = AS_DRAWN,
) -> Made:
    """Mask and cut-out of a mask that the model drew before; blocks.

    Raises:
        BoothsamError, ServiceProblem: as `make_pictures`.
    """
    (picture,) = make_pictures(image, [answer], tidy.look, max_pixels, stages)
    return _of_picture(inference.model, image, picture, stages)


def _of_picture(model: SamModel, image: Uint8Array, picture: Picture, stages: Stages) -> Made:
    answer = picture.answer
    auto = answer.facts.get("auto", {})
    agreement = auto.get("agreement")
    facts = {
        "made_by": "model",
        "prompts": answer.facts,
        "model": model.manifest.name,
        "model_key": model.manifest.key,
        "backend": model.backend,
        "precision": model.precision,
        "predicted_iou": round(picture.score, 4),
        "stability_score": round(float(stability_score(answer.logits)), 4),
        "agreement": agreement,
        "ambiguous": bool(auto.get("ambiguous", False)),
    }
    sure = picture.score if agreement is None else agreement
    with stages.time("encode"):
        mask = Content(encode_image(picture.cut.full_alpha >= 128, "png"), ".png")
    return Made(facts | _of_cut(image, picture.cut, sure), {"mask": mask, "cutout": Content(picture.data, ".png")})


def from_client(image: Uint8Array, mask: Uint8Array, stages: Stages) -> Made:
    """Cut-out along a mask that the client made: (H, W, 3) uint8 of the photo's upright size, 128 and more is product.

    Raises:
        OptionError: another size. NothingFound: no pixel is product.
    """
    if mask.shape != image.shape:
        raise OptionError(
            f"mask_file is {mask.shape[1]}x{mask.shape[0]} pixels, the upright photo {image.shape[1]}x{image.shape[0]}",
            hint="send a mask of the photo's size, after its EXIF rotation",
        )
    solid = mask[..., 0] >= 128
    with stages.time("matte"):
        cut = cut_out(image, solid)
    with stages.time("encode"):
        files = {
            "mask": Content(encode_image(solid, "png"), ".png"),
            "cutout": Content(encode_image(cut.rgba, "png"), ".png"),
        }
    return Made({"made_by": "client"} | _of_cut(image, cut, 1.0), files)


def without_product(code: str, detail: str) -> Made:
    """The photo alone. code and detail: why, such as `nothing_found`."""
    return Made({"made_by": "none", "reason": {"code": code, "detail": detail}})


def _of_cut(image: Uint8Array, cut: CutOut, sure: float) -> dict[str, Any]:
    return {
        "product_xyxy": list(cut.box_xyxy),
        "window_xyxy": list(cut.window_xyxy),
        "retake": judge(image, cut.alpha, cut.window_xyxy, sure).to_dict(),
    }
