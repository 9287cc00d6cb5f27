"""The service answers while engines are built, and says how far that is."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from boothsam.service import engine_building
from boothsam.service.inference import Inference

from tests.service.http_client import send, service

HEAD = "import json, sys, time\ndef tell(**event): print(json.dumps(event), flush=True)\n"


@pytest.fixture
def inference(color_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inference]:
    monkeypatch.setattr(engine_building, "unavailable_reason", lambda backend: None)
    found = Inference(model=color_folder, backend="ort-cpu", threads=1)
    found.load()
    yield found
    found.close()


def command(code: str) -> list[str]:
    return [sys.executable, "-c", HEAD + code]


def test_progress_then_ready(inference: Inference, caplog: pytest.LogCaptureFixture) -> None:
    """The command waits for a word from this test, so that its progress is seen."""
    read, write = os.pipe()
    os.set_inheritable(read, True)
    code = (
        "tell(event='progress', graph='encoder', fraction=0.25, phase='x')\n"
        "tell(event='note', text='y')\n"
        f"open({str(f'/proc/{os.getpid()}/fd/{read}')!r}).read(1)\n"
        "tell(event='published', path='p')\n"
    )
    seen = []

    def watch() -> None:
        until = time.monotonic() + 20
        while inference.engine.get("progress") != 0.25 and time.monotonic() < until:
            time.sleep(0.01)
        seen.append(dict(inference.engine))
        os.write(write, b"x")

    thread = threading.Thread(target=watch)
    thread.start()
    with caplog.at_level(logging.WARNING, "boothsam.service"):
        asyncio.run(engine_building.build_engines(inference, None, command(code)))
    thread.join()
    os.close(read)
    os.close(write)
    assert seen == [{"state": "building", "progress": 0.25}]
    assert inference.engine == {"state": "ready", "progress": 1.0}
    assert "the next start of the service uses them" in caplog.text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.stderr.write('error: it disagrees'); sys.exit(1)", "error: it disagrees"),
        ("sys.exit(3)", "ended with 3"),
        ("print('no json')", "Expecting value"),
    ],
)
def test_a_build_that_fails(inference: Inference, caplog: pytest.LogCaptureFixture, code: str, said: str) -> None:
    asyncio.run(engine_building.build_engines(inference, None, command(code)))
    assert inference.engine == {"state": "failed", "progress": None}
    assert said in caplog.text and "goes on with ort-cpu" in caplog.text


def test_ending_the_service_ends_the_build(inference: Inference, tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def start_and_stop() -> None:
        code = (
            f"import os; open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
            "tell(event='progress', fraction=0.5)\ntime.sleep(60)"
        )
        task = asyncio.create_task(engine_building.build_engines(inference, None, command(code)))
        while inference.engine.get("progress") != 0.5:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(asyncio.wait_for(start_and_stop(), 30))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_nothing_is_built_without_tensorrt(color_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_building, "unavailable_reason", lambda backend: "TensorRT is not installed")
    with service(color_folder, build_engine=True) as client:
        assert client.get("/readyz").json()["engine"] == {"state": "none", "progress": None}


def test_photos_are_answered_while_a_build_runs(
    color_folder: Path, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    monkeypatch.setattr(engine_building, "unavailable_reason", lambda backend: None)
    run = engine_building._run
    slow = command("tell(event='progress', fraction=0.5)\ntime.sleep(60)")
    monkeypatch.setattr(engine_building, "_run", lambda inference, arguments: run(inference, slow))
    with service(color_folder, build_engine=True) as client:
        until = time.monotonic() + 20
        while client.get("/readyz").json()["engine"] != {"state": "building", "progress": 0.5}:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert client.get("/kiosk/status").json()["engine"]["state"] == "building"
        assert send(client, "/crop", photos / "one.png", auto="true").status_code == 200
