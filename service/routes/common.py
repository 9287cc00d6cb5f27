"""What the routes share: the parts of the application, places, decoding, headers of an answer."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from boothsam.runtime.transforms import Uint8Array
from boothsam.service.admission import Admission, Place
from boothsam.service.decoding import DecodeWorker
from boothsam.service.inference import Inference, IsGone
from boothsam.service.products import Picture
from boothsam.service.settings import Settings
from boothsam.service.stages import Stages
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


def form_body(schema: Mapping[str, Any], *, json: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """OpenAPI's requestBody of a multipart form, and of JSON where the route takes that too."""
    content: dict[str, Any] = {"multipart/form-data": {"schema": dict(schema)}}
    if json is not None:
        content |= {
            "application/x-www-form-urlencoded": {"schema": dict(json)},
            "application/json": {"schema": dict(json)},
        }
    return {"requestBody": {"required": True, "content": content}}
