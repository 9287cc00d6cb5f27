"""/plate and /embeddings/{id}/plate on the colour model: a drawn booth, its plate, its products."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.images import encode_image, load_image
from boothsam.service.plates import FILE
from PIL import Image
from starlette.testclient import TestClient

from tests.service.conftest import RED, disc
from tests.service.http_client import code, send, service

Photo = npt.NDArray[np.uint8]
DISC = ((400, 150), 80)
EMPTY_HINT = "PUT /plate with a photo of the empty booth"


def booth(seed: int = 0, product: bool = False, gain: float = 1.0, shift: int = 0) -> Photo:
    """600x400: a sheet with printed marks, seen with noise; the product is the red disc of one.png."""
    marks = np.random.default_rng(7)
    image = np.full((400, 600, 3), 190, np.uint8)
    for x, y in zip(marks.integers(0, 600, 60).tolist(), marks.integers(0, 400, 60).tolist(), strict=True):
        cv2.circle(image, (x + shift, y), 3, (120, 130, 140), -1)
    if product:
        disc(image, *DISC, RED)
    noise = np.random.default_rng(seed).normal(0, 1.5, image.shape)
    return np.asarray(np.clip(image * gain + noise, 0, 255), np.uint8)


def jpeg(image: Photo) -> bytes:
    return encode_image(image, "jpg", quality=92)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def client(color_folder: Path, folder: Path) -> Iterator[TestClient]:
    with service(color_folder, state_dir=str(folder)) as started:
        yield started


def take(client: TestClient, *photos: bytes) -> Any:
    return client.put("/plate", files=[("image_file", ("empty.jpg", photo)) for photo in photos])


def test_a_plate_is_taken_shown_replaced_and_forgotten(client: TestClient) -> None:
    answer = client.get("/plate")
    assert code(answer, 404) == "no_plate" and answer.json()["hint"] == EMPTY_HINT
    assert code(client.get("/plate/image"), 404) == "no_plate"
    assert client.get("/kiosk/status").json()["plate"] is None
    taken = take(client, jpeg(booth()))
    assert taken.status_code == 200, taken.text
    assert taken.json()["size_hw"] == [400, 600] and taken.json()["taken_at"].endswith("+00:00")
    assert client.get("/plate").json() == taken.json() == client.get("/kiosk/status").json()["plate"]
    shown = client.get("/plate/image")
    assert shown.headers["content-type"] == "image/jpeg"
    assert np.abs(load_image(shown.content).astype(int) - booth()).mean() < 3
    again = take(client, *(jpeg(booth(seed, gain=0.8)) for seed in range(3)))
    assert again.status_code == 200, again.text
    assert load_image(client.get("/plate/image").content).mean() == pytest.approx(0.8 * booth().mean(), abs=3)
    assert client.delete("/plate").status_code == 204
    assert code(client.get("/plate"), 404) == "no_plate"
    assert code(client.delete("/plate"), 404) == "no_plate"


def test_it_outlives_a_restart_and_a_deleted_one_stays_deleted(color_folder: Path, folder: Path) -> None:
    with service(color_folder, state_dir=str(folder)) as client:
        taken = take(client, jpeg(booth())).json()
    with service(color_folder, state_dir=str(folder)) as client:
        assert client.get("/plate").json() == taken
        assert client.delete("/plate").status_code == 204
    with service(color_folder, state_dir=str(folder)) as client:
        assert code(client.get("/plate"), 404) == "no_plate"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_told_and_a_new_plate_mends_it(color_folder: Path, folder: Path, damage: str) -> None:
    with service(color_folder, state_dir=str(folder)) as client:
        take(client, jpeg(booth()))
    data = (folder / FILE).read_bytes()
    middle = len(data) // 2
    (folder / FILE).write_bytes(
        {
            "cut": data[:middle],
            "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "empty": b"",
            "text": b"no plate\n",
        }[damage]
    )
    with service(color_folder, state_dir=str(folder)) as client:
        assert client.get("/readyz").status_code == 200
        answer = client.get("/plate")
        assert code(answer, 409) == "plate_damaged" and answer.json()["hint"] == EMPTY_HINT
        crop = send(client, "/crop", jpeg(booth(1, product=True)), {"plate": "true"})
        assert code(crop, 409) == "plate_damaged"
        assert take(client, jpeg(booth())).status_code == 200
        assert client.get("/plate").status_code == 200


def test_a_state_folder_that_cannot_be_written_is_told_and_the_old_plate_stays(
    color_folder: Path, folder: Path
) -> None:
    with service(color_folder, state_dir=str(folder)) as client:
        taken = take(client, jpeg(booth())).json()
        (folder / f"{FILE}.part").mkdir()  # in the way
        assert code(take(client, jpeg(booth(1))), 503) == "plate_not_stored"
        assert client.get("/plate").json() == taken


@pytest.mark.parametrize("failing", [0, 1])  # the file, its folder
def test_a_disk_that_fails_takes_no_plate_away(
    color_folder: Path, folder: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, iter(range(1000))

    def fsync(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with service(color_folder, state_dir=str(folder)) as client:
        taken = take(client, jpeg(booth())).json()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            assert code(take(client, jpeg(booth(1))), 503) == "plate_not_stored"
        assert client.get("/plate").json() == taken
    with service(color_folder, state_dir=str(folder)) as client:
        assert client.get("/plate").status_code == 200  # the old one or the new one, whole
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_without_a_state_folder_the_plate_lives_as_long_as_the_service(color_folder: Path) -> None:
    with service(color_folder, state_dir="") as client:
        assert take(client, jpeg(booth())).status_code == 200
        assert client.get("/plate").status_code == 200
    with service(color_folder, state_dir="") as client:
        assert code(client.get("/plate"), 404) == "no_plate"


def test_what_is_no_plate_is_refused(client: TestClient) -> None:
    assert code(client.put("/plate", files=[("other", ("a.jpg", b"x"))]), 422) == "unknown_field"
    assert code(client.put("/plate", files=[("image_file", ("a.jpg", b""))]), 400) == "missing_image"
    assert code(client.put("/plate", content=b"x"), 415) == "unsupported_media"
    assert code(take(client, b"no photo"), 415) == "unsupported_media"
    nine = take(client, *[jpeg(booth())] * 9)
    assert code(nine, 400) == "bad_request" and "8" in nine.json()["detail"]
    mixed = take(client, jpeg(booth()), jpeg(booth()[:300]))
    assert code(mixed, 422) == "invalid_field" and "600x400 and 600x300" in mixed.json()["detail"]
    small = take(client, jpeg(booth()[:40, :100]))
    assert small.status_code == 422 and "too small" in small.json()["detail"]
    assert code(client.get("/plate"), 404) == "no_plate"


def analysed(client: TestClient, photo: Photo, keep: bool = True) -> str:
    answer = send(client, "/embeddings", jpeg(photo), {"keep": "true"} if keep else {})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_the_plates_prompt_asks_for_the_product(client: TestClient) -> None:
    take(client, jpeg(booth()))
    key = analysed(client, booth(1, product=True, gain=0.85))
    match = client.post(f"/embeddings/{key}/plate").json()
    assert match["state"] == "product" and match["moved"] is False
    assert match["box_xyxy"] == pytest.approx([320, 70, 481, 231], abs=8)
    inside = [np.hypot(x - 400, y - 150) < 80 for x, y in match["points"]]
    assert inside == [label == 1 for label in match["labels"]] and 0 in match["labels"]
    question = {"box": match["box_xyxy"], "points": match["points"], "labels": match["labels"], "multimask": False}
    mask = client.post(f"/embeddings/{key}/segment", json=question).json()["masks"][0]
    assert mask["area"] == pytest.approx(np.pi * 80**2, rel=0.06)


def test_an_empty_booth_a_moved_camera_and_another_shape(client: TestClient) -> None:
    take(client, jpeg(booth()))
    for photo, state in (
        (booth(2, gain=1.1), "empty"),
        (booth(2, product=True, shift=24), "camera_moved"),
        (booth(2)[:, :300], "other_size"),
    ):
        match = client.post(f"/embeddings/{analysed(client, photo)}/plate").json()
        assert match["state"] == state and match["box_xyxy"] is None and match["points"] == [], match
    moved = client.post(f"/embeddings/{analysed(client, booth(2, product=True, shift=24))}/plate").json()
    assert moved["moved"] is True and moved["shift_px"] == pytest.approx([24, 0], abs=1.5)


def test_a_photo_must_be_kept_and_a_plate_taken(client: TestClient) -> None:
    key = analysed(client, booth(3, product=True))
    assert code(client.post(f"/embeddings/{key}/plate"), 404) == "no_plate"
    take(client, jpeg(booth()))
    assert client.post(f"/embeddings/{key}/plate").status_code == 200
    other = analysed(client, booth(4, product=True), keep=False)
    assert code(client.post(f"/embeddings/{other}/plate"), 409) == "photo_not_kept"
    assert code(client.post("/embeddings/none/plate"), 404) == "embedding_not_found"


def test_crop_by_the_plate(client: TestClient) -> None:
    photo = jpeg(booth(5, product=True, gain=1.1))
    assert code(send(client, "/crop", photo, {"plate": "true"}), 404) == "no_plate"
    take(client, *(jpeg(booth(seed)) for seed in range(4)))
    picture = send(client, "/crop", photo, {"plate": "true"})
    assert picture.status_code == 200, picture.text
    alpha = np.asarray(Image.open(io.BytesIO(picture.content)))[..., 3]
    assert (alpha > 127).sum() == pytest.approx(np.pi * 80**2, rel=0.06)
    told = send(client, "/crop", photo, {"plate": "true"}, accept="application/json").json()["products"][0]
    assert told["prompt"]["plate"]["state"] == "product"
    assert json.dumps(told["prompt"])
    assert code(send(client, "/crop", jpeg(booth(6)), {"plate": "true"}), 422) == "nothing_found"
    moved = send(client, "/crop", jpeg(booth(6, shift=30)), {"plate": "true"})
    assert code(moved, 422) == "camera_moved" and "take the plate again" in moved.json()["hint"]
    both = send(client, "/crop", photo, {"plate": "true", "box": "310,60,490,240"})
    assert code(both, 422) == "invalid_prompt"
    unused = send(client, "/crop", photo, {"plate": "false", "box": "310,60,490,240"})
    assert unused.status_code == 200


def test_head_and_methods(client: TestClient) -> None:
    take(client, jpeg(booth()))
    assert client.head("/plate").status_code == 200 and client.head("/plate/image").status_code == 200
    assert code(client.post("/plate"), 405) == "method_not_allowed"
