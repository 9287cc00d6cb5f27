"""POST /embeddings/{id}/cutout: the finished picture of a mask that a finger chose, without the photo or the model."""

from __future__ import annotations

from dataclasses import dataclass

from boothsam.runtime.credits import read_credits
from boothsam.runtime.transforms import Uint8Array
from boothsam.service import forms
from boothsam.service.cropping import Look
from boothsam.service.detections import Box
from boothsam.service.embeddings import EarlierMask
from boothsam.service.forms import Form
from boothsam.service.http_prompts import parse_limits
from boothsam.service.problems import problem
from boothsam.service.products import MEDIA_TYPES, Picture, make_pictures
from boothsam.service.retake import judge
from boothsam.service.routes.common import Parts, foreground, problem_responses, timing
from boothsam.service.routes.crop import PICTURES, read_look
from boothsam.service.schemas import CROP_FIELDS, CUTOUT_QUESTION, PROMPT_FIELDS
from boothsam.service.stages import Stages
from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request

router = APIRouter(tags=["embeddings"])
_LOOK = tuple(name for name in CROP_FIELDS if name not in PROMPT_FIELDS)


@dataclass(frozen=True)
class _Question:
    logits_id: str
    limits: Box | None
    look: Look
    max_side: int | None

    @classmethod
    def read(cls, form: Form) -> _Question:
        """Raises `invalid_field`, `unknown_field`, `invalid_prompt`."""
        rest = Form(tuple(pair for pair in form.fields if pair[0] != "limits"))
        rest.need_known(("logits_id", "max_side", "limits", *_LOOK), ())
        name = rest.get("logits_id")
        if not name:
            raise problem("invalid_field", "logits_id is missing", "POST /embeddings/{id}/segment answers with some")
        max_side = forms.whole_number(rest, "max_side", 1, 16384)
        return cls(name, parse_limits(form), read_look(rest)[0], max_side)


@router.post(
    "/embeddings/{id}/cutout",
    summary="Cut out an earlier answer's mask",
    responses=problem_responses(
        400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503, ok={"description": "the picture", "content": PICTURES}
    ),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": CUTOUT_QUESTION}}}},
)
async def cutout(id: str, request: Request) -> Response:
    """The photo was sent with `keep=true`; the picture is the one that POST /crop makes of this mask and these fields.

    `X-Retake` is `ok`, or names the checks that say the photo should be taken again; with a preset `X-Preset` is `ok`,
    or names the rules whose advice the picture does not follow.
    """
    parts, stages = Parts(request), Stages()
    parts.inference.need_ready()
    question = _Question.read(await forms.read_json_form(request))
    photo = parts.kept_photo(id)
    mask = parts.earlier_mask(id, question.logits_id, "logits_id")
    async with parts.place() as place:
        image = await parts.kept_pixels(id, photo, stages)
        await place.still_wanted()
        picture, codes = await parts.inference.run(_make, parts, image, photo, mask, question, stages)
    parts.metrics.stages(stages.ms)
    headers = foreground(picture) | {
        "Server-Timing": timing(stages),
        "X-Model": parts.inference.model.manifest.name,
        "ETag": picture.etag,
        "X-Mask-Score": f"{picture.score:.4f}",
        "X-Retake": ",".join(codes) or "ok",
    }
    if picture.report is not None:
        headers["X-Preset"] = ",".join(dict.fromkeys(picture.advice)) or "ok"
    return Response(picture.data, media_type=MEDIA_TYPES[question.look.format], headers=headers)


def _make(
    parts: Parts, image: Uint8Array, photo: bytes, mask: EarlierMask, question: _Question, stages: Stages
) -> tuple[Picture, list[str]]:
    """The picture, and the codes of the checks that failed; blocks."""
    limit, credits = parts.settings.max_pixels, read_credits(photo)
    answers, side = [mask.answer(question.limits)], question.max_side
    (picture,) = make_pictures(image, answers, question.look, limit, stages, max_side=side, credits=credits)
    with stages.time("judge"):
        verdict = judge(image, picture.cut.alpha, picture.cut.window_xyxy, picture.score)
    for reason in verdict.reasons if question.max_side is None else ():
        parts.metrics.retake(reason.code)  # counted once for a product, not for each preview of it
    return picture, [reason.code for reason in verdict.reasons]
