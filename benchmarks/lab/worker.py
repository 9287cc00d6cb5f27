"""One implementation in a process of its own: `python -m boothsam.bench.worker PLAN.json NAME`.

Reads one JSON command per line from stdin, answers each with one JSON line on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer until stdin ends; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started = time.perf_counter()
    from boothsam.bench.plan import Plan
    from boothsam.bench.runners import Runner, find

    plan, name = Plan.load(Path(sys.argv[1])), sys.argv[2]
    runner: Runner = find(name).make(plan)
    loaded = time.perf_counter() - started

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        if command["do"] == "hello":
            return {"load_s": loaded, "versions": runner.versions()}
        if command["do"] == "crop":
            start = time.perf_counter()
            made = runner.crop(plan.subjects[command["subject"]])
            total = 1e3 * (time.perf_counter() - start)
            if command.get("keep"):
                made.logits.astype("<f4").tofile(command["keep"])
                Path(command["keep"] + ".png").write_bytes(made.picture)
            facts = {"ms": dict(made.ms), "total_ms": total, "score": made.score, "picture_bytes": len(made.picture)}
            return facts | {"since_start_s": time.perf_counter() - started, "peak_rss_bytes": peak_rss()}
        start = time.perf_counter()
        runner.decode(command["prompts"])
        return {"ms": 1e3 * (time.perf_counter() - start)}

    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # told to the one who schedules, who names the implementation
            reply = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(reply), file=answers, flush=True)


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
