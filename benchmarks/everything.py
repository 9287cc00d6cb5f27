"""Everything mode: boothsam's two modes, segment_anything's generator, and PyTorch used well. Times and masks.

    python -m benchmarks.everything [--threads 1] [--json FILE] [--note TEXT]     measure
    python -m benchmarks.everything --docs benchmarks/results/everything.json     the table of docs/everything.md

One process, one schedule: the four take turns on the same photo, in reverse order every other round. PyTorch and ONNX
Runtime have the same weights: the tests' tiny SAM, which finds real masks, and MobileSAM's architecture with seeded
weights, whose masks are noise and whose thresholds are set so that 30 % of them pass the first filter: it says
something about time and nothing about masks.
"PyTorch, batched well" asks eight prompts at a time, filters on the 256x256 logits, and upscales only what is left. The
exact mode must return the reference's masks before any time counts. Ratios are of CPU time, the one that a busy machine
disturbs least, and medians of the ratios within a round. Peak memory is a fresh process's on a 12-megapixel photo.
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

DOCS = Path(__file__).parents[1] / "docs" / "everything.md"
REFERENCE, WELL, EXACT, FAST = "reference generator", "PyTorch, batched well", "boothsam exact", "boothsam fast"
Records = list[dict[str, Any]]


def reference_sam(sam: Any) -> Any:
    """segment_anything's Sam with the encoder of a boothsam.export Sam, and the same decoder weights."""
    import torch

    from tests.reference.segment_anything_reference import build_reference_sam

    class Encoder(torch.nn.Module):
        img_size = 1024

        def __init__(self) -> None:
            super().__init__()
            self.inner = sam.image_encoder

        def forward(self, pixels: Any) -> Any:
            return self.inner(pixels)

    config = sam.config.to_dict()
    stand_in = {"embed_dim": 8, "depth": 0, "num_heads": 1, "global_attn_indexes": (), "window_size": 14}
    built = build_reference_sam(config | {"encoder": stand_in | {"mlp_ratio": 1, "patch_size": 16}})
    built.prompt_encoder.load_state_dict(sam.prompt_encoder.state_dict(), strict=True)
    built.mask_decoder.load_state_dict(sam.mask_decoder.state_dict(), strict=True)
    built.image_encoder = Encoder()
    return built.eval()


