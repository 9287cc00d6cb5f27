"""What FP16 and INT8 cost in masks: model x precision, simulated, against the model's own FP32.

    python benchmarks/precision.py --photos FOLDER --proof-photos FOLDER [--model NAME=FOLDER ...] [--threads N]
    python benchmarks/precision.py --table

Without --model: the bundled starter model and a seeded vit_t on the photos given, the tests' tiny SAM and its outlier
variant on drawn pictures. Each model's rows replace its old ones in benchmarks/results/precision.json, beside hardware,
versions, time and memory of that run. --table writes the tables of README.md and docs/precision.md from the JSON;
--picture draws plain FP16 beside FP16 with islands. --latency times FP32 through ONNX Runtime: on a CPU, reduced
precisions have no latency worth telling.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from boothsam.conformance.pictures import draw_scene  # noqa: E402
from boothsam.engines import graph as graphs  # noqa: E402
from boothsam.engines.build import Options, check_model  # noqa: E402
from boothsam.engines.islands import choose_islands  # noqa: E402
from boothsam.engines.precision import to_fp16  # noqa: E402
from boothsam.engines.reduce import SEARCH_PHOTOS, Calibration, add_precisions  # noqa: E402
from boothsam.engines.simulate import simulated_model  # noqa: E402
from boothsam.runtime.errors import BoothsamError, EngineError  # noqa: E402
from boothsam.runtime.fidelity import Fidelity, measure  # noqa: E402
from boothsam.runtime.images import encode_image  # noqa: E402
from boothsam.runtime.manifest import ModelManifest, record_files  # noqa: E402
from boothsam.runtime.model import Prompts, SamModel  # noqa: E402
from boothsam.runtime.photos import photo_folder  # noqa: E402
from boothsam.runtime.store import starter_folder  # noqa: E402

from benchmarks.precision_table import LONG, RESULT, markdown, rows, write  # noqa: E402

Photos = Mapping[str, npt.NDArray[np.uint8]]
NUMERICS = "simulated: rounded to float16 after every FP16 node, 8-bit integers exact; no device ran it"


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


def builds(folder: Path, precision: str) -> dict[str, Any]:
    """What `boothsam build --check` finds: each graph built by TensorRT-RTX, decoders with all three profiles."""
    try:
        importlib.import_module("tensorrt_rtx_libs")
    except ModuleNotFoundError:
        return {}
    try:
        checked = check_model(folder, precision, Options())
    except EngineError as error:
        print(f"{precision}: {error}", file=sys.stderr)
        return {"error": error.message}
    return {c.graph: {"engine_bytes": c.engine_bytes, "seconds": round(c.seconds, 1)} for c in checked}


def row(precision: str, report: Fidelity | None, folder: Path, facts: Mapping[str, Any], build: bool) -> dict[str, Any]:
    manifest = ModelManifest.load(folder)
    files = manifest.graphs.get(precision, {})
    return {
        "precision": precision,
        "bytes": {graph: manifest.files[file].bytes for graph, file in files.items()},
        "fidelity": None if report is None else {k: v for k, v in report.to_dict().items() if k != "rows"},
        "tensorrt_rtx": builds(folder, precision) if build else {},
        "facts": dict(facts),
    }


def measured(
    folder: Path,
    calibration: Calibration,
    scratch: Path,
    *,
    precisions: tuple[str, ...],
    threads: int,
    build: bool,
    plain: bool,
) -> list[dict[str, Any]]:
    """FP32, plain FP16 and reduced precisions of one model."""
    say: Callable[[str], None] = lambda what: print(f"  {time.strftime('%H:%M:%S')} {what}", file=sys.stderr)  # noqa: E731
    found = [row("fp32", None, folder, {}, build)]
    if plain:
        say("plain fp16")
        report = plain_fp16(folder, calibration.proof, threads)
        found.append(row("fp16", report, folder, {}, False) | {"precision": "plain fp16"})
    refused = []
    try:
        manifest, reports = add_precisions(folder, scratch, precisions, calibration, threads=threads, progress=say)
    except BoothsamError as error:  # it wrote fp16 all the same
        say(str(error))
        manifest, reports = ModelManifest.load(scratch), ()
        refused.append({"precision": "int8", "error": error.message})
    reduced = manifest.origin["reduced"]
    by_name = {report.precision: report for report in reports}
    for precision in (p for p in ("fp16", "int8") if p in manifest.graphs and p in precisions):
        say(f"{precision}: TensorRT-RTX")
        found.append(row(precision, by_name.get(precision), scratch, reduced[precision], build))
    return found + refused


def converted(folder: Path, scratch: Path, build: bool) -> list[dict[str, Any]]:
    """FP32 and FP16 of a model that is too large to be run here: islands by rule alone, checked but not compared."""
    manifest = ModelManifest.load(folder)
    facts, files = {}, {}
    scratch.mkdir(parents=True)
    for graph, file in manifest.graphs["fp32"].items():
        model = graphs.read_graph(folder / file)
        islands = choose_islands(model, {})
        low = to_fp16(model, [island.node for island in islands])
        del model
        files[graph] = f"{graph}.fp16.onnx"
        graphs.write_graph(low, scratch / files[graph])  # with the full check and strict inference
        listed = {"islands": [island.to_dict() for island in islands]}  # the audit of engines asks for them
        (scratch / f"{graph}.fp16.json").write_text(json.dumps(listed), encoding="utf-8")
        facts[graph] = {"islands": len(islands)}
    replace(manifest, graphs={"fp16": files}, files=record_files(scratch)).save(scratch)
    found = row("fp16", None, scratch, facts, build)
    return [row("fp32", None, folder, {}, False), found | {"note": "islands by rule alone: no photo was measured"}]


def latency(folder: Path, photo: npt.NDArray[np.uint8], threads: int, rounds: int = 5) -> dict[str, Any]:
    """Median milliseconds of the FP32 encoder, with what is computed once per photo, and of the decoder for one box."""
    model = SamModel.load(folder, backend="ort-cpu", precision="fp32", threads=threads)
    height, width = photo.shape[:2]
    box = Prompts.make(box_xyxy=np.array([0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height]))
    times: dict[str, list[float]] = {"encoder": [], "decoder": []}
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        embedding = model.encode(photo)
        encoded = time.perf_counter()
        model.decode(embedding, box)
        times["encoder"].append(1e3 * (encoded - begun))
        times["decoder"].append(1e3 * (time.perf_counter() - encoded))
        embedding.close()
    model.close()
    return {g: round(float(np.median(t[1:])), 1) for g, t in times.items()} | {"backend": "ort-cpu", "threads": threads}


def shown(argument: str) -> str:
    """An argument for the record: of a path its last name, for the rest is this machine's."""
    name, equals, value = argument.rpartition("=")
    return f"{name}{equals}{Path(value).name if '/' in value else value}"


