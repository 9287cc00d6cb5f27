"""/captures over HTTP, with the colour model, a real store and a real decoder."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import encode_image, load_image
from starlette.testclient import TestClient

from tests.service.captures.receiver import receiver
from tests.service.conftest import DISC, DISC_BOX
from tests.service.http_client import code, send, service

GTIN = "4006381333931"


@pytest.fixture(scope="module")
def client(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that keeps captures; shared, so tests look only at what they sent."""
    with service(color_folder, captures_dir=tmp_path_factory.mktemp("kept"), min_free_bytes=0) as client:
        yield client


def add(client: TestClient, photo: Any, fields: Any = None, *, key: str = "", mask: bytes | None = None) -> Any:
    headers = {"Idempotency_Key": key} if key else {}
    if mask is None:
        return send(client, "/captures", photo, fields, **headers)
    files: list[tuple[str, Any]] = [("image_file", ("a", photo.read_bytes())), ("mask_file", ("b", mask))]
    files += [(name, (None, text)) for name, text in (fields or {}).items()]
    return client.post("/captures", files=files)


def disc_share(mask: np.ndarray[Any, Any]) -> float:
    """IoU of a mask with the drawn disc."""
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    disc = (columns - DISC[0][0]) ** 2 + (rows - DISC[0][1]) ** 2 <= DISC[1] ** 2
    return float((mask & disc).sum() / (mask | disc).sum())


@pytest.mark.parametrize(
    "prompt", [{"box": DISC_BOX}, {"points": "400,150"}, {"points": ["400,150", "20,20"], "labels": "1,0"}, {}]
)
def test_a_photo_is_stored_with_mask_cutout_and_facts(client: TestClient, photos: Path, prompt: Any) -> None:
    photo = (photos / "one.png").read_bytes()
    answer = add(client, photo, prompt | {"sku": "MUG-7", "gtin": "4 006381 333931", "angle": "front"})
    assert answer.status_code == 201, answer.text
    record = answer.json()
    facts = record["facts"]
    assert (facts["sku"], facts["gtin"], facts["angle"]) == ("MUG-7", GTIN, "front")
    assert facts["made_by"] == "model" and facts["size_hw"] == [400, 600]
    assert (facts["model"], facts["precision"], facts["backend"]) == ("color", "fp32", "ort-cpu")
    assert 0 < facts["predicted_iou"] <= 1 and facts["retake"]["retake"] in (True, False)
    assert answer.headers["location"] == f"/captures/{record['id']}"
    assert "store;dur=" in answer.headers["server-timing"]
    files = {role: client.get(f"/captures/{record['id']}/{role}") for role in ("original", "mask", "cutout")}
    for role, file in files.items():
        assert file.status_code == 200
        digest = hashlib.sha256(file.content).hexdigest()
        assert digest == record["files"][role]["sha256"] and file.headers["etag"] == f'"{digest}"'
        assert file.headers["content-type"] == "image/png"
    assert files["original"].content == photo
    mask = load_image(files["mask"].content)
    assert mask.shape == (400, 600, 3) and set(np.unique(mask)) == {0, 255}
    assert disc_share(mask[..., 0] == 255) > 0.95
    assert client.get(answer.headers["location"]).json() == record


def test_a_mask_made_by_the_client(client: TestClient, photos: Path) -> None:
    drawn = np.zeros((400, 600), np.bool_)
    drawn[100:200, 350:450] = True
    answer = add(client, photos / "one.png", {"sku": "own"}, mask=encode_image(drawn, "png"))
    record = answer.json()
    assert answer.status_code == 201 and record["facts"]["made_by"] == "client"
    stored = load_image(client.get(f"/captures/{record['id']}/mask").content)[..., 0] == 255
    assert (stored == drawn).all()
    assert "cutout" in record["files"]
    small = encode_image(drawn[:200], "png")
    assert code(add(client, photos / "one.png", mask=small), 422) == "invalid_field"
    empty = encode_image(drawn & False, "png")
    assert code(add(client, photos / "one.png", mask=empty), 422) == "nothing_found"
    assert code(add(client, photos / "one.png", {"box": DISC_BOX}, mask=small), 422) == "invalid_field"
    assert code(add(client, photos / "one.png", mask=b"GIF89a" + bytes(50)), 415) == "unsupported_media"


