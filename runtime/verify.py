"""Model against model on the same photos and prompts; and an installation against the golden answers in its model
folder.

A model folder's golden/ holds photos as PNG (so that no two JPEG decoders can disagree), `golden.json` with the
prompts and
`golden.npz` with the FP32 answers: per case `<name>/low_res_masks` (P, 4, 128, 128) float16, every second row and
column,
and `<name>/iou_predictions` (P, 4) float32.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from boothsam.runtime.errors import ManifestError, ProofError
from boothsam.runtime.fidelity import GATES, numerics_of
from boothsam.runtime.images import encode_image, load_image
from boothsam.runtime.masks import boundary_iou, mask_iou
from boothsam.runtime.model import Decoded, Prompts, SamModel
from boothsam.runtime.transforms import Uint8Array

GOLDEN = "golden"
STRIDE = 2  # golden logits keep every second row and column: a quarter of the bytes, the same verdict
# FP32 on another CPU differs by summation order: a few pixels at the rim of a mask, never a thousandth of it.
MIN_IOU_FP32 = 0.995
FORGIVEN_PIXELS = 4  # but in a mask of a few pixels, one at the rim is a large share
MAX_SCORE_ERROR_FP32 = 2e-3


@dataclass(frozen=True)
class Case:
    """One question: a photo by name, and P prompts on it."""

    name: str
    photo: str
    prompts: Prompts


@dataclass(frozen=True)
class Agreement:
    """How two answers to the same case compare, over all tokens and prompts of it.

    mask_iou_min, mask_iou_mean: masks at threshold 0 on the low-resolution logits. boundary_iou_mean: the same on
    mask rims.
    disagreeing: masks whose IoU is below MIN_IOU_FP32 and that differ in more than FORGIVEN_PIXELS. logit_error,
    score_error: largest absolute difference.
    """

    name: str
    mask_iou_min: float
    mask_iou_mean: float
    boundary_iou_mean: float
    disagreeing: int
    logit_error: float
    score_error: float

    @property
    def passed(self) -> bool:
        """Whether this is the agreement of one FP32 model with itself on another machine."""
        return self.disagreeing == 0 and self.score_error <= MAX_SCORE_ERROR_FP32


@dataclass(frozen=True)
class Report:
    """Agreements of all cases. numerics: on what they ran ("device" when the measured session is the one in use)."""

    model: str
    backend: str
    precision: str
    numerics: str
    cases: tuple[Agreement, ...]

    @property
    def passed(self) -> bool:
        """Every case passed, and there is at least one; of a reduced precision also the mean over all."""
        if not self.cases or not all(self.case_passed(case) for case in self.cases):
            return False
        mean = float(np.mean([case.mask_iou_mean for case in self.cases]))
        return self.precision == "fp32" or mean >= GATES[self.precision].mean

    def case_passed(self, case: Agreement) -> bool:
        """FP32 agrees to the last pixels; a reduced precision's masks to its gate in `fidelity`, each case by its
        mean."""
        return case.passed if self.precision == "fp32" else case.mask_iou_mean >= GATES[self.precision].p5

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"passed": self.passed}

    def require(self) -> None:
        """Raise when a case failed.

        Raises:
            ProofError: with the worst case's figures beside the gate.
        """
        if self.passed:
            return
        if not self.cases:
            raise ProofError(f"model {self.model!r} was compared on no case at all")
        if self.precision != "fp32":
            gate, means = GATES[self.precision], [case.mask_iou_mean for case in self.cases]
            raise ProofError(
                f"model {self.model!r} in {self.precision} on {self.backend} strays from its golden answers: mean mask "
                f"IoU {np.mean(means):.4f} (gate {gate.mean}), worst case {min(means):.4f} (gate {gate.p5})",
                hint="boothsam verify --photos FOLDER --picture worst.png shows where; or take --precision fp32",
            )
        worst = min(self.cases, key=lambda case: (case.passed, case.mask_iou_min))
        raise ProofError(
            f"model {self.model!r} on {self.backend} disagrees with its golden answers: case {worst.name}, mask IoU "
            f"{worst.mask_iou_min:.4f} (gate {MIN_IOU_FP32}), "
            f"score error {worst.score_error:.2g} (gate {MAX_SCORE_ERROR_FP32})",
            hint="boothsam doctor --report; try another --backend, or reinstall the model",
        )


def agree(name: str, found: Decoded, expected: Decoded) -> Agreement:
    """Compare two decoders' answers to one case."""
    ours, theirs = np.asarray(found.low_res_masks, np.float32), np.asarray(expected.low_res_masks, np.float32)
    pairs = [(a > 0, b > 0) for p, q in zip(ours, theirs, strict=True) for a, b in zip(p, q, strict=True)]
    ious = [mask_iou(a, b) for a, b in pairs]
    return Agreement(
        name=name,
        mask_iou_min=min(ious),
        mask_iou_mean=float(np.mean(ious)),
        boundary_iou_mean=float(np.mean([boundary_iou(a, b) for a, b in pairs])),
        disagreeing=sum(
            int(iou < MIN_IOU_FP32 and np.count_nonzero(a != b) > FORGIVEN_PIXELS)
            for iou, (a, b) in zip(ious, pairs, strict=True)
        ),
        logit_error=float(np.abs(ours - theirs).max()),
        score_error=float(np.abs(found.iou_predictions - expected.iou_predictions).max()),
    )


