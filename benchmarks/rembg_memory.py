"""Memory over time under parallel uploads: boothsam's service beside rembg's, each with a model of the same size.

    python benchmarks/rembg_memory.py --rembg /path/to/venv/bin/rembg [--json FILE] [--chart FILE.png]

rembg is installed by itself: python -m venv rembg && rembg/bin/pip install "rembg[cpu,cli]". Its model here is drawn by
lot: a seeded ONNX with U2-Net's input and output and as many bytes as the starter model's encoder and decoder, loaded
as its u2net_custom; nothing is downloaded. Only memory is compared. The pictures mean nothing, and times are not
compared either, since the two models do not do the same work.

Both servers keep their defaults. N clients send one distinct noisy 12-megapixel JPEG each at the same moment. A client
that boothsam sends away (429 or 503) comes back after Retry-After seconds until it has its picture: both deliver
N pictures. Memory is the resident memory of all of a server's processes, summed. Each N gets fresh servers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from load import pictures
from load.client import Answer, Pieces, form, request
from load.report import environment
from load.server import MemoryLog, rss_bytes, serving, tree

PARALLEL = (1, 8, 32)
MIB = 1 << 20
_SIDE = 320  # U2-Net's


def seeded_model(path: Path, size: int) -> None:
    """An ONNX of about `size` bytes, 1x3x320x320 -> 1x1x320x320: an encoder-decoder of random convolutions.

    Most of the bytes are in the coarse layers, and most of the working memory in the fine ones, as in U2-Net.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []
    # The middle's width makes up the size: 4 bytes x 9 x width squared for each of its two layers.
    fixed = 4 * 9 * (3 * 32 + 32 * 64 + 64 * 32 + 32 * 1)
    width = round((np.sqrt((64 + 64) ** 2 + 4 * 2 * (size - fixed) / 36) - 128) / 4)

    def convolution(name: str, source: str, inside: int, outside: int, stride: int = 1) -> str:
        array = rng.normal(0, (2 / (9 * inside)) ** 0.5, (outside, inside, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(array, f"{name}.weight"))
        nodes.append(helper.make_node("Conv", [source, f"{name}.weight"], [name], pads=[1] * 4, strides=[stride] * 2))
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
        return f"{name}.relu"

    def upscale(name: str, source: str, factor: int) -> str:
        weights.append(numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), f"{name}.scales"))
        nodes.append(helper.make_node("Resize", [source, "", f"{name}.scales"], [name], mode="nearest"))
        return name

    fine = convolution("fine", "image", 3, 32)
    half = convolution("half", fine, 32, 64, stride=2)
    middle = convolution("middle", half, 64, width, stride=8)
    for layer in range(2):
        middle = convolution(f"middle.{layer}", middle, width, width)
    back = convolution("back", middle, width, 64)
    wide = convolution("wide", upscale("up", back, 8), 64, 32)
    last = convolution("last", upscale("full", wide, 2), 32, 1)
    nodes.append(helper.make_node("Sigmoid", [last], ["mask"]))
    shape = [1, 3, _SIDE, _SIDE]
    graph = helper.make_graph(
        nodes,
        "seeded",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, _SIDE, _SIDE])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


