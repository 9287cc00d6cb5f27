"""The service starts again by itself to use new engines: once, in a quiet minute, as the same process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boothsam.service.admission import Admission
from boothsam.service.restart import STARTED_AGAIN, Restart

from tests.service.live import get
from tests.service.test_server import free_port, process

# The service as it is; what stands in is the device's TensorRT and the build of its engines.
BUILDING = """
import sys
from boothsam.service import engine_building
from boothsam.service.server import run
from boothsam.service.settings import Settings
engine_building.unavailable_reason = lambda backend: None
build = engine_building._run
engine_building._run = lambda inference, _: build(inference, [sys.executable, "-c", "pass"])
run(Settings(model=sys.argv[1], port=int(sys.argv[2]), captures_dir=None, state_dir=None,
             build_engine=True, engine_restart_s=float(sys.argv[3])))
"""


@contextlib.contextmanager
def supervisor(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.settimeout(60)
        yield channel


def next_state(channel: socket.socket) -> str:
    while True:
        told = channel.recv(4096).decode().split("\n")[0]
        if not told.startswith("WATCHDOG"):
            return told


def test_it_starts_again_once_under_the_same_number(color_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        supervisor(tmp_path / "notify") as channel,
        process("-c", BUILDING, str(color_folder), str(port), "0.5", NOTIFY_SOCKET=str(tmp_path / "notify")) as started,
    ):
        assert [next_state(channel) for _ in range(3)] == ["READY=1", "RELOADING=1", "READY=1"]
        assert started.poll() is None  # the process that the supervisor knows
        assert STARTED_AGAIN.encode() in Path(f"/proc/{started.pid}/environ").read_bytes()
        until = time.monotonic() + 60
        while b'"engine":{"state":"ready"' not in get(port, "/readyz"):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(1)  # twice the quiet time: it would have started again by now
        started.send_signal(signal.SIGTERM)
        assert next_state(channel) == "STOPPING=1"
        assert started.wait(60) == 0
        assert started.stderr is not None
        said = started.stderr.read().decode()
    assert said.count("starting again") == 1
    assert "does not start again by itself" in said


def test_work_puts_it_off() -> None:
    """Quiet counts from the end of the last photo."""

    async def photo_then_quiet() -> tuple[bool, bool]:
        admission, restart = Admission(), Restart()
        async with admission.place():
            waiting = asyncio.create_task(restart.when_quiet(admission, 0.05))
            await asyncio.sleep(0.3)
            during = restart.wanted
        await asyncio.wait_for(waiting, 30)
        return during, restart.wanted

    assert asyncio.run(photo_then_quiet()) == (False, True)


def test_a_minute_that_becomes_quiet_while_the_service_stops_does_not_start_it_again() -> None:
    """Draining takes seconds, in which nothing new is asked."""

    async def stopped_then_quiet() -> bool:
        admission, restart = Admission(), Restart()
        waiting = asyncio.create_task(restart.when_quiet(admission, 0.05))
        await asyncio.sleep(0)
        restart.stop()
        await asyncio.wait_for(waiting, 30)
        return restart.wanted

    assert asyncio.run(stopped_then_quiet()) is False


@pytest.mark.parametrize(
    ("port", "backend", "again", "reason"),
    [
        (0, "auto", False, "port"),
        (8765, "auto", True, "before"),
        (8765, "ort-cpu", False, "set to ort-cpu"),
        (8765, "auto", False, None),
        (8765, "trt", False, None),
    ],
)
def test_when_it_must_not(
    monkeypatch: pytest.MonkeyPatch, port: int, backend: str, again: bool, reason: str | None
) -> None:
    monkeypatch.delenv(STARTED_AGAIN, raising=False)
    if again:
        monkeypatch.setenv(STARTED_AGAIN, "1")
    found: Any = Restart().possible(port, backend)
    assert found is None if reason is None else reason in found


def test_never_where_the_setting_says_so(color_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        supervisor(tmp_path / "notify") as channel,
        process("-c", BUILDING, str(color_folder), str(port), "0", NOTIFY_SOCKET=str(tmp_path / "notify")) as started,
    ):
        assert next_state(channel) == "READY=1"
        until = time.monotonic() + 60
        while b'"engine":{"state":"ready"' not in get(port, "/readyz"):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)
        started.send_signal(signal.SIGTERM)
        assert next_state(channel) == "STOPPING=1"
        assert started.wait(60) == 0
