"""`boothsam serve` as a process: answers, says where it listens, and ends with 0 on SIGTERM."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests


def test_serve_answers_and_ends_cleanly(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "boothsam.service.cli", "serve", "--port", "0", "--threads", "1"]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=os.environ | {"BOOTHSAM_CAPTURES_DIR": ""})
    try:
        until = time.monotonic() + 60
        while (found := re.search(r"listening on 127\.0\.0\.1 port (\d+)", log.read_text())) is None:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        url = f"http://127.0.0.1:{found[1]}"
        while requests.get(f"{url}/readyz", timeout=30).status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        with (photos / "one.png").open("rb") as photo:
            answer = requests.post(
                f"{url}/crop", files={"image_file": photo}, data={"box": "310,60,490,240"}, timeout=60
            )
        assert answer.status_code == 200 and answer.content.startswith(b"\x89PNG"), answer.text
        malformed = {"content-type": "multipart/form-data; boundary=B"}
        assert requests.post(f"{url}/crop", data=b"garbage", headers=malformed, timeout=30).status_code == 400
        with socket.create_connection(("127.0.0.1", int(found[1]))) as client:
            client.sendall(b"no http\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 400"
        assert requests.get(f"{url}/healthz", headers={"connection": "upgrade", "upgrade": "websocket"}, timeout=30).ok
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert len(log.read_text().splitlines()) == 1, "no client may fill the log"
    finally:
        process.kill()
        process.wait()


def test_mistakes_end_with_an_error_and_a_hint(run: Callable[..., Any]) -> None:
    exposed = run("serve", "--host", "0.0.0.0", "--port", "0")
    assert exposed.exit_code == 2 and "no token is set" in exposed.stderr and "hint:" in exposed.stderr
    missing = run("serve", "--port", "0", "--model", "no-such-model")
    assert missing.exit_code == 1 and "no-such-model is neither a model folder" in missing.stderr
