"""The parts of the measurement. Each is one schedule of processes that take turns, and can be run by itself."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boothsam.bench.crew import Candidate, Crew
from boothsam.bench.plan import PROMPTS, Subject
from boothsam.bench.power import Meter
from boothsam.bench.schedule import Say, agreement, candidates_of, time_cold_starts, time_crops, time_decoders

from benchmarks.targets.models import ROOT, Model

_BACKENDS = ("ort-cpu", "ov", "ort-cuda", "trt")
BASE = ("torch",)
OURS = tuple(f"boothsam-{backend}" for backend in _BACKENDS)
FAST = tuple(f"{name}-fast" for name in OURS)
PEERS = ("samexporter", "osam")


@dataclass(frozen=True)
class Scene:
    """What all parts of one run share.

    peers: folder with the peers' graphs of `mobile_sam`, "" for none. everything: result of benchmarks/everything.py on
    this machine, to be taken instead of measuring it again.
    """

    mobile_sam: Model
    starter: Model
    subject: Subject
    threads: int
    rounds: int
    say: Say
    peers: str = ""
    everything: Path | None = None

    def candidates(self, mobile_sam: Sequence[str], starter: Sequence[str]) -> tuple[list[Candidate], dict[str, str]]:
        """Those implementations of the two models, labelled `mobile_sam/...` and `starter/...`, and who is absent.

        With random weights for MobileSAM both models cut out the same drawn ellipse: times of one outline compare.
        """
        found: list[Candidate] = []
        absent: dict[str, str] = {}
        for model, names in ((self.mobile_sam, mobile_sam), (self.starter, starter)):
            if names:
                drawn = self.mobile_sam.seeded
                plan = model.plan(self.threads, (self.subject,), tuple(names), self.peers, drawn=drawn)
                present, missing = candidates_of(plan, f"{model.name}/")
                found += present
                absent |= missing
        return found, absent


def crops(scene: Scene) -> dict[str, Any]:
    """A JPEG and a box to a PNG, every stage; masks must agree before."""
    candidates, absent = scene.candidates((*BASE, *OURS, *FAST), (*BASE, *OURS, *FAST))
    with Crew(candidates) as crew:
        agreed: dict[str, Any] = {}
        for model in ("mobile_sam", "starter"):
            agreed |= agreement(crew, [label for label in crew.candidates if label.startswith(model)], scene.say)
        with Meter() as meter:
            times, power = time_crops(crew, list(crew.candidates), scene.rounds, scene.say, meter)
    return {"agreement": agreed, "absent": absent, "power": power, "times_ms": times}


def decoder(scene: Scene) -> dict[str, Any]:
    """1, 8 and 64 boxes on an embedding that is there, PyTorch in the batches that are fastest for it."""
    candidates, absent = scene.candidates((*BASE, *OURS), (*BASE, *OURS))
    with Crew(candidates) as crew:
        tuned = {}
        for label in crew.candidates:
            crew[label].ask(do="embed", subject=0)
            tuned[label] = crew[label].ask(do="tune")["prompts_at_once"]
        times = time_decoders(crew, list(crew.candidates), scene.rounds, PROMPTS, scene.say)
    return {"prompts_at_once": tuned, "absent": absent, "times_ms": times}


def click(scene: Scene) -> dict[str, Any]:
    """A further click on an embedding that is there, to the photo-sized mask; what the network took is told apart."""
    candidates, absent = scene.candidates((*BASE, *OURS), (*BASE, *OURS))
    times: dict[str, dict[str, list[float]]] = {one.label: {} for one in candidates}
    with Crew(candidates) as crew:
        for label in crew.candidates:
            crew[label].ask(do="embed", subject=0)
            crew[label].ask(do="click")
        for turn in range(3 * scene.rounds):
            for label in list(crew.candidates)[:: -1 if turn % 2 else 1]:
                crew[label].ask(do="click")  # as in time_crops
                ms = crew[label].ask(do="click")["ms"]
                for stage, value in (ms | {"beyond the decoder": ms["total"] - ms["decoder"]}).items():
                    times[label].setdefault(stage, []).append(value)
    return {"absent": absent, "times_ms": times}


def cold(scene: Scene) -> dict[str, Any]:
    """From starting the interpreter to the first finished crop, in fresh processes; peak memory of each."""
    candidates, absent = scene.candidates((*BASE, OURS[0]), (*BASE, OURS[0]))
    with Crew(candidates) as crew:
        found = time_cold_starts(crew, list(crew.candidates), scene.rounds, scene.say)
    times = {label: {"start to first crop": [1e3 * s for s in one["first_crop_s"]]} for label, one in found.items()}
    memory = {label: one["peak_rss_bytes"] for label, one in found.items()}
    return {"peak_rss_bytes": memory, "absent": absent, "times_ms": times}


def compiled(scene: Scene) -> dict[str, Any]:
    """torch.compile beside eager and ONNX Runtime: encoder and decoder, and how long its first call takes."""
    candidates, absent = scene.candidates((*BASE, "torch-compile", OURS[0]), ())
    times: dict[str, dict[str, list[float]]] = {one.label: {"encoder": [], "decoder": []} for one in candidates}
    first = {}
    with Crew(candidates) as crew:
        for label in crew.candidates:
            scene.say(f"first call: {label}")
            ms = crew[label].ask(do="embed", subject=0)["ms"] + crew[label].ask(do="decode", prompts=1)["ms"]
            first[label] = ms
        for turn in range(scene.rounds):
            for label in list(crew.candidates)[:: -1 if turn % 2 else 1]:
                times[label]["encoder"].append(crew[label].ask(do="embed", subject=0)["ms"])
                times[label]["decoder"].append(crew[label].ask(do="decode", prompts=1)["ms"])
    return {"first_call_ms": first, "absent": absent, "times_ms": times}


def peers(scene: Scene) -> dict[str, Any]:
    """Other projects on the same weights, beside PyTorch and boothsam; their padding makes their masks others."""
    candidates, absent = scene.candidates((*BASE, OURS[0], *PEERS), ())
    with Crew(candidates) as crew:
        agreed = agreement(crew, list(crew.candidates), scene.say)
        with Meter() as meter:
            times, power = time_crops(crew, list(crew.candidates), scene.rounds, scene.say, meter)
    return {"agreement": agreed, "absent": absent, "power": power, "times_ms": times}


def everything(scene: Scene) -> dict[str, Any]:
    """Everything mode: what benchmarks/everything.py measures in a process of its own, or measured before."""
    if scene.everything:
        found: dict[str, Any] = json.loads(scene.everything.read_text())
        if found["machine"]["threads"] != scene.threads:
            return {"runs": {}, "absent": {"everything": f"{scene.everything.name} has other threads"}}
        return {"runs": found["runs"], "measured": found["date"], "absent": {}}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "everything.json"
        command = [sys.executable, "-m", "benchmarks.everything", "--threads", str(scene.threads), "--json", str(file)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
        found = json.loads(file.read_text())
    return {"runs": found["runs"], "measured": found["date"], "absent": {}}


PARTS: dict[str, Callable[[Scene], dict[str, Any]]] = {
    "crops": crops,
    "decoder": decoder,
    "click": click,
    "cold": cold,
    "compile": compiled,
    "peers": peers,
    "everything": everything,
}
