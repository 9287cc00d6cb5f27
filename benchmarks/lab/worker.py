"""One implementation in a process of its own: `python -m boothsam.bench.worker PLAN.json NAME`.

Reads one JSON command per line from stdin, answers each with one JSON line on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer until stdin ends; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started = time.perf_counter()
    from boothsam.bench.plan import Plan

    plan, name = Plan.load(Path(sys.argv[1])), sys.argv[2]
    # Cores, not threads alone: OpenCV and our own strips take as many threads as the process has cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: plan.threads])
    from boothsam.bench.runners import Runner, find

    runner: Runner = find(name).make(plan)
    loaded = time.perf_counter() - started

    def crop(command: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        made = runner.crop(plan.subjects[command["subject"]])
        total = 1e3 * (time.perf_counter() - start)
        if command.get("keep"):
            made.logits.astype("<f4").tofile(command["keep"])
            Path(command["keep"] + ".png").write_bytes(made.picture)
        facts = {"ms": dict(made.ms), "total_ms": total, "score": made.score, "picture_bytes": len(made.picture)}
        return facts | {"since_start_s": time.perf_counter() - started, "peak_rss_bytes": peak_rss()}

    def decode(command: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        runner.decode(command["prompts"])
        return {"ms": 1e3 * (time.perf_counter() - start)}

    answers_to: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "hello": lambda command: {"load_s": loaded, "versions": runner.versions()},
        "crop": crop,
        "embed": lambda command: {"ms": runner.embed(plan.subjects[command["subject"]])},
        "tune": lambda command: {"prompts_at_once": runner.tune()},
        "decode": decode,
        "click": lambda command: {"ms": dict(runner.click())},
    }
    for line in sys.stdin:
        try:
            command = json.loads(line)
            reply = answers_to[command["do"]](command)
        except Exception as error:  # told to the one who schedules, who names the implementation
            reply = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(reply), file=answers, flush=True)


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes; of Linux alone.

    Not from getrusage: a child inherits its parent's maximum there.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    main()
