"""Real photos cropped by box, by click and by `--auto`, on one page.

    python -m boothsam.training.contact_sheet MODEL --photos DIR... [--listing tests/data/proof.json] [--count 40]
        -o docs/images/contact-sheet.png [--small docs/images/contact-sheet-small.png]

Prompts are the boxes and innermost points of the hand-drawn masks. Cut-outs are the runtime's, on a checkerboard. What
`--auto` does not find is said in its cell. The choice of photos is by rule, not by result: sources take turns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from boothsam.runtime.auto import find_product_in
from boothsam.runtime.cutout import AlphaOptions, cut_out
from boothsam.runtime.errors import NothingFound
from boothsam.runtime.images import save_image
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.model import SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.runtime.transforms import upscale_mask
from boothsam.training.measures import centre_click
from boothsam.training.photos import Image
from boothsam.training.prompts import box_of
from boothsam.training.proof_set import Subject, read_subjects
from boothsam.training.sheets import Tile, note, on_checkerboard, sheet, with_prompt
from numpy.typing import NDArray

HEADS = ("photo and prompts", "by box", "by click", "by --auto")
SMALL_WIDTH = 1200  # pixels of --small
SMALL_ROWS = 8  # of --small


def choose(subjects: Sequence[Subject], count: int) -> list[Subject]:
    """At most `count` subjects, one per photo while there are photos left; the sources take turns.

    Within a source those for `--auto` come first, then the listing's order.
    """
    sources: dict[str, list[Subject]] = {}
    seen: set[int] = set()
    later: list[Subject] = []
    for subject in sorted(subjects, key=lambda s: not s.auto):
        photo = hash(subject.image.tobytes())
        (later if photo in seen else sources.setdefault(subject.source, [])).append(subject)
        seen.add(photo)
    turns = [subject for turn in zip_longest(*sources.values()) for subject in turn if subject is not None]
    return (turns + later)[:count]


def row(predictor: SamPredictor, subject: Subject, side: int) -> list[Tile]:
    """The four tiles of one subject, in the order of HEADS."""
    predictor.set_image(subject.image)
    box, click = np.array(box_of(subject.mask)), centre_click(subject.mask)
    prompted = Tile(with_prompt(subject.image, side, box, click), subject.name)
    _, _, logits = predictor.predict(box=box, multimask_output=False)
    by_box = _cut(subject, logits[0], side)
    _, scores, logits = predictor.predict([click], [1])
    by_click = _cut(subject, logits[int(np.argmax(scores))], side)
    return [prompted, by_box, by_click, _by_auto(predictor, subject, side)]


def _by_auto(predictor: SamPredictor, subject: Subject, side: int) -> Tile:
    try:
        found = find_product_in(predictor.model, predictor.embedding, subject.image)
    except NothingFound:
        return Tile(note("nothing found", side))
    tile = _cut(subject, found.product.low_res_mask, side)
    if not subject.auto:  # no single product in the photo: any of them may be cut out
        return Tile(tile.picture, "one of several")
    return Tile(tile.picture, f"{tile.label}, unsure" if found.ambiguous else tile.label)


def _cut(subject: Subject, logits: NDArray[np.float32], side: int) -> Tile:
    """The cut-out, cleaned of specks as `boothsam crop --fill-holes --drop-islands` does it, with its IoU."""
    small = max(1, round(0.001 * subject.mask.size))
    try:
        cut = cut_out(subject.image, logits, options=AlphaOptions(fill_holes=small, drop_islands=small))
    except NothingFound:
        return Tile(note("empty mask", side), "IoU 0.00")
    iou = mask_iou(upscale_mask(logits, subject.mask.shape[:2]), subject.mask)
    return Tile(_framed(cut.rgba, side), f"IoU {iou:.2f}")


def _framed(rgba: NDArray[np.uint8], side: int) -> Image:
    """The cut-out scaled into a square with a small margin, on a checkerboard whose cells stay one size."""
    inner = round(side * 0.94)
    scale = inner / max(rgba.shape[:2])
    size = max(1, round(rgba.shape[1] * scale)), max(1, round(rgba.shape[0] * scale))
    # Premultiplied: the colour behind transparent pixels must not bleed into the rim.
    layer = rgba.astype(np.float32)
    layer[..., :3] *= layer[..., 3:] / 255
    small = cv2.resize(layer, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((side, side, 4), np.float32)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    alpha = canvas[..., 3:] / 255
    canvas[..., :3] = np.divide(canvas[..., :3], alpha, out=np.zeros_like(canvas[..., :3]), where=alpha > 0)
    return on_checkerboard(np.clip(np.rint(canvas), 0, 255).astype(np.uint8))


def contact_sheet(predictor: SamPredictor, subjects: Sequence[Subject], *, side: int = 240, columns: int = 2) -> Image:
    """The page, (h, w, 3) uint8."""
    rows = [row(predictor, subject, side) for subject in subjects]
    manifest = predictor.model.manifest
    title = f"{len(rows)} photos, cropped by the model “{manifest.name}”"
    about = f"key {manifest.key[:12]}, {predictor.model.precision}"
    return sheet(title, HEADS, rows, side=side, columns=columns, note=about)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--photos", type=Path, action="append", required=True, help="folder searched, repeatable")
    parser.add_argument("--listing", type=Path, default=Path("tests/data/proof.json"), help="hand-drawn masks")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--side", type=int, default=240, help="pixels of a tile")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--small", type=Path, help=f"also the first {SMALL_ROWS} rows, {SMALL_WIDTH} pixels wide")
    arguments = parser.parse_args()
    predictor = SamPredictor(SamModel.load(arguments.model, backend="ort-cpu"))
    subjects = choose(read_subjects(arguments.listing, arguments.photos), arguments.count)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_image(arguments.output, contact_sheet(predictor, subjects, side=arguments.side), quality=85)
    sys.stdout.write(f"{arguments.output}: {len(subjects)} photos\n")
    if arguments.small:
        page = contact_sheet(predictor, subjects[:SMALL_ROWS], side=arguments.side)
        scale = min(1.0, SMALL_WIDTH / page.shape[1])
        small = cv2.resize(page, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        save_image(arguments.small, np.asarray(small, np.uint8), quality=85)


if __name__ == "__main__":
    main()
