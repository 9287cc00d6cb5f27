"""MobileSAM in PyTorch against its export in ONNX Runtime, and the starter model beside them: the README's table.

    python benchmarks/torch_vs_onnx.py [--threads 2] [--rounds 7] [--checkpoint mobile_sam.pt] [--json FILE]

One process, one schedule: all candidates take turns, in reverse order every other round, after one round of warm-up.
PyTorch
and ONNX Runtime get the same weights, and their masks must agree (IoU >= 0.999) before any time counts. Without a
checkpoint MobileSAM gets seeded weights: latency does not depend on them. Times are wall clock; on a shared machine
trust the
ratios, which are medians of the ratios within a round.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from boothsam.export.architectures.sam import Sam, build
from boothsam.export.checkpoints import load_checkpoint
from boothsam.export.fast_decoder import PREPARED
from boothsam.export.to_onnx import export_model
from boothsam.export.torch_session import torch_model
from boothsam.runtime.images import load_image
from boothsam.runtime.manifest import ModelManifest, record_files
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.model import Prompts, SamModel

Steps = dict[str, Callable[[], Any]]


def seeded_mobile_sam() -> Sam:
    """MobileSAM with random weights and BatchNorm statistics near those of a trained one."""
    torch.manual_seed(0)
    sam = build("vit_t")
    for module in sam.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    return sam.eval()


def exported(sam: Sam, folder: Path, threads: int) -> SamModel:
    """The same weights in ONNX Runtime."""
    paths = export_model(sam, folder)
    graphs = {"fp32": {graph: path.name for graph, path in paths.items()}}
    ModelManifest(
        "mobile_sam", "vit_t", "", graphs, ("image_embedding",), record_files(folder), prepared=PREPARED
    ).save(folder)
    return SamModel.load(folder, backend="ort-cpu", threads=threads)


def steps(name: str, model: SamModel, photo: np.ndarray) -> Steps:
    """Encoder (with what is computed once per photo), and decoder for one box and for eight."""
    embedding = model.encode(photo)
    height, width = photo.shape[:2]
    box = np.array([0.12 * width, 0.04 * height, 0.8 * width, 0.98 * height])
    one, eight = Prompts.make(box_xyxy=box), Prompts.make(box_xyxy=np.tile(box, (8, 1)))
    return {
        f"{name}/encoder": lambda: model.encode(photo),
        f"{name}/decoder, 1 box": lambda: model.decode(embedding, one),
        f"{name}/decoder, 8 boxes": lambda: model.decode(embedding, eight),
    }


def assert_agreement(a: SamModel, b: SamModel, photo: np.ndarray) -> dict[str, float]:
    """Agreement of the two on three prompts; refuses to go on when it is none.

    Masks are cut at the middle of their logits' range: seeded weights may leave all logits on one side of zero.
    """
    height, width = photo.shape[:2]
    asked = [
        Prompts.make(box_xyxy=[0.12 * width, 0.04 * height, 0.8 * width, 0.98 * height]),
        Prompts.make([[width / 2, height / 2]], [1]),
        Prompts.make([[width / 2, height / 2], [5, 5]], [1, 0]),
    ]
    ious, differences = [], []
    first, second = a.encode(photo), b.encode(photo)
    for prompt in asked:
        pairs = zip(a.decode(first, prompt).low_res_masks[0], b.decode(second, prompt).low_res_masks[0], strict=True)
        for x, y in pairs:
            middle = (x.max() + x.min()) / 2
            ious.append(mask_iou(x > middle, y > middle))
            differences.append(float(np.abs(x - y).max() / x.std()))
    found = {"mask_iou_min": min(ious), "logit_difference_in_deviations": max(differences)}
    if min(ious) < 0.999 or max(differences) > 1e-2:
        raise SystemExit(f"the implementations disagree, {found}: no time is worth printing")
    return found


def measure(candidates: Steps, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every candidate in every round."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(-1, rounds):
        order = list(candidates) if turn % 2 else list(candidates)[::-1]
        for name in order:
            start = time.perf_counter()
            candidates[name]()
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    photo = load_image(files("boothsam.runtime.demo").joinpath("coffee.jpg").read_bytes())
    sam = load_checkpoint(options.checkpoint, "vit_t").sam if options.checkpoint else seeded_mobile_sam()
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = exported(sam, Path(scratch), options.threads), torch_model(sam, "mobile_sam")
        agreement = assert_agreement(ours, theirs, photo)
        starter = SamModel.load(backend="ort-cpu", threads=options.threads)
        candidates: Steps = {}
        for name, model in (("PyTorch", theirs), ("ONNX Runtime", ours), ("starter", starter)):
            candidates |= steps(name, model, photo)
        times = measure(candidates, options.rounds)
    rows = {}
    for step in ("encoder", "decoder, 1 box", "decoder, 8 boxes"):
        base = times[f"PyTorch/{step}"]
        for name in ("PyTorch", "ONNX Runtime", "starter"):
            own = times[f"{name}/{step}"]
            rows[f"{name}/{step}"] = {
                "median_ms": round(statistics.median(own), 1),
                "min_ms": round(min(own), 1),
                "ratio_to_pytorch": round(statistics.median(b / o for b, o in zip(base, own, strict=True)), 2),
            }
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    body = {
        "date": date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "machine": {
            "cpu": cpu.split(":")[1].strip(),
            "platform": f"{platform.system()} {platform.machine()}",
            "threads": options.threads,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "weights": "checkpoint" if options.checkpoint else "seeded",
        "rounds": options.rounds,
        "agreement": {name: float(f"{value:.6g}") for name, value in agreement.items()},
        "rows": rows,
    }
    print(json.dumps(body, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
