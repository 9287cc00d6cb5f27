"""The page's files: what is served, with which headers, and that nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from boothsam.service.app import create_app
from boothsam.service.routes import static
from boothsam.service.routes.static import FOLDER, HEADERS, MEDIA_TYPES, listed, open_paths
from starlette.testclient import TestClient

from tests.service.http_client import code, service, serving, settings
from tests.service.live import Client

SCRIPT = "export const answer = 42;\n"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small page in place of the shipped one, with what must not be served around and inside it."""
    around = tmp_path_factory.mktemp("page")
    (around / "secret.txt").write_text("outside")
    folder = around / "static"
    (folder / "js" / "lib").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "index.html").write_text("<!doctype html><title>kiosk</title>")
    (folder / "annotate.html").write_text("<!doctype html><title>annotate</title>")
    (folder / "js" / "lib" / "app.js").write_text(SCRIPT)
    (folder / "manifest.webmanifest").write_text("{}")
    (folder / "notes.py").write_text("SECRET = 1")
    (folder / ".hidden" / "a.js").write_text("hidden")
    (folder / "link.txt").symlink_to(around / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def client(color_folder: Path, page: Path) -> Iterator[TestClient]:
    with ExitStack() as stack:
        with _shipping(page):
            started = stack.enter_context(service(color_folder, token="hush"))
        yield started


@contextmanager
def _shipping(page: Path) -> Iterator[None]:
    """As if the package held that page; for the time in which an application is made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static.listed, "__defaults__", (page,))
        yield


def _headers_of_a_page(answer: Any) -> None:
    assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)


def test_the_page_and_its_files_need_no_token_and_carry_the_policy(client: TestClient) -> None:
    index = client.get("/")
    assert index.status_code == 200 and "kiosk" in index.text
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    script = client.get("/static/js/lib/app.js")
    assert script.text == SCRIPT and script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/static/manifest.webmanifest").headers["content-type"] == "application/manifest+json"
    for answer in (index, script):
        _headers_of_a_page(answer)
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert code(client.get("/kiosk/status"), 401) == "unauthorized"  # what is no file of the page still wants it


def test_a_file_that_the_client_has_is_not_sent_again(client: TestClient, page: Path) -> None:
    first = client.get("/static/js/lib/app.js")
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = client.get("/static/js/lib/app.js", headers={"if-none-match": known})
        assert again.status_code == 304 and not again.content and again.headers["etag"] == first.headers["etag"]
        _headers_of_a_page(again)
    (page / "js" / "lib" / "app.js").write_text(SCRIPT + "// new\n")
    try:
        changed = client.get("/static/js/lib/app.js", headers={"if-none-match": first.headers["etag"]})
        assert changed.status_code == 200 and changed.text.endswith("// new\n")
    finally:
        (page / "js" / "lib" / "app.js").write_text(SCRIPT)


@pytest.mark.parametrize(
    "path",
    [
        "/static/", "/static/js", "/static/js/lib/app.js/", "/static//js/lib/app.js", "/static/absent.js",
        "/static/notes.py", "/static/.hidden/a.js", "/static/link.txt", "/static/../secret.txt",
        "/static/%2e%2e/secret.txt", "/static/js/..%2f..%2fsecret.txt", "/static/js%5c..%5csecret.txt",
        "/static/%00", "/static/js/lib/app.js%00.txt", "/static/" + "a" * 3000,
    ],
)  # fmt: skip
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"authorization": "Bearer hush"})
    assert code(answer, 404) == "not_found"
    assert "outside" not in answer.text and "SECRET" not in answer.text


def test_paths_that_climb_are_refused_on_the_wire_too(color_folder: Path, page: Path) -> None:
    """HTTP clients tidy a path before they send it; this one does not."""
    with _shipping(page), serving(color_folder) as url:
        port = int(url.rsplit(":", 1)[1])
        for path in ("/static/../secret.txt", "/static/js/../../../secret.txt", "/static/./index.html"):
            with Client(port, _request("GET", path)) as raw:
                assert raw.all().startswith(b"HTTP/1.1 404 ")
        with Client(port, _request("HEAD", "/")) as raw:
            head, _, body = raw.all().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ") and b"etag" in head.lower() and body == b""
        assert b"content-length: 35" in head.lower()
        with Client(port, _request("HEAD", "/healthz")) as raw:
            head, _, body = raw.all().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ") and body == b""


def _request(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()


def test_head_is_answered_and_other_methods_are_told_of_both(client: TestClient) -> None:
    for path in ("/", "/static/js/lib/app.js"):
        assert client.head(path).headers["etag"] == client.get(path).headers["etag"]
        refused = client.post(path)
        assert code(refused, 405) == "method_not_allowed"
        assert {method.strip() for method in refused.headers["allow"].split(",")} == {"GET", "HEAD"}


def test_the_annotation_page_is_there_only_with_a_folder(client: TestClient) -> None:
    assert code(client.get("/annotate"), 404) == "not_found"


def test_the_page_can_be_turned_off(color_folder: Path) -> None:
    with service(color_folder, kiosk=False) as client:
        assert code(client.get("/"), 404) == "not_found"
        assert code(client.get("/static/index.html"), 404) == "not_found"
        assert client.get("/kiosk/status").status_code == 200  # the same facts serve another page


def test_every_shipped_file_of_the_page_is_served(tmp_path: Path) -> None:
    files = {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("*")
        if path.is_file() and path.suffix in MEDIA_TYPES
    }
    assert set(listed()) == files
    assert set(open_paths(listed())) == {"/", "/annotate"} | {f"/static/{name}" for name in files}
    assert set(create_app(settings(tmp_path)).state.static_files) == files
