"""POST /everything: every object of a photo, without a prompt.

It takes seconds to minutes, so it works in slices: between two of them whoever waits for a place has its turn, the
client and the time limit are looked after. One such photo is in work at a time, for it stays in memory meanwhile.
"""

from __future__ import annotations

import time

from boothsam.runtime.automatic import MaskRecord, Steps
from boothsam.service import forms
from boothsam.service.admission import Admission, Place
from boothsam.service.cropping import warnings_json
from boothsam.service.everything import lower_thresholds
from boothsam.service.everything_form import FIELDS, FORM, EverythingAnswer, Options
from boothsam.service.problems import problem
from boothsam.service.routes.common import Parts, form_body, problem_responses, request_id, timing
from boothsam.service.stages import Stages
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

router = APIRouter(tags=["everything"])
SLICE_S = 0.25  # how long another request waits for this one, and a decoder call more
MOST_BYTES = 256 << 20  # of masks that wait for the suppression of duplicates, and of those that are answered


@router.post(
    "/everything",
    summary="Find every object of a photo",
    responses=problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 503, ok={"model": EverythingAnswer}),
    openapi_extra=form_body(FORM),
)
async def everything(request: Request) -> Response:
    """A grid of points is asked, and the masks that are good, stable and not there yet are answered, as
    segment_anything's generator does. Other requests are answered in between; a second one of this kind is refused.
    """
    parts, stages = Parts(request), Stages()
    parts.inference.need_ready()
    jobs: Admission = request.app.state.everything
    refused = jobs.refusal()
    if refused is not None:
        raise problem(
            "queue_full",
            "everything is being found on another photo, and one is worked on at a time",
            "send it again after Retry-After seconds",
            headers=refused.headers,
        )
    form = await forms.read_form(request)
    form.need_known(FIELDS, ("image_file",))
    data, options = form.image(), Options.read(form)
    photo_sha256 = await forms.sha256(data)
    del form
    until = time.monotonic() + parts.settings.everything_timeout_s
    async with jobs.place(), parts.place() as place:
        image = await parts.decode(data, stages)
        del data
        key = parts.inference.key(photo_sha256)
        await place.still_wanted()
        embedding, _ = await parts.inference.run(parts.inference.embed, key, image, stages)
        steps = options.generator(parts.inference.model).steps(image, embedding)
        try:
            records = await _in_slices(parts, place, steps, stages, until)
        finally:
            steps.close()
        model = parts.inference.model
        thresholds = options.settings["pred_iou_thresh"], options.settings["stability_score_thresh"]
        answer = {
            "request_id": request_id(request),
            "photo_sha256": photo_sha256,
            "embedding_id": key,
            "size_hw": list(image.shape[:2]),
            "mode": options.mode,
            "masks": records,
            "model": model.manifest.name,
            "backend": model.backend,
            "precision": model.precision,
            "ms": stages.rounded(),
            "warnings": [] if records else warnings_json([_none(model.manifest.name, *thresholds)]),
        }
        headers = {"Server-Timing": timing(stages), "X-Model": model.manifest.name}
        # Many run lengths: writing them down is not for the event loop.
        made: Response = await parts.inference.run(lambda: JSONResponse(answer, headers=headers))
    parts.metrics.stages(stages.ms)
    return made


async def _in_slices(parts: Parts, place: Place, steps: Steps, stages: Stages, until: float) -> list[MaskRecord]:
    """Run the generator to its end, giving way to others.

    Raises:
        ServiceProblem: `everything_timeout`, `too_many_masks`, `client_gone`, `draining`.
    """
    while (records := await parts.inference.run(_slice, steps, stages)) is None:
        if time.monotonic() > until:
            raise problem(
                "everything_timeout",
                f"it was not done within {parts.settings.everything_timeout_s:g} s",
                "mode=fast, fewer points_per_side or crop_n_layers, or raise everything_timeout_s",
            )
        await place.let_others()
    return records


def _slice(steps: Steps, stages: Stages) -> list[MaskRecord] | None:
    """Some steps, SLICE_S long; the records when that was the end. Blocks."""
    until = time.monotonic() + SLICE_S
    with stages.time("mask"):
        while time.monotonic() < until:
            try:
                step = next(steps)
            except StopIteration as end:
                records: list[MaskRecord] = end.value
                return records
            if step.nbytes > MOST_BYTES:
                raise problem(
                    "too_many_masks",
                    f"masks that pass the thresholds take more than {MOST_BYTES >> 20} MiB",
                    "raise pred_iou_thresh or stability_score_thresh, or lower points_per_side or max_masks",
                )
    return None


def _none(model: str, pred_iou_thresh: float, stability_score_thresh: float) -> tuple[str, str]:
    """The warning, and its hint, that nothing was found."""
    iou, stability = lower_thresholds(model, pred_iou_thresh, stability_score_thresh)
    found = f"no mask passes predicted IoU {pred_iou_thresh:g} and stability {stability_score_thresh:g}"
    return found, f"pred_iou_thresh={iou:.2f} and stability_score_thresh={stability:.2f}"
