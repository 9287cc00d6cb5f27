"""A small HTTP/1.1 client on asyncio that takes an answer whenever it comes, also while it still sends.

General clients send the whole body before they look, or copy it; here a hundred uploads share one photo's bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

Pieces = Sequence[bytes | memoryview]
_BOUNDARY = b"boothsam-load"
_SLICE = 1 << 18


@dataclass(frozen=True)
class Answer:
    """headers: by lower-case name. seconds: from before the connection was opened to the answer's last byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's stable code, or ""."""
        if self.status < 400:
            return ""
        try:
            found = self.json()
            return str(found["code"] if "code" in found else found["errors"][0]["code"])
        except (ValueError, LookupError, TypeError):
            return "no problem document"


def form(
    photo: Pieces, fields: Mapping[str, str] | None = None, name: str = "image_file"
) -> tuple[list[bytes | memoryview], str]:
    """A multipart body, in pieces, and its content type. name: the field that the photo goes into."""
    head = b"".join(
        b'--%s\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (_BOUNDARY, field.encode(), text.encode())
        for field, text in (fields or {}).items()
    )
    head += b'--%s\r\ncontent-disposition: form-data; name="%s"; filename="p"\r\n\r\n' % (_BOUNDARY, name.encode())
    return [head, *photo, b"\r\n--%s--\r\n" % _BOUNDARY], f"multipart/form-data; boundary={_BOUNDARY.decode()}"


async def request(
    port: int, method: str, path: str, body: Pieces = (), headers: Mapping[str, str] | None = None, limit_s: float = 300
) -> Answer:
    """Ask on a connection of its own. Raises TimeoutError, OSError, or EOFError where the server gave no answer."""
    began = perf_counter()
    reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, limit=1 << 20), limit_s)
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"content-length: {sum(map(len, body))}")
    sending = asyncio.create_task(_send(writer, ["\r\n".join([*lines, "", ""]).encode(), *body]))
    try:
        head, content = await asyncio.wait_for(_receive(reader), limit_s)
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await sending
        writer.transport.abort()
    status, *rest = head.decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in rest if line)
    return Answer(
        int(status.split()[1]),
        {name.strip().lower(): value.strip() for name, value in pairs},
        content,
        perf_counter() - began,
    )


async def _send(writer: asyncio.StreamWriter, pieces: Pieces) -> None:
    for piece in pieces:
        for start in range(0, len(piece), _SLICE):
            writer.write(piece[start : start + _SLICE])
            await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None)
    body = await (reader.read() if length is None else reader.readexactly(int(length.split(b":")[1])))
    return head[:-4], body


async def post_photo(
    port: int, photo: Pieces, path: str = "/crop", fields: Mapping[str, str] | None = None, **headers: str
) -> Answer:
    """POST a form. headers: with _ for -."""
    body, kind = form(photo, fields)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await request(port, "POST", path, body, {"content-type": kind} | named)