def batched_well(sam: Any, image: np.ndarray, options: dict[str, Any]) -> Records:
    """What somebody writes who knows where the time goes: small batches, filters on the logits, late upscaling."""
    import torch
    from segment_anything.utils import amg

    from tests.reference.segment_anything_reference import batched_nms, load_reference

    predictor = load_reference().SamPredictor(sam)
    predictor.set_image(image)
    height, width = predictor.input_size
    inside = np.s_[..., : -(-height // 4), : -(-width // 4)]
    points = amg.build_point_grid(options["points_per_side"]) * np.array(image.shape[1::-1])
    logits, scores, boxes = [], [], []
    with torch.no_grad():
        for start in range(0, len(points), 8):
            coords = torch.from_numpy(predictor.transform.apply_coords(points[start : start + 8], image.shape[:2]))
            labels = torch.ones((len(coords), 1), dtype=torch.int)
            sparse, dense = sam.prompt_encoder(points=(coords[:, None], labels), boxes=None, masks=None)
            low_res, iou = sam.mask_decoder(
                image_embeddings=predictor.features,
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
            low_res, iou = low_res.flatten(0, 1), iou.flatten()
            keep = iou > options["pred_iou_thresh"]
            low_res, iou = low_res[keep], iou[keep]
            threshold, offset = sam.mask_threshold, options["stability_score_offset"]
            keep = (
                amg.calculate_stability_score(low_res[inside], threshold, offset) >= options["stability_score_thresh"]
            )
            logits.append(low_res[keep])
            scores.append(iou[keep])
            boxes.append(amg.batched_mask_to_box(low_res[keep][inside] > threshold))
        low_res, iou, box = torch.cat(logits), torch.cat(scores), torch.cat(boxes).float()
        kept = batched_nms(box, iou, torch.zeros(len(box)), 0.7)
        records = []
        for index in kept:
            mask = sam.postprocess_masks(low_res[index][None, None], predictor.input_size, image.shape[:2])[0]
            rle = amg.mask_to_rle_pytorch(mask > sam.mask_threshold)[0]
            records.append({"segmentation": rle, "predicted_iou": float(iou[index])})
    return records


def candidates(
    sam: Any, model: SamModel, image: np.ndarray, options: dict[str, Any]
) -> dict[str, Callable[[], Records]]:
    """The four, each from photo to run lengths."""
    from tests.reference.segment_anything_reference import load_reference

    def ours(mode: str) -> Records:
        generator = SamAutomaticMaskGenerator(model, **options, output_mode="uncompressed_rle", mode=mode)
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
        "pred_iou_thresh": float(np.quantile(iou, 0.7)),
        "stability_score_offset": 0.1 * float(low_res.std()),
        "stability_score_thresh": 0.5,
    }


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


def seeded_mobile_sam() -> Any:
    """MobileSAM with random weights and BatchNorm statistics near those of a trained one."""
    import torch
    from boothsam.export.architectures.sam import build

    torch.manual_seed(0)
    sam = build("vit_t")
    for module in sam.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    return sam.eval()


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
        lines += [
            f"{name}, {run['photo_wh'][0]} x {run['photo_wh'][1]} photo, {run['points_per_side']} x "
            f"{run['points_per_side']} points, {run['rounds']} round{'s' if run['rounds'] > 1 else ''}:",
            "",
            "| | CPU time, s | times faster than the reference | than PyTorch, batched well | masks | of the "
            "reference's | others |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row} | {v['cpu_s_median']} | {v['ratio_to_reference']} | {v['ratio_to_batched_well']} | {v['masks']} "
            f"| {v['of_the_references_masks']} | {v['masks_the_reference_lacks']} |"
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
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        tiny = export(load_checkpoint(CHECKPOINT, str(CONFIG)).sam, Path(scratch) / "tiny_sam", options.threads)
        seeded = seeded_mobile_sam()
        folder = Path(scratch) / "seeded_vit_t"
        mobile, twin = export(seeded, folder, options.threads), reference_sam(seeded)
        large = test_picture("large").image
        photo = cv2.resize(demo_photo(), (1500, 1000), interpolation=cv2.INTER_LINEAR)
        plan: list[tuple[str, Any, SamModel, np.ndarray, int, int]] = [
            ("tiny SAM", load_tiny_sam(), tiny, large, 8, options.rounds),
            ("MobileSAM's architecture, seeded weights", twin, mobile, photo, 6, 1),
        ]
        for name, sam, model, image, points, rounds in plan:
            settings: dict[str, Any] = {
                "pred_iou_thresh": 0.88,
                "stability_score_thresh": 0.95,
                "stability_score_offset": 1.0,
            }
            if sam is twin:
                settings = set_thresholds(sam, model, image, points)
            settings["points_per_side"] = points
            runs[name] = {
                "photo_wh": list(image.shape[1::-1]),
                "points_per_side": points,
                "rounds": rounds,
                "settings": settings,
                "mask_threshold": sam.mask_threshold,
                "rows": measure(candidates(sam, model, image, settings), rounds),
            }
        asked = settings | {"points_per_side": 4, "mask_threshold": twin.mask_threshold}
        command = [
            sys.executable,
            "-m",
            "benchmarks.everything",
            "--peak",
            str(folder),
            "--settings",
            json.dumps(asked),
        ]
        memory = {
            mode: int(subprocess.run([*command, "--mode", mode], capture_output=True, text=True, check=True).stdout)
            for mode in ("exact", "fast")
        }
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "date": date.today().isoformat(),
        "command": " ".join(
            ["python -m benchmarks.everything", *(a for a in sys.argv[1:] if a not in ("--note", options.note))]
        ),
        "note": options.note,
        "machine": {
            "cpu": cpu.split(":")[1].strip(),
            "platform": f"{platform.system()} {platform.machine()}",
            "threads": options.threads,
            "load_average": [round(value, 1) for value in os.getloadavg()],
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
    parser.add_argument("--rounds", type=int, default=3, help="of the tiny SAM; the seeded one has one round")
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
