"""The worst cases of a comparison as one picture: expected mask, found mask, where they differ."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from boothsam.runtime.fidelity import Fidelity, WorstCase
from boothsam.runtime.masks import BoolArray
from boothsam.runtime.transforms import Uint8Array

PANEL = 384  # pixels of a panel's longer side
GAP, LINE = 8, 22
MASK, LOST, GAINED = (40, 170, 90), (220, 40, 40), (40, 90, 230)
INK, PAPER = (20, 20, 20), (255, 255, 255)


def worst_cases(report: Fidelity, photos: Mapping[str, Uint8Array], count: int = 4) -> Uint8Array:
    """(H, W, 3) uint8 RGB: a row of three panels for each of the worst cases, worst first.

    Left the reference's mask, in the middle the measured model's, right what was lost (red) and gained (blue). IoU,
    kind of prompt and numerics are written above each row.
    """
    rows = [_row(case, photos[case.row.photo], report) for case in report.worst[:count]]
    width = max((row.shape[1] for row in rows), default=3 * PANEL)
    padded = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    legend = np.full((LINE + GAP, width, 3), PAPER, np.uint8)
    _write(legend, f"{report.against}  |  {report.precision} ({report.numerics})  |  red: lost, blue: gained")
    return np.ascontiguousarray(np.concatenate([legend, *padded]))


def _row(case: WorstCase, photo: Uint8Array, report: Fidelity) -> Uint8Array:
    height, width = case.expected.shape
    scale = PANEL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    base = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
    expected, found = (
        cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in (case.expected, case.found)
    )
    panels = [
        _tint(base, [(expected, MASK)]),
        _tint(base, [(found, MASK)]),
        _tint((base // 2 + 110).astype(np.uint8), [(expected & ~found, LOST), (found & ~expected, GAINED)], 0.9),
    ]
    gap = np.full((size[1], GAP, 3), PAPER, np.uint8)
    strip = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], 1)
    title = np.full((LINE, strip.shape[1], 3), PAPER, np.uint8)
    finite = "" if case.row.finite else ", NaN or infinity"
    _write(title, f"IoU {case.row.mask_iou:.4f}  {case.row.kind}, {case.row.photo} ({report.numerics}{finite})")
    foot = np.full((GAP, strip.shape[1], 3), PAPER, np.uint8)
    return np.concatenate([title, strip, foot])


def _tint(base: Uint8Array, layers: list[tuple[BoolArray, tuple[int, int, int]]], alpha: float = 0.5) -> Uint8Array:
    out = base.astype(np.float32)
    for mask, colour in layers:
        out[mask] = (1 - alpha) * out[mask] + alpha * np.array(colour, np.float32)
    return np.asarray(out.round(), np.uint8)


def _write(canvas: Uint8Array, text: str) -> None:
    """One line of text at the top, in place; what does not fit is cut."""
    cv2.putText(canvas, text, (2, LINE - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
