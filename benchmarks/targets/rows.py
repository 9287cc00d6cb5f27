"""From the measured JSON to the rows of the targets: what was wanted, what was found, by how much it was missed.

Every ratio is the median of the ratios within a round of one schedule, never a quotient of two medians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from boothsam.bench.schedule import paired_ratio

Parts = dict[str, Any]  # of one number of threads
Found = tuple[float, str]  # a figure, and whose it is
TORCH = "mobile_sam/torch"


@dataclass(frozen=True)
class Target:
    """One row. wanted: at least so many times faster, or with `unit` "ms" at most so long; None: shown, not asked for.

    find: the figure in the parts of one number of threads, None when it was not measured. why: it is missed, if it is.
    """

    name: str
    wanted: float | None
    find: Callable[[Parts], Found | None]
    unit: str = "x"
    why: str = ""

    def verdict(self, value: float) -> str:
        """In words, with the distance to the target in per cent of it."""
        if self.wanted is None:
            return ""
        met = value <= self.wanted if self.unit == "ms" else value >= self.wanted
        away = abs(value / self.wanted - 1)
        return "met" if met else f"missed by {100 * away:.0f} %"

    def text(self, value: float) -> str:
        """The figure with its unit."""
        if self.unit == "ms":
            return f"{value:.1f} ms"
        return f"{value:.2f}x" if value < 10 else f"{value:.1f}x"

    @property
    def wish(self) -> str:
        """What was wanted, "" when the row is only shown."""
        if self.wanted is None:
            return ""
        return f"<= {self.wanted:g} ms" if self.unit == "ms" else f">= {self.wanted:g}x"


def _times(parts: Parts, part: str, stage: str) -> dict[str, list[float]]:
    """Milliseconds of a stage by label, of those who have it."""
    found: dict[str, dict[str, list[float]]] = parts.get(part, {}).get("times_ms", {})
    return {label: stages[stage] for label, stages in found.items() if stage in stages}


def _ours(label: str, model: str, fast: bool) -> bool:
    return label.startswith(f"{model}/boothsam-") and label.endswith("-fast") == fast


def faster(
    part: str, stage: str, model: str = "mobile_sam", *, fast: bool = False, base: str = TORCH
) -> Callable[[Parts], Found | None]:
    """The best of boothsam's backends on `model` against `base`, in one stage."""

    def find(parts: Parts) -> Found | None:
        times = _times(parts, part, stage)
        if base not in times:
            return None
        ours = [label for label in times if _ours(label, model, fast)]
        return max(((paired_ratio(times[base], times[one]), one) for one in ours), default=None)

    return find


def shortest(part: str, stage: str, model: str = "mobile_sam") -> Callable[[Parts], Found | None]:
    """The least median of boothsam's backends, in milliseconds."""

    def find(parts: Parts) -> Found | None:
        times = _times(parts, part, stage)
        ours = [label for label in times if _ours(label, model, False)]
        return min(((median(times[one]), one) for one in ours), default=None)

    return find


def against(part: str, stage: str, ours: str, theirs: str) -> Callable[[Parts], Found | None]:
    """One label against another."""

    def find(parts: Parts) -> Found | None:
        times = _times(parts, part, stage)
        if ours not in times or theirs not in times:
            return None
        return paired_ratio(times[theirs], times[ours]), ours

    return find


def everything(run: str, ratio: str) -> Callable[[Parts], Found | None]:
    """Of the fast mode as benchmarks/everything.py found it, at 32 x 32 points where it reckons that from fewer."""

    def find(parts: Parts) -> Found | None:
        for name, found in parts.get("everything", {}).get("runs", {}).items():
            if run in name:
                row = found["rows"]["boothsam fast"]
                return row.get(f"usual_{ratio}", row[ratio]), "boothsam fast"
        return None

    return find


_STARTER = "starter/torch"
TARGETS = (
    Target("MobileSAM encoder, best backend, against PyTorch eager", 2.2, faster("crops", "encoder")),
    Target(
        "the same against torch.compile",
        None,
        against("compile", "encoder", "mobile_sam/boothsam-ort-cpu", "mobile_sam/torch-compile"),
    ),
    Target("decoder, 1 prompt", 2.5, faster("decoder", "decoder, 1 prompts")),
    Target("decoder, 8 prompts", None, faster("decoder", "decoder, 8 prompts")),
    Target(
        "decoder, 64 prompts, each side in its best batches",
        3.5,
        faster("decoder", "decoder, 64 prompts"),
        why="three quarters are matrix products that run at the processor's peak; more needs fewer operations",
    ),
    Target("12-MP JPEG by box to PNG, MobileSAM, exact resize", 4.0, faster("crops", "total")),
    Target("the same without writing the PNG", None, faster("crops", "all but the picture")),
    Target('the same with PNG and `resize="fast"`', 4.5, faster("crops", "total", fast=True)),
    Target("the same with the starter, another and weaker model", 15.0, faster("crops", "total", "starter")),
    Target("starter in PyTorch against starter here", 5.0, faster("crops", "total", "starter", base=_STARTER)),
    Target(
        "everything but the encoder, MobileSAM",
        12.0,
        faster("crops", "all but the encoder"),
        why="half of what is left is the JPEG, the exact resize and the decoder, at their libraries' own speed",
    ),
    Target(
        "repeated click beyond the decoder",
        5.0,
        shortest("click", "beyond the decoder"),
        "ms",
        why="a mask of 12 million pixels is 12 MB that has to be written anew; in strips it was no faster (0.8-1.04x)",
    ),
    Target(
        "everything mode 32 x 32, `fast`, MobileSAM, against the reference generator",
        10.0,
        everything("MobileSAM", "ratio_to_reference"),
        why="every point was asked, since random masks agree with each other; with real masks a third is left out",
    ),
    Target("the same against PyTorch, batched well", 4.0, everything("MobileSAM", "ratio_to_batched_well")),
    Target(
        "everything mode, tests' tiny SAM, against the reference generator",
        None,
        everything("tiny", "ratio_to_reference"),
    ),
    Target("the same against PyTorch, batched well", None, everything("tiny", "ratio_to_batched_well")),
    Target(
        "start to first crop, starter, PyTorch against here",
        8.0,
        against("cold", "start to first crop", "starter/boothsam-ort-cpu", _STARTER),
        why="nearly half is the crop itself; the rest is Python, NumPy, OpenCV and ONNX Runtime that start",
    ),
    Target(
        "start to first crop, MobileSAM, PyTorch against here",
        None,
        against("cold", "start to first crop", "mobile_sam/boothsam-ort-cpu", TORCH),
    ),
)


def lines(body: dict[str, Any]) -> list[list[str]]:
    """Head and rows: target, wanted, the figure with its verdict for each number of threads ("-": not measured)."""
    threads = sorted(body["threads"], key=int)
    head = ["", "wanted", *(f"{n} thread{'s' if n != '1' else ''}" for n in threads), "why missed"]
    table = [head]
    for target in TARGETS:
        cells = []
        for number in threads:
            found = target.find(body["threads"][number])
            if found is None:
                cells.append("-")
                continue
            value, whose = found
            backend = whose.split("boothsam-")[-1].removesuffix("-fast") if "boothsam-" in whose else ""
            words = ", ".join(word for word in (target.verdict(value), backend) if word)
            cells.append(target.text(value) + (f" ({words})" if words else ""))
        missed = any("missed" in one for one in cells)
        table.append([target.name, target.wish, *cells, target.why if missed else ""])
    return table


def terminal(body: dict[str, Any]) -> str:
    """Aligned columns."""
    table = lines(body)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )
