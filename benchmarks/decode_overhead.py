"""What the service's decoding worker costs against decoding in the own process, and how fast it refuses bombs.

    taskset -c 0 python benchmarks/decode_overhead.py [--rounds 31] [--json benchmarks/results/decode-overhead.json]

One process, one schedule: both ways decode the same seeded photo in each round, in reverse order every other round,
after one round of warm-up, and their pixels must be equal before any time counts. The overhead is the median of the
differences within a round. On a shared machine trust the processor time, which is that of both processes together: wall
time also counts what others took.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import statistics
import struct
import sys
import time
import zlib
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.images import encode_image, load_image
from boothsam.service.decoding import DecodeWorker
from boothsam.service.problems import ServiceProblem
from PIL import Image

SIZES = {"12 MP": (3000, 4000), "24 MP": (4000, 6000)}
PACKAGES = ("numpy", "pillow", "simplejpeg", "opencv-python-headless")


def photo(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Seeded noise of photo-like scales: large soft shapes, some detail, little grain."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for scale, weight in ((400, 0.6), (40, 0.25), (4, 0.1), (1, 0.05)):
        noise = rng.random((height // scale + 2, width // scale + 2, 3), np.float32)
        total += weight * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (total * 255).clip(0, 255).astype(np.uint8)


def processor_s(pid: int) -> float:
    """Processor time of a process so far, as the kernel's scheduler counts it (nanoseconds, all threads)."""
    return sum(int(p.read_text().split()[0]) for p in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


async def compare(decoder: DecodeWorker, data: bytes, rounds: int) -> dict[str, Any]:
    """Wall and processor milliseconds of both ways, and their paired differences."""
    pids = [os.getpid(), decoder.pid or 0]
    times: dict[str, list[tuple[float, float]]] = {"in-process": [], "worker": []}
    for index in range(rounds + 1):
        answers = []
        for way in ("in-process", "worker") if index % 2 else ("worker", "in-process"):
            busy, began = sum(map(processor_s, pids)), time.perf_counter()
            answers.append(load_image(data) if way == "in-process" else await decoder.decode(data))
            wall = time.perf_counter() - began
            if index:
                times[way].append((1e3 * wall, 1e3 * (sum(map(processor_s, pids)) - busy)))
        if not np.array_equal(*answers):
            raise SystemExit("the worker's pixels differ from load_image's")
    found: dict[str, Any] = {}
    for column, name in enumerate(("wall_ms", "processor_ms")):
        own, other = ([t[column] for t in times[way]] for way in ("in-process", "worker"))
        gaps = sorted(b - a for a, b in zip(own, other, strict=True))
        found[name] = {
            "in_process": round(statistics.median(own), 1),
            "worker": round(statistics.median(other), 1),
            "overhead": round(statistics.median(gaps), 1),
            "overhead_quartiles": [round(gaps[len(gaps) // 4], 1), round(gaps[-1 - len(gaps) // 4], 1)],
            "overhead_min": round(gaps[0], 1),
        }
    return found


def bombs() -> dict[str, bytes]:
    """Small files that unfold to hundreds of megabytes and more."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def png(side: int) -> bytes:
        packer, row = zlib.compressobj(9), bytes(side + 1)
        rows = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

    def pillow(side: int, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (side, side)).save(buffer, kind, **options)
        return buffer.getvalue()

    return {
        "PNG 9400x9400": png(9400),
        "PNG 30000x30000": png(30000),
        "WebP 13300x13300": pillow(13300, "WEBP", lossless=True, method=0),
        "JPEG 13300x13300": pillow(13300, "JPEG", quality=75),
    }


async def refusals(decoder: DecodeWorker) -> dict[str, dict[str, float]]:
    """Size and slowest of 20 refusals of each bomb."""
    found = {}
    for name, data in bombs().items():
        slowest = 0.0
        for _ in range(20):
            began = time.perf_counter()
            try:
                await decoder.decode(data)
            except ServiceProblem as refusal:
                if refusal.code != "too_many_pixels":
                    raise
            else:
                raise SystemExit(f"{name} was accepted")
            slowest = max(slowest, time.perf_counter() - began)
        found[name] = {"bytes": len(data), "slowest_of_20_ms": round(1e3 * slowest, 3)}
    return found


async def measure(rounds: int) -> dict[str, Any]:
    """All figures."""
    decoder = DecodeWorker()
    began = time.perf_counter()
    decoder.start()
    try:
        await decoder.decode(encode_image(np.zeros((8, 8, 3), np.uint8), "png"))
        found: dict[str, Any] = {"first_answer_s": round(time.perf_counter() - began, 2), "photos": {}}
        for name, size in SIZES.items():
            data = encode_image(photo(*size), "jpg", quality=92)
            figures = await compare(decoder, data, rounds)
            found["photos"][f"{name} JPEG"] = {"mib": round(len(data) / 2**20, 1)} | figures
            print(name, json.dumps(figures))
        found["bombs"] = await refusals(decoder)
        print(json.dumps(found["bombs"]))
        return found
    finally:
        decoder.close()


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    results = asyncio.run(measure(options.rounds))
    if options.json:
        body = {
            "command": f"python benchmarks/decode_overhead.py --rounds {options.rounds}",
            "date": date.today().isoformat(),
            "processor": processor(),
            "cores_used": len(os.sched_getaffinity(0)),
            "load_average_before_and_after": [round(load, 1), round(os.getloadavg()[0], 1)],
            "python": sys.version.split()[0],
            "versions": {name: version(name) for name in PACKAGES},
            "rounds": options.rounds,
            **results,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
