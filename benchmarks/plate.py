"""The plate on composed booth photos: boxes, empty booths, moved cameras, and what the starter model makes of it.

    python -m benchmarks.plate [--pairs 200] [--json FILE] [--note TEXT]     measure
    python -m benchmarks.plate --docs benchmarks/results/plate.json          the tables of docs/booth.md

Photos come from `benchmarks.booth_pairs`: drawn backdrops, products, shadows and reflections, seen by a camera whose
exposure, white balance, noise and place change from shot to shot. The thresholds were chosen on seeds 0 to 159; these
are seeds 1000 and up. Times are of the process's CPU, on one thread, medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from boothsam.runtime.auto import find_product_in
from boothsam.runtime.errors import NothingFound
from boothsam.runtime.masks import box_iou, mask_iou
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.runtime.plate import Plate, shrink
from boothsam.runtime.transforms import upscale_mask

from benchmarks.booth_pairs import Pair, booth_pair, shoot

DOCS = Path(__file__).parents[1] / "docs" / "booth.md"
FIRST_SEED = 1000
SHIFTS = (0, 2, 4, 6, 8, 12, 20, 40)
SHIFTED = 40  # pairs that are also shot from a moved camera
ASKED = 60  # pairs that the model is asked about, too
FRAMES = 5


def _iou(found: Any, pair: Pair) -> float:
    if found is None:
        return 0.0
    return float(box_iou(np.array([found], float), np.array([pair.box_xyxy], float))[0, 0])


def _mask_iou(model: SamModel, embedding: ImageEmbedding, prompts: Prompts, pair: Pair) -> float:
    logits, _ = model.decode(embedding, prompts).select(False)
    return mask_iou(upscale_mask(logits[0, 0], embedding.original_hw), pair.mask)


def _auto_iou(model: SamModel, embedding: ImageEmbedding, pair: Pair) -> float:
    try:
        found = find_product_in(model, embedding, pair.photo).product
    except NothingFound:
        return 0.0
    return mask_iou(upscale_mask(found.low_res_mask, embedding.original_hw), pair.mask)


def measure_pair(model: SamModel | None, seed: int) -> tuple[dict[str, Any], Pair, Plate]:
    """One pair: states, IoU of boxes, and with a model of masks."""
    pair = booth_pair(seed, frames=FRAMES)
    plate = Plate.from_images(pair.plates[:1])
    match, empty = plate.compare(pair.photo), plate.compare(pair.empty)
    several = Plate.from_images(pair.plates)
    match_5, empty_5 = several.compare(pair.photo), several.compare(pair.empty)
    record: dict[str, Any] = {
        "seed": seed,
        "kind": pair.kind,
        "camouflage": pair.camouflage,
        "state": match.state,
        "empty": empty.state,
        "moved": match.moved,
        "box_iou": _iou(match.box_xyxy, pair),
        "state_5": match_5.state,
        "empty_5": empty_5.state,
        "box_iou_5": _iou(match_5.box_xyxy, pair),
    }
    if model is None:
        return record, pair, plate
    embedding = model.encode(pair.photo)
    true_box = Prompts.make(box_xyxy=np.array(pair.box_xyxy, np.float64))
    seen = match.state == "product"
    record["mask_plate"] = _mask_iou(model, embedding, match.prompts, pair) if seen else 0.0
    record["mask_true_box"] = _mask_iou(model, embedding, true_box, pair)
    record["mask_auto"] = _auto_iou(model, embedding, pair)
    embedding.close()
    return record, pair, plate


def measure_moves(plate: Plate, pair: Pair, seed: int) -> dict[str, dict[str, Any]]:
    """The photo from moved cameras: by shift in pixels of 1024, "turn" (2 degrees) and "zoom" (3 %)."""
    rng = np.random.default_rng([17, seed])
    height, width = pair.scene.shape[:2]
    moves: dict[str, Any] = {}
    for shift in SHIFTS:
        angle = rng.uniform(0, 2 * np.pi)
        moves[str(shift)] = np.array([[1, 0, shift * np.cos(angle)], [0, 1, shift * np.sin(angle)]])
    moves["turn"] = cv2.getRotationMatrix2D((width / 2, height / 2), 2, 1)
    moves["zoom"] = cv2.getRotationMatrix2D((width / 2, height / 2), 0, 1.03)
    found = {}
    for name, matrix in moves.items():
        match = plate.compare(shoot(rng, pair.scene, pair.camera, matrix))
        found[name] = {"state": match.state, "moved": match.moved, "shift_px": match.shift_px}
    return found


def measure_time() -> dict[str, float]:
    """CPU milliseconds of one comparison at 12 megapixels, and of its resize."""
    pair = booth_pair(FIRST_SEED)
    large = cv2.resize(pair.photo, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    plate = Plate.from_images([cv2.resize(pair.plates[0], (4000, 3000), interpolation=cv2.INTER_CUBIC)])
    plate.compare(large)

    def median(function: Callable[[], Any]) -> float:
        times = []
        for _ in range(9):
            start = time.process_time()
            function()
            times.append(1e3 * (time.process_time() - start))
        return round(float(np.median(times)), 1)

    return {"compare": median(lambda: plate.compare(large)), "resize": median(lambda: shrink(large))}


def run(pairs: int, note: str) -> dict[str, Any]:
    """All measurements."""
    cv2.setNumThreads(1)
    model = SamModel.load(None, backend="ort-cpu", threads=1)
    records, moves = [], []
    for index in range(pairs):
        record, pair, plate = measure_pair(model if index < ASKED else None, FIRST_SEED + index)
        records.append(record)
        if index < SHIFTED:
            moves.append(measure_moves(plate, pair, FIRST_SEED + index))
    about = {"date": date.today().isoformat(), "cpu": platform.processor() or platform.machine(), "note": note}
    return {"about": about, "ms_12mp": measure_time(), "pairs": records, "moves": moves}


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f} / {np.percentile(values, 5):.2f}" if values else "-"


def tables(results: dict[str, Any]) -> str:
    """Markdown: boxes and states, masks, moved cameras, time."""
    pairs = results["pairs"]
    groups = {"all": pairs}
    groups |= {kind: [p for p in pairs if p["kind"] == kind] for kind in dict.fromkeys(p["kind"] for p in pairs)}
    groups["product in the backdrop's colour"] = [p for p in pairs if p["camouflage"]]
    columns = "| backdrop | pairs | box IoU, mean / p5 | the same, 5 shots | missed | false alarms |"
    boxes = [columns + "\n|---|---|---|---|---|---|"]
    masks = ["| backdrop | pairs | by the plate | by --auto | by the true box |\n|---|---|---|---|---|"]
    for name, chosen in groups.items():
        cells = [_spread([p[key] for p in chosen]) for key in ("box_iou", "box_iou_5")]
        cells.append(str(sum(p["state"] != "product" for p in chosen)))
        cells.append(str(sum(p["empty"] != "empty" for p in chosen)))
        boxes.append(f"| {name} | {len(chosen)} | " + " | ".join(cells) + " |")
        asked = [p for p in chosen if "mask_plate" in p]
        cells = [_spread([p[key] for p in asked]) for key in ("mask_plate", "mask_auto", "mask_true_box")]
        masks.append(f"| {name} | {len(asked)} | " + " | ".join(cells) + " |")
    moved = ["| camera | told it moved | told it did not | too plain to tell |\n|---|---|---|---|"]
    for name in results["moves"][0]:
        told = [move[name]["moved"] for move in results["moves"]]
        label = {"turn": "turned by 2 degrees", "zoom": "zoomed by 3 %"}.get(name, f"shifted by {name} px")
        moved.append(f"| {label} | {told.count(True)} | {told.count(False)} | {told.count(None)} |")
    times = results["ms_12mp"]
    text = f"One comparison at 12 megapixels: {times['compare']:.0f} ms of CPU, {times['resize']:.0f} of it the resize."
    return "\n".join([*boxes, "", *masks, "", *moved, "", text])


def write_docs(results: dict[str, Any]) -> None:
    """Put the tables between the markers of docs/booth.md."""
    begin, end = "<!-- benchmarks/plate.py -->\n", "<!-- end -->"
    text = DOCS.read_text()
    before, rest = text.split(begin, 1)
    DOCS.write_text(before + begin + tables(results) + "\n" + end + rest.split(end, 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--note", default="")
    parser.add_argument("--docs", type=Path, help="write the tables of this result into docs/booth.md")
    arguments = parser.parse_args()
    if arguments.docs is not None:
        write_docs(json.loads(arguments.docs.read_text()))
        return
    results = run(arguments.pairs, arguments.note)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results) + "\n")
    print(tables(results))


if __name__ == "__main__":
    main()
