"""/annotations over HTTP, with the colour model and a real decoder."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import load_image
from boothsam.runtime.masks import mask_to_rle, rle_to_mask
from boothsam.service.annotations.store import AnnotationStore
from boothsam.service.app import create_app
from boothsam.service.problems import problem
from PIL import Image
from pycocotools import mask as coco_masks
from starlette.testclient import TestClient

from tests.service.annotations.conftest import SIZE, draw_photo, rectangle, sha256
from tests.service.http_client import code, service, settings

# pycocotools with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

CENTRES = {"photo-1.png": [150, 150], "photo-2.jpg": [250, 150], "photo-10.jpg": [350, 150]}


def listed(client: TestClient) -> dict[str, Any]:
    return {photo["name"]: photo for photo in client.get("/annotations").json()["photos"]}


def key(client: TestClient, name: str) -> str:
    return str(listed(client)[name]["key"])


def embed(client: TestClient, name: str) -> Any:
    answer = client.post(f"/annotations/photos/{key(client, name)}/embedding")
    assert answer.status_code == 200, answer.text
    return answer.json()


def tap(client: TestClient, name: str) -> tuple[Any, Any]:
    """The embedding's answer and the best mask under a tap on the disc."""
    made = embed(client, name)
    answer = client.post(f"/embeddings/{made['id']}/segment", json={"points": [CENTRES[name]]}).json()
    return made, answer["masks"][answer["best"]]


def put(client: TestClient, name: str, body: Any) -> Any:
    return client.put(f"/annotations/photos/{key(client, name)}", json=body)


def test_from_tap_to_dataset(client: TestClient, folder: Path) -> None:
    first = client.get("/annotations").json()
    assert [photo["name"] for photo in first["photos"]] == list(CENTRES) and first["folder"] == "photos"
    assert first["resume"] == first["photos"][0]["key"] and first["progress"]["open"] == 3 and first["next"] is None
    made, mask = tap(client, "photo-1.png")
    assert made["photo_sha256"] == sha256(folder / "photo-1.png") and made["size_hw"] == [400, 600]
    new = {"category_id": 1, "embedding_id": made["id"], "logits_id": mask["logits_id"]}
    answer = put(client, "photo-1.png", {"photo_sha256": made["photo_sha256"], "objects": [new]})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "done" and body["progress"]["done"] == 1 and body["size_hw"] == [400, 600]
    (saved,) = body["objects"]
    expected = rle_to_mask(mask["rle"])
    assert (coco_masks.decode(saved["segmentation"]) == expected).all()
    assert (load_image(folder / "annotations" / "masks" / saved["file"])[..., 0] == expected * 255).all()
    assert saved["score"] == pytest.approx(mask["iou_prediction"], abs=1e-4) and saved["area"] == mask["area"]
    assert client.get(f"/annotations/photos/{body['key']}").json() == body
    assert client.get("/annotations").json()["resume"] == first["photos"][1]["key"]
    dataset = client.get("/annotations/export")
    assert dataset.headers["x-left-out"] == "2" and "annotations.json" in dataset.headers["content-disposition"]
    (annotation,) = dataset.json()["annotations"]
    assert (coco_masks.decode(annotation["segmentation"]) == expected).all()
    zipped = client.get("/annotations/export", params={"format": "zip", "polygons": "true"})
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        assert archive.read("images/photo-1.png") == (folder / "photo-1.png").read_bytes()
        assert isinstance(json.loads(archive.read("annotations.json"))["annotations"][0]["segmentation"], list)


