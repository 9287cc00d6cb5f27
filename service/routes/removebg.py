"""POST /v1.0/removebg and GET /v1.0/account: remove.bg's wire contract, answered here, charged nothing.

Fields that this service has no use for are ignored, as there; URLs are refused, since it fetches nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from boothsam.runtime.auto import find_product_in
from boothsam.runtime.credits import Credits, read_credits, with_credits
from boothsam.runtime.cutout import cut_out
from boothsam.runtime.transforms import Uint8Array
from boothsam.service import forms, removebg
from boothsam.service.embeddings import embedding_id
from boothsam.service.forms import Form
from boothsam.service.problems import problem
from boothsam.service.products import MEDIA_TYPES, etag, json_with_base64
from boothsam.service.routes.common import Parts, form_body, timing, wants_json
from boothsam.service.schemas import REMOVEBG_FORM, REMOVEBG_JSON
from boothsam.service.shadow import OPACITY, with_shadow
from boothsam.service.stages import Stages
from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request

router = APIRouter(prefix="/v1.0", tags=["remove.bg"])
_KINDS = ("multipart/form-data", "application/x-www-form-urlencoded", "application/json")
_ERRORS = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["errors"],
            "properties": {
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["title", "code"],
                        "properties": {name: {"type": "string"} for name in ("title", "code", "detail")},
                    },
                }
            },
        }
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": "errors", "content": _ERRORS} for status in (400, 403, 429, 503)
}


def _answers(ok: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return _REFUSALS | {200: ok}


@dataclass(frozen=True)
class _Wanted:
    layout: removebg.Layout
    format: str
    channels: str
    shadow: float


@dataclass(frozen=True)
class _Done:
    body: bytes
    media_type: str
    etag: str
    size_hw: tuple[int, int]
    foreground: dict[str, int]
    score: float


@router.post(
    "/removebg",
    summary="Remove the background (remove.bg's fields)",
    responses=_answers({"description": "the picture, or JSON with Accept: application/json", "content": {
        kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()
    } | {"application/json": {"schema": {"type": "object", "required": ["data"]}}}}),
    openapi_extra=form_body(REMOVEBG_FORM, json=REMOVEBG_JSON),
)  # fmt: skip
async def remove_background(request: Request) -> Response:
    """The main product is found automatically. X-Foreground-* are in pixels of the photo that was sent."""
    parts, stages = Parts(request), Stages()
    parts.inference.need_ready()
    form = await forms.read_form(request, _KINDS, long=("image_file_b64",))
    data, wanted = await _photo(form), _read(form)
    background = form.files.get("bg_image_file") or None
    photo_sha256 = await forms.sha256(data)
    credits = await asyncio.to_thread(read_credits, data)
    del form
    async with parts.place() as place:
        image = await parts.decode(data, stages)
        del data
        behind = None if background is None else await parts.decode(background, stages)
        await place.still_wanted()
        make = partial(_work, parts, photo_sha256, image, behind, wanted, credits, wants_json(request), stages)
        done = await parts.inference.run(make)
    parts.metrics.stages(stages.ms)
    headers = {
        "X-Type": "product",
        "X-Width": str(done.size_hw[1]),
        "X-Height": str(done.size_hw[0]),
        "X-Credits-Charged": "0",
        "X-Mask-Score": f"{done.score:.4f}",
        "Server-Timing": timing(stages),
        "ETag": done.etag,
    } | _rate_limit(parts)
    headers |= {f"X-Foreground-{name.title()}": str(value) for name, value in done.foreground.items()}
    return Response(done.body, media_type=done.media_type, headers=headers)


@router.get("/account", summary="Credits (remove.bg's form): nothing is ever charged")
async def account() -> dict[str, Any]:
    """Clients that stop without credits go on: free_calls never falls."""
    credits = {"total": 0, "subscription": 0, "payg": 0, "enterprise": 0}
    return {"data": {"attributes": {"credits": credits, "api": {"free_calls": 1_000_000, "sizes": "all"}}}}


async def _photo(form: Form) -> bytes:
    """From image_file or image_file_b64, exactly one of them."""
    for name in ("image_url", "bg_image_url"):
        if form.get(name):
            raise problem("url_not_supported", f"{name}: this service fetches nothing", "send the file itself")
    encoded = form.get("image_file_b64")
    if encoded and form.files.get("image_file"):
        raise problem("invalid_field", "image_file and image_file_b64 exclude each other", "send one of them")
    if encoded:
        return await forms.base64_image(encoded, "image_file_b64")
    return form.image()


def _read(form: Form) -> _Wanted:
    size = (form.get("size") or "preview").lower()
    if size not in removebg.MEGAPIXELS:
        raise removebg.wrong("size", size, ", ".join(removebg.MEGAPIXELS))
    opacity = forms.number(form, "shadow_opacity", 0, 100)
    shadow = forms.flag(form, "add_shadow") or form.get("shadow_type") not in ("", "none")
    layout = removebg.Layout(
        megapixels=removebg.MEGAPIXELS[size],
        roi=removebg.parse_roi(form.get("roi")),
        crop=forms.flag(form, "crop"),
        margins=removebg.parse_margins(form.get("crop_margin")),
        scale=removebg.parse_scale(form.get("scale")),
        position=removebg.parse_position(form.get("position")),
        colour=removebg.parse_colour(form.get("bg_color")),
    )
    kind = "jpg" if form.get("format") == "jpeg" else forms.choice(form, "format", removebg.FORMATS, "auto")
    strength = min(OPACITY if opacity is None else opacity / 100, 0.49) if shadow else 0.0
    return _Wanted(layout, kind, forms.choice(form, "channels", ("rgba", "alpha"), "rgba"), strength)


def _work(
    parts: Parts,
    photo_sha256: str,
    image: Uint8Array,
    behind: Uint8Array | None,
    wanted: _Wanted,
    credits: Credits,
    as_json: bool,
    stages: Stages,
) -> _Done:
    layout, height, width = wanted.layout, image.shape[0], image.shape[1]
    x0, y0, x1, y1 = layout.region((height, width))
    inside = image[y0:y1, x0:x1]
    key = parts.inference.key(photo_sha256)
    if layout.roi is not None:  # another picture to the model
        key = embedding_id(f"{photo_sha256}:{x0},{y0},{x1},{y1}", key, "roi")
    embedding, _ = parts.inference.embed(key, inside, stages)
    with stages.time("mask"):
        found = find_product_in(parts.inference.model, embedding, inside).product
    with stages.time("matte"):
        scale = layout.working_scale((height, width))
        small = removebg.shrink(inside, scale)
        cut = cut_out(small, found.low_res_mask)
        left, top = round(x0 * scale), round(y0 * scale)
        window = cut.window_xyxy
        cut = replace(
            cut,
            window_xyxy=(window[0] + left, window[1] + top, window[2] + left, window[3] + top),
            original_hw=(max(1, round(height * scale)), max(1, round(width * scale))),
        )
        bx0, by0, bx1, by1 = (round(edge / scale) for edge in cut.box_xyxy)
        shown = with_shadow(cut, wanted.shadow) if wanted.shadow else cut
        rgba = removebg.lay_out(shown, layout)
        if wanted.channels == "rgba":
            rgba = removebg.put_behind(rgba, layout.colour, behind)
    with stages.time("encode"):
        data, kind = removebg.encode(rgba, wanted.format, wanted.channels)
        if kind != "zip" and wanted.channels == "rgba":
            data = with_credits(data, credits)
    foreground = {"top": by0, "left": bx0, "width": bx1 - bx0, "height": by1 - by0}
    body, media_type = data, MEDIA_TYPES[kind]
    if as_json:
        members = {f"foreground_{name}": value for name, value in foreground.items()}
        body, media_type = b'{"data":%b}' % json_with_base64("result_b64", data, members), "application/json"
    return _Done(body, media_type, etag(data), (rgba.shape[0], rgba.shape[1]), foreground, found.iou_prediction)


def _rate_limit(parts: Parts) -> dict[str, str]:
    """X-RateLimit-*: places in all, places free now, and now, since one that is taken is free again in seconds."""
    limit = parts.settings.in_flight + parts.settings.queue
    taken = parts.admission.depth + parts.admission.in_flight
    remaining = str(max(0, limit - taken))
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": remaining,
        "X-RateLimit-Reset": str(int(time.time())),
    }
