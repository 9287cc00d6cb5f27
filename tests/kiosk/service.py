"""`boothsam serve` as a process that a test may stop, kill, freeze and start again on the same port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

START_S = 90


class KioskService:
    """The bundled starter model with folders of its own below `folder`.

    variables: settings by their name, such as token="...", on top of the ones that tests need.
    """

    def __init__(self, folder: Path, **variables: object) -> None:
        self.folder, self.port = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        self.captures_dir = folder / "captures"
        self.settings: dict[str, object] = {
            "captures_dir": self.captures_dir,
            "state_dir": folder / "state",
            "min_free_bytes": 1 << 20,
            "threads": 1,
        } | variables
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the process wrote on stderr."""
        return self._log.read_text(errors="replace")

    def start(self, *, wait: bool = True) -> KioskService:
        """Start, on the earlier port where there was one; wait: until photos are taken."""
        assert self._process is None, "the service runs already"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BOOTHSAM_")}
        given = {f"BOOTHSAM_{name.upper()}": str(value) for name, value in self.settings.items()}
        command = [sys.executable, "-m", "boothsam.service.cli", "serve", "--port", str(self.port)]
        environment = kept | given | {"BOOTHSAM_HOME": str(self.folder / "home"), "OMP_NUM_THREADS": "1"}
        with self._log.open("wb") as stderr:
            self._process = subprocess.Popen(command, stderr=stderr, env=environment)
        until = time.monotonic() + START_S
        while (found := re.search(r"listening on 127\.0\.0\.1 port (\d+)", self.log)) is None:
            assert self._process.poll() is None and time.monotonic() < until, self.log
            time.sleep(0.05)
        self.port = int(found[1])
        while wait and self.get("/readyz").status_code != 200:
            assert time.monotonic() < until, self.log
            time.sleep(0.05)
        return self

    def kill(self) -> None:
        """As when the power goes: no farewell."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM and wait; nothing where it does not run."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop all of its work; connections stay open and unanswered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self._ask("GET", path, **given)

    def post(self, path: str, **given: Any) -> httpx.Response:
        return self._ask("POST", path, **given)

    def put(self, path: str, **given: Any) -> httpx.Response:
        return self._ask("PUT", path, **given)

    def delete(self, path: str, **given: Any) -> httpx.Response:
        return self._ask("DELETE", path, **given)

    def captures(self) -> list[dict[str, Any]]:
        """All records with their facts beside the rest, the oldest first."""
        answer = self.get("/captures?limit=500")
        assert answer.status_code == 200, answer.text
        return [record | record["facts"] for record in answer.json()["captures"]]

    def _ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        token = self.settings.get("token")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.request(method, self.url + path, timeout=60, headers=headers | given.pop("headers", {}), **given)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None
