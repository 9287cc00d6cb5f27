"""Two results of the lab against each other: did a stage get slower?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boothsam.runtime.errors import OptionError


@dataclass(frozen=True)
class Change:
    """One stage of one implementation in both results; factor above 1 means slower."""

    implementation: str
    stage: str
    before_ms: float
    after_ms: float
    factor: float


def load(path: Path) -> dict[str, Any]:
    """A result file. Raises OptionError when it is none."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        result["implementations"], result["machine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path} is no result of boothsam bench ({error})", hint="boothsam bench --json FILE"
        ) from None
    return result


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Every stage that both results have, the worst first.

    Where both have PyTorch, the ratio to it within each run is compared: it says the same on a machine that happened to
    be slower that day. PyTorch itself, and results without it, are compared by their medians.
    """
    found = []
    for name in before["implementations"].keys() & after["implementations"].keys():
        old, new = (result["implementations"][name]["stages"] for result in (before, after))
        for stage in old.keys() & new.keys():
            a, b = old[stage], new[stage]
            relative = name != "torch" and "ratio_to_torch" in a and "ratio_to_torch" in b
            factor = a["ratio_to_torch"] / b["ratio_to_torch"] if relative else b["p50_ms"] / max(a["p50_ms"], 1e-9)
            found.append(Change(name, stage, a["p50_ms"], b["p50_ms"], round(factor, 3)))
    return sorted(found, key=lambda change: -change.factor)


def regressions(found: list[Change], threshold: float, least_ms: float = 1.0) -> list[Change]:
    """Those slower by more than `threshold` (0.2: a fifth); stages under `least_ms` before are noise."""
    return [change for change in found if change.factor > 1 + threshold and change.before_ms >= least_ms]


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What makes the two hard to compare: machine, threads, model."""
    notes = []
    for part, key in (("machine", "cpu"), ("machine", "board"), ("machine", "threads"), ("machine", "power_mode"),
                      ("model", "variant")):  # fmt: skip
        a, b = before[part].get(key), after[part].get(key)
        if a != b:
            notes.append(f"{key} differs: {a} and {b}")
    return notes
