"""The run: fresh processes that take turns, agreement before times, medians of ratios within a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from boothsam.bench import device
from boothsam.bench.crew import BenchError, Candidate, Crew
from boothsam.bench.plan import PROMPTS, Plan, Subject, true_mask
from boothsam.bench.power import Meter
from boothsam.bench.runners import BASELINE, IMPLEMENTATIONS, STAGES
from boothsam.runtime.images import load_image
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.transforms import upscale_mask

Say = Callable[[str], None]
Times = dict[str, dict[str, list[float]]]  # milliseconds by label and stage, one per photo and round


def candidates_of(plan: Plan, prefix: str = "") -> tuple[list[Candidate], dict[str, str]]:
    """Who of the plan's implementations can run here, and why the others cannot, by label."""
    chosen = [one for one in IMPLEMENTATIONS if not plan.names or one.name in plan.names]
    present, absent = [], {}
    for one in chosen:
        reason = one.missing(plan)
        if reason is None:
            present.append(Candidate(prefix + one.name, plan, one))
        else:
            absent[prefix + one.name] = reason
    return present, absent


def run(plan: Plan, *, rounds: int, cold_starts: int, prompts: Sequence[int] = PROMPTS, say: Say) -> dict[str, Any]:
    """Measure everything that can run here; the result as JSON-ready facts. Raises BenchError."""
    candidates, absent = candidates_of(plan)
    if not candidates:
        raise BenchError("nothing can run here: " + "; ".join(f"{n}: {r}" for n, r in absent.items()))
    labels = [one.label for one in candidates]
    with Crew(candidates) as crew:
        cold = time_cold_starts(crew, labels, cold_starts, say)
        agreed = agreement(crew, labels, say)
        tuned = {label: crew[label].ask(do="tune")["prompts_at_once"] for label in labels} if prompts else {}
        with Meter() as meter:
            times, power = time_crops(crew, labels, rounds, say, meter)
        for label, stages in time_decoders(crew, labels, rounds, prompts, say).items():
            times[label] |= stages
        versions = {label: crew[label].ask(do="hello")["versions"] for label in labels}
    return {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": device.facts() | {"threads": plan.threads},
        "model": {"variant": plan.variant, "seeded": plan.seeded},
        "subjects": [{"file": Path(s.file).name, "box_xyxy": list(s.box_xyxy)} for s in plan.subjects],
        "rounds": rounds,
        "absent": absent,
        "agreement": agreed,
        "implementations": {
            one.label: {"about": one.implementation.about, "versions": versions[one.label], "cold": cold[one.label]}
            | ({"prompts_at_once": tuned[one.label]} if one.label in tuned else {})
            | power[one.label]
            | {"stages": summary(times[one.label], times.get(BASELINE))}
            for one in candidates
        },
    }


def time_cold_starts(crew: Crew, labels: Sequence[str], count: int, say: Say) -> dict[str, dict[str, Any]]:
    """Seconds from starting the interpreter to the first finished crop, and peak memory then; taking turns."""
    found: dict[str, dict[str, Any]] = {label: {"first_crop_s": [], "peak_rss_bytes": 0} for label in labels}
    for turn in range(count):
        for label in labels[:: -1 if turn % 2 else 1]:
            say(f"cold start {turn + 1} of {count}: {label}")
            start = time.perf_counter()
            with crew.fresh(label) as started:
                answer = started.ask(do="crop", subject=0)
                found[label]["first_crop_s"].append(round(time.perf_counter() - start, 3))
                found[label]["peak_rss_bytes"] = max(found[label]["peak_rss_bytes"], answer["peak_rss_bytes"])
    return found


def agreement(crew: Crew, labels: Sequence[str], say: Say) -> dict[str, Any]:
    """Mask IoU of every implementation with the first, and with the true masks where photos have one; also the warm-up.

    All labels must have the same model. Raises BenchError below an implementation's `min_iou`.
    """
    masks: dict[str, list[npt.NDArray[np.bool_]]] = {}
    found: dict[str, Any] = {}
    first = labels[0]
    for label in labels:
        say(f"masks: {label}")
        plan = crew.candidates[label].plan
        logits = [_logits(crew, label, index) for index in range(len(plan.subjects))]
        # Seeded weights may leave all logits on one side of zero: cut them in the middle instead.
        masks[label] = [one > ((one.max() + one.min()) / 2 if plan.seeded else 0) for one in logits]
        ious = [mask_iou(a, b) for a, b in zip(masks[label], masks[first], strict=True)]
        found[label] = {"mask_iou_min": round(min(ious), 6), "against": first}
        truths = [_iou_with_truth(one, s) for one, s in zip(logits, plan.subjects, strict=True) if s.mask]
        if truths:
            found[label]["true_iou_mean"] = round(float(np.mean(truths)), 4)
        least = crew.candidates[label].implementation.min_iou
        if min(ious) < least:
            raise BenchError(
                f"{label} gives another mask than {first}: IoU {min(ious):.4f}, at least {least} wanted",
                hint="no time is worth comparing before masks agree: boothsam verify",
            )
    return found


