"""The middlewares against foreign hosts, origins and tokens, and the order they stand in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from boothsam.service.limits import (
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

from tests.service.asgi import ask, echo


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
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
        [("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
    ],
)
def test_a_foreign_page_is_refused(headers: list[tuple[str, str]]) -> None:
    answer = ask(OriginGuard(echo, ["https://shop.example"]), headers=[OURS, *headers])
    assert (answer.status, answer.code) == (403, "bad_origin")


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 403)])
def test_a_link_from_another_site_opens_the_page_and_a_form_there_sends_nothing(method: str, status: int) -> None:
    visit = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]
    assert ask(OriginGuard(echo), method=method, headers=[OURS, *visit]).status == status


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
