"""What a request must pass before a route sees it, as pure ASGI middlewares: id, host, origin, token, bytes.

Each answers through `problems.render`, so that every path gets the error form its clients expect. A refused upload is
not read; the answer then says `Connection: close`, and `protocol` lets the client read it before the socket goes.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from boothsam.service.problems import ServiceProblem, problem, render
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")
# An upload shorter than this takes no slot: a client that stalls at once cannot keep others from uploading.
_FREE_BYTES = 64 << 10
# How long an upload may pause, and how late its average rate may begin to count.
_PAUSE_S = 5.0


async def refuse(found: ServiceProblem, scope: Scope, send: Send) -> None:
    """Answer with a problem; the connection is not used again when a body may still be on its way."""
    identity = str(scope.get("state", {}).get("request_id", ""))
    status, headers, body = render(found, scope, identity)
    if _has_body(scope):
        headers["connection"] = "close"
    scope["boothsam.problem"] = found.code
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


class RequestId:
    """Names each request: the client's own X-Request-ID where it is short and plain, else a random one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        identity = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = identity

        async def name(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = identity
            await send(message)

        await self.app(scope, receive, name)


class HostGuard:
    """Only names that are ours in the Host header: a web page that rebinds its own name to 127.0.0.1 is refused.

    allowed: host names or addresses besides localhost's, without regard to the port.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str] = ()) -> None:
        self.app = app
        self.allowed = frozenset(LOOPBACK_HOSTS) | {_bare_host(name) for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = Headers(scope=scope).getlist("host")
            matched = _HOST.fullmatch(given[0].lower()) if len(given) == 1 else None
            if matched is None or matched[1] not in self.allowed:
                found = given[0][:80] if len(given) == 1 else f"{len(given)} values"
                refusal = problem(
                    "bad_host",
                    f"the Host header is {found!r}, which is no name of this service",
                    "use http://localhost, or add the name to allowed_hosts",
                )
                await refuse(refusal, scope, send)
                return
        await self.app(scope, receive, send)


def _bare_host(name: str) -> str:
    """Lower case, without port, IPv6 in brackets."""
    name = name.strip().lower()
    if name.count(":") > 1 and not name.startswith("["):
        return f"[{name}]"
    matched = _HOST.fullmatch(name)
    return matched[1] if matched else name


class OriginGuard:
    """Only our own pages, and allowed ones, may send requests from a browser: a form post needs no preflight.

    allowed: origins such as "https://shop.example:8443", compared whole.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str] = ()) -> None:
        self.app = app
        self.allowed = frozenset(origin.strip().lower().rstrip("/") for origin in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origins = headers.getlist("origin")
            foreign = any(not self._ours(origin.lower(), headers.get("host", "").lower()) for origin in origins)
            site = headers.get("sec-fetch-site", "").lower()  # sent with images and links too, which have no Origin
            if foreign or (not origins and site not in ("", "same-origin", "none") and not _is_visit(scope, headers)):
                refusal = problem(
                    "bad_origin",
                    f"a page of {origins[0][:80] if origins else 'another site'} sent this request",
                    "open the page from this service, or add its origin to allowed_origins",
                )
                await refuse(refusal, scope, send)
                return
        await self.app(scope, receive, send)

    def _ours(self, origin: str, host: str) -> bool:
        if origin in self.allowed:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and bool(host) and origin == f"{parts.scheme}://{host}"


def _is_visit(scope: Scope, headers: Headers) -> bool:
    """Whether somebody followed a link to a page of ours: it replaces the foreign page, which sees nothing of it."""
    mode, target = headers.get("sec-fetch-mode", "").lower(), headers.get("sec-fetch-dest", "").lower()
    return scope["method"] in ("GET", "HEAD") and (mode, target) == ("navigate", "document")


class TokenGuard:
    """`Authorization: Bearer TOKEN` or `X-Api-Key: TOKEN`, compared in constant time; an empty token lets all pass.

    open_paths: exact paths that need none.
    """

    def __init__(self, app: ASGIApp, token: str = "", open_paths: Iterable[str] = ()) -> None:
        self.app, self.open_paths = app, frozenset(open_paths)
        self.token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.open_paths or self._known(dict(scope["headers"])):
            await self.app(scope, receive, send)
            return
        refusal = problem(
            "unauthorized",
            "this service wants a token, and the request has none or another",
            "curl -H 'Authorization: Bearer TOKEN', with the token of the service's settings",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await refuse(refusal, scope, send)

    def _known(self, headers: dict[bytes, bytes]) -> bool:
        if not self.token:
            return True
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        return hmac.compare_digest(given, self.token)


class UploadGate:
    """Bounds how many uploads lie half-read in memory; for one event loop."""

    def __init__(self, at_once: int) -> None:
        self._slots = asyncio.Semaphore(at_once)

    async def enter(self, timeout_s: float) -> None:
        """Take a slot, first come first served. Raises ServiceProblem `deadline`."""
        try:
            await asyncio.wait_for(self._slots.acquire(), timeout_s)
        except asyncio.TimeoutError:
            raise problem(
                "deadline",
                f"other uploads left no room for this one within {timeout_s:g} s",
                "send it again in a moment",
                headers={"Retry-After": "5"},
            ) from None

    def leave(self) -> None:
        """Give the slot back."""
        self._slots.release()


class ByteLimit:
    """Bounds a request's body: in bytes as they come, whatever Content-Length says, in time, in rate, and in number.

    Args:
        max_bytes: largest body (`too_large`).
        body_timeout_s: longest time for the whole body, from its first read (`body_timeout`).
        min_rate: bytes per second that an upload must average after its first seconds; nor may it pause for longer
            than those.
        uploads_at_once: bodies over 64 KiB that are read at the same time; further ones wait unread, in the kernel's
            buffers.
        refusal: what a request would be told that arrives now, asked before its body is read.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        body_timeout_s: float = 30.0,
        min_rate: int = 16384,
        uploads_at_once: int = 4,
        refusal: Callable[[], ServiceProblem | None] = lambda: None,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self.app, self.max_bytes, self.body_timeout_s, self.min_rate = app, max_bytes, body_timeout_s, min_rate
        self.refusal, self.pause_s = refusal, pause_s
        self.gate = UploadGate(uploads_at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        announced = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else self.max_bytes + 1
        refusal = self._too_large(announced) if announced > self.max_bytes else self.refusal()
        if refusal is not None:
            await refuse(refusal, scope, send)
            return
        body = _Body(self, receive)
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            if body.problem is not None and not started:
                return  # whatever the route makes of the exception, the client is told what it was
            if message["type"] == "http.response.start":
                started = True
                if not body.complete:
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        try:
            await self.app(scope, body.receive, watch)
        except Exception:
            if body.problem is None or started:
                raise
        finally:
            body.leave_gate()
        if body.problem is not None and not started:
            await refuse(body.problem, scope, send)

    def _too_large(self, found: int) -> ServiceProblem:
        return problem(
            "too_large",
            f"the body has {found if found < 10**19 else 'far too many'} bytes; accepted are {self.max_bytes}",
            "send a smaller file, or raise max_upload_bytes",
        )


class _Body:
    """One request's body as it streams. `problem`: why it was cut off. `complete`: whether all of it was read."""

    def __init__(self, limit: ByteLimit, receive: Receive) -> None:
        self._limit, self._receive = limit, receive
        self.problem: ServiceProblem | None = None
        self.complete = False
        self._bytes = 0
        self._began: float | None = None
        self._in_gate = False

    def leave_gate(self) -> None:
        if self._in_gate:
            self._in_gate = False
            self._limit.gate.leave()

    async def receive(self) -> Message:
        if self.complete:
            return await self._receive()
        if self.problem is not None:
            raise self.problem
        try:
            return await self._next()
        except ServiceProblem as found:
            self.problem = found
            self.leave_gate()
            raise

    async def _next(self) -> Message:
        limit = self._limit
        if self._began is None:
            self._began = time.monotonic()
        if self._bytes > _FREE_BYTES and not self._in_gate:
            waiting = time.monotonic()
            await limit.gate.enter(limit.body_timeout_s)
            self._in_gate = True
            self._began += time.monotonic() - waiting  # nobody read meanwhile: not the client's delay
        try:
            message = await asyncio.wait_for(self._receive(), self._patience(time.monotonic() - self._began))
        except asyncio.TimeoutError:
            taken = time.monotonic() - self._began
            raise problem(
                "body_timeout",
                f"{self._bytes} bytes came in {taken:.1f} s; the body must come within {limit.body_timeout_s:g} s, at "
                f"{limit.min_rate} bytes per second and without pausing for {limit.pause_s:g} s",
                "send it again over a better connection, or raise body_timeout_s",
            ) from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            if self._bytes > limit.max_bytes:
                raise limit._too_large(self._bytes)
            self.complete = not message.get("more_body", False)
        else:
            self.complete = True  # the client is gone
        if self.complete:
            self.leave_gate()
        return message

    def _patience(self, taken: float) -> float:
        """Seconds that the next bytes may take."""
        limit = self._limit
        by_rate = limit.pause_s + (self._bytes / limit.min_rate if limit.min_rate else limit.body_timeout_s) - taken
        return max(0.0, min(limit.body_timeout_s - taken, limit.pause_s, by_rate))


def install(
    app: Starlette,
    *,
    max_bytes: int,
    body_timeout_s: float = 30.0,
    min_rate: int = 16384,
    uploads_at_once: int = 4,
    allowed_hosts: Iterable[str] = (),
    allowed_origins: Iterable[str] = (),
    token: str = "",
    open_paths: Iterable[str] = (),
) -> None:
    """Put all of them around the application: id, host, origin, CORS where origins are allowed, token, bytes.

    `app.state.admission`, once it exists, is asked before an upload is read.
    """

    def refusal() -> ServiceProblem | None:
        admission: Any = getattr(app.state, "admission", None)
        found: ServiceProblem | None = None if admission is None else admission.refusal()
        return found

    origins = [origin.strip().lower().rstrip("/") for origin in allowed_origins]
    # The last one added is the outermost.
    app.add_middleware(
        ByteLimit,
        max_bytes=max_bytes,
        body_timeout_s=body_timeout_s,
        min_rate=min_rate,
        uploads_at_once=uploads_at_once,
        refusal=refusal,
    )
    app.add_middleware(TokenGuard, token=token, open_paths=open_paths)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Api-Key", "X-Request-ID"],
            expose_headers=["*"],
        )
    app.add_middleware(OriginGuard, allowed=origins)
    app.add_middleware(HostGuard, allowed=allowed_hosts)
    app.add_middleware(RequestId)
