"""GET /kiosk/status in every state of the service."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import boothsam
import pytest
from boothsam.service.captures import files
from boothsam.service.routes import kiosk
from starlette.testclient import TestClient

from tests.service.http_client import code, send, service


def _status(client: TestClient) -> Any:
    answer = client.get("/kiosk/status")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    return answer.json()


def test_a_service_without_captures(color_folder: Path) -> None:
    with service(color_folder) as client:
        body = _status(client)
        assert body["state"] == "ready" and body["model"] == client.get("/readyz").json()["model"]
        assert body["engine"] == {"state": "none", "progress": None}
        assert body["boothsam"] == boothsam.__version__
        assert body["queue"] == {"depth": 0, "in_flight": 0}
        assert body["captures"] is None and body["annotate"] is False
        assert client.head("/kiosk/status").status_code == 200


def test_the_states_of_model_and_engine(color_folder: Path) -> None:
    with service(color_folder) as client:
        inference = client.app.state.inference
        inference.state, inference.reason = "proving", "the golden answers are being compared"
        assert (_status(client)["state"], _status(client)["reason"]) == ("proving", inference.reason)
        inference.engine = {"state": "building", "progress": 0.25}
        body = _status(client)
        assert body["state"] == "building" and body["engine"]["progress"] == 0.25
        inference.state = "ready"  # another backend answers while the engine is built
        body = _status(client)
        assert body["state"] == "ready" and body["engine"]["state"] == "building"
        inference.state, inference.reason = "failed", "broken"
        assert (_status(client)["state"], _status(client)["reason"]) == ("failed", "broken")
        client.app.state.admission.drain()
        assert _status(client)["state"] == "draining"


def test_captures_that_wait_and_a_disk_that_is_full(
    color_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, target = tmp_path / "captures", tmp_path / "target"
    target.write_text("a file where the folder should be: nothing can be forwarded")
    with service(color_folder, captures_dir=str(folder), min_free_bytes=1, forward_dir=str(target)) as client:
        assert send(client, "/captures", photos / "one.png").status_code == 201
        found = _status(client)["captures"]
        assert (found["waiting"], found["failed"], found["forwarding"]) == (1, 0, True)
        assert found["disk_low"] is False and found["free_bytes"] > 1 and found["reason"] == ""
        monkeypatch.setattr(kiosk, "free_bytes", lambda folder: 0)
        found = _status(client)["captures"]
        assert found["disk_low"] is True and found["free_bytes"] == 0
        monkeypatch.setattr(kiosk, "free_bytes", files.free_bytes)
        for index in folder.glob("index*"):
            index.write_bytes(b"no database at all")
        assert _status(client)["captures"]["reason"]


def test_a_captures_disk_that_was_pulled_out(color_folder: Path, photos: Path, tmp_path: Path) -> None:
    folder, away = tmp_path / "captures", tmp_path / "away"
    with service(color_folder, captures_dir=str(folder), min_free_bytes=1) as client:
        folder.rename(away)
        found = _status(client)["captures"]
        assert found["disk_low"] is True and found["free_bytes"] == 0 and "No such file" in found["reason"]
        refused = send(client, "/captures", photos / "one.png")
        assert code(refused, 503) == "storage_failed" and refused.headers["retry-after"] == "5"
        assert "cannot be read" in refused.json()["detail"]
        away.rename(folder)
        assert _status(client)["captures"]["reason"] == ""
        assert send(client, "/captures", photos / "one.png").status_code == 201


def test_a_photo_is_let_go_although_nobody_comes_after(color_folder: Path, photos: Path) -> None:
    with service(color_folder, cache_ttl_s=2) as client:
        cache = client.app.state.inference.cache
        assert send(client, "/embeddings", photos / "one.png", {"keep": "true"}).json()["photo_kept"] is True
        assert len(cache) == 1
        until = time.monotonic() + 30
        while cache._entries or cache._pixels:  # looked at without a call, which would clear up by itself
            assert time.monotonic() < until
            time.sleep(0.05)
