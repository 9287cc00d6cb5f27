"""Bodies that are too long, too slow or lie, and uploads that come all at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from boothsam.service.limits import (
    ByteLimit,
)
from boothsam.service.problems import ServiceProblem, problem
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.service.asgi import Piece, ask, call, deaf, echo

LIMIT = 1000


def limited(app: ASGIApp = echo, **options: Any) -> ByteLimit:
    return ByteLimit(app, **({"max_bytes": LIMIT} | options))


@pytest.mark.parametrize("pieces", [[LIMIT], [LIMIT - 1, 1], [1] * LIMIT, [0]])
def test_a_body_of_the_limit_passes(pieces: list[int]) -> None:
    answer = ask(limited(), [*((0.0, bytes(n)) for n in pieces if n), (0.0, b"")])
    assert json.loads(answer.body) == {"bytes": sum(pieces)}
    assert "connection" not in answer.headers


@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * 30, "-1", "1e9", "+5", "0x5", "", " 7 "])
def test_an_announced_excess_or_nonsense_is_refused_unread(length: str) -> None:
    answer = ask(limited(), [(0.0, b"x")], length=length)
    assert (answer.status, answer.code, answer.read) == (413, "too_large", 0)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("length", [None, "5"])
def test_bytes_are_counted_whatever_was_announced(length: str | None) -> None:
    endless = ((0.0, bytes(100)) for _ in range(10**6))
    answer = ask(limited(), endless, length=length)
    assert (answer.status, answer.code, answer.read) == (413, "too_large", LIMIT // 100 + 1)


def test_a_route_that_swallows_the_refusal_cannot_hide_it() -> None:
    async def swallow(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await echo(scope, receive, send)
        except Exception:
            await JSONResponse({"detail": "error parsing the body"}, 400)(scope, receive, send)

    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await echo(scope, receive, send)
        except Exception:
            raise RuntimeError from None

    for app in (swallow, other):
        answer = ask(limited(app), [(0.0, bytes(LIMIT + 1))])
        assert (answer.status, answer.code) == (413, "too_large")


def test_a_refusal_is_final_for_a_route_that_reads_on() -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(5):
            with pytest.raises(ServiceProblem):
                while True:
                    await receive()

    answer = ask(limited(stubborn), [(0.0, bytes(LIMIT + 1)), (0.0, b"x"), (0.0, b"")])
    assert answer.code == "too_large" and answer.read == 1


SLOW: dict[str, Any] = {"body_timeout_s": 0.6, "min_rate": 1000, "pause_s": 0.2, "max_bytes": 10**6}


@pytest.mark.parametrize(
    ("pieces", "about"),
    [
        pytest.param([], 0.2, id="never begins"),
        pytest.param([(0.0, bytes(5000))], 0.2, id="stalls after a burst"),
        pytest.param([(0.05, b"x")] * 1000, 0.2, id="drips"),
        pytest.param([(0.1, bytes(500))] * 1000, 0.6, id="never ends"),
    ],
)
def test_a_slow_body_is_cut(pieces: list[Piece], about: float) -> None:
    began = time.monotonic()
    answer = ask(limited(**SLOW), pieces)
    assert (answer.status, answer.code) == (408, "body_timeout") and answer.headers["connection"] == "close"
    assert about <= time.monotonic() - began + 0.05  # not earlier; how much later depends on the machine


def test_a_slow_but_honest_body_passes() -> None:
    pieces = [(0.05, bytes(200))] * 6 + [(0.0, b"")]
    assert ask(limited(**SLOW | {"body_timeout_s": 30, "pause_s": 5}), pieces).status == 200


def test_an_answer_before_the_end_of_the_body_closes_the_connection() -> None:
    assert ask(limited(deaf), [(0.0, b"x")]).headers["connection"] == "close"
    assert "connection" not in ask(limited(deaf)).headers


def test_a_full_queue_is_told_before_the_upload_is_read() -> None:
    def full() -> ServiceProblem:
        return problem("queue_full", "full", headers={"Retry-After": "4"})

    answer = ask(limited(refusal=full), [(0.0, b"x"), (0.0, b"")])
    assert (answer.status, answer.read, answer.headers["retry-after"]) == (429, 0, "4")
    assert ask(limited(refusal=full), method="GET").status == 200


BIG = [(0.0, bytes(100 << 10)), (0.0, bytes(100 << 10)), (0.0, b"")]


def _gated(hold: Callable[[], Any] = lambda: asyncio.sleep(0.02), **options: Any) -> tuple[ByteLimit, list[int]]:
    """An app that counts how many bodies are beyond their first 64 KiB at once."""
    now, most = 0, [0]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal now
        got, inside = 0, False
        try:
            while True:
                message = await receive()
                got += len(message["body"])
                if not message["more_body"]:
                    break
                if got > 101 << 10 and not inside:
                    inside = True
                    now += 1
                    most[0] = max(most[0], now)
                    await hold()
        finally:
            now -= inside
        await JSONResponse({"bytes": got})(scope, receive, send)

    return limited(app, **({"max_bytes": 10**6, "uploads_at_once": 2} | options)), most


def test_few_uploads_are_read_at_once_and_all_get_through() -> None:
    async def run() -> None:
        app, most = _gated()
        answers = await asyncio.gather(*(call(app, list(BIG)) for _ in range(12)))
        assert [answer.status for answer in answers] == [200] * 12
        assert most[0] == 2

    asyncio.run(run())


def test_uploads_that_stall_at_once_keep_nobody_out() -> None:
    async def run() -> None:
        app, _ = _gated(body_timeout_s=20, pause_s=20)
        stalled = [asyncio.create_task(call(app, [(0.0, bytes(1000))])) for _ in range(50)]
        await asyncio.sleep(0.05)
        answer = await asyncio.wait_for(call(app, list(BIG)), 10)
        assert answer.status == 200
        for task in stalled:
            task.cancel()

    asyncio.run(run())


def test_uploads_that_stall_in_their_slot_lose_it() -> None:
    async def run() -> None:
        app, _ = _gated(pause_s=0.2)
        stalled = [asyncio.create_task(call(app, [(0.0, bytes(100 << 10))])) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (await asyncio.wait_for(call(app, list(BIG)), 10)).status == 200
        assert [(await task).code for task in stalled] == ["body_timeout"] * 2

    asyncio.run(run())


def test_waiting_for_a_slot_has_an_end() -> None:
    async def run() -> None:
        forever = asyncio.Event()
        app, _ = _gated(forever.wait, uploads_at_once=1, body_timeout_s=0.2)
        first = asyncio.create_task(call(app, list(BIG)))
        await asyncio.sleep(0.05)
        answer = await call(app, list(BIG))
        assert (answer.status, answer.code) == (503, "deadline") and answer.headers["retry-after"]
        first.cancel()
        await asyncio.wait([first])
        forever.set()
        assert (await call(app, list(BIG))).status == 200  # the slot came back with the cancelled request

    asyncio.run(run())
