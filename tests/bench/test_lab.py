"""The lab: what it refuses to compare, what it writes, and real runs of real implementations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from boothsam.bench import charts, compare, device, report, tables
from boothsam.bench.crew import BenchError, Candidate, Crew
from boothsam.bench.plan import Plan, Subject, demo_photo, ellipse_logits, photos_in
from boothsam.bench.power import Meter
from boothsam.bench.runner_torch import BATCHES
from boothsam.bench.runners import IMPLEMENTATIONS, STAGES, fastest_batch, find
from boothsam.bench.schedule import run
from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import load_image
from boothsam.runtime.store import find_model
from boothsam.runtime.transforms import upscale_mask
from boothsam.service.cli import app
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
NAMES = ("torch", "boothsam-ort-cpu", "boothsam-ov", "boothsam-ort-cpu-fast")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The demo photo with a true mask beside it: the cup's ellipse, roughly."""
    folder = tmp_path_factory.mktemp("photos")
    demo = demo_photo(folder, megapixels=0.5)
    hw = load_image(demo.file).shape[:2]
    mask = upscale_mask(ellipse_logits(demo.box_xyxy, (hw[0], hw[1])), (hw[0], hw[1]))
    cv2.imwrite(str(Path(demo.file).with_suffix(".mask.png")), mask.astype(np.uint8) * 255)
    return photos_in(folder)[0]


def plan(photo: Subject, **changes: Any) -> Plan:
    """The starter model with its own weights in PyTorch."""
    fields: dict[str, Any] = {
        "model": str(find_model(None)), "checkpoint": str(ROOT / "training" / "starter.pt"), "variant": "student",
        "seeded": False, "threads": 1, "subjects": (photo,), "names": NAMES,
    }  # fmt: skip
    return Plan(**fields | changes)


@pytest.fixture(scope="module")
def result(photo: Subject) -> dict[str, Any]:
    """One round of the starter model in PyTorch, ONNX Runtime and OpenVINO."""
    return run(plan(photo), rounds=2, cold_starts=1, prompts=(1, 2), say=lambda line: None)


def test_the_demo_photo_has_a_cameras_size(tmp_path: Path) -> None:
    subject = demo_photo(tmp_path, megapixels=2)
    height, width = load_image(subject.file).shape[:2]
    assert abs(height * width - 2e6) < 5e3
    assert 0 < subject.box_xyxy[0] < subject.box_xyxy[2] < width


def test_a_mask_beside_a_photo_gives_the_box(photo: Subject) -> None:
    height, width = load_image(photo.file).shape[:2]
    assert photo.mask
    assert photo.box_xyxy == pytest.approx((0.08 * width, 0.04 * height, 0.84 * width, 0.98 * height), abs=3)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    demo = Path(demo_photo(tmp_path, megapixels=0.1).file)
    cv2.imwrite(str(demo.with_suffix(".mask.png")), np.full((10, 20), 255, np.uint8))
    with pytest.raises(OptionError, match="is 20 x 10, 200 pixels inside; expected a mask of"):
        photos_in(tmp_path)


def test_the_fastest_batch_is_found_after_a_warm_up() -> None:
    """The first call of each is slow and does not count."""
    seen: list[int] = []

    def decode(size: int) -> None:
        time.sleep(0.2 if size not in seen else {1: 0.08, 2: 0.0, 4: 0.08}[size])
        seen.append(size)

    assert fastest_batch(decode, (1, 2, 4)) == 2
    assert seen == [1, 2, 4] * 3


def test_a_chart_holds_every_name_once_and_no_dot_outside() -> None:
    points = {f"<{index}>": (100.0 * index, 0.9) for index in range(9)}
    chart = ET.fromstring(charts.scatter(points, "ms", "IoU"))
    texts = [element.text for element in chart.iter("text")]
    assert all(texts.count(name) == 1 for name in points)
    dots = [float(dot.attrib["cx"]) for dot in chart.iter("circle")]
    assert len(dots) == 2 * 7 and all(70 <= x <= 920 for x in dots)  # each in the chart and in its key


def test_a_plan_comes_back_from_its_file(photo: Subject, tmp_path: Path) -> None:
    written = plan(photo)
    written.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == written


