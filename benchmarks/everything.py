"""Everything mode: boothsam's two modes, segment_anything's generator, and PyTorch used well. Times and masks.

    python -m benchmarks.everything [--threads 1] [--json FILE] [--note TEXT]     measure, about 4 minutes
    python -m benchmarks.everything --only tiny --json FILE                       one part; the others stay as they were
    python -m benchmarks.everything --docs benchmarks/results/everything.json     the table of docs/everything.md

One process, one schedule: the four take turns on the same photo, in reverse order every other round. PyTorch and ONNX
Runtime have the same weights: the tests' tiny SAM, which finds real masks, and MobileSAM's architecture with seeded
weights, whose masks are noise and whose thresholds are set so that 75 % of the points give a mask that passes the first
filter, as with the tiny SAM: it says something about time and nothing about masks. There every point is asked in fast
mode too: noise agrees with noise, so that most points would be left out.
"PyTorch, batched well" asks eight prompts at a time, filters on the 256x256 logits, and upscales only what is left. The
exact mode must return the reference's masks before any time counts. Ratios are of CPU time, the one that a busy machine
disturbs least, and medians of the ratios within a round. What a larger grid would take is reckoned from the encoder's
time, measured apart, and the time per point. Peak memory is a fresh process's on a 12-megapixel photo.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from boothsam import SamAutomaticMaskGenerator, SamModel, load_image
from boothsam.runtime.masks import mask_iou, rle_to_mask

from benchmarks.everything_torch import batched_well, reference_sam, seeded_mobile_sam

DOCS = Path(__file__).parents[1] / "docs" / "everything.md"
REFERENCE, WELL, EXACT, FAST = "reference generator", "PyTorch, batched well", "boothsam exact", "boothsam fast"
PARTS = ("tiny", "seeded", "memory")
POINTS_THAT_PASS = 0.75  # measured on the tests' four pictures: 0.70 to 0.80
USUAL = 32 * 32  # points
Records = list[dict[str, Any]]


def candidates(
    sam: Any, model: SamModel, image: np.ndarray, options: dict[str, Any]
) -> dict[str, Callable[[], Records]]:
    """The four, each from photo to run lengths."""
    from boothsam.runtime.automatic_grid import point_grid

    from tests.reference.segment_anything_reference import load_reference

    def ours(mode: str) -> Records:
        given = options
        if sam.mask_threshold:  # seeded weights: see above
            given = options | {"points_per_side": None, "point_grids": [point_grid(options["points_per_side"])]}
        generator = SamAutomaticMaskGenerator(model, **given, output_mode="uncompressed_rle", mode=mode)
        generator.predictor.mask_threshold = sam.mask_threshold
        return generator.generate(image)

    reference = load_reference().SamAutomaticMaskGenerator(sam, **options, output_mode="uncompressed_rle")
    return {
        REFERENCE: lambda: reference.generate(image),
        WELL: lambda: batched_well(sam, image, options),
        EXACT: lambda: ours("exact"),
        FAST: lambda: ours("fast"),
    }


def matched(some: Records, others: Records, least: float = 0.99) -> int:
    """How many of `some` have a mask of that IoU among `others`."""
    masks = [rle_to_mask(r["segmentation"]) for r in others]
    return sum(any(mask_iou(rle_to_mask(r["segmentation"]), m) >= least for m in masks) for r in some)


def set_thresholds(sam: Any, model: SamModel, image: np.ndarray, points: int) -> dict[str, Any]:
    """Thresholds for seeded weights by quantiles of their own answers; also sets the mask threshold of `sam`."""
    from boothsam.runtime.automatic_grid import point_grid
    from boothsam.runtime.model import Prompts

    grid = (point_grid(points) * np.array(image.shape[1::-1]))[::3]
    embedding = model.encode(image)
    prompts = Prompts.make(grid[:, None], np.ones((len(grid), 1), int))
    low_res, iou = model.decode(embedding, prompts).select(True)
    sam.mask_threshold = float(np.quantile(low_res, 0.6))
    return {
        "pred_iou_thresh": float(np.quantile(iou.max(axis=1), 1 - POINTS_THAT_PASS)),
        "stability_score_offset": 0.1 * float(low_res.std()),
        "stability_score_thresh": 0.5,
    }


def encoder_seconds(sam: Any, model: SamModel, image: np.ndarray) -> dict[str, float]:
    """CPU seconds from photo to embedding, the best of three: of PyTorch's rows and of ours."""
    from tests.reference.segment_anything_reference import load_reference

    predictor = load_reference().SamPredictor(sam)
    best: dict[str, float] = {}
    for _ in range(3):
        for encode, names in ((predictor.set_image, (REFERENCE, WELL)), (model.encode, (EXACT, FAST))):
            start = time.process_time()
            encode(image)
            best |= {name: min(best.get(name, 1e9), time.process_time() - start) for name in names}
    return best


