"""Forwarding to a real local server that answers, refuses, asks for time, hangs and resets; and to a folder."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from boothsam.service.captures.outbox import Backoff, Outbox
from boothsam.service.captures.store import CaptureStore
from boothsam.service.captures.targets import FolderTarget, UrlTarget, target_name

from tests.service.captures.conftest import Open, contents, put
from tests.service.captures.receiver import Receiver, receiver

QUICK = Backoff(base_s=0.002, cap_s=0.02)


@pytest.fixture
def remote() -> Iterator[Receiver]:
    with receiver() as state:
        yield state


def run_until(make: Callable[[], Outbox], done: Callable[[], bool], within_s: float = 20.0) -> Outbox:
    """Run an outbox until a condition holds."""

    async def main() -> Outbox:
        outbox = make()
        task = asyncio.create_task(outbox.run())
        deadline = time.monotonic() + within_s
        while not done() and not task.done():
            assert time.monotonic() < deadline, f"not done within {within_s} s; trouble: {outbox.trouble}"
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()
        return outbox

    return asyncio.run(main())


def drain(make: Callable[[], Outbox]) -> Outbox:
    """Forward once what can be forwarded."""

    async def main() -> Outbox:
        outbox = make()
        await outbox.drain()
        return outbox

    return asyncio.run(main())


def for_url(store: CaptureStore, url: str, **options: float) -> Outbox:
    return Outbox(store, UrlTarget(url, "secret", **({"timeout_s": 5.0} | options)), backoff=QUICK)


def states(store: CaptureStore) -> tuple[int, int, int]:
    """(pending, delivered, parked)."""
    status = store.status()
    return status.pending, status.captures - status.pending - status.parked, status.parked


def test_captures_arrive_whole_and_in_order(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))
    captures = [put(store, f"n{i}") for i in range(5)]
    run_until(lambda: for_url(store, remote.url), lambda: states(store) == (0, 5, 0))
    assert [(key, sku) for key, sku, _ in remote.got] == [(c.id, f"n{i}") for i, c in enumerate(captures)]
    for _, sku, files in remote.got:
        assert files == {role: content.data for role, content in contents(sku).items()}
    assert remote.headers[0]["authorization"] == "Bearer secret"


def test_a_new_capture_wakes_the_outbox(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))

    async def main() -> None:
        task = asyncio.create_task(for_url(store, remote.url).run())
        await asyncio.sleep(0.1)
        await asyncio.to_thread(put, store, "late")
        while not remote.got:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(asyncio.wait_for(main(), 20))
    assert [sku for _, sku, _ in remote.got] == ["late"]


def test_a_receiver_answering_500_is_tried_again_and_nothing_is_parked(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))
    for i in range(4):
        put(store, f"n{i}")
    remote.answer = lambda _sku, number: 500 if number <= 60 else 200
    run_until(lambda: for_url(store, remote.url), lambda: states(store) == (0, 4, 0))
    assert len(remote.kept) == 4
    assert len(remote.asked) == 64


def test_a_capture_that_always_gets_500_is_parked_when_others_pass(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))
    for name in ("fine", "poison", "good"):
        put(store, name)
    remote.answer = lambda sku, _number: 500 if sku == "poison" else 200
    run_until(lambda: for_url(store, remote.url), lambda: states(store) == (0, 2, 1))
    assert remote.asked.count("poison") == 8 and set(remote.kept.values()) == {"fine", "good"}
    (parked,) = store.deliveries("parked")
    assert (parked.capture.facts["sku"], parked.attempts, parked.error) == ("poison", 8, "the receiver answered 500")
    remote.answer = lambda _sku, _number: 200
    assert store.release_parked().result(30) == 1
    drain(lambda: for_url(store, remote.url))
    assert states(store) == (0, 3, 0)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refused_capture_is_parked_at_once(open_store: Open, remote: Receiver, status: int) -> None:
    store = open_store(target=target_name(remote.url, ""))
    for name in ("poison", "good"):
        put(store, name)
    remote.answer = lambda sku, _number: status if sku == "poison" else 201
    run_until(lambda: for_url(store, remote.url), lambda: states(store) == (0, 1, 1))
    assert remote.asked == ["poison", "good"]


@pytest.mark.parametrize("status", [401, 403, 404, 307])
def test_wrong_settings_hold_everything_and_park_nothing(open_store: Open, remote: Receiver, status: int) -> None:
    store = open_store(target=target_name(remote.url, ""))
    for i in range(3):
        put(store, f"n{i}")
    remote.answer = lambda _sku, _number: (status, {"Location": "http://127.0.0.1:1/"})
    outbox = drain(lambda: for_url(store, remote.url))
    assert outbox.trouble == f"the receiver answered {status}"
    assert states(store) == (3, 0, 0) and len(remote.asked) == 1
    assert store.deliveries("pending")[0].error == outbox.trouble


def test_429_is_asked_again_only_after_retry_after(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))
    put(store, "a")
    times: list[float] = []

    def answer(_sku: str, number: int) -> object:
        times.append(time.monotonic())
        return (429, {"Retry-After": "1"}) if number == 1 else 200

    remote.answer = answer
    run_until(lambda: for_url(store, remote.url), lambda: states(store) == (0, 1, 0))
    assert len(times) == 2 and times[1] - times[0] >= 1.0, "back-off alone would have come back within 0.02 s"


def test_a_new_photo_does_not_shorten_retry_after(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))
    put(store, "a")
    remote.answer = lambda _sku, _number: (429, {"Retry-After": "3600"})

    async def main() -> None:
        task = asyncio.create_task(for_url(store, remote.url).run())
        while not remote.asked:
            await asyncio.sleep(0.01)
        for i in range(3):
            await asyncio.to_thread(put, store, f"n{i}")
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert remote.asked == ["a"]


def test_a_slow_receiver_is_given_up_and_asked_again(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))
    for name in ("a", "b"):
        put(store, name)
    remote.answer = lambda _sku, number: "hang" if number == 1 else 200
    run_until(lambda: for_url(store, remote.url, timeout_s=0.3), lambda: states(store) == (0, 2, 0))
    assert remote.asked == ["a", "b", "a"], "the slow one goes behind the others"


def test_a_receiver_that_trickles_does_not_hold_the_outbox(open_store: Open) -> None:
    """Bytes that keep coming restart a read timeout; the attempt as a whole must end."""
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    store = open_store(target=target_name(url, ""))
    put(store, "a")

    async def main() -> Outbox:
        async def trickle() -> None:
            loop = asyncio.get_running_loop()
            server.setblocking(False)
            connection, _ = await loop.sock_accept(server)
            with connection:
                for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
                    await loop.sock_sendall(connection, bytes([byte]))
                    await asyncio.sleep(0.05)

        task = asyncio.create_task(trickle())
        outbox = for_url(store, url, timeout_s=0.5)
        await outbox.drain()
        task.cancel()
        await asyncio.wait([task])
        return outbox

    asyncio.run(asyncio.wait_for(main(), 10))
    server.close()
    assert store.deliveries("pending")[0].error == "no answer within 0.5 s"


def test_resets_are_survived(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))
    for i in range(5):
        put(store, f"n{i}", size=400_000)
    remote.answer = lambda _sku, number: "reset" if number % 2 else 200
    run_until(lambda: for_url(store, remote.url), lambda: states(store) == (0, 5, 0))
    assert len(remote.kept) == 5


def test_an_answer_lost_on_the_way_gives_one_capture(open_store: Open, remote: Receiver) -> None:
    """The receiver stored it and the connection broke: the second time it sees the same key."""
    store = open_store(target=target_name(remote.url, ""))
    capture = put(store, "a")

    def answer(sku: str, number: int) -> object:
        if number == 1:
            remote.got.append((capture.id, sku, {}))
            return "reset"
        return 200

    remote.answer = answer
    run_until(lambda: for_url(store, remote.url), lambda: states(store) == (0, 1, 0))
    assert len(remote.got) == 2 and len(remote.kept) == 1


def test_nobody_listens_then_somebody_does(open_store: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/captures"
    store = open_store(target=target_name(url, ""))
    for i in range(3):
        put(store, f"n{i}")
    outbox = drain(lambda: for_url(store, url))
    assert outbox.trouble.startswith("no connection") and states(store) == (3, 0, 0)
    assert [d.attempts for d in store.deliveries("pending")] == [0, 0, 0], "the network is not the captures' fault"
    with receiver(port) as remote:
        run_until(lambda: for_url(store, url), lambda: states(store) == (0, 3, 0))
        assert len(remote.kept) == 3


def test_forwarding_resumes_after_a_restart(open_store: Open, remote: Receiver) -> None:
    target = target_name(remote.url, "")
    store = open_store(target=target)
    for i in range(6):
        put(store, f"n{i}")
    remote.answer = lambda _sku, number: 200 if number <= 2 else "hang"
    run_until(lambda: for_url(store, remote.url), lambda: len(remote.asked) == 3)  # cancelled in the middle of one
    store.close()
    remote.answer = lambda _sku, _number: 200
    again = open_store(target=target)
    assert states(again) == (4, 2, 0)
    run_until(lambda: for_url(again, remote.url), lambda: states(again) == (0, 6, 0))
    assert sorted(remote.kept.values()) == [f"n{i}" for i in range(6)]
    assert remote.asked == ["n0", "n1", "n2", "n2", "n3", "n4", "n5"]


def test_captures_from_before_the_target_was_set_are_forwarded_too(open_store: Open, remote: Receiver) -> None:
    store = open_store()
    put(store, "early")
    store.close()
    again = open_store(target=target_name(remote.url, ""))
    drain(lambda: for_url(again, remote.url))
    assert list(remote.kept.values()) == ["early"]


def test_after_a_rebuild_everything_is_sent_again(open_store: Open, remote: Receiver) -> None:
    """The index knew what was delivered; the receiver knows the keys."""
    target = target_name(remote.url, "")
    store = open_store(target=target)
    put(store, "a")
    drain(lambda: for_url(store, remote.url))
    store.close()
    store.layout.index.write_bytes(b"broken")
    again = open_store(target=target)
    drain(lambda: for_url(again, remote.url))
    assert len(remote.got) == 2 and len(remote.kept) == 1


def test_a_capture_deleted_meanwhile_is_skipped_and_a_lost_file_parked(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))
    gone, lost = put(store, "gone"), put(store, "lost")
    store.path(lost, "mask").unlink()
    pending = store.deliveries("pending")
    store.delete(gone.id, force=True).result(30)

    async def main() -> None:
        outbox = for_url(store, remote.url)
        for delivery in pending:
            await outbox._attempt(delivery)

    asyncio.run(main())
    assert remote.asked == []
    assert states(store) == (0, 0, 1)
    assert "is missing" in store.deliveries("parked")[0].error


def test_a_file_that_cannot_be_read_does_not_stop_the_others(open_store: Open, remote: Receiver) -> None:
    store = open_store(target=target_name(remote.url, ""))
    for name in ("first", "unreadable", "last"):
        put(store, name)
    path = store.path(store.page()[1], "mask")
    path.unlink()
    path.mkdir()
    run_until(lambda: for_url(store, remote.url), lambda: states(store) == (0, 2, 1))
    assert "cannot be read" in store.deliveries("parked")[0].error
    assert set(remote.kept.values()) == {"first", "last"}


# A folder


def test_a_folder_gets_whole_captures_only(open_store: Open, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    store = open_store(target=target_name("", str(stick)))
    capture = put(store, "a")
    make = lambda: Outbox(store, FolderTarget(stick), backoff=QUICK)  # noqa: E731
    outbox = drain(make)
    assert "is not there" in outbox.trouble and not stick.exists(), "the place under a mount point was written to"
    stick.mkdir()
    half = stick / f".{capture.id}.part"
    half.mkdir()
    (half / "original.jpg").write_bytes(b"from a crash")
    drain(make)
    assert states(store) == (0, 1, 0)
    (found,) = stick.iterdir()
    assert found.name == f"000000000001-{capture.id}"
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        "original.jpg": contents("a")["original"].data,
        "mask.png": contents("a")["mask"].data,
        "cutout.png": contents("a")["cutout"].data,
        "capture.json": capture.encode(),
    }
    store.mark(capture.seq, "pending", 0).result(30)  # as after a crash between the rename and the commit
    drain(make)
    assert states(store) == (0, 1, 0) and len(list(stick.iterdir())) == 1


def test_a_folder_that_refuses_is_waited_for(open_store: Open, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    store = open_store(target=target_name("", str(stick)))
    put(store, "a")
    stick.write_text("not a folder")
    assert "is not there" in drain(lambda: Outbox(store, FolderTarget(stick), backoff=QUICK)).trouble
    assert states(store) == (1, 0, 0)


def test_an_outbox_serves_the_target_its_store_was_opened_for(open_store: Open, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="opened for ''"):
        Outbox(open_store(), FolderTarget(tmp_path))


def test_the_record_travels_along(open_store: Open, tmp_path: Path) -> None:
    store = open_store(target=target_name("", str(tmp_path)))
    capture = put(store, "a", gtin="4006381333931")
    drain(lambda: Outbox(store, FolderTarget(tmp_path)))
    record = json.loads((tmp_path / f"000000000001-{capture.id}" / "capture.json").read_text())
    assert record["facts"]["gtin"] == "4006381333931" and record["id"] == capture.id
