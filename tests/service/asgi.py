"""One request to an ASGI application, its body coming in pieces when the test wants them to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Piece = tuple[float, bytes]  # seconds before it comes, and the bytes


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    read: int = 0  # pieces of the body that were asked for

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


async def call(
    app: ASGIApp,
    pieces: Iterable[Piece] | None = None,
    *,
    method: str = "POST",
    path: str = "/crop",
    length: str | None = None,
    headers: Iterable[tuple[str, str]] = (("host", "localhost"),),
) -> Answer:
    """One request; without `length` a body is announced as chunked. A body that ends without its last piece stalls."""
    sent = [(name.encode(), value.encode()) for name, value in headers]
    if length is not None:
        sent.append((b"content-length", length.encode()))
    elif pieces is not None:
        sent.append((b"transfer-encoding", b"chunked"))
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": sent, "query_string": b"", "state": {}}
    scope |= {"http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 8765), "root_path": ""}
    answer = Answer()

    async def stream() -> AsyncIterator[Message]:
        if pieces is None:
            yield {"type": "http.request", "body": b"", "more_body": False}
        else:
            for delay, data in pieces:
                await asyncio.sleep(delay)
                yield {"type": "http.request", "body": data, "more_body": bool(data)}
        await asyncio.sleep(60)

    messages = stream()

    async def receive() -> Message:
        answer.read += 1
        return await messages.__anext__()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert answer.status == 0, "a second response"
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body; answers its length."""
    got, more = 0, True
    while more:
        message = await receive()
        got += len(message.get("body", b""))
        more = message.get("more_body", False)
    await JSONResponse({"bytes": got})(scope, receive, send)


async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without reading."""
    await JSONResponse({})(scope, receive, send)


def ask(app: ASGIApp, *arguments: Any, **options: Any) -> Answer:
    return asyncio.run(call(app, *arguments, **options))
