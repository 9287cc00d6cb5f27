"""POST /embeddings and /embeddings/{id}/segment: analyse a photo once, then ask it as often as a finger taps."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
from boothsam.runtime.images import encode_image
from boothsam.runtime.masks import mask_to_box, stability_score, window_to_rle
from boothsam.runtime.model import ImageEmbedding, Prompts
from boothsam.runtime.transforms import FloatArray, Size, input_size, mask_window, upscale_logits_window
from boothsam.service import forms
from boothsam.service.embeddings import EarlierMask
from boothsam.service.inference import IsGone
from boothsam.service.problems import problem
from boothsam.service.products import CLOSE_SCORE
from boothsam.service.routes.common import (
    Parts,
    accepted,
    form_body,
    no_embedding,
    problem_responses,
    timing,
    wants_json,
)
from boothsam.service.schemas import EMBEDDING_FORM, EmbeddingAnswer, SegmentAnswer, SegmentQuestion
from boothsam.service.stages import Stages
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

router = APIRouter(tags=["embeddings"])


@router.post(
    "/embeddings",
    summary="Analyse a photo for many prompts",
    responses=problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 503, ok={"model": EmbeddingAnswer}),
    openapi_extra=form_body(EMBEDDING_FORM),
)
async def embed(request: Request) -> Response:
    """The id is a content hash: a photo that was sent before is not even decoded, and of ten that arrive together one
    is analysed.
    """
    parts, stages = Parts(request), Stages()
    parts.inference.need_ready()
    form = await forms.read_form(request)
    form.need_known(("keep",), ("image_file",))
    data, keep = form.image(), forms.flag(form, "keep")
    key = parts.inference.key(await forms.sha256(data))
    cache = parts.inference.cache
    embedding, cached = cache.get(key), True
    if embedding is None:

        async def make(photo: bytes, everybody_gone: IsGone) -> tuple[ImageEmbedding, bytes]:
            async with parts.place(everybody_gone) as place:
                image = await parts.decode(photo, stages)
                await place.still_wanted()
                made, _ = await parts.inference.run(parts.inference.embed, key, image, stages)
                if keep and cache.keep_photo(key, photo):
                    cache.keep_pixels(key, image)
            return made, photo

        cached = parts.inference.is_shared(key)
        shared = parts.inference.share(key, data, request.is_disconnected, make)
        del data, form  # ten identical photos are held once
        embedding, data = await shared
    if keep:
        cache.keep_photo(key, data)
    parts.metrics.stages(stages.ms)
    model = parts.inference.model
    answer = {
        "id": key,
        "size_hw": list(embedding.original_hw),
        "cached": cached,
        "nbytes": embedding.nbytes,
        "photo_kept": cache.photo(key) is not None,
        "model": model.manifest.name,
        "precision": model.precision,
        "ms": stages.rounded(),
    }
    return JSONResponse(answer, headers={"Server-Timing": timing(stages)})


@router.post(
    "/embeddings/{id}/segment",
    summary="Ask for masks on an analysed photo",
    responses=problem_responses(
        400, 401, 403, 404, 408, 413, 415, 422, 429, 503,
        ok={"description": "JSON, or the best mask as PNG with Accept: image/png", "model": SegmentAnswer,
              "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
    ),
    openapi_extra={"requestBody": {"required": True, "content": {
        "application/json": {"schema": SegmentQuestion.model_json_schema()}}}},
)  # fmt: skip
async def segment(id: str, request: Request) -> Response:
    """Three candidates with scores, or one; `mask_input` refines an earlier mask of the same photo."""
    parts, stages = Parts(request), Stages()
    parts.inference.need_ready()
    question = await forms.read_json(request, SegmentQuestion)
    embedding = parts.inference.cache.get(id)
    if embedding is None:
        raise no_embedding(id)
    earlier = None if question.mask_input is None else parts.earlier_mask(id, question.mask_input, "mask_input")
    prompts = _prompts(question, None if earlier is None else earlier.logits)
    as_png = not wants_json(request) and accepted(request).get("image/png", 0) > 0
    async with parts.place():
        masks, best = await parts.inference.run(_ask, parts, id, embedding, prompts, question, as_png, stages)
    parts.metrics.stages(stages.ms)
    headers = {"Server-Timing": timing(stages)}
    if as_png:
        score = f"{masks[0]['iou_prediction']:.4f}"
        logits = {"X-Logits-Id": masks[0]["logits_id"]} if masks[0]["logits_id"] else {}
        return Response(masks[0]["png"], media_type="image/png", headers=headers | {"X-Mask-Score": score} | logits)
    scores = [mask["iou_prediction"] for mask in masks]
    order = sorted(range(len(masks)), key=lambda index: -scores[index])
    answer = {
        "id": id,
        "size_hw": list(embedding.original_hw),
        "mask_size_hw": list(_mask_size(embedding.original_hw, question)),
        "masks": masks,
        "best": best,
        "ambiguous": [index for index in order if scores[index] >= scores[best] - CLOSE_SCORE],
        "ms": stages.rounded(),
    }
    return JSONResponse(answer, headers=headers)


def _prompts(question: SegmentQuestion, mask_input: FloatArray | None) -> Prompts:
    points, labels = question.points, question.labels or [1] * len(question.points)
    if not points and question.box is None and mask_input is None:
        raise problem("invalid_prompt", "no prompt", "send points, a box or mask_input")
    if len(labels) != len(points):
        raise problem("invalid_prompt", f"{len(points)} points but {len(labels)} labels", "one label for each point")
    return Prompts.make(points or None, labels if points else None, question.box, mask_input)


def _facts(question: SegmentQuestion) -> dict[str, Any]:
    """The prompt in the words of `prompts.Answer.facts`."""
    facts: dict[str, Any] = {} if question.box is None else {"box_xyxy": list(question.box)}
    if question.points:
        facts["point_coords"] = [list(point) for point in question.points]
        facts["point_labels"] = question.labels or [1] * len(question.points)
    return facts if question.mask_input is None else facts | {"mask_input": question.mask_input}


def _mask_size(photo_hw: Size, question: SegmentQuestion) -> Size:
    """(height, width) in which masks are written."""
    side = question.mask_max_side
    return photo_hw if side is None or side >= max(photo_hw) else input_size(photo_hw, side)


def _ask(
    parts: Parts,
    key: str,
    embedding: ImageEmbedding,
    prompts: Prompts,
    question: SegmentQuestion,
    as_png: bool,
    stages: Stages,
) -> tuple[list[dict[str, Any]], int]:
    """Masks as `schemas.Mask` and the index of the best; with as_png the best alone, its PNG under "png"."""
    with stages.time("mask"):
        logits, scores = parts.inference.model.decode(embedding, prompts).select(question.multimask)
    best = int(np.argmax(scores[0]))
    size_hw, asked = _mask_size(embedding.original_hw, question), _facts(question)
    masks = []
    with stages.time("encode"):
        for index in [best] if as_png else range(len(scores[0])):
            # A copy: a view would keep all of the answer's masks in memory, which the cache could not count.
            one, score = logits[0, index : index + 1].copy(), float(scores[0, index])
            known = {
                "iou_prediction": round(score, 6),
                "stability_score": round(float(stability_score(one[0])), 6),
                "logits_id": parts.inference.cache.remember(key, EarlierMask(one, score, asked)),
            }
            written = _written(one[0], size_hw, embedding.original_hw, "png" if as_png else question.format)
            if "png" in written and not as_png:
                written["png_b64"] = base64.b64encode(written.pop("png")).decode()
            masks.append(known | written)
    return masks, best


def _written(logits: FloatArray, size_hw: Size, photo_hw: Size, kind: str) -> dict[str, Any]:
    """One mask of (256, 256) logits at `size_hw`, as "rle" or "png", with box and area in photo pixels.

    Only the mask's own window is enlarged and looked at: with three masks the whole photo would take longer than the
    model.
    """
    window = mask_window(logits, size_hw)
    x0, y0, x1, y1 = window or (0, 0, 1, 1)
    part = upscale_logits_window(logits, size_hw, (x0, y0, x1, y1)) > 0
    area = int(np.count_nonzero(part))
    left, top, right, bottom = mask_to_box(part)
    across, down = photo_hw[1] / size_hw[1], photo_hw[0] / size_hw[0]
    box = [
        math.floor((x0 + left) * across),
        math.floor((y0 + top) * down),
        math.ceil((x0 + right + 1) * across),
        math.ceil((y0 + bottom + 1) * down),
    ]
    facts = {"box_xyxy": box if area else [0, 0, 0, 0], "area": round(area * across * down)}
    if kind == "rle":
        return facts | {"rle": window_to_rle(part, (x0, y0), size_hw)}
    mask = np.zeros(size_hw, np.bool_)
    mask[y0:y1, x0:x1] = part
    return facts | {"png": encode_image(mask, "png")}