def reckon(rows: dict[str, dict[str, Any]], encoder: dict[str, float], points: int) -> None:
    """Add to each row what USUAL points would take: the encoder once, and as long per point."""
    seconds = {n: encoder[n] + (row["cpu_s_median"] - encoder[n]) * USUAL / points for n, row in rows.items()}
    for name, row in rows.items():
        row["cpu_s_encoder"] = round(encoder[name], 2)
        row["usual_cpu_s"] = round(seconds[name], 1)
        row["usual_ratio_to_reference"] = round(seconds[REFERENCE] / seconds[name], 1)
        row["usual_ratio_to_batched_well"] = round(seconds[WELL] / seconds[name], 1)


def measure(runs: dict[str, Callable[[], Records]], rounds: int) -> dict[str, dict[str, Any]]:
    """Rows by name; refuses to go on when the exact mode has other masks than the reference."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    answers: dict[str, Records] = {}
    for turn in range(rounds):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            start, start_cpu = time.perf_counter(), time.process_time()
            answers[name] = runs[name]()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
            print(f"{name}: {wall[name][-1]:.1f} s, {cpu[name][-1]:.1f} s CPU, {len(answers[name])} masks", flush=True)
    base = answers[REFERENCE]
    agreement = matched(base, answers[EXACT])
    if not base or agreement < 0.95 * len(base) or len(answers[EXACT]) > len(base) * 1.05:
        raise SystemExit(f"exact has {agreement} of the reference's {len(base)} masks: no time is worth printing")
    return {
        name: {
            "wall_s_median": round(statistics.median(wall[name]), 2),
            "cpu_s_median": round(statistics.median(cpu[name]), 2),
            "cpu_s_min": round(min(cpu[name]), 2),
            "ratio_to_reference": round(
                statistics.median(r / o for r, o in zip(cpu[REFERENCE], cpu[name], strict=True)), 2
            ),
            "ratio_to_batched_well": round(
                statistics.median(r / o for r, o in zip(cpu[WELL], cpu[name], strict=True)), 2
            ),
            "masks": len(answers[name]),
            "of_the_references_masks": matched(base, answers[name]),
            "masks_the_reference_lacks": len(answers[name]) - matched(answers[name], base),
        }
        for name in runs
    }


def peak(folder: Path, mode: str, settings: str) -> None:
    """Everything mode on 12 megapixels in this process; prints the peak of its memory in MiB."""
    options = json.loads(settings)
    threshold = options.pop("mask_threshold")
    image = cv2.resize(demo_photo(), (4000, 3000), interpolation=cv2.INTER_LINEAR)
    generator = SamAutomaticMaskGenerator(SamModel.load(folder, threads=1), **options, mode=mode)
    generator.predictor.mask_threshold = threshold
    generator.generate(image)
    # Not getrusage: a child inherits its parent's maximum there.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) // 1024)


def demo_photo() -> np.ndarray:
    """The CC0 photo that comes with boothsam."""
    return load_image(files("boothsam.runtime.demo").joinpath("coffee.jpg").read_bytes())


def export(sam: Any, folder: Path, threads: int) -> SamModel:
    """The same weights in ONNX Runtime."""
    from boothsam.export.fast_decoder import PREPARED
    from boothsam.export.to_onnx import export_model
    from boothsam.runtime.manifest import ModelManifest, record_files

    folder.mkdir()
    paths = export_model(sam, folder)
    graphs = {"fp32": {graph: path.name for graph, path in paths.items()}}
    embedding = ("image_embedding",)
    ModelManifest(folder.name, "", "", graphs, embedding, record_files(folder), prepared=PREPARED).save(folder)
    return SamModel.load(folder, backend="ort-cpu", threads=threads)


def table(body: dict[str, Any]) -> str:
    """The Markdown that docs/everything.md shows."""
    lines = []
    for name, run in body["runs"].items():
        points = f"{run['points_per_side']} x {run['points_per_side']} points"
        reckoned = run["points_per_side"] ** 2 < USUAL
        lines += [
            f"{name}, {run['photo_wh'][0]} x {run['photo_wh'][1]} photo, {points}, {run['rounds']} "
            f"round{'s' if run['rounds'] > 1 else ''}:",
            "",
            "| | CPU time, s | times faster than the reference | than PyTorch, batched well | "
            + ("at 32 x 32 points, reckoned | " if reckoned else "")
            + "masks | of the reference's | others |",
            "|---|---|---|---|---|---|---|" + ("---|" if reckoned else ""),
        ]
        lines += [
            f"| {row} | {v['cpu_s_median']} | {v['ratio_to_reference']} | {v['ratio_to_batched_well']} | "
            + (f"{v['usual_ratio_to_reference']} / {v['usual_ratio_to_batched_well']} | " if reckoned else "")
            + f"{v['masks']} | {v['of_the_references_masks']} | {v['masks_the_reference_lacks']} |"
            for row, v in run["rows"].items()
        ]
        lines.append("")
    memory = ", ".join(f"{mode} {mib} MiB" for mode, mib in body["peak_rss_mib_at_12_megapixels"]["peak"].items())
    machine, versions = body["machine"], body["versions"]
    lines += [
        f"Peak memory of the whole process, MobileSAM's architecture, 4000 x 3000 photo, binary masks: {memory}.",
        "",
        f"{machine['cpu']}, {machine['threads']} thread{'s' if machine['threads'] > 1 else ''}, {body['date']}; "
        f"Python {versions['python']}, torch {versions['torch']}, ONNX Runtime {versions['onnxruntime']}. "
        f"{body['note']}",
        f"Command: `{body['command']}`.",
    ]
    return "\n".join(lines)


def write_docs(results: Path) -> None:
    """Put the table between the marks of docs/everything.md."""
    head, rest = DOCS.read_text().split("<!-- table -->\n")
    tail = rest.split("<!-- end of table -->")[1]
    body = table(json.loads(results.read_text()))
    DOCS.write_text(f"{head}<!-- table -->\n{body}\n<!-- end of table -->{tail}")


def run_one(
    sam: Any, model: SamModel, image: np.ndarray, settings: dict[str, Any], points: int, rounds: int
) -> dict[str, Any]:
    """One model's entry of the JSON."""
    settings = settings | {"points_per_side": points}
    rows = measure(candidates(sam, model, image, settings), rounds)
    reckon(rows, encoder_seconds(sam, model, image), points**2)
    return {
        "photo_wh": list(image.shape[1::-1]),
        "points_per_side": points,
        "rounds": rounds,
        "settings": settings,
        "mask_threshold": sam.mask_threshold,
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "rows": rows,
    }


