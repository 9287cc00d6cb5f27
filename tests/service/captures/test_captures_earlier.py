"""POST /captures with the mask of an earlier answer: what was seen on the screen is what is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import load_image
from boothsam.service.embeddings import EarlierMask
from PIL import Image, ImageDraw
from starlette.testclient import TestClient

from tests.service.captures.test_captures_route import disc_share
from tests.service.http_client import code, send, service

BOX = [310, 60, 490, 240]


@pytest.fixture(scope="module")
def client(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with service(color_folder, captures_dir=tmp_path_factory.mktemp("kept"), min_free_bytes=0) as client:
        yield client


@pytest.fixture(autouse=True)
def _fresh(client: TestClient) -> None:
    client.app.state.inference.cache.clear()


def _asked(client: TestClient, photo: Path, *, keep: bool = True, **question: Any) -> dict[str, str]:
    """embedding_id and logits_id of the best mask."""
    id = send(client, "/embeddings", photo, {"keep": str(keep).lower()}).json()["id"]
    body = client.post(f"/embeddings/{id}/segment", json=question or {"points": [[400, 150]]}).json()
    return {"embedding_id": id, "logits_id": body["masks"][body["best"]]["logits_id"]}


def _file(client: TestClient, id: str, role: str) -> bytes:
    answer = client.get(f"/captures/{id}/{role}")
    assert answer.status_code == 200
    return bytes(answer.content)


@pytest.mark.parametrize("send_photo", [False, True])
def test_the_mask_and_cutout_of_the_earlier_answer_are_stored(
    client: TestClient, photos: Path, send_photo: bool
) -> None:
    question = {"points": [[400, 150], [20, 20]], "labels": [1, 0]}
    asked = _asked(client, photos / "one.png", keep=not send_photo, **question)
    shown = client.post(f"/embeddings/{asked['embedding_id']}/cutout", json={"logits_id": asked["logits_id"]})
    answer = send(client, "/captures", photos / "one.png" if send_photo else None, asked | {"sku": "MUG-7"})
    assert answer.status_code == 201, answer.text
    record = answer.json()
    facts = record["facts"]
    assert facts["made_by"] == "model" and facts["sku"] == "MUG-7" and facts["size_hw"] == [400, 600]
    assert facts["prompts"] == {"point_coords": [[400, 150], [20, 20]], "point_labels": [1, 0]}
    original = (photos / "one.png").read_bytes()
    assert _file(client, record["id"], "original") == original
    assert record["files"]["original"]["sha256"] == hashlib.sha256(original).hexdigest()
    cutout = _file(client, record["id"], "cutout")
    assert shown.status_code == 409 if send_photo else cutout == shown.content
    mask = load_image(_file(client, record["id"], "mask"))
    assert disc_share(mask[..., 0] > 0) > 0.95


TIDY = {"fill_holes": "true", "drop_islands": "true"}


def _spoilt(photo: Path, folder: Path) -> Path:
    """The photo with a small hole in its product, and a speck of the product's colour beside it."""
    spoilt = Image.open(photo).convert("RGB")
    draw = ImageDraw.Draw(spoilt)
    red, grey = spoilt.getpixel((400, 150)), spoilt.getpixel((5, 5))
    draw.ellipse((426, 146, 434, 154), fill=grey)
    draw.ellipse((93, 293, 107, 307), fill=red)
    spoilt.save(folder / "spoilt.png")
    return folder / "spoilt.png"


@pytest.mark.parametrize("fields", [{}, {"fill_holes": "true"}, {"drop_islands": "true"}, TIDY])
def test_a_capture_is_as_tidy_as_the_cutout_that_was_shown(
    client: TestClient, photos: Path, tmp_path: Path, fields: dict[str, str]
) -> None:
    asked = _asked(client, _spoilt(photos / "one.png", tmp_path), points=[[400, 120], [100, 300]])
    question = {"logits_id": asked["logits_id"]} | dict.fromkeys(fields, True)
    shown = client.post(f"/embeddings/{asked['embedding_id']}/cutout", json=question)
    record = send(client, "/captures", None, asked | fields).json()
    assert _file(client, record["id"], "cutout") == shown.content
    mask = load_image(_file(client, record["id"], "mask"))[..., 0] > 0
    assert mask[150, 430] == ("fill_holes" in fields), "the hole"
    assert mask[300, 100] == ("drop_islands" not in fields), "the speck"


