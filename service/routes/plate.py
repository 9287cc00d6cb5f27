"""/plate: the picture of the empty booth; and what a photo shows that it does not."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from boothsam.runtime.errors import OptionError
from boothsam.runtime.plate import MAX_IMAGES, Plate, shrink
from boothsam.runtime.transforms import Size, Uint8Array
from boothsam.service import forms
from boothsam.service.plates import PlateStore
from boothsam.service.problems import problem
from boothsam.service.prompts import Request as Prompt
from boothsam.service.routes.common import Parts, answer_head, form_body, problem_responses, timing
from boothsam.service.schemas import Box, PlateState
from boothsam.service.stages import Stages
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

router = APIRouter(tags=["plate"])
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["image_file"],
    "additionalProperties": False,
    "properties": {
        "image_file": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "maxItems": MAX_IMAGES,
            "description": "photos of the empty booth; repeat for several shots, whose median is taken",
        }
    },
}
_NO_STORE = {"Cache-Control": "no-store"}


class PlateMatchAnswer(BaseModel):
    """What a photo shows that the plate does not, as a prompt for POST /embeddings/{id}/segment."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["product", "empty", "camera_moved", "other_size"]
    box_xyxy: Box | None = Field(description="around the product; null unless there is one")
    points: list[tuple[float, float]] = Field(description="x, y in photo pixels")
    labels: list[Literal[0, 1]] = Field(description="one for each point: 1 product, 0 backdrop")
    coverage: float = Field(description="share of the photo that differs")
    moved: bool | None = Field(description="whether the camera moved; null: the backdrop is too plain to tell")
    shift_px: tuple[float, float] | None = Field(description="x, y by which the backdrop moved, where that can be told")
    ms: dict[str, float]


def by_plate(prompt: Prompt, request: Request) -> Prompt:
    """The prompt of a form with plate=true. Raises `invalid_prompt`, `no_plate`, `plate_damaged`."""
    if not prompt.auto:
        raise problem("invalid_prompt", "plate=true goes with no box or points", "leave plate out, or the others")
    return Prompt(plate=plates(request).need().plate)


def plates(request: Request) -> PlateStore:
    """The application's plate."""
    store: PlateStore = request.app.state.plates
    return store


@router.put(
    "/plate",
    summary="Take the picture of the empty booth",
    responses=problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 503, ok={"model": PlateState}),
    openapi_extra=form_body(_FORM),
)
async def put_plate(request: Request) -> Response:
    """One photo, or up to eight shots of the same scene: their median is free of noise, and says how much there is.

    It takes the place of the last plate and outlives a restart.
    """
    parts, stages = Parts(request), Stages()
    form = await forms.read_form(request, series=("image_file",), most=MAX_IMAGES)
    form.need_known((), ("image_file",))
    form.image()  # its refusals
    uploads = list(form.series["image_file"])
    del form
    frames: list[Uint8Array] = []
    sizes: list[Size] = []
    async with parts.place() as place:
        for number in range(len(uploads)):
            image = await parts.decode(uploads[number], stages)
            uploads[number] = b""
            sizes.append((image.shape[0], image.shape[1]))
            frames.append(await parts.inference.run(shrink, image))
            del image
            await place.still_wanted()
        plate = await parts.inference.run(_learn, frames, sizes)
    taken = await asyncio.to_thread(plates(request).put, plate)
    parts.metrics.stages(stages.ms)
    return JSONResponse(taken.facts, headers=_NO_STORE | {"Server-Timing": timing(stages)})


def _learn(frames: list[Uint8Array], sizes: list[Size]) -> Plate:
    try:
        return Plate.from_frames(frames, sizes)
    except OptionError as error:
        raise problem("invalid_field", f"image_file: {error.message}", error.hint or "") from None


@router.get(
    "/plate",
    summary="When the empty booth was photographed",
    responses=problem_responses(401, 403, 404, 409, ok={"model": PlateState}),
)
async def get_plate(request: Request) -> Response:
    """404 `no_plate` when none was taken."""
    return JSONResponse(plates(request).need().facts, headers=_NO_STORE)


@router.get(
    "/plate/image",
    summary="The picture of the empty booth",
    responses=problem_responses(
        401, 403, 404, 409,
        ok={"description": "JPEG, longest side 1024 pixels",
            "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    ),
)  # fmt: skip
async def get_plate_image(request: Request) -> Response:
    """What later photos are compared with."""
    taken = plates(request).need()
    return Response(await asyncio.to_thread(lambda: taken.picture), media_type="image/jpeg", headers=_NO_STORE)


@router.delete(
    "/plate",
    summary="Forget the empty booth",
    status_code=204,
    response_class=Response,
    responses=problem_responses(401, 403, 404, 503),
)
async def delete_plate(request: Request) -> Response:
    """404 `no_plate` when there is none."""
    await asyncio.to_thread(plates(request).remove)
    return Response(status_code=204)


@router.post(
    "/embeddings/{id}/plate",
    summary="Find the product by the plate",
    responses=problem_responses(401, 403, 404, 408, 409, 422, 429, 503, ok={"model": PlateMatchAnswer}),
)
async def match_plate(id: str, request: Request) -> Response:
    """For a photo that was sent with `keep=true`: box and points to ask /segment with, or why there are none."""
    parts, stages = Parts(request), Stages()
    photo, taken = parts.kept_photo(id), plates(request).need()
    async with parts.place() as place:
        image = await parts.kept_pixels(id, photo, stages)
        await place.still_wanted()
        with stages.time("plate"):
            match = await parts.inference.run(taken.plate.compare, image)
    parts.metrics.stages(stages.ms)
    return JSONResponse(match.facts | {"ms": stages.rounded()}, headers={"Server-Timing": timing(stages)})


answer_head(router)
