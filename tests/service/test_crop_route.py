"""POST /crop on the colour model, whose masks are exact."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import encode_image, load_image
from boothsam.runtime.masks import rle_area, rle_to_mask
from boothsam.service.cropping import Look
from boothsam.service.products import json_with_base64
from boothsam.service.routes.common import wants_json
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient

from tests.service.conftest import DISC, DISC_BOX, RED
from tests.service.http_client import code, send, service

AREA = np.pi * DISC[1] ** 2
JSON = {"accept": "application/json"}


@pytest.fixture(scope="module")
def client(color_folder: Path) -> Iterator[TestClient]:
    with service(color_folder) as started:
        yield started


def test_a_box_gives_the_transparent_product(client: TestClient, photos: Path) -> None:
    answer = send(client, "/crop", photos / "one.png", {"box": DISC_BOX})
    assert answer.status_code == 200, answer.text
    picture = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert answer.headers["content-type"] == "image/png"
    assert picture.shape[2] == 4
    assert abs(picture.shape[0] - 160) <= 4 and abs(picture.shape[1] - 160) <= 4
    middle = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    assert np.abs(middle.astype(int) - [*RED, 255]).max() <= 3
    assert picture[0, 0, 3] == 0
    left, top = int(answer.headers["x-foreground-left"]), int(answer.headers["x-foreground-top"])
    assert abs(left - 320) <= 3 and abs(top - 70) <= 3
    assert abs(int(answer.headers["x-foreground-width"]) - 160) <= 4
    assert abs(int(answer.headers["x-foreground-height"]) - 160) <= 4
    assert 0 < float(answer.headers["x-mask-score"]) <= 1
    stages = [entry.split(";")[0] for entry in answer.headers["server-timing"].split(", ")]
    assert stages == ["decode", "embed", "mask", "matte", "encode"]
    again = send(client, "/crop", photos / "one.png", {"box": DISC_BOX})
    assert again.headers["etag"] == answer.headers["etag"] != ""
    assert again.content == answer.content


def test_points_with_labels_and_auto_find_the_same_product(client: TestClient, photos: Path) -> None:
    expected = send(client, "/crop", photos / "one.png", {"box": DISC_BOX}).headers
    for fields in (
        {"points": ["400,150", "20,20"], "labels": ["1", "0"]},
        {"points": "400,150;20,20", "labels": "1,0"},
        {},
    ):
        answer = send(client, "/crop", photos / "one.png", fields)
        assert answer.status_code == 200, answer.text
        for name in ("top", "left", "width", "height"):
            assert abs(int(answer.headers[f"x-foreground-{name}"]) - int(expected[f"x-foreground-{name}"])) <= 3


def test_canvas_background_and_format(client: TestClient, photos: Path) -> None:
    fields = {"box": DISC_BOX, "background": "#102030", "size": "300", "fill": "0.5", "format": "jpg", "quality": "95"}
    answer = send(client, "/crop", photos / "one.png", fields)
    picture = load_image(answer.content)
    assert answer.headers["content-type"] == "image/jpeg"
    assert picture.shape == (300, 300, 3)
    assert np.abs(picture[0, 0].astype(int) - [0x10, 0x20, 0x30]).max() <= 2
    wide = (np.abs(picture.astype(int) - [0x10, 0x20, 0x30]).max(2) > 60).any(0)
    assert abs(int(wide.sum()) - 150) <= 3


def test_a_picture_as_background_and_a_shadow(client: TestClient, photos: Path) -> None:
    backdrop = encode_image(np.full((200, 400, 3), (0, 90, 0), np.uint8), "png")
    plain, shaded = (
        load_image(
            client.post(
                "/crop",
                files=[
                    ("image_file", ("a.png", (photos / "one.png").read_bytes())),
                    ("background_file", ("b.png", backdrop)),
                    ("box", (None, DISC_BOX)),
                    ("fill", (None, "0.6")),
                    ("shadow", (None, shadow)),
                ],
            ).content
        )
        for shadow in ("none", "drop")
    )
    assert plain.shape == shaded.shape == (200, 400, 3)
    assert (plain[2, 2] == (0, 90, 0)).all() and (shaded[2, 2] == (0, 90, 0)).all()
    assert np.abs(shaded[100, 200].astype(int) - plain[100, 200]).max() <= 1
    under = (163, 200)  # just below the product
    assert (plain[under] == (0, 90, 0)).all()
    assert 40 < shaded[under][1] < 85


def test_json_tells_everything(client: TestClient, photos: Path) -> None:
    answer = send(client, "/crop", photos / "one.png", {"box": DISC_BOX}, **JSON)
    body = answer.json()
    (product,) = body["products"]
    mask = rle_to_mask(product["rle"])
    assert mask.shape == tuple(body["size_hw"]) == (400, 600)
    assert abs(rle_area(product["rle"]) / AREA - 1) < 0.03
    assert mask[150, 400] and not mask[150, 310]
    picture = send(client, "/crop", photos / "one.png", {"box": DISC_BOX}).content
    assert base64.b64decode(product["picture_b64"]) == picture
    assert product["retake"]["retake"] is False, product["retake"]
    assert body["model"] == "color" and body["backend"] == "ort-cpu" and body["precision"] == "fp32"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert set(body["ms"]) == {"decode", "embed", "mask", "matte", "encode"}


def test_two_products_need_json(client: TestClient, photos: Path) -> None:
    boxes = "[[310,60,490,240],[60,60,240,240]]"
    assert code(send(client, "/crop", photos / "two.jpg", {"boxes": boxes}), 422) == "invalid_prompt"
    body = send(client, "/crop", photos / "two.jpg", {"boxes": boxes}, **JSON).json()
    lefts = [product["product_xyxy"][0] for product in body["products"]]
    assert abs(lefts[0] - 320) <= 3 and abs(lefts[1] - 70) <= 3


def test_auto_says_when_the_choice_is_ambiguous(client: TestClient, photos: Path) -> None:
    body = send(client, "/crop", photos / "two.jpg", {}, **JSON).json()
    (product,) = body["products"]
    assert product["ambiguous"] and len(product["rivals_xyxy"]) == 1
    assert 0 < product["agreement"] <= 1
    assert "ambiguous" in body["warnings"][0]["message"]


def test_a_product_cut_by_the_border_asks_for_a_retake(client: TestClient) -> None:
    photo = np.full((400, 600, 3), 200, np.uint8)
    photo[100:300, :200] = RED
    body = send(
        client, "/crop", encode_image(photo, "png"), {"points": "100,200;500,200", "labels": "1,0"}, **JSON
    ).json()
    verdict = body["products"][0]["retake"]
    assert verdict["retake"] and "touches_border" in [reason["code"] for reason in verdict["reasons"]]


@pytest.mark.parametrize(
    ("fields", "status", "expected"),
    [
        ({"box": "1,2,3"}, 422, "invalid_prompt"),
        ({"box": "9,9,3,3"}, 422, "invalid_prompt"),
        ({"box": "5000,5000,6000,6000"}, 422, "invalid_prompt"),
        ({"points": "nan,3"}, 422, "invalid_prompt"),
        ({"points": "9999,3"}, 422, "invalid_prompt"),
        ({"points": "3,3", "labels": "1,1"}, 422, "invalid_prompt"),
        ({"points": "3,3", "labels": "0"}, 422, "invalid_prompt"),
        ({"boxes": "{"}, 422, "invalid_prompt"),
        ({"boxes": "[[1,2,3,true]]"}, 422, "invalid_prompt"),
        ({"boxes": "[" * 5000}, 422, "invalid_prompt"),
        ({"fill": "2"}, 422, "invalid_field"),
        ({"fill": "0"}, 422, "invalid_field"),
        ({"fill": "0.00001", "box": DISC_BOX}, 422, "invalid_field"),
        ({"size": "16384"}, 422, "invalid_field"),
        ({"size": "1e3"}, 422, "invalid_field"),
        ({"quality": "101"}, 422, "invalid_field"),
        ({"format": "tiff"}, 422, "invalid_field"),
        ({"background": "mauve-ish"}, 422, "invalid_field"),
        ({"format": "jpg"}, 422, "invalid_field"),
        ({"shadow": "long"}, 422, "invalid_field"),
        ({"fill_holes": "maybe"}, 422, "invalid_field"),
        ({"box": "0,0,1e39,1e39"}, 422, "invalid_prompt"),
        ({"points": "-1000001,3"}, 422, "invalid_prompt"),
        ({"fill": "1e-320", "box": DISC_BOX}, 422, "invalid_field"),
        ({"format": ["png", "webp"], "box": DISC_BOX}, 422, "invalid_field"),
        ({"boks": "1,2,3,4"}, 422, "unknown_field"),
        ({"image_url": "http://127.0.0.1/"}, 422, "unknown_field"),
    ],
)
def test_fields_are_refused_by_name(
    client: TestClient, photos: Path, fields: dict[str, Any], status: int, expected: str
) -> None:
    assert code(send(client, "/crop", photos / "one.png", fields), status) == expected


def test_uploads_that_are_no_photo(client: TestClient, photos: Path) -> None:
    assert code(send(client, "/crop", None, {"box": DISC_BOX}), 400) == "missing_image"
    assert code(send(client, "/crop", b"", {}), 400) == "missing_image"
    assert code(send(client, "/crop", b"GIF89a" + bytes(50), {}), 415) == "unsupported_media"
    assert code(send(client, "/crop", (photos / "one.png").read_bytes()[:300], {}), 422) == "broken_image"
    assert code(client.post("/crop", content=b"x", headers={"content-type": "image/jpeg"}), 415) == "unsupported_media"
    malformed = {"content-type": "multipart/form-data; boundary=x"}
    assert code(client.post("/crop", content=b"no boundary at all", headers=malformed), 400) == "bad_request"
    texts = [("image_file", (None, "hello"))]
    assert code(client.post("/crop", files=texts), 422) == "invalid_field"


def test_no_product_is_a_refusal_with_a_hint_in_this_interfaces_words(client: TestClient, photos: Path) -> None:
    answer = send(client, "/crop", photos / "empty.png", {})
    assert code(answer, 422) == "nothing_found"
    assert "--" not in answer.json()["hint"] and "box" in answer.json()["hint"]


def test_too_many_parts(client: TestClient, photos: Path) -> None:
    answer = send(client, "/crop", photos / "one.png", {"points": ["1,1"] * 40})
    assert code(answer, 400) == "bad_request"


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("", False),
        ("*/*", False),
        ("image/png", False),
        ("application/json", True),
        ("application/json, text/plain, */*", True),
        ("application/json, image/png", True),
        ("image/png, application/json", False),
        ("image/png;q=0.1, application/json", True),
        ("application/json;q=0.5, image/webp;q=0.9", False),
        ("application/json;q=0, image/png", False),
        ("application/json;q=0", False),
        ("image/png;q=0, application/json;q=0.1", True),
        ("Application/JSON ; Q=1.000", True),
        ("application/json;q=much", True),
    ],
)
def test_the_answers_form_is_negotiated(accept: str, is_json: bool) -> None:
    scope = {"type": "http", "headers": [(b"accept", accept.encode())]}
    assert wants_json(Request(scope)) is is_json


def test_a_fill_of_next_to_nothing_allocates_nothing_to_find_that_out() -> None:
    tracemalloc.start()
    try:
        Look("png", "white", fill=1 / 16000)  # a canvas of one product pixel would have 16000 a side
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 3 << 20, (3 << 20) + 1, (6 << 20) - 1])
def test_base64_is_joined_without_a_seam(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    found = json.loads(json_with_base64("picture_b64", data[:size], {"a": [1, "\u00e9"]}))
    assert base64.b64decode(found.pop("picture_b64"), validate=True) == data[:size] and found == {"a": [1, "\u00e9"]}
