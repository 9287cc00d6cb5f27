"""Implementations as running processes: one each, started when first asked, fed with JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from boothsam.bench.plan import Plan
from boothsam.bench.runners import Implementation
from boothsam.runtime.errors import BoothsamError


class BenchError(BoothsamError):
    """An implementation failed, or gave another mask than the baseline."""


@dataclass(frozen=True)
class Candidate:
    """One who takes turns: an implementation with the plan (model, threads, photos) that it runs. label: its name."""

    label: str
    plan: Plan
    implementation: Implementation


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


class Crew:
    """Candidates by label, in the order of the tables; `crew[label]` is its process, started when first asked for."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = {one.label: one for one in candidates}
        self._stack = contextlib.ExitStack()
        self.scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._workers: dict[str, Worker] = {}
        self._plans: dict[str, Path] = {}
        for index, one in enumerate(candidates):
            self._plans[one.label] = self.scratch / f"plan-{index}.json"
            one.plan.save(self._plans[one.label])

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __getitem__(self, label: str) -> Worker:
        if label not in self._workers:
            self._workers[label] = self._stack.enter_context(self.fresh(label))
        return self._workers[label]

    @contextlib.contextmanager
    def fresh(self, label: str) -> Iterator[Worker]:
        """A process of its own beside the lasting one; killed at the end.

        Libraries' own thread pools keep to the plan's number and sleep when idle: who waits must not slow who works.
        """
        one = self.candidates[label]
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        process = subprocess.Popen(
            [sys.executable, "-m", "boothsam.bench.worker", str(self._plans[label]), one.implementation.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict.fromkeys(names, str(one.plan.threads)) | {"OMP_WAIT_POLICY": "PASSIVE"},
        )
        try:
            yield Worker(label, process)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
