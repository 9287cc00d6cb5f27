"""The service in-process for tests: a real application on a real model, its lifespan run, no socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from boothsam.service.app import create_app
from boothsam.service.settings import Settings
from starlette.testclient import TestClient

READY_S = 60


def settings(model: Path | None, **given: Any) -> Settings:
    """One thread, a small cache, and neither captures nor a plate on the disk unless asked for."""
    named = None if model is None else str(model)
    small = {"threads": 1, "captures_dir": "", "state_dir": "", "cache_bytes": 64 << 20}
    return Settings(**{"model": named} | small | given)


@contextmanager
def service(model: Path | None, *, prove: bool = True, **given: Any) -> Iterator[TestClient]:
    """A client of a started service; prove: wait until it is ready."""
    app = create_app(settings(model, **given))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        if prove:
            wait_until_ready(client)
        yield client


@contextmanager
def serving(model: Path | None, **given: Any) -> Iterator[str]:
    """The URL of a service that listens on a loopback port, in a thread; for clients that bring their own sockets."""
    app = create_app(settings(model, **given))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    try:
        until = time.monotonic() + READY_S
        while not server.started or app.state.inference.state == "proving":
            assert thread.is_alive() and time.monotonic() < until, "the service did not start"
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def wait_until_ready(client: TestClient) -> None:
    """Poll /readyz as a load balancer would."""
    until = time.monotonic() + READY_S
    while (answer := client.get("/readyz")).status_code != 200:
        assert answer.json()["state"] in ("loading", "proving"), answer.json()
        assert time.monotonic() < until, answer.json()
        time.sleep(0.02)


def send(client: TestClient, path: str, photo: Path | bytes | None, fields: Any = None, **headers: str) -> Any:
    """POST a multipart form. fields: name -> text or list of texts. headers: with _ for -."""
    files: list[tuple[str, Any]] = [
        (name, (None, value))
        for name, texts in (fields or {}).items()
        for value in (texts if isinstance(texts, list) else [texts])
    ]
    if photo is not None:
        data = photo if isinstance(photo, bytes) else photo.read_bytes()
        files.append(("image_file", ("../../etc/passwd", data)))
    return client.post(path, files=files, headers={name.replace("_", "-"): value for name, value in headers.items()})


def code(answer: Any, status: int) -> str:
    """The code of a refusal of that status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status and body["title"] and body["detail"]
    assert body["instance"] == answer.headers["x-request-id"]
    return str(body["code"])