def test_every_implementation_ran_every_stage(result: dict[str, Any]) -> None:
    assert set(result["implementations"]) == set(NAMES) and not result["absent"]
    for one in result["implementations"].values():
        assert set(STAGES) <= set(one["stages"])
        assert {"total", "all but the encoder", "decoder, 1 prompts", "decoder, 2 prompts"} <= set(one["stages"])
        for stage in one["stages"].values():
            assert stage["count"] == 2 and 0 <= stage["min_ms"] <= stage["p50_ms"] <= stage["p95_ms"]
        parts = sum(one["stages"][stage]["p50_ms"] for stage in STAGES)
        assert parts == pytest.approx(one["stages"]["total"]["p50_ms"], rel=0.5)  # the stages are the whole, roughly
        assert one["cold"]["first_crop_s"][0] > 0 and one["cold"]["peak_rss_bytes"] > 50 << 20
        assert one["versions"]


def test_masks_agreed_and_ratios_are_to_pytorch(result: dict[str, Any]) -> None:
    agreed = result["agreement"]
    assert min(agreed[name]["mask_iou_min"] for name in NAMES[:3]) >= 0.999
    assert 0.98 <= agreed["boothsam-ort-cpu-fast"]["mask_iou_min"] < 1  # another resize, so not the same to the pixel
    assert all(0.5 < one["true_iou_mean"] < 1 for one in agreed.values())
    assert result["implementations"]["torch"]["prompts_at_once"] in BATCHES
    for stage in result["implementations"]["torch"]["stages"].values():
        assert stage["ratio_to_torch"] == 1
    assert result["implementations"]["boothsam-ov"]["stages"]["encoder"]["ratio_to_torch"] > 0


def test_other_masks_are_not_timed(photo: Subject, tmp_path: Path) -> None:
    """Weights that were changed give other masks: the run ends before a time is written."""
    import torch

    state = torch.load(ROOT / "training" / "starter.pt", map_location="cpu", weights_only=True)
    state["ema"] = {name: value * 1.2 if value.dim() == 4 else value for name, value in state["ema"].items()}
    torch.save(state, tmp_path / "other.pt")
    changed = plan(photo, checkpoint=str(tmp_path / "other.pt"), names=("torch", "boothsam-ort-cpu"))
    with pytest.raises(BenchError, match=r"boothsam-ort-cpu gives another mask than torch: IoU 0\.\d+"):
        run(changed, rounds=1, cold_starts=1, prompts=(), say=lambda line: None)


def test_what_cannot_run_is_listed_with_the_reason(photo: Subject) -> None:
    found = run(
        plan(photo, checkpoint="", names=("torch", "torch-compile", "boothsam-ort-cpu", "osam")),
        rounds=1, cold_starts=1, prompts=(), say=lambda line: None,
    )  # fmt: skip
    assert set(found["implementations"]) == {"boothsam-ort-cpu"}
    assert "--checkpoint" in found["absent"]["torch"] and "osam" in found["absent"]["osam"]
    assert "ratio_to_torch" not in found["implementations"]["boothsam-ort-cpu"]["stages"]["total"]
    with pytest.raises(BenchError, match="nothing can run here: torch: no PyTorch checkpoint"):
        run(plan(photo, checkpoint="", names=("torch",)), rounds=1, cold_starts=1, say=lambda line: None)


def test_an_implementation_that_dies_is_named(photo: Subject, tmp_path: Path) -> None:
    broken = plan(photo, model=str(tmp_path), names=("boothsam-ort-cpu",))
    with pytest.raises(BenchError, match="boothsam-ort-cpu ended with status 1"):
        run(broken, rounds=1, cold_starts=1, say=lambda line: None)


