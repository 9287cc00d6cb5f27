"""Figures as Markdown for the model card, and a picture of the worst subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from boothsam.runtime.predictor import SamPredictor
from boothsam.training.measures import Row
from boothsam.training.photos import Image
from boothsam.training.prompts import box_of
from boothsam.training.proof_set import Subject
from boothsam.training.sheets import FOUND, WANTED, Tile, outlined, sheet, window_around

START, END = "<!-- proof -->", "<!-- /proof -->"
WORST = 10

# head, figure, goal of the bundled model (see docs/starter-model.md)
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("box", "box", "≥ 0.88"),
    ("box jittered", "box_jittered", "≥ 0.85"),
    ("boundary IoU by box", "box_boundary", ""),
    ("GrabCut", "grabcut", ""),
    ("box − GrabCut", "over_grabcut", "≥ 0.05"),
    ("filled box", "filled_box", ""),
    ("click, best of three", "click_best", "≥ 0.78"),
    ("click, top", "click_top", "≥ 0.68"),
    ("three clicks", "three_clicks", "≥ 0.85"),
    ("error of predicted IoU", "score_error", "≤ 0.10"),
)


def mean(rows: Sequence[Row], figure: str) -> float | None:
    """Mean of one figure; "over_grabcut" is the difference by box; None when no row has it."""
    if figure == "over_grabcut":
        ours, theirs = mean(rows, "box"), mean(rows, "grabcut")
        return None if ours is None or theirs is None else ours - theirs
    found = [row.figures[figure] for row in rows if figure in row.figures]
    return float(np.mean(found)) if found else None


def auto_share(rows: Sequence[Row]) -> str:
    """How often `--auto` was right, such as "13 of 16"; empty when it was not asked."""
    asked = [row.auto for row in rows if row.auto is not None]
    return f"{asked.count('right')} of {len(asked)}" if asked else ""


def _cells(rows: Sequence[Row], columns: Sequence[tuple[str, str, str]]) -> list[str]:
    cells = []
    for _, figure, _ in columns:
        value = mean(rows, figure)
        sign = "+" if figure == "over_grabcut" and value is not None and value >= 0 else ""
        cells.append("" if value is None else f"{sign}{value:.3f}".replace("-", "−"))
    return cells


def table(rows: Sequence[Row], key: Callable[[Row], str], *, goals: bool = True) -> str:
    """Markdown: a line per group with the mean of every figure, then all rows, then the goals."""
    columns = [c for c in COLUMNS if mean(rows, c[1]) is not None]
    asked = any(row.auto is not None for row in rows)
    heads = ["", "n", *(head for head, _, _ in columns), *(["`--auto` right"] if asked else [])]
    lines = [_line(heads), _line(["---"] * len(heads))]

    def add(label: str, chosen: Sequence[Row]) -> None:
        lines.append(
            _line([label, str(len(chosen)), *_cells(chosen, columns), *([auto_share(chosen)] if asked else [])])
        )

    groups = sorted({key(row) for row in rows})
    for group in groups:
        add(group, [row for row in rows if key(row) == group])
    if len(groups) > 1:
        add("**all**", rows)
    if goals:
        lines.append(_line(["goal", "", *(goal for _, _, goal in columns), *(["≥ 80 %"] if asked else [])]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def worst(rows: Sequence[Row], count: int = WORST) -> list[Row]:
    """The rows with the lowest IoU by box, the lowest first."""
    return sorted(rows, key=lambda row: (row.figures["box"], row.name))[:count]


def worst_table(rows: Sequence[Row]) -> str:
    """Markdown: the worst rows with their figures."""
    chosen = [c for c in COLUMNS if c[1] in ("box", "box_boundary", "grabcut", "click_best", "three_clicks")]
    columns = [c for c in chosen if mean(rows, c[1]) is not None]
    lines = [_line(["", "source", *(head for head, _, _ in columns)]), _line(["---"] * (len(columns) + 2))]
    lines += [_line([row.name, row.source, *_cells([row], columns)]) for row in worst(rows)]
    return "\n".join(lines)


def agreement_line(rows: Sequence[Row]) -> str:
    """One sentence on the masks that were drawn twice; empty when there is none."""
    found = [(row.twice, row.twice_boundary or 0.0, row.name) for row in rows if row.twice is not None]
    if not found:
        return ""
    lowest = min(found)
    return (
        f"{len(found)} masks were drawn a second time by another hand that had not seen the first: mean IoU of the two "
        f"drawings {np.mean([f[0] for f in found]):.3f} (boundary IoU {np.mean([f[1] for f in found]):.3f}), lowest "
        f"{lowest[0]:.3f} ({lowest[2]})."
    )


def auto_line(rows: Sequence[Row]) -> str:
    """One sentence that names the photos on which `--auto` failed; empty when it was not asked."""
    if not auto_share(rows):
        return ""
    failed = [
        f"{row.name} ({'another mask' if row.auto == 'wrong' else 'nothing found'})"
        for row in rows
        if row.auto in ("wrong", "nothing")
    ]
    return f"`--auto` found the product on {auto_share(rows)} photos of one product (IoU ≥ 0.75)" + (
        f"; not on: {', '.join(failed)}." if failed else "."
    )


def report(rows: Sequence[Row]) -> str:
    """The whole Markdown: by source, by category, agreement of drawings, `--auto`, the worst ten."""
    parts = [table(rows, lambda row: row.source)]
    if len({row.category for row in rows}) > 1:
        parts.append(table(rows, lambda row: row.category, goals=False))
    parts += [line for line in (agreement_line(rows), auto_line(rows)) if line]
    parts.append(f"The {min(WORST, len(rows))} worst by box:\n\n{worst_table(rows)}")
    return "\n\n".join(parts)


def embed(card: Path, text: str) -> None:
    """Replace what stands between `<!-- proof -->` and `<!-- /proof -->` in a Markdown file.

    Raises ValueError when the file does not hold both markers once, in this order.
    """
    body = card.read_text(encoding="utf-8")
    if body.count(START) != 1 or body.count(END) != 1 or body.index(START) > body.index(END):
        raise ValueError(f"{card} does not hold {START} and {END} once each; hint: put both on lines of their own")
    before, after = body.split(START)[0], body.split(END)[1]
    card.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def worst_sheet(
    predictor: SamPredictor, subjects: Sequence[Subject], rows: Sequence[Row], *, side: int = 300, count: int = WORST
) -> Image:
    """The worst subjects by box, in pairs: the outline drawn by hand, and the model's by box."""
    by_name = {subject.name: subject for subject in subjects}
    lines = []
    for row in worst(rows, count):
        subject = by_name[row.name]
        predictor.set_image(subject.image)
        found = predictor.predict(box=np.array(box_of(subject.mask)), multimask_output=False)[0][0]
        view = window_around(subject.mask)
        photo = np.ascontiguousarray(subject.image[view])
        pictures = [outlined(photo, mask[view], ink, side) for mask, ink in ((subject.mask, WANTED), (found, FOUND))]
        lines.append([Tile(pictures[0], row.name), Tile(pictures[1], f"IoU {row.figures['box']:.2f}")])
    title = f"The {len(lines)} worst of {len(rows)} masks by box"
    note = predictor.model.manifest.name
    return sheet(title, ("drawn by hand", "model, by box"), lines, side=side, columns=min(2, len(lines)), note=note)
