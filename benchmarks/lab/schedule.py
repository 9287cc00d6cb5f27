"""The run: fresh processes that take turns, agreement before times, medians of ratios within a round."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from boothsam.bench import device
from boothsam.bench.plan import PROMPTS, Plan
from boothsam.bench.runners import BASELINE, IMPLEMENTATIONS, STAGES, Implementation
from boothsam.runtime.errors import BoothsamError
from boothsam.runtime.masks import mask_iou

# Same weights in FP32: only sums in another order. Seeded weights give noise, whose masks hang on the last bits.
MIN_IOU = 0.999
Say = Callable[[str], None]


class BenchError(BoothsamError):
    """An implementation failed, or gave another mask than the baseline."""


@dataclass
class Worker:
    """A running implementation."""

    name: str
    process: subprocess.Popen[str]

    def ask(self, **command: Any) -> dict[str, Any]:
        """One command, one answer. Raises BenchError."""
        if self.process.stdin is None or self.process.stdout is None:
            raise BenchError(f"{self.name} has no pipes")
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise BenchError(f"{self.name} ended with status {self.process.wait()}", hint="its messages are above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}")
        return answer


@contextlib.contextmanager
def worker(plan_file: Path, name: str, threads: int) -> Iterator[Worker]:
    """Start one; killed at the end. Libraries' own thread pools keep to the plan's number and sleep when idle."""
    pools = {key: str(threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "boothsam.bench.worker", str(plan_file), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | pools | {"OMP_WAIT_POLICY": "PASSIVE"},
    )
    try:
        yield Worker(name, process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def run(plan: Plan, *, rounds: int, cold_starts: int, prompts: Sequence[int] = PROMPTS, say: Say) -> dict[str, Any]:
    """Measure everything that can run here; the result as JSON-ready facts. Raises BenchError."""
    chosen = [one for one in IMPLEMENTATIONS if not plan.names or one.name in plan.names]
    reasons = {one.name: one.missing(plan) for one in chosen}
    present = [one for one in chosen if reasons[one.name] is None]
    if not present:
        raise BenchError("nothing can run here: " + "; ".join(f"{n}: {r}" for n, r in reasons.items()))
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        plan_file = Path(scratch) / "plan.json"
        plan.save(plan_file)
        cold = _cold_starts(plan, plan_file, present, cold_starts, say)
        workers = {one.name: stack.enter_context(worker(plan_file, one.name, plan.threads)) for one in present}
        hello = {name: w.ask(do="hello") for name, w in workers.items()}
        agreement = _agreement(plan, workers, Path(scratch), say)
        times = _rounds(plan, workers, rounds, prompts, say)
    return {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": device.facts() | {"threads": plan.threads},
        "model": {"variant": plan.variant, "seeded": plan.seeded, "resize": plan.resize},
        "subjects": [{"file": Path(s.file).name, "box_xyxy": list(s.box_xyxy)} for s in plan.subjects],
        "rounds": rounds,
        "absent": {name: reason for name, reason in reasons.items() if reason is not None},
        "agreement": agreement,
        "implementations": {
            one.name: {"about": one.about, "versions": hello[one.name]["versions"], "cold": cold[one.name]}
            | _summary(times[one.name], times.get(BASELINE))
            for one in present
        },
    }


def _cold_starts(
    plan: Plan, plan_file: Path, present: Sequence[Implementation], count: int, say: Say
) -> dict[str, dict[str, Any]]:
    """Seconds from starting the interpreter to the first finished crop, and peak memory then; taking turns."""
    seconds: dict[str, list[float]] = {one.name: [] for one in present}
    memory: dict[str, int] = {one.name: 0 for one in present}
    for turn in range(count):
        for one in present[:: -1 if turn % 2 else 1]:
            say(f"cold start {turn + 1} of {count}: {one.name}")
            start = time.perf_counter()
            with worker(plan_file, one.name, plan.threads) as started:
                answer = started.ask(do="crop", subject=0)
                seconds[one.name].append(time.perf_counter() - start)
                memory[one.name] = max(memory[one.name], answer["peak_rss_bytes"])
    return {
        name: {"first_crop_s": [round(s, 3) for s in found], "peak_rss_bytes": memory[name]}
        for name, found in seconds.items()
    }


def _agreement(plan: Plan, workers: dict[str, Worker], scratch: Path, say: Say) -> dict[str, Any]:
    """Mask IoU of every implementation with the first; also the warm-up. Raises BenchError below MIN_IOU."""
    masks: dict[str, list[np.ndarray]] = {}
    for name, one in workers.items():
        say(f"masks: {name}")
        masks[name] = []
        for index in range(len(plan.subjects)):
            file = scratch / f"{name}-{index}"
            one.ask(do="crop", subject=index, keep=str(file))
            logits = np.fromfile(file, "<f4").reshape(256, 256)
            # Seeded weights may leave all logits on one side of zero: cut them in the middle instead.
            masks[name].append(logits > ((logits.max() + logits.min()) / 2 if plan.seeded else 0))
    first = next(iter(masks))
    found = {}
    for name, own in masks.items():
        ious = [mask_iou(a, b) for a, b in zip(own, masks[first], strict=True)]
        found[name] = {"mask_iou_min": round(min(ious), 6), "against": first}
        if min(ious) < MIN_IOU:
            raise BenchError(
                f"{name} gives another mask than {first}: IoU {min(ious):.4f}, at least {MIN_IOU} wanted",
                hint="no time is worth comparing before masks agree: boothsam verify",
            )
    return found


def _rounds(
    plan: Plan, workers: dict[str, Worker], rounds: int, prompts: Sequence[int], say: Say
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds by implementation and stage, one value per photo and round."""
    times: dict[str, dict[str, list[float]]] = {name: {} for name in workers}
    for turn in range(rounds):
        say(f"round {turn + 1} of {rounds}")
        order = list(workers)[:: -1 if turn % 2 else 1]
        for index in range(len(plan.subjects)):
            for name in order:
                answer = workers[name].ask(do="crop", subject=index)
                spent = answer["ms"] | {"total": answer["total_ms"]}
                spent["all but the encoder"] = answer["total_ms"] - answer["ms"]["encoder"]
                for stage, ms in spent.items():
                    times[name].setdefault(stage, []).append(ms)
            for count in prompts:
                for name in order:
                    ms = workers[name].ask(do="decode", prompts=count)["ms"]
                    times[name].setdefault(f"decoder, {count} prompts", []).append(ms)
    return times


def _summary(times: dict[str, list[float]], baseline: dict[str, list[float]] | None) -> dict[str, Any]:
    """p50, p95, min and count of every stage, and the median of the ratios to the baseline within a round."""
    known = [stage for stage in STAGES if stage in times]
    stages = {}
    for stage in known + [stage for stage in times if stage not in known]:
        values = times[stage]
        row: dict[str, Any] = {
            "p50_ms": round(median(values), 2),
            "p95_ms": round(float(np.percentile(values, 95)), 2),
            "min_ms": round(min(values), 2),
            "count": len(values),
        }
        if baseline is not None and stage in baseline:
            row["ratio_to_torch"] = round(median(b / v for b, v in zip(baseline[stage], values, strict=True)), 3)
        stages[stage] = row
    return {"stages": stages}
