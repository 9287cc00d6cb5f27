"""Curves of training runs: python -m boothsam.training.curves RUN/log.csv... -o curves.png"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")
from matplotlib import pyplot as plt

PANELS = {
    "loss": ("loss", "mask"),
    "IoU from a box": ("box_single", "box_best"),
    "IoU from a click": ("click_best", "click_top", "second_single"),
    "error of the predicted IoU": ("score_error",),
}
WINDOW = 50  # steps a point of the curve averages over


def read_log(paths: Sequence[Path]) -> dict[str, NDArray[np.float64]]:
    """Columns of one or several log.csv in a row; what a step did not have (no box in its batch) is NaN.

    Raises ValueError for a file without steps.
    """
    rows: list[dict[str, str]] = []
    for path in paths:
        with path.open(newline="") as file:
            found = list(csv.DictReader(file))
        if not found:
            raise ValueError(f"{path} holds no steps; hint: give a run's log.csv")
        rows += found
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def smooth(values: NDArray[np.float64], window: int = WINDOW) -> NDArray[np.float64]:
    """Mean of what is there over the last `window` steps; the same length."""
    there = np.isfinite(values)
    total = np.cumsum(np.concatenate([[0.0], np.where(there, values, 0.0)]))
    count = np.cumsum(np.concatenate([[0], there]))
    start = np.maximum(0, np.arange(1, len(values) + 1) - window)
    end = np.arange(1, len(values) + 1)
    return np.asarray((total[end] - total[start]) / np.maximum(1, count[end] - count[start]))


def draw_curves(paths: Sequence[Path], out: Path) -> None:
    """Loss, IoU by prompt and error of the predicted IoU over the steps of one or several logs in a row, as a PNG."""
    log = read_log(paths)
    figure, axes = plt.subplots(1, len(PANELS), figsize=(16, 3.4), layout="constrained")
    for axis, (title, columns) in zip(axes, PANELS.items(), strict=True):
        for column in columns:
            axis.plot(np.arange(1, len(log[column]) + 1), smooth(log[column]), label=column, linewidth=1.2)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    figure.savefig(out, dpi=90)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    draw_curves(arguments.logs, arguments.out)


if __name__ == "__main__":
    main()
