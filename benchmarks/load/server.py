"""The service as a process of its own, and the memory of its whole tree."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_START_S = 60.0


class Server:
    """A running `boothsam serve`. port: where it listens. pid: of its parent process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def metric(self, name: str) -> float:
        """A metric without labels, as /metrics says now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


@contextlib.contextmanager
def serving(**settings: str) -> Iterator[Server]:
    """A server with the starter model on a free port, proven and ready; captures in a folder that goes with it.

    settings: further settings, by name. Raises RuntimeError when it does not start, or does not end with status 0.
    """
    with tempfile.TemporaryDirectory(prefix="boothsam-load-") as folder:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BOOTHSAM_")}
        environment = inherited | {"BOOTHSAM_HOME": folder, "BOOTHSAM_MIN_FREE_BYTES": "0"}
        environment |= {f"BOOTHSAM_{name.upper()}": value for name, value in settings.items()}
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "boothsam.service.cli", "serve", "--port", "0"]
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, env=environment, cwd=folder)
        try:
            yield Server(process, _ready(process, log), log)
            process.send_signal(signal.SIGTERM)
            if (status := process.wait(60)) != 0:
                raise RuntimeError(f"the server ended with status {status}:\n{log.read_text()[-4000:]}")
        finally:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], log: Path) -> int:
    until, port = time.monotonic() + _START_S, None
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"listening on 127\.0\.0\.1 port (\d+)", log.read_text())
        port = int(found[1]) if found else None
        with contextlib.suppress(OSError):
            if port and urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30).status == 200:
                return port
        time.sleep(0.05)
    raise RuntimeError(f"the server is not ready after {_START_S:g} s:\n{log.read_text()[-4000:]}")


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def rss_bytes(pid: int) -> int:
    """Resident memory of one process, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def pss_bytes(pid: int) -> int:
    """Proportional memory of one process: pages that n processes share count for an nth; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


class MemoryLog:
    """Resident memory of a process tree over time, sampled in a thread.

    samples: (seconds since the start, bytes). The sum over processes counts memory that two of them share twice, so it
    is an upper bound of what the tree takes; `peak_pss` counts it once, looked at five times a second.
    """

    def __init__(self, pid: int, every_s: float = 0.02) -> None:
        self.samples: list[tuple[float, int]] = []
        self.peak_pss = 0
        self._pid, self._every_s = pid, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory")

    @property
    def peak(self) -> int:
        """Largest sum so far, in bytes."""
        return max((value for _, value in self.samples), default=0)

    def __enter__(self) -> MemoryLog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began, members, looked, weighed = time.monotonic(), tree(self._pid), time.monotonic(), 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            if now - looked > 0.5:  # reading every process of the machine costs more than a sample
                members, looked = tree(self._pid), now
            if now - weighed > 0.2:
                self.peak_pss, weighed = max(self.peak_pss, sum(map(pss_bytes, members))), now
            self.samples.append((now - began, sum(map(rss_bytes, members))))
            self._stop.wait(self._every_s)
