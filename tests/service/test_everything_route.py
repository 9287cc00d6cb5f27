"""POST /everything: the generator's masks, bounds, and other requests in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boothsam.runtime.automatic import Mode, SamAutomaticMaskGenerator
from boothsam.runtime.images import load_image, save_image
from boothsam.service.routes import everything
from starlette.testclient import TestClient

from tests.models.pictures import test_picture
from tests.models.tiny_folder import export_tiny_sam
from tests.service.http_client import code, send, service

SMALL = {"points_per_side": "6"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_sam(tmp_path_factory.mktemp("models") / "tiny_sam")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "shapes.png"
    save_image(path, test_picture("landscape").image)
    return path


@pytest.fixture(scope="module")
def client(tiny: Path) -> Iterator[TestClient]:
    with service(tiny) as started:
        yield started


@pytest.fixture
def quick(color_folder: Path) -> Iterator[TestClient]:
    """A small model with the default queue, and one place."""
    with service(color_folder) as started:
        yield started


def busy(client: TestClient) -> bool:
    return bool(client.app.state.everything.in_flight)  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_the_answer_holds_the_generators_records(client: TestClient, shapes: Path, mode: Mode) -> None:
    answer = send(client, "/everything", shapes, SMALL | {"mode": mode, "min_mask_region_area": "20"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    model = client.app.state.inference.model  # type: ignore[attr-defined]
    generator = SamAutomaticMaskGenerator(model, 6, min_mask_region_area=20, output_mode="coco_rle", mode=mode)
    expected = generator.generate(load_image(shapes))
    assert body["masks"] == expected and len(expected) >= 3
    assert body["size_hw"] == [480, 640] and body["mode"] == mode and body["warnings"] == []
    assert {"decode", "embed", "mask"} <= set(body["ms"])
    question = {"points": [expected[0]["point_coords"][0]]}
    again = client.post(f"/embeddings/{body['embedding_id']}/segment", json=question)  # the embedding is there already
    assert again.status_code == 200 and again.json()["ms"].keys() == {"mask", "encode"}


def test_fewer_masks_thresholds_and_run_lengths_as_numbers(client: TestClient, shapes: Path) -> None:
    fields = SMALL | {"max_masks": "2", "output_mode": "uncompressed_rle"}
    masks = send(client, "/everything", shapes, fields).json()["masks"]
    assert len(masks) == 2 and all(sum(mask["segmentation"]["counts"]) == 480 * 640 for mask in masks)
    none = {"points_per_side": "2", "pred_iou_thresh": "1", "stability_score_thresh": "1"}
    empty = send(client, "/everything", shapes, none).json()
    assert empty["masks"] == [] and "no mask passes predicted IoU 1" in empty["warnings"][0]["message"]
    assert "pred_iou_thresh=0.85" in empty["warnings"][0]["hint"]


@pytest.mark.parametrize(
    "fields",
    [{"mode": "quick"}, {"points_per_side": "65"}, {"points_per_side": "2.5"}, {"max_masks": "0"}, {"model": "x"}],
)
def test_fields_are_checked(client: TestClient, shapes: Path, fields: dict[str, str]) -> None:
    found = code(send(client, "/everything", shapes, fields), 422)
    assert found == ("unknown_field" if "model" in fields else "invalid_field")


def test_the_time_is_bounded(color_folder: Path, photos: Path) -> None:
    with service(color_folder, everything_timeout_s=0.01) as client:
        refused = send(client, "/everything", photos / "one.png", {"points_per_side": "64"})
        assert code(refused, 503) == "everything_timeout" and "everything_timeout_s" in refused.json()["hint"]
        state = client.app.state  # type: ignore[attr-defined]
        assert not state.admission.in_flight and not state.everything.in_flight


def test_the_memory_is_bounded(quick: TestClient, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything, "MOST_BYTES", 1000)
    fields = {"points_per_side": "8", "pred_iou_thresh": "0", "stability_score_thresh": "0"}
    refused = send(quick, "/everything", photos / "one.png", fields)
    assert code(refused, 422) == "too_many_masks" and not busy(quick)


def test_others_are_answered_in_between_and_a_second_one_is_refused(
    quick: TestClient, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everything, "SLICE_S", 0.02)
    answers: list[Any] = []
    fields = {"points_per_side": "16"}
    work = threading.Thread(target=lambda: answers.append(send(quick, "/everything", photos / "two.jpg", fields)))
    work.start()
    until = time.monotonic() + 60
    while not busy(quick):
        assert work.is_alive() and time.monotonic() < until
        time.sleep(0.005)
    second = send(quick, "/everything", photos / "one.png", fields)
    assert code(second, 429) == "queue_full" and int(second.headers["Retry-After"]) >= 1
    assert send(quick, "/crop", photos / "one.png", {"box": "310,60,490,240"}).status_code == 200
    assert busy(quick)  # the only place was handed over and taken back
    work.join()
    assert answers[0].status_code == 200 and not busy(quick)


def test_the_shutdown_does_not_wait_for_it(quick: TestClient, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything, "SLICE_S", 0.001)
    state = quick.app.state  # type: ignore[attr-defined]
    answers: list[Any] = []
    fields = {"points_per_side": "64"}
    work = threading.Thread(target=lambda: answers.append(send(quick, "/everything", photos / "one.png", fields)))
    work.start()
    while not state.admission.in_flight:
        assert work.is_alive()
        time.sleep(0.005)
    state.admission.drain()
    work.join()
    assert code(answers[0], 503) == "draining" and answers[0].headers["Retry-After"]
