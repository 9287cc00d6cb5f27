"""The application: `create_app(settings)` puts the parts together; the lifespan owns every one of them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any

import boothsam
from boothsam.runtime.errors import BoothsamError
from boothsam.service import limits
from boothsam.service.admission import Admission
from boothsam.service.annotations.running import annotating
from boothsam.service.captures.running import running
from boothsam.service.decoding import DecodeWorker
from boothsam.service.engine_building import build_engines
from boothsam.service.inference import Inference
from boothsam.service.metrics import Metrics
from boothsam.service.plates import PlateStore
from boothsam.service.problems import ServiceProblem, from_error, problem, render
from boothsam.service.restart import Restart
from boothsam.service.routes import annotations as annotation_routes
from boothsam.service.routes import (
    captures,
    codes,
    crop,
    cutout,
    embeddings,
    everything,
    health,
    kiosk,
    plate,
    presets,
    removebg,
    static,
)
from boothsam.service.schemas import Problem
from boothsam.service.settings import Settings
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("boothsam.service")
_HTTP = {404: "not_found", 405: "method_not_allowed"}


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI application; nothing is loaded before its lifespan starts.

    The lifespan raises BoothsamError when the model cannot be loaded: a service that cannot answer does not start.
    """
    app = FastAPI(
        title="boothsam",
        version=boothsam.__version__,
        summary="Cuts products out of photos, where the camera stands",
        docs_url=None,  # their pages load scripts from a CDN; this service works offline
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    app.state.restart = Restart()
    for module in (crop, presets, embeddings, cutout, everything, codes, kiosk, plate, removebg, health):
        app.include_router(module.router)
    app.state.static_files = static.listed()
    if settings.kiosk:
        app.include_router(static.router)
    if settings.captures_dir is not None:
        app.include_router(captures.router)
    if settings.annotate_dir is not None:
        app.include_router(annotation_routes.router)
    for kind in (ServiceProblem, BoothsamError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, _refuse)
    limits.install(
        app,
        max_bytes=settings.max_upload_bytes,
        body_timeout_s=settings.body_timeout_s,
        min_rate=settings.body_min_rate,
        allowed_hosts=(*settings.allowed_hosts, *own_names(settings.host)),
        allowed_origins=settings.allowed_origins,
        token=settings.token,
        open_paths=(*health.OPEN_PATHS, *static.open_paths(app.state.static_files)),
    )
    app.add_middleware(_Measured, metrics=app.state.metrics)  # outermost: refusals count as well
    _describe(app)
    return app


def own_names(host: str) -> tuple[str, ...]:
    """What clients may call the service that listens on `host`: that address, none where it stands for all of them."""
    try:
        return () if ipaddress.ip_address(host.strip("[]")).is_unspecified else (host,)
    except ValueError:
        return (host,) if host else ()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the parts in order, and end them in the reverse one whatever happens in between."""
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        inference = Inference(
            model=settings.model,
            backend=settings.backend,
            precision=settings.precision,
            threads=settings.threads,
            resize=settings.resize,
            in_flight=settings.in_flight,
            cache_bytes=settings.cache_bytes,
            cache_ttl_s=settings.cache_ttl_s,
            photo_cache_bytes=settings.photo_cache_bytes,
        )
        stack.push_async_callback(asyncio.to_thread, inference.close)
        decoder = DecodeWorker(
            max_pixels=settings.max_pixels,
            max_side=settings.max_side,
            timeout_s=settings.decode_timeout_s,
            memory_bytes=settings.decode_memory_bytes,
            recycle=settings.decode_recycle,
        )
        stack.callback(decoder.close)
        decoder.start()
        await asyncio.to_thread(inference.load)
        app.state.inference, app.state.decoder = inference, decoder
        app.state.admission = Admission(settings.in_flight, settings.queue, settings.queue_deadline_s)
        app.state.everything = Admission(in_flight=1, queue=0)
        app.state.annotations = None
        if settings.annotate_dir is not None:
            app.state.annotations = await stack.enter_async_context(annotating(settings))
        app.state.plates = await asyncio.to_thread(PlateStore, settings.state_dir)
        app.state.captures = None
        if settings.captures_dir is not None:
            app.state.captures = await stack.enter_async_context(
                running(
                    settings.captures_dir,
                    min_free_bytes=settings.min_free_bytes,
                    retention_days=settings.retention_days,
                    forward_url=settings.forward_url,
                    forward_dir=settings.forward_dir,
                    forward_token=settings.forward_token,
                    forward_timeout_s=settings.forward_timeout_s,
                )
            )
        _gauges(app)
        for work in (inference.prove(), inference.cache.keep_expiring()):
            stack.push_async_callback(_settle, asyncio.create_task(work))
        if settings.build_engine:
            building = asyncio.create_task(_build_engines(app, settings))
            stack.push_async_callback(_settle, building)
        yield
        app.state.admission.drain()


async def _build_engines(app: FastAPI, settings: Settings) -> None:
    restart: Restart = app.state.restart
    if not await build_engines(app.state.inference, settings.model) or not settings.engine_restart_s:
        return
    if (reason := restart.possible(settings.port, settings.backend)) is not None:
        log.warning("the service does not start again by itself: %s", reason)
        return
    await restart.when_quiet(app.state.admission, settings.engine_restart_s)


async def _settle(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _gauges(app: FastAPI) -> None:
    metrics, inference, admission = app.state.metrics, app.state.inference, app.state.admission
    model = inference.model
    metrics.model(model.manifest.name, model.backend, model.precision)
    metrics.gauge("queue_depth", "Requests that wait for a place", lambda: admission.depth)
    metrics.gauge("in_flight", "Photos that are worked on", lambda: admission.in_flight)
    metrics.gauge("ready", "1 when photos are taken", lambda: inference.state == "ready" and not admission.draining)
    metrics.gauge("cache_bytes", "Memory held by cached embeddings", lambda: inference.cache.nbytes)
    metrics.gauge("photo_cache_bytes", "Memory held by decoded photos", lambda: inference.cache.pixel_nbytes)
    metrics.gauge("cache_entries", "Cached embeddings", lambda: len(inference.cache))
    metrics.gauge("cache_hits", "Embeddings found in the cache since the start", lambda: inference.cache.hits)
    metrics.gauge("cache_misses", "Embeddings not found since the start", lambda: inference.cache.misses)
    metrics.gauge("decoders_replaced", "Decoding workers killed or dead", lambda: app.state.decoder.replaced)


async def _refuse(request: Request, error: Exception) -> Response:
    """Any exception as a problem; whatever was not raised on purpose is logged under the request's id."""
    if isinstance(error, ServiceProblem):
        found = error
    elif isinstance(error, RequestValidationError):
        found = problem("invalid_field", f"{len(error.errors())} invalid values in path or query", "GET /openapi.json")
    elif isinstance(error, HTTPException):
        allowed = {"Allow": error.headers["Allow"]} if error.headers and "Allow" in error.headers else {}
        code = _HTTP.get(error.status_code, "bad_request")
        found = problem(code, f"{request.method} {request.scope['path'][:200]}", "GET /openapi.json", headers=allowed)
    elif isinstance(error, ClientDisconnect):
        found = problem("client_gone", "the client closed the connection before its upload was complete")
    else:
        found = from_error(error)
    identity = str(request.scope.get("state", {}).get("request_id", ""))
    if found.code == "internal":
        log.error("request %s failed", identity, exc_info=error)
    status, headers, body = render(found, request.scope, identity)
    request.scope["boothsam.problem"] = found.code
    return Response(body, status, headers)


class _Measured:
    """Pure ASGI: counts every answer by route template, never by the path that a client chose.

    What nobody else caught becomes an answer here, so that it is counted, and logged once.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, started = perf_counter(), 500, False

        async def watch(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            if started:
                raise
            await (await _refuse(Request(scope), error))(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.answered(route, _method(scope), status, perf_counter() - start)
            if "boothsam.problem" in scope:
                self.metrics.problem(scope["boothsam.problem"])


def _method(scope: Scope) -> str:
    method = str(scope["method"])
    return method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"


def _describe(app: FastAPI) -> None:
    """Mend what FastAPI cannot know in /openapi.json: the problem's schema in place of its own validation errors."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = Problem.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for operation in (op for path in schema["paths"].values() for op in path.values()):
                if _is_foreign(operation, "422"):
                    del operation["responses"]["422"]
        return app.openapi_schema or made()

    app.openapi = openapi  # type: ignore[method-assign]


def _is_foreign(operation: dict[str, Any], status: str) -> bool:
    content = operation["responses"].get(status, {}).get("content", {})
    return "HTTPValidationError" in str(content.get("application/json", ""))