def test_run_lengths_kept_objects_and_skipping(client: TestClient, folder: Path) -> None:
    digest = sha256(folder / "photo-2.jpg")
    rle = mask_to_rle(rectangle(10, 20, 110, 70))
    sent = {"photo_sha256": digest, "objects": [{"category_id": 1, "segmentation": rle, "score": 0.5}], "done": False}
    body = put(client, "photo-2.jpg", sent).json()
    assert body["status"] == "started" and body["objects"][0]["bbox"] == [10, 20, 100, 50]
    packed = body["objects"][0]["segmentation"]
    two = [{"category_id": 1, "id": 1}, {"category_id": 1, "segmentation": packed}]
    body = put(client, "photo-2.jpg", {"photo_sha256": digest, "objects": two}).json()
    assert [found["id"] for found in body["objects"]] == [1, 2] and body["status"] == "done"
    assert body["objects"][1]["sha256"] == body["objects"][0]["sha256"] and body["objects"][1]["score"] is None
    skipped = client.put(f"/annotations/photos/{body['key']}/skip").json()
    assert skipped["status"] == "skipped" and len(skipped["objects"]) == 2
    assert client.get("/annotations/export").json()["images"] == []
    none = put(client, "photo-2.jpg", {"photo_sha256": digest, "objects": [], "done": False}).json()
    assert none["status"] == "open" and not none["objects"]
    again = put(client, "photo-10.jpg", {"photo_sha256": sha256(folder / "photo-10.jpg")}).json()
    assert again["status"] == "done" and again["size_hw"] == [400, 600]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([{"category_id": 9, "segmentation": mask_to_rle(rectangle(1, 1, 9, 9))}], "invalid_field"),
        ([{"category_id": 1, "segmentation": mask_to_rle(rectangle(1, 1, 9, 9, (40, 60)))}], "invalid_field"),
        ([{"category_id": 1, "segmentation": mask_to_rle(rectangle(1, 1, 1, 1))}], "nothing_found"),
        ([{"category_id": 1, "segmentation": {"size": SIZE, "counts": "~"}}], "invalid_field"),
        ([{"category_id": 1, "segmentation": {"size": SIZE, "counts": [1]}}], "invalid_field"),
        ([{"category_id": 1}], "invalid_field"),
        ([{"category_id": 1, "id": 1, "logits_id": "a", "embedding_id": "b"}], "invalid_field"),
        ([{"category_id": 1, "logits_id": "a"}], "invalid_field"),
        ([{"category_id": 1, "id": 4}], "invalid_field"),
        ([{"category_id": 1, "id": 1, "colour": "red"}], "unknown_field"),
    ],
)
def test_mistakes_are_refused(client: TestClient, folder: Path, objects: Any, expected: str) -> None:
    answer = put(client, "photo-1.png", {"photo_sha256": sha256(folder / "photo-1.png"), "objects": objects})
    assert code(answer, 422) == expected
    assert listed(client)["photo-1.png"]["status"] == "open"


def test_masks_of_another_photo_are_refused(client: TestClient, folder: Path) -> None:
    made, mask = tap(client, "photo-1.png")
    new = {"category_id": 1, "embedding_id": made["id"], "logits_id": mask["logits_id"]}
    other = put(client, "photo-2.jpg", {"photo_sha256": sha256(folder / "photo-2.jpg"), "objects": [new]})
    assert code(other, 409) == "photo_changed"
    wrong = put(client, "photo-2.jpg", {"photo_sha256": made["photo_sha256"], "objects": [new]})
    assert code(wrong, 409) == "photo_changed"
    gone = put(
        client, "photo-1.png", {"photo_sha256": made["photo_sha256"], "objects": [new | {"logits_id": "f" * 32}]}
    )
    assert code(gone, 422) == "invalid_prompt"
    draw_photo(folder / "photo-1.png", (60, 60), 30)
    replaced = put(client, "photo-1.png", {"photo_sha256": made["photo_sha256"], "objects": [new]})
    assert code(replaced, 409) == "photo_changed"
    assert embed(client, "photo-1.png")["id"] != made["id"]


def test_a_replaced_photo_is_listed_as_changed(client: TestClient, folder: Path) -> None:
    put(client, "photo-1.png", {"photo_sha256": sha256(folder / "photo-1.png")})
    assert listed(client)["photo-1.png"]["status"] == "done"
    draw_photo(folder / "photo-1.png", (60, 60), 30)
    assert listed(client)["photo-1.png"]["status"] == "changed"
    assert client.get("/annotations").json()["resume"] == key(client, "photo-1.png")


