"""POST /embeddings with keep=true, and the cut-outs made of its masks: the same pictures as POST /crop makes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.cutout import shrink
from boothsam.runtime.images import load_image
from boothsam.service.embeddings import EarlierMask, EmbeddingCache
from PIL import Image
from starlette.testclient import TestClient

from tests.service.http_client import code, send, service

POINT, BOX = [400, 150], [310, 60, 490, 240]
LOOKS: list[dict[str, Any]] = [
    {},
    {"format": "webp", "quality": 60},
    {"background": "white", "format": "jpg", "fill": 0.85, "size": 300, "shadow": "drop"},
    {"background": "#204060", "margin": 12, "fill_holes": True, "drop_islands": True, "small_area": 50},
]


@pytest.fixture(scope="module")
def client(color_folder: Path) -> Iterator[TestClient]:
    with service(color_folder) as started:
        yield started


def _keep(client: TestClient, photo: Path | bytes) -> str:
    made = send(client, "/embeddings", photo, {"keep": "true"}).json()
    assert made["photo_kept"] is True
    return str(made["id"])


def _best(client: TestClient, id: str, **question: Any) -> str:
    body = client.post(f"/embeddings/{id}/segment", json=question or {"points": [POINT]}).json()
    return str(body["masks"][body["best"]]["logits_id"])


def _cut(client: TestClient, id: str, logits_id: str, **question: Any) -> Any:
    return client.post(f"/embeddings/{id}/cutout", json={"logits_id": logits_id} | question)


def _as_fields(look: dict[str, Any]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in look.items()}


@pytest.mark.parametrize("look", LOOKS)
def test_the_picture_is_the_one_that_crop_makes(client: TestClient, photos: Path, look: dict[str, Any]) -> None:
    id = _keep(client, photos / "one.png")
    for question, prompt, limits in (
        ({"points": [POINT]}, {"points": "400,150"}, {}),
        ({"box": BOX, "multimask": False}, {"box": "310,60,490,240"}, {"limits": BOX}),
        ({"box": BOX, "multimask": False}, {"box": "310,60,490,240"}, {}),
    ):
        cut = _cut(client, id, _best(client, id, **question), **look, **limits)
        cropped = send(client, "/crop", photos / "one.png", prompt | _as_fields(look))
        assert cut.status_code == cropped.status_code == 200
        assert cut.content == cropped.content
        for name in ("etag", "content-type", "x-model", "x-mask-score", *(n for n in cropped.headers if "foregr" in n)):
            assert cut.headers[name] == cropped.headers[name], name


def test_limits_cut_off_what_the_mask_holds_outside_the_box(client: TestClient, photos: Path) -> None:
    id = _keep(client, photos / "two.jpg")  # two discs of one colour: the colour model's mask holds both
    mask = _best(client, id, points=[[150, 150], [400, 150]], labels=[1, 1])
    both, one = _cut(client, id, mask), _cut(client, id, mask, limits=[60, 60, 240, 240])
    assert int(both.headers["x-foreground-width"]) > 350
    assert int(one.headers["x-foreground-width"]) < 200 and one.headers["x-foreground-left"] == "70"


def test_a_preview_is_the_same_picture_smaller(client: TestClient, photos: Path) -> None:
    id = _keep(client, photos / "one.png")
    mask = _best(client, id)
    whole, preview = (Image.open(io.BytesIO(_cut(client, id, mask, **more).content)) for more in ({}, {"max_side": 64}))
    assert max(preview.size) == 64 and preview.mode == "RGBA"
    assert (np.asarray(preview) == shrink(np.asarray(whole), 64)).all()
    mean = [float(np.asarray(picture)[..., 3].mean()) for picture in (whole, preview)]
    assert mean[0] == pytest.approx(mean[1], abs=1)
    solid = np.asarray(preview)[np.asarray(preview)[..., 3] > 8]
    assert (abs(solid[:, :3].astype(int) - (190, 40, 35)) <= 8).all()  # no dark fringe from the zeros around it
    assert _cut(client, id, mask, max_side=16000).content == _cut(client, id, mask).content


def test_the_verdict_says_which_checks_failed(client: TestClient, photos: Path, tmp_path: Path) -> None:
    id = _keep(client, photos / "one.png")
    body = send(client, "/crop", photos / "one.png", {"points": "400,150"}, accept="application/json").json()
    reasons = [reason["code"] for reason in body["products"][0]["retake"]["reasons"]]
    assert _cut(client, id, _best(client, id)).headers["x-retake"] == (",".join(reasons) or "ok")
    image = load_image(photos / "one.png")[:, 340:]  # the disc is cut by the left border
    Image.fromarray(image).save(tmp_path / "cut.png")
    id = _keep(client, tmp_path / "cut.png")
    verdict = _cut(client, id, _best(client, id, points=[[60, 150]])).headers["x-retake"]
    assert "touches_border" in verdict.split(",")


def test_the_second_cut_out_decodes_nothing_and_the_photo_may_be_left_out(
    client: TestClient, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, decoded = client.app.state.decoder, []
    decode = decoder.decode

    async def count(data: bytes) -> Any:
        decoded.append(len(data))
        return await decode(data)

    monkeypatch.setattr(decoder, "decode", count)
    cache: EmbeddingCache = client.app.state.inference.cache
    id, mask = _keep(client, photos / "two.jpg"), ""
    mask = _best(client, id)
    decoded.clear()
    first = _cut(client, id, mask)
    assert decoded == [] and cache.pixel_nbytes >= 400 * 600 * 3
    monkeypatch.setattr(cache, "pixel_bytes", 0)
    cache._pixels.clear()
    assert _cut(client, id, mask).content == first.content
    assert _cut(client, id, mask).content == first.content
    assert len(decoded) == 2  # no room for pixels: decoded each time, and the same picture


def test_what_is_missing_is_told_apart(client: TestClient, photos: Path) -> None:
    made = send(client, "/embeddings", photos / "empty.png").json()
    assert made["photo_kept"] is False
    assert code(_cut(client, "0" * 64, "0" * 32), 404) == "embedding_not_found"
    assert code(_cut(client, made["id"], "0" * 32), 409) == "photo_not_kept"
    assert _keep(client, photos / "empty.png") == made["id"]  # sent again, to be kept this time
    assert code(_cut(client, made["id"], "0" * 32), 422) == "invalid_prompt"
    assert send(client, "/embeddings", photos / "empty.png").json()["photo_kept"] is True


@pytest.mark.parametrize(
    ("question", "status", "expected"),
    [
        ({"points": [[1, 1]]}, 422, "invalid_field"),
        ({"box": "1,2,3,4"}, 422, "unknown_field"),
        ({"image_file": "x"}, 422, "unknown_field"),
        ({"format": "jpg"}, 422, "invalid_field"),
        ({"format": "gif"}, 422, "invalid_field"),
        ({"background": "plaid"}, 422, "invalid_field"),
        ({"fill": 2}, 422, "invalid_field"),
        ({"fill": [0.5, 0.6]}, 422, "invalid_field"),
        ({"size": 100_000}, 422, "invalid_field"),
        ({"size": 16_000}, 422, "invalid_field"),
        ({"max_side": 0}, 422, "invalid_field"),
        ({"fill_holes": "perhaps"}, 422, "invalid_field"),
        ({"limits": [1, 2, 3]}, 422, "invalid_prompt"),
        ({"limits": [0, 0, 1e39, 1]}, 422, "invalid_prompt"),
        ({"limits": [9, 9, 3, 3]}, 422, "invalid_prompt"),
        ({"limits": [0, 300, 40, 340]}, 422, "nothing_found"),
    ],
)
def test_questions_are_refused_by_name(
    client: TestClient, photos: Path, question: Any, status: int, expected: str
) -> None:
    id = _keep(client, photos / "one.png")
    assert code(_cut(client, id, _best(client, id), **question), status) == expected


def test_bodies_that_are_no_question(client: TestClient) -> None:
    path, kind = f"/embeddings/{'0' * 64}/cutout", {"content-type": "application/json"}
    for body in (b"{}", b'{"logits_id": ""}', b'{"logits_id": null}'):
        assert code(client.post(path, content=body, headers=kind), 422) == "invalid_field"
    for body in (b"{", b"[]", b"3", b"[" * 60_000):
        assert code(client.post(path, content=body, headers=kind), 400) == "bad_request"
    assert code(client.post(path, content=b" " * 70_000, headers=kind), 413) == "too_large"
    assert code(client.post(path, content=b"{}", headers={"content-type": "text/plain"}), 415) == "unsupported_media"


def test_a_kept_photo_counts_as_memory_of_the_cache(color_folder: Path, photos: Path) -> None:
    data = (photos / "one.png").read_bytes()
    with service(color_folder) as client:
        cache: EmbeddingCache = client.app.state.inference.cache
        id = send(client, "/embeddings", data).json()["id"]
        alone = cache.nbytes
        assert _keep(client, data) == id
        assert cache.nbytes == alone + len(data)
        cache.max_bytes = cache.nbytes - 1
        cache.remember(id, EarlierMask(np.zeros((1, 256, 256), np.float32), 0.5))
        assert len(cache) == 0 and cache.pixel_nbytes == 0  # the pixels go with their photo


def test_a_photo_too_large_for_the_cache_is_not_kept_and_the_embedding_stays(color_folder: Path, photos: Path) -> None:
    with service(color_folder) as client:
        cache: EmbeddingCache = client.app.state.inference.cache
        id = send(client, "/embeddings", photos / "one.png").json()["id"]
        cache.max_bytes = cache.nbytes + 10
        made = send(client, "/embeddings", photos / "one.png", {"keep": "true"}).json()
        assert made["id"] == id and made["cached"] is True and made["photo_kept"] is False
        assert code(_cut(client, id, "0" * 32), 409) == "photo_not_kept"
        assert cache.pixel_nbytes == 0


def test_two_cut_outs_at_once_have_the_photo_decoded_once(
    color_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service(color_folder, in_flight=2) as client:
        decoder, cache, decoded = client.app.state.decoder, client.app.state.inference.cache, []
        decode = decoder.decode
        id = _keep(client, photos / "one.png")
        mask = _best(client, id)
        cache._pixels.clear()

        async def slow(data: bytes) -> Any:
            decoded.append(len(data))
            while client.app.state.admission.in_flight < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            return await decode(data)

        monkeypatch.setattr(decoder, "decode", slow)
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: _cut(client, id, mask), range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content and len(decoded) == 1


def test_pixels_are_kept_for_the_photos_used_last_and_nobody_writes_to_them(color_folder: Path, photos: Path) -> None:
    one = 400 * 600 * 3
    with service(color_folder, photo_cache_bytes=2 * one) as client:
        cache: EmbeddingCache = client.app.state.inference.cache
        ids = [_keep(client, photos / name) for name in ("one.png", "two.jpg", "empty.png")]
        assert [cache.pixels(id) is not None for id in ids] == [False, True, True]
        assert cache.pixel_nbytes == 2 * one
        image = cache.pixels(ids[1])
        assert image is not None and not image.flags.writeable
        assert _cut(client, ids[0], _best(client, ids[0])).status_code == 200  # decoded again, and kept
        assert [cache.pixels(id) is not None for id in ids] == [True, True, False]


def test_a_presets_picture_is_the_one_of_crop_and_says_whether_it_follows_the_advice(
    client: TestClient, photos: Path
) -> None:
    id = _keep(client, photos / "one.png")
    name = _best(client, id)
    # The disc is 160 pixels wide: enlarged ten times it looks soft. Amazon advises 1000 pixels or more besides.
    for preset, more, said in (
        ("amazon", {}, "enlarged"),
        ("ebay", {}, "enlarged"),
        ("amazon", {"size": 600}, "enlarged"),
    ):
        made = _cut(client, id, name, preset=preset, **more)
        cropped = send(client, "/crop", photos / "one.png", {"points": "400,150", "preset": preset} | _as_fields(more))
        assert made.content == cropped.content and made.headers["Content-Type"] == "image/jpeg"
        assert made.headers["X-Preset"] == said
    assert "X-Preset" not in _cut(client, id, name).headers
    assert "X-Preset" not in _cut(client, id, name, preset="amazon", max_side=200).headers, "a preview is not checked"
    assert code(_cut(client, id, name, preset="amazn"), 422) == "invalid_field"


def test_a_refused_presets_picture_names_the_kinds_of_the_broken_rules(client: TestClient, tmp_path: Path) -> None:
    photo = Image.new("RGB", (600, 400), "grey")
    photo.paste((255, 255, 255), (300, 100, 500, 250))
    photo.save(tmp_path / "white.png")
    id = _keep(client, tmp_path / "white.png")
    answer = _cut(client, id, _best(client, id), preset="amazon")
    assert code(answer, 422) == "preset_failed"
    assert "background" in answer.headers["X-Preset"] or "min_fill" in answer.headers["X-Preset"]
