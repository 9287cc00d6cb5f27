"""Is it alive, is it ready, how is it doing: /healthz, /readyz, /metrics and the Open Inference Protocol's routes."""

from __future__ import annotations

from typing import Any

import boothsam
from boothsam.service.metrics import CONTENT_TYPE
from boothsam.service.problems import problem
from boothsam.service.routes.common import Parts, answer_head
from boothsam.service.schemas import Ready
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

router = APIRouter(tags=["health"])
OPEN_PATHS = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")  # need no token, tell no secret


def readiness(parts: Parts) -> tuple[bool, dict[str, Any]]:
    """Whether it takes photos now, and what /readyz says."""
    inference, admission = parts.inference, parts.admission
    state = "draining" if admission.draining else inference.state
    model = inference.model
    content = {
        "ready": state == "ready",
        "state": state,
        "reason": "the service is shutting down" if state == "draining" else inference.reason,
        "boothsam": boothsam.__version__,
        "model": model.manifest.name,
        "model_key": model.manifest.key,
        "backend": model.backend,
        "precision": model.precision,
        "resize": model.resize,
        "proof": inference.proof,
        "engine": inference.engine,
        "queue": {"depth": admission.depth, "in_flight": admission.in_flight},
    }
    return state == "ready", content


@router.get("/healthz", summary="Does the process answer?")
async def healthz() -> dict[str, str]:
    """Answers while photos are worked on; says nothing about the model."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="Does it take photos?",
    response_model=Ready,
    responses={503: {"description": "not yet, or no longer", "model": Ready}},
)
async def readyz(request: Request) -> Response:
    """The model, its backend and precision, how it was proven on this machine, and the queue."""
    ready, content = readiness(Parts(request))
    return JSONResponse(content, 200 if ready else 503, headers={"Cache-Control": "no-store"})


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"description": "text format 0.0.4", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Requests, stages, queue, cache, refusals by code, retakes by reason, memory of the process."""
    return Response(Parts(request).metrics.text(), media_type=CONTENT_TYPE)


@router.get("/v2", summary="Server metadata (Open Inference Protocol)")
async def server() -> dict[str, Any]:
    """Health routes only: tensors are not served."""
    return {"name": "boothsam", "version": boothsam.__version__, "extensions": []}


@router.get("/v2/health/live", summary="Liveness (Open Inference Protocol)")
async def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


_READY_V2: dict[int | str, dict[str, Any]] = {503: {"description": "not ready"}}


@router.get("/v2/health/ready", summary="Readiness (Open Inference Protocol)", responses=_READY_V2)
async def ready(request: Request) -> Response:
    """As /readyz."""
    is_ready, _ = readiness(Parts(request))
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


@router.get(
    "/v2/models/{model}/ready",
    summary="Readiness of a model (Open Inference Protocol)",
    responses=_READY_V2 | {404: {"description": "another model"}},
)
async def model_ready(model: str, request: Request) -> Response:
    """model: the name that /readyz says; there is one."""
    is_ready, content = readiness(Parts(request))
    if model != content["model"]:
        raise problem("not_found", f"no model {model[:80]!r}; this service has {content['model']!r}", "GET /readyz")
    return JSONResponse({"name": model, "ready": is_ready}, 200 if is_ready else 503)


answer_head(router)
