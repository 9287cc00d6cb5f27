"""The decoding worker against bombs, lies, damage, its own death and its own hanging."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import load_image
from boothsam.service.decoding import DecodeWorker
from boothsam.service.image_header import read_header
from boothsam.service.problems import ServiceProblem
from PIL import Image

from tests.service.uploads import chunk, encoded, jpeg_bomb, photo, png, png_bomb, webp_bomb

SMALL = encoded(photo(), "PNG")


@asynccontextmanager
async def worker(**options: Any) -> AsyncIterator[DecodeWorker]:
    decoder = DecodeWorker(**options)
    decoder.start()
    try:
        yield decoder
    finally:
        decoder.close()


def with_worker(test: Callable[[DecodeWorker], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with worker(**options) as decoder:
            await test(decoder)

    asyncio.run(run())


async def code(decoder: DecodeWorker, data: bytes) -> str:
    with pytest.raises(ServiceProblem) as refusal:
        await decoder.decode(data)
    return refusal.value.code


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pixels_are_those_of_load_image(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo(), kind, exif=exif)

    async def test(decoder: DecodeWorker) -> None:
        for form in (data, bytearray(data), memoryview(data)):
            pixels = await decoder.decode(form)
            np.testing.assert_array_equal(pixels, load_image(data))
            assert pixels.shape == (90, 60, 3) and pixels.flags.writeable and pixels.flags.c_contiguous

    with_worker(test)


def test_a_frame_is_the_callers_own_whatever_is_decoded_next() -> None:
    async def test(decoder: DecodeWorker) -> None:
        first = await decoder.decode(SMALL)
        await decoder.decode(encoded(np.zeros((60, 90, 3), np.uint8), "PNG"))
        decoder.close()
        np.testing.assert_array_equal(first, photo())

    with_worker(test)


def test_many_at_once_each_get_their_own_pixels() -> None:
    pictures = [np.full((40 + i, 50, 3), 10 * i, np.uint8) for i in range(12)]

    async def test(decoder: DecodeWorker) -> None:
        found = await asyncio.gather(*(decoder.decode(encoded(p, "PNG")) for p in pictures))
        for picture, pixels in zip(pictures, found, strict=True):
            np.testing.assert_array_equal(picture, pixels)

    with_worker(test)


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    return {
        "png 88 MP": png_bomb(9400),
        "png 900 MP": png(30000, 30000, data=bytes(3 << 20)),
        "webp 177 MP": webp_bomb(13300),
        "jpeg 177 MP": jpeg_bomb(13300),
        "thin": png(60000, 1),
    }


def test_bombs_are_refused_from_their_header_by_this_process(bombs: dict[str, bytes]) -> None:
    async def test(decoder: DecodeWorker) -> None:
        await decoder.decode(SMALL)
        assert decoder.pid is not None
        os.kill(decoder.pid, signal.SIGSTOP)  # it could not answer if it were asked
        for name, bomb in bombs.items():
            assert await code(decoder, bomb) == "too_many_pixels", name
        os.kill(decoder.pid, signal.SIGCONT)
        assert decoder.replaced == 0

    with_worker(test)


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" + bytes(40), b"BM" + bytes(40), b"II*\0" + bytes(40), b"MM\0*" + bytes(40), b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<!DOCTYPE html>", b"\0\0\0\x18ftypheic" + bytes(40),
        b"\0\0\0\x18ftypavif" + bytes(40), b"8BPS" + bytes(40), b"PK\x03\x04" + bytes(40), b"hello", b"\0", b"\xff\xd8",
        b"RIFF\0\0\0\0WAVE" + bytes(40), b" " + SMALL, b"SIMPLE  =" + bytes(40), b"%!PS-Adobe", b"\x1f\x8b" + bytes(9),
    ],
)  # fmt: skip
def test_other_formats_are_refused_by_content(data: bytes) -> None:
    with pytest.raises(ServiceProblem, match="expected JPEG, PNG or WebP") as refusal:
        read_header(data)
    assert refusal.value.code == "unsupported_media" and refusal.value.status == 415 and refusal.value.hint


def _segments(body: bytes) -> bytes:
    return b"\xff\xd8" + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        SMALL[:20],
        png(0, 5),
        png(5, 0),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"x" * 30),
        b"RIFF\x20\0\0\0WEBPVP8 " + bytes(30),
        b"RIFF\x20\0\0\0WEBPVP8Q" + bytes(30),
        b"RIFF\x20\0\0\0WEBPVP8L",
        _segments(b"\xff\xe0\0\x10" + bytes(4)),
        _segments(b"\xff\xda\0\x08" + bytes(30)),
        _segments(b"\xff\xc0\0\x11\x08\0\0\0\x10\x03" + bytes(30)),
        _segments(b"\xff\xff" * 20000),
        _segments(b"\xff\xe0\0\x02" * 20000),
        _segments(b"\xff\xe0\0\0" * 20000),
        _segments(b"\xff\xc0\0\x11\x08"),
    ],
)
def test_headers_without_a_size_are_broken_images(data: bytes) -> None:
    with pytest.raises(ServiceProblem) as refusal:
        read_header(data)
    assert refusal.value.code == "broken_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (123, 457)])
def test_the_size_is_read_as_pillow_reads_it(kind: str, size: tuple[int, int]) -> None:
    options: list[dict[str, Any]] = [{}]
    if kind == "JPEG":
        options += [{"progressive": True}, {"exif": Image.Exif().tobytes(), "icc_profile": bytes(200_000)}]
    if kind == "WEBP":
        options += [{"lossless": True}, {"exif": b"Exif\0\0" + bytes(30)}]
    for option in options:
        found = read_header(encoded(photo(*size), kind, **option))
        assert (found.format, found.height, found.width) == (kind, *size)


def _truncated() -> Iterator[tuple[str, bytes]]:
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(np.random.default_rng(1).integers(0, 255, (80, 80, 3), np.uint8), kind)
        yield f"{kind} half", data[: len(data) // 2]
        yield f"{kind} less its last 100 bytes", data[:-100]
    yield "PNG that announces more rows than it has", png(100, 100, data=b"")
    lying = bytearray(encoded(photo(), "PNG"))
    lying[16:24] = struct.pack(">II", 90, 61)
    yield "PNG with a patched size", bytes(lying)
    # The header that counts here says 16x16; Pillow goes by the frame that follows and is larger.
    canvas = bytearray(encoded(photo(64, 64), "WEBP", exif=b"Exif\0\0" + bytes(30)))
    canvas[24:30] = (15).to_bytes(3, "little") * 2
    yield "WebP whose canvas is smaller than its frame", bytes(canvas)


def test_truncated_and_lying_files_are_broken_images_and_the_worker_lives() -> None:
    async def test(decoder: DecodeWorker) -> None:
        await decoder.decode(SMALL)
        pid = decoder.pid
        for name, data in _truncated():
            assert await code(decoder, data) == "broken_image", name
        np.testing.assert_array_equal(await decoder.decode(SMALL), photo())
        assert decoder.pid == pid and decoder.replaced == 0

    with_worker(test)


def test_500_mutated_files_harm_nobody() -> None:
    rng = np.random.default_rng(7)
    seeds = [encoded(photo(), kind) for kind in ("JPEG", "PNG", "WEBP")]

    async def test(decoder: DecodeWorker) -> None:
        codes = set()
        for i in range(500):
            data = bytearray(seeds[i % 3])
            for at in rng.integers(0, len(data), rng.integers(1, 12)):
                data[at] = rng.integers(0, 256)
            try:
                await decoder.decode(bytes(data))
            except ServiceProblem as refusal:
                codes.add(refusal.code)
        assert codes <= {"broken_image", "unsupported_media", "too_many_pixels"}
        assert "broken_image" in codes
        np.testing.assert_array_equal(await decoder.decode(SMALL), photo())

    with_worker(test)


def test_a_worker_killed_while_idle_costs_no_photo() -> None:
    async def test(decoder: DecodeWorker) -> None:
        await decoder.decode(SMALL)
        assert decoder.pid is not None
        os.kill(decoder.pid, signal.SIGKILL)
        np.testing.assert_array_equal(await decoder.decode(SMALL), photo())

    with_worker(test)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture(scope="module")
def slow() -> bytes:
    """Takes long enough to be caught in the middle."""
    return encoded(np.zeros((6000, 6000, 3), np.uint8), "PNG", compress_level=1)


async def _in_work(decoder: DecodeWorker, slow: bytes) -> tuple[int, asyncio.Task[Any]]:
    """The worker stopped in the middle of a photo."""
    await decoder.decode(SMALL)
    pid = decoder.pid
    assert pid is not None
    idle = _resident(pid)
    task = asyncio.create_task(decoder.decode(slow))
    while _resident(pid) < idle + (20 << 20):
        assert not task.done()
        await asyncio.sleep(0.002)
    os.kill(pid, signal.SIGSTOP)
    return pid, task


def test_a_worker_that_hangs_while_idle_costs_no_photo() -> None:
    async def test(decoder: DecodeWorker) -> None:
        await decoder.decode(SMALL)
        pid = decoder.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        np.testing.assert_array_equal(await decoder.decode(SMALL), photo())
        assert decoder.pid != pid and decoder.replaced == 1

    with_worker(test, timeout_s=2)


def test_a_worker_that_dies_over_a_photo_makes_it_broken_and_is_replaced(slow: bytes) -> None:
    async def test(decoder: DecodeWorker) -> None:
        pid, task = await _in_work(decoder, slow)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServiceProblem, match="signal 9") as refusal:
            await task
        assert refusal.value.code == "broken_image" and decoder.replaced == 1
        np.testing.assert_array_equal(await decoder.decode(SMALL), photo())
        assert decoder.pid != pid

    with_worker(test)


def test_a_worker_that_hangs_is_killed_and_replaced(slow: bytes) -> None:
    async def test(decoder: DecodeWorker) -> None:
        pid, task = await _in_work(decoder, slow)
        with pytest.raises(ServiceProblem, match="stopped after 3 s") as refusal:
            await task
        assert refusal.value.code == "decode_timeout"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        decoder.timeout_s = 30
        np.testing.assert_array_equal(await decoder.decode(SMALL), photo())

    with_worker(test, timeout_s=3)


def test_memory_beyond_the_limit_is_refused_and_the_worker_lives() -> None:
    big = encoded(np.zeros((5000, 5000, 3), np.uint8), "PNG", compress_level=1)

    async def test(decoder: DecodeWorker) -> None:
        await decoder.decode(SMALL)
        pid = decoder.pid
        assert await code(decoder, big) == "too_many_pixels"
        np.testing.assert_array_equal(await decoder.decode(SMALL), photo())
        assert decoder.pid == pid

    with_worker(test, memory_bytes=100 << 20)


def test_a_chunk_that_inflates_to_gigabytes_ends_inside_the_workers_limits() -> None:
    bomb = b"\0\0" + zlib.compress(bytes(64 << 20), 9)
    data = png(50, 50, data=zlib.compress(bytes(51 * 50)), extra=chunk(b"iCCP", b"x" + bomb) * 40)
    assert len(bomb) < 100_000

    async def test(decoder: DecodeWorker) -> None:
        try:
            await decoder.decode(data)
        except ServiceProblem as refusal:
            assert refusal.code in ("broken_image", "too_many_pixels", "decode_timeout")
        np.testing.assert_array_equal(await decoder.decode(SMALL), photo())

    with_worker(test, memory_bytes=200 << 20)


def test_a_cancelled_call_leaves_the_next_one_its_own_answer(slow: bytes) -> None:
    async def test(decoder: DecodeWorker) -> None:
        pid, task = await _in_work(decoder, slow)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        os.kill(pid, signal.SIGCONT)
        other = np.full((33, 44, 3), 200, np.uint8)
        np.testing.assert_array_equal(await decoder.decode(encoded(other, "PNG")), other)
        assert decoder.pid == pid and decoder.replaced == 0

    with_worker(test)


def test_the_worker_is_replaced_after_its_share_without_a_pause() -> None:
    async def test(decoder: DecodeWorker) -> None:
        await decoder.decode(SMALL)
        first, pids, until = decoder.pid, set(), time.monotonic() + 20
        while time.monotonic() < until and decoder.pid == first:
            np.testing.assert_array_equal(await decoder.decode(SMALL), photo())
            pids.add(decoder.pid)
        assert decoder.pid != first and decoder.replaced == 0 and first in pids
        with pytest.raises(ProcessLookupError):
            os.kill(first or 0, 0)

    with_worker(test, recycle=3)


def test_closing_ends_the_process_and_what_it_was_doing(slow: bytes) -> None:
    async def test(decoder: DecodeWorker) -> None:
        pid, task = await _in_work(decoder, slow)
        decoder.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert await code(decoder, SMALL) == "draining"

    with_worker(test)


def test_the_worker_ends_quietly_when_its_parent_ends_with_a_message_unread() -> None:
    """A service stopped while its worker starts: the socket is then reset instead of closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        theirs,
        subprocess.Popen(
            [sys.executable, "-m", "boothsam.service.decode_child", str(theirs.fileno()), str(1 << 30)],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        ) as worker,
    ):
        assert select.select([ours], [], [], 60)[0], "the worker says when it is ready"
        ours.close()
        errors = worker.communicate(timeout=60)[1]
    assert (worker.returncode, errors) == (0, b"")


