"""Measure the speed targets, one part after the other, into one JSON; write the tables of the documentation from it.

    python -m benchmarks.targets [--threads 1,2] [--only crops,decoder] [--json FILE]      measure
    python -m benchmarks.targets --docs [--json FILE]                                      README, docs/benchmarks.md

A part that is done is in the file at once; `--only` measures some parts anew and keeps the others. Everything runs in
fresh processes that take turns on one 12-megapixel JPEG; ratios are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from boothsam.bench import device
from boothsam.bench.plan import Subject, demo_photo, photos_in
from boothsam.runtime.images import load_image

from benchmarks.targets import docs, rows
from benchmarks.targets.models import CACHE, ROOT, Model, mobile_sam, starter
from benchmarks.targets.parts import PARTS, Scene

RESULT = ROOT / "benchmarks" / "results" / "lab.json"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=_numbers, default=[1, 2], metavar="N,N")
    parser.add_argument("--only", type=_parts, default=list(PARTS), metavar="PART,PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=4, help="even: half of them in reverse order")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="mobile_sam.pt; default: seeded weights")
    parser.add_argument("--photo", type=Path, metavar="FOLDER", help="its first photo; default: the demo photo, 12 MP")
    parser.add_argument("--megapixels", type=float, default=12.0, help="of the demo photo")
    parser.add_argument("--peers", default="", metavar="FOLDER", help="encoder.onnx, decoder.onnx as samexporter's")
    parser.add_argument("--everything", type=Path, metavar="FILE", help="take that part from everything.py's result")
    parser.add_argument("--quick", action="store_true", help="the starter in MobileSAM's place: for a test of the lab")
    parser.add_argument("--docs", action="store_true", help="measure nothing: write the tables from the JSON")
    options = parser.parse_args(arguments)
    if options.docs:
        docs.write(json.loads(options.json.read_text()))
        return
    small = starter()
    large = Model("mobile_sam", small.folder, small.checkpoint, seeded=True) if options.quick else mobile_sam(
        options.checkpoint, CACHE
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        subject = photos_in(options.photo)[0] if options.photo else _demo(Path(scratch), options.megapixels)
        body = _begin(options.json, {"mobile_sam": large.facts(), "starter": small.facts()}, Path(subject.file).name)
        for threads in options.threads:
            for name in options.only:
                print(f"{name}, {threads} thread(s)", file=sys.stderr)
                start = time.perf_counter()
                scene = Scene(large, small, subject, threads, options.rounds, _say, options.peers, options.everything)
                found = {"made": datetime.now(timezone.utc).isoformat(timespec="seconds"), "rounds": options.rounds}
                found |= {"load_average_before": round(os.getloadavg()[0], 1)} | PARTS[name](scene)
                found["wall_s"] = round(time.perf_counter() - start)
                body["threads"].setdefault(str(threads), {})[name] = _rounded(found)
                _save(options.json, body)
    print(rows.terminal(body))


def _demo(folder: Path, megapixels: float) -> Subject:
    """The demo photo with a box whose ellipse fills 38 % of it, as in the probe that the targets were set by."""
    demo = demo_photo(folder, megapixels)
    height, width = load_image(demo.file).shape[:2]
    return Subject(demo.file, (0.16 * width, 0.08 * height, 0.76 * width, 0.88 * height))


def _begin(file: Path, models: dict[str, Any], photo: str) -> dict[str, Any]:
    """The result so far, or a new one. Exits when the file holds figures that new ones must not stand beside."""
    machine = device.facts()
    if not file.exists():
        return {"machine": machine, "models": models, "photo": photo, "threads": {}}
    body: dict[str, Any] = json.loads(file.read_text())
    old = {"cpu": body["machine"].get("cpu"), "models": body["models"], "photo": body["photo"]}
    new = {"cpu": machine.get("cpu"), "models": models, "photo": photo}
    if old != new:
        raise SystemExit(f"{file} was measured with {old}, now it would be {new}; hint: --json OTHER, or remove it")
    return body | {"machine": machine}


def _save(file: Path, body: dict[str, Any]) -> None:
    """Whole or not at all: a run may be stopped at any time."""
    fresh = file.with_suffix(".part")
    fresh.write_text(json.dumps(body, indent=1) + "\n")
    fresh.replace(file)


def _rounded(value: Any) -> Any:
    """Floats to five decimals, everywhere."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parts(text: str) -> list[str]:
    strangers = set(text.split(",")) - set(PARTS)
    if strangers:
        raise argparse.ArgumentTypeError(f"unknown part {min(strangers)!r}; expected {', '.join(PARTS)}")
    return text.split(",")


if __name__ == "__main__":
    main()
