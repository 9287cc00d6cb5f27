"""The README's picture of where the time of a crop goes, from the lab's JSON.

python docs/make_benchmark_pictures.py [--json benchmarks/results/lab.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from boothsam.bench.charts import COLOURS
from boothsam.bench.runners import STAGES
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "latency.png"
# From top to bottom; what was not measured is left out.
_ROWS = (
    ("mobile_sam/torch", "MobileSAM, PyTorch eager + Pillow"),
    ("mobile_sam/boothsam-ort-cpu", "MobileSAM, boothsam"),
    ("mobile_sam/boothsam-ov", "MobileSAM, boothsam, OpenVINO"),
    ("starter/torch", "starter, PyTorch eager + Pillow"),
    ("starter/boothsam-ort-cpu", "starter, boothsam"),
)


def draw(body: dict[str, Any], out: Path) -> None:
    """Stacked bars of the crops at the most threads measured."""
    number = max(body["threads"], key=int)
    times = body["threads"][number]["crops"]["times_ms"]
    rows = [(label, name) for label, name in _ROWS if label in times]
    figure, axis = plt.subplots(figsize=(10, 0.5 * len(rows) + 1.5), layout="constrained")
    left = [0.0] * len(rows)
    for stage, colour in zip(STAGES, COLOURS, strict=True):
        values = [median(times[label][stage]) for label, _ in rows]
        axis.barh([name for _, name in rows], values, left=left, color=colour, label=stage, height=0.7)
        left = [a + b for a, b in zip(left, values, strict=True)]
    for index, total in enumerate(left):
        axis.text(total + 0.008 * max(left), index, f"{total:.0f} ms", va="center", fontsize=11)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.1 * max(left))
    axis.set_xlabel(f"median ms, one 12-megapixel JPEG and a box to a PNG, {number} threads of an {_cpu(body)}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0, labelsize=11)
    figure.legend(loc="outside upper center", ncols=len(STAGES), frameon=False, fontsize=10, handlelength=1)
    figure.savefig(out, dpi=160, metadata={"Software": None})
    plt.close(figure)


def _cpu(body: dict[str, Any]) -> str:
    return str(body["machine"].get("board", body["machine"].get("cpu", "unknown processor")))


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "lab.json")
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    draw(json.loads(options.json.read_text()), options.out)
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
