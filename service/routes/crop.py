"""POST /crop: a photo in, its product pictures out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from boothsam.runtime.credits import Credits, read_credits
from boothsam.runtime.cutout import Background
from boothsam.runtime.transforms import Uint8Array
from boothsam.service import forms
from boothsam.service.cropping import Look, warnings_json
from boothsam.service.forms import Form
from boothsam.service.http_prompts import parse_prompts
from boothsam.service.presets.look import contradictions, preset_look
from boothsam.service.presets.preset import built_in, preset_names
from boothsam.service.problems import problem
from boothsam.service.products import MEDIA_TYPES, Picture, describe, json_with_base64, make_products
from boothsam.service.prompts import Request as Prompt
from boothsam.service.routes.common import (
    Parts,
    foreground,
    form_body,
    problem_responses,
    request_id,
    timing,
    wants_json,
)
from boothsam.service.routes.plate import by_plate
from boothsam.service.schemas import CROP_FIELDS, CROP_FILES, CROP_FORM, CropAnswer
from boothsam.service.shadow import SHADOWS
from boothsam.service.stages import Stages
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

router = APIRouter(tags=["crop"])
PICTURES = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in list(MEDIA_TYPES.values())[:3]}


def read_look(form: Form) -> tuple[Look, bytes | None]:
    """The fields of the picture's look, and the background picture's bytes.

    Raises:
        ServiceProblem: `invalid_field`.
    """
    background = form.get("background") or None
    picture = form.files.get("background_file") or None
    if background is not None and picture is not None:
        raise problem("invalid_field", "background and background_file exclude each other", "send one of them")
    fill = forms.number(form, "fill", 0, 1)
    if fill == 0:
        raise problem("invalid_field", "fill is 0; expected a share above 0, up to 1", "fill=0.85")
    kind = forms.choice(form, "format", ("png", "jpg", "webp"), "png")
    quality = forms.whole_number(form, "quality", 1, 100)
    options: dict[str, Any] = {
        "fill": fill,
        "margin": forms.whole_number(form, "margin", 0, 16384),
        "size": forms.whole_number(form, "size", 1, 16384),
        "fill_holes": forms.flag(form, "fill_holes"),
        "drop_islands": forms.flag(form, "drop_islands"),
        "small_area": forms.whole_number(form, "small_area", 1, 1 << 31),
        "shadow": forms.choice(form, "shadow", SHADOWS, "none"),
    }
    if form.get("preset"):
        preset = built_in(forms.choice(form, "preset", preset_names(), ""))
        # A white picture stands in for the one that is decoded later: a rule that wants a colour refuses any.
        shown: Background = np.full((8, 8, 3), 255, np.uint8) if picture is not None else background
        chosen = kind if form.get("format") else None
        return preset_look(preset, format=chosen, background=shown, quality=quality, **options)[0], picture
    # White stands in for the picture until it is decoded: everything else is checked before a place is taken.
    shown = "white" if picture is not None else background
    return Look(kind, shown, quality=quality or 92, **options), picture


@router.post(
    "/crop",
    summary="Cut products out of a photo",
    responses=problem_responses(
        400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503,
        ok={"description": "the picture, or JSON with Accept: application/json", "model": CropAnswer,
              "content": PICTURES},
    ),
    openapi_extra=form_body(CROP_FORM),
)  # fmt: skip
async def crop(request: Request) -> Response:
    """Without box, boxes or points the main product is found automatically; with plate=true by the empty booth.

    The answer is the picture; with `Accept: application/json` it is in base64, with boxes, scores, other candidates,
    the mask as RLE and a verdict whether to take the photo again. With a preset no picture is answered that breaks one
    of its rules: `preset_failed` names the rule.
    """
    parts, stages, as_json = Parts(request), Stages(), wants_json(request)
    parts.inference.need_ready()
    form = await forms.read_form(request)
    form.need_known(CROP_FIELDS, CROP_FILES)
    data, prompt = form.image(), parse_prompts(form)
    if forms.flag(form, "plate"):
        prompt = by_plate(prompt, request)
    look, background = read_look(form)
    if len(prompt.boxes) > 1 and not as_json:
        raise problem(
            "invalid_prompt",
            f"{len(prompt.boxes)} boxes give as many pictures, and an image answer holds one",
            "send Accept: application/json, or one box",
        )
    photo_sha256 = await forms.sha256(data)
    credits = await asyncio.to_thread(read_credits, data)
    del form
    async with parts.place() as place:
        image = await parts.decode(data, stages)
        del data
        behind = None if background is None else await parts.decode(background, stages)
        key = parts.inference.key(photo_sha256)
        await place.still_wanted()
        look = look if behind is None else replace(look, background=behind)
        make = partial(_work, parts, key, image, prompt, look, as_json, stages, credits)
        pictures, products = await parts.inference.run(make)
    parts.metrics.stages(stages.ms)
    common = {"Server-Timing": timing(stages), "X-Model": parts.inference.model.manifest.name}
    first = pictures[0]
    if not as_json:
        headers = common | foreground(first) | {"ETag": first.etag, "X-Mask-Score": f"{first.score:.4f}"}
        return Response(first.data, media_type=MEDIA_TYPES[look.format], headers=headers)
    model = parts.inference.model
    warnings = [warning for p in pictures for warning in (p.answer.warning, *p.warnings) if warning is not None]
    answer = {
        "request_id": request_id(request),
        "photo_sha256": photo_sha256,
        "embedding_id": key,
        "size_hw": list(image.shape[:2]),
        "model": model.manifest.name,
        "backend": model.backend,
        "precision": model.precision,
        "ms": stages.rounded(),
        "warnings": warnings_json(contradictions(look) + warnings),
    }
    # The products come as bytes: a large picture in base64 is not for the event loop.
    body = b"".join([b'{"products":[', b",".join(products), b"],", JSONResponse(answer).body[1:]])
    return Response(body, media_type="application/json", headers=common)


def _work(
    parts: Parts,
    key: str,
    image: Uint8Array,
    prompt: Prompt,
    look: Look,
    as_json: bool,
    stages: Stages,
    credits: Credits,
) -> tuple[list[Picture], list[bytes]]:
    """The pictures and, as_json, each one's `schemas.Product` in JSON; blocks."""
    pictures = make_products(parts.inference, key, image, prompt, look, parts.settings.max_pixels, stages, credits)
    products = []
    for picture in pictures if as_json else ():
        product = describe(picture, image, look)
        for reason in product["retake"]["reasons"]:
            parts.metrics.retake(reason["code"])
        products.append(json_with_base64("picture_b64", picture.data, product))
    return pictures, products
