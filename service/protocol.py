"""The connection layer: deadlines and a cap that ASGI cannot give, because it never sees half a header.

On top of uvicorn's h11 protocol:

- a request's headers must be complete `header_timeout_s` after the connection opened, or after the first byte that
  follows an answer; what drips in does not extend it;
- at `max_connections` the connection that has been without a complete request longest is closed to make room; one whose
  headers are complete goes last, one whose request is complete never;
- an answer that comes before its request was read is followed by a lingering close: the rest is discarded for a moment,
  since closing at once would reset the connection and take the answer with it (RFC 9112, section 9.6);
- a client that reads less than 1 KiB per second of its answer is cut off after `send_timeout_s`;
- answers that wait to be read take `max_unread_bytes` together at most: beyond that the one that has waited longest is
  cut off. The newest always stays, however large.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import h11
from boothsam.service.problems import problem, render
from uvicorn.protocols.http.h11_impl import H11Protocol

_SLOWEST_READER = 1024  # bytes per second


class BoundedProtocol(H11Protocol):
    """uvicorn's h11 protocol with bounds; `bounded` makes a subclass with other values."""

    header_timeout_s = 10.0
    linger_s = 2.0
    send_timeout_s = 30.0
    max_connections = 128
    max_unread_bytes = 256 << 20

    _header_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _incomplete_since: float | None = None
    _unread_since: float | None = None
    lingering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        full = len(self.connections) >= self.max_connections and not self._make_room()
        super().connection_made(cast(asyncio.Transport, _Lingering(transport, self)))
        if full:
            self._refuse(
                "connections_full",
                f"{self.max_connections} connections are open, and every one waits for an answer",
                "connect again after Retry-After seconds, or raise max_connections",
                {"retry-after": "1"},
            )
            return
        self._incomplete_since = self.loop.time()
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._header_timer, self._send_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._header_timer = self._send_timer = self._linger_timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.lingering or self.transport.is_closing():
            return
        super().data_received(data)
        self._judge()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP; uvicorn's own answer is plain text."""
        self._refuse("bad_request", "this is no valid HTTP/1.1 request", "curl -v shows what a client sends")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            if self._is_unread():
                self.transport.close()  # lingers
            else:
                self._judge()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.expect_reader()
        self._unread_since = self.loop.time()
        self._bound_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since = None
        if self._send_timer is not None and not self.transport.is_closing():
            self._send_timer.cancel()
            self._send_timer = None

    def _bound_unread(self) -> None:
        others = [
            (c._unread_since, id(c), c)
            for c in self.connections
            if isinstance(c, BoundedProtocol) and c is not self and c._unread_since is not None
        ]
        total = sum(c.transport.get_write_buffer_size() for _, _, c in others) + self.transport.get_write_buffer_size()
        for _, _, slow in sorted(others):
            if total <= self.max_unread_bytes:
                return
            total -= slow.transport.get_write_buffer_size()
            slow._unread_since = None
            slow.transport.abort()

    def expect_reader(self) -> None:
        """Cut the client off unless it reads what was written."""
        if self._send_timer is None:
            unread = self.transport.get_write_buffer_size()
            self._send_timer = self.loop.call_later(self.send_timeout_s, self._check_reader, unread)

    def _check_reader(self, before: int) -> None:
        self._send_timer = None
        unread = self.transport.get_write_buffer_size()
        if unread and before - unread < _SLOWEST_READER * self.send_timeout_s:
            self.transport.abort()
        elif unread:
            self.expect_reader()

    def must_linger(self) -> bool:
        """Whether the client may still be sending, so that closing at once could destroy the answer."""
        return self._is_unread() or self.conn.their_state is h11.ERROR

    def linger(self, transport: asyncio.Transport) -> None:
        """Send the answer and the end of our side; then discard what comes until the client ends, or for a moment."""
        self.lingering = True
        self._unset_keepalive_if_required()
        self._stop_header_timer()
        if transport.can_write_eof():
            transport.write_eof()
        self.flow.resume_reading()
        self._linger_timer = self.loop.call_later(self.linger_s, transport.abort)

    def rank(self) -> tuple[bool, float] | None:
        """Order of being closed to make room, smallest first; None for a connection whose request is complete."""
        if self._incomplete_since is None:
            return None
        return self.conn.their_state is h11.SEND_BODY and not self.lingering, self._incomplete_since

    def _is_unread(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY

    def _judge(self) -> None:
        """After each event: is a request complete, are headers under way?"""
        if self.transport.is_closing():
            self._stop_header_timer()
            return
        answered = self.cycle is None or self.cycle.response_complete
        complete = not answered and not self.cycle.more_body
        if complete:
            self._incomplete_since = None
        elif self._incomplete_since is None:
            self._incomplete_since = self.loop.time()
        if self.conn.their_state is not h11.IDLE:
            self._stop_header_timer()
        elif self.conn.trailing_data[0]:
            self._expect_headers()

    def _expect_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_timeout_s, self._headers_late)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_late(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            if self.conn.trailing_data[0]:
                self._refuse(
                    "header_timeout",
                    f"the headers were not complete within {self.header_timeout_s:g} s",
                    "send them at once, or raise header_timeout_s",
                )
            else:
                self.transport.close()

    def _refuse(self, code: str, detail: str, hint: str, more: Mapping[str, str] = MappingProxyType({})) -> None:
        """Answer a problem, as every other refusal is answered, and close.

        A request whose body turned out to be no HTTP may be in work: its application is told that the client has gone,
        and what it says is dropped. Where it had begun to answer, the end of the connection is all that can be said.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        status, headers, body = render(problem(code, detail, hint, headers=more), {}, secrets.token_hex(16))
        fields = [(name.encode(), value.encode()) for name, value in (headers | {"connection": "close"}).items()]
        for event in (h11.Response(status_code=status, headers=fields), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _make_room(self) -> bool:
        ranked = [(rank, id(c), c) for c in self.connections if isinstance(c, BoundedProtocol) and (rank := c.rank())]
        if not ranked:
            return False
        victim = min(ranked)[2]
        self.connections.discard(victim)
        victim.transport.abort()
        return True


def bounded(
    *,
    header_timeout_s: float,
    max_connections: int,
    linger_s: float = 2.0,
    send_timeout_s: float = 30.0,
    max_unread_bytes: int = 256 << 20,
) -> type[BoundedProtocol]:
    """A protocol class with these bounds, for `uvicorn.Config(http=...)`."""
    values: dict[str, Any] = {
        "header_timeout_s": header_timeout_s,
        "max_connections": max_connections,
        "linger_s": linger_s,
        "send_timeout_s": send_timeout_s,
        "max_unread_bytes": max_unread_bytes,
    }
    return type("Bounded", (BoundedProtocol,), values)


class _Lingering:
    """The transport as uvicorn sees it; only closing differs."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport, self._protocol = transport, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._protocol.lingering or self._transport.is_closing()

    def close(self) -> None:
        if self._protocol.lingering or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size():
            self._protocol.expect_reader()
        if self._protocol.must_linger():
            self._protocol.linger(self._transport)
        else:
            self._transport.close()
