"""One build in a process of its own: the builder's memory is given back, and running out of it ends only the child.

`python -m boothsam.engines.build_child` reads an Order as JSON and answers in lines of JSON: {"event": "progress",
"fraction": 0 to 1, "phase": ...}, and last {"event": "done", ...} or {"event": "error", ...}.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

from boothsam.engines.trt_adapter import Adapter, Layer, Profile, Settings
from boothsam.runtime.backends.trt_library import library
from boothsam.runtime.engine_files import graph_sha256
from boothsam.runtime.errors import BoothsamError, EngineError, IntegrityError

log = logging.getLogger("boothsam")

PR_SET_PDEATHSIG = 1  # from Linux' sys/prctl.h
# Fewer arenas and kernels loaded when first used: hundreds of megabytes on a board with eight gigabytes.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "CUDA_MODULE_LOADING": "LAZY"}


@dataclass(frozen=True)
class Order:
    """What to build. graph: its file. external_data: the file with its weights, or None. sha256: of both, as
    `graph_sha256`. library: a name in trt_library.PACKAGES. timing: file with the timing cache, read and replaced; may
    be missing. out: file for the engine.
    """

    graph: str
    external_data: str | None
    sha256: str
    library: str
    profiles: tuple[Profile, ...]
    settings: Settings
    timing: str
    out: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        body = json.loads(text)
        body["profiles"] = tuple(Profile(**profile) for profile in body["profiles"])
        body["settings"] = Settings(**body["settings"])
        return cls(**body)


@dataclass(frozen=True)
class Outcome:
    """A finished build. layers: see `trt_adapter.Built`. seconds: that it took."""

    engine: bytes
    layers: tuple[Layer, ...]
    seconds: float


def run_child(
    order: Order, report: Callable[[float, str], None], *, keep_open: Sequence[int] = (), python: str = sys.executable
) -> Outcome:
    """Build in a child process and read the engine back.

    report: gets the fraction done and the phase. keep_open: descriptors that the child holds too, such as a lock.

    Raises:
        EngineError: the build failed, or the child was killed.
    """
    last: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        subprocess.Popen(
            [python, "-m", "boothsam.engines.build_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, **ENVIRONMENT},
            pass_fds=tuple(keep_open),
        ) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(order.to_json())
            child.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; its exit code says how
        try:
            for line in child.stdout:
                last = json.loads(line)
                if last["event"] == "progress":
                    report(last["fraction"], last["phase"])
        except BaseException:
            child.kill()
            raise
        child.wait()
        said.seek(0)
        lines = said.read().splitlines()  # of the libraries; those of a build that works tell nobody anything
    for line in lines:
        log.debug("%s", line)
    if last.get("event") == "error":
        raise EngineError(last["message"], hint=last["hint"])
    if child.returncode != 0 or last.get("event") != "done":
        how = f"was killed by signal {-child.returncode}" if child.returncode < 0 else f"ended with {child.returncode}"
        at = f" at {last['fraction']:.0%} ({last['phase']})" if last.get("event") == "progress" else ""
        memory = child.returncode == -signal.SIGKILL
        raise EngineError(
            f"the builder of {Path(order.graph).name} {how}{at}"
            + (": most likely out of memory" if memory else _tail(lines)),
            hint="add swap, or build with --workspace 512 --prompts 1,8 and nothing else running",
        )
    layers = tuple(Layer(*layer) for layer in last["layers"])
    return Outcome(Path(order.out).read_bytes(), layers, last["seconds"])


def _tail(lines: Sequence[str]) -> str:
    return f": {lines[-1]}" if lines else ""


def build(order: Order, report: Callable[[float, str], None]) -> dict[str, Any]:
    """Do what an order says, in this process; what the last line tells.

    Raises:
        IntegrityError: the graph is not the one that was ordered. EngineError: TensorRT refuses it.
    """
    start, path = perf_counter(), Path(order.graph)
    external = Path(order.external_data) if order.external_data else None
    model = path.read_bytes()
    found = graph_sha256(model, external)
    if found != order.sha256:
        raise IntegrityError(
            f"{path} has sha256 {found[:16]}...; expected {order.sha256[:16]}...", hint="export the model again"
        )
    timing = Path(order.timing)
    built = Adapter(library(order.library)).build(
        model if external is None else path,
        order.profiles,
        order.settings,
        timing=timing.read_bytes() if timing.is_file() else None,
        report=report,
    )
    Path(order.out).write_bytes(built.engine)
    if built.timing:
        part = timing.with_name(f".{timing.name}.{os.getpid()}")
        part.write_bytes(built.timing)
        part.replace(timing)
    layers = [[layer.name, layer.kind, layer.dtype] for layer in built.layers]
    return {"event": "done", "layers": layers, "seconds": round(perf_counter() - start, 3)}


def main() -> int:
    """The child's side."""
    # Whoever ordered is gone: nobody wants the engine, and the lock is free for another builder.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Libraries that print must not get between the lines.
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    order = Order.from_json(sys.stdin.read())
    shown = [-1.0]

    def report(fraction: float, phase: str) -> None:
        if fraction >= shown[0] + 0.005:  # thousands of small steps
            shown[0] = fraction
            _tell(channel, {"event": "progress", "fraction": round(fraction, 4), "phase": phase})

    try:
        _tell(channel, build(order, report))
    except BoothsamError as error:
        _tell(channel, {"event": "error", "message": error.message, "hint": error.hint})
        return 1
    return 0


def _tell(channel: TextIO, event: dict[str, Any]) -> None:
    channel.write(json.dumps(event) + "\n")
    channel.flush()


if __name__ == "__main__":
    sys.exit(main())