def hardware() -> dict[str, Any]:
    """Processor, cores that may be used, and memory."""
    info = Path("/proc/cpuinfo")
    names = [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(gigabytes, 1),
        "gpu": None,
    }


def merged(out: Path, name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """The results with one model's rows replaced, written; its latency stays, for it is measured by itself."""
    body: dict[str, Any] = {"format": 2, "numerics": NUMERICS, "models": {}}
    if out.exists():
        body = json.loads(out.read_text(encoding="utf-8"))
    old = {r["precision"]: r for r in body["models"].get(name, {}).get("rows", ())}
    for found in run["rows"]:
        if "latency_ms" in old.get(found["precision"], {}):
            found["latency_ms"] = old[found["precision"]]["latency_ms"]
    body["models"][name] = dict(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return body


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


def update(given: argparse.Namespace, title: str, folder: Path) -> None:
    """Latency, or what TensorRT-RTX takes, into the rows that are there already."""
    body = json.loads(given.out.read_text(encoding="utf-8"))
    precisions = ModelManifest.load(folder).graphs
    for found in body["models"][title]["rows"]:
        if given.builds and found["precision"] in precisions:
            found["tensorrt_rtx"] = builds(folder, found["precision"])
            print(title, found["precision"], found["tensorrt_rtx"])
        if given.latency and found["precision"] == "fp32":
            (photo,) = photo_folder(given.photos, 1).values()
            found["latency_ms"] = latency(folder, photo, given.threads)
            print(title, found["latency_ms"])
    given.out.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="to calibrate on")
    parser.add_argument("--proof-photos", type=Path, help="to measure on; others than --photos")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=FOLDER", help="instead of the default ones"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="of the default ones: starter, vit_t, tiny, outlier"
    )
    parser.add_argument("--precision", default="fp16,int8", help="which to make")
    parser.add_argument("--calibrate-on", type=int, default=12)
    parser.add_argument("--prove-on", type=int, default=8)
    parser.add_argument("--search-on", type=int, default=SEARCH_PHOTOS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-plain", action="store_true", help="leave plain FP16 out")
    parser.add_argument("--no-build", action="store_true", help="leave TensorRT-RTX out")
    parser.add_argument("--convert", action="store_true", help="run no model: convert --model to FP16 and check it")
    parser.add_argument("--builds", action="store_true", help="only try TensorRT-RTX on the folders of --model")
    parser.add_argument("--keep", type=Path, help="keep the reduced model folders here")
    parser.add_argument("--latency", action="store_true", help="only time FP32 of --model, on the first of --photos")
    parser.add_argument("--table", action="store_true", help="only write the tables of README.md and docs/precision.md")
    parser.add_argument("--picture", type=Path, help="only draw plain FP16 beside FP16 with islands into this PNG")
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser


def main() -> None:
    parser = arguments()
    given = parser.parse_args()
    if given.table:
        write(given.out)
        return
    torch = importlib.import_module("torch")
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        scratch = given.keep or Path(name)
        if given.picture:
            given.picture.write_bytes(encode_image(picture(scratch, given.threads), "png", level=9))
            return
        if given.latency or given.builds:
            for title, folder in (item.split("=", 1) for item in given.model):
                update(given, title, starter_folder() if folder == "starter" else Path(folder))
            return
        real = None
        if given.photos and given.proof_photos:
            real = Calibration(
                photo_folder(given.photos, given.calibrate_on),
                photo_folder(given.proof_photos, given.prove_on),
                search=given.search_on,
            )
        flat = Calibration(drawn(300, given.calibrate_on), drawn(400, given.prove_on))
        jobs: list[tuple[str, Callable[[], Path], Calibration | None]] = [
            (item.split("=", 1)[0], lambda item=item: Path(item.split("=", 1)[1]), real) for item in given.model
        ]
        if not jobs:
            jobs = [
                ("tiny", lambda: tiny(scratch / "tiny", outlier=False), flat),
                ("outlier", lambda: tiny(scratch / "outlier", outlier=True), flat),
                ("starter", starter_folder, real),
                ("vit_t", lambda: seeded_vit_t(scratch / "vit_t"), real),
            ]
        body: dict[str, Any] = {"models": {}}
        for title, make, calibration in jobs:
            if given.only and title not in given.only:
                continue
            if calibration is None and not given.convert:
                parser.error(f"{title} needs --photos and --proof-photos")
            print(f"{title}:", file=sys.stderr)
            folder, begun, processor = make(), time.perf_counter(), time.process_time()
            found = (
                converted(folder, scratch / f"{title}-reduced", not given.no_build)
                if given.convert
                else measured(
                    folder,
                    calibration,
                    scratch / f"{title}-reduced",
                    precisions=tuple(given.precision.split(",")),
                    threads=given.threads,
                    build=not given.no_build,
                    plain=not given.no_plain,
                )
            )
            run = {
                "command": "python benchmarks/precision.py " + " ".join(map(shown, sys.argv[1:])),
                "hardware": hardware(),
                "versions": {p: importlib.import_module(p).__version__ for p in ("onnx", "onnxruntime", "torch")},
                "calibration_photos": len(calibration.photos) if calibration and not given.convert else 0,
                "proof_photos": len(calibration.proof) if calibration and not given.convert else 0,
                "wall_s": round(time.perf_counter() - begun),
                "processor_s": round(time.process_time() - processor),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "rows": found,
            }
            body = merged(given.out, title, run)
    print(markdown([r for r in rows(body) if not given.only or r["model"] in given.only], LONG))


if __name__ == "__main__":
    main()