def test_a_capture_that_the_service_finds_is_tidy_too(client: TestClient, photos: Path, tmp_path: Path) -> None:
    photo = _spoilt(photos / "one.png", tmp_path)
    record = send(client, "/captures", photo, {"points": "400,150"} | TIDY).json()
    shown = send(client, "/crop", photo, {"points": "400,150"} | TIDY)
    assert _file(client, record["id"], "cutout") == shown.content


def test_tidying_is_part_of_what_was_asked(client: TestClient, photos: Path) -> None:
    asked, headers = _asked(client, photos / "one.png"), {"Idempotency_Key": "tidy-1"}
    assert send(client, "/captures", None, asked | TIDY, **headers).status_code == 201
    again = send(client, "/captures", None, asked | TIDY, **headers)
    assert again.status_code == 200 and again.headers["Idempotent-Replayed"] == "true"
    assert code(send(client, "/captures", None, asked, **headers), 409) == "conflict"


def test_only_a_mask_of_the_model_is_tidied(client: TestClient, photos: Path) -> None:
    refused = send(client, "/captures", photos / "one.png", {"segment": "false"} | TIDY)
    assert code(refused, 422) == "invalid_field"


def test_the_box_of_the_question_limits_the_cutout_and_another_one_may_be_sent(
    client: TestClient, photos: Path
) -> None:
    asked = _asked(client, photos / "one.png", box=BOX, multimask=False)
    stored = send(client, "/captures", None, asked).json()
    same = send(client, "/captures", photos / "one.png", {"box": "310,60,490,240"}).json()
    for role in ("mask", "cutout"):
        assert stored["files"][role] == same["files"][role]
    half = send(client, "/captures", None, asked | {"limits": "310,60,400,240"}).json()
    assert half["facts"]["product_xyxy"][2] < stored["facts"]["product_xyxy"][2]


def test_a_repeat_is_the_same_capture_whether_or_not_the_photo_comes_along(client: TestClient, photos: Path) -> None:
    asked = _asked(client, photos / "one.png")
    first = send(client, "/captures", None, asked, Idempotency_Key="earlier-1")
    assert first.status_code == 201
    client.app.state.inference.cache.clear()  # as after a restart: nothing is known of that photo any more
    again = send(client, "/captures", None, asked, Idempotency_Key="earlier-1")
    resent = send(client, "/captures", photos / "one.png", asked, Idempotency_Key="earlier-1")
    for answer in (again, resent):
        assert answer.status_code == 200 and answer.headers["idempotent-replayed"] == "true"
        assert answer.json() == first.json()
    other = send(client, "/captures", None, asked | {"sku": "OTHER"}, Idempotency_Key="earlier-1")
    assert code(other, 409) == "conflict"


def test_what_is_gone_is_told_apart(client: TestClient, photos: Path) -> None:
    asked = _asked(client, photos / "one.png", keep=False)
    assert code(send(client, "/captures", None, asked), 409) == "photo_not_kept"
    assert code(send(client, "/captures", None, asked | {"logits_id": "0" * 32}), 422) == "invalid_prompt"
    assert code(send(client, "/captures", photos / "two.jpg", asked), 422) == "invalid_field"
    client.app.state.inference.cache.clear()
    assert code(send(client, "/captures", None, asked), 404) == "embedding_not_found"
    assert code(send(client, "/captures", photos / "one.png", asked), 404) == "embedding_not_found"


@pytest.mark.parametrize(
    "fields",
    [
        {"embedding_id": "a" * 64},
        {"logits_id": "a" * 32},
        {"limits": "1,2,3,4"},
        {"embedding_id": "a" * 64, "logits_id": "a" * 32, "points": "1,1"},
        {"embedding_id": "a" * 64, "logits_id": "a" * 32, "segment": "false"},
    ],
)
def test_fields_that_do_not_go_together(client: TestClient, photos: Path, fields: dict[str, str]) -> None:
    assert code(send(client, "/captures", photos / "one.png", fields), 422) == "invalid_field"


def test_a_mask_of_nothing_stores_the_photo_alone(client: TestClient, photos: Path) -> None:
    asked = _asked(client, photos / "one.png")
    empty = EarlierMask(np.full((1, 256, 256), -1, np.float32), 0.1)
    name = client.app.state.inference.cache.remember(asked["embedding_id"], empty)
    answer = send(client, "/captures", None, asked | {"logits_id": name})
    assert answer.status_code == 201
    record = answer.json()
    assert record["facts"]["reason"]["code"] == "nothing_found" and list(record["files"]) == ["original"]
