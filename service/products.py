"""Products of one photo on the service's pool: embed, ask, cut out, encode; and everything that JSON tells of them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from boothsam.runtime.credits import NO_CREDITS, Credits
from boothsam.runtime.cutout import DEFAULT_FILL, CutOut, shrink
from boothsam.runtime.masks import BoolArray, mask_iou, mask_to_box, mask_to_rle, stability_score
from boothsam.runtime.transforms import FloatArray, Size, Uint8Array, mask_window, upscale_mask
from boothsam.service.cropping import Look
from boothsam.service.inference import Inference
from boothsam.service.presets.check import Report
from boothsam.service.presets.finish import Finished, encode
from boothsam.service.problems import problem
from boothsam.service.prompts import Answer, Request
from boothsam.service.retake import judge
from boothsam.service.stages import Stages

MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "zip": "application/zip"}
CLOSE_SCORE = 0.1  # predicted IoU this near the best: the prompt may mean that one
_BASE64_STEP = 3 << 20  # a multiple of 3, so that the pieces join without padding
DIFFERENT = 0.9  # IoU below which two candidates are two objects


@dataclass(frozen=True)
class Picture:
    """An encoded picture of (height, width), the cut-out it was made of and the model's answer.

    warnings, report, advice: see `Finished`.
    """

    data: bytes
    etag: str
    size_hw: Size
    cut: CutOut
    answer: Answer
    warnings: tuple[tuple[str, str], ...] = ()
    report: Report | None = None
    advice: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The model's own estimate of its mask."""
        return float(self.answer.iou_predictions[self.answer.best])


def make_products(
    inference: Inference,
    key: str,
    image: Uint8Array,
    request: Request,
    look: Look,
    max_pixels: int,
    stages: Stages,
    credits: Credits = NO_CREDITS,
) -> list[Picture]:
    """One picture per product, in the order of the prompts; blocks.

    key: the embedding's id. max_pixels: largest picture that is made. credits: whose photo it is.

    Raises:
        BoothsamError: prompts outside the photo, nothing found. ServiceProblem: a picture that would be too large.
    """
    embedding, _ = inference.embed(key, image, stages)
    with stages.time("mask"):
        answers = request.ask(inference.model, embedding, image, Path("the photo"), only=True)
    return make_pictures(image, answers, look, max_pixels, stages, credits=credits)


def make_pictures(
    image: Uint8Array,
    answers: Sequence[Answer],
    look: Look,
    max_pixels: int,
    stages: Stages,
    *,
    max_side: int | None = None,
    credits: Credits = NO_CREDITS,
) -> list[Picture]:
    """One picture per answer of the model; blocks. Parameters and errors as `make_products`.

    max_side: the finished picture is scaled down to it, for previews, which no preset is checked against.
    """
    _check_room(image, answers, look, max_pixels)
    pictures = []
    for answer in answers:
        if max_side is None:
            with stages.time("matte"):
                cut = look.cut(image, answer)
            with stages.time("encode"):
                done = look.finish(cut, credits)
        else:
            with stages.time("matte"):
                array, cut = look.picture(image, answer)
                array = shrink(array, max_side)
            with stages.time("encode"):
                data = encode(array, look.format, look.quality, None, credits)
            done = Finished(data, (array.shape[0], array.shape[1]), cut)
        checked = done.warnings, done.report, done.advice
        pictures.append(Picture(done.data, etag(done.data), done.size_hw, cut, answer, *checked))
    return pictures