def test_the_worker_ignores_the_groups_signals_and_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTHSAM_TOKEN", "a-secret")

    async def test(decoder: DecodeWorker) -> None:
        await decoder.decode(SMALL)
        pid = decoder.pid
        assert pid is not None
        for ignored in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid, ignored)
        await decoder.decode(SMALL)
        assert decoder.pid == pid
        assert b"a-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        links = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        assert sum(link.startswith("socket:") for link in links) == 1

    with_worker(test)


def test_big_frames_are_not_kept_between_photos() -> None:
    big = encoded(np.zeros((5000, 5100, 3), np.uint8), "PNG", compress_level=1)

    async def test(decoder: DecodeWorker) -> None:
        assert (await decoder.decode(big)).shape == (5000, 5100, 3)
        for pid in (os.getpid(), decoder.pid):
            assert "boothsam-frame" not in Path(f"/proc/{pid}/maps").read_text(), pid
        await decoder.decode(SMALL)
        assert "boothsam-frame" in Path(f"/proc/{decoder.pid}/maps").read_text()

    with_worker(test)


def test_the_worker_loads_no_framework_and_no_backend() -> None:
    code = "import sys, boothsam.service.decode_child; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"fastapi", "starlette", "pydantic", "uvicorn", "onnxruntime", "torch"} & set(loaded)
