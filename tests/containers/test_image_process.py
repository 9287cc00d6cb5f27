"""What the images run, run here: the entry point with the image's environment, and its health check against it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.containers.dockerfiles import ROOT, exec_form, parse

IMAGE = parse((ROOT / "Dockerfile.jetson").read_text())
# Where the image's files lie here.
HERE = {
    "/opt/boothsam/bin/boothsam": str(Path(sys.executable).parent / "boothsam"),
    "/opt/boothsam/bin/python": sys.executable,
    "/opt/boothsam/healthcheck.py": str(ROOT / "deploy" / "healthcheck.py"),
}
START_S = 60  # seconds, on a machine that does much else


def _words(instruction: str) -> list[str]:
    words = exec_form(IMAGE.final(instruction)[-1])
    assert words is not None
    return [HERE.get(word, word) for word in words]


def _environment(folder: Path, port: int, **more: str) -> dict[str, str]:
    """The image's variables and nothing of this process; its folder and port moved to where a test may be."""
    image = {name: value for name, value in IMAGE.environment().items() if name not in ("PATH", "LD_LIBRARY_PATH")}
    moved = {"HOME": str(folder), "BOOTHSAM_HOME": str(folder), "BOOTHSAM_PORT": str(port), "BOOTHSAM_THREADS": "1"}
    return {"PATH": os.environ["PATH"], **image, **moved, **more}


def _check(environment: dict[str, str]) -> tuple[int, str]:
    """Exit status and words of the image's health check."""
    command = _words("HEALTHCHECK")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_the_entry_point_serves_and_ends_and_the_health_check_sees_it(tmp_path: Path) -> None:
    # A proxy that the container was given is not asked about the container itself.
    environment = _environment(
        tmp_path,
        _free_port(),
        BOOTHSAM_TOKEN="t" * 32,
        HTTP_PROXY="http://127.0.0.1:9",
        http_proxy="http://127.0.0.1:9",
    )
    assert _check(environment)[0] == 1
    command = _words("ENTRYPOINT") + _words("CMD")
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as service:
        try:
            deadline = time.monotonic() + START_S
            while (found := _check(environment))[0]:
                assert service.poll() is None and time.monotonic() < deadline, found
                time.sleep(0.1)
            assert found[1].startswith("200 ready: "), found
            service.send_signal(getattr(signal, IMAGE.final("STOPSIGNAL")[-1]))
            assert service.wait(30) == 0
        finally:
            service.kill()
        assert service.stderr is not None
        said = service.stderr.read()
    assert "listening on 0.0.0.0" in said and "is no setting" not in said, said
    assert _check(environment)[0] == 1


def test_the_image_does_not_serve_without_a_token(tmp_path: Path) -> None:
    command = _words("ENTRYPOINT") + _words("CMD")
    environment = _environment(tmp_path, _free_port())
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=START_S)
    assert done.returncode != 0 and "hint: export BOOTHSAM_TOKEN=" in done.stderr, done.stderr


@contextmanager
def _answering(answer: bytes) -> Iterator[int]:
    """The port of a server that gives this whole answer to everything, and holds its tongue when it is empty."""
    quiet = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)
            if not answer:
                quiet.wait(20)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        quiet.set()
        server.shutdown()


def _http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (_http("200 OK", b'{"state": "ready", "reason": "auto"}'), 0, "200 ready: auto"),
        (_http("503 No", b'{"state": "failed", "reason": "not its golden answers"}'), 1, "503 failed: not its golden"),
        (_http("200 OK", b"<html>another program"), 1, "no answer"),
        (_http("200 OK", b"[]"), 1, "no answer"),
        (b"SSH-2.0-OpenSSH\r\n", 1, "no answer"),
        (b"", 1, "no answer"),
    ],
)
def test_the_health_check_believes_only_a_ready_service(tmp_path: Path, answer: bytes, code: int, said: str) -> None:
    with _answering(answer) as port:
        found = _check(_environment(tmp_path, port))
    assert found[0] == code and said in found[1], found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_the_health_check_asks_where_the_service_listens(tmp_path: Path, host: str) -> None:
    with _answering(_http("200 OK", b'{"state": "ready", "reason": ""}')) as port:
        assert _check(_environment(tmp_path, port, BOOTHSAM_HOST=host))[0] == 0