def test_the_image_as_it_lies_there(client: TestClient, folder: Path) -> None:
    path = f"/annotations/photos/{key(client, 'photo-2.jpg')}/image"
    answer = client.get(path)
    assert answer.content == (folder / "photo-2.jpg").read_bytes()
    assert answer.headers["content-type"] == "image/jpeg" and answer.headers["x-content-type-options"] == "nosniff"
    assert client.get(path, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    draw_photo(folder / "photo-2.jpg", (60, 60), 30)
    assert client.get(path, headers={"if-none-match": answer.headers["etag"]}).status_code == 200
    (folder / "photo-2.jpg").unlink()
    assert code(client.get(path), 404) == "not_found"


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "photo-1.png", "%00", "a" * 300, "0" * 32])
def test_only_listed_photos_are_there(client: TestClient, name: str) -> None:
    assert code(client.get(f"/annotations/photos/{name}/image"), 404) == "not_found"
    assert code(client.post(f"/annotations/photos/{name}/embedding"), 404) == "not_found"
    assert code(client.put(f"/annotations/photos/{name}/skip"), 404) == "not_found"


def test_broken_photos_are_told_and_passed_over(client: TestClient, folder: Path) -> None:
    whole = (folder / "photo-1.png").read_bytes()
    (folder / "photo-1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "photo-2.jpg").write_text("no photo")
    found = listed(client)
    assert (found["photo-1.png"]["status"], found["photo-2.jpg"]["status"]) == ("open", "broken")
    answer = client.post(f"/annotations/photos/{found['photo-1.png']['key']}/embedding")
    assert code(answer, 422) == "broken_image"
    again = client.get("/annotations").json()
    assert again["photos"][0]["status"] == "broken" and again["photos"][0]["trouble"]
    assert again["progress"]["broken"] == 2 and again["resume"] == again["photos"][2]["key"]
    assert code(client.get(f"/annotations/photos/{again['photos'][1]['key']}/image"), 422) == "broken_image"
    (folder / "photo-1.png").write_bytes(whole)
    assert listed(client)["photo-1.png"]["status"] == "open"


def test_a_photo_that_decodes_at_last_is_broken_no_more(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, decoder = client.app.state.annotations, client.app.state.decoder  # type: ignore[attr-defined]
    real, threads = store.cannot_decode, []

    def remember(*args: str) -> None:
        threads.append(threading.current_thread())
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()  # the store may be waited for: never there
        real(*args)

    async def too_slow(data: bytes) -> Any:
        raise problem("decode_timeout", "decoding this 600x400 PNG was stopped after 10 s")

    monkeypatch.setattr(store, "cannot_decode", remember)
    with monkeypatch.context() as patch:
        patch.setattr(decoder, "decode", too_slow)
        answer = client.post(f"/annotations/photos/{key(client, 'photo-1.png')}/embedding")
        assert code(answer, 422) == "decode_timeout" and len(threads) == 1
    assert listed(client)["photo-1.png"]["status"] == "broken"
    embed(client, "photo-1.png")
    assert listed(client)["photo-1.png"]["status"] == "open"


def test_a_disk_that_was_pulled_out_is_told_and_nothing_is_written_in_its_place(
    client: TestClient, folder: Path
) -> None:
    sent = {"photo_sha256": sha256(folder / "photo-1.png")}
    path = f"/annotations/photos/{key(client, 'photo-1.png')}"
    away = folder.with_name("away")
    folder.rename(away)
    categories = {"categories": [{"name": "mug"}]}
    for answer in (
        client.get("/annotations"),
        client.get("/annotations/export"),
        client.put("/annotations/categories", json=categories),
    ):
        assert code(answer, 503) == "annotations_failed" and answer.headers["retry-after"] == "5"
    assert code(client.put(path, json=sent), 404) == "not_found"
    assert code(client.put(f"{path}/skip"), 404) == "not_found"
    assert not folder.exists()
    away.rename(folder)
    assert listed(client)["photo-1.png"]["status"] == "open"
    assert client.put(path, json=sent).json()["status"] == "done"


def test_pages_of_the_list(client: TestClient) -> None:
    names, offset = [], 0
    while offset is not None:
        page = client.get("/annotations", params={"offset": offset, "limit": 2}).json()
        names += [photo["name"] for photo in page["photos"]]
        offset = page["next"]
    assert names == list(CENTRES)
    assert code(client.get("/annotations", params={"limit": 0}), 422) == "invalid_field"


def test_categories(client: TestClient, folder: Path) -> None:
    def ask(*wanted: Any) -> Any:
        return client.put("/annotations/categories", json={"categories": list(wanted)})

    found = ask({"id": 1, "name": "mug"}, {"name": "bottle"}).json()["categories"]
    assert found == [{"id": 1, "name": "mug"}, {"id": 2, "name": "bottle"}]
    rle = mask_to_rle(rectangle(10, 20, 110, 70))
    sent = {"photo_sha256": sha256(folder / "photo-2.jpg"), "objects": [{"category_id": 2, "segmentation": rle}]}
    assert put(client, "photo-2.jpg", sent).status_code == 200
    assert code(ask({"id": 1, "name": "mug"}), 409) == "category_in_use"
    assert code(ask({"id": 7, "name": "mug"}), 422) == "invalid_field"
    assert code(ask(), 422) == "invalid_field"
    assert client.get("/annotations").json()["categories"] == found


def test_the_same_photo_sent_or_named_is_one_embedding(client: TestClient, folder: Path) -> None:
    with (folder / "photo-1.png").open("rb") as photo:
        sent = client.post("/embeddings", files={"image_file": photo}).json()
    made = embed(client, "photo-1.png")
    assert made["id"] == sent["id"] and made["cached"]


def test_several_who_open_one_photo_at_once_share_one_encode(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = client.app.state.inference  # type: ignore[attr-defined]
    encodes, real = [], inference._encode
    monkeypatch.setattr(inference, "_encode", lambda image: (encodes.append(1), real(image))[1])
    path = f"/annotations/photos/{key(client, 'photo-10.jpg')}/embedding"
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(client.post(path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6 and len(encodes) == 1
    assert sum(answer.json()["cached"] for answer in answers) >= 5


def test_a_full_disk_is_507_and_the_masks_stay(client: TestClient, folder: Path) -> None:
    store = client.app.state.annotations  # type: ignore[attr-defined]
    assert isinstance(store, AnnotationStore)
    store.min_free_bytes = 1 << 60
    sent = {"photo_sha256": sha256(folder / "photo-1.png")}
    assert code(put(client, "photo-1.png", sent), 507) == "disk_low"
    store.min_free_bytes = 0
    assert put(client, "photo-1.png", sent).status_code == 200


def test_bodies_are_bounded(client: TestClient, folder: Path) -> None:
    body = {"photo_sha256": sha256(folder / "photo-1.png"), "objects": [], "x": "y" * (1 << 20)}
    assert code(put(client, "photo-1.png", body), 413) == "too_large"
    many = {"photo_sha256": body["photo_sha256"], "objects": [{"category_id": 1, "id": n + 1} for n in range(201)]}
    assert code(put(client, "photo-1.png", many), 422) == "invalid_field"


def test_the_size_of_a_turned_photo_is_the_upright_one(client: TestClient, folder: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(np.full((60, 90, 3), 200, np.uint8)).save(folder / "turned.jpg", exif=turned)
    digest = sha256(folder / "turned.jpg")
    for size, status in (((60, 90), 422), ((90, 60), 200)):
        rle = mask_to_rle(rectangle(1, 1, 9, 9, size))
        sent = {"photo_sha256": digest, "objects": [{"category_id": 1, "segmentation": rle}]}
        assert put(client, "turned.jpg", sent).status_code == status
    assert embed(client, "turned.jpg")["size_hw"] == [90, 60]


def test_a_photo_larger_than_an_upload_is_refused(color_folder: Path, folder: Path) -> None:
    with service(color_folder, annotate_dir=folder, max_upload_bytes=1000, min_free_bytes=0) as client:
        answer = client.post(f"/annotations/photos/{key(client, 'photo-1.png')}/embedding")
        assert code(answer, 413) == "too_large"


def test_without_a_folder_there_are_no_routes(color_folder: Path) -> None:
    paths = create_app(settings(color_folder)).openapi()["paths"]
    assert not [path for path in paths if path.startswith("/annotations")]


def test_guards_hold_here_too(color_folder: Path, folder: Path) -> None:
    with service(color_folder, annotate_dir=folder, token="hush", prove=False) as client:
        assert code(client.get("/annotations"), 401) == "unauthorized"
        known = {"authorization": "Bearer hush"}
        assert client.get("/annotations", headers=known).status_code == 200
        foreign = known | {"origin": "http://elsewhere.example"}
        assert code(client.get("/annotations", headers=foreign), 403) == "bad_origin"