def peaks(folder: Path, settings: dict[str, Any]) -> dict[str, int]:
    """Peak memory in MiB by mode, each in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.everything", "--peak", str(folder), "--settings", json.dumps(settings)]
    return {
        mode: int(subprocess.run([*command, "--mode", mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("exact", "fast")
    }


def commands(earlier: str | None, note: str) -> str:
    """This command line, behind those that measured the other parts."""
    words = ["python -m benchmarks.everything", *(word for word in sys.argv[1:] if word not in ("--note", note))]
    return "; ".join(dict.fromkeys([*(earlier.split("; ") if earlier else ()), " ".join(words)]))


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the JSON holds."""
    import torch
    from boothsam.export.checkpoints import load_checkpoint

    from tests.models.pictures import test_picture
    from tests.models.tiny_sam import CHECKPOINT, CONFIG, load_tiny_sam
    from tests.reference.segment_anything_reference import load_reference

    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    load_reference()
    earlier: dict[str, Any] = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    runs: dict[str, Any] = earlier.get("runs", {})
    memory: dict[str, int] = earlier.get("peak_rss_mib_at_12_megapixels", {}).get("peak", {})
    with tempfile.TemporaryDirectory() as scratch:
        if "tiny" in options.only:
            model = export(load_checkpoint(CHECKPOINT, str(CONFIG)).sam, Path(scratch) / "tiny_sam", options.threads)
            image = test_picture("large").image
            usual = {"pred_iou_thresh": 0.88, "stability_score_thresh": 0.95, "stability_score_offset": 1.0}
            runs["tiny SAM"] = run_one(load_tiny_sam(), model, image, usual, options.points, options.rounds)
        seeded = seeded_mobile_sam() if {"seeded", "memory"} & set(options.only) else None
        if seeded is not None:
            folder = Path(scratch) / "seeded_vit_t"
            model, twin = export(seeded, folder, options.threads), reference_sam(seeded)
            image = cv2.resize(demo_photo(), (1500, 1000), interpolation=cv2.INTER_LINEAR)
            settings = set_thresholds(twin, model, image, 12)
            if "seeded" in options.only:
                name = "MobileSAM's architecture, seeded weights"
                runs[name] = run_one(twin, model, image, settings, options.seeded_points, 1)
            if "memory" in options.only:
                memory = peaks(folder, settings | {"points_per_side": 4, "mask_threshold": twin.mask_threshold})
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "date": date.today().isoformat(),
        "command": commands(earlier.get("command") if set(options.only) != set(PARTS) else None, options.note),
        "note": options.note or earlier.get("note", ""),
        "machine": {
            "cpu": cpu.split(":")[1].strip(),
            "platform": f"{platform.system()} {platform.machine()}",
            "threads": options.threads,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnxruntime": importlib.import_module("onnxruntime").__version__,
        },
        "runs": runs,
        "peak_rss_mib_at_12_megapixels": {"points_per_side": 4, "peak": memory},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="of the tiny SAM; the seeded one has one round")
    parser.add_argument("--points", type=int, default=24, help="points along a side, tiny SAM")
    parser.add_argument("--seeded-points", type=int, default=6, help="the same, MobileSAM's architecture")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--note", default="")
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.docs:
        write_docs(options.docs)
    elif options.peak:
        peak(options.peak, options.mode, options.settings)
    else:
        body = run_all(options)
        print(json.dumps(body, indent=2))
        if options.json:
            options.json.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
