"""What FP16 and INT8 cost in masks: model x precision, simulated, against the model's own FP32.

    python benchmarks/precision.py --photos FOLDER --proof-photos FOLDER [--model NAME=FOLDER ...] [--threads N]

Without --model: the bundled starter model and a seeded vit_t on the photos given, the tests' tiny SAM and its outlier
variant on drawn pictures. Writes benchmarks/results/precision.json and prints the table of docs/precision.md; --picture
draws plain FP16 beside FP16 with islands. Nothing here is a latency: on a CPU, FP16 has none worth telling.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from boothsam.conformance.pictures import draw_scene  # noqa: E402
from boothsam.engines.precision import to_fp16  # noqa: E402
from boothsam.engines.reduce import Calibration, add_precisions  # noqa: E402
from boothsam.engines.simulate import simulated_model  # noqa: E402
from boothsam.runtime.errors import BoothsamError  # noqa: E402
from boothsam.runtime.fidelity import Fidelity, measure  # noqa: E402
from boothsam.runtime.images import encode_image  # noqa: E402
from boothsam.runtime.manifest import ModelManifest  # noqa: E402
from boothsam.runtime.model import SamModel  # noqa: E402
from boothsam.runtime.photos import photo_folder  # noqa: E402
from boothsam.runtime.store import starter_folder  # noqa: E402

Photos = Mapping[str, npt.NDArray[np.uint8]]
RESULT = ROOT / "benchmarks" / "results" / "precision.json"


def drawn(first: int, count: int) -> Photos:
    """Pictures of the kind the tiny SAM was trained on."""
    sizes = ((384, 512), (600, 400), (512, 512), (768, 1024))
    return {
        f"drawn-{seed}": draw_scene(seed, sizes[seed % 4], 8, (24, 110), 140).image
        for seed in range(first, first + count)
    }


def tiny(folder: Path, outlier: bool) -> Path:
    """The tests' tiny SAM, exported; with channels beyond float16's range when `outlier`."""
    torch = importlib.import_module("torch")
    export = importlib.import_module("boothsam.export.folder").export_checkpoint
    from tests.models.outliers import make_outlier
    from tests.models.tiny_sam import CHECKPOINT, CONFIG

    checkpoint = CHECKPOINT
    if outlier:
        checkpoint = folder.with_suffix(".pt")
        torch.save(make_outlier(torch.load(CHECKPOINT, weights_only=True)), checkpoint)
    export(str(CONFIG), checkpoint, folder, licence="Apache-2.0", verify=False)
    return folder


def seeded_vit_t(folder: Path) -> Path:
    """MobileSAM's architecture with weights from a rule: masks with two sides, of nothing in particular."""
    torch = importlib.import_module("torch")
    build = importlib.import_module("boothsam.export.architectures.sam").build
    export = importlib.import_module("boothsam.export.folder").export_checkpoint
    from tests.export.deterministic import fill

    sam = build("vit_t")
    fill(sam)
    checkpoint = folder.with_suffix(".pt")
    torch.save(sam.state_dict(), checkpoint)
    export("vit_t", checkpoint, folder, licence="none", verify=False)
    return folder


def plain_fp16(folder: Path, photos: Photos, threads: int) -> Fidelity:
    """Every node in float16: what a converter without ranges makes."""
    reference = SamModel.load(folder, backend="ort-cpu", precision="fp32", threads=threads)
    low = simulated_model(folder, "fp16", threads=threads, reduce=lambda _name, model: to_fp16(model))
    report = measure(low, reference, photos, against="fp32 (ort-cpu)", numerics="simulated")
    low.close()
    reference.close()
    return report


def builds(folder: Path, files: Mapping[str, str]) -> dict[str, bool | None]:
    """Whether TensorRT-RTX parses and builds each graph, strongly typed; None where it is not installed."""
    try:
        importlib.import_module("tensorrt_rtx_libs")
        trt = importlib.import_module("tensorrt_rtx_bindings")
    except ModuleNotFoundError:
        return dict.fromkeys(files)
    from tests.export.test_tensorrt_rtx import build_engine

    found: dict[str, bool | None] = {}
    for graph, file in files.items():
        try:
            found[graph] = bool(build_engine(trt, folder / file))
        except AssertionError as error:
            print(f"{file}: {error}", file=sys.stderr)
            found[graph] = False
    return found


