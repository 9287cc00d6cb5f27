"""How far a student agrees with its teacher on photos that neither training nor its choice of photos has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from boothsam.training.batches import normalise
from boothsam.training.distill_batches import inside_photo, whole_view
from boothsam.training.losses import iou
from boothsam.training.prompts import box_of, shrink
from boothsam.training.student import Student
from boothsam.training.teacher import FRAME, Labels
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """Mean IoU with the teacher's masks: the single mask by box; by click the best of three with its top answer.

    score_error: mean absolute difference of the single mask's predicted IoU from the IoU reached, by box.
    """

    photos: int
    boxes: int
    box_iou: float
    clicks: int
    click_iou: float
    score_error: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        clicks = f"by click (best of three) {self.click_iou:.3f} ({self.clicks})" if self.clicks else "no clicks"
        return (
            f"mask IoU with the teacher by box {self.box_iou:.3f} ({self.boxes} boxes), {clicks}, error of the "
            f"predicted IoU {self.score_error:.3f}"
        )


@torch.no_grad()
def agreement(student: Student, files: Sequence[Path], side: int) -> Agreement:
    """Ask the student the teacher's questions on whole photos in a side x side frame; every file holds an object."""
    device = next(student.parameters()).device
    was_training = student.training
    student.eval()
    boxed: list[float] = []
    errors: list[float] = []
    clicked: list[float] = []
    for path in files:
        labels = Labels.load(path)
        view = whole_view(labels, side)
        height, width = view.size_hw
        image = torch.from_numpy(normalise(view.photo(labels.photo), height, width))[None].to(device)
        features = student.encoder(image)
        frame = torch.from_numpy(inside_photo(view, side // 4))[None].to(device)
        for index in range(len(labels.objects)):
            mask = view.mask(labels.object(index))
            if not mask.any():
                continue
            logits, scores = _ask(student, features, np.array(box_of(mask)).reshape(2, 2) / side, [2, 3])
            found = float(iou(logits[:, :1], torch.from_numpy(shrink(mask))[None].to(device), frame)[0, 0])
            boxed.append(found)
            errors.append(abs(float(scores[0, 0]) - found))
        for index, place in enumerate(labels.clicks):
            top = int(np.argmax(labels.answer_scores[index]))
            mask, point = view.mask(labels.answer(index, top)), view.point(place)
            if point is None or not mask.any():
                continue
            logits, _ = _ask(student, features, point[None] / side, [1])
            wanted = torch.from_numpy(shrink(mask))[None].to(device)
            clicked.append(float(iou(logits[:, 1:], wanted, frame).max()))
    student.train(was_training)
    return Agreement(len(files), len(boxed), _mean(boxed), len(clicked), _mean(clicked), _mean(errors))


def _ask(
    student: Student, features: tuple[Tensor, ...], places: NDArray[np.floating], labels: list[int]
) -> tuple[Tensor, Tensor]:
    """All four masks and scores for one prompt; places (N, 2) relative to the frame."""
    device = features[0].device
    coords = torch.from_numpy(places.astype(np.float32))[None].to(device) * FRAME - 0.5
    marks = torch.tensor([labels], dtype=torch.int32, device=device)
    answer: tuple[Tensor, Tensor] = student.decoder(*features, coords, marks)
    return answer


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
