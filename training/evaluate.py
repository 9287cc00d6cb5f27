"""How good a model folder is: on synthetic scenes never trained on, and on real photos with hand-drawn polygons.

    python -m boothsam.training.evaluate synthetic MODEL --count 60 [--textures DIR] [--cutouts DIR]
    python -m boothsam.training.evaluate photos MODEL tests/data/polygons.json --photos DIR... [--sheet OUT.png]

Everything goes through boothsam's runtime: the figures are those of the ONNX files, prompts in photo pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from boothsam.runtime.images import load_image
from boothsam.runtime.masks import boundary_iou, mask_iou
from boothsam.runtime.model import SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.training.generator import Sources, compose
from boothsam.training.photos import Image
from boothsam.training.prompts import Bits, box_of, candidates, click_in, correction
from boothsam.training.textures import Rng
from numpy.typing import NDArray

HOLD_OUT_SEED = 20_261  # of scenes; pools use small seeds
JITTERS = 4  # boxes drawn per mask with every side moved by up to 10 %


@dataclass
class Subject:
    """One thing to find: a photo (h, w, 3), its mask (h, w) and where it comes from."""

    name: str
    source: str
    image: Image
    mask: Bits


def measure(predictor: SamPredictor, subject: Subject, rng: Rng) -> dict[str, float]:
    """All figures of one subject; the photo must have been set. IoU unless the name says otherwise."""
    mask, box = subject.mask, np.array(box_of(subject.mask))
    masks, scores, _ = predictor.predict(box=box, multimask_output=False)
    errors = [abs(float(scores[0]) - mask_iou(masks[0], mask))]
    figures = {"box": mask_iou(masks[0], mask), "box_boundary": boundary_iou(masks[0], mask)}
    masks, scores, _ = predictor.predict(box=box)
    found = [mask_iou(m, mask) for m in masks]
    figures["box_top"] = found[int(np.argmax(scores))]
    errors += [abs(float(s) - f) for s, f in zip(scores, found, strict=True)]
    extent = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    limit = np.array([mask.shape[1], mask.shape[0]] * 2)
    jittered = []
    for _ in range(JITTERS):
        loose = np.clip(box + rng.uniform(-0.1, 0.1, 4) * extent, 0, limit)
        jittered.append(mask_iou(predictor.predict(box=loose, multimask_output=False)[0][0], mask))
    figures["box_jittered"] = float(np.mean(jittered))
    click = click_in(np.random.default_rng(0), mask, centred=1.0)
    masks, scores, logits = predictor.predict([click], [1])
    found = [mask_iou(m, mask) for m in masks]
    top = int(np.argmax(scores))
    errors += [abs(float(s) - f) for s, f in zip(scores, found, strict=True)]
    figures |= {"click_best": max(found), "click_top": found[top]}
    single, score, _ = predictor.predict([click], [1], multimask_output=False)
    figures["click_single"] = mask_iou(single[0], mask)
    errors.append(abs(float(score[0]) - figures["click_single"]))
    figures["three_clicks"] = _corrected(predictor, mask, click, masks[top], logits[top], rng)
    figures["score_error"] = float(np.mean(errors))
    filled = np.zeros_like(mask)
    x0, y0, x1, y1 = (int(v) for v in box)
    filled[y0:y1, x0:x1] = True
    figures["filled_box"] = mask_iou(filled, mask)
    return figures


def _corrected(
    predictor: SamPredictor, mask: Bits, click: NDArray[np.float32], guess: Bits, logits: NDArray[np.float32], rng: Rng
) -> float:
    """IoU after two more clicks, each on the largest error so far, with the logits so far as mask prompt."""
    points, labels = [click], [1]
    size = np.array([mask.shape[1], mask.shape[0]], np.float32)
    square = np.zeros((max(mask.shape),) * 2, np.bool_)
    for _ in range(2):
        wrong, right = square.copy(), square.copy()
        wrong[: mask.shape[0], : mask.shape[1]], right[: mask.shape[0], : mask.shape[1]] = guess, mask
        fix = correction(rng, wrong, right)
        if fix is None:
            break
        points.append(np.clip(fix[0] * len(square), 0, size - 1))
        labels.append(fix[1])
        masks, _, low = predictor.predict(points, labels, mask_input=logits[None], multimask_output=False)
        guess, logits = masks[0], low[0]
    return mask_iou(guess, mask)


def grabcut(image: Image, mask: Bits) -> float:
    """IoU of OpenCV's GrabCut (5 rounds) from the mask's own box; on at most 800 pixels, as a user would."""
    scale = min(1.0, 800 / max(mask.shape))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    x0, y0, x1, y1 = (round(v * scale) for v in box_of(mask))
    labels = np.zeros(small.shape[:2], np.uint8)
    rectangle = (x0, y0, max(2, x1 - x0), max(2, y1 - y0))
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small[:, :, ::-1].copy(), labels, rectangle, *models, 5, cv2.GC_INIT_WITH_RECT)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    full = cv2.resize(found, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_NEAREST)
    return mask_iou(full.astype(bool), mask)


def synthetic_subjects(count: int, sources: Sources, longest: int = 768) -> Iterable[Subject]:
    """One whole thing from each of `count` scenes with a fixed seed, at least 0.2 % of the frame."""
    for index in range(count):
        rng = np.random.default_rng([HOLD_OUT_SEED, index])
        sample = compose(rng, longest, sources)
        masks = [m for kind, m in candidates(sample, 0.002 * sample.instances.size) if kind == "whole"]
        if masks:
            yield Subject(f"scene-{index}", "synthetic", sample.image, masks[int(rng.integers(len(masks)))])


def polygon_subjects(listing: Path, folders: list[Path]) -> list[Subject]:
    """Photos and hand-drawn polygons; a photo is found by name below one of `folders` and checked by its sha256.

    Raises FileNotFoundError for a missing photo, ValueError for one with other content.
    """
    subjects = []
    for entry in json.loads(listing.read_text(encoding="utf-8"))["masks"]:
        matches = [p for folder in folders for p in folder.rglob(Path(entry["file"]).name)]
        for path in matches:
            if hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]:
                break
        else:
            raise FileNotFoundError(
                f"{entry['file']} with sha256 {entry['sha256'][:16]}... is in none of {[str(f) for f in folders]}; "
                f"hint: get it from {entry['source']} and pass its folder with --photos"
            )
        image = load_image(path)
        canvas = np.zeros(image.shape[:2], np.uint8)
        for ring in entry["polygons"]:
            cv2.fillPoly(canvas, [np.round(np.array(ring) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
        subjects.append(Subject(entry["name"], entry["group"], image, canvas.astype(bool)))
    return subjects


def evaluate(model: SamModel, subjects: Iterable[Subject], with_grabcut: bool) -> list[dict[str, float | str]]:
    """One row of figures per subject."""
    predictor = SamPredictor(model)
    rows: list[dict[str, float | str]] = []
    for index, subject in enumerate(subjects):
        predictor.set_image(subject.image)
        figures = measure(predictor, subject, np.random.default_rng([HOLD_OUT_SEED, index, 1]))
        if with_grabcut:
            figures["grabcut"] = grabcut(subject.image, subject.mask)
        rows.append({"name": subject.name, "source": subject.source, **figures})
    return rows


def table(rows: list[dict[str, float | str]]) -> str:
    """Markdown: a line per source with the mean of every figure, then a line per subject when there are few."""
    names = [key for key, value in rows[0].items() if isinstance(value, float)]
    lines = [f"| | n | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]

    def line(label: str, chosen: list[dict[str, float | str]]) -> str:
        means: Mapping[str, float] = {name: float(np.mean([float(r[name]) for r in chosen])) for name in names}
        return f"| {label} | {len(chosen)} | {' | '.join(f'{means[n]:.3f}' for n in names)} |"

    sources = sorted({str(row["source"]) for row in rows})
    lines += [line(source, [r for r in rows if r["source"] == source]) for source in sources]
    if len(sources) > 1:
        lines.append(line("**all**", rows))
    if len(rows) <= 80 and len(sources) > 1:
        lines += [line(str(row["name"]), [row]) for row in rows]
    return "\n".join(lines)


def contact_sheet(model: SamModel, subjects: list[Subject], path: Path, tile: int = 300) -> None:
    """A PNG with three columns per subject: photo with box, cut by box, cut by one click (top-scored)."""
    predictor = SamPredictor(model)
    cells = []
    for subject in subjects:
        predictor.set_image(subject.image)
        box = np.array(box_of(subject.mask))
        click = click_in(np.random.default_rng(0), subject.mask, centred=1.0)
        by_box = predictor.predict(box=box, multimask_output=False)[0][0]
        masks, scores, _ = predictor.predict([click], [1])
        by_click = masks[int(np.argmax(scores))]
        photo = subject.image.copy()
        thick = max(2, max(photo.shape) // 200)
        cv2.rectangle(photo, tuple(int(v) for v in box[:2]), tuple(int(v) for v in box[2:]), (255, 0, 0), thick)
        cv2.circle(photo, (int(click[0]), int(click[1])), 3 * thick, (0, 255, 0), -1)
        row = [photo]
        for mask in (by_box, by_click):
            row.append(np.where(mask[..., None], subject.image, np.uint8(255)))
        cells.append(np.hstack([_fit(picture, tile) for picture in row]))
    if len(cells) % 2:
        cells.append(np.zeros_like(cells[0]))
    sheet = np.vstack([np.hstack(cells[i : i + 2]) for i in range(0, len(cells), 2)])
    cv2.imwrite(str(path), sheet[:, :, ::-1])


def _fit(picture: Image, tile: int) -> Image:
    scale = tile / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:tile, :tile]
    canvas = np.zeros((tile, tile, 3), np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    synthetic = kinds.add_parser("synthetic", help="held-out scenes of the generator")
    photos = kinds.add_parser("photos", help="real photos with polygons")
    for kind in (synthetic, photos):
        kind.add_argument("model", type=Path)
        kind.add_argument("--json", type=Path, help="write the rows here")
    synthetic.add_argument("--count", type=int, default=60)
    synthetic.add_argument("--textures", type=Path, action="append", default=[])
    synthetic.add_argument("--cutouts", type=Path, action="append", default=[])
    photos.add_argument("listing", type=Path)
    photos.add_argument("--photos", type=Path, action="append", default=[], help="folder searched for them, repeatable")
    photos.add_argument("--sheet", type=Path, help="write a contact sheet here")
    arguments = parser.parse_args()
    model = SamModel.load(arguments.model, backend="ort-cpu")
    if arguments.kind == "synthetic":
        sources = Sources.from_folders(arguments.textures, arguments.cutouts)
        rows = evaluate(model, synthetic_subjects(arguments.count, sources), with_grabcut=False)
    else:
        subjects = polygon_subjects(arguments.listing, arguments.photos)
        rows = evaluate(model, subjects, with_grabcut=True)
        if arguments.sheet:
            contact_sheet(model, subjects, arguments.sheet)
    sys.stdout.write(table(rows) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
