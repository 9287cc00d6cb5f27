"""The table of model x precision, from benchmarks/results/precision.json into README.md and docs/precision.md.

`python benchmarks/precision.py --table` calls `write`. Nothing is measured here and no figure stands in a page that is
not in the JSON; a test compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "precision.json"
COMMAND = "python benchmarks/precision.py --table"
BEGIN = f"<!-- precision table: made by {COMMAND}; do not edit -->"
END = "<!-- precision table: end -->"
# Models in the order of the table, and what their weights are; others follow by name.
TITLES = {
    "starter": "starter",
    "vit_t-trained": "vit_t, decoder trained on drawn scenes over a random encoder",
    "vit_t": "vit_t, random weights",
    "vit_b": "vit_b, random weights",
    "vit_l": "vit_l, random weights",
    "vit_h": "vit_h, random weights",
    "tiny": "tiny SAM of the tests",
    "outlier": "tiny SAM with outlier weights",
}
GRAPHS = ("encoder", "decoder")

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]


def _megabytes(row: Row) -> str:
    sizes = row.get("bytes", {})
    return " + ".join(f"{sizes[g] / 1e6:.2f}" for g in GRAPHS if g in sizes) or "-"


def _iou(row: Row, *figures: str) -> str:
    if row["precision"] == "fp32":
        return "reference"
    report = row.get("fidelity")
    if report is None:
        return "not compared"
    return " / ".join(f"{report['summary'][f'mask_iou_{figure}']:.4f}" for figure in figures)


def _iou_and_gate(row: Row) -> str:
    """README has no column for the gate: what fails it says so beside its figures."""
    report = row.get("fidelity")
    failed = report is not None and not report["passed"]
    return _iou(row, "mean", "p5") + (" (**gate missed: not loaded**)" if failed else "")


def _gate(row: Row) -> str:
    if "error" in row:
        return f"**none**: {row['error']}"
    report = row.get("fidelity")
    return "-" if report is None else "passed" if report["passed"] else "**failed**"


def _numerics(row: Row) -> str:
    report = row.get("fidelity")
    return "-" if report is None else str(report["numerics"])


def _builds(row: Row) -> str:
    built = row.get("tensorrt_rtx", {})
    if not built:
        return "-"
    return f"**no**: {built['error']}" if "error" in built else "yes"


def _ran(row: Row) -> str:
    return "; ".join(row.get("device_runs", ())) or "no"


def _latency(row: Row) -> str:
    """Milliseconds of encoder + decoder with one box."""
    found = row.get("latency_ms")
    if not found:
        return "-"
    return f"{' + '.join(f'{found[g]:.0f}' for g in GRAPHS)}, {found['backend']}, {found['threads']} threads"


def _islands(row: Row) -> str:
    facts = row.get("facts", {})
    return " + ".join(str(facts[g]["islands"]) for g in GRAPHS if g in facts) or "-"


def _layers(row: Row) -> str:
    facts = row.get("facts", {}).get("encoder", {})
    if "quantised" not in facts:
        return "-"
    return f"{facts['quantised']} of {facts['quantised'] + facts['spared'] + facts['never']}"


_FIRST: tuple[Column, ...] = (
    ("model", lambda row: TITLES.get(row["model"], row["model"])),
    ("precision", lambda row: str(row["precision"])),
    ("MB, encoder + decoder", _megabytes),
)
_LAST: tuple[Column, ...] = (
    ("numerics", _numerics),
    ("builds with TensorRT-RTX", _builds),
    ("run on TensorRT or a Jetson", _ran),
    ("latency, ms", _latency),
)
SHORT: tuple[Column, ...] = (*_FIRST, ("mask IoU with FP32, mean / p5", _iou_and_gate), *_LAST)
LONG: tuple[Column, ...] = (
    *_FIRST,
    ("mask IoU with FP32, mean / p5 / least", lambda row: _iou(row, "mean", "p5", "min")),
    ("gate", _gate),
    ("FP32 islands", _islands),
    ("INT8 layers", _layers),
    *_LAST,
)


def rows(body: Mapping[str, Any]) -> list[Row]:
    """All rows of the JSON in the order of the table."""
    models: Mapping[str, Any] = body["models"]
    order = [*(name for name in TITLES if name in models), *sorted(set(models) - set(TITLES))]
    return [{"model": name, **row} for name in order for row in models[name]["rows"]]


def short(body: Mapping[str, Any]) -> list[Row]:
    """README's rows: plain FP16 only where it fails, which is why there are islands."""
    return [
        row
        for row in rows(body)
        if row["precision"] != "plain fp16" or (row.get("fidelity") and not row["fidelity"]["passed"])
    ]


def markdown(found: Sequence[Row], columns: Sequence[Column]) -> str:
    """A table, without a line break at its end."""
    lines = [[title for title, _ in columns], ["---"] * len(columns)]
    lines += [[cell(row) for _, cell in columns] for row in found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replaced(page: str, table: str) -> str:
    """A page with what stands between the markers replaced.

    Raises:
        ValueError: the markers do not stand there once each, in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"expected the two lines {BEGIN!r} and {END!r}\nhint: put them where the table belongs")
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", page)


def pages(body: Mapping[str, Any]) -> dict[Path, str]:
    """Page -> its table."""
    return {
        ROOT / "README.md": markdown(short(body), SHORT),
        ROOT / "docs" / "precision.md": markdown(rows(body), LONG),
    }


def write(result: Path = RESULT) -> None:
    """Put the tables of a JSON into the pages."""
    for page, table in pages(json.loads(result.read_text(encoding="utf-8"))).items():
        page.write_text(replaced(page.read_text(encoding="utf-8"), table), encoding="utf-8")