def row(name: str, precision: str, report: Fidelity | None, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    manifest = ModelManifest.load(folder)
    files = manifest.graphs.get(precision, {})
    built = builds(folder, files)
    return {
        "model": name,
        "precision": precision,
        "bytes": {graph: manifest.files[file].bytes for graph, file in files.items()},
        "fidelity": None if report is None else {k: v for k, v in report.to_dict().items() if k != "rows"},
        "tensorrt_rtx": built,
        "facts": dict(facts),
    }


def measured(name: str, folder: Path, calibration: Calibration, threads: int, scratch: Path) -> list[dict[str, Any]]:
    """FP32, plain FP16, FP16 and INT8 of one model."""
    print(f"{name}:", file=sys.stderr)
    say: Callable[[str], None] = lambda what: print(f"  {what}", file=sys.stderr)  # noqa: E731
    rows = [row(name, "fp32", None, folder, {})]
    plain = plain_fp16(folder, calibration.proof, threads)
    rows.append(row(name, "fp16", plain, folder, {}) | {"precision": "plain fp16"})
    out = scratch / f"{name}-reduced"
    try:
        manifest, reports = add_precisions(folder, out, ("fp16", "int8"), calibration, threads=threads, progress=say)
    except BoothsamError as error:
        print(f"  {error}", file=sys.stderr)
        manifest, reports = add_precisions(folder, out, ("fp16",), calibration, threads=threads, force=True)
        rows.append({"model": name, "precision": "int8", "error": error.message})
    reduced = manifest.origin["reduced"]
    rows += [row(name, report.precision, report, out, reduced[report.precision]) for report in reports]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| model | precision | encoder + decoder, MB | IoU against FP32: mean / p5 / least | gate | FP32 islands "
        "| INT8 layers | builds with TensorRT-RTX |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in rows:
        if "error" in found:
            lines.append(f"| {found['model']} | {found['precision']} | - | - | {found['error']} | - | - | - |")
            continue
        size, facts, report = found["bytes"], found["facts"], found["fidelity"]
        megabytes = " + ".join(f"{size[g] / 1e6:.2f}" for g in ("encoder", "decoder") if g in size) or "-"
        iou, gate = "reference", "-"
        if report:
            s = report["summary"]
            iou = f"{s['mask_iou_mean']:.4f} / {s['mask_iou_p5']:.4f} / {s['mask_iou_min']:.4f}, simulated"
            gate = "passed" if report["passed"] else "**failed**"
        islands = " + ".join(str(facts[g]["islands"]) for g in ("encoder", "decoder") if g in facts) or "-"
        layers = "-"
        if "quantised" in facts.get("encoder", {}):
            e = facts["encoder"]
            layers = f"{e['quantised']} of {e['quantised'] + e['spared'] + e['never']}"
        built = found["tensorrt_rtx"].values()
        verdict = "-" if not built or None in built else "yes" if all(built) else "no"
        cells = (found["model"], found["precision"], megabytes, iou, gate, islands, layers, verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(scratch: Path, threads: int) -> npt.NDArray[np.uint8]:
    """One click on one drawn picture: FP32, plain FP16, FP16 with islands, of the outlier model; simulated."""
    folder = tiny(scratch / "picture", outlier=True)
    ((name, whole),) = drawn(902, 1).items()
    height, width = whole.shape[:2]
    inner = whole[height // 6 : height - height // 6, width // 6 : width - width // 6]
    photos = {name: np.ascontiguousarray(inner)}  # a shape in the middle, where the click goes
    _, (ours,) = add_precisions(
        folder, scratch / "picture-fp16", ("fp16",), Calibration(drawn(800, 4), photos), threads=threads
    )
    plain = plain_fp16(folder, photos, threads)
    (photo,) = photos.values()
    panels = []
    for title, report, expected in (
        ("FP32", ours, True),
        ("plain FP16", plain, False),
        ("FP16 with islands", ours, False),
    ):
        case = next(c for c in report.worst if c.row.kind == "point")
        mask = case.expected if expected else case.found
        base = cv2.resize(photo, mask.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
        base[~mask] = 0.25 * base[~mask] + 0.75 * 245  # what the mask leaves out fades
        panel = cv2.resize(base.round().astype(np.uint8), None, fx=0.42, fy=0.42, interpolation=cv2.INTER_AREA)
        head = np.full((34, panel.shape[1], 3), 255, np.uint8)
        text = title if expected else f"{title}: IoU {case.row.mask_iou:.4f} (simulated)"
        cv2.putText(head, text, (6, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (20, 20, 20), 1, cv2.LINE_AA)
        panels += [np.concatenate([head, panel]), np.full((panel.shape[0] + 34, 8, 3), 255, np.uint8)]
    return np.ascontiguousarray(np.concatenate(panels[:-1], 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="to calibrate on")
    parser.add_argument("--proof-photos", type=Path, help="to measure on; others than --photos")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=FOLDER", help="instead of the default ones"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="of the default ones: starter, vit_t, tiny, outlier"
    )
    parser.add_argument("--calibrate-on", type=int, default=12)
    parser.add_argument("--prove-on", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="only draw plain FP16 beside FP16 with islands into this PNG")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch = importlib.import_module("torch")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if arguments.picture:
            arguments.picture.write_bytes(encode_image(picture(scratch, arguments.threads), "png", level=9))
            return
        real = None
        if arguments.photos and arguments.proof_photos:
            real = Calibration(
                photo_folder(arguments.photos, arguments.calibrate_on),
                photo_folder(arguments.proof_photos, arguments.prove_on),
            )
        flat = Calibration(drawn(300, arguments.calibrate_on), drawn(400, arguments.prove_on))
        jobs: list[tuple[str, Callable[[], Path], Calibration | None]] = [
            (item.split("=", 1)[0], lambda item=item: Path(item.split("=", 1)[1]), real) for item in arguments.model
        ]
        if not jobs:
            jobs = [
                ("tiny", lambda: tiny(scratch / "tiny", outlier=False), flat),
                ("outlier", lambda: tiny(scratch / "outlier", outlier=True), flat),
                ("starter", starter_folder, real),
                ("vit_t", lambda: seeded_vit_t(scratch / "vit_t"), real),
            ]
        rows: list[dict[str, Any]] = []
        for title, folder, calibration in jobs:
            if arguments.only and title not in arguments.only:
                continue
            if calibration is None:
                parser.error(f"{title} needs --photos and --proof-photos")
            rows += measured(title, folder(), calibration, arguments.threads, scratch)
        versions = {p: importlib.import_module(p).__version__ for p in ("onnx", "onnxruntime", "torch")}
        body = {
            "command": "python benchmarks/precision.py " + " ".join(sys.argv[1:]),
            "calibration_photos": arguments.calibrate_on,
            "proof_photos": arguments.prove_on,
            "numerics": "simulated: rounded to float16 after every FP16 node, 8-bit integers exact; no device ran it",
            "versions": versions,
            "rows": rows,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