def test_no_product_is_no_reason_to_lose_the_photo(client: TestClient, photos: Path) -> None:
    answer = add(client, photos / "empty.png", {"sku": "nothing"})
    record = answer.json()
    assert answer.status_code == 201
    assert record["facts"]["made_by"] == "none" and record["facts"]["reason"]["code"] == "nothing_found"
    assert set(record["files"]) == {"original"}
    assert code(client.get(f"/captures/{record['id']}/mask"), 404) == "not_found"


def test_a_model_that_is_not_ready_is_no_reason_either(client: TestClient, photos: Path) -> None:
    inference = client.app.state.inference  # type: ignore[attr-defined]
    inference.state, before = "failed", inference.state
    try:
        answer = add(client, photos / "one.png", {"box": DISC_BOX})
    finally:
        inference.state = before
    assert answer.status_code == 201 and answer.json()["facts"]["reason"]["code"] == "not_ready"


def test_the_photo_alone(client: TestClient, photos: Path) -> None:
    answer = add(client, photos / "one.png", {"segment": "false"})
    assert answer.status_code == 201 and set(answer.json()["files"]) == {"original"}
    assert code(add(client, photos / "one.png", {"segment": "false", "box": DISC_BOX}), 422) == "invalid_field"


def test_the_same_key_twice_is_one_capture(client: TestClient, photos: Path) -> None:
    first = add(client, photos / "one.png", {"box": DISC_BOX}, key="shot-1")
    again = add(client, photos / "one.png", {"box": DISC_BOX}, key="shot-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json() and again.headers["idempotent-replayed"] == "true"
    assert code(add(client, photos / "two.jpg", {"box": DISC_BOX}, key="shot-1"), 409) == "conflict"
    assert code(add(client, photos / "one.png", {"box": DISC_BOX, "sku": "other"}, key="shot-1"), 409) == "conflict"
    assert code(add(client, photos / "one.png", key="with space"), 422) == "invalid_field"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"gtin": "4006381333932"}, "invalid_gtin"),
        ({"gtin": "MUG"}, "invalid_gtin"),
        ({"sku": "x" * 65}, "invalid_field"),
        ({"angle": "a\tb"}, "invalid_field"),
        ({"segment": "maybe"}, "invalid_field"),
        ({"colour": "red"}, "unknown_field"),
        ({"boxes": "[]"}, "unknown_field"),
        ({"box": "1,2,3"}, "invalid_prompt"),
        ({"box": ["1,2,30,40", "5,6,70,80"]}, "invalid_prompt"),
        ({"box": "900,900,950,950"}, "invalid_prompt"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_stored(
    client: TestClient, photos: Path, fields: Any, expected: str
) -> None:
    before = client.get("/captures").json()["total"]["captures"]
    assert code(add(client, photos / "one.png", fields), 422) == expected
    assert client.get("/captures").json()["total"]["captures"] == before


def test_what_is_no_photo_is_refused(client: TestClient, photos: Path) -> None:
    assert code(add(client, b"GIF89a" + bytes(60)), 415) == "unsupported_media"
    assert code(add(client, (photos / "one.png").read_bytes()[:300]), 422) == "broken_image"
    assert code(send(client, "/captures", None, {"sku": "a"}), 400) == "missing_image"


def test_listing_pages_and_filters(client: TestClient, photos: Path) -> None:
    ids = [add(client, photos / "one.png", {"sku": "listed", "segment": "false"}).json()["id"] for _ in range(5)]
    seen, after = [], 0
    while True:
        page = client.get("/captures", params={"sku": "listed", "limit": 2, "after": after}).json()
        seen += [capture["id"] for capture in page["captures"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == ids
    newest = client.get("/captures", params={"sku": "listed", "limit": 2, "before": 2**61}).json()
    assert [capture["id"] for capture in newest["captures"]] == [ids[4], ids[3]]
    for params in ({"limit": 0}, {"limit": 501}, {"after": -1}, {"before": 2**70}, {"limit": "x"}):
        assert code(client.get("/captures", params=params), 422) == "invalid_field"


def test_a_file_that_the_client_has_is_not_sent_again(client: TestClient, photos: Path) -> None:
    record = add(client, photos / "one.png", {"segment": "false"}).json()
    path = f"/captures/{record['id']}/original"
    etag = client.get(path).headers["etag"]
    again = client.get(path, headers={"If-None-Match": etag})
    assert again.status_code == 304 and not again.content


def test_deleting(client: TestClient, photos: Path) -> None:
    location = add(client, photos / "two.jpg", {"segment": "false"}).headers["location"]
    assert client.delete(location).status_code == 204
    assert code(client.get(location), 404) == "not_found"
    assert code(client.get(f"{location}/original"), 404) == "not_found"
    assert code(client.delete(location), 404) == "not_found"


@pytest.mark.parametrize("id", ["nobody", "..%2f..%2fetc%2fpasswd", "%00", "a" * 5000])
def test_ids_are_looked_up_and_never_opened(client: TestClient, id: str) -> None:
    assert code(client.get(f"/captures/{id}"), 404) == "not_found"
    assert client.get(f"/captures/{id}/original").status_code == 404


def test_exports(client: TestClient, photos: Path) -> None:
    record = add(client, photos / "one.png", {"box": DISC_BOX, "sku": "exported"}).json()
    parameters = {"sku": "exported"}
    answer = client.get("/captures/export", params=parameters)
    assert answer.headers["content-disposition"] == 'attachment; filename="captures.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        (name,) = [name for name in archive.namelist() if name.startswith("original/")]
        assert archive.read(name) == (photos / "one.png").read_bytes()
    rows = list(csv.DictReader(io.StringIO(client.get("/captures/export", params=parameters | {"format": "csv"}).text)))
    assert [row["id"] for row in rows] == [record["id"]]
    coco = client.get("/captures/export", params=parameters | {"format": "coco"})
    with zipfile.ZipFile(io.BytesIO(coco.content)) as archive:
        assert len(json.loads(archive.read("annotations.json"))["annotations"]) == 1
    assert code(client.get("/captures/export", params={"format": "tar"}), 422) == "invalid_field"


def test_a_disk_without_room_gives_507(client: TestClient, photos: Path) -> None:
    store = client.app.state.captures  # type: ignore[attr-defined]
    store.min_free_bytes, before = 1 << 60, store.min_free_bytes
    try:
        refused = add(client, photos / "one.png", {"box": DISC_BOX})
        listed = client.get("/captures")
    finally:
        store.min_free_bytes = before
    assert code(refused, 507) == "disk_low"
    assert listed.status_code == 200 and listed.json()["total"]["room_bytes"] == 0


def test_without_a_folder_there_are_no_captures(color_folder: Path, photos: Path) -> None:
    with service(color_folder, prove=False) as client:
        assert code(client.get("/captures"), 404) == "not_found"


def test_captures_outlive_the_service(color_folder: Path, photos: Path, tmp_path: Path) -> None:
    with service(color_folder, captures_dir=tmp_path, min_free_bytes=0, prove=False) as client:
        record = add(client, photos / "one.png", {"segment": "false"}, key="k").json()
    with service(color_folder, captures_dir=tmp_path, min_free_bytes=0, prove=False) as client:
        assert client.get(f"/captures/{record['id']}").json() == record
        again = add(client, photos / "one.png", {"segment": "false"}, key="k")
        assert again.status_code == 200 and again.json() == record


def test_the_service_forwards_what_it_stores(color_folder: Path, photos: Path, tmp_path: Path) -> None:
    with receiver() as remote:
        given = {"captures_dir": tmp_path, "min_free_bytes": 0, "prove": False, "forward_url": remote.url}
        with service(color_folder, **given) as client:
            remote.answer = lambda _sku, number: 200 if number > 1 else "hang"
            record = add(client, photos / "one.png", {"segment": "false", "sku": "a"}).json()
            assert code(client.delete(f"/captures/{record['id']}"), 409) == "not_forwarded"
        remote.released.set()  # the attempt was broken off by the end of the service
        with service(color_folder, **given) as client:
            _until(lambda: client.get("/captures").json()["total"]["pending"] == 0)
            assert client.delete(f"/captures/{record['id']}").status_code == 204
        assert remote.kept == {record["id"]: "a"}


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_openapi_describes_the_form(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    form = schema["paths"]["/captures"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {
        "image_file", "mask_file", "sku", "gtin", "angle", "segment", "box", "points", "labels",
        "embedding_id", "logits_id", "limits", "fill_holes", "drop_islands",
    }  # fmt: skip
