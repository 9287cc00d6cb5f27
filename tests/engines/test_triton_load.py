"""The model that Triton's clients ask, under many of them: its cache, its threads, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.predictor import SamPredictor

from tests.engines.triton_asking import click, colours, key_of, servers, unpacked
from tests.engines.triton_stand_in import Refused, Server, TritonError

WAIT_S = 60


@pytest.fixture
def start(color_folder: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    yield from servers(color_folder, tmp_path)


@pytest.mark.parametrize("threads", [0, 2])
def test_who_has_gone_is_not_worked_for(start: Callable[..., Server], threads: int) -> None:
    server = start(threads=threads)
    with pytest.raises(Refused, match="the client has gone") as found:
        server.infer("color", {"image_rgb": colours(1, 2, 3), **click(45, 30)}, cancelled=lambda: True)
    assert found.value.code == TritonError.CANCELLED and "color_encoder" not in server.calls


def test_the_cache_drops_what_was_used_least(start: Callable[..., Server], color_folder: Path) -> None:
    predictor = SamPredictor.load(color_folder, backend="ort-cpu", threads=1)
    predictor.set_image(colours(9, 9, 9))
    size = predictor.embedding.nbytes
    server = start(cache_bytes=2 * size + size // 2)
    keys = [key_of(server, colours(shade, 0, 0)) for shade in (10, 110)]
    assert key_of(server, colours(10, 0, 0)) == keys[0] and server.calls["color_encoder"] == 2
    keys.append(key_of(server, colours(210, 0, 0)))
    for key, there in zip(keys, (True, False, True), strict=True):
        asked = {"embedding_id": np.array([key], np.object_), **click(45, 30)}
        if there:
            assert unpacked(server.infer("color", asked)).any()
        else:
            with pytest.raises(Refused, match="not any more"):
                server.infer("color", asked)
    nothing = start(cache_bytes=0)
    assert unpacked(nothing.infer("color", {"image_rgb": colours(200, 0, 0), **click(45, 30)})).any()


def parallel(jobs: list[Callable[[], Any]]) -> list[Any]:
    """All at once, from a barrier."""
    barrier = threading.Barrier(len(jobs))

    def go(job: Callable[[], Any]) -> Any:
        barrier.wait(WAIT_S)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(WAIT_S) for future in [pool.submit(go, job) for job in jobs]]


@pytest.mark.parametrize("threads", [0, 4])
def test_many_clients_at_once_get_each_their_own(start: Callable[..., Server], threads: int) -> None:
    server = start(threads=threads)
    photos = [colours(60 * (i % 3), 120, 30 * (i % 2)) for i in range(6)]
    for i, photo in enumerate(photos):
        photo[20 : 30 + i, 30:60] = photo[20, 30]
        photo[30 + i : 40] = 240
    jobs = [lambda p=p: server.infer("color", {"image_rgb": p, **click(45, 25)}) for p in photos * 2]
    for photo, answer in zip(photos * 2, parallel(jobs), strict=True):
        alone = server.infer("color", {"image_rgb": photo, **click(45, 25)})
        assert all(np.array_equal(answer[name], alone[name]) for name in alone)
    assert server.calls["color_encoder"] == len(photos)  # each once, although each came twice at the same time


def test_a_click_overtakes_another_photos_encoder(start: Callable[..., Server]) -> None:
    server = start(threads=2)
    key = key_of(server, colours(200, 0, 0))
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert go_on.wait(WAIT_S)

    server.before["color_encoder"] = hold
    with ThreadPoolExecutor(1) as pool:
        slow: Future[Any] = pool.submit(server.infer, "color", {"image_rgb": colours(0, 0, 200), **click(45, 30)})
        assert entered.wait(WAIT_S)
        assert unpacked(server.infer("color", {"embedding_id": np.array([key], np.object_), **click(45, 30)})).any()
        assert not slow.done()
        go_on.set()
        assert unpacked(slow.result(WAIT_S)).any()


def test_no_more_is_in_work_than_there_are_threads(start: Callable[..., Server]) -> None:
    server = start(threads=1)
    go_on, inside, most, lock = threading.Event(), [0], [0], threading.Lock()

    def count() -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        assert go_on.wait(WAIT_S)
        with lock:
            inside[0] -= 1

    server.before["color_encoder"] = count
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(key_of, server, colours(shade, 0, 0)) for shade in (10, 110, 210)]
        done, _ = wait(jobs, timeout=0.2)
        assert not done and server.taken["color"] == 1  # the others are left in Triton's queue
        go_on.set()
        assert len({job.result(WAIT_S) for job in jobs}) == 3
    assert most[0] == 1


def test_unloading_answers_what_is_in_work(start: Callable[..., Server]) -> None:
    server = start(threads=2)
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert go_on.wait(WAIT_S)

    server.before["color_encoder"] = hold
    with ThreadPoolExecutor(2) as pool:
        job = pool.submit(key_of, server, colours(1, 2, 3))
        assert entered.wait(WAIT_S)
        end = pool.submit(server.close)
        go_on.set()
        assert len(job.result(WAIT_S)) == 64
        end.result(WAIT_S)
