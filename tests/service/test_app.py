"""The application as a whole: what is documented, how it refuses, how it starts and ends."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
from boothsam.service.app import create_app
from boothsam.service.cropping import Look
from boothsam.service.problems import ServiceProblem, catalogue, from_error, problem, render
from boothsam.service.products import _check_room
from starlette.testclient import TestClient

from tests.service.conftest import DISC_BOX
from tests.service.http_client import code, send, service, settings


@pytest.fixture(scope="module")
def client(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with service(color_folder, captures_dir=str(tmp_path_factory.mktemp("data") / "captures")) as started:
        yield started


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, op) for path, item in document["paths"].items() for method, op in item.items()]


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    paths = set(document["paths"])
    assert {"/crop", "/v1.0/removebg", "/v1.0/account", "/embeddings", "/embeddings/{id}/segment"} <= paths
    assert {"/healthz", "/readyz", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"} <= paths
    assert "/captures" in paths
    for path, method, operation in _operations(document):
        assert operation.get("summary"), (path, method)


def test_references_resolve_and_forms_have_examples(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert name in document["components"]["schemas"], name
    form = document["paths"]["/crop"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["box"]["example"] == ["120,80,480,320"]
    question = document["paths"]["/embeddings/{id}/segment"]["post"]["requestBody"]["content"]["application/json"]
    assert question["schema"]["examples"]


def test_problems_are_documented_with_their_schema(document: dict[str, Any]) -> None:
    refusals = document["paths"]["/crop"]["post"]["responses"]
    assert {"400", "413", "415", "422", "429", "503"} <= set(refusals)
    schema = refusals["429"]["content"]["application/problem+json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Problem"}


def _valid(document: dict[str, Any], path: str, body: Any, method: str = "post") -> None:
    schema = document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(body, schema | {"components": document["components"]})


def test_answers_are_what_the_document_says(client: TestClient, document: dict[str, Any], photos: Path) -> None:
    as_json = {"accept": "application/json"}
    _valid(document, "/crop", send(client, "/crop", photos / "one.png", {"box": DISC_BOX}, **as_json).json())
    _valid(document, "/crop", send(client, "/crop", photos / "one.png", {"points": "400,150"}, **as_json).json())
    made = send(client, "/embeddings", photos / "one.png").json()
    _valid(document, "/embeddings", made)
    for kind in ("rle", "png"):
        answer = client.post(f"/embeddings/{made['id']}/segment", json={"points": [[400, 150]], "format": kind})
        _valid(document, "/embeddings/{id}/segment", answer.json())
    _valid(document, "/readyz", client.get("/readyz").json(), "get")
    refused = send(client, "/crop", None)
    jsonschema.validate(refused.json(), document["components"]["schemas"]["Problem"])


def test_pages_that_need_a_cdn_do_not_exist(client: TestClient) -> None:
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert code(client.get("/nothing"), 404) == "not_found"
    answer = client.get("/crop")
    assert code(answer, 405) == "method_not_allowed" and "POST" in answer.headers["allow"]


def test_a_request_id_is_echoed_or_made(client: TestClient) -> None:
    assert client.get("/healthz", headers={"x-request-id": "booth-7.a"}).headers["x-request-id"] == "booth-7.a"
    assert len(client.get("/healthz", headers={"x-request-id": "a b<script>"}).headers["x-request-id"]) == 32


def test_an_unexpected_error_tells_nothing_and_is_logged(
    client: TestClient, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr("boothsam.service.routes.crop.make_products", broken)
    answer = send(client, "/crop", photos / "one.png", {"box": DISC_BOX}, x_request_id="find-me")
    assert code(answer, 500) == "internal"
    assert "secret" not in answer.text
    assert len([r for r in caplog.records if r.exc_info]) == 1  # told once, under the request's id
    assert any("find-me" in record.getMessage() and record.exc_info for record in caplog.records)
    assert 'boothsam_problems_total{code="internal"} 1.0' in client.get("/metrics").text
    monkeypatch.undo()
    assert client.app.state.admission.in_flight == 0
    assert send(client, "/crop", photos / "one.png", {"box": DISC_BOX}).status_code == 200


def test_a_client_that_leaves_during_its_upload_is_no_error(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [
        (b"host", b"localhost"),
        (b"content-length", b"9999"),
        (b"content-type", b"multipart/form-data; boundary=B"),
    ]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/crop", "raw_path": b"/crop",
             "query_string": b"", "headers": headers, "state": {}, "scheme": "http", "root_path": ""}  # fmt: skip
    messages = [{"type": "http.request", "body": b"--B\r\n", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send_nowhere(message: Any) -> None:
        sent.append(message)

    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send_nowhere)
    assert sent[0]["status"] == 499
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert 'boothsam_problems_total{code="client_gone"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("host", "asked", "status"),
    [("192.168.7.5", "192.168.7.5:8765", 200), ("booth.local", "booth.local", 200), ("fd00::5", "[fd00::5]:80", 200),
     ("192.168.7.5", "192.168.7.6", 400), ("0.0.0.0", "0.0.0.0", 400), ("::", "[::]", 400), ("", "", 400)],
)  # fmt: skip
def test_the_address_it_listens_on_is_its_name(color_folder: Path, host: str, asked: str, status: int) -> None:
    client = TestClient(create_app(settings(color_folder, host=host, token="t")))
    assert client.get("/healthz", headers={"host": asked}).status_code == status


def test_a_token_guards_everything_but_health(color_folder: Path, photos: Path) -> None:
    with service(color_folder, token="right") as client:
        for path in ("/metrics", "/openapi.json", "/v1.0/account"):
            assert client.get(path).status_code in (401, 403), path
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200, path
        refused = send(client, "/crop", photos / "one.png", {"box": DISC_BOX})
        assert code(refused, 401) == "unauthorized"
        allowed = send(client, "/crop", photos / "one.png", {"box": DISC_BOX}, authorization="Bearer right")
        assert allowed.status_code == 200


def test_a_cancelled_job_keeps_its_place_until_the_thread_is_done(color_folder: Path) -> None:
    import threading

    from boothsam.service.inference import Inference

    async def scenario() -> None:
        inference, entered, leave = Inference(model=color_folder), threading.Event(), threading.Event()
        ended: list[bool] = []

        def work() -> None:
            entered.set()
            leave.wait(10)
            ended.append(True)

        task = asyncio.create_task(inference.run(work))
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]
        inference.close()

    asyncio.run(scenario())


def test_the_watchdogs_probe_is_a_real_inference(client: TestClient) -> None:
    inference = client.app.state.inference
    assert client.portal is not None
    assert client.portal.call(inference.probe) > 0


def test_a_background_larger_than_its_bound_is_refused_before_it_is_made(color_folder: Path, photos: Path) -> None:
    with service(color_folder, max_pixels=300_000) as client:
        answer = send(client, "/crop", photos / "one.png", {"box": DISC_BOX, "size": "600"})
        assert code(answer, 422) == "invalid_field" and "size=547" in answer.json()["hint"]
        assert send(client, "/crop", photos / "one.png", {"box": DISC_BOX, "size": "500"}).status_code == 200
        answer = send(client, "/crop", photos / "one.png", {"box": DISC_BOX, "margin": "200"})
        assert code(answer, 422) == "invalid_field"
        boxes = {"box": [DISC_BOX] * 16, "size": "500"}
        answer = send(client, "/crop", photos / "one.png", boxes, accept="application/json")
        assert code(answer, 422) == "invalid_field" and "16 products" in answer.json()["detail"]
        boxes = {"box": [DISC_BOX] * 2, "size": "500"}
        answer = send(client, "/crop", photos / "one.png", boxes, accept="application/json")
        assert answer.status_code == 200 and len(answer.json()["products"]) == 2


def test_cut_outs_are_counted_beside_their_small_pictures() -> None:
    whole: Any = SimpleNamespace(logits=np.ones((256, 256), np.float32))  # the product fills the photo
    image, look = np.zeros((400, 600, 3), np.uint8), Look("png", size=10)
    _check_room(image, [whole] * 2, look, 300_000)
    with pytest.raises(ServiceProblem, match="3 products would take"):
        _check_room(image, [whole] * 3, look, 300_000)


def test_every_code_renders_in_every_form() -> None:
    for name, (status, title) in catalogue.items():
        found = problem(name, "detail", "hint", headers={"Retry-After": "3"})
        got, headers, body = render(found, {"path": "/crop"}, "id")
        assert got == status and headers["retry-after"] == "3" and headers["x-request-id"] == "id"
        assert json.loads(body) == found.body("id")
        assert json.loads(body)["title"] == title
        assert json.loads(render(found, {"path": "/v1.0/removebg"})[2])["errors"][0]["code"] == name
        assert json.loads(render(found, {"path": "/v2/models/x/ready"})[2]) == {"error": f"{name}: detail"}
    assert from_error(ValueError("secret")).code == "internal"


def test_nothing_is_loaded_before_the_lifespan(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path / "no-model"))
    assert not hasattr(app.state, "inference")


def test_importing_the_command_line_needs_no_web_framework() -> None:
    script = "import sys, boothsam.service.cli; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"fastapi", "starlette", "uvicorn", "pydantic", "pydantic_settings", "prometheus_client"} & set(loaded)
