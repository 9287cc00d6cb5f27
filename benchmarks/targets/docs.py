"""The tables of README.md and docs/benchmarks.md, between marks, from the measured JSON."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from boothsam.bench.runners import STAGES
from boothsam.bench.schedule import paired_ratio

from benchmarks.targets import rows
from benchmarks.targets.models import ROOT

_OURS = "mobile_sam/boothsam-ort-cpu"
_COMPILED = "mobile_sam/torch-compile"
_STARTER = "starter/boothsam-ort-cpu"
# Row of the README, part and stage it comes from.
_LATENCY = (
    ("encoder, once per photo", "crops", "encoder"),
    ("decoder, one box", "decoder", "decoder, 1 prompts"),
    ("decoder, eight boxes at once", "decoder", "decoder, 8 prompts"),
    ("12-MP JPEG and a box to a PNG", "crops", "total"),
    ("of that, all but the encoder", "crops", "all but the encoder"),
    ("starting Python to the first PNG", "cold", "start to first crop"),
)
BLOCKS = {
    "README.md": ("latency table",),
    "docs/benchmarks.md": ("latency table", "targets table", "stages table", "peers table"),
}


def marks(block: str) -> tuple[str, str]:
    """What stands before and after a block."""
    return f"<!-- {block}: python -m benchmarks.targets --docs -->\n", f"<!-- end of {block} -->"


def blocks(body: dict[str, Any]) -> dict[str, str]:
    """Markdown of every block by name."""
    return {
        "latency table": latency(body),
        "targets table": table(rows.lines(body)) + _notes(body),
        "stages table": "\n".join(stages(body, number) for number in sorted(body["threads"], key=int)),
        "peers table": peers(body),
    }


def write(body: dict[str, Any], root: Path = ROOT) -> None:
    """Put every block into its files. Exits when a file lacks a mark."""
    made = blocks(body)
    for file, names in BLOCKS.items():
        text = (root / file).read_text()
        for name in names:
            start, end = marks(name)
            if text.count(start) != 1 or text.count(end) != 1:
                raise SystemExit(f"{file} has no {name}: expected {start.strip()} ... {end}, once each")
            head, rest = text.split(start)
            text = head + start + made[name] + end + rest.split(end)[1]
        (root / file).write_text(text)


def table(lines: list[list[str]]) -> str:
    """Markdown, first column to the left."""
    head, *body = lines
    ruled = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(ruled + [f"| {' | '.join(line)} |" for line in body]) + "\n"


def latency(body: dict[str, Any]) -> str:
    """PyTorch, the same weights here, and the starter: medians and paired ratios, at the most threads measured."""
    number = max(body["threads"], key=int)
    parts = body["threads"][number]
    lines = [[f"median ms, {number} threads", "MobileSAM in PyTorch", "here, same weights", "", "starter model", ""]]
    for name, part, stage in _LATENCY:
        times = parts.get(part, {}).get("times_ms", {})
        if rows.TORCH not in times or stage not in times[rows.TORCH]:
            continue
        base = times[rows.TORCH][stage]
        cells = [_ms(median(base))]
        for label in (_OURS, _STARTER):
            cells += [_ms(median(times[label][stage])), f"{paired_ratio(base, times[label][stage]):.1f}x"]
        lines.append([name, *cells])
    return table(lines) + _conditions(body)


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _conditions(body: dict[str, Any]) -> str:
    machine, versions = body["machine"], body["machine"]["versions"]
    flags = "AVX-512" if "avx512f" in machine.get("cpu_flags", ()) else "no AVX-512"
    weights = "seeded random weights for MobileSAM (they change no time)" if _seeded(body) else "MobileSAM's checkpoint"
    return (
        f"\n{machine.get('cpu', 'unknown processor')} ({flags}), PyTorch {versions.get('torch')} eager, ONNX Runtime "
        f"{versions.get('onnxruntime')}, FP32,\n{weights}, masks compared first, fresh processes that take turns; "
        "ratios are medians of those within a round.\n"
    )


def _seeded(body: dict[str, Any]) -> bool:
    return bool(body["models"]["mobile_sam"]["seeded"])


def _notes(body: dict[str, Any]) -> str:
    notes = []
    for number in sorted(body["threads"], key=int):
        parts = body["threads"][number]
        if "prompts_at_once" in parts.get("decoder", {}):
            at_once = parts["decoder"]["prompts_at_once"]
            notes.append(
                f"{number} thread(s): MobileSAM's decoder was asked {at_once[rows.TORCH]} prompts at once in PyTorch, "
                f"{at_once[_OURS]} here"
            )
        first = parts.get("compile", {}).get("first_call_ms", {}).get(_COMPILED)
        if first is not None:
            times = parts["compile"]["times_ms"]
            gain = paired_ratio(times[rows.TORCH]["encoder"], times[_COMPILED]["encoder"])
            notes.append(
                f"torch.compile's first call takes {first / 1e3:.0f} s, then its encoder is {gain:.2f}x eager's"
            )
    return f"\n{'; '.join(notes)}.\n" if notes else ""


def stages(body: dict[str, Any], number: str) -> str:
    """Where the time of a crop goes, a row for each who ran."""
    part = body["threads"][number].get("crops")
    if part is None:
        return ""
    memory = body["threads"][number].get("cold", {}).get("peak_rss_bytes", {})
    head = [f"median ms, {number} thread{'s' if number != '1' else ''}", *STAGES, "total", "mask IoU", "peak MiB"]
    lines = [head]
    for label, own in part["times_ms"].items():
        cells = [_ms(median(own[stage])) for stage in (*STAGES, "total")]
        peak = f"{memory[label] / 2**20:.0f}" if label in memory else ""
        lines.append([f"`{label}`", *cells, f"{part['agreement'][label]['mask_iou_min']:.4f}", peak])
    return table(lines)


def peers(body: dict[str, Any]) -> str:
    """The other projects, or why they were not run."""
    number = max(body["threads"], key=int)
    part = body["threads"][number].get("peers")
    if part is None:
        return "Not measured in this file.\n"
    times, base = part["times_ms"], part["times_ms"][rows.TORCH]
    lines = [[f"{number} threads", "encoder, ms", "decoder, ms", "mask, ms", "12-MP JPEG to PNG, ms", "", "mask IoU"]]
    for label, own in times.items():
        cells = [_ms(median(own[stage])) for stage in ("encoder", "decoder", "mask", "total")]
        ratio = f"{paired_ratio(base['total'], own['total']):.2f}x"
        lines.append([f"`{label}`", *cells, ratio, f"{part['agreement'][label]['mask_iou_min']:.4f}"])
    absent = [f"{name.split('/')[-1]}: {reason}" for name, reason in part["absent"].items()]
    return table(lines) + (f"\nNot run: {'; '.join(absent)}.\n" if absent else "")
