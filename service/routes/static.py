"""The kiosk's page: the files below `service/static/`, and nothing else.

What is served is listed once, when the application is made: a path that is asked for is looked up, never joined to a
folder, so none can lead out of it. The files themselves are read for each answer; they are small.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from boothsam.service.problems import problem
from boothsam.service.routes.common import answer_head, problem_responses
from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request

FOLDER = Path(__file__).parents[1] / "static"
INDEX, ANNOTATE = "index.html", "annotate.html"
MEDIA_TYPES = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".ico": "image/x-icon",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".mjs": "text/javascript; charset=utf-8",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
        ".webmanifest": "application/manifest+json",
        ".webp": "image/webp",
        ".woff2": "font/woff2",
    }
)
# Scripts, styles and pictures of our own alone; pictures and films also from memory, where the page makes them.
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "media-src": "'self' blob:",
    "connect-src": "'self'",
    "font-src": "'self'",
    "manifest-src": "'self'",
    "worker-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in _POLICY.items()),
        "Permissions-Policy": "camera=(self)",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # Asked for anew each time, answered with 304: a kiosk shows the new page after an update without a second load.
        "Cache-Control": "no-cache",
    }
)

router = APIRouter(tags=["page"])
_PAGE = {"description": "the page", "content": {"text/html": {"schema": {"type": "string"}}}}
_FILE = {
    "description": "the file",
    "content": {kind.split(";")[0]: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()},
}
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "the client has it"}}


def listed(folder: Path = FOLDER) -> Mapping[str, Path]:
    """Relative path with slashes -> file, for each regular file of a known kind; no hidden one, no link out."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.suffix in MEDIA_TYPES and not hidden and path.is_file() and not path.is_symlink():
            files[name.as_posix()] = path
    return MappingProxyType(files)


def open_paths(files: Mapping[str, Path]) -> tuple[str, ...]:
    """Paths that need no token: the page asks for it, and its files hold no secret."""
    return ("/", "/annotate", *(f"/static/{name}" for name in files))


@router.get("/", summary="The kiosk's page", responses=problem_responses(404, ok=_PAGE) | _UNCHANGED)
async def index(request: Request) -> Response:
    """Cut a product out in two taps, in a browser."""
    return await _answer(request, INDEX)


@router.get("/annotate", summary="The annotation page", responses=problem_responses(404, ok=_PAGE) | _UNCHANGED)
async def annotate(request: Request) -> Response:
    """Masks for a folder of photos, in a browser; `boothsam annotate DIR` turns it on."""
    if getattr(request.app.state.settings, "annotate_dir", None) is None:
        raise problem("not_found", "no folder is being annotated", "boothsam annotate DIR")
    return await _answer(request, ANNOTATE)


@router.get(
    "/static/{path:path}", summary="A file of the page", responses=problem_responses(404, ok=_FILE) | _UNCHANGED
)
async def static(path: str, request: Request) -> Response:
    """Scripts, styles, texts and icons; they need no token."""
    return await _answer(request, path)


async def _answer(request: Request, name: str) -> Response:
    files: Mapping[str, Path] = request.app.state.static_files
    path = files.get(name)
    if path is None:
        raise problem("not_found", f"no file {name[:80]!r} belongs to the page", "GET /")
    try:
        data = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        raise problem("not_found", f"{name!r} was removed while the service ran", "start the service again") from None
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=MEDIA_TYPES[path.suffix], headers=headers)


answer_head(router)
