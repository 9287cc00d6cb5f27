"""What the routes share: the parts of the application, places, decoding, headers of an answer."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from boothsam.runtime.errors import BoothsamError
from boothsam.runtime.transforms import Uint8Array
from boothsam.service.admission import Admission, Place
from boothsam.service.decoding import DecodeWorker
from boothsam.service.embeddings import EarlierMask
from boothsam.service.inference import Inference, IsGone
from boothsam.service.problems import ServiceProblem, problem
from boothsam.service.products import Picture
from boothsam.service.settings import Settings
from boothsam.service.stages import Stages
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request

if TYPE_CHECKING:
    from boothsam.service.metrics import Metrics


class Parts:
    """The application's parts as its state holds them, with their types."""

    def __init__(self, request: Request) -> None:
        state = request.app.state
        self.settings: Settings = state.settings
        self.inference: Inference = state.inference
        self.metrics: Metrics = state.metrics
        self.admission: Admission = state.admission
        self._decoder: DecodeWorker = state.decoder
        self._is_gone: IsGone = request.is_disconnected

    @asynccontextmanager
    async def place(self, is_gone: IsGone | None = None) -> AsyncIterator[Place]:
        """A place for one photo; everything that takes memory or processor happens inside."""
        async with self.admission.place(is_gone or self._is_gone) as place:
            self.metrics.waited(place.waited_s)
            yield place

    async def decode(self, data: bytes, stages: Stages) -> Uint8Array:
        """(H, W, 3) uint8 RGB, in the killable worker."""
        with stages.time("decode"):
            return await self._decoder.decode(data)

    async def read_codes(self, data: bytes, stages: Stages) -> list[dict[str, Any]]:
        """The barcodes on an upload, `schemas.CodeFound`; decoded and read in the killable worker."""
        with stages.time("codes"):
            return await self._decoder.read_codes(data)

    def kept_photo(self, key: str) -> bytes:
        """The upload that was kept with an embedding. Raises `embedding_not_found`, `photo_not_kept`."""
        cache = self.inference.cache
        if cache.get(key) is None:
            raise no_embedding(key)
        photo = cache.photo(key)
        if photo is None:
            raise problem(
                "photo_not_kept",
                f"the photo of embedding {key[:80]!r} was not kept, or no room was left for it",
                "POST /embeddings again with keep=true",
            )
        return photo

    async def kept_pixels(self, key: str, photo: bytes, stages: Stages) -> Uint8Array:
        """(H, W, 3) uint8 RGB of a kept photo, read-only; decoded where that was not done before.

        For use inside a place. Several that ask at once have it decoded once.
        """
        cache = self.inference.cache
        pixels = cache.pixels(key)
        if pixels is not None:
            return pixels

        async def make(upload: bytes, everybody_gone: IsGone) -> Uint8Array:
            image = await self.decode(upload, stages)
            cache.keep_pixels(key, image)
            return image

        return await self.inference.share(f"pixels:{key}", photo, self._is_gone, make)

    def earlier_mask(self, key: str, name: str, field: str) -> EarlierMask:
        """A mask of an earlier answer by its logits_id. field: what the request calls it.

        Raises:
            ServiceProblem: `embedding_not_found`, `invalid_prompt`.
        """
        if self.inference.cache.get(key) is None:
            raise no_embedding(key)
        mask = self.inference.cache.recall(key, name)
        if mask is None:
            raise problem(
                "invalid_prompt",
                f"{field} {name[:80]!r} is no logits_id of this photo, or was dropped",
                "POST /embeddings/{id}/segment again",
            )
        return mask


def no_embedding(key: str) -> ServiceProblem:
    """The refusal of an unknown embedding."""
    return problem("embedding_not_found", f"no embedding {key[:80]!r}, or it was dropped", "POST /embeddings again")


@contextmanager
def errors_as(codes: Iterable[tuple[type[BoothsamError], str]], passing: str) -> Iterator[None]:
    """A store's errors as problems, by the first kind that fits; other errors pass. passing: the code worth a retry."""
    try:
        yield
    except BoothsamError as error:
        code = next((code for kind, code in codes if isinstance(error, kind)), "")
        if not code:
            raise
        headers = {"Retry-After": "5"} if code == passing else {}
        raise problem(code, error.message, error.hint or "", headers=headers) from error


def request_id(request: Request) -> str:
    """What limits.RequestId chose for this request."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def accepted(request: Request) -> dict[str, float]:
    """The media types that Accept names with their weights (RFC 9110, section 12.5.1), in its order.

    A weight that is no number counts as 1.
    """
    weights: dict[str, float] = {}
    for part in request.headers.get("accept", "").lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        weights[kind] = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 1.0
    return weights


def wants_json(request: Request) -> bool:
    """Whether the client prefers application/json to every image type it names; of equal ones the first one counts."""
    weights = accepted(request)
    images = [(weight, kind) for kind, weight in weights.items() if kind.startswith("image/") and weight > 0]
    json, best = weights.get("application/json", 0.0), max((weight for weight, _ in images), default=0.0)
    if json != best or not json:
        return json > best
    named = list(weights)
    return all(named.index("application/json") < named.index(kind) for weight, kind in images if weight == best)


def timing(stages: Stages) -> str:
    """Server-Timing (W3C): every stage with its milliseconds."""
    return ", ".join(f"{name};dur={value:.1f}" for name, value in stages.ms.items())


def foreground(picture: Picture) -> dict[str, str]:
    """X-Foreground-*: where the product lies in the photo that was sent, in its pixels."""
    x0, y0, x1, y1 = picture.cut.box_xyxy
    values = {"Top": y0, "Left": x0, "Width": x1 - x0, "Height": y1 - y0}
    return {f"X-Foreground-{name}": str(value) for name, value in values.items()}


def problem_responses(*statuses: int, ok: dict[str, Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries of the problems that a route answers. ok: the entry of its 200."""
    entries: dict[int | str, dict[str, Any]] = {} if ok is None else {200: ok}
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return entries | {status: {"description": "problem with a stable code", "content": content} for status in statuses}


def form_body(
    schema: Mapping[str, Any], *, json: Mapping[str, Any] | None = None, urlencoded: bool = True
) -> dict[str, Any]:
    """OpenAPI's requestBody of a multipart form, and of JSON, urlencoded as well, where the route takes that too."""
    content: dict[str, Any] = {"multipart/form-data": {"schema": dict(schema)}}
    if json is not None:
        content["application/json"] = {"schema": dict(json)}
        if urlencoded:
            content["application/x-www-form-urlencoded"] = {"schema": dict(json)}
    return {"requestBody": {"required": True, "content": content}}


def answer_head(router: APIRouter) -> None:
    """Let every GET route of the router answer HEAD too, as RFC 9110 asks; the server leaves the body out.

    Each gets a twin in front of it that takes both methods, so that a refused method is told of both; the document
    lists the GET alone.
    """
    for route in [route for route in router.routes if isinstance(route, APIRoute) and "GET" in (route.methods or ())]:
        twin = APIRoute(
            route.path, route.endpoint, methods=["GET", "HEAD"], response_model=None, include_in_schema=False
        )
        router.routes.insert(router.routes.index(route), twin)
