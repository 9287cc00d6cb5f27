"""Prompts lie where a user would put them, and readings are the masks a click can mean."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from boothsam.training import prompts
from boothsam.training.generator import Sample
from hypothesis import given
from hypothesis import strategies as st


def blob(seed: int, side: int = 96) -> prompts.Bits:
    """A random blob, possibly with a hole, never empty."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, tuple(rng.integers(20, side - 20, 2).tolist()), int(rng.integers(6, 40)), 1, -1)
    cv2.rectangle(mask, tuple(rng.integers(0, side, 2).tolist()), tuple(rng.integers(0, side, 2).tolist()), 1, 2)
    return mask.astype(bool)


def test_the_box_is_tight_and_exclusive_at_its_end() -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[5:9, 10:30] = True
    assert prompts.box_of(mask) == (10.0, 5.0, 30.0, 9.0)


@given(st.integers(0, 10_000))
def test_clicks_fall_inside_and_beside(seed: int) -> None:
    rng, mask = np.random.default_rng(seed), blob(seed)
    x, y = prompts.click_in(rng, mask)
    assert mask[int(y), int(x)]
    beside = prompts.click_beside(rng, mask)
    if beside is not None:
        assert not mask[int(beside[1]), int(beside[0])]


@given(st.integers(0, 10_000))
def test_a_user_box_stays_near_the_tight_one_and_in_the_frame(seed: int) -> None:
    rng, mask = np.random.default_rng(seed), blob(seed)
    (x0, y0), (x1, y1) = prompts.user_box(rng, mask)
    a0, b0, a1, b1 = prompts.box_of(mask)
    assert 0 <= x0 < x1 <= 96
    assert 0 <= y0 < y1 <= 96
    assert max(abs(x0 - a0), abs(x1 - a1)) <= 0.2 * (a1 - a0) + 1e-3
    assert max(abs(y0 - b0), abs(y1 - b1)) <= 0.2 * (b1 - b0) + 1e-3


def test_a_correction_marks_the_larger_error() -> None:
    wanted = np.zeros((64, 64), np.bool_)
    wanted[10:50, 10:50] = True
    guess = wanted.copy()
    guess[10:50, 30:50] = False
    guess[55:58, 55:58] = True
    found = prompts.correction(np.random.default_rng(0), guess, wanted)
    assert found is not None
    (x, y), label = found
    assert label == 1
    assert wanted[int(y * 64), int(x * 64)] and not guess[int(y * 64), int(x * 64)]
    extra = wanted.copy()
    extra[:, 52:] = True
    found = prompts.correction(np.random.default_rng(0), extra, wanted)
    assert found is not None
    assert found[1] == 0
    assert found[0][0] * 64 > 52
    assert prompts.correction(np.random.default_rng(0), wanted, wanted) is None


def test_shrinking_keeps_the_area() -> None:
    mask = blob(3)
    assert prompts.shrink(mask).sum() * 16 == pytest.approx(mask.sum())


def scene() -> Sample:
    """A cup (2, with part 1 on it) on a saucer (1)."""
    instances, parts = np.zeros((128, 128), np.uint8), np.zeros((128, 128), np.uint8)
    cv2.ellipse(instances, (64, 90), (50, 20), 0, 0, 360, 1, -1)
    cv2.rectangle(instances, (44, 30), (84, 95), 2, -1)
    cv2.rectangle(parts, (50, 40), (78, 60), 1, -1)
    return Sample(np.zeros((128, 128, 3), np.uint8), instances, parts, [2], [[1, 2]])


def test_wholes_parts_and_groups_are_candidates() -> None:
    found = prompts.candidates(scene(), 10)
    assert sorted(kind for kind, _ in found) == ["group", "part", "whole", "whole"]


@pytest.mark.parametrize("seed", range(60))
def test_prompts_agree_with_their_readings(seed: int) -> None:
    masks = prompts.candidates(scene(), 10)
    chosen = seed % len(masks)
    prompt = prompts.draw_prompt(np.random.default_rng(seed), masks, chosen)
    mask = masks[chosen][1]
    assert np.array_equal(prompt.readings[0], prompts.shrink(mask))
    assert prompt.valid[0]
    assert set(prompt.labels.tolist()) <= {-1, 0, 1, 2, 3}
    assert (prompt.labels == 2).sum() == (prompt.labels == 3).sum() <= 1
    assert (prompt.labels >= 0).any()
    for (x, y), label in zip(prompt.points * 128, prompt.labels, strict=True):
        if label in (0, 1):
            assert mask[int(y), int(x)] == bool(label)
    if (prompt.labels == 2).any():
        assert not prompt.valid[1:].any()  # a box says which reading is meant
    elif masks[chosen][0] == "part" and (prompt.labels >= 0).sum() == 1:
        whole = next(m for kind, m in masks if kind == "whole" and (m & mask).any())
        assert np.array_equal(prompt.readings[prompt.single], prompts.shrink(whole))
