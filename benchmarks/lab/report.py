"""A self-contained HTML page of results: no scripts, no fonts, no network; charts are inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from boothsam.bench import tables
from boothsam.bench.charts import COLOURS, bars, scatter
from boothsam.bench.runners import STAGES

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; margin: .5rem 0; }
svg text { font: 14px system-ui, sans-serif; fill: currentColor; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
.key span::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
.key span::before { background: var(--c); }
.scroll { overflow-x: auto; }
"""


def page(results: Sequence[dict[str, Any]]) -> str:
    """One section per result (a model on a machine)."""
    key = "".join(
        f'<span style="--c:{colour}">{escape(stage)}</span>' for stage, colour in zip(STAGES, COLOURS, strict=True)
    )
    sections = "\n".join(_section(result, key) for result in results)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>boothsam bench</title><style>{_STYLE}</style></head><body><h1>boothsam bench</h1>\n{sections}\n"
        "</body></html>\n"
    )


def _section(result: dict[str, Any], key: str) -> str:
    machine, model = result["machine"], result["model"]
    where = ", ".join(str(machine[k]) for k in ("board", "cpu", "platform", "power_mode") if k in machine)
    weights = "random weights" if model["seeded"] else "trained weights"
    versions = ", ".join(f"{name} {number}" for name, number in machine.get("versions", {}).items())
    found = result["implementations"]
    totals = {name: _medians(one) for name, one in found.items()}
    memory = {name: {"peak": one["cold"]["peak_rss_bytes"] / 2**20} for name, one in found.items()}
    cold = {name: {"first": 1e3 * min(one["cold"]["first_crop_s"])} for name, one in found.items()}
    true = all("true_iou_mean" in one for one in result["agreement"].values())
    quality = "IoU with the true masks" if true else f"IoU with {next(iter(found))}'s masks"
    points = {
        name: (one["stages"]["total"]["p50_ms"], result["agreement"][name]["true_iou_mean" if true else "mask_iou_min"])
        for name, one in found.items()
    }
    absent = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in result["absent"].items())
    return f"""<section><h2>{escape(model["variant"])} ({weights})</h2>
<p>{escape(where)}; {machine["threads"]} threads; Python {escape(str(machine.get("python", "")))}; {escape(versions)}.
{escape(result["made"])}, {result["rounds"]} rounds over {len(result["subjects"])} photo(s). Masks agree: IoU at least
{min(one["mask_iou_min"] for one in result["agreement"].values()):.4f}.</p>
<h3>From photo to cut-out, median ms by stage</h3><div class="key">{key}</div>{bars(totals, "ms")}
<div class="scroll">{_table(tables.rows(result))}</div>
<h3>{escape(quality)} against latency</h3>{scatter(points, "median ms, photo to cut-out", quality)}
<h3>From starting the interpreter to the first cut-out, best, ms</h3>{bars(cold, "ms")}
<h3>Peak memory of that process, MiB</h3>{bars(memory, "MiB")}
{f"<h3>Not run here</h3><ul>{absent}</ul>" if absent else ""}</section>"""


def _medians(one: dict[str, Any]) -> dict[str, float]:
    return {stage: one["stages"][stage]["p50_ms"] for stage in STAGES if stage in one["stages"]}


def _table(rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in rows[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
