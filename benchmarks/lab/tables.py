"""A result of the lab as text: the summary on the terminal, Markdown for the documentation, JSON for the files."""

from __future__ import annotations

import json
from typing import Any

_ROWS = (
    *("encoder", "decoder, 1 prompts", "decoder, 8 prompts", "decoder, 64 prompts"),
    *("all but the encoder", "all but the picture", "total"),
)
_WORDS = {
    "decoder, 1 prompts": "decoder, 1 prompt",
    "all but the picture": "all but writing the PNG",
    "total": "whole crop",
}


def to_json(result: dict[str, Any]) -> str:
    """Indented, one final newline."""
    return json.dumps(result, indent=1) + "\n"


def label(stage: str) -> str:
    """A stage in words."""
    return _WORDS.get(stage, stage)


def _text(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    ratio = f" ({row['ratio_to_torch']:.2f}x)" if row.get("ratio_to_torch") not in (None, 1.0) else ""
    return f"{row['p50_ms']:.1f}{ratio}"


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Header and lines: one column per implementation, medians in ms with the ratio to PyTorch in brackets."""
    found = result["implementations"]
    table = [["median ms", *found]]
    stages = [stage for stage in next(iter(found.values()))["stages"] if stage not in _ROWS and stage != "decoder"]
    for stage in (*stages, *_ROWS):
        cells = [_text(one["stages"].get(stage)) for one in found.values()]
        if set(cells) != {"-"}:
            table.append([label(stage), *cells])
    first = next(iter(found.values()))["cold"]["first_crop_s"]
    base = min(first) if "torch" in found else None
    cold = []
    for one in found.values():
        best = min(one["cold"]["first_crop_s"])
        cold.append(f"{best:.2f} s" + (f" ({base / best:.2f}x)" if base and best != base else ""))
    table.append(["start to first crop, best", *cold])
    table.append(["peak memory, MiB", *(f"{one['cold']['peak_rss_bytes'] / 2**20:.0f}" for one in found.values())])
    for name, key in (("energy per crop, mJ", "energy_mj"), ("device memory, MiB", "device_memory_mib")):
        cells = [f"{one[key]:.0f}" if key in one else "-" for one in found.values()]
        if set(cells) != {"-"}:
            table.append([name, *cells])
    return table


def summary(result: dict[str, Any]) -> str:
    """For a terminal: aligned columns, then what is absent and why."""
    table = rows(result)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    lines += [f"not run: {name}: {reason}" for name, reason in result["absent"].items()]
    return "\n".join(lines)


def markdown(result: dict[str, Any]) -> str:
    """A table for the documentation."""
    head, *body = rows(result)
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + [f"| {' | '.join(line)} |" for line in body]) + "\n"
