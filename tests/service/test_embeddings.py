"""The embedding cache, and the routes over it."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import load_image
from boothsam.runtime.masks import rle_to_mask
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.service.embeddings import KEPT_LOGITS, EarlierMask, EmbeddingCache, embedding_id
from boothsam.service.inference import Inference
from boothsam.service.problems import ServiceProblem, problem
from boothsam.service.routes.embeddings import _written
from PIL import Image
from starlette.testclient import TestClient

from tests.service.conftest import DISC
from tests.service.http_client import code, send, service

CENTRE = [400, 150]


@pytest.fixture(scope="module")
def client(color_folder: Path) -> Iterator[TestClient]:
    with service(color_folder, queue=2) as started:
        yield started


@pytest.fixture
def model(color_folder: Path) -> Iterator[SamModel]:
    loaded = SamModel.load(color_folder, backend="ort-cpu", threads=1)
    yield loaded
    loaded.close()


def _ask(client: TestClient, id: str, question: Any, **headers: str) -> Any:
    return client.post(f"/embeddings/{id}/segment", json=question, headers=headers)


def _disc_iou(mask: Any) -> float:
    y, x = np.mgrid[:400, :600]
    disc = (x - DISC[0][0]) ** 2 + (y - DISC[0][1]) ** 2 <= DISC[1] ** 2
    return float((mask & disc).sum() / (mask | disc).sum())


def test_an_embedding_answers_points_and_boxes(client: TestClient, photos: Path) -> None:
    made = send(client, "/embeddings", photos / "one.png").json()
    assert made["size_hw"] == [400, 600] and made["nbytes"] > 0
    body = _ask(client, made["id"], {"points": [CENTRE], "labels": [1]}).json()
    assert len(body["masks"]) == 3
    best = body["masks"][body["best"]]
    assert best["iou_prediction"] == max(mask["iou_prediction"] for mask in body["masks"])
    assert body["best"] in body["ambiguous"]
    mask = rle_to_mask(best["rle"])
    assert _disc_iou(mask) > 0.96
    assert best["area"] == mask.sum()
    rows, columns = np.nonzero(mask)
    assert best["box_xyxy"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    one = _ask(client, made["id"], {"box": [310, 60, 490, 240], "multimask": False}).json()
    assert len(one["masks"]) == 1 and _disc_iou(rle_to_mask(one["masks"][0]["rle"])) > 0.9


def test_masks_as_png_in_json_and_alone(client: TestClient, photos: Path) -> None:
    id = send(client, "/embeddings", photos / "one.png").json()["id"]
    body = _ask(client, id, {"points": [CENTRE], "format": "png"}).json()
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(body["masks"][body["best"]]["png_b64"]))))
    assert set(np.unique(mask)) == {0, 255} and _disc_iou(mask > 0) > 0.96
    alone = _ask(client, id, {"points": [CENTRE]}, accept="image/png")
    assert alone.headers["content-type"] == "image/png"
    assert (np.asarray(Image.open(io.BytesIO(alone.content))) == mask).all()
    assert float(alone.headers["x-mask-score"]) == pytest.approx(
        body["masks"][body["best"]]["iou_prediction"], abs=1e-3
    )


@pytest.mark.parametrize("format", ["rle", "png"])
def test_masks_for_a_display_are_smaller_and_their_boxes_are_not(client: TestClient, photos: Path, format: str) -> None:
    id = send(client, "/embeddings", photos / "one.png").json()["id"]
    full = _ask(client, id, {"points": [CENTRE]}).json()
    small = _ask(client, id, {"points": [CENTRE], "mask_max_side": 150, "format": format}).json()
    assert full["size_hw"] == full["mask_size_hw"] == small["size_hw"] == [400, 600]
    assert small["mask_size_hw"] == [100, 150]
    one, other = full["masks"][full["best"]], small["masks"][small["best"]]
    assert one["logits_id"] == other["logits_id"]
    assert other["area"] == pytest.approx(one["area"], rel=0.03)
    assert other["box_xyxy"] == pytest.approx(one["box_xyxy"], abs=4)
    if format == "rle":
        mask = rle_to_mask(other["rle"])
    else:
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(other["png_b64"])))) > 0
    assert mask.shape == (100, 150) and _disc_iou(mask.repeat(4, 0).repeat(4, 1)) > 0.9
    assert _ask(client, id, {"points": [CENTRE], "mask_max_side": 4000}).json()["mask_size_hw"] == [400, 600]


def test_an_empty_mask_has_no_box_and_no_run() -> None:
    rows = _written(np.full((256, 256), -1, np.float32), (400, 600), (400, 600), "rle")
    assert rows == {"box_xyxy": [0, 0, 0, 0], "area": 0, "rle": {"size": [400, 600], "counts": [240_000]}}


def test_earlier_logits_refine_by_id(client: TestClient, photos: Path, model: SamModel) -> None:
    id = send(client, "/embeddings", photos / "one.png").json()["id"]
    first = _ask(client, id, {"points": [CENTRE]}).json()
    name = first["masks"][first["best"]]["logits_id"]
    refined = _ask(client, id, {"points": [CENTRE], "mask_input": name}).json()
    embedding = model.encode(load_image(photos / "one.png"))
    logits, scores = model.decode(embedding, Prompts.make([CENTRE], [1])).select(True)
    _, expected = model.decode(
        embedding, Prompts.make([CENTRE], [1], None, logits[0, scores[0].argmax()][None])
    ).select(True)
    found = [mask["iou_prediction"] for mask in refined["masks"]]
    assert found == pytest.approx(expected[0].tolist(), abs=1e-5)
    assert found != pytest.approx(scores[0].tolist(), abs=1e-5)  # the mask prompt changed the answer
    refused = _ask(client, id, {"points": [CENTRE], "mask_input": "0" * 32})
    assert code(refused, 422) == "invalid_prompt"


def test_a_photo_sent_again_is_not_decoded(client: TestClient, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = send(client, "/embeddings", photos / "two.jpg").json()

    async def never(data: bytes) -> Any:
        raise AssertionError("decoded although the embedding was there")

    monkeypatch.setattr(client.app.state.decoder, "decode", never)
    again = send(client, "/embeddings", photos / "two.jpg").json()
    assert again["id"] == first["id"] and again["cached"] is True and first["cached"] is False
    assert _ask(client, again["id"], {"points": [CENTRE]}).status_code == 200


def test_crop_leaves_an_embedding_to_click_on(client: TestClient, photos: Path) -> None:
    body = send(client, "/crop", photos / "one.png", {"box": "310,60,490,240"}, accept="application/json").json()
    assert _ask(client, body["embedding_id"], {"points": [CENTRE]}).status_code == 200


def test_ten_identical_photos_cost_one_encode_and_one_place(color_folder: Path, photos: Path) -> None:
    encodes = []
    # Room for one to wait: were each to take a place, eight of them would be refused.
    with service(color_folder, queue=1) as client:
        inference: Inference = client.app.state.inference
        encode, gate = inference._encode, threading.Event()

        def slow(image: Any) -> ImageEmbedding:
            encodes.append(image.shape)
            gate.wait(10)
            return encode(image)

        inference._encode = slow  # type: ignore[method-assign]
        with ThreadPoolExecutor(10) as pool:
            answers = [pool.submit(send, client, "/embeddings", photos / "one.png") for _ in range(10)]
            until = time.monotonic() + 20
            while sum(len(flight.waiting) for flight in list(inference._flights.values())) < 10:
                if time.monotonic() > until:
                    break
                time.sleep(0.01)
            gate.set()
            bodies = [answer.result() for answer in answers]
    assert [answer.status_code for answer in bodies] == [200] * 10
    assert len(encodes) == 1
    assert sum(not answer.json()["cached"] for answer in bodies) == 1
    assert len({answer.json()["id"] for answer in bodies}) == 1


@pytest.mark.parametrize(
    ("question", "status", "expected"),
    [
        ({}, 422, "invalid_prompt"),
        ({"points": [[1, 1]], "labels": [1, 0]}, 422, "invalid_prompt"),
        ({"points": [[9999, 1]]}, 422, "invalid_prompt"),
        ({"box": [9, 9, 3, 3]}, 422, "invalid_prompt"),
        ({"points": [[1]]}, 422, "invalid_field"),
        ({"box": [0, 0, 1e39, 1]}, 422, "invalid_field"),
        ({"points": [[-2e6, 1]]}, 422, "invalid_field"),
        ({"points": [[1, 1]] * 33}, 422, "invalid_field"),
        ({"points": [[1, 1]], "labels": [2]}, 422, "invalid_field"),
        ({"clicks": [[1, 1]]}, 422, "unknown_field"),
        ({"mask_input": "x" * 65}, 422, "invalid_field"),
    ],
)
def test_questions_are_refused_by_name(
    client: TestClient, photos: Path, question: Any, status: int, expected: str
) -> None:
    id = send(client, "/embeddings", photos / "one.png").json()["id"]
    assert code(_ask(client, id, question), status) == expected


def test_bodies_that_are_no_question(client: TestClient, photos: Path) -> None:
    id = send(client, "/embeddings", photos / "one.png").json()["id"]
    path, kind = f"/embeddings/{id}/segment", {"content-type": "application/json"}
    assert code(client.post(path, content=b"{", headers=kind), 400) == "bad_request"
    assert code(client.post(path, content=b"[" * 60_000, headers=kind), 400) == "bad_request"
    assert code(client.post(path, content=b" " * 70_000, headers=kind), 413) == "too_large"
    assert code(client.post(path, content=b"{}", headers={"content-type": "text/plain"}), 415) == "unsupported_media"
    assert code(_ask(client, "0" * 64, {"points": [CENTRE]}), 404) == "embedding_not_found"
    assert code(client.post("/embeddings", files=[("box", (None, "1,2,3,4"))]), 422) == "unknown_field"


def _cache(model: SamModel, embeddings: int, **given: Any) -> tuple[EmbeddingCache, int]:
    size = model.encode(np.zeros((8, 8, 3), np.uint8)).nbytes
    return EmbeddingCache(embeddings * size, given.pop("ttl_s", 60), **given), size


def _fill(cache: EmbeddingCache, model: SamModel, *keys: str) -> None:
    for key in keys:
        cache.get_or_make(key, lambda: model.encode(np.zeros((8, 8, 3), np.uint8)))


def test_the_cache_drops_the_least_recently_used_by_bytes(model: SamModel) -> None:
    cache, size = _cache(model, 2)
    _fill(cache, model, "a", "b")
    kept = cache.get("a")
    _fill(cache, model, "c")
    assert cache.get("b") is None and cache.get("a") is kept and cache.get("c") is not None
    assert cache.nbytes == 2 * size
    cache.remember("a", EarlierMask(np.zeros((1, 256, 256), np.float32), 0.9))  # logits count: the other one goes
    assert len(cache) <= 1 and cache.nbytes <= cache.max_bytes


def test_what_was_dropped_still_serves_who_holds_it(model: SamModel) -> None:
    cache, _ = _cache(model, 1)
    _fill(cache, model, "a")
    held = cache.get("a")
    _fill(cache, model, "b")
    assert cache.get("a") is None and held is not None
    assert model.decode(held, Prompts.make([[1, 1]], [1])).low_res_masks.shape == (1, 4, 256, 256)


def test_a_cache_of_no_bytes_keeps_nothing(model: SamModel) -> None:
    cache = EmbeddingCache(0, 60)
    _fill(cache, model, "a")
    assert cache.get("a") is None and cache.nbytes == 0
    assert cache.remember("a", EarlierMask(np.zeros((1, 256, 256), np.float32), 0.9)) is None


def test_an_embedding_lives_for_its_ttl_after_its_last_use(model: SamModel) -> None:
    now = [0.0]
    cache, _ = _cache(model, 9, ttl_s=10, clock=lambda: now[0])
    _fill(cache, model, "a", "b")
    now[0] = 8
    assert cache.get("a") is not None
    now[0] = 15
    assert cache.get("b") is None and cache.get("a") is not None
    now[0] = 26
    assert cache.get("a") is None and len(cache) == 0


@pytest.mark.parametrize("multimask", [True, False])
def test_kept_logits_hold_no_more_memory_than_is_counted(client: TestClient, photos: Path, multimask: bool) -> None:
    id = send(client, "/embeddings", photos / "one.png").json()["id"]
    masks = _ask(client, id, {"points": [CENTRE], "multimask": multimask}).json()["masks"]
    cache = client.app.state.inference.cache  # type: ignore[attr-defined]
    for mask in masks:
        kept = cache.recall(id, mask["logits_id"]).logits
        assert kept.base is None and kept.shape == (1, 256, 256)


def test_logits_are_bounded_in_number(model: SamModel) -> None:
    cache = EmbeddingCache(1 << 30, 60)
    _fill(cache, model, "a")
    names = [
        cache.remember("a", EarlierMask(np.full((1, 256, 256), i, np.float32), 0.9)) for i in range(KEPT_LOGITS + 1)
    ]
    assert cache.recall("a", str(names[0])) is None
    assert cache.recall("a", str(names[-1])) is not None


def test_a_failed_encode_is_not_remembered_and_reaches_every_thread(model: SamModel) -> None:
    cache, entered, leave = EmbeddingCache(1 << 30, 60), threading.Event(), threading.Event()

    def fail() -> ImageEmbedding:
        entered.set()
        leave.wait(10)
        raise RuntimeError("no")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_make, "a", fail)
        entered.wait(10)
        second = pool.submit(cache.get_or_make, "a", lambda: model.encode(np.zeros((8, 8, 3), np.uint8)))
        leave.set()
        with pytest.raises(RuntimeError):
            first.result(10)
        try:
            second.result(10)  # came after the failure, or waited for it
        except RuntimeError:
            _fill(cache, model, "a")
    assert cache.get("a") is not None


def test_ids_differ_by_photo_model_and_precision() -> None:
    ids = {embedding_id(*of) for of in (("a", "m", "fp32"), ("b", "m", "fp32"), ("a", "n", "fp32"), ("a", "m", "fp16"))}
    assert len(ids) == 4


def test_a_shared_encode_survives_its_first_client_and_ends_with_the_last() -> None:
    async def scenario() -> None:
        inference, started, release = Inference(), asyncio.Event(), asyncio.Event()
        ended: list[str] = []

        async def make(photo: bytes, everybody_gone: Any) -> str:
            started.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return "done"

        async def here() -> bool:
            return False

        first = asyncio.create_task(inference.share("k", b"photo", here, make))
        await started.wait()
        second = asyncio.create_task(inference.share("k", b"photo", here, make))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        release.set()
        assert await second == "done" and not ended
        started.clear()
        release.clear()
        last = asyncio.create_task(inference.share("k", b"photo", here, make))
        await started.wait()
        last.cancel()
        await asyncio.wait([last])
        await asyncio.sleep(0)
        assert ended == ["cancelled"] and not inference._flights

        async def refuse(photo: bytes, everybody_gone: Any) -> str:
            raise problem("queue_full", "full")

        results = await asyncio.gather(
            *(inference.share("k", b"photo", here, refuse) for _ in range(3)), return_exceptions=True
        )
        assert [isinstance(result, ServiceProblem) for result in results] == [True] * 3
        inference.close()

    asyncio.run(scenario())


async def _here() -> bool:
    return False


def test_nobody_joins_a_shared_encode_that_is_being_cancelled() -> None:
    async def scenario() -> None:
        inference, started, release = Inference(), asyncio.Event(), asyncio.Event()

        async def make(photo: bytes, everybody_gone: Any) -> bytes:
            started.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)  # as a thread that has to end first
                raise
            return photo

        first = asyncio.create_task(inference.share("k", b"photo", _here, make))
        await started.wait()
        first.cancel()
        await asyncio.wait([first])
        release.set()
        assert await inference.share("k", b"photo", _here, make) == b"photo"
        assert not inference._flights
        inference.close()

    asyncio.run(scenario())


def test_who_comes_when_all_others_are_found_gone_is_answered_all_the_same() -> None:
    async def scenario() -> None:
        inference, started, newcomer = Inference(), asyncio.Event(), asyncio.Event()

        async def gone() -> bool:
            return True

        async def make(photo: bytes, everybody_gone: Any) -> bytes:
            nobody_left = await everybody_gone()
            started.set()
            if nobody_left:
                await newcomer.wait()
                raise problem("client_gone", "all have left")
            return photo

        first = asyncio.create_task(inference.share("k", b"photo", gone, make))
        await started.wait()
        second = asyncio.create_task(inference.share("k", b"photo", _here, make))
        await asyncio.sleep(0)
        newcomer.set()
        assert await second == b"photo"
        with pytest.raises(ServiceProblem, match="client_gone"):
            await first
        inference.close()

    asyncio.run(scenario())


def test_identical_photos_that_wait_are_held_once() -> None:
    freed = []

    class Photo(bytes):
        def __del__(self) -> None:
            freed.append(bytes(self))

    async def scenario() -> None:
        inference, release = Inference(), asyncio.Event()

        async def make(photo: bytes, everybody_gone: Any) -> int:
            await release.wait()
            return len(photo)

        sharing = [asyncio.create_task(inference.share("k", Photo(b"%d" % i), _here, make)) for i in range(3)]
        await asyncio.sleep(0.01)
        assert sorted(freed) == [b"1", b"2"]
        release.set()
        assert await asyncio.gather(*sharing) == [1, 1, 1]
        inference.close()

    asyncio.run(scenario())
