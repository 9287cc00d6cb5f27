"""Photos a second of `boothsam batch` against a loop over what `boothsam crop` does for each photo.

    python benchmarks/batch_throughput.py [FOLDER] [--threads 2] [--rounds 3] [--auto] [--json FILE]

Both run in this process with the same model, threads and options, and load the model anew each time; they take turns,
the first one changing from round to round, and their pictures must be the same byte for byte. Without a folder the
photos are crops of the bundled one, scaled to 12 megapixels. Times are wall clock, the ratio is the median of
the ratios within a round. On a busy machine even the ratio flatters the batch, whose threads get more of the cores than
one thread gets: `load_average` tells, and the CPU seconds show what the work itself takes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
from datetime import date
from importlib.resources import files
from pathlib import Path

import cv2
import onnxruntime
from boothsam.runtime.images import load_image, save_image
from boothsam.service.batch.predictor import ModelChoice
from boothsam.service.batch.running import Batch, Local, run_items
from boothsam.service.batch.sources import Defaults, find_items
from boothsam.service.batch.work import Item, Policy
from boothsam.service.cropping import Look, crop_photo
from boothsam.service.outputs import Task
from boothsam.service.prompts import Request


def make_photos(folder: Path, count: int) -> None:
    """Photos of 12 megapixels, each another part of the bundled one."""
    photo = load_image(files("boothsam.runtime.demo").joinpath("coffee.jpg").read_bytes())
    height, width = photo.shape[:2]
    for number in range(count):
        part = photo[number : height - number, number : width - number]
        save_image(folder / f"{number:02d}.jpg", cv2.resize(part, (4000, 3000), interpolation=cv2.INTER_CUBIC))


def loop(items: list[Item], choice: ModelChoice, out: Path) -> None:
    """As `boothsam crop` does it, one photo after the other."""
    model = choice.load()
    for item in items:
        task = Task(item.photo, (out / f"{item.name}.png",))
        crop_photo(model, task, item.request, item.look, only=True)
    model.close()


def batch(items: list[Item], choice: ModelChoice, out: Path) -> None:
    """As `boothsam batch` does it, with its journal."""
    with Batch.open(out, Policy()) as opened:
        result = run_items(opened, items, Local(choice, out), threading.Event())
    if result.error is not None or result.counter.failed:
        raise SystemExit(f"{result.counter.failed} photos failed: {result.error}")


def hashes(out: Path) -> dict[str, str]:
    """Each picture's content."""
    found = (p for p in out.rglob("*.png"))
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--auto", action="store_true", help="find the product instead of asking with a box")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    box = (0.1 * 4000, 0.1 * 3000, 0.9 * 4000, 0.9 * 3000)
    auto = options.auto or options.folder is not None
    defaults = Defaults(Request(auto=True) if auto else Request(boxes=(box,)), Look("png"))
    choice = ModelChoice(backend="ort-cpu", threads=options.threads)
    seconds: dict[str, list[float]] = {"loop": [], "batch": []}
    cpu_seconds: dict[str, list[float]] = {"loop": [], "batch": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "photos"
        if options.folder is None:
            folder.mkdir()
            make_photos(folder, options.photos)
        items = find_items([str(folder)], Path(scratch) / "out", defaults)
        for turn in range(options.rounds):
            pictures = {}
            for name in ("loop", "batch") if turn % 2 else ("batch", "loop"):
                out = Path(scratch) / f"{name}-{turn}"
                start, worked = time.perf_counter(), time.process_time()
                (loop if name == "loop" else batch)(items, choice, out)
                seconds[name].append(time.perf_counter() - start)
                cpu_seconds[name].append(time.process_time() - worked)
                pictures[name] = hashes(out)
            if pictures["loop"] != pictures["batch"]:
                raise SystemExit("the pictures differ: no time is worth printing")
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    ratios = [a / b for a, b in zip(seconds["loop"], seconds["batch"], strict=True)]
    body = {
        "date": date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "machine": {
            "cpu": cpu.split(":")[1].strip(),
            "platform": f"{platform.system()} {platform.machine()}",
            "threads": options.threads,
            "cores": len(os.sched_getaffinity(0)),
        },
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__},
        "photos": len(items),
        "prompt": "auto" if auto else "box",
        "rounds": options.rounds,
        "photos_per_second": {name: round(len(items) / statistics.median(runs), 2) for name, runs in seconds.items()},
        "cpu_seconds_per_photo": {
            name: round(statistics.median(runs) / len(items), 3) for name, runs in cpu_seconds.items()
        },
        "load_average": round(os.getloadavg()[0], 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "pictures_equal": True,
    }
    print(json.dumps(body, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
