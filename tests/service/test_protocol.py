"""Raw sockets against a real server: half headers, idle and stalled connections, floods, unread uploads and answers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import ExitStack

import pytest
from boothsam.service.limits import ByteLimit
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.service.live import Client, get, serving

HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """/deaf answers without reading, /big answers 64 MB, /slow takes its time; else the body's length."""
    if scope["path"] == "/deaf":
        await JSONResponse({"refused": True}, 413, {"connection": "close"})(scope, receive, send)
        return
    if scope["path"] == "/rude":
        await JSONResponse({"refused": True}, 403)(scope, receive, send)
        return
    if scope["path"] == "/big":
        await PlainTextResponse("x" * (64 << 20))(scope, receive, send)
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1.0)
    got, more = 0, True
    while more:
        message = await receive()
        got += len(message.get("body", b""))
        more = message.get("more_body", False)
    await JSONResponse({"bytes": got})(scope, receive, send)


limited = ByteLimit(app, max_bytes=1 << 20, body_timeout_s=1.0, pause_s=0.3)


def test_half_headers_are_cut_at_the_deadline_and_told_so() -> None:
    with serving(app, header_timeout_s=0.4) as port, Client(port, HEAD) as client:
        began = time.monotonic()
        answer = client.all()
        assert answer.startswith(b"HTTP/1.1 408 ")
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert told["code"] == "header_timeout" and "0.4 s" in told["detail"] and "header_timeout_s" in told["hint"]
        assert time.monotonic() - began > 0.3


def test_a_silent_connection_is_closed_without_a_word() -> None:
    with serving(app, header_timeout_s=0.3) as port, Client(port) as client:
        assert client.all() == b""


def test_dripping_headers_do_not_extend_the_deadline() -> None:
    with serving(app, header_timeout_s=0.5) as port, Client(port, HEAD) as client:
        client.socket.settimeout(0.05)
        until, got = time.monotonic() + 10, b""
        while time.monotonic() < until:
            try:
                client.send(b"x-drip: 1\r\n")
                got += client.socket.recv(1000)
                if got:
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() < until
        assert got.startswith(b"HTTP/1.1 408 ") or not got


def test_the_second_request_of_a_connection_has_the_deadline_too() -> None:
    with serving(app, header_timeout_s=0.4, keep_alive=30) as port, Client(port) as client:
        client.send(HEAD + b"content-length: 3\r\n\r\nabc")
        assert b'{"bytes":3}' in client.answer()
        client.send(HEAD[:9])
        assert client.all().startswith(b"HTTP/1.1 408 ")


def test_an_idle_kept_alive_connection_is_closed() -> None:
    with serving(app, header_timeout_s=30, keep_alive=1) as port, Client(port) as client:
        client.send(HEAD + b"content-length: 0\r\n\r\n")
        client.answer()
        assert client.closed_within(15)


def test_connections_are_kept_between_requests() -> None:
    with serving(app, header_timeout_s=1) as port, Client(port) as client:
        for _ in range(5):
            client.send(HEAD + b"content-length: 3\r\n\r\nabc")
            assert b'{"bytes":3}' in client.answer()
            time.sleep(0.3)  # longer in all than the header deadline, which must not run on


def test_pipelined_requests_are_answered_in_order() -> None:
    with serving(app) as port, Client(port) as client:
        client.send(b"".join(HEAD + b"content-length: %d\r\n\r\n" % n + bytes(n) for n in (1, 2, 3)))
        for n in (1, 2, 3):
            assert b'{"bytes":%d}' % n in client.answer()


@pytest.mark.parametrize("start", [b"", HEAD], ids=["idle", "half a header"])
def test_200_useless_sockets_do_not_stop_a_real_request(start: bytes) -> None:
    with serving(app, header_timeout_s=60, max_connections=64) as port, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(Client(port, start))
        assert b'{"bytes":0}' in get(port)


def test_200_stalled_uploads_do_not_stop_a_real_request() -> None:
    with serving(limited, max_connections=64) as port, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(Client(port, HEAD + b"content-length: 9000\r\n\r\nabc"))
        assert b'{"bytes":0}' in get(port)


def test_a_flood_of_sockets_cuts_no_upload_short() -> None:
    with serving(app, header_timeout_s=60, max_connections=16) as port, ExitStack() as stack:
        upload = stack.enter_context(Client(port, HEAD + b"content-length: 6\r\n\r\nabc"))
        time.sleep(0.1)
        for _ in range(100):
            stack.enter_context(Client(port))
        upload.send(b"def")
        assert b'{"bytes":6}' in upload.answer()


def test_complete_requests_are_never_cut_and_the_next_is_told_to_come_back() -> None:
    with serving(app, max_connections=3) as port, ExitStack() as stack:
        request = b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n"
        working = [stack.enter_context(Client(port, request)) for _ in range(3)]
        time.sleep(0.2)
        with Client(port) as late:
            head, _, body = late.all().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1" in head.lower()
            assert json.loads(body)["code"] == "connections_full"
        for client in working:
            assert b'{"bytes":0}' in client.answer()


