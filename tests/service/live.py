"""A real server on a loopback port, in a thread, and raw sockets to attack it with."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from boothsam.service.protocol import bounded
from boothsam.service.server import Server


@contextlib.contextmanager
def serving(app: Any, **bounds: Any) -> Iterator[int]:
    """The port of a server for `app`; bounds as for `protocol.bounded`."""
    bounds = {"header_timeout_s": 5.0, "max_connections": 32} | bounds
    keep_alive = bounds.pop("keep_alive", 5)
    configuration = uvicorn.Config(
        app, http=bounded(**bounds), ws="none", lifespan="off", log_config=None, timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = Server(configuration)
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield port
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


class Client:
    """A socket without manners."""

    def __init__(self, port: int, data: bytes = b"", timeout_s: float = 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        if data:
            self.socket.sendall(data)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def all(self) -> bytes:
        """Everything until the server closes; a reset counts as the end."""
        got = bytearray()
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(1 << 20):
                got += data
        return bytes(got)

    def answer(self) -> bytes:
        """One answer with a Content-Length; the connection stays open."""
        got = b""
        while b"\r\n\r\n" not in got:
            data = self.socket.recv(1)
            assert data, got
            got += data
        length = int(got.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while length:
            data = self.socket.recv(length)
            assert data, got
            got, length = got + data, length - len(data)
        return got

    def closed_within(self, seconds: float) -> bool:
        """Whether the server ends the connection in time."""
        self.socket.settimeout(seconds)
        try:
            self.all()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get(port: int, path: str = "/") -> bytes:
    """A well-behaved request; the whole answer."""
    with Client(port, f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()) as client:
        return client.all()
