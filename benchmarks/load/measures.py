"""What is done to the service, one function per figure or group of figures; each returns facts.

An answer is "wrong" when it is a server error that was not meant (anything from 500 on but 503 and 507), a refusal for
want of room without Retry-After, or no answer at all.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Any

from load import pictures
from load.client import Answer, post_photo, request
from load.probe import HealthProbe
from load.server import MemoryLog, Server, rss_bytes, tree

MIB = 1 << 20
MEANT = (200, 429, 503)  # under load
BOX = "75,50,325,250"  # on a 400x300 photo


def wrong(answer: Answer) -> str:
    """Why an answer is wrong; empty when it is not."""
    if answer.status >= 500 and answer.status not in (503, 507):
        return f"{answer.status} {answer.code}"
    if answer.status in (429, 503) and not answer.headers.get("retry-after", "").isdigit():
        return f"{answer.status} {answer.code} without Retry-After"
    return ""


async def ask(sent: Awaitable[Answer]) -> tuple[Answer | None, str]:
    """An answer and what is wrong with it; a connection that ends without one is wrong as well."""
    try:
        answer = await sent
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        return None, f"no answer: {type(error).__name__}"
    return answer, wrong(answer)


def crop(server: Server, photo: bytes, number: int, fields: dict[str, str]) -> Awaitable[Answer]:
    """POST /crop with a JPEG that no other number has."""
    return post_photo(server.port, pictures.distinct(photo, number), fields=fields)


def tally(answers: Iterable[Answer | None]) -> dict[str, int]:
    """How often each status with its code came."""
    names = ("no answer" if a is None else f"{a.status} {a.code}".strip() for a in answers)
    return dict(sorted(Counter(names).items()))


async def send_bombs(server: Server, bombs: dict[str, bytes], rounds: int) -> dict[str, Any]:
    """Each bomb `rounds` times, one after the other: the slowest refusal, and what memory it took."""
    before, found, mistakes = sum(map(rss_bytes, tree(server.pid))), {}, []
    with MemoryLog(server.pid, every_s=0.005) as memory:
        for name, data in bombs.items():
            answers = [await post_photo(server.port, [data]) for _ in range(rounds)]
            mistakes += [f"{name}: {a.status} {a.code}" for a in answers if a.code != "too_many_pixels"]
            slowest = max(a.seconds for a in answers)
            found[name] = {"bytes": len(data), "slowest_ms": round(1e3 * slowest, 1), "status": answers[0].status}
    return {"bombs": found, "mistakes": mistakes, "extra_mib": round((memory.peak - before) / MIB, 1)}


async def send_damaged(server: Server, files: Iterable[bytes]) -> dict[str, Any]:
    """Damaged files, one after the other; the statuses, and how many decoding workers they cost."""
    answers, mistakes = [], []
    for number, data in enumerate(files):
        answer, mistake = await ask(post_photo(server.port, [data], fields={"box": "20,10,70,50"}))
        answers.append(answer)
        mistakes += [f"file {number}: {mistake}"] if mistake else []
    replaced = int(await asyncio.to_thread(server.metric, "boothsam_decoders_replaced"))
    return {"answers": tally(answers), "mistakes": mistakes, "decoders_replaced": replaced}


async def keep_full(
    server: Server, photo: bytes, clients: int, seconds: float, fields: dict[str, str]
) -> dict[str, Any]:
    """`clients` keep the queue full with distinct photos, while others try to get in and /healthz is asked.

    reject_ms: from before the connection to the end of the 429, of uploads of the same size.
    """
    until, rejected, answers, mistakes = time.monotonic() + seconds, [], [], []
    numbers = iter(range(10**9))

    def note(answer: Answer | None, mistake: str) -> None:
        answers.append(answer)
        mistakes.extend([mistake] if mistake else [])

    async def fill() -> None:
        while time.monotonic() < until:
            answer, mistake = await ask(crop(server, photo, next(numbers), fields))
            note(answer, mistake)
            if answer is not None and answer.status == 429:
                await asyncio.sleep(0.3)

    async def knock() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(0.05)
            answer, mistake = await ask(crop(server, photo, next(numbers), fields))
            note(answer, mistake)
            if answer is not None and answer.status == 429:
                rejected.append(answer.seconds)

    with HealthProbe(server.port) as health:
        filling = [asyncio.create_task(fill()) for _ in range(clients)]
        await asyncio.sleep(1)
        await asyncio.gather(knock(), *filling)
    return {"rejected_s": rejected, "health_s": health.seconds, "answers": tally(answers), "mistakes": mistakes}


async def flood(server: Server, photo: bytes, clients: int, fields: dict[str, str]) -> dict[str, Any]:
    """`clients` distinct uploads at the same moment, once each: peak memory of the server's processes, the answers."""
    before = sum(map(rss_bytes, tree(server.pid)))
    with MemoryLog(server.pid) as memory:
        results = await asyncio.gather(*(ask(crop(server, photo, number, fields)) for number in range(clients)))
    await asyncio.sleep(1)
    mistakes = [mistake for _, mistake in results if mistake]
    mistakes += [f"{a.status} {a.code}" for a, mistake in results if a and not mistake and a.status not in MEANT]
    return {
        "peak_mib": round(memory.peak / MIB),
        "peak_pss_mib": round(memory.peak_pss / MIB),
        "before_mib": round(before / MIB),
        "after_mib": round(sum(map(rss_bytes, tree(server.pid))) / MIB),
        "answers": tally(a for a, _ in results),
        "mistakes": mistakes,
    }