def etag(data: bytes) -> str:
    """A quoted content hash; a large picture's takes longer than the event loop has."""
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def json_with_base64(name: str, data: bytes, members: Mapping[str, Any]) -> bytes:
    """A JSON object of `name`, the data in base64, and at least one further member; blocks.

    Made in steps, between which other threads run: json.dumps holds the interpreter for the whole of a large text.
    """
    encoded = (base64.b64encode(data[at : at + _BASE64_STEP]) for at in range(0, len(data), _BASE64_STEP))
    rest = json.dumps(members, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([b'{"', name.encode(), b'":"', *encoded, b'",', rest[1:]])


def _check_room(image: Uint8Array, answers: Sequence[Answer], look: Look, max_pixels: int) -> None:
    """Raise `invalid_field` where the pictures would be too large, before the first of them is allocated."""
    canvas = look.canvas
    if canvas is not None and math.prod(canvas) > max_pixels:
        raise problem(
            "invalid_field",
            f"size {look.size or 'of the preset'} gives {math.prod(canvas) / 1e6:.1f} million pixels; "
            f"at most {max_pixels / 1e6:g}",
            f"size={math.isqrt(max_pixels)}",
        )
    total = 0.0
    for answer in answers:
        # How far the canvas grows around the product's pixels is known from the mask alone.
        window = mask_window(answer.logits, (image.shape[0], image.shape[1]), 0.0) or (0, 0, 1, 1)
        width, height = window[2] - window[0], window[3] - window[1]
        fill = look.fill or (DEFAULT_FILL if look.margin is None else 1.0)
        border = max(width, height) * (1 / fill - 1) + 2 * (look.margin or 0)
        made = (width + border) * (height + border)
        if canvas is not None:
            made = math.prod(canvas)
        elif isinstance(look.background, np.ndarray):
            made = look.background.shape[0] * look.background.shape[1]
        elif made > max_pixels and (look.fill is not None or look.margin is not None):
            raise problem(
                "invalid_field",
                f"fill and margin would give a picture of {width + border:.0f}x{height + border:.0f} pixels; "
                f"at most {max_pixels / 1e6:g} million",
                "send size as well: the canvas is that large then",
            )
        total += max(made, width * height)  # a cut-out of the product's own size is kept as well
    if len(answers) > 1 and total > 2 * max_pixels:
        raise problem(
            "invalid_field",
            f"{len(answers)} products would take {total / 1e6:.1f} million pixels together; "
            f"at most {2 * max_pixels / 1e6:g} million",
            "send fewer boxes at once, or a smaller size",
        )


def describe(picture: Picture, image: Uint8Array, look: Look) -> dict[str, Any]:
    """One product as `schemas.Product`, without `picture_b64`; blocks."""
    answer, cut = picture.answer, picture.cut
    auto = answer.facts.get("auto", {})
    agreement = auto.get("agreement")
    verdict = judge(image, cut.alpha, cut.window_xyxy, picture.score if agreement is None else agreement)
    size_hw = (image.shape[0], image.shape[1])
    candidates = [_candidate(answer, index, size_hw) for index in _others(answer)]
    return {
        "media_type": MEDIA_TYPES[look.format],
        "size_hw": list(picture.size_hw),
        "etag": picture.etag,
        "product_xyxy": list(cut.box_xyxy),
        "window_xyxy": list(cut.window_xyxy),
        "predicted_iou": round(picture.score, 4),
        "stability_score": round(float(stability_score(answer.logits)), 4),
        "agreement": agreement,
        "prompt": answer.facts,
        "ambiguous": bool(candidates) or bool(auto.get("ambiguous", False)),
        "candidates": candidates,
        "rivals_xyxy": auto.get("rivals_xyxy", []),
        "rle": mask_to_rle(cut.full_alpha >= 128),
        "retake": verdict.to_dict(),
        "check": None if picture.report is None else picture.report.to_dict(),
    }


def _others(answer: Answer) -> list[int]:
    """Indices of other masks about as good as the chosen one that mean something else, best first."""
    scores, masks = answer.iou_predictions, answer.low_res_masks > 0
    order = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] >= scores[answer.best] - CLOSE_SCORE]
    kept = [answer.best]
    for index in order:
        if masks[index].any() and all(mask_iou(masks[index], masks[other]) < DIFFERENT for other in kept):
            kept.append(index)
    return kept[1:]


def _candidate(answer: Answer, index: int, size_hw: Size) -> dict[str, Any]:
    mask, box = full_mask(answer.low_res_masks[index], size_hw)
    score = round(float(answer.iou_predictions[index]), 4)
    return {"iou_prediction": score, "box_xyxy": box, "rle": mask_to_rle(mask)}


def full_mask(logits: FloatArray, size_hw: Size) -> tuple[BoolArray, list[int]]:
    """(H, W) bool mask of (256, 256) logits at photo size, and its box, x1 and y1 exclusive; zeros when it is empty."""
    mask = upscale_mask(logits, size_hw)
    x0, y0, x1, y1 = mask_to_box(mask)
    filled = int(mask.any())
    return mask, [x0, y0, x1 + filled, y1 + filled]
