"""Figures beside their targets: a table for people, JSON for the records."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = (
    "boothsam", "fastapi", "starlette", "uvicorn", "python-multipart", "onnxruntime", "numpy", "pillow", "simplejpeg",
    "opencv-python-headless",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One measured value. target: what was set beforehand, as an upper limit; None: measured for the record."""

    name: str
    value: float
    unit: str
    target: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value keeps to the target."""
        return None if self.target is None else self.value <= self.target


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank). Raises ValueError."""
    if not values:
        raise ValueError("no values were measured")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def table(figures: Sequence[Figure]) -> str:
    """As Markdown."""
    rows = ["| figure | measured | target | |", "|---|---:|---:|---|"]
    for one in figures:
        target = "" if one.target is None else f"<= {one.target:g} {one.unit}".rstrip()
        verdict = {True: "met", False: "**missed**", None: ""}[one.met]
        about = ", ".join(part for part in (verdict, one.note) if part)
        rows.append(f"| {one.name} | {one.value:g} {one.unit} | {target} | {about} |")
    return "\n".join(rows)


def environment(load_before: float) -> dict[str, Any]:
    """What every published figure names: hardware, versions, how busy the machine was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "date": date.today().isoformat(),
        "processor": cpu,
        "cores_used": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load_average_before_and_after": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in PACKAGES},
    }


def document(command: str, figures: Sequence[Figure], load_before: float, **more: Any) -> str:
    """The JSON record of a run."""
    rows = [asdict(one) | {"met": one.met} for one in figures]
    return json.dumps({"command": command} | environment(load_before) | more | {"figures": rows}, indent=2) + "\n"