def _logits(crew: Crew, label: str, index: int) -> npt.NDArray[np.float32]:
    file = crew.scratch / "logits"
    crew[label].ask(do="crop", subject=index, keep=str(file))
    return np.fromfile(file, "<f4").reshape(256, 256)


def _iou_with_truth(logits: npt.NDArray[np.float32], subject: Subject) -> float:
    height, width = load_image(subject.file).shape[:2]
    return mask_iou(upscale_mask(logits, (height, width)), true_mask(Path(subject.mask)))


def time_crops(
    crew: Crew, labels: Sequence[str], rounds: int, say: Say, meter: Meter
) -> tuple[Times, dict[str, dict[str, float]]]:
    """Every stage of the whole way, its total, and the total without the encoder.

    Whose turn it is makes two crops, and the second counts: the first takes memory back from the one before, which on a
    virtual machine costs more than some of the stages. Beside the times: by label, the median energy of a crop and the
    most memory in use, as `Meter.since` tells them where the device does.
    """
    times: Times = {label: {} for label in labels}
    power: dict[str, list[dict[str, float]]] = {label: [] for label in labels}
    photos = len(crew.candidates[labels[0]].plan.subjects)
    for turn in range(rounds):
        say(f"crops, round {turn + 1} of {rounds}")
        for index in range(photos):
            for label in labels[:: -1 if turn % 2 else 1]:
                crew[label].ask(do="crop", subject=index)
                start = time.perf_counter()
                answer = crew[label].ask(do="crop", subject=index)
                power[label].append(meter.since(start))
                spent = answer["ms"] | {"total": answer["total_ms"]}
                for part in ("encoder", "encode picture"):
                    spent[f"all but the {part.removeprefix('encode ')}"] = answer["total_ms"] - answer["ms"][part]
                for stage, ms in spent.items():
                    times[label].setdefault(stage, []).append(ms)
    return times, {label: _told(found) for label, found in power.items()}


def _told(found: Sequence[dict[str, float]]) -> dict[str, float]:
    told = {}
    for key, of in (("energy_mj", median), ("device_memory_mib", max)):
        if values := [one[key] for one in found if key in one]:
            told[key] = round(of(values), 1)
    return told


def time_decoders(crew: Crew, labels: Sequence[str], rounds: int, prompts: Sequence[int], say: Say) -> Times:
    """The decoder with so many prompts, on an embedding made before; one value per photo and round."""
    times: Times = {label: {} for label in labels}
    if not prompts:
        return times
    for index in range(len(crew.candidates[labels[0]].plan.subjects)):
        for label in labels:
            crew[label].ask(do="embed", subject=index)
            crew[label].ask(do="decode", prompts=prompts[0])
        for turn in range(rounds):
            say(f"decoders, round {turn + 1} of {rounds}")
            for count in prompts:
                for label in labels[:: -1 if turn % 2 else 1]:
                    crew[label].ask(do="decode", prompts=min(prompts))
                    ms = crew[label].ask(do="decode", prompts=count)["ms"]
                    times[label].setdefault(f"decoder, {count} prompts", []).append(ms)
    return times


def summary(times: dict[str, list[float]], baseline: dict[str, list[float]] | None) -> dict[str, Any]:
    """p50, p95, min and count of every stage, and the median of the ratios to the baseline within a round."""
    known = [stage for stage in STAGES if stage in times]
    stages = {}
    for stage in known + [stage for stage in times if stage not in known]:
        values = times[stage]
        row: dict[str, Any] = {
            "p50_ms": round(median(values), 2),
            "p95_ms": round(float(np.percentile(values, 95)), 2),
            "min_ms": round(min(values), 2),
            "count": len(values),
        }
        if baseline is not None and stage in baseline:
            row["ratio_to_torch"] = round(paired_ratio(baseline[stage], values), 3)
        stages[stage] = row
    return stages


def paired_ratio(before: Sequence[float], after: Sequence[float]) -> float:
    """How many times faster `after` is: the median of the ratios within a round."""
    return median(b / a for b, a in zip(before, after, strict=True))
