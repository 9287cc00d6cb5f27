"""boothsam.runtime.masks on hand-made masks, and against pycocotools where the format is COCO's."""

import numpy as np
import pytest
from boothsam.runtime import masks
from boothsam.runtime.errors import OptionError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

any_mask = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))


def draw(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


@given(any_mask)
def test_rle_round_trip(mask: np.ndarray) -> None:
    rle = masks.mask_to_rle(mask)
    assert np.array_equal(masks.rle_to_mask(rle), mask)
    assert masks.rle_area(rle) == mask.sum()


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # pycocotools' own
@given(any_mask)
def test_rle_is_what_pycocotools_reads(mask: np.ndarray) -> None:
    rle = masks.mask_to_rle(mask)
    assert np.array_equal(coco.decode(coco.frPyObjects(rle, *rle["size"])), mask)


def test_rle_is_column_major_and_starts_with_zeros() -> None:
    assert masks.mask_to_rle(draw("#.", "##")) == {"size": [2, 2], "counts": [0, 2, 1, 1]}
    with pytest.raises(OptionError, match="add up to 5, expected 4"):
        masks.rle_to_mask({"size": [2, 2], "counts": [2, 3]})


@pytest.mark.parametrize(
    ("mask", "box"),
    [
        (draw("...", ".##", "..."), (1, 1, 2, 1)),
        (draw("..", ".."), (0, 0, 0, 0)),
        (draw("#"), (0, 0, 0, 0)),
        (draw("..#"), (2, 0, 2, 0)),
    ],
)
def test_box_includes_the_last_pixel(mask: np.ndarray, box: tuple[int, ...]) -> None:
    assert masks.mask_to_box(mask) == box


def test_iou() -> None:
    a, b = draw("##.", "..."), draw(".##", "...")
    assert masks.mask_iou(a, b) == pytest.approx(1 / 3)
    assert masks.mask_iou(a & ~a, b & ~b) == 1.0
    assert masks.mask_iou(a, a & ~a) == 0.0


def test_boundary_iou_sees_what_mask_iou_forgives() -> None:
    big = np.zeros((200, 200), bool)
    big[20:180, 20:180] = True
    ragged = big.copy()
    ragged[20:180:4, 20:24] = False
    assert masks.mask_iou(big, ragged) > 0.99
    assert masks.boundary_iou(big, ragged) < masks.mask_iou(big, ragged) - 0.02
    assert masks.boundary_iou(big, big) == 1.0


def test_boundary_iou_counts_the_picture_border_as_a_rim() -> None:
    full = np.ones((50, 50), bool)
    assert 0 < masks._rim(full, 2).sum() < full.size


def test_stability_score() -> None:
    logits = np.array([[2.0, 0.5, -0.5, -2.0]])
    assert masks.stability_score(logits) == pytest.approx(1 / 3)
    assert masks.stability_score(np.full((2, 3, 3), -9.0)).tolist() == [0, 0]


def test_nms_keeps_the_best_of_each_heap() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]])
    assert masks.nms(boxes, np.array([0.5, 0.9, 0.1]), 0.7) == [1, 2]
    assert masks.nms(boxes, np.array([0.5, 0.9, 0.1]), 0.9) == [1, 0, 2]


@given(st.integers(1, 40))
def test_small_regions(area: int) -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True  # 100 pixels with a hole of 4
    mask[5:7, 5:7] = False
    mask[15:18, 15:18] = True  # an island of 9
    filled, changed = masks.remove_small_regions(mask, area, "holes")
    assert changed == (area > 4) and filled[5, 5] == (area > 4)
    kept, changed = masks.remove_small_regions(mask, area, "islands")
    assert changed == (area > 9) and kept[16, 16] == (area <= 9)


def test_the_largest_island_stays_when_all_are_small() -> None:
    kept, changed = masks.remove_small_regions(draw("#....", "...##", "....."), 99, "islands")
    assert changed and kept.sum() == 2
    empty, changed = masks.remove_small_regions(draw("..", ".."), 99, "islands")
    assert not changed and not empty.any()
    with pytest.raises(OptionError, match="holes"):
        masks.remove_small_regions(draw("#"), 1, "specks")
