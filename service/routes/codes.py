"""POST /codes: the barcodes on a photo."""

from __future__ import annotations

from boothsam.service import codes, forms
from boothsam.service.problems import problem
from boothsam.service.routes.common import Parts, form_body, problem_responses, timing
from boothsam.service.schemas import CODES_FORM, CODES_QUESTION, CodesAnswer
from boothsam.service.stages import Stages
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

router = APIRouter(tags=["codes"])
_KINDS = ("multipart/form-data", "application/json")


@router.post(
    "/codes",
    summary="Read the barcodes on a photo",
    responses=problem_responses(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503, ok={"model": CodesAnswer}),
    openapi_extra=form_body(CODES_FORM, json=CODES_QUESTION, urlencoded=False),
)
async def read_codes(request: Request) -> Response:
    """Those with a valid GTIN come first. The photo is sent, or named by `embedding_id` where it was kept."""
    parts, stages = Parts(request), Stages()
    if not codes.installed():
        raise problem("codes_unavailable", "zxing-cpp is not installed", "pip install 'boothsam[codes]'")
    form = await forms.read_form(request, _KINDS)
    form.need_known(("embedding_id",), ("image_file",))
    key = form.get("embedding_id")
    if key and form.files:
        raise problem("invalid_field", "image_file and embedding_id exclude each other", "send one of them")
    photo = parts.kept_photo(key) if key else form.image()
    del form
    async with parts.place():
        found = await parts.read_codes(photo, stages)
    parts.metrics.stages(stages.ms)
    answer = CodesAnswer.model_validate({"codes": found, "ms": stages.rounded()})
    return JSONResponse(answer.model_dump(), headers={"Server-Timing": timing(stages)})
