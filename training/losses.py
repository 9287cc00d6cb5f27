"""What the masks and the predicted IoUs are held to, at the logits' own resolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SHARED = 0.05  # share of the loss that candidates get which were not the best: none of them may die


@dataclass
class Losses:
    """Scalars, and the IoU (P,) of the best candidate, of the single mask, and of the top-scored candidate."""

    total: Tensor
    mask: Tensor
    score: Tensor
    best_iou: Tensor
    single_iou: Tensor
    top_iou: Tensor
    score_error: Tensor


def focus(wanted: Tensor, frame: Tensor) -> Tensor:
    """(P, M, M) weights: 0 in the padding, little far from the thing, most on its rim, summing to 1 per prompt."""
    side = wanted.shape[-1]
    radius = max(3, side // 12) | 1
    near = _spread(wanted, radius)
    narrow = max(3, side // 32) | 1
    rim = _spread(wanted, narrow) + _spread(-wanted, narrow)
    weight = (0.15 + near + 2 * rim) * frame
    return weight / weight.sum((1, 2), keepdim=True)


def _spread(plane: Tensor, width: int) -> Tensor:
    """Running maximum over about width x width pixels, on every second pixel, one direction after the other."""
    small = F.max_pool2d(plane[:, None], 2)
    reach = max(3, width // 2) | 1
    rows = F.max_pool2d(small, (reach, 1), 1, (reach // 2, 0))
    wide = F.max_pool2d(rows, (1, reach), 1, (0, reach // 2))
    return F.interpolate(wide, scale_factor=2.0)[:, 0]


def mask_loss(logits: Tensor, wanted: Tensor, frame: Tensor) -> Tensor:
    """(P, T) loss of (P, T, M, M) logits against one (P, M, M) coverage: focused cross entropy plus dice."""
    weight = focus(wanted, frame)[:, None]
    target = wanted[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = torch.sigmoid(logits)
    hard = (probability.detach() - target).abs() + 0.3
    entropy = (entropy * hard * weight).sum((2, 3))
    inside = frame[:, None]
    overlap = (probability * target * inside).sum((2, 3))
    both = ((probability + target) * inside).sum((2, 3))
    return 2 * entropy + 1 - (2 * overlap + 1) / (both + 1)


@torch.no_grad()
def iou(logits: Tensor, wanted: Tensor, frame: Tensor) -> Tensor:
    """(P, T) IoU of logits > 0 with coverage >= 0.5 inside the photo."""
    guess = (logits > 0) & (frame[:, None] > 0)
    truth = wanted[:, None] >= 0.5
    overlap = (guess & truth).sum((2, 3)).float()
    return overlap / (guess | truth).sum((2, 3)).clamp(min=1).float()


def total_loss(
    logits: Tensor, scores: Tensor, readings: Tensor, valid: Tensor, single: Tensor, frame: Tensor
) -> Losses:
    """The candidates share out the valid readings, each to its best; the single mask gets its own; all scores are held.

    logits (P, 4, M, M); scores (P, 4); readings (P, R, M, M); valid (P, R); single (P,); frame (P, M, M).
    """
    rows = torch.arange(len(logits))
    main = mask_loss(logits, readings[:, 0], frame)
    candidate = main[:, 1:].min(1).values * (1 - SHARED) + main[:, 1:].mean(1) * SHARED
    taken = main[:, 1:].argmin(1)
    alone = main[:, 0].clone()
    extra = logits.new_zeros(())
    for reading in range(1, readings.shape[1]):
        chosen = torch.nonzero(valid[:, reading])[:, 0]
        if len(chosen) == 0:
            continue
        other = mask_loss(logits[chosen], readings[chosen, reading], frame[chosen])
        free = other[:, 1:] + 10 * F.one_hot(taken[chosen], 3)
        extra = extra + free.min(1).values.sum() * 0.5 / len(logits)
        swap = single[chosen] == reading
        alone = alone.index_put((chosen[swap],), other[swap, 0])
    actual = iou(logits, readings[:, 0], frame)
    error = (scores - actual).abs()
    score = F.smooth_l1_loss(scores, actual, beta=0.1)
    mask = candidate.mean() + extra + 0.7 * alone.mean()
    return Losses(
        mask + 2 * score,
        mask.detach(),
        score.detach(),
        actual[:, 1:].max(1).values,
        actual[:, 0],
        actual[rows, 1 + scores[:, 1:].argmax(1)],
        error.detach().mean(1),
    )
