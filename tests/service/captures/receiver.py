"""A real HTTP receiver on loopback that misbehaves on request."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What it got, and what it answers.

    answer: called with the capture's sku and the number of the request from 1; gives a status, a status with headers,
    "reset" or "hang". got: (idempotency key, sku, files by role) of every request answered 2xx, in order.
    """

    url: str = ""
    answer: Callable[[str, int], Any] = lambda _sku, _number: 200
    got: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def kept(self) -> dict[str, str]:
        """What an idempotent receiver has in the end: sku by key."""
        return {key: sku for key, sku, _ in self.got}


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    """A receiver that listens until the end of the block."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            parts = {
                str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
                for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
            }
            sku = json.loads(parts.pop("metadata"))["facts"]["sku"]
            state.asked.append(sku)
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            action = state.answer(sku, len(state.asked))
            if action == "reset":
                # With a linger time of 0 closing sends RST instead of FIN.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            if action == "hang":
                state.released.wait(30)
                self.close_connection = True
                return
            status, extra = action if isinstance(action, tuple) else (action, {})
            if 200 <= status < 300:
                state.got.append((self.headers["Idempotency-Key"], sku, parts))
            self.send_response(status)
            for name, value in ({"Content-Length": "0"} | extra).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests need no access log."""

        def finish(self) -> None:
            if not self.wfile.closed:
                try:
                    super().finish()
                except OSError:
                    return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/captures"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
