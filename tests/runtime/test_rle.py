"""Run lengths of a window and COCO's compressed form, against the whole mask's and pycocotools'."""

import numpy as np
import pytest
from boothsam.runtime import masks
from boothsam.runtime.errors import OptionError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

any_mask = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))


@given(any_mask, st.tuples(*[st.integers(0, 3)] * 4))
def test_a_windows_run_lengths_are_the_whole_masks(window: np.ndarray, margins: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = margins
    whole = np.pad(window, ((top, bottom), (left, right)))
    assert masks.window_to_rle(window, (left, top), whole.shape) == masks.mask_to_rle(whole)


def test_a_window_must_lie_in_the_mask() -> None:
    assert masks.window_to_rle(np.zeros((0, 0), bool), (0, 0), (2, 3)) == {"size": [2, 3], "counts": [6]}
    with pytest.raises(OptionError, match="a window of 2x1 pixels at 2,0 leaves the mask of 3x2"):
        masks.window_to_rle(np.ones((1, 2), bool), (2, 0), (2, 3))


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # pycocotools' own
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=12))
def test_compressed_run_lengths_are_pycocotools(counts: list[int]) -> None:
    rle: masks.Rle = {"size": [sum(counts), 1], "counts": counts}
    theirs = coco.frPyObjects({"size": rle["size"], "counts": list(counts)}, sum(counts), 1)
    assert masks.compress_rle(rle)["counts"] == theirs["counts"].decode()


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 4), max_size=20), st.floats(0, 1))
def test_nms_keeps_what_pairwise_comparison_keeps(corners: list[tuple[int, int, int, int]], threshold: float) -> None:
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners], float).reshape(-1, 4)
    scores = np.arange(len(boxes)) % 3
    ious, kept = masks.box_iou(boxes, boxes), []
    for index in np.argsort(-scores, kind="stable").tolist():
        if all(ious[index, other] <= threshold for other in kept):
            kept.append(index)
    assert masks.nms(boxes, scores, threshold) == kept


def test_nms_of_many_boxes_comes_in_steps() -> None:
    corner = np.arange(1000.0)[:, None] * 2
    boxes = np.concatenate([corner, corner, corner + 1, corner + 1], 1)  # all apart
    assert sum(1 for _ in masks.nms_steps(boxes, np.ones(1000), 0.7)) >= 5
    assert masks.nms(boxes, np.ones(1000), 0.7) == list(range(1000))
