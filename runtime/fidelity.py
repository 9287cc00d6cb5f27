"""How far a model's masks are from a reference's on photos: what a reduced precision or an export costs.

Each photo is asked one question of every kind in KINDS. What is compared is the mask a caller gets: of a single click
the candidate that the reference scores highest, of every other question the single mask, both as they lie on the frame
(longest side 1024). All four tokens are compared beside it; they are reported, and gated by nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from boothsam.runtime.errors import OptionError, ProofError
from boothsam.runtime.masks import BoolArray, boundary_iou, mask_iou
from boothsam.runtime.model import Decoded, Prompts, SamModel
from boothsam.runtime.transforms import FloatArray, Size, Uint8Array, upscale_mask

KINDS = ("point", "box", "box_and_point", "three_points", "mask")
NUMERICS = ("device", "simulated", "none")
WORST = 6  # cases kept with their masks, for the picture
# A mask that covers less or more of the frame than this says nothing about the model.
EMPTY, FULL = 0.001, 0.999


@dataclass(frozen=True)
class Gate:
    """The least mean and 5th percentile of mask IoU."""

    mean: float
    p5: float


# What `resize="fast"` may cost beside the exact one, whatever the precision.
RESIZE_GATE = Gate(0.995, 0.98)
GATES: Mapping[str, Gate] = MappingProxyType(
    {"fp32": Gate(0.999, 0.995), "fp16": Gate(0.995, 0.98), "int8": Gate(0.98, 0.93)}
)


@dataclass(frozen=True)
class Row:
    """One question. mask_iou, boundary_iou: of the delivered mask. score_error: largest over the four tokens.

    tokens: mask IoU of each of the four. same_choice: both models score the same candidate highest. mask_share: part of
    the frame under the reference's mask. finite: neither answer holds NaN or infinity.
    """

    photo: str
    kind: str
    mask_iou: float
    boundary_iou: float
    score_error: float
    tokens: tuple[float, ...]
    same_choice: bool
    mask_share: float
    finite: bool


@dataclass(frozen=True)
class Summary:
    """Statistics of `count` questions: mean, 5th percentile (linear between ranks) and least mask IoU, and the rest."""

    count: int
    mask_iou_mean: float
    mask_iou_p5: float
    mask_iou_min: float
    boundary_iou_mean: float
    score_error_mean: float
    score_error_max: float
    every_token_mean: float
    every_token_min: float
    choices_changed: int


@dataclass(frozen=True)
class WorstCase:
    """The two masks of one question, (h, w) bool on the frame without its padding."""

    row: Row
    expected: BoolArray
    found: BoolArray


@dataclass(frozen=True)
class Fidelity:
    """Every question's figures, and the gate they are held to.

    against: what the reference was, such as "fp32 (ort-cpu)" or "pytorch". numerics: on what the measured model's
    arithmetic ran: "device" (the one named), "simulated" (rounded as hardware would), or "none" (a valid graph,
    but not the arithmetic of the precision).
    """

    model: str
    precision: str
    backend: str
    against: str
    numerics: str
    gate: Gate
    rows: tuple[Row, ...]
    worst: tuple[WorstCase, ...] = ()

    @property
    def summary(self) -> Summary:
        """Over all questions."""
        return _summarise(self.rows)

    @property
    def kinds(self) -> dict[str, Summary]:
        """Per kind of prompt that was asked."""
        asked = {row.kind for row in self.rows}
        return {kind: _summarise([r for r in self.rows if r.kind == kind]) for kind in KINDS if kind in asked}

    @property
    def failures(self) -> tuple[str, ...]:
        """What keeps this from passing, in words."""
        if not any(EMPTY < row.mask_share < FULL for row in self.rows):
            return ("no mask worth comparing: the reference's are empty or cover everything",)
        found = []
        broken = [row for row in self.rows if not row.finite]
        if broken:
            found.append(
                f"{len(broken)} of {len(self.rows)} answers hold NaN or infinity, "
                f"first {broken[0].photo}/{broken[0].kind}"
            )
        summary = self.summary
        # "not >=" and not "<": a NaN fails
        if not summary.mask_iou_mean >= self.gate.mean:
            found.append(f"mean mask IoU {summary.mask_iou_mean:.4f} (gate {self.gate.mean})")
        if not summary.mask_iou_p5 >= self.gate.p5:
            found.append(f"5th percentile of mask IoU {summary.mask_iou_p5:.4f} (gate {self.gate.p5})")
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Nothing is in `failures`."""
        return not self.failures

    def require(self) -> None:
        """Raise unless `passed`.

        Raises:
            ProofError: with every figure beyond its gate.
        """
        if not self.passed:
            raise ProofError(
                f"{self.model} in {self.precision} ({self.numerics} numerics) against {self.against}: "
                + "; ".join(self.failures),
                hint="calibrate on photos like those it failed on, keep to fp32 and exact resize, or look at --picture",
            )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; without the masks."""
        body = {
            "model": self.model,
            "precision": self.precision,
            "backend": self.backend,
            "against": self.against,
            "numerics": self.numerics,
            "gate": asdict(self.gate),
            "passed": self.passed,
            "failures": list(self.failures),
            "photos": len({row.photo for row in self.rows}),
            "summary": asdict(self.summary),
            "kinds": {kind: asdict(summary) for kind, summary in self.kinds.items()},
            "rows": [asdict(row) for row in self.rows],
        }
        plain: dict[str, Any] = _without_nan(body)
        return plain


def numerics_of(precision: str, backend: str) -> str:
    """What a backend's own answers say: "none" from ONNX Runtime's CPU about FP16, whose nodes it computes in FP32."""
    return "none" if (precision, backend) == ("fp16", "ort-cpu") else "device"


def questions(photo: Uint8Array, first_logits: FloatArray | None = None) -> dict[str, Prompts]:
    """One question of each kind, by fractions of the photo; "mask" only with `first_logits` (1, 1, 256, 256)."""
    size = np.array([photo.shape[1], photo.shape[0]], np.float64)  # x, y
    middle = 0.5 * size
    box = np.concatenate([0.2 * size, 0.8 * size])
    three = np.array([[0.5, 0.5], [0.4, 0.55], [0.06, 0.08]]) * size
    asked = {
        "point": Prompts.make([middle], [1]),
        "box": Prompts.make(box_xyxy=box),
        "box_and_point": Prompts.make([middle], [1], box),
        "three_points": Prompts.make(three, [1, 1, 0]),
    }
    if first_logits is not None:
        asked["mask"] = Prompts.make([middle], [1], mask_input=first_logits)
    return asked


def measure(
    candidate: SamModel,
    reference: SamModel,
    photos: Mapping[str, Uint8Array],
    *,
    against: str,
    numerics: str,
    gate: Gate | None = None,
    progress: Callable[[str], None] | None = None,
) -> Fidelity:
    """Ask both models the same; `candidate` is judged.

    photos: (H, W, 3) uint8 RGB by name; read one after the other, so a mapping may load them when asked.
    gate: by default that of the candidate's precision in GATES.

    Raises:
        OptionError: no photo, or unknown numerics.
    """
    if not photos or numerics not in NUMERICS:
        raise OptionError(
            f"found {len(photos)} photos and numerics {numerics!r}; "
            f"expected photos, and numerics of {', '.join(NUMERICS)}",
            hint="--photos FOLDER",
        )
    rows: list[Row] = []
    worst: list[WorstCase] = []
    for name, photo in photos.items():
        if progress:
            progress(name)
        for case in _compare_photo(candidate, reference, name, photo):
            rows.append(case.row)
            worst = sorted([*worst, case], key=lambda c: c.row.mask_iou)[:WORST]
    chosen = gate or GATES[candidate.precision]
    return Fidelity(
        candidate.manifest.name,
        candidate.precision,
        candidate.backend,
        against,
        numerics,
        chosen,
        tuple(rows),
        tuple(worst),
    )


def _compare_photo(candidate: SamModel, reference: SamModel, name: str, photo: Uint8Array) -> Iterator[WorstCase]:
    theirs, ours = reference.encode(photo), candidate.encode(photo)
    try:
        frame = theirs.input_hw
        asked = questions(photo)
        expected = {kind: reference.decode(theirs, prompts) for kind, prompts in asked.items()}
        point = expected["point"]
        best = 1 + int(point.iou_predictions[0, 1:].argmax())
        asked = questions(photo, point.low_res_masks[:, best : best + 1])
        expected["mask"] = reference.decode(theirs, asked["mask"])
        for kind, prompts in asked.items():
            yield _compare(name, kind, candidate.decode(ours, prompts), expected[kind], frame)
    finally:
        theirs.close()
        ours.close()


def _compare(photo: str, kind: str, found: Decoded, expected: Decoded, frame_hw: Size) -> WorstCase:
    ours, theirs = _masks(found, frame_hw), _masks(expected, frame_hw)
    token = 1 + int(expected.iou_predictions[0, 1:].argmax()) if kind == "point" else 0
    choice = found.iou_predictions[0, 1:]
    finite = bool(np.isfinite(found.low_res_masks).all() and np.isfinite(found.iou_predictions).all())
    with np.errstate(invalid="ignore"):
        score_error = float(np.abs(found.iou_predictions - expected.iou_predictions).max())
    row = Row(
        photo=photo,
        kind=kind,
        mask_iou=mask_iou(ours[token], theirs[token]),
        boundary_iou=boundary_iou(ours[token], theirs[token]),
        score_error=score_error,
        tokens=tuple(mask_iou(a, b) for a, b in zip(ours, theirs, strict=True)),
        same_choice=finite and int(choice.argmax()) == int(expected.iou_predictions[0, 1:].argmax()),
        mask_share=float(theirs[token].mean()),
        finite=finite,
    )
    return WorstCase(row, theirs[token], ours[token])


def _masks(decoded: Decoded, frame_hw: Size) -> list[BoolArray]:
    """The four masks of the first prompt on the frame without its padding; a NaN is no mask."""
    logits: npt.NDArray[np.float32] = np.nan_to_num(np.asarray(decoded.low_res_masks[0], np.float32), nan=-1.0)
    return [upscale_mask(plane, frame_hw) for plane in logits]


def _without_nan(value: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _summarise(rows: tuple[Row, ...] | list[Row]) -> Summary:
    ious = np.array([row.mask_iou for row in rows])
    scores = np.array([row.score_error for row in rows])
    tokens = np.array([row.tokens for row in rows])
    return Summary(
        count=len(rows),
        mask_iou_mean=float(ious.mean()),
        mask_iou_p5=float(np.percentile(ious, 5)),
        mask_iou_min=float(ious.min()),
        boundary_iou_mean=float(np.mean([row.boundary_iou for row in rows])),
        score_error_mean=float(scores.mean()),
        score_error_max=float(scores.max()),
        every_token_mean=float(tokens.mean()),
        every_token_min=float(tokens.min()),
        choices_changed=sum(not row.same_choice for row in rows if row.kind == "point"),
    )
