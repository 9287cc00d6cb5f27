"""The process: who may listen, SIGTERM in the middle of work, a failed start, and systemd's messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boothsam.runtime.errors import OptionError
from boothsam.service.sdnotify import feed_watchdog, notify, watchdog_interval_s
from boothsam.service.server import check_exposure, config, is_loopback, listen
from boothsam.service.settings import Settings

from tests.service.live import Client, get

# One place, and work that takes as long as the path says; started as the service is.
SMALL_SERVICE = """
import asyncio, sys
from boothsam.service import limits
from boothsam.service.admission import Admission
from boothsam.service.problems import ServiceProblem
from boothsam.service.server import Server, config, listen
from boothsam.service.settings import Settings
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def work(request):
    async with app.state.admission.place(request.is_disconnected):
        await asyncio.sleep(float(request.path_params["seconds"]))
        return JSONResponse({"done": True})

async def state(request):
    return JSONResponse([app.state.admission.in_flight, app.state.admission.depth])

async def refuse(request, error):
    return JSONResponse(error.body(""), error.status, error.headers)

app = Starlette(
    routes=[Route("/busy/{seconds}", work), Route("/", state)],
    exception_handlers={ServiceProblem: refuse},
)
app.state.admission = Admission()
limits.install(app, max_bytes=1000)
settings = Settings(captures_dir=None, drain_s=float(sys.argv[2]))
with listen("127.0.0.1", int(sys.argv[1])) as listener:
    asyncio.run(Server(config(settings, app)).serve([listener]))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [sys.executable, *arguments], stderr=subprocess.PIPE, env=os.environ | {"NO_COLOR": "1"} | variables
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        if started.stderr is not None:
            started.stderr.close()


def with_state(port: int, in_flight: int, depth: int) -> None:
    """Wait until the small service works on so many requests and lets so many wait."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionRefusedError):
            if get(port).endswith(b"[%d,%d]" % (in_flight, depth)):
                return
        time.sleep(0.02)
    pytest.fail("the small service did not get there")


@contextlib.contextmanager
def small_service(drain_s: float) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    with process("-c", SMALL_SERVICE, str(port), str(drain_s)) as started:
        with_state(port, 0, 0)
        yield started, port


def ask(port: int, path: str) -> Client:
    return Client(port, f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode(), timeout_s=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_work_end_and_refuses_the_queue(number: signal.Signals) -> None:
    with small_service(drain_s=20) as (started, port), ask(port, "/busy/4") as working:
        with_state(port, 1, 0)
        with ask(port, "/busy/0") as waiting, Client(port) as idle, Client(port, b"GET / HT") as half:
            with_state(port, 1, 1)
            started.send_signal(number)
            assert b"HTTP/1.1 503" in (refused := waiting.all()) and b"draining" in refused
            finished = working.all()
            assert finished.startswith(b"HTTP/1.1 200") and b"done" in finished
            assert idle.all() == half.all() == b""
            assert started.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            get(port)


def test_draining_has_an_end() -> None:
    with small_service(drain_s=1) as (started, port), ask(port, "/busy/600") as working:
        with_state(port, 1, 0)
        started.terminate()
        assert started.wait(30) == 0
        assert b"done" not in working.all()


def test_a_second_signal_ends_at_once() -> None:
    with small_service(drain_s=600) as (started, port), ask(port, "/busy/600"):
        with_state(port, 1, 0)
        started.terminate()
        time.sleep(0.3)
        assert started.poll() is None
        started.terminate()
        started.wait(30)


class Supervisor:
    """systemd's end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(60)

    def hear(self, word: str) -> None:
        """Wait for a message that has the word."""
        while word not in self.socket.recv(1000).decode().split("\n"):
            pass


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    found = Supervisor(tmp_path / "notify")
    yield found
    found.socket.close()


def test_the_real_service_tells_systemd_and_ends_with_0(supervisor: Supervisor, tmp_path: Path) -> None:
    port = free_port()
    variables = {"NOTIFY_SOCKET": str(supervisor.path), "WATCHDOG_USEC": "600000"}
    variables |= {"BOOTHSAM_CAPTURES_DIR": str(tmp_path / "captures"), "BOOTHSAM_THREADS": "1"}
    with process("-m", "boothsam.service.cli", "serve", "--port", str(port), **variables) as started:
        supervisor.hear("READY=1")
        assert b"200 OK" in get(port, "/healthz")
        supervisor.hear("WATCHDOG=1")
        supervisor.hear("WATCHDOG=1")
        started.terminate()
        supervisor.hear("STOPPING=1")
        assert started.wait(60) == 0
        assert started.stderr is not None
        said = started.stderr.read().decode()
    assert "Traceback" not in said and str(port) in said


def test_a_service_that_cannot_start_says_why_and_fails(tmp_path: Path) -> None:
    arguments = ["-m", "boothsam.service.cli", "serve", "--port", "0", "--model", str(tmp_path / "nothing")]
    with process(*arguments, BOOTHSAM_CAPTURES_DIR="") as started:
        assert started.wait(60) != 0
        assert started.stderr is not None
        said = started.stderr.read().decode()
    lines = said.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"] and "nothing" in lines[0], said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    check_exposure(Settings(host=host, captures_dir=None))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.5", "booth.local", "localhost.evil.example", "127.1.evil"]
)
def test_any_other_address_needs_one(host: str) -> None:
    with pytest.raises(OptionError, match="BOOTHSAM_TOKEN"):
        check_exposure(Settings(host=host, captures_dir=None))
    check_exposure(Settings(host=host, token="s3cret", captures_dir=None))


def test_an_address_that_is_taken_or_none_is_explained() -> None:
    listening = pytest.raises(OptionError, match=r"cannot listen on 127\.0\.0\.1 port")
    with socket.create_server(("127.0.0.1", 0)) as taken, listening:
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(OptionError, match="is no address"):
        listen("127.0.0.1:80", 8765)
    with listen("127.0.0.1", 0) as free:
        assert free.getsockname()[1]


def test_uvicorn_trusts_no_proxy_and_names_itself_to_nobody() -> None:
    found = config(Settings(captures_dir=None, keep_alive_s=7, drain_s=3.5), lambda: None)
    assert (found.proxy_headers, found.server_header, found.access_log, found.workers) == (False, False, False, 1)
    assert (found.timeout_keep_alive, found.timeout_graceful_shutdown, found.ws) == (7, 4, "none")


def test_messages_go_to_paths_and_abstract_sockets(monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(supervisor.path))
    assert notify("READY=1", "STATUS=warm")
    assert supervisor.socket.recv(100) == b"READY=1\nSTATUS=warm"
    name = f"boothsam-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("WATCHDOG=1") and abstract.recv(100) == b"WATCHDOG=1"
    assert not notify("WATCHDOG=1")  # nobody listens any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_interval(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], interval: float | None
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert watchdog_interval_s() == interval


def test_the_watchdog_hears_of_answers_only(monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(supervisor.path))
    steps: list[Any] = [None, ValueError("no answer"), None, asyncio.Event()]
    taken = []

    async def alive() -> None:
        step = steps[len(taken)]
        taken.append(step)
        if isinstance(step, Exception):
            raise step
        if step is not None:
            await step.wait()  # hangs

    async def run() -> None:
        feeding = asyncio.create_task(feed_watchdog(0.001, alive))
        while len(taken) < 4:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        feeding.cancel()

    asyncio.run(run())
    supervisor.socket.setblocking(False)
    assert [supervisor.socket.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    with pytest.raises(BlockingIOError):
        supervisor.socket.recv(100)
