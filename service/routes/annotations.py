"""/annotations: masks for a folder of photos, on the machine where they lie."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from boothsam.runtime.errors import BoothsamError, OptionError
from boothsam.runtime.images import probe
from boothsam.runtime.model import ImageEmbedding
from boothsam.service import forms
from boothsam.service.annotations import coco, records, schemas
from boothsam.service.annotations.drawing import Drawn, decode_rle, draw
from boothsam.service.annotations.photos import Photo
from boothsam.service.annotations.records import PhotoChanged
from boothsam.service.annotations.store import AnnotationStore, Entry, Kept
from boothsam.service.captures.export import zip_blocks
from boothsam.service.embeddings import EarlierMask
from boothsam.service.inference import IsGone
from boothsam.service.problems import ServiceProblem, problem
from boothsam.service.products import full_mask
from boothsam.service.routes.common import Parts, errors_as, problem_responses, timing
from boothsam.service.stages import Stages
from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.requests import Request

router = APIRouter(prefix="/annotations", tags=["annotations"])

MAX_BODY = 1 << 20  # run lengths of a few hundred outlines
T = TypeVar("T")
_MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_CODES: tuple[tuple[type[BoothsamError], str], ...] = (
    (records.NoSuchPhoto, "not_found"),
    (records.PhotoChanged, "photo_changed"),
    (records.PhotoTooLarge, "too_large"),
    (records.CategoryInUse, "category_in_use"),
    (records.WrongAnnotation, "invalid_field"),
    (records.DiskLow, "disk_low"),
    (records.AnnotationError, "annotations_failed"),
    (OptionError, "annotations_failed"),  # the folder of photos is away
)
# What decoding a photo may say of the photo itself, and not of the moment.
_BROKEN = ("broken_image", "unsupported_media", "too_many_pixels", "decode_timeout")


def _as_problems() -> AbstractContextManager[None]:
    """Errors of the store as problems with their codes."""
    return errors_as(_CODES, passing="annotations_failed")


async def _run(function: Callable[..., T], *args: Any, **options: Any) -> T:
    """A blocking call of the store in a thread; it ends even when the client goes away."""
    with _as_problems():
        return await asyncio.shield(asyncio.to_thread(partial(function, *args, **options)))


def _store(request: Request) -> AnnotationStore:
    store = request.app.state.annotations
    if not isinstance(store, AnnotationStore):
        raise problem("not_found", "no folder is being annotated", "boothsam annotate FOLDER")
    return store


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's requestBody. Shapes inside shapes are written out: their definitions have no place in the document."""
    schema = model.model_json_schema()
    shapes = schema.pop("$defs", {})

    def written_out(part: Any) -> Any:
        if isinstance(part, list):
            return [written_out(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return written_out(shapes[part["$ref"].rpartition("/")[2]])
        return {name: written_out(one) for name, one in part.items()}

    return {"requestBody": {"required": True, "content": {"application/json": {"schema": written_out(schema)}}}}


@router.get(
    "",
    summary="List the photos and how far they are",
    responses=problem_responses(401, 403, 404, 422, 503, ok={"model": schemas.ListAnswer}),
)
async def list_photos(
    request: Request,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
) -> Response:
    """In natural order. The first page looks at the folder again, so that new photos appear and replaced ones are
    found out.
    """
    store = _store(request)
    if not offset:
        await _run(store.scan)
    entries = await _run(store.entries)
    page = entries[offset : offset + limit]
    answer = {
        "folder": store.photos_folder.name,
        "categories": [c.document() for c in store.categories],
        "progress": await _run(store.progress),
        "photos": [entry.document() for entry in page],
        "next": offset + limit if offset + limit < len(entries) else None,
        "resume": next((e.photo.key for e in entries if e.status in ("open", "started", "changed")), None),
    }
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


@router.put(
    "/categories",
    summary="Set the categories",
    responses=problem_responses(
        400, 401, 403, 404, 408, 409, 413, 415, 422, 503, 507, ok={"model": schemas.CategoriesAnswer}
    ),
    openapi_extra=_body(schemas.CategoriesQuestion),
)
async def put_categories(request: Request) -> Response:
    """The whole list, in the order of the keys 1 to 9. One that objects are of cannot go."""
    store = _store(request)
    question = await forms.read_json(request, schemas.CategoriesQuestion)
    found = await _run(store.set_categories, [(c.id, c.name) for c in question.categories])
    return JSONResponse({"categories": [c.document() for c in found]})


@router.get(
    "/export",
    summary="Export what is done as a COCO dataset",
    responses=problem_responses(401, 403, 404, 422, 503) | {
        200: {"description": "the dataset, or a zip archive of dataset, photos and masks", "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/zip": {"schema": {"type": "string", "format": "binary"}}}},
    },
)  # fmt: skip
async def export(request: Request, format: Literal["json", "zip"] = "json", polygons: bool = False) -> Response:
    """Run lengths, or outlines with `polygons`, which lose holes. `X-Left-Out` counts the photos that are not in it."""
    store = _store(request)
    found = await _run(coco.read_export, store.photos_folder, store.layout.folder)
    headers = {"X-Left-Out": str(len(found.left_out)), "Cache-Control": "no-store"}
    if format == "zip":
        headers["Content-Disposition"] = 'attachment; filename="annotations.zip"'
        members = await _run(found.members, polygons=polygons)
        return StreamingResponse(zip_blocks(members), media_type="application/zip", headers=headers)
    headers["Content-Disposition"] = 'attachment; filename="annotations.json"'
    body = await _run(lambda: json.dumps(found.dataset(polygons=polygons)).encode())
    return Response(body, media_type="application/json", headers=headers)


@router.get(
    "/photos/{key}",
    summary="One photo and its objects",
    responses=problem_responses(401, 403, 404, 422, 503, ok={"model": schemas.PhotoAnswer}),
)
async def get_photo(request: Request, key: str) -> Response:
    """The file is read anew: where another photo lies under the name now, the status is `changed`."""
    store = _store(request)
    await _run(store.digest, key)
    return await _photo(store, await _run(store.entry, key))


async def _photo(store: AnnotationStore, entry: Entry) -> Response:
    size = entry.record.size_hw if entry.record is not None and entry.status != "changed" else None
    answer = {
        "key": entry.photo.key,
        "name": entry.photo.name,
        "status": entry.status,
        "trouble": entry.trouble,
        "photo_sha256": await _run(store.known_digest, entry.photo.key),
        "size_hw": None if size is None else list(size),
        "objects": [found.document() for found in entry.objects],
        "progress": await _run(store.progress),
    }
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


@router.get(
    "/photos/{key}/image",
    summary="The photo's bytes",
    responses=problem_responses(401, 403, 404, 422, 503) | {
        200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _MEDIA_TYPES.values()}},
        304: {"description": "the client has it"},
    },
)  # fmt: skip
async def get_image(request: Request, key: str) -> Response:
    """As they are on the disk; `ETag` changes with the file."""
    entry = await _run(_store(request).entry, key)
    photo = entry.photo
    if photo.header is None:
        raise problem("broken_image", f"{photo.name}: {photo.trouble}", "skip it, or copy it again")
    file, size, mtime_ns = await _run(_open, photo)
    headers = {"ETag": f'"{mtime_ns:x}-{size:x}"', "Cache-Control": "private, no-cache"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        file.close()
        return Response(status_code=304, headers=headers)
    headers |= {"Content-Length": str(size), "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(_blocks(file, size), media_type=_MEDIA_TYPES[photo.header.format], headers=headers)


def _open(photo: Photo) -> tuple[BinaryIO, int, int]:
    try:
        file = photo.path.open("rb")
    except OSError as error:
        raise records.NoSuchPhoto(f"{photo.name} cannot be read", hint="reload the page") from error
    stat = os.fstat(file.fileno())
    return file, stat.st_size, stat.st_mtime_ns


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """What was announced and no more: the file may grow meanwhile."""
    with file:
        while size > 0 and (block := file.read(min(size, 1 << 18))):
            size -= len(block)
            yield block


@router.post(
    "/photos/{key}/embedding",
    summary="Analyse a photo of the folder",
    responses=problem_responses(
        401, 403, 404, 408, 409, 413, 415, 422, 429, 503, ok={"model": schemas.EmbeddingAnswer}
    ),
)
async def embed(request: Request, key: str) -> Response:
    """As POST /embeddings, but that the photo is read where it lies."""
    parts, stages, store = Parts(request), Stages(), _store(request)
    parts.inference.need_ready()
    digest = await _run(store.digest, key)
    embedding, cached = await _embedding(parts, request, store, key, digest, stages)
    parts.metrics.stages(stages.ms)
    answer = {
        "id": parts.inference.key(digest),
        "photo_sha256": digest,
        "size_hw": list(embedding.original_hw),
        "cached": cached,
        "ms": stages.rounded(),
    }
    return JSONResponse(answer, headers={"Server-Timing": timing(stages)})


async def _embedding(
    parts: Parts, request: Request, store: AnnotationStore, key: str, digest: str, stages: Stages
) -> tuple[ImageEmbedding, bool]:
    """The embedding of the photo with this sha256, and whether somebody had asked for it before."""
    inference = parts.inference
    name = inference.key(digest)
    embedding = inference.cache.get(name)
    if embedding is not None:
        return embedding, True

    async def make(_: bytes, everybody_gone: IsGone) -> ImageEmbedding:
        async with parts.place(everybody_gone) as place:
            data, found = await _run(store.read, key, parts.settings.max_upload_bytes)
            if found != digest:
                raise problem("photo_changed", "the photo was replaced while it was read", "send the request again")
            try:
                image = await parts.decode(data, stages)
            except ServiceProblem as broken:
                if broken.code in _BROKEN:
                    await _run(store.cannot_decode, key, digest, broken.detail)
                raise
            del data
            await place.still_wanted()
            made, _cached = await inference.run(inference.embed, name, image, stages)
        return made

    flight = f"annotations:{name}"  # POST /embeddings shares flights of another kind under the bare name
    shared = inference.is_shared(flight)
    return await inference.share(flight, b"", request.is_disconnected, make), shared


@router.put(
    "/photos/{key}",
    summary="Save a photo's objects",
    responses=problem_responses(
        400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503, 507, ok={"model": schemas.PhotoAnswer}
    ),
    openapi_extra=_body(schemas.PhotoQuestion),
)
async def put_photo(request: Request, key: str) -> Response:
    """All of them, in order; the answer comes when masks and record are on the disk. Saved objects are named by their
    id; new ones are masks of an earlier answer, or run lengths. No objects and `done` false: as if never opened.
    """
    parts, store = Parts(request), _store(request)
    question = await forms.read_json(request, schemas.PhotoQuestion, limit=MAX_BODY)
    digest = question.photo_sha256
    entry = await _run(store.entry, key)
    name, earlier = parts.inference.key(digest), []
    for asked in question.objects:
        if asked.embedding_id not in (None, name):
            with _as_problems():
                raise PhotoChanged(
                    f"the mask of embedding {asked.embedding_id} was made on another photo, or by another model",
                    hint="load the photo again, then point anew",
                )
        earlier.append(None if asked.logits_id is None else parts.earlier_mask(name, asked.logits_id, "logits_id"))
    embedding = parts.inference.cache.get(name)
    size_hw = None if embedding is None else embedding.original_hw
    if size_hw is None and entry.record is not None and entry.record.sha256 == digest:
        size_hw = entry.record.size_hw
    objects: list[Kept | Drawn] = [Kept(asked.id or 0, asked.category_id) for asked in question.objects]
    nothing = not question.objects and not question.done
    if (size_hw is None and not nothing) or any(asked.id is None for asked in question.objects):
        async with parts.place():
            if size_hw is None:
                size_hw = await _run(_upright_size, parts, store, key)
            objects = await parts.inference.run(_draw_all, question.objects, earlier, size_hw)
    saved = await _run(store.save, key, digest, size_hw, objects, done=question.done)
    return await _photo(store, saved)


def _upright_size(parts: Parts, store: AnnotationStore, key: str) -> tuple[int, int]:
    data, _ = store.read(key, parts.settings.max_upload_bytes)
    return probe(data, max_pixels=parts.settings.max_pixels, max_side=parts.settings.max_side).size_hw


def _draw_all(
    asked: list[schemas.ObjectQuestion], earlier: list[EarlierMask | None], size_hw: tuple[int, int]
) -> list[Kept | Drawn]:
    """The objects with their masks; blocks."""
    objects: list[Kept | Drawn] = []
    with _as_problems():
        for question, mask in zip(asked, earlier, strict=True):
            if mask is not None:
                pixels, _ = full_mask(mask.logits[0], size_hw)
                objects.append(draw(pixels, question.category_id, round(mask.iou_prediction, 4)))
            elif question.segmentation is not None:
                rle = question.segmentation
                if rle.size != size_hw:
                    raise records.WrongAnnotation(
                        f"run lengths of size {list(rle.size)}; the upright photo is {list(size_hw)}",
                        hint="size is [height, width], after the EXIF rotation",
                    )
                objects.append(draw(decode_rle(rle.size, rle.counts), question.category_id, question.score))
            else:
                objects.append(Kept(question.id or 0, question.category_id))
    return objects


@router.put(
    "/photos/{key}/skip",
    summary="Leave a photo out",
    responses=problem_responses(401, 403, 404, 408, 413, 422, 503, 507, ok={"model": schemas.PhotoAnswer}),
)
async def skip(request: Request, key: str) -> Response:
    """It is not exported; its objects are kept, and saving it again takes it in."""
    store = _store(request)
    return await _photo(store, await _run(store.skip, key))
