"""Engines for this device, built by a command of its own while the service answers on another backend.

The service loads them when it starts next, which it does by itself in a quiet minute (`service/restart.py`): what it
answers with never changes under a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from boothsam.runtime.backends import unavailable_reason
from boothsam.service.inference import Inference

log = logging.getLogger("boothsam.service")
NICENESS = 10  # photos come first
LONGEST_LINE = 1 << 20  # bytes: the last lines hold an engine's whole header
TERM_S = 10


async def build_engines(inference: Inference, model: str | None, command: Sequence[str] | None = None) -> bool:
    """Run `boothsam build` where that makes sense, and keep `inference.engine` up to date; never raises.

    Returns whether the next start would find engines that this one does not use.

    inference: loaded. State goes none -> building -> ready or failed; "ready" means that the next start uses the
    engines. Cancelling it ends the build. command: in place of `boothsam build MODEL --json`.
    """
    if inference.model.backend == "trt":
        inference.engine = {"state": "ready", "progress": None}
        return False
    missing = await asyncio.to_thread(unavailable_reason, "trt")
    if missing is not None:
        log.info("no engine is built: %s", missing)
        return False
    named = [] if model is None else [str(model)]
    arguments = command or [sys.executable, "-m", "boothsam.service.cli", "build", *named, "--json"]
    inference.engine = {"state": "building", "progress": 0.0}
    try:
        failure = await _run(inference, arguments)
    except (OSError, ValueError) as error:
        failure = str(error)
    if failure is None:
        inference.engine = {"state": "ready", "progress": 1.0}
        log.warning("the engines are built and verified; the next start of the service uses them")
        return True
    inference.engine = {"state": "failed", "progress": None}
    log.error("no engine was built, the service goes on with %s: %s", inference.model.backend, failure)
    return False


async def _run(inference: Inference, arguments: Sequence[str]) -> str | None:
    """None when the command ends well, else what it said last."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
    )
    try:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        assert process.stdout is not None and process.stderr is not None
        said = asyncio.create_task(process.stderr.read())
        async for line in process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event.get("event") == "progress":
                inference.engine = {"state": "building", "progress": float(event["fraction"])}
        text = (await said).decode("utf-8", "replace").strip()
        status = await process.wait()
        return None if status == 0 else text or f"boothsam build ended with {status}"
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), TERM_S)
            except (TimeoutError, asyncio.TimeoutError):  # the same from Python 3.11 on
                process.kill()
                await process.wait()
