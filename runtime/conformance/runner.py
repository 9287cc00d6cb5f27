"""Ask a predictor the kit's questions and compare with what the original authors' predictor answered.

The reference ran the same tiny trained SAM, so whatever differs by more than rounding is a rule that was broken.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from boothsam.conformance.cases import CASES, Case, scene

ANSWERS = Path(__file__).with_name("data") / "answers.npz"
STRIDE = 8  # of the stored low-resolution logits
OFFSET = 3
# FP32 on other machines sums in another order: scores move by 1e-6, logits (up to 130) by 5e-4, and a rim pixel or none
# of a mask changes sides. Every drift in tests/conformance/drifts.py moves at least one of the three past its limit.
SCORE_TOLERANCE = 1e-3
LOGIT_TOLERANCE = 2e-2
MASK_TOLERANCE = 1e-3  # 1 - IoU
RIM_PIXELS = 2  # on a tiny photo one pixel is more than a thousandth of the mask


class Predictor(Protocol):
    """The part of segment_anything's SamPredictor that the kit drives."""

    def set_image(self, image: npt.NDArray[np.uint8]) -> object:
        """Take an (H, W, 3) uint8 RGB photo."""

    def predict(self, **arguments: Any) -> Sequence[Any]:
        """point_coords (N, 2), point_labels (N,), box (4,), mask_input (1, 256, 256), multimask_output, return_logits
        -> masks (C, H, W) bool, scores (C,), low_res_logits (C, 256, 256)."""


@dataclass(frozen=True)
class Answer:
    """What the reference answered to one call: scores (C,), logits (C, 32, 32) every 8th, masks (C, H, W) bool."""

    scores: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    masks: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Result:
    """One case's outcome. Errors are the largest over the case's calls; `problem` says what broke, "" if it passed."""

    case: Case
    score_error: float
    logit_error: float
    mask_error: float
    problem: str

    @property
    def passed(self) -> bool:
        """Whether the predictor answered as the reference does."""
        return not self.problem


def unpack_masks(
    counts: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], size_hw: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """(C, H, W) masks from column-major run lengths, the runs of all masks in a row and how many each has."""
    masks = []
    for runs in np.split(counts, np.cumsum(lengths)[:-1]):
        masks.append(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size_hw, order="F"))
    return np.stack(masks)


@cache
def answers() -> MappingProxyType[str, npt.NDArray[Any]]:
    """The stored arrays: case/call/field, and picture/sha256 of each drawn picture."""
    with np.load(ANSWERS) as file:
        return MappingProxyType({key: file[key] for key in file.files})


def answer(case: Case, call: int) -> Answer:
    """The reference's answer to one call of a case."""
    stored, key = answers(), f"{case.name}/{call}"
    size_hw = scene(case.picture).masks[0].shape
    masks = unpack_masks(stored[f"{key}/counts"], stored[f"{key}/lengths"], (size_hw[0], size_hw[1]))
    return Answer(stored[f"{key}/scores"], stored[f"{key}/logits"], masks)


def fingerprint(image: npt.NDArray[np.uint8]) -> str:
    """sha256 of a picture's bytes."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def run(predictor: Predictor, cases: Iterable[Case] = CASES, *, tolerance: float = 1.0) -> list[Result]:
    """Ask every case, in order; a picture is set once for neighbouring cases that share it.

    tolerance: factor on all limits, for a predictor of reduced precision.

    Raises:
        RuntimeError: this machine draws another picture than the one the answers are for.
    """
    results = []
    current = None
    for case in cases:
        image = scene(case.picture).image
        if fingerprint(image) != str(answers()[f"{case.picture}/sha256"]):
            raise RuntimeError(
                f"the picture {case.picture} was drawn differently from the one that the stored answers are for"
            )
        setup: Callable[[], object] | None = None
        if case.picture != current:
            setup = lambda image=image: predictor.set_image(image.copy())  # noqa: E731
        current = case.picture
        result = _ask(predictor, case, setup, tolerance)
        results.append(result)
    return results


def _ask(predictor: Predictor, case: Case, setup: Callable[[], object] | None, tolerance: float) -> Result:
    worst = np.zeros(3)
    problems: list[str] = []
    try:
        if setup:
            setup()
        previous: npt.NDArray[np.float32] | None = None
        for call, ask in enumerate(case.asks):
            arguments = ask.arguments(scene(case.picture))
            if ask.refine:
                arguments["mask_input"] = previous
            expected = answer(case, call)
            given = copy.deepcopy(arguments)
            masks, scores, logits = (np.asarray(part) for part in predictor.predict(**arguments))
            problems += _changed(arguments, given) + _misshapen(masks, scores, logits, expected)
            if problems:
                break
            if call == 0:
                floats = np.asarray(predictor.predict(**arguments, return_logits=True)[0])
                if not np.array_equal(floats > 0, masks):
                    problems.append("the same prompt with return_logits=True gave other masks at > 0")
            previous = logits[int(scores.argmax())][None]
            worst = np.maximum(worst, _errors(masks, scores, logits, expected))
    except Exception as error:
        problems.append(f"{type(error).__name__}: {error}".splitlines()[0])
    limits = np.array([SCORE_TOLERANCE, LOGIT_TOLERANCE, MASK_TOLERANCE]) * tolerance
    # not (error <= limit), so that NaN fails
    problems += [
        f"{what} differ"
        for what, e, limit in zip(("scores", "logits", "masks"), worst, limits, strict=True)
        if not e <= limit
    ]
    return Result(case, float(worst[0]), float(worst[1]), float(worst[2]), "; ".join(problems))


def _changed(after: dict[str, Any], before: dict[str, Any]) -> list[str]:
    return [f"predict changed its argument {name}" for name in before if not np.array_equal(after[name], before[name])]


def _misshapen(
    masks: npt.NDArray[Any], scores: npt.NDArray[Any], logits: npt.NDArray[Any], expected: Answer
) -> list[str]:
    count = len(expected.scores)
    problems = []
    if masks.dtype != np.bool_ or masks.shape != expected.masks.shape:
        problems.append(f"masks are {masks.dtype} {masks.shape}, expected bool {expected.masks.shape}")
    if scores.shape != (count,):
        problems.append(f"scores are {scores.shape}, expected {(count,)}")
    if logits.shape != (count, 256, 256):
        problems.append(f"low_res_logits are {logits.shape}, expected {(count, 256, 256)}")
    return problems


def _errors(
    masks: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating], logits: npt.NDArray[np.floating], expected: Answer
) -> npt.NDArray[np.float64]:
    """Largest score error, logit error and 1 - IoU; up to RIM_PIXELS of a mask may be on the other side of its rim."""
    sample = logits[:, OFFSET::STRIDE, OFFSET::STRIDE]
    wrong = np.count_nonzero(masks ^ expected.masks, axis=(1, 2))
    union = np.count_nonzero(masks | expected.masks, axis=(1, 2))
    mask_error = np.where(wrong <= RIM_PIXELS, 0.0, wrong / np.maximum(union, 1)).max()
    return np.array([np.abs(scores - expected.scores).max(), np.abs(sample - expected.logits).max(), mask_error])