def compare(
    candidate: SamModel, reference: SamModel, photos: Mapping[str, Uint8Array], cases: Sequence[Case]
) -> Report:
    """Both models on the same cases; `candidate` is judged."""
    found, expected = _answers(candidate, photos, cases), _answers(reference, photos, cases)
    agreements = tuple(agree(c.name, a, b) for c, a, b in zip(cases, found, expected, strict=True))
    numerics = numerics_of(candidate.precision, candidate.backend)
    return Report(candidate.manifest.name, candidate.backend, candidate.precision, numerics, agreements)


def default_cases(photos: Mapping[str, Uint8Array]) -> list[Case]:
    """Prompts that fit any photo: a centre click, a click with a background click, a centre box, two boxes at once."""
    cases = []
    for name, photo in photos.items():
        size = np.array([photo.shape[1], photo.shape[0]], np.float64)  # x, y
        corners = np.concatenate([0.2 * size, 0.8 * size])
        left = np.concatenate([0.05 * size, [0.5, 0.9] * size])
        questions: dict[str, Prompts] = {
            "click": Prompts.make([0.5 * size], [1]),
            "clicks": Prompts.make([0.5 * size, 0.1 * size], [1, 0]),
            "box": Prompts.make(box_xyxy=corners),
            "boxes": Prompts.make(box_xyxy=np.stack([corners, left])),
        }
        cases += [Case(f"{name}/{kind}", name, prompts) for kind, prompts in questions.items()]
    return cases


def write_golden(model: SamModel, folder: Path, photos: Mapping[str, Uint8Array], cases: Iterable[Case]) -> None:
    """Record `model`'s answers under `folder`/golden. Call before the manifest is written, so that it lists the
    files."""
    golden = folder / GOLDEN
    golden.mkdir(parents=True, exist_ok=True)
    cases = list(cases)
    for name, photo in photos.items():
        (golden / f"{name}.png").write_bytes(encode_image(photo, "png", level=9))
    arrays: dict[str, npt.NDArray[Any]] = {}
    for case, decoded in zip(cases, _answers(model, photos, cases), strict=True):
        arrays[f"{case.name}/low_res_masks"] = decoded.low_res_masks[..., ::STRIDE, ::STRIDE].astype(np.float16)
        arrays[f"{case.name}/iou_predictions"] = decoded.iou_predictions
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    (golden / "golden.npz").write_bytes(buffer.getvalue())
    fields = ("point_coords", "point_labels", "box_xyxy")
    listing = [
        {"name": c.name, "photo": f"{c.photo}.png"}
        | {f: getattr(c.prompts, f).tolist() for f in fields if getattr(c.prompts, f) is not None}
        for c in cases
    ]
    (golden / "golden.json").write_text(json.dumps({"format": 1, "cases": listing}, indent=1) + "\n", encoding="utf-8")


def verify_golden(model: SamModel, folder: Path) -> Report:
    """Ask `model` the golden questions of its folder and compare with the recorded FP32 answers.

    They are about the networks: photos are resized exactly, whatever `model` does.

    Raises:
        ManifestError: the folder has no golden answers, or ill-formed ones. IntegrityError: altered files.
    """

    def read(name: str) -> bytes:
        if f"{GOLDEN}/{name}" not in model.manifest.files:
            raise ManifestError(
                f"model {model.manifest.name!r} lists no {GOLDEN}/{name}", hint="export the model again, with --verify"
            )
        return model.manifest.read_file(folder, f"{GOLDEN}/{name}")

    model = model.with_resize("exact")
    arrays = np.load(io.BytesIO(read("golden.npz")), allow_pickle=False)
    agreements = []
    try:
        listing = json.loads(read("golden.json"))["cases"]
        names = sorted({entry["photo"] for entry in listing})
        embeddings = {name: model.encode(load_image(read(name))) for name in names}
        for entry in listing:
            prompts = Prompts.make(entry.get("point_coords"), entry.get("point_labels"), entry.get("box_xyxy"))
            decoded = model.decode(embeddings[entry["photo"]], prompts)
            found = Decoded(decoded.low_res_masks[..., ::STRIDE, ::STRIDE], decoded.iou_predictions)
            stored = Decoded(arrays[f"{entry['name']}/low_res_masks"], arrays[f"{entry['name']}/iou_predictions"])
            agreements.append(agree(entry["name"], found, stored))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ManifestError(
            f"the golden answers in {folder / GOLDEN} are ill-formed ({error!r})", hint="export the model again"
        ) from None
    numerics = numerics_of(model.precision, model.backend)
    return Report(model.manifest.name, model.backend, model.precision, numerics, tuple(agreements))


def _answers(model: SamModel, photos: Mapping[str, Uint8Array], cases: Sequence[Case]) -> list[Decoded]:
    """One embedding at a time: eight of them would be 32 MiB and more on a small device."""
    answers: dict[int, Decoded] = {}
    for name, photo in photos.items():
        embedding = model.encode(photo)
        for index, case in enumerate(cases):
            if case.photo == name:
                answers[index] = model.decode(embedding, case.prompts)
        embedding.close()
    return [answers[index] for index in range(len(cases))]
