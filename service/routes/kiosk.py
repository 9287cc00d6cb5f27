"""GET /kiosk/status: everything the kiosk's page shows of the service's state, cheap enough to be asked each second."""

from __future__ import annotations

import asyncio
from typing import Any

import boothsam
from boothsam.runtime.errors import BoothsamError
from boothsam.service import codes
from boothsam.service.captures.files import free_bytes
from boothsam.service.captures.store import CaptureStore
from boothsam.service.presets.preset import preset_names
from boothsam.service.routes.common import Parts, answer_head, problem_responses
from boothsam.service.schemas import KioskStatus
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

router = APIRouter(tags=["page"])


@router.get(
    "/kiosk/status",
    summary="What the kiosk's page shows",
    responses=problem_responses(401, 403, 503, ok={"model": KioskStatus}),
)
async def status(request: Request) -> Response:
    """Always 200 while the process answers: `state` says whether photos are taken."""
    parts = Parts(request)
    state, reason = _state(parts)
    taken = request.app.state.plates.current
    content = {
        "state": state,
        "reason": reason,
        "engine": {"progress": None} | parts.inference.engine,
        "model": parts.inference.model.manifest.name,
        "boothsam": boothsam.__version__,
        "queue": {"depth": parts.admission.depth, "in_flight": parts.admission.in_flight},
        "captures": await _captures(request.app.state.captures),
        "plate": None if taken is None else taken.facts,
        "annotate": getattr(parts.settings, "annotate_dir", None) is not None,
        "presets": list(preset_names()),
        "codes": codes.installed(),
    }
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


def _state(parts: Parts) -> tuple[str, str]:
    inference = parts.inference
    if parts.admission.draining:
        return "draining", "the service is shutting down"
    if inference.state in ("loading", "proving") and inference.engine["state"] == "building":
        return "building", "an engine is being built for this device"
    return inference.state, inference.reason


async def _captures(store: CaptureStore | None) -> dict[str, Any] | None:
    if store is None:
        return None

    def read() -> dict[str, Any]:
        facts: dict[str, Any] = {"free_bytes": 0, "disk_low": True, "forwarding": bool(store.target)}
        try:
            free = free_bytes(store.layout.folder)
            facts |= {"free_bytes": free, "disk_low": free < store.min_free_bytes}
            found = store.status(store.min_free_bytes)
        except (BoothsamError, OSError) as error:  # the folder's disk may have been pulled out
            return facts | {"waiting": 0, "failed": 0, "reason": getattr(error, "message", str(error))}
        return facts | {"waiting": found.pending, "failed": found.parked, "reason": ""}

    return await asyncio.to_thread(read)


answer_head(router)