def test_a_worker_answers_an_error_and_lives(photo: Subject, tmp_path: Path) -> None:
    plan(photo, subjects=(Subject(str(tmp_path / "gone.jpg"), photo.box_xyxy), photo)).save(tmp_path / "p.json")
    commands = [{"do": "decode", "prompts": 1}, {"do": "crop", "subject": 0}, {"do": "crop", "subject": 1}]
    done = subprocess.run(
        [sys.executable, "-m", "boothsam.bench.worker", str(tmp_path / "p.json"), "boothsam-ort-cpu"],
        input="".join(json.dumps(command) + "\n" for command in commands), capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [sorted(answer)[0] for answer in answers] == ["error", "error", "ms"]


def test_a_worker_has_as_many_cores_as_threads(photo: Subject) -> None:
    """OpenCV and the resize take a thread for every core, whatever a model was told."""
    with Crew([Candidate("ours", plan(photo, threads=1), find("boothsam-ort-cpu"))]) as crew:
        crew["ours"].ask(do="hello")
        assert len(os.sched_getaffinity(crew["ours"].process.pid)) == 1


def test_the_cut_outs_show_the_same_product(photo: Subject, tmp_path: Path) -> None:
    """PyTorch's way ends in a hard mask and ours in a soft one; solid pixels are the same product."""
    alphas = []
    for name in ("torch", "boothsam-ort-cpu"):
        made = find(name).make(plan(photo)).crop(photo)
        (tmp_path / f"{name}.png").write_bytes(made.picture)
        alphas.append(cv2.imread(str(tmp_path / f"{name}.png"), cv2.IMREAD_UNCHANGED)[..., 3] >= 128)
    first, second = (alpha.sum() for alpha in alphas)
    assert (
        first > 1000 and abs(int(first) - int(second)) < 0.03 * first
    )  # the soft edge follows the photo, not the mask


def test_the_page_stands_alone_and_says_everything(result: dict[str, Any]) -> None:
    strange = result | {"absent": {"<b>peer</b>": "not & here"}}
    page = report.page([strange])
    assert "<script" not in page and "http" not in page.replace("http-equiv", "") and "src=" not in page
    assert "&lt;b&gt;peer&lt;/b&gt;: not &amp; here" in page
    for name in NAMES:
        assert name in page
    assert page.count("<svg") == 4 and "IoU with the true masks against latency" in page
    unknown = json.loads(json.dumps(result))
    for one in unknown["agreement"].values():
        del one["true_iou_mean"]
    assert "IoU with torch&#x27;s masks against latency" in report.page([unknown])


def test_markdown_has_a_line_per_stage(result: dict[str, Any]) -> None:
    lines = tables.markdown(result).splitlines()
    assert lines[0].startswith("| median ms | torch | boothsam-ort-cpu | boothsam-ov |")
    assert any(line.startswith("| whole crop |") and "x)" in line for line in lines)
    assert len({line.count("|") for line in lines}) == 1


# --- comparing two results


def slower(result: dict[str, Any], name: str, stage: str, factor: float) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(result))
    row = changed["implementations"][name]["stages"][stage]
    row["p50_ms"] *= factor
    if name != "torch":
        row["ratio_to_torch"] /= factor
    return changed


def test_a_regression_is_found_and_noise_is_not(result: dict[str, Any]) -> None:
    assert not compare.regressions(compare.changes(result, result), 0.05)
    worse = compare.regressions(compare.changes(result, slower(result, "boothsam-ov", "encoder", 1.5)), 0.2)
    assert [(c.implementation, c.stage, c.factor) for c in worse] == [
        ("boothsam-ov", "encoder", pytest.approx(1.5, 0.01))
    ]
    assert not compare.regressions(compare.changes(result, slower(result, "boothsam-ov", "encoder", 1.1)), 0.2)


def test_a_machine_that_was_slower_that_day_is_no_regression(result: dict[str, Any]) -> None:
    """All times doubled, PyTorch's too: ratios stay, and only PyTorch itself is reported."""
    doubled: dict[str, Any] = json.loads(json.dumps(result))
    for one in doubled["implementations"].values():
        for row in one["stages"].values():
            row["p50_ms"] *= 2
    worse = compare.regressions(compare.changes(result, doubled), 0.2)
    assert {change.implementation for change in worse} == {"torch"}


def test_the_command_compares_and_ends_with_1(result: dict[str, Any], tmp_path: Path) -> None:
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    before.write_text(tables.to_json(result))
    after.write_text(tables.to_json(slower(result, "boothsam-ort-cpu", "total", 2)))
    runner = CliRunner()
    assert runner.invoke(app, ["bench", "--compare", str(before), str(before)]).exit_code == 0
    found = runner.invoke(app, ["bench", "--compare", str(before), str(after)])
    assert found.exit_code == 1 and json.loads(found.stdout)["regressions"][0]["stage"] == "total"
    (tmp_path / "no.json").write_text("[]")
    with pytest.raises(OptionError, match="is no result of boothsam bench"):
        compare.load(tmp_path / "no.json")


def test_other_machines_are_mentioned(result: dict[str, Any]) -> None:
    other = result | {"machine": result["machine"] | {"cpu": "Other", "threads": 64}}
    assert compare.differences(result, result) == []
    assert len(compare.differences(result, other)) == 2


def test_the_command_measures_and_writes(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    demo_photo(photos, megapixels=0.3)
    out = CliRunner().invoke(
        app,
        ["bench", "--photos", str(photos), "--only", "boothsam-ort-cpu", "--rounds", "1", "--cold", "1",
         "--threads", "1", "--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")],
    )  # fmt: skip
    assert out.exit_code == 0, out.output
    assert "whole crop" in out.stdout
    assert compare.load(tmp_path / "r.json")["machine"]["threads"] == 1
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_unknown_implementations_are_refused() -> None:
    out = CliRunner().invoke(app, ["bench", "--only", "tensorflow"])
    assert out.exit_code != 0 and "torch-compile" in str(out.exception) + out.output


