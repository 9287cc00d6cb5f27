"""The targets: rows from a measured file, the documentation made from it, and a small real measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.targets import __main__ as command
from benchmarks.targets import docs, parts, rows
from benchmarks.targets.models import ROOT

RESULT = ROOT / "benchmarks" / "results" / "lab.json"


def body(**measured: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """A result of one thread with these times by part, label and stage."""
    return {"threads": {"1": {name: {"times_ms": times} for name, times in measured.items()}}}


def cell(found: dict[str, Any], name: str) -> str:
    return next(line[2] for line in rows.lines(found) if line[0].startswith(name))


def test_a_ratio_is_the_median_within_rounds_and_the_best_backend_counts() -> None:
    times = {
        "mobile_sam/torch": {"encoder": [100.0, 300.0, 200.0]},
        "mobile_sam/boothsam-ort-cpu": {"encoder": [50.0, 100.0, 100.0]},  # 2, 3, 2: quotient of medians is 2 as well
        "mobile_sam/boothsam-ov": {"encoder": [25.0, 200.0, 80.0]},  # 4, 1.5, 2.5
        "mobile_sam/boothsam-ov-fast": {"encoder": [1.0, 1.0, 1.0]},  # not the exact resize
    }
    assert cell(body(crops=times), "MobileSAM encoder") == "2.50x (met, ov)"
    assert cell(body(crops=times), "decoder, 64") == "-"


def test_a_missed_row_says_by_how_much() -> None:
    torch = {"decoder, 64 prompts": [3000.0]}
    ours = {"decoder, 64 prompts": [1000.0]}
    found = body(decoder={"mobile_sam/torch": torch, "mobile_sam/boothsam-ort-cpu": ours})
    assert cell(found, "decoder, 64") == "3.00x (missed by 14 %, ort-cpu)"
    slow = body(click={"mobile_sam/boothsam-ort-cpu": {"beyond the decoder": [6.0, 9.0, 5.0]}})
    assert cell(slow, "repeated click") == "6.0 ms (missed by 20 %, ort-cpu)"
    met = body(click={"mobile_sam/boothsam-ort-cpu": {"beyond the decoder": [5.0]}})
    assert cell(met, "repeated click") == "5.0 ms (met, ort-cpu)"


def test_only_a_missed_row_says_why() -> None:
    why = {target.name: target.why for target in rows.TARGETS}
    name = "repeated click beyond the decoder"
    for value, reason in ((20.0, why[name]), (4.0, "")):
        found = body(click={"mobile_sam/boothsam-ort-cpu": {"beyond the decoder": [value]}})
        assert next(line[-1] for line in rows.lines(found) if line[0] == name) == reason
    assert why[name]


def test_every_target_of_the_lab_was_measured() -> None:
    measured = json.loads(RESULT.read_text())["threads"].values()
    asked = [target for target in rows.TARGETS if target.wanted is not None]
    missing = [target.name for target in asked if not any(target.find(one) for one in measured)]
    assert not missing, f"{RESULT.name} lacks rows; hint: python -m benchmarks.targets --only PART"


@pytest.mark.parametrize("file", docs.BLOCKS)
def test_the_documentation_shows_the_measured_file(file: str) -> None:
    made = docs.blocks(json.loads(RESULT.read_text()))
    text = (ROOT / file).read_text()
    for name in docs.BLOCKS[file]:
        start, end = docs.marks(name)
        shown = text.split(start)[1].split(end)[0]
        assert shown == made[name], f"{file} differs from {RESULT.name}; hint: python -m benchmarks.targets --docs"


def test_writing_replaces_what_stands_between_the_marks(tmp_path: Path) -> None:
    found = json.loads(RESULT.read_text())
    (tmp_path / "docs").mkdir()
    for file, names in docs.BLOCKS.items():
        blocks = [f"{docs.marks(name)[0]}old\n{docs.marks(name)[1]}\n" for name in names]
        (tmp_path / file).write_text("before\n" + "between\n".join(blocks) + "after\n")
    docs.write(found, tmp_path)
    once = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert once.startswith("before\n") and once.endswith("after\n") and "old" not in once and "| wanted |" in once
    docs.write(found, tmp_path)
    assert (tmp_path / "docs" / "benchmarks.md").read_text() == once
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(SystemExit, match="has no latency table"):
        docs.write(found, tmp_path)


def test_one_part_is_measured_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes, the starter in both places, boothsam alone; then a part of another photo is refused."""
    monkeypatch.setattr(parts, "OURS", ("boothsam-ort-cpu",))
    monkeypatch.setattr(parts, "BASE", ())
    file = tmp_path / "lab.json"
    measure = ["--quick", "--threads", "1", "--rounds", "1", "--json", str(file)]
    command.main([*measure, "--megapixels", "0.3", "--only", "click"])
    first = json.loads(file.read_text())
    click = first["threads"]["1"]["click"]
    assert set(click["times_ms"]) == {"mobile_sam/boothsam-ort-cpu", "starter/boothsam-ort-cpu"}
    for stages in click["times_ms"].values():
        assert all(total > decoder > 0 for total, decoder in zip(stages["total"], stages["decoder"], strict=True))
    command.main([*measure, "--megapixels", "0.3", "--only", "decoder"])
    second = json.loads(file.read_text())["threads"]["1"]
    assert second["click"] == click and set(second) == {"click", "decoder"}
    with pytest.raises(SystemExit, match="was measured with"):
        command.main([*measure, "--megapixels", "0.2", "--only", "click"])
    with pytest.raises(SystemExit):
        command.main(["--only", "speed"])