async def soak(server: Server, crops: int, warm_up: int) -> dict[str, Any]:
    """Distinct photos of several sizes and formats, two at a time, and how much memory grows after the warm-up.

    drift_mib: the highest level in the last tenth, less that in the first tenth after the warm-up, which has to fill
    the cache of embeddings.
    """
    files = [
        (pictures.jpeg("small"), {"box": BOX, "format": "jpg", "background": "white"}),
        (pictures.jpeg("small"), {}),
        (pictures.jpeg("small"), {"points": "200,150", "background": "white", "fill": "0.85", "size": "500"}),
        (pictures.encoded(pictures.photo(450, 600), "JPEG", quality=80), {"box": "150,100,450,350", "format": "webp"}),
        (pictures.encoded(pictures.photo(600, 800), "JPEG", quality=80), {"shadow": "drop", "box": "200,130,600,470"}),
    ]
    levels: list[int] = []
    mistakes: list[str] = []
    numbers = iter(range(warm_up + crops))
    began = time.monotonic()

    async def work() -> None:
        for number in numbers:
            data, fields = files[number % len(files)]
            answer, mistake = await ask(crop(server, data, number, fields))
            if answer is None or answer.status != 200:
                mistakes.append(mistake or f"{tally([answer])}")
            levels.append(sum(map(rss_bytes, [server.pid, *children])))
            if number % 100 == 0:
                children[:] = tree(server.pid)[1:]

    children = tree(server.pid)[1:]
    await asyncio.gather(work(), work())
    kept = levels[warm_up:]
    tenth = max(1, len(kept) // 10)
    return {
        "crops": crops,
        "warm_up": warm_up,
        "drift_mib": round((max(kept[-tenth:]) - max(kept[:tenth])) / MIB, 1),
        "levels_mib": [round(max(kept[start : start + tenth]) / MIB, 1) for start in range(0, tenth * 10, tenth)],
        "crops_per_s": round((warm_up + crops) / (time.monotonic() - began), 2),
        "mistakes": mistakes[:20],
    }


async def among_idle(server: Server, photo: bytes, sockets: int) -> dict[str, Any]:
    """Half of the sockets say nothing, half send half a header; how long a real request takes meanwhile."""
    opened = []
    try:
        for number in range(sockets):
            one = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            opened.append(one)
            if number % 2:
                one.sendall(b"POST /crop HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
        answer, mistake = await ask(post_photo(server.port, [photo], fields={"box": BOX}))
    finally:
        for one in opened:
            one.close()
    refused = [] if answer is None or answer.status == 200 else [f"{answer.status} {answer.code}"]
    return {"seconds": answer.seconds if answer else 0.0, "mistakes": [mistake] if mistake else refused}


async def click_again(server: Server, photo: bytes, clicks: int) -> dict[str, Any]:
    """Clicks on a photo that was analysed before: whole time, the decoder's own, the mask's file, and the rest."""
    made = await post_photo(server.port, [photo], "/embeddings")
    if made.status != 200:
        return {"mistakes": [f"{made.status} {made.code}"]}
    key, (height, width) = made.json()["id"], made.json()["size_hw"]
    headers = {"content-type": "application/json", "accept": "image/png"}
    whole, decoder, file, rest = [], [], [], []
    for number in range(clicks + 3):
        point = f'{{"points": [[{width // 2 + number}, {height // 2}]], "multimask": false}}'.encode()
        answer = await request(server.port, "POST", f"/embeddings/{key}/segment", [point], headers)
        if answer.status != 200:
            return {"mistakes": [f"{answer.status} {answer.code}"]}
        parts = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
        if "decode" in parts or "embed" in parts:
            return {"mistakes": ["a click decoded or analysed the photo again"]}
        if number >= 3:
            whole.append(1e3 * answer.seconds)
            decoder.append(float(parts["mask"]))
            file.append(float(parts["encode"]))
            rest.append(whole[-1] - decoder[-1] - file[-1])
    return {"whole_ms": whole, "decoder_ms": decoder, "file_ms": file, "rest_ms": rest, "mistakes": []}
