"""/healthz, /readyz and the Open Inference Protocol's health routes, in every state of the service."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import boothsam
import pytest
from boothsam.runtime.errors import IntegrityError, ModelNotFound
from boothsam.runtime.store import starter_folder
from boothsam.service.app import create_app
from starlette.testclient import TestClient

from tests.service.http_client import code, send, service, settings


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """The bundled starter model: it has golden answers."""
    with service(None) as started:
        yield started


def test_readyz_says_what_answers_and_how_it_was_proven(client: TestClient) -> None:
    body = client.get("/readyz").json()
    assert body["ready"] is True and body["state"] == "ready"
    assert (body["model"], body["backend"], body["precision"]) == ("starter", "ort-cpu", "fp32")
    assert body["boothsam"] == boothsam.__version__
    assert body["proof"]["golden"] == "passed" and body["proof"]["cases"] > 0
    assert body["proof"]["mask_iou_min"] > 0.99 and body["proof"]["numerics"] == "device"
    assert len(body["proof"]["sidecars"]) == 1
    assert body["engine"] == {"state": "none", "progress": None}
    assert body["queue"] == {"depth": 0, "in_flight": 0}


def test_health_and_the_open_inference_protocol(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/starter/ready").status_code == 200
    missing = client.get("/v2/models/other/ready")
    assert missing.status_code == 404 and missing.json()["error"].startswith("not_found: ")
    assert client.get("/v2").json()["name"] == "boothsam"


def test_not_ready_while_the_model_is_proven_and_after_a_drain(color_folder: Path, photos: Path) -> None:
    with service(color_folder) as client:
        assert client.get("/readyz").json()["proof"]["golden"] == "absent"
        client.app.state.inference.state = "proving"
        assert client.get("/readyz").status_code == client.get("/v2/health/ready").status_code == 503
        refused = send(client, "/crop", photos / "one.png")
        assert code(refused, 503) == "not_ready" and refused.headers["retry-after"]
        client.app.state.inference.state = "ready"
        client.app.state.admission.drain()
        body = client.get("/readyz")
        assert body.status_code == 503 and body.json()["state"] == "draining"
        assert code(send(client, "/crop", photos / "one.png"), 503) == "draining"
        assert client.get("/healthz").status_code == 200


def test_golden_answers_that_are_not_met_keep_it_unready(tmp_path: Path) -> None:
    import json

    import numpy as np
    from boothsam.runtime.manifest import ModelManifest, record_files

    folder = tmp_path / "model"
    shutil.copytree(starter_folder(), folder, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    arrays = dict(np.load(folder / "golden" / "golden.npz"))
    name = next(key for key in arrays if key.endswith("low_res_masks"))
    arrays[name] = -arrays[name]
    np.savez_compressed(folder / "golden" / "golden.npz", **arrays)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    record = record_files(folder)["golden/golden.npz"]
    manifest["files"]["golden/golden.npz"] = {"sha256": record.sha256, "bytes": record.bytes}
    ModelManifest.from_json(json.dumps(manifest)).save(folder)
    with service(folder, prove=False) as client:
        while (body := client.get("/readyz").json())["state"] == "proving":
            pass
        assert body["ready"] is False and body["state"] == "failed"
        assert "disagrees with its golden answers" in body["reason"]
        assert body["proof"]["golden"] == "failed"
        assert client.get("/healthz").status_code == 200


def test_a_model_that_cannot_be_loaded_stops_the_start(color_folder: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ModelNotFound),
        TestClient(create_app(settings(tmp_path / "no-model")), base_url="http://127.0.0.1"),
    ):
        pass
    folder = tmp_path / "altered"
    shutil.copytree(color_folder, folder)
    graph = folder / "encoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError), TestClient(create_app(settings(folder)), base_url="http://127.0.0.1"):
        pass