# --- what devices print

ORIN = (
    "11-20-2026 10:00:01 RAM 3021/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) CPU [12%@1510,5%@1510,off,off] "
    "EMC_FREQ 3%@2133 GR3D_FREQ 61%@[611] NVDEC off APE 200 cpu@49.5C soc2@48.7C gpu@48.9C tj@49.5C "
    "VDD_IN 6543mW/6012mW VDD_CPU_GPU_CV 2210mW/1984mW VDD_SOC 1502mW/1499mW"
)
NANO = (
    "RAM 1904/3956MB (lfb 12x4MB) CPU [10%@1479,0%@1479] GR3D_FREQ 0% PLL@31C CPU@33.5C "
    "POM_5V_IN 2450/2450 POM_5V_CPU 400/400"
)


def test_tegrastats_of_an_orin() -> None:
    found = device.parse_tegrastats(ORIN)
    assert found["power_mw"] == {"VDD_IN": 6543, "VDD_CPU_GPU_CV": 2210, "VDD_SOC": 1502}
    assert (found["memory_used_mib"], found["memory_total_mib"]) == (3021, 7620)
    assert (found["gpu_load_percent"], found["gpu_clock_mhz"]) == (61, 611)
    assert found["temperature_c"]["tj"] == 49.5


def test_tegrastats_of_a_nano_has_no_unit() -> None:
    found = device.parse_tegrastats(NANO)
    assert found["power_mw"] == {"POM_5V_IN": 2450, "POM_5V_CPU": 400}
    assert found["gpu_load_percent"] == 0 and "gpu_clock_mhz" not in found


def test_energy_is_the_input_rails() -> None:
    assert device.board_energy_mj([ORIN, ORIN], 0.5) == 6543.0
    assert device.board_energy_mj([], 0.5) is None


def test_power_mode_and_nvidia_smi() -> None:
    assert device.parse_nvpmodel("NV Fan Mode:quiet\nNV Power Mode: 15W\n0\n") == "15W"
    assert device.parse_nvpmodel("NVPM WARN") == ""
    gpus = device.parse_nvidia_smi(
        "NVIDIA RTX A2000, 560.35.03, 812, 6138, 18.42, 562\nOrin (nvgpu), N/A, [N/A], [N/A], [N/A], [N/A]\n"
    )
    assert gpus[0]["power_w"] == 18.42 and gpus[0]["memory_total_mib"] == 6138
    assert gpus[1]["name"] == "Orin (nvgpu)" and gpus[1]["memory_used_mib"] is None


def test_this_machine_is_described() -> None:
    found = device.facts()
    assert found["platform"] and found["versions"]["numpy"] == np.__version__


def test_names_are_unique() -> None:
    names = [one.name for one in IMPLEMENTATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("program", "line", "watts", "mib"),
    [
        ("tegrastats", ORIN, 6.543, 3021),
        ("tegrastats", NANO, 2.45, 1904),
        ("nvidia-smi", "NVIDIA RTX A2000, 560.35.03, 812, 6138, 18.42, 562", 18.42, 812),
    ],
)
def test_energy_is_read_while_something_runs(
    program: str, line: str, watts: float, mib: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of that name prints what a device printed once."""
    fake = tmp_path / program
    fake.write_text(f"#!/bin/sh\nwhile true; do echo '{line}'; sleep 0.02; done\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with Meter() as meter:
        start = time.perf_counter()
        while not (found := meter.since(start)) and time.perf_counter() - start < 30:
            time.sleep(0.01)
        seconds = time.perf_counter() - start
    assert found["device_memory_mib"] == mib
    assert 0 < found["energy_mj"] <= 1e3 * seconds * watts


def test_without_such_a_device_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Meter() as meter:
        assert meter.since(time.perf_counter()) == {}


def test_energy_and_memory_are_rows_where_the_device_told_them(result: dict[str, Any]) -> None:
    told: dict[str, Any] = json.loads(json.dumps(result))
    told["implementations"]["boothsam-ov"] |= {"energy_mj": 1234.4, "device_memory_mib": 800.0}
    rows = {row[0]: row[1:] for row in tables.rows(told)}
    assert rows["energy per crop, mJ"] == ["-", "-", "1234", "-"] and rows["device memory, MiB"][2] == "800"
    assert "energy per crop, mJ" not in {row[0] for row in tables.rows(result)}
