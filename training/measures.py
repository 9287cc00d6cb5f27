"""What is measured on one subject: boxes, clicks, corrections, `--auto`, and GrabCut from the same box.

Everything goes through boothsam's runtime: the figures are those of the ONNX files, prompts in photo pixels.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from boothsam.runtime.auto import find_product_in
from boothsam.runtime.errors import NothingFound
from boothsam.runtime.masks import boundary_iou, mask_iou
from boothsam.runtime.predictor import SamPredictor
from boothsam.runtime.transforms import upscale_mask
from boothsam.training.photos import Image
from boothsam.training.prompts import Bits, box_of, click_in, correction
from boothsam.training.proof_set import Subject
from boothsam.training.textures import Rng
from numpy.typing import NDArray

SEED = 20_261  # of evaluation; pools use small seeds
JITTERS = 4  # boxes drawn per mask with every side moved by up to 10 %
AUTO_RIGHT = 0.75  # IoU from which `--auto` has found the subject


@dataclass(frozen=True)
class Row:
    """All figures of one subject.

    figures: IoU unless the name says otherwise. auto: "right", "wrong" (another mask), "nothing" (an error) or None
    (not asked). twice, twice_boundary: IoU and boundary IoU of the two drawings, None when drawn once.
    """

    name: str
    source: str
    category: str
    figures: dict[str, float]
    auto: str | None = None
    twice: float | None = None
    twice_boundary: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def subject_rng(subject: Subject) -> Rng:
    """A generator that depends on the subject's name alone: adding a mask changes no other's figures."""
    return np.random.default_rng([SEED, zlib.crc32(subject.name.encode())])


def measure(predictor: SamPredictor, subject: Subject, *, baselines: bool = True) -> Row:
    """Encode the photo and take all figures of a subject; `baselines` adds GrabCut."""
    predictor.set_image(subject.image)
    mask, rng = subject.mask, subject_rng(subject)
    figures, errors = _by_box(predictor, mask, rng)
    clicked, more = _by_click(predictor, mask, rng)
    figures |= clicked
    figures["score_error"] = float(np.mean(errors + more))
    if baselines:
        figures["grabcut"] = grabcut(subject.image, mask)
    figures["filled_box"] = mask_iou(filled_box(mask), mask)
    second = subject.second
    return Row(
        subject.name,
        subject.source,
        subject.category,
        figures,
        auto_verdict(predictor, subject) if subject.auto else None,
        None if second is None else mask_iou(second, mask),
        None if second is None else boundary_iou(second, mask),
    )


def _by_box(predictor: SamPredictor, mask: Bits, rng: Rng) -> tuple[dict[str, float], list[float]]:
    """Figures by box, and the errors of the predicted IoUs."""
    box = np.array(box_of(mask))
    masks, scores, _ = predictor.predict(box=box, multimask_output=False)
    figures = {"box": mask_iou(masks[0], mask), "box_boundary": boundary_iou(masks[0], mask)}
    errors = [abs(float(scores[0]) - figures["box"])]
    masks, scores, _ = predictor.predict(box=box)
    found = [mask_iou(m, mask) for m in masks]
    figures["box_top"] = found[int(np.argmax(scores))]
    errors += [abs(float(s) - f) for s, f in zip(scores, found, strict=True)]
    extent = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    limit = np.array([mask.shape[1], mask.shape[0]] * 2)
    jittered = []
    for _ in range(JITTERS):
        loose = np.clip(box + rng.uniform(-0.1, 0.1, 4) * extent, 0, limit)
        jittered.append(mask_iou(predictor.predict(box=loose, multimask_output=False)[0][0], mask))
    figures["box_jittered"] = float(np.mean(jittered))
    return figures, errors


def _by_click(predictor: SamPredictor, mask: Bits, rng: Rng) -> tuple[dict[str, float], list[float]]:
    """Figures by one click at the deepest point and by two corrections, and the errors of the predicted IoUs."""
    click = centre_click(mask)
    masks, scores, logits = predictor.predict([click], [1])
    found = [mask_iou(m, mask) for m in masks]
    top = int(np.argmax(scores))
    errors = [abs(float(s) - f) for s, f in zip(scores, found, strict=True)]
    single, score, _ = predictor.predict([click], [1], multimask_output=False)
    figures = {"click_best": max(found), "click_top": found[top], "click_single": mask_iou(single[0], mask)}
    errors.append(abs(float(score[0]) - figures["click_single"]))
    figures["three_clicks"] = _corrected(predictor, mask, click, masks[top], logits[top], rng)
    return figures, errors


def centre_click(mask: Bits) -> NDArray[np.float32]:
    """(2,) x, y of the mask's deepest point: where somebody clicks who clicks once."""
    return click_in(np.random.default_rng(0), mask, centred=1.0)


def _corrected(
    predictor: SamPredictor, mask: Bits, click: NDArray[np.float32], guess: Bits, logits: NDArray[np.float32], rng: Rng
) -> float:
    """IoU after two more clicks, each on the larger error so far, with the logits so far as mask prompt."""
    points, labels = [click], [1]
    size = np.array([mask.shape[1], mask.shape[0]], np.float32)
    square = np.zeros((max(mask.shape),) * 2, np.bool_)
    for _ in range(2):
        wrong, right = square.copy(), square.copy()
        wrong[: mask.shape[0], : mask.shape[1]], right[: mask.shape[0], : mask.shape[1]] = guess, mask
        fix = correction(rng, wrong, right)
        if fix is None:
            break
        points.append(np.clip(fix[0] * len(square), 0, size - 1))
        labels.append(fix[1])
        masks, _, low = predictor.predict(points, labels, mask_input=logits[None], multimask_output=False)
        guess, logits = masks[0], low[0]
    return mask_iou(guess, mask)


def auto_verdict(predictor: SamPredictor, subject: Subject) -> str:
    """What `--auto` makes of a photo that was set: "right", "wrong" or "nothing"."""
    try:
        found = find_product_in(predictor.model, predictor.embedding, subject.image)
    except NothingFound:
        return "nothing"
    answer = upscale_mask(found.product.low_res_mask, predictor.original_size)
    return "right" if mask_iou(answer, subject.mask) >= AUTO_RIGHT else "wrong"


def filled_box(mask: Bits) -> Bits:
    """The mask's tight box, filled."""
    filled = np.zeros_like(mask)
    x0, y0, x1, y1 = (int(v) for v in box_of(mask))
    filled[y0:y1, x0:x1] = True
    return filled


def grabcut(image: Image, mask: Bits) -> float:
    """IoU of OpenCV's GrabCut (5 rounds) from the mask's own box; on at most 800 pixels, as a user would."""
    scale = min(1.0, 800 / max(mask.shape))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    x0, y0, x1, y1 = (round(v * scale) for v in box_of(mask))
    labels = np.zeros(small.shape[:2], np.uint8)
    rectangle = (x0, y0, max(2, x1 - x0), max(2, y1 - y0))
    if rectangle[2] >= labels.shape[1] and rectangle[3] >= labels.shape[0]:
        return mask_iou(filled_box(mask), mask)  # the whole photo: GrabCut has no backdrop to learn from
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small[:, :, ::-1].copy(), labels, rectangle, *models, 5, cv2.GC_INIT_WITH_RECT)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    full = cv2.resize(found, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_NEAREST)
    return mask_iou(full.astype(bool), mask)
