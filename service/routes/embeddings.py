"""POST /embeddings and /embeddings/{id}/segment: analyse a photo once, then ask it as often as a finger taps."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from boothsam.runtime.images import encode_image
from boothsam.runtime.masks import mask_to_rle, stability_score
from boothsam.runtime.model import ImageEmbedding, Prompts
from boothsam.runtime.transforms import FloatArray
from boothsam.service import forms
from boothsam.service.inference import IsGone
from boothsam.service.problems import problem
from boothsam.service.products import CLOSE_SCORE, full_mask
from boothsam.service.routes.common import Parts, accepted, form_body, problem_responses, timing, wants_json
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
    form.need_known((), ("image_file",))
    data = form.image()
    key = parts.inference.key(await forms.sha256(data))
    embedding, cached = parts.inference.cache.get(key), True
    if embedding is None:

        async def make(photo: bytes, everybody_gone: IsGone) -> ImageEmbedding:
            async with parts.place(everybody_gone) as place:
                image = await parts.decode(photo, stages)
                await place.still_wanted()
                made, _ = await parts.inference.run(parts.inference.embed, key, image, stages)
            return made

        cached = parts.inference.is_shared(key)
        shared = parts.inference.share(key, data, request.is_disconnected, make)
        del data, form  # ten identical photos are held once
        embedding = await shared
    parts.metrics.stages(stages.ms)
    model = parts.inference.model
    answer = {
        "id": key,
        "size_hw": list(embedding.original_hw),
        "cached": cached,
        "nbytes": embedding.nbytes,
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
        raise problem("embedding_not_found", f"no embedding {id[:80]!r}, or it was dropped", "POST /embeddings again")
    prompts = _prompts(question, _earlier(parts, id, question.mask_input))
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
        "masks": masks,
        "best": best,
        "ambiguous": [index for index in order if scores[index] >= scores[best] - CLOSE_SCORE],
        "ms": stages.rounded(),
    }
    return JSONResponse(answer, headers=headers)


def _earlier(parts: Parts, key: str, name: str | None) -> FloatArray | None:
    if name is None:
        return None
    logits = parts.inference.cache.recall(key, name)
    if logits is None:
        # Asking without it would answer with another mask and not say so.
        raise problem(
            "invalid_prompt", f"mask_input {name!r} is no logits_id of this photo, or was dropped", "leave it out"
        )
    return logits


def _prompts(question: SegmentQuestion, mask_input: FloatArray | None) -> Prompts:
    points, labels = question.points, question.labels or [1] * len(question.points)
    if not points and question.box is None and mask_input is None:
        raise problem("invalid_prompt", "no prompt", "send points, a box or mask_input")
    if len(labels) != len(points):
        raise problem("invalid_prompt", f"{len(points)} points but {len(labels)} labels", "one label for each point")
    return Prompts.make(points or None, labels if points else None, question.box, mask_input)


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
    masks = []
    with stages.time("encode"):
        for index in [best] if as_png else range(len(scores[0])):
            one = np.ascontiguousarray(logits[0, index : index + 1])
            mask, box = full_mask(one[0], embedding.original_hw)
            record: dict[str, Any] = {
                "iou_prediction": round(float(scores[0, index]), 6),
                "stability_score": round(float(stability_score(one[0])), 6),
                "box_xyxy": box,
                "area": int(np.count_nonzero(mask)),
                "logits_id": parts.inference.cache.remember(key, one),
            }
            if as_png:
                record["png"] = encode_image(mask, "png")
            elif question.format == "png":
                record["png_b64"] = base64.b64encode(encode_image(mask, "png")).decode()
            else:
                record["rle"] = mask_to_rle(mask)
            masks.append(record)
    return masks, best
