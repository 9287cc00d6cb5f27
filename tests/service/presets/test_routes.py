"""POST /crop with a preset, and GET /presets."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from boothsam.runtime.credits import Credits, read_credits
from boothsam.runtime.images import encode_image, load_image
from boothsam.service.presets.check import check
from boothsam.service.presets.preset import load_preset, preset_names
from PIL import Image
from starlette.testclient import TestClient

from tests.service.conftest import DISC_BOX
from tests.service.http_client import code, send, service

JSON = {"accept": "application/json"}


@pytest.fixture(scope="module")
def client(color_folder: Path) -> Iterator[TestClient]:
    with service(color_folder) as started:
        yield started


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_picture_passes_its_check(client: TestClient, photos: Path, name: str) -> None:
    answer = send(client, "/crop", photos / "one.png", {"box": DISC_BOX, "preset": name})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    assert check(answer.content, load_preset(name)).passed
    width, height = load_preset(name).make.size or (0, 0)
    assert load_image(answer.content).shape == (height, width, 3)


def test_json_tells_what_each_rule_found(client: TestClient, photos: Path) -> None:
    fields = {"box": DISC_BOX, "preset": "google", "size": "800"}
    answer = send(client, "/crop", photos / "one.png", fields, **JSON).json()
    (product,) = answer["products"]
    assert product["check"]["passed"] and product["check"]["preset"] == "google"
    assert product["check"]["fill"] == pytest.approx(0.84, abs=0.02)
    messages = [warning["message"] for warning in answer["warnings"]]
    assert sum("800x800" in message for message in messages) == 1  # chosen, and told once
    assert sum("enlarged" in message for message in messages) == 1
    assert check(base64.b64decode(product["picture_b64"]), load_preset("google")).passed
    plain = send(client, "/crop", photos / "one.png", {"box": DISC_BOX}, **JSON).json()["products"][0]
    assert plain["check"] is None


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"preset": "amazn"}, "preset is 'amazn'"),
        ({"preset": "../presets.toml"}, "preset is"),
        ({"preset": "amazon", "background": "grey"}, "exactly white"),
        ({"preset": "amazon", "format": "webp"}, "the format is webp"),
        ({"preset": "amazon", "size": "100"}, "500 pixels or more"),
        ({"preset": "amazon", "shadow": "drop"}, "shadow darkens"),
        ({"preset": "shopify", "size": "4473"}, "4472 pixels or fewer"),
    ],
)
def test_choices_against_a_rule(client: TestClient, photos: Path, fields: dict[str, str], told: str) -> None:
    answer = send(client, "/crop", photos / "one.png", {"box": DISC_BOX} | fields)
    assert code(answer, 422) == "invalid_field"
    assert told in answer.json()["detail"]


def test_a_picture_behind_where_only_white_may_be(client: TestClient, photos: Path) -> None:
    behind = encode_image(np.full((50, 50, 3), 255, np.uint8), "png")
    files = {"image_file": (photos / "one.png").read_bytes(), "background_file": behind}
    answer = client.post("/crop", data={"preset": "amazon"}, files=files)
    assert answer.status_code == 422 and "the background is a picture" in answer.json()["detail"]
    answer = client.post("/crop", data={"preset": "ebay"}, files=files)
    assert answer.status_code == 200, answer.text
    assert load_image(answer.content).shape == (1600, 1600, 3)


def test_a_product_as_white_as_its_canvas(client: TestClient, tmp_path: Path) -> None:
    image = np.full((400, 600, 3), 255, np.uint8)
    Image.fromarray(image).save(tmp_path / "white.png")
    answer = send(client, "/crop", tmp_path / "white.png", {"box": DISC_BOX, "preset": "amazon"})
    assert code(answer, 422) in ("preset_failed", "nothing_found")


def test_credits_stay(client: TestClient, photos: Path) -> None:
    exif = Image.Exif()
    exif[0x013B], exif[0x8298] = "Ann", "Ann 2026"
    exif.get_ifd(0x8825)[1] = "N"
    buffer = io.BytesIO()
    with Image.open(photos / "one.png") as picture:
        picture.save(buffer, "JPEG", exif=exif, quality=95)
    for fields in ({}, {"preset": "amazon"}, {"format": "webp"}):
        answer = client.post("/crop", data={"box": DISC_BOX} | fields, files={"image_file": buffer.getvalue()})
        assert answer.status_code == 200, answer.text
        assert read_credits(answer.content) == Credits("Ann", "Ann 2026")
    for kind in ("png", "jpg", "webp"):
        files = {"image_file": buffer.getvalue()}
        answer = client.post("/v1.0/removebg", data={"format": kind, "bg_color": "ffffff"}, files=files)
        assert answer.status_code == 200, answer.text
        assert read_credits(answer.content) == Credits("Ann", "Ann 2026")


def test_a_cut_out_of_an_earlier_mask_is_the_crop_with_a_preset_and_credits(client: TestClient, photos: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Ann"
    buffer = io.BytesIO()
    with Image.open(photos / "one.png") as picture:
        picture.save(buffer, "JPEG", exif=exif, quality=95)
    files, numbers = {"image_file": buffer.getvalue()}, [float(number) for number in DISC_BOX.split(",")]
    name = client.post("/embeddings", data={"keep": "true"}, files=files).json()["id"]
    asked = client.post(f"/embeddings/{name}/segment", json={"box": numbers, "multimask": False}).json()
    question = {"logits_id": asked["masks"][0]["logits_id"], "preset": "google"}
    made = client.post(f"/embeddings/{name}/cutout", json=question)
    assert made.status_code == 200, made.text
    assert made.content == client.post("/crop", data={"box": DISC_BOX, "preset": "google"}, files=files).content
    assert read_credits(made.content).artist == "Ann" and check(made.content, load_preset("google")).passed


def test_every_preset_is_listed_with_its_sources(client: TestClient) -> None:
    answer = client.get("/presets")
    assert answer.status_code == 200 and client.head("/presets").status_code == 200
    presets = {preset["name"]: preset for preset in answer.json()["presets"]}
    assert tuple(presets) == preset_names()
    assert presets["amazon"]["make"]["size"] == [2000, 2000]
    assert all(rule["source"] and rule["checked"] and rule["wanted"] for p in presets.values() for rule in p["rules"])
    assert [rule["since"] for rule in presets["google"]["rules"] if rule["since"]] == ["2027-01-31"]
