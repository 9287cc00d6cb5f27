"""/captures: photos that must not be lost, with what was made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Annotated, Any, BinaryIO, Literal

from boothsam.runtime.errors import BoothsamError
from boothsam.service import forms
from boothsam.service.captures import capturing, export, records
from boothsam.service.captures.capturing import Made
from boothsam.service.captures.records import StoredFile
from boothsam.service.captures.store import CaptureStore
from boothsam.service.problems import ServiceProblem, from_error, problem
from boothsam.service.prompts import Answer
from boothsam.service.routes.capture_form import CAPTURE_FORM, CaptureRequest, Earlier, as_problems, content_of
from boothsam.service.routes.common import Parts, form_body, problem_responses, timing
from boothsam.service.stages import Stages
from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import Request

router = APIRouter(prefix="/captures", tags=["captures"])

_KEY_HEADER = {"parameters": [{
    "name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 200},
    "description": "the same key with the same content stores once, however often it is sent",
}]}  # fmt: skip
# Why a photo is stored without a mask, rather than refused: none of these is a mistake of the request.
_STILL_STORED = ("nothing_found", "not_ready", "internal")

Sku = Annotated[str | None, Query(max_length=records.MAX_TEXT)]
Gtin = Annotated[str | None, Query(max_length=14)]
Seq = Annotated[int, Query(ge=0, lt=2**62)]


def _store(request: Request) -> CaptureStore:
    store = request.app.state.captures
    if not isinstance(store, CaptureStore):
        raise problem("not_found", "this service keeps no captures", "set BOOTHSAM_CAPTURES_DIR")
    return store


@router.post(
    "",
    status_code=201,
    summary="Store a photo with its mask and cut-out",
    responses=problem_responses(400, 401, 403, 408, 409, 413, 415, 422, 429, 503, 507) | {
        200: {"description": "stored before under this idempotency key: the same record"},
        201: {"description": "the record; photo and row are on the disk"},
    },
    openapi_extra=form_body(CAPTURE_FORM) | _KEY_HEADER,
)  # fmt: skip
async def add(request: Request) -> Response:
    """The answer comes when the photo is on the disk and its row is committed.

    Without box, points, logits_id or mask_file the main product is looked for. When none is found, or the model does
    not answer, the photo is stored all the same, and `facts.reason` says why it has no mask.
    """
    parts, stages, store = Parts(request), Stages(), _store(request)
    asked = CaptureRequest.read(await forms.read_form(request))
    key, sent = _key(request), asked.contents()
    digests = await asyncio.to_thread(lambda: {role: StoredFile.of(content) for role, content in sent.items()})
    mark = asked.fingerprint(digests)
    if key is not None and (known := await _known(store, key, mark)) is not None:
        return _answer(known, stages, replayed=True)
    earlier = None if asked.earlier is None else _recalled(parts, asked.earlier, digests.get("original"))
    if "original" not in sent and asked.earlier is not None:
        sent["original"] = content_of(parts.kept_photo(asked.earlier.embedding_id))
    with as_problems():
        await asyncio.to_thread(store.need_room, sum(len(content.data) for content in sent.values()))
    photo = sent["original"]
    async with parts.place():
        if earlier is not None and asked.earlier is not None:
            image = await parts.kept_pixels(asked.earlier.embedding_id, photo.data, stages)
            limit = parts.settings.max_pixels
            making = parts.inference.run(
                capturing.from_earlier, parts.inference, image, earlier, limit, stages, asked.tidy
            )
            made = await _or_without(making)
        else:
            image = await parts.decode(photo.data, stages)
            made = await _made(parts, asked, digests["original"].sha256, image, stages)
        facts = dict(asked.labels) | {"size_hw": list(image.shape[:2])} | made.facts
        del image
        with as_problems(), stages.time("store"):
            future = store.add({"original": photo} | made.files, facts, fingerprint=mark, key=key)
            # Whoever went away meanwhile may come back with the same key: the photo is stored all the same.
            added = await asyncio.shield(asyncio.wrap_future(future))
    parts.metrics.stages(stages.ms)
    return _answer(added.capture, stages, replayed=added.replayed)


def _key(request: Request) -> str | None:
    text = request.headers.get("idempotency-key")
    return None if text is None else records.check_key(text)


async def _known(store: CaptureStore, key: str, mark: str) -> records.Capture | None:
    """What was stored under this key before, so that no photo is worked on twice. Raises `conflict`."""
    with as_problems():
        known = await asyncio.to_thread(store.find_key, key)
        return None if known is None else store.same(known, mark)


def _recalled(parts: Parts, earlier: Earlier, sent: StoredFile | None) -> Answer:
    """The mask of an earlier answer. sent: the photo, where the client sends it again.

    Raises:
        ServiceProblem: `embedding_not_found`, `invalid_prompt`; `invalid_field` for another photo.
    """
    if sent is not None and parts.inference.key(sent.sha256) != earlier.embedding_id:
        raise problem(
            "invalid_field",
            f"image_file is another photo than the one of embedding_id {earlier.embedding_id[:80]!r}",
            "leave image_file out, or POST /embeddings with it",
        )
    return parts.earlier_mask(earlier.embedding_id, earlier.logits_id, "logits_id").answer(earlier.limits)


async def _made(parts: Parts, asked: CaptureRequest, photo_sha256: str, image: Any, stages: Stages) -> Made:
    inference = parts.inference
    if asked.mask is not None:
        drawn = await parts.decode(asked.mask, stages)
        return await inference.run(capturing.from_client, image, drawn, stages)
    if not asked.segment:
        return capturing.without_product("not_asked", "segment=false")
    limit = parts.settings.max_pixels
    key = inference.key(photo_sha256)
    return await _or_without(
        inference.run(capturing.from_model, inference, key, image, asked.prompt, limit, stages, asked.tidy)
    )


async def _or_without(making: Awaitable[Made]) -> Made:
    """What is made, or the photo alone where nothing can be made of it and the request is not to blame."""
    try:
        return await making
    except (BoothsamError, ServiceProblem) as error:
        found = error if isinstance(error, ServiceProblem) else from_error(error)
        if found.code not in _STILL_STORED:
            raise
        return capturing.without_product(found.code, found.detail)


def _answer(capture: records.Capture, stages: Stages, *, replayed: bool) -> Response:
    headers = {"Location": f"/captures/{capture.id}", "Server-Timing": timing(stages)}
    headers |= {"Idempotent-Replayed": "true"} if replayed else {}
    return JSONResponse(capture.document(), 200 if replayed else 201, headers=headers)


@router.get("", summary="List captures", responses=problem_responses(401, 403, 404, 422, 503))
async def list_captures(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: Seq = 0,
    before: Annotated[int | None, Query(ge=1, lt=2**62)] = None,
    sku: Sku = None,
    gtin: Gtin = None,
) -> Response:
    """In the order of `seq`, which never goes back, whatever the clock does: beyond `after`, the oldest first; with
    `before`, the newest first. `next` is the last one's `seq`, null when there are no more.
    """
    store = _store(request)
    with as_problems():
        found = await asyncio.to_thread(store.page, limit + 1, after=after, before=before, sku=sku, gtin=gtin)
        status = await asyncio.to_thread(store.status, store.min_free_bytes)
    more = len(found) > limit
    counts = {"captures": status.captures, "pending": status.pending, "parked": status.parked}
    page = {"captures": [c.document() for c in found[:limit]], "next": found[limit - 1].seq if more else None}
    return JSONResponse(page | {"total": counts | {"room_bytes": status.room_bytes}})


@router.get(
    "/export",
    summary="Export captures",
    responses=problem_responses(401, 403, 404, 422, 503) | {
        200: {"description": "a zip archive, or a CSV table", "content": {
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
            "text/csv": {"schema": {"type": "string"}}}},
    },
)  # fmt: skip
async def export_captures(
    request: Request,
    format: Literal["zip", "csv", "coco"] = "zip",
    after: Seq = 0,
    sku: Sku = None,
    gtin: Gtin = None,
) -> Response:
    """zip: photos, masks, cut-outs, records and a table. csv: the table alone. coco: photos and annotations for
    training, as pycocotools loads them.
    """
    store = _store(request)
    with as_problems():
        await asyncio.to_thread(store.page, 1)  # what is wrong with the store is said before the answer begins
    captures = store.walk(after=after, sku=sku, gtin=gtin)
    name = "captures-coco.zip" if format == "coco" else f"captures.{format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    if format == "csv":
        return StreamingResponse(export.csv_blocks(captures), media_type="text/csv; charset=utf-8", headers=headers)
    blocks = export.zip_blocks(export.members(store, captures, format))
    return StreamingResponse(blocks, media_type="application/zip", headers=headers)


@router.get("/{id}", summary="One capture's record", responses=problem_responses(401, 403, 404, 503))
async def get_capture(request: Request, id: str) -> Response:
    """What is known about a capture; its files are at `/captures/{id}/{role}`."""
    store = _store(request)
    with as_problems():
        return JSONResponse((await asyncio.to_thread(store.get, id)).document())


@router.get(
    "/{id}/{role}",
    summary="A capture's photo, mask or cut-out",
    responses=problem_responses(401, 403, 404, 422, 503) | {
        200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}
                          for kind in records.MEDIA_TYPES.values()}},
        304: {"description": "the client has it"},
    },
)  # fmt: skip
async def get_file(request: Request, id: str, role: Literal["original", "mask", "cutout"]) -> Response:
    """The bytes as they were stored; `ETag` is their sha256."""
    store = _store(request)
    with as_problems():
        capture = await asyncio.to_thread(store.get, id)
        path = store.path(capture, role)
    stored = capture.files[role]
    headers = {"ETag": f'"{stored.sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError:
        raise problem("not_found", f"the {role} of capture {id} is gone", "boothsam captures fsck") from None
    headers |= {"Content-Length": str(stored.bytes), "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(_blocks(file), media_type=stored.media_type, headers=headers)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(1 << 18):
            yield block


@router.delete(
    "/{id}", status_code=204, summary="Delete a capture", responses=problem_responses(401, 403, 404, 409, 422, 503)
)
async def delete_capture(request: Request, id: str, force: bool = False) -> Response:
    """Refused with 409 while the capture is still to be forwarded, unless `force` is true."""
    store = _store(request)
    with as_problems():
        await asyncio.shield(asyncio.wrap_future(store.delete(id, force=force)))
    return Response(status_code=204)
