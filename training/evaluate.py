"""How good a model folder is: on synthetic scenes never trained on, and on real photos with hand-drawn polygons.

    python -m boothsam.training.evaluate synthetic MODEL --count 60 [--textures DIR] [--cutouts DIR] [--json OUT]
    python -m boothsam.training.evaluate photos MODEL tests/data/proof.json --photos DIR... [--json OUT] [--sheet PNG]
        [--card MD]

Prints Markdown tables; --card writes them between the markers of a model card, --sheet draws the worst ten. The same
files give the same figures: all seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from boothsam.runtime.images import save_image
from boothsam.runtime.model import SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.training.generator import Sources, compose
from boothsam.training.measures import SEED, Row, measure
from boothsam.training.prompts import candidates
from boothsam.training.proof_set import Subject, read_subjects
from boothsam.training.report import embed, mean, report, table, worst_sheet


def synthetic_subjects(count: int, sources: Sources, longest: int = 768) -> Iterable[Subject]:
    """One whole thing from each of `count` scenes with a fixed seed, at least 0.2 % of the frame."""
    for index in range(count):
        rng = np.random.default_rng([SEED, index])
        sample = compose(rng, longest, sources)
        masks = [m for kind, m in candidates(sample, 0.002 * sample.instances.size) if kind == "whole"]
        if masks:
            yield Subject(f"scene-{index}", "synthetic", sample.image, masks[int(rng.integers(len(masks)))])


def evaluate(predictor: SamPredictor, subjects: Iterable[Subject], *, baselines: bool) -> list[Row]:
    """One row per subject; `baselines` adds GrabCut."""
    return [measure(predictor, subject, baselines=baselines) for subject in subjects]


def to_json(model: SamModel, rows: Sequence[Row]) -> str:
    """The model, the mean of every figure and all rows."""
    names = sorted({name for row in rows for name in row.figures})
    body = {
        "model": {"name": model.manifest.name, "key": model.manifest.key, "precision": model.precision},
        "backend": model.backend,
        "masks": len(rows),
        "mean": {name: mean(rows, name) for name in names},
        "rows": [row.to_dict() for row in rows],
    }
    return json.dumps(body, indent=1) + "\n"


def main() -> None:
    """Command line."""
    arguments = _parser().parse_args()
    model = SamModel.load(arguments.model, backend=arguments.backend, precision=arguments.precision)
    predictor = SamPredictor(model)
    if arguments.kind == "synthetic":
        sources = Sources.from_folders(arguments.textures, arguments.cutouts)
        rows = evaluate(predictor, synthetic_subjects(arguments.count, sources), baselines=False)
        text = table(rows, lambda row: row.source, goals=False)
    else:
        subjects = read_subjects(arguments.listing, arguments.photos)
        rows = evaluate(predictor, subjects, baselines=True)
        text = report(rows)
        if arguments.sheet:
            save_image(arguments.sheet, worst_sheet(predictor, subjects, rows), quality=85)
        if arguments.card:
            embed(arguments.card, text)
    sys.stdout.write(text + "\n")
    if arguments.json:
        arguments.json.write_text(to_json(model, rows), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    synthetic = kinds.add_parser("synthetic", help="held-out scenes of the generator")
    photos = kinds.add_parser("photos", help="real photos with polygons")
    for kind in (synthetic, photos):
        kind.add_argument("model", type=Path)
        kind.add_argument("--backend", default="ort-cpu")
        kind.add_argument("--precision", default="fp32")
        kind.add_argument("--json", type=Path, help="write model, means and rows here")
    synthetic.add_argument("--count", type=int, default=60)
    synthetic.add_argument("--textures", type=Path, action="append", default=[])
    synthetic.add_argument("--cutouts", type=Path, action="append", default=[])
    photos.add_argument("listing", type=Path)
    photos.add_argument(
        "--photos", type=Path, action="append", default=[], help="folder searched for the photos, repeatable"
    )
    photos.add_argument("--sheet", type=Path, help="write a picture of the worst ten here")
    photos.add_argument("--card", type=Path, help="write the tables between the markers of this Markdown file")
    return parser


if __name__ == "__main__":
    main()
