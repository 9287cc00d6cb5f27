"""/metrics: what is counted, and that no client can invent a label."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.service.conftest import DISC_BOX
from tests.service.http_client import send, service


def _samples(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def _labels(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def test_requests_stages_refusals_retakes_and_the_cache(color_folder: Path, photos: Path) -> None:
    with service(color_folder) as client:
        send(client, "/crop", photos / "one.png", {"box": DISC_BOX})
        send(client, "/crop", photos / "one.png", {"box": "300,0,600,200"}, accept="application/json")
        send(client, "/crop", photos / "one.png", {"box": "1,2"})
        client.get("/captures/../../etc/passwd-1")
        client.get("/crop")
        client.request("BREW", "/crop")
        client.get("/readyz", headers={"host": "evil.example"})
        found = _samples(client)
        requests = {labels: value for (name, labels), value in found.items() if name == "boothsam_requests_total"}
        assert requests[_labels(route="/crop", method="POST", status="200")] == 2
        assert requests[_labels(route="/crop", method="POST", status="422")] == 1
        assert requests[_labels(route="none", method="GET", status="400")] == 1  # refused before any route
        routes = {dict(labels)["route"] for labels in requests}
        assert routes <= {"/crop", "/readyz", "none"}
        assert {dict(labels)["method"] for labels in requests} == {"GET", "POST", "other"}
        for stage in ("decode", "embed", "mask", "matte", "encode"):
            assert found["boothsam_stage_seconds_count", _labels(stage=stage)] == 2
        assert found["boothsam_queue_wait_seconds_count", ()] == 2
        assert found["boothsam_problems_total", _labels(code="invalid_prompt")] == 1
        assert found["boothsam_problems_total", _labels(code="bad_host")] == 1
        assert found["boothsam_problems_total", _labels(code="method_not_allowed")] == 2
        assert found["boothsam_cache_entries", ()] == 1 and found["boothsam_cache_bytes", ()] > 0
        assert (found["boothsam_cache_hits", ()], found["boothsam_cache_misses", ()]) == (1, 1)
        assert (found["boothsam_in_flight", ()], found["boothsam_queue_depth", ()]) == (0, 0)
        assert found["boothsam_ready", ()] == 1
        assert found["boothsam_model_info", _labels(model="color", backend="ort-cpu", precision="fp32")] == 1
        assert found["process_resident_memory_bytes", ()] > 0


def test_two_applications_count_apart(color_folder: Path) -> None:
    with service(color_folder) as first, service(color_folder) as second:
        for _ in range(3):
            first.get("/healthz")
        key = "boothsam_requests_total", _labels(route="/healthz", method="GET", status="200")
        assert _samples(first)[key] == 3 and key not in _samples(second)
