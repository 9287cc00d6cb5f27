"""GridOrder: which points of a grid are asked, and which are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.automatic_grid import Box
from boothsam.runtime.automatic_order import FEWEST_PER_SIDE, GridOrder

SIDE = FEWEST_PER_SIDE
ALL = set(range(SIDE * SIDE))
ONE, OTHER = (0, 0, 10, 10), (50, 50, 90, 90)
Answer = Callable[[int, int], list[Box]]


def plain() -> npt.NDArray[np.uint8]:
    """A photo with noise and nothing on it, ten pixels for each point."""
    return np.random.default_rng(0).integers(100, 104, (10 * SIDE, 10 * SIDE, 3), np.uint8)


def asked(answer: Answer, image: Any = None, twin_iou: float = 0.7) -> set[int]:
    order, seen = GridOrder(len(ALL), plain() if image is None else image, twin_iou), list[int]()
    for indices in order.batches(7):
        assert 1 <= len(indices) <= 7
        seen += indices
        order.answered(indices, [answer(*divmod(index, SIDE)) for index in indices])
    assert len(set(seen)) == len(seen) and order.settled == len(ALL)
    return set(seen)


@pytest.fixture
def coarse() -> set[int]:
    """Every second row and column, and the last ones."""
    lines = {*range(0, SIDE, 2), SIDE - 1}
    return {row * SIDE + column for row in lines for column in lines}


def test_where_all_answers_agree_only_the_coarse_grid_is_asked(coarse: set[int]) -> None:
    assert asked(lambda row, column: [ONE]) == coarse
    assert asked(lambda row, column: [ONE, OTHER] if row % 4 else [OTHER, ONE]) == coarse  # in any order


def test_no_answer_is_none_to_rely_on_and_a_threshold_of_one_knows_no_twins() -> None:
    assert asked(lambda row, column: []) == ALL
    assert asked(lambda row, column: [ONE], twin_iou=1.0) == ALL


def test_points_beside_another_answer_are_asked(coarse: set[int]) -> None:
    around = {row * SIDE + column for row in (3, 4, 5) for column in (3, 4, 5)}
    for here in ([ONE, OTHER], [OTHER], []):
        assert asked(lambda row, column, here=here: here if (row, column) == (4, 4) else [ONE]) == coarse | around  # type: ignore[misc]
    shifted = (0, 0, 10, 9)  # IoU 0.9
    assert asked(lambda row, column: [shifted] if (row, column) == (4, 4) else [ONE]) == coarse


def test_a_point_on_something_of_another_colour_is_asked(coarse: set[int]) -> None:
    image = plain()
    image[53:57, 73:77] = (104, 100, 140)  # in the cell of row 5, column 7
    assert asked(lambda row, column: [ONE], image) == coarse | {5 * SIDE + 7}
    everywhere = plain()
    everywhere[::10] = 160  # a pattern that all cells have
    assert asked(lambda row, column: [ONE], everywhere) == coarse


def test_a_small_grid_and_one_of_the_callers_are_asked_in_their_order() -> None:
    for order in (GridOrder((SIDE - 1) ** 2, plain(), 0.7), GridOrder(1000, None, 0.7)):
        assert [index for batch in order.batches(64) for index in batch] == list(range(order.count))
