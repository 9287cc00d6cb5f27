"""The middlewares against foreign hosts, origins and tokens, and against bodies that are too long, too slow or lie."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from boothsam.service.limits import (
    ByteLimit,
    HostGuard,
    OriginGuard,
    RequestId,
    TokenGuard,
    install,
)
from boothsam.service.problems import ServiceProblem, problem
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
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


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8765",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]:8765",
        "booth.local:80",
        "10.0.0.5",
        "[fe80::1]",
    ],
)
def test_our_own_names_pass(host: str) -> None:
    app = HostGuard(echo, ["Booth.local:8765", "10.0.0.5", "fe80::1"])
    assert ask(app, headers=[("host", host)]).status == 200


@pytest.mark.parametrize(
    "hosts",
    [
        [], ["evil.example"], ["evil.example:8765"], ["localhost.evil.example"], ["evil.example#localhost"],
        ["localhost@evil.example"], ["127.0.0.1.nip.io"], ["localhost", "evil.example"], [""], ["localhost:"],
        ["localhost:99999999"], ["127.1"], ["2130706433"], ["0.0.0.0"], ["[::1"], ["localhost evil"], ["localhost."],
        ["booth.local.evil"],
    ],
)  # fmt: skip
def test_a_rebound_or_foreign_name_is_refused(hosts: list[str]) -> None:
    answer = ask(HostGuard(echo, ["booth.local"]), headers=[("host", host) for host in hosts])
    assert (answer.status, answer.code) == (400, "bad_host")


OURS = ("host", "localhost:8765")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("origin", "http://localhost:8765")],
        [("origin", "https://localhost:8765")],
        [("origin", "https://shop.example"), ("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-origin")],
        [("sec-fetch-site", "none")],
    ],
)
def test_our_pages_and_allowed_ones_pass(headers: list[tuple[str, str]]) -> None:
    assert ask(OriginGuard(echo, ["https://Shop.example/"]), headers=[OURS, *headers]).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("origin", "https://evil.example")],
        [("origin", "null")],
        [("origin", "")],
        [("origin", "http://localhost:3000")],
        [("origin", "http://localhost:8765.evil.example")],
        [("origin", "http://localhost:8765@evil.example")],
        [("origin", "http://evil.example/http://localhost:8765")],
        [("origin", "http://[localhost:8765")],
        [("origin", "file://localhost:8765")],
        [("origin", "https://shop.example:444")],
        [("origin", "http://localhost:8765"), ("origin", "https://evil.example")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
    ],
)
def test_a_foreign_page_is_refused(headers: list[tuple[str, str]]) -> None:
    answer = ask(OriginGuard(echo, ["https://shop.example"]), headers=[OURS, *headers])
    assert (answer.status, answer.code) == (403, "bad_origin")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (("authorization", "Bearer s3cret"), 200),
        (("authorization", "bearer  s3cret"), 200),
        (("x-api-key", "s3cret"), 200),
        (("authorization", "Basic s3cret"), 401),
        (("authorization", "Bearer s3cre"), 401),
        (("authorization", "Bearer s3cret2"), 401),
        (("authorization", "Bearer"), 401),
        (("x-api-key", ""), 401),
        (("x-api-key", "S3CRET"), 401),
        (("x-other", "s3cret"), 401),
    ],
)
def test_the_token_opens_and_nothing_else_does(header: tuple[str, str], status: int) -> None:
    app = TokenGuard(echo, "s3cret", ["/healthz"])
    answer = ask(app, headers=[header])
    assert answer.status == status
    if status == 401:
        assert answer.code == "unauthorized" and answer.headers["WWW-Authenticate".lower()] == "Bearer"
        assert b"s3cret" not in answer.body


@pytest.mark.parametrize(
    ("path", "status"), [("/healthz", 200), ("/healthz/", 401), ("/healthz/../crop", 401), ("//healthz", 401)]
)
def test_only_exact_paths_are_open(path: str, status: int) -> None:
    assert ask(TokenGuard(echo, "s3cret", ["/healthz"]), path=path, method="GET").status == status


def test_without_a_token_all_pass() -> None:
    assert ask(TokenGuard(echo)).status == 200


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 64])
def test_a_plain_request_id_is_echoed(given: str) -> None:
    assert ask(RequestId(echo), headers=[("x-request-id", given)]).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\r\nset-cookie: x", "é", "<script>"])
def test_any_other_is_replaced(given: str) -> None:
    answers = [ask(RequestId(echo), headers=[("x-request-id", given)]) for _ in range(2)]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2 and all(len(name) == 32 for name in ids)


def test_removebg_paths_get_their_own_envelope() -> None:
    answer = ask(TokenGuard(echo, "s3cret"), path="/v1.0/removebg")
    assert answer.status in (401, 403) and json.loads(answer.body)["errors"][0]["detail"]


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


async def _receipt(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


def _installed(**options: Any) -> Starlette:
    app = Starlette(routes=[Route("/crop", _receipt, methods=["POST", "GET"])])
    install(app, max_bytes=LIMIT, **options)
    return app


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([("host", "evil.example"), ("origin", "https://evil.example")], "bad_host"),
        ([OURS, ("origin", "https://evil.example")], "bad_origin"),
        ([OURS], "unauthorized"),
        ([OURS, ("x-api-key", "s3cret")], "too_large"),
    ],
)
def test_the_guards_stand_in_order_and_each_refusal_is_named(headers: list[tuple[str, str]], code: str) -> None:
    answer = ask(_installed(token="s3cret"), [(0.0, bytes(LIMIT + 1))], headers=[*headers, ("x-request-id", "r1")])
    assert answer.code == code
    assert answer.headers["x-request-id"] == "r1" == json.loads(answer.body)["instance"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_no_cors_unless_an_origin_is_allowed() -> None:
    preflight: list[tuple[str, str]] = [OURS, ("access-control-request-method", "POST")]
    preflight.append(("access-control-request-headers", "x-api-key"))
    shop = ("origin", "https://shop.example")
    closed = ask(_installed(), method="OPTIONS", headers=[*preflight, shop])
    assert (closed.status, closed.code) == (403, "bad_origin")
    app = _installed(allowed_origins=["https://shop.example"], token="s3cret")
    opened = ask(app, method="OPTIONS", headers=[*preflight, shop])  # a preflight carries no token
    assert opened.status == 200 and opened.headers["access-control-allow-origin"] == "https://shop.example"
    assert ask(app, headers=[OURS, shop]).code == "unauthorized"
    sent = ask(app, [(0.0, b"x"), (0.0, b"")], headers=[OURS, shop, ("x-api-key", "s3cret")])
    assert sent.status == 200 and sent.headers["access-control-allow-origin"] == "https://shop.example"
    assert ask(app, method="OPTIONS", headers=[*preflight, ("origin", "https://evil.example")]).code == "bad_origin"


def test_the_applications_admission_is_asked_once_it_exists() -> None:
    class Full:
        def refusal(self) -> ServiceProblem:
            return problem("draining", "the service is shutting down")

    app = _installed()
    assert ask(app, [(0.0, b"x"), (0.0, b"")]).status == 200
    app.state.admission = Full()
    assert ask(app, [(0.0, b"x"), (0.0, b"")]).code == "draining"