def test_an_early_answer_reaches_a_client_that_still_sends() -> None:
    """Closing at once would reset the connection, and the client would see no answer at all."""
    body = bytes(8 << 20)
    for path in (b"/deaf", b"/rude"):
        with serving(app) as port, Client(port) as client:
            client.send(b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (path, len(body)))
            client.send(body)
            answer = client.all()
            assert b"refused" in answer and answer.count(b"HTTP/1.1") == 1


def test_a_client_that_sends_on_after_its_answer_is_cut() -> None:
    with serving(app, linger_s=0.3) as port, Client(port) as client:
        client.send(b"POST /rude HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n")
        until = time.monotonic() + 10
        with pytest.raises(ConnectionError):
            while time.monotonic() < until:
                client.send(b"x")
                time.sleep(0.02)


def test_what_follows_a_refused_body_is_no_second_request() -> None:
    smuggled = b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with serving(app) as port, Client(port) as client:
        client.send(b"POST /rude HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\n")
        time.sleep(0.1)
        client.send(bytes(500) + smuggled)
        assert client.all().count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        HEAD + b"content-length: -5\r\n\r\n",
        HEAD + b"content-length: 5, 5\r\nx y: 1\r\n\r\n",
        HEAD + b"transfer-encoding: gzip\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"x: " + b"y" * (100 << 10),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"\0" * 70000,
    ],
)
def test_malformed_requests_get_400_and_the_server_lives(request_: bytes) -> None:
    with serving(app, header_timeout_s=2, linger_s=0.2) as port:
        with Client(port, request_) as client:
            answers = client.all()
        head, _, body = answers[answers.rfind(b"HTTP/1.1 4") :].partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in head
        assert json.loads(body)["code"] == "bad_request"
        assert b'{"bytes":0}' in get(port)


BAD_CHUNK = b"transfer-encoding: chunked\r\n\r\nzz\r\n"


def test_a_malformed_body_leaves_no_traceback_of_an_application_that_does_not_read_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every client could fill the log with them."""
    with serving(app, linger_s=0.2) as port:
        with Client(port, b"GET /rude HTTP/1.1\r\nhost: localhost\r\n" + BAD_CHUNK) as client:
            answer = client.all()
        assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 4") == 1
        assert b'{"bytes":0}' in get(port)
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []


def test_a_malformed_body_ends_an_answer_that_had_begun(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        told.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"cd"})

    with serving(hasty, linger_s=0.2) as port, Client(port, HEAD + b"transfer-encoding: chunked\r\n\r\n") as client:
        answer = client.socket.recv(1)
        client.send(b"zz\r\n")
        answer += client.all()
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nab")
    assert told == ["http.disconnect"]
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []


def test_a_stalled_body_is_cut_on_the_wire() -> None:
    with serving(limited) as port, Client(port, HEAD + b"content-length: 9000\r\n\r\nabc") as client:
        answer = client.all()
        assert answer.startswith(b"HTTP/1.1 408 ") and b"body_timeout" in answer


def test_chunks_beyond_the_limit_are_refused_on_the_wire() -> None:
    with serving(limited) as port, Client(port, HEAD + b"transfer-encoding: chunked\r\n\r\n") as client:
        for _ in range(40):
            try:
                client.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            except ConnectionError:
                break
        answer = client.all()
        assert answer.startswith(b"HTTP/1.1 413 ") and b"too_large" in answer


def test_a_lying_content_length_gives_no_more_than_announced() -> None:
    with serving(limited) as port, Client(port, HEAD + b"content-length: 3\r\n\r\nabcdefgh") as client:
        assert b'{"bytes":3}' in client.answer()


def test_nothing_is_uploaded_where_the_announced_length_is_too_much() -> None:
    """With Expect: 100-continue the client learns of the refusal instead of being asked to go on."""
    head = HEAD + b"content-length: 99999999\r\nexpect: 100-continue\r\n\r\n"
    with serving(limited) as port, Client(port, head) as client:
        assert client.answer().startswith(b"HTTP/1.1 413 ")
    with serving(limited) as port, Client(port, HEAD + b"content-length: 3\r\nexpect: 100-continue\r\n\r\n") as client:
        assert client.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"[:25]
        client.send(b"abc")
        assert b'{"bytes":3}' in client.answer()


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    with serving(app, send_timeout_s=0.8) as port:
        with Client(port, b"GET /big HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n") as client:
            time.sleep(2.5)
            assert len(client.all()) < 64 << 20
        assert len(get(port, "/big")) > 64 << 20  # who reads gets all of it, however long it takes


def test_answers_that_nobody_reads_take_a_bounded_share_of_memory() -> None:
    request = b"GET /big HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    with serving(app, max_unread_bytes=150 << 20) as port, ExitStack() as stack:
        clients = []
        for _ in range(4):
            clients.append(stack.enter_context(Client(port, request)))
            assert clients[-1].socket.recv(8) == b"HTTP/1.1"  # its answer is made
        sizes = [len(client.all()) for client in clients]
    # 64 MB each: two wait, and whoever waited longest gave way.
    assert [size > 64 << 20 for size in sizes] == [False, False, True, True]
