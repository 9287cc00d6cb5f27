"""Downloads against a local server that breaks off, ignores ranges, refuses or lies."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from boothsam.export import download as module
from boothsam.export.checkpoints import Checkpoint
from boothsam.export.download import MIRROR, ResumingDownloader, download, fetch, source_url
from boothsam.runtime.errors import DownloadError, ModelNotFound

BODY = bytes(range(256)) * 8192  # 2 MiB
FILE = Checkpoint("toy", "vit_t", "toy.pt", len(BODY), hashlib.sha256(BODY).hexdigest(), "unused", "MIT")


class Server(ThreadingHTTPServer):
    """Serves BODY as /toy.pt. ranges: honour Range. cuts: how many bytes each of the next answers gives before it
    breaks.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.ranges = True
        self.cuts: list[int] = []
        self.errors: list[int] = []
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken pipes are the point of these tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.server.errors:
            self.send_error(self.server.errors.pop(0))
            return
        if self.path != "/toy.pt":
            self.send_error(404)
            return
        body = self.server.body
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[start : start + cut])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setenv(MIRROR, running.url + "/")
        monkeypatch.setattr(module.time, "sleep", lambda _seconds: None)
        yield running
        running.shutdown()
        thread.join()


def test_a_whole_file_with_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(FILE, tmp_path, progress=lambda done, size: seen.append((done, size)))
    assert path == tmp_path / "toy.pt" and path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY)) and [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.pt"]
    fetch(FILE, tmp_path)
    assert server.asked == [None]


def test_a_broken_connection_is_resumed_in_the_same_call(server: Server, tmp_path: Path) -> None:
    server.cuts = [700_000, 300_000]
    assert fetch(FILE, tmp_path).read_bytes() == BODY
    assert server.asked == [None, "bytes=700000-", "bytes=1000000-"]


def test_a_failed_download_is_resumed_by_the_next_call(server: Server, tmp_path: Path) -> None:
    server.cuts = [500_000] + [0] * module.ATTEMPTS
    with pytest.raises(DownloadError, match=r"at 500000 of 2097152 bytes\nhint: copy toy\.pt"):
        fetch(FILE, tmp_path)
    assert (tmp_path / "toy.pt.part").stat().st_size == 500_000 and not (tmp_path / "toy.pt").exists()
    server.asked.clear()
    server.cuts = []
    assert fetch(FILE, tmp_path).read_bytes() == BODY
    assert server.asked == ["bytes=500000-"]


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts = [900_000]
    assert fetch(FILE, tmp_path).read_bytes() == BODY


def test_passing_errors_are_asked_again_and_lasting_ones_are_not(server: Server, tmp_path: Path) -> None:
    server.errors = [503, 429]
    assert fetch(FILE, tmp_path).read_bytes() == BODY
    server.asked.clear()
    server.errors = [403]
    with pytest.raises(DownloadError, match="answers 403"):
        fetch(FILE, tmp_path / "other")
    assert len(server.asked) == 1


def test_other_bytes_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.body = BODY[:-1] + b"!"
    with pytest.raises(DownloadError, match=r"other bytes than the published toy\.pt[\s\S]*BOOTHSAM_MIRROR"):
        fetch(FILE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_longer_file_is_refused(server: Server, tmp_path: Path) -> None:
    server.body = BODY + b"more"
    with pytest.raises(DownloadError, match="more than the 2097152 bytes"):
        fetch(FILE, tmp_path)
    assert not (tmp_path / "toy.pt").exists()


def test_a_part_of_another_file_does_not_survive(server: Server, tmp_path: Path) -> None:
    (tmp_path / "toy.pt.part").write_bytes(b"x" * 1000)
    with pytest.raises(DownloadError, match="other bytes"):
        fetch(FILE, tmp_path)
    assert fetch(FILE, tmp_path).read_bytes() == BODY


def test_a_tampered_file_in_place_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "toy.pt").write_bytes(b"tampered")
    assert fetch(FILE, tmp_path).read_bytes() == BODY


def test_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _seconds: None)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv(MIRROR, f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(DownloadError) as caught:
            download("mobile_sam", tmp_path)
    assert "cannot be fetched" in caught.value.message and "refused" in caught.value.message
    assert caught.value.hint is not None and str(tmp_path / "mobile_sam.pt") in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_only_http_is_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with pytest.raises(Exception, match="only http and https"):
        ResumingDownloader(tmp_path / "x.part", 6)(secret.as_uri(), str(tmp_path / "x"), None)


def test_names_and_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFound):
        download("nothing")
    monkeypatch.delenv(MIRROR, raising=False)
    assert source_url(FILE) == "unused"
    monkeypatch.setenv(MIRROR, "http://mirror/models/")
    assert source_url(FILE) == "http://mirror/models/toy.pt"
