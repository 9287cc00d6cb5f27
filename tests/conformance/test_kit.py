"""The kit itself: the reference passes it, and each drift of an existing runtime fails it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from boothsam.conformance import CASES, run
from boothsam.conformance.__main__ import main, table
from boothsam.conformance.cases import scene
from boothsam.conformance.runner import answers, fingerprint

from tests.conformance.drifts import DRIFTS, DriftingPredictor
from tests.models.tiny_sam import load_tiny_sam
from tests.reference.segment_anything_reference import load_reference


class RememberingEncoder(torch.nn.Module):
    """The tiny SAM's encoder, which keeps its answers: most drifts feed it the same picture."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.img_size = encoder.img_size
        self.seen: dict[str, torch.Tensor] = {}

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        key = fingerprint(frame.numpy())
        if key not in self.seen:
            self.seen[key] = self.encoder(frame)
        return self.seen[key]


@pytest.fixture(scope="module")
def sam() -> Any:
    """The tiny SAM as a segment_anything Sam that encodes each picture once."""
    torch.set_num_threads(1)
    tiny = load_tiny_sam()
    tiny.image_encoder = RememberingEncoder(tiny.image_encoder)
    return tiny


def test_every_drift_has_a_case_and_every_case_names_known_drifts() -> None:
    caught = {drift for case in CASES for drift in case.catches}
    assert caught == set(DRIFTS)


def test_the_reference_passes(sam: Any) -> None:
    results = run(load_reference().SamPredictor(sam))
    assert all(r.passed for r in results), table(results, 1.0)
    # The answers are its own: what is left is the thread count's summation order.
    assert max(r.logit_error for r in results) < 1e-3


def test_without_a_drift_the_drifting_predictor_passes(sam: Any) -> None:
    results = run(DriftingPredictor(sam))
    assert all(r.passed for r in results), table(results, 1.0)


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_caught_by_every_case_that_names_it(sam: Any, drift: str) -> None:
    cases = [case for case in CASES if drift in case.catches]
    results = run(DriftingPredictor(sam, drift), cases)
    assert not any(r.passed for r in results), f"{DRIFTS[drift]}\n" + table(results, 1.0)


def test_another_drawing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    altered = {**answers(), "landscape/sha256": answers()["square/sha256"]}
    monkeypatch.setattr("boothsam.conformance.runner.answers", lambda: altered)
    with pytest.raises(RuntimeError, match="landscape was drawn differently"):
        run(DriftingPredictor(None), CASES[:1])


def test_an_argument_that_comes_back_changed_fails(sam: Any) -> None:
    class Scaling(DriftingPredictor):
        def predict(self, **arguments: Any) -> Any:
            answer = super().predict(**arguments)
            arguments["point_coords"] *= 2
            return answer

    (result,) = run(Scaling(sam), CASES[:1])
    assert "changed its argument point_coords" in result.problem


def test_masks_hold_objects() -> None:
    for case in CASES:
        assert len(scene(case.picture).masks) >= 3


def test_command_names_a_wrong_factory() -> None:
    for name, message in (
        ("nothing", "expected module:factory"),
        ("boothsam:Nothing", "Nothing"),
        ("no_such:f", "no_such"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["--predictor", name, "--model", "."])


def test_command_exits_1_when_a_case_fails(tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text("def factory(folder):\n    return object()\n")
    command = [
        sys.executable,
        "-m",
        "boothsam.conformance",
        "--predictor",
        "mine:factory",
        "--model",
        ".",
        "--case",
        "tiny",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "tiny            FAIL" in done.stdout and "0 of 1 cases passed" in done.stdout
