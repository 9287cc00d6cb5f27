"""Prometheus metrics of one application: its own registry, no label that a client could choose freely."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each first one, which nobody asks for
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """What /metrics shows. Labels are route templates, statuses, problem codes and stage names only."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "boothsam_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "boothsam_request_seconds",
            "Time from the first byte of the headers to the end of the answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "boothsam_stage_seconds", "Time of one stage", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self._waits = Histogram(
            "boothsam_queue_wait_seconds", "Time until a place was free", buckets=_SECONDS, registry=self.registry
        )
        self._problems = Counter("boothsam_problems", "Refusals by code", ["code"], registry=self.registry)
        self._retakes = Counter(
            "boothsam_retake_reasons",
            "Photos that should be taken again, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._info = Gauge(
            "boothsam_model_info", "1 for the model in use", ["model", "backend", "precision"], registry=self.registry
        )

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read when /metrics is asked for."""
        Gauge(f"boothsam_{name}", text, registry=self.registry).set_function(read)

    def model(self, name: str, backend: str, precision: str) -> None:
        """Say which model answers."""
        self._info.labels(name, backend, precision).set(1)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer. route: the template, never the path that was sent."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def stages(self, ms: Mapping[str, float]) -> None:
        """Record the stages of one request, in milliseconds."""
        for stage, value in ms.items():
            self._stages.labels(stage).observe(value / 1e3)

    def waited(self, seconds: float) -> None:
        """Record how long one request waited for its place."""
        self._waits.observe(seconds)

    def problem(self, code: str) -> None:
        """Count one refusal."""
        self._problems.labels(code).inc()

    def retake(self, reason: str) -> None:
        """Count one failed check of a photo."""
        self._retakes.labels(reason).inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