@contextlib.contextmanager
def rembg(command: Path, home: Path) -> Iterator[tuple[int, int]]:
    """Port and process of a running `rembg s` without its page."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"REMBG_HOME": str(home), "BROWSER": "true", "HF_HUB_OFFLINE": "1"}
    arguments = ["s", "--no-ui", "--host", "127.0.0.1", "--port", str(port), "--log_level", "error"]
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([str(command), *arguments], stdout=output, stderr=output, env=environment)
    try:
        until = time.monotonic() + 600  # its imports take a while
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"rembg does not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.2)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


async def until_done(port: int, path: str, photo: Pieces, fields: dict[str, str]) -> tuple[Answer, int]:
    """The first answer that is no "come back later", and how often the client came back."""
    body, kind = form(photo, fields, name="image_file" if path == "/crop" else "file")
    for turn in range(1000):
        answer = await request(port, "POST", path, body, {"content-type": kind}, limit_s=900)
        if answer.status not in (429, 503):
            return answer, turn
        await asyncio.sleep(int(answer.headers["retry-after"]))
    raise SystemExit("a client was sent away a thousand times")


async def upload(port: int, path: str, photo: bytes, parallel: int, fields: dict[str, str]) -> dict[str, Any]:
    """`parallel` clients at the same moment; all must get their picture."""
    began = time.monotonic()
    results = await asyncio.gather(
        *(until_done(port, path, pictures.distinct(photo, number), fields) for number in range(parallel))
    )
    failed = sorted({f"{a.status} {a.body[:200]!r}" for a, _ in results if a.status != 200 or a.body[:4] != b"\x89PNG"})
    if failed:
        raise SystemExit(f"{path} answered {failed}")
    return {"seconds": round(time.monotonic() - began, 1), "came_back": sum(turns for _, turns in results)}


def observe(port: int, pid: int, path: str, photo: bytes, parallel: int, fields: dict[str, str]) -> dict[str, Any]:
    """One warm-up photo, two seconds of rest, the uploads, and three seconds of rest; the memory all along."""
    asyncio.run(upload(port, path, pictures.jpeg("small"), 1, fields))
    before = sum(map(rss_bytes, tree(pid)))
    with MemoryLog(pid, every_s=0.05) as memory:
        time.sleep(2)
        told = asyncio.run(upload(port, path, photo, parallel, fields))
        time.sleep(3)
    return told | {
        "before_mib": round(before / MIB),
        "peak_mib": round(memory.peak / MIB),
        "after_mib": round(memory.samples[-1][1] / MIB),
        "samples": thinned([[round(second, 2), round(value / MIB, 1)] for second, value in memory.samples]),
    }


def thinned(samples: list[list[float]], most: int = 150) -> list[list[float]]:
    """At most so many samples, the highest of each stretch: no peak is lost."""
    stretch = -(-len(samples) // most)
    return [max(samples[at : at + stretch], key=lambda sample: sample[1]) for at in range(0, len(samples), stretch)]


def draw(runs: dict[str, dict[str, Any]], path: Path) -> None:
    """One panel per number of uploads: memory over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(runs), figsize=(4.2 * len(runs), 3.6), sharey=True, layout="constrained")
    for panel, (parallel, pair) in zip(np.atleast_1d(panels), runs.items(), strict=True):
        for (name, run), colour in zip(pair.items(), ("#1f6f8b", "#d1495b"), strict=True):
            seconds, mib = np.array(run["samples"]).T
            panel.plot(seconds, mib, color=colour, label=f"{name}: peak {run['peak_mib']} MiB")
        panel.set_title(f"{parallel} parallel upload{'s' if int(parallel) > 1 else ''}")
        panel.set_xlabel("seconds")
        panel.legend(loc="upper right", fontsize=8, frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
    np.atleast_1d(panels)[0].set_ylabel("resident memory of all processes, MiB")
    highest = max(run["peak_mib"] for pair in runs.values() for run in pair.values())
    np.atleast_1d(panels)[0].set_ylim(0, 1.25 * highest)  # room for the legends
    figure.suptitle("Memory while 12-megapixel photos arrive (models of the same size, CPU)", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rembg", type=Path, required=True, help="rembg's command in its own environment")
    parser.add_argument("--parallel", type=int, nargs="+", default=PARALLEL)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    options = parser.parse_args()
    load_before, photo = os.getloadavg()[0], pictures.jpeg("12 MP")
    from boothsam.runtime.store import find_model

    size = sum((find_model(None) / name).stat().st_size for name in ("encoder.onnx", "decoder.onnx"))
    runs: dict[str, dict[str, Any]] = {}
    for parallel in options.parallel:
        pair = runs[str(parallel)] = {}
        with serving() as server:
            pair["boothsam"] = observe(server.port, server.pid, "/crop", photo, parallel, {})
        with tempfile.TemporaryDirectory(prefix="rembg-") as folder:
            model = Path(folder) / "seeded.onnx"
            seeded_model(model, size)
            # It takes the model's name from the form, and its path from the query.
            path = "/api/remove?" + urlencode({"extras": json.dumps({"model_path": str(model)})})
            with rembg(options.rembg, Path(folder)) as (port, pid):
                pair["rembg"] = observe(port, pid, path, photo, parallel, {"model": "u2net_custom"})
        for name, run in pair.items():
            print(f"{parallel:3} parallel, {name}: " + json.dumps({k: v for k, v in run.items() if k != "samples"}))
            sys.stdout.flush()
    python = options.rembg.with_name("python")
    script = "import importlib.metadata as m; print(*map(m.version, ('rembg', 'onnxruntime', 'pillow')))"
    versions = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True).stdout.split()
    if options.chart:
        draw(runs, options.chart)
    if options.json:
        body = {"command": "python benchmarks/rembg_memory.py --rembg rembg"} | environment(load_before)
        body["rembg_versions"] = dict(zip(("rembg", "onnxruntime", "pillow"), versions, strict=True))
        body |= {"photo_bytes": len(photo), "model_bytes": size, "runs": runs}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(body) + "\n")


if __name__ == "__main__":
    main()
