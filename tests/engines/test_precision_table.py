"""README's and docs/precision.md's tables say what benchmarks/results/precision.json says, and nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from benchmarks.precision_table import BEGIN, END, LONG, RESULT, SHORT, markdown, pages, replaced, rows, short


@pytest.fixture
def body() -> dict[str, Any]:
    body: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return body


def test_the_pages_hold_the_tables_of_the_results(body: dict[str, Any]) -> None:
    for page, table in pages(body).items():
        text = page.read_text(encoding="utf-8")
        assert replaced(text, table) == text, f"{page.name}: run python benchmarks/precision.py --table"


def test_another_figure_is_another_table(body: dict[str, Any]) -> None:
    other = copy.deepcopy(body)
    fp16 = next(row for row in other["models"]["starter"]["rows"] if row["precision"] == "fp16")
    fp16["fidelity"]["summary"]["mask_iou_p5"] = 0.5
    for found, expected in zip(pages(other).values(), pages(body).values(), strict=True):
        assert found != expected and " / 0.5000" in found


def test_every_run_names_what_it_ran_on(body: dict[str, Any]) -> None:
    for name, run in body["models"].items():
        assert run["rows"] and {"command", "versions", "hardware"} <= set(run), name
        assert {row["precision"] for row in run["rows"]} >= {"fp32", "fp16"}, name


def test_what_was_not_measured_is_not_given() -> None:
    bare: dict[str, Any] = {"models": {"zzz": {"rows": [{"precision": "fp16", "bytes": {"encoder": 2_000_000}}]}}}
    assert markdown(rows(bare), SHORT).splitlines()[-1] == "| zzz | fp16 | 2.00 | not compared | - | - | no | - |"
    refused: dict[str, Any] = {"models": {"zzz": {"rows": [{"precision": "int8", "error": "no layer"}]}}}
    assert "| **none**: no layer |" in markdown(rows(refused), LONG)


def test_a_failure_is_shown_as_one() -> None:
    summary = {"mask_iou_mean": 0.1, "mask_iou_p5": 0.0, "mask_iou_min": 0.0}
    row = {
        "precision": "plain fp16",
        "bytes": {},
        "fidelity": {"passed": False, "numerics": "simulated", "summary": summary},
        "tensorrt_rtx": {"error": "the parser refused the encoder"},
    }
    body: dict[str, Any] = {"models": {"zzz": {"rows": [row]}}}
    assert "**failed**" in markdown(rows(body), LONG) and "**no**: the parser refused" in markdown(short(body), SHORT)
    row["fidelity"] = {**row["fidelity"], "passed": True}  # type: ignore[dict-item]
    assert short(body) == []


def test_a_page_without_its_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="hint: put them"):
        replaced("no table here", "| a |")
    assert replaced(f"a\n{BEGIN}\nold\n{END}\nb", "| new |") == f"a\n{BEGIN}\n\n| new |\n\n{END}\nb"
