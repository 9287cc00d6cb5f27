"""The exported graphs against the torch module they came from: same photos, same prompts, both through the runtime.

The torch side is proven elsewhere, against the original authors' code (tests/conformance, tests/export).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from boothsam.conformance.pictures import draw_scene
from boothsam.export.architectures.sam import Sam
from boothsam.export.torch_session import torch_model
from boothsam.runtime.errors import ParityError
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.model import Decoded, Prompts, SamModel
from boothsam.runtime.transforms import Uint8Array


@dataclass(frozen=True)
class Tolerance:
    """What FP32 arithmetic in another order may change.

    embedding, logits: largest absolute difference as a share of the reference's largest absolute value. Measured 1e-6
    to 1e-5; weights with large activations lose more, and a wrong layer gives 1e-2 and up.
    scores: largest absolute difference of a predicted IoU.
    mask_iou, flips: smallest IoU of two low-resolution masks, asked of masks in which more than `flips` pixels differ:
    a pixel whose logit is zero but for rounding may flip, and in a mask of 50 pixels one is 2 %.
    """

    embedding: float = 1e-3
    logits: float = 1e-3
    scores: float = 1e-3
    mask_iou: float = 0.999
    flips: int = 4


@dataclass(frozen=True)
class CaseParity:
    """One question to both. Errors as Tolerance has them; the worst over prompts and all four tokens.

    flips: pixels that differ in the mask where most do.
    mask_share: mean share of the frame that the reference's masks cover, so that agreement on nothing shows.
    """

    name: str
    logits: float
    scores: float
    mask_iou: float
    flips: int
    mask_share: float


@dataclass(frozen=True)
class ParityReport:
    """Figures of every photo and prompt. embedding: photo -> error; prompts per photo in `cases`."""

    model: str
    backend: str
    tolerance: Tolerance
    embedding: Mapping[str, float]
    cases: tuple[CaseParity, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """Each figure beyond its tolerance, in words."""
        allowed = self.tolerance
        found = [
            f"{photo}: embedding error {error:.2g} (at most {allowed.embedding:g})"
            for photo, error in self.embedding.items()
            if not error <= allowed.embedding
        ]
        for case in self.cases:
            # "not <=" and not ">": a NaN fails
            if not case.logits <= allowed.logits:
                found.append(f"{case.name}: logit error {case.logits:.2g} (at most {allowed.logits:g})")
            if not case.scores <= allowed.scores:
                found.append(f"{case.name}: score error {case.scores:.2g} (at most {allowed.scores:g})")
            if case.mask_iou < allowed.mask_iou and case.flips > allowed.flips:
                found.append(
                    f"{case.name}: mask IoU {case.mask_iou:.5f} (at least {allowed.mask_iou:g}), "
                    f"{case.flips} pixels flipped"
                )
        return tuple(found)

    @property
    def passed(self) -> bool:
        """All figures within tolerance, on at least one question whose masks are neither empty nor full."""
        return not self.failures and any(0.001 < case.mask_share < 0.999 for case in self.cases)

    def summary(self) -> str:
        """The worst figures in one line."""
        if not self.cases:
            return f"{self.model} was compared on nothing"
        iou, logits = min(c.mask_iou for c in self.cases), max(c.logits for c in self.cases)
        scores, embedding = max(c.scores for c in self.cases), max(self.embedding.values())
        return (
            f"{self.model} on {self.backend}, {len(self.cases)} questions on {len(self.embedding)} photos: "
            f"mask IoU at least {iou:.6f}, relative logit error at most {logits:.1e}, "
            f"score error at most {scores:.1e}, relative embedding error at most {embedding:.1e}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "embedding": dict(self.embedding), "passed": self.passed}

    def require(self) -> None:
        """Raise unless `passed`.

        Raises:
            ParityError: with every figure beyond its tolerance, or for lack of a mask worth comparing.
        """
        if self.passed:
            return
        if self.failures:
            raise ParityError(
                f"{self.model} on {self.backend} does not answer what its checkpoint answers: "
                + "; ".join(self.failures),
                hint="report this with the versions of torch, onnx and onnxruntime (boothsam doctor --report)",
            )
        shares = [f"{case.mask_share:.3f}" for case in self.cases]
        raise ParityError(
            f"{self.model} gives no mask that proves anything: masks cover {', '.join(shares)} of the frame",
            hint="untrained weights? give a trained checkpoint, or export with verify=False (--no-verify)",
        )


def drawn_photos() -> dict[str, Uint8Array]:
    """Landscape, portrait, square and tiny drawn pictures by name; the same on every machine."""
    return {
        "landscape": draw_scene(101, (384, 512), 8, (24, 90), 120).image,
        "portrait": draw_scene(102, (600, 400), 8, (24, 110), 140).image,
        "square": draw_scene(103, (512, 512), 10, (24, 90), 160).image,
        "tiny": draw_scene(104, (48, 64), 2, (10, 20), 120).image,
    }


def questions(photo: Uint8Array) -> dict[str, Prompts]:
    """Prompts of every kind that fit any photo: clicks, a box, a box with a click, several boxes and clicks at once."""
    size = np.array([photo.shape[1], photo.shape[0]], np.float64)
    boxes = np.array([[0.2, 0.2, 0.8, 0.85], [0.05, 0.1, 0.5, 0.6], [0.45, 0.4, 0.98, 0.97]]) * np.tile(size, 2)
    middle, corner = 0.5 * size, np.array([0.1, 0.15]) * size
    return {
        "click": Prompts.make([middle], [1]),
        "two clicks": Prompts.make([middle, corner], [1, 0]),
        "box": Prompts.make(box_xyxy=boxes[0]),
        "box and click": Prompts.make([corner], [0], boxes[0]),
        "three boxes": Prompts.make(box_xyxy=boxes),
        "four clicks apart": Prompts.make([[middle], [corner], [0.7 * size], [0.3 * size]], [[1], [1], [1], [1]]),
    }


def check_parity(
    sam: Sam,
    model: SamModel,
    photos: Mapping[str, Uint8Array] | None = None,
    *,
    tolerance: Tolerance | None = None,
) -> ParityReport:
    """Compare an exported model with its torch module; every token is compared, so multimask output or not is covered.

    Each photo is asked everything in `questions`, then again with the first answer's logits as mask_input, with a
    click and without any point.

    Args:
        sam: the torch module, FP32 on the CPU.
        model: its export, loaded from a model folder.
        photos: (H, W, 3) uint8 RGB by name; drawn ones by default.

    Returns:
        The figures; call `require` to turn a failure into an error.
    """
    reference = torch_model(sam, model.manifest.name)
    embedding: dict[str, float] = {}
    cases: list[CaseParity] = []
    for photo_name, photo in (drawn_photos() if photos is None else photos).items():
        ours, theirs = model.encode(photo), reference.encode(photo)
        embedding[photo_name] = _relative(
            ours.tensors["image_embedding"].numpy(), theirs.tensors["image_embedding"].numpy()
        )
        asked = questions(photo)
        first = reference.decode(theirs, asked["click"]).low_res_masks[:, 1:2]
        click = asked["click"]
        asked["click and mask"] = Prompts.make(click.point_coords, click.point_labels, mask_input=first)
        asked["mask"] = Prompts.make(mask_input=first)
        for kind, prompts in asked.items():
            found, expected = model.decode(ours, prompts), reference.decode(theirs, prompts)
            cases.append(_compare(f"{photo_name}/{kind}", found, expected))
        ours.close()
    return ParityReport(model.manifest.name, model.backend, tolerance or Tolerance(), embedding, tuple(cases))


def _relative(found: Any, expected: Any) -> float:
    error, scale = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    return error / scale if scale else error


def _compare(name: str, found: Decoded, expected: Decoded) -> CaseParity:
    ours, theirs = found.low_res_masks > 0, expected.low_res_masks > 0
    pairs = list(zip(ours.reshape(-1, *ours.shape[2:]), theirs.reshape(-1, *theirs.shape[2:]), strict=True))
    return CaseParity(
        name=name,
        logits=_relative(found.low_res_masks, expected.low_res_masks),
        scores=float(np.abs(found.iou_predictions - expected.iou_predictions).max()),
        mask_iou=min(mask_iou(a, b) for a, b in pairs),
        flips=max(int((a != b).sum()) for a, b in pairs),
        mask_share=float(theirs.mean()),
    )
