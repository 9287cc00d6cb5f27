"""boothsam's own functions against the golden vectors that the original authors' code wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from boothsam.conformance import golden_vectors
from boothsam.runtime import masks, transforms

Case = Mapping[str, Any]
KINDS = golden_vectors()


def cases(kind: str) -> pytest.MarkDecorator:
    """Parametrise over the cases of one kind."""
    return pytest.mark.parametrize(
        "case", [pytest.param(c, id=n) for n, c in KINDS[kind].items() if n not in ("input", "weights")]
    )


def test_sizes_round_half_up() -> None:
    case = KINDS["sizes"]["all"]
    for original, expected in zip(case["original_hw"].tolist(), case["input_hw"].tolist(), strict=True):
        assert transforms.input_size(tuple(original)) == tuple(expected), original


@cases("resize")
def test_resize_to_the_last_bit(case: Case) -> None:
    resized = transforms.resize_longest_side(case["image"], int(case["image_size"]))
    assert np.array_equal(resized, case["resized"])


@cases("coordinates")
def test_coordinates_take_two_ratios(case: Case) -> None:
    hw = tuple(case["original_hw"].tolist())
    # The same double-precision products, rounded once to float32.
    assert np.array_equal(transforms.map_points(case["points"], hw), case["points_in_frame"])
    assert np.array_equal(transforms.map_boxes(case["boxes_xyxy"], hw), case["boxes_in_frame"])


@cases("tokens")
def test_tokens_and_labels_make_the_reference_embedding(case: Case) -> None:
    """The rule in NumPy, so that the vectors say what they mean; the graphs are asked in test_runtime.py."""
    weights = KINDS["tokens"]["weights"]
    turns = ((case["point_coords"] + 0.5) / 1024 * 2 - 1) @ weights["positions"] * 2 * np.pi
    position = np.concatenate([np.sin(turns), np.cos(turns)], -1)
    labels = case["point_labels"]
    expected = position * (labels >= 0)[..., None] + weights["label_embeddings"][labels + 1]
    # float32 sine of angles up to 30 radians
    np.testing.assert_allclose(case["sparse_embedding"], expected, atol=2e-5)
    np.testing.assert_array_equal(case["dense_embedding_00"], weights["no_mask"])


def test_normalising_pads_with_zeros() -> None:
    case = KINDS["normalise"]["small"]
    height, width = case["image"].shape[:2]
    normal = (case["image"] - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(case["frame_8x12"][:, :height, :width], normal.transpose(2, 0, 1), atol=1e-6)
    assert not case["frame_8x12"][:, height:].any() and not case["frame_8x12"][:, :, width:].any()


@cases("upscale")
def test_upscaling_in_two_steps(case: Case) -> None:
    low_res = KINDS["upscale"]["input"]["low_res"].astype(np.float32)
    hw, stride = tuple(case["original_hw"].tolist()), int(case["stride"])
    logits = transforms.upscale_logits(low_res, hw)
    # OpenCV rounds its interpolation weights to float32, PyTorch forms them anew: 1e-5 of logits up to 19.
    np.testing.assert_allclose(logits[::stride, ::stride], case["logits"], atol=1e-3)
    expected = masks.rle_to_mask({"size": list(hw), "counts": case["mask_counts"].tolist()})
    # Exact zeros on the way decide by rounding: the few pixels whose logit is within it.
    undecided = np.abs(logits) < 1e-4
    assert np.array_equal(transforms.upscale_mask(low_res, hw) & ~undecided, expected & ~undecided)
    assert undecided.mean() < 2e-3


@cases("rle")
def test_run_lengths_area_and_box(case: Case) -> None:
    rle = masks.mask_to_rle(case["mask"])
    assert rle == {"size": list(case["mask"].shape), "counts": case["counts"].tolist()}
    assert np.array_equal(masks.rle_to_mask(rle), case["mask"])
    assert masks.rle_area(rle) == int(case["area"])
    box = masks.mask_to_box(case["mask"])
    assert list(box) == case["box_xyxy"].tolist()
    assert list(masks.box_xyxy_to_xywh(box)) == case["box_xywh"].tolist()


@cases("stability")
def test_stability_score(case: Case) -> None:
    low_res = KINDS["upscale"]["input"]["low_res"].astype(np.float32)
    assert masks.stability_score(low_res, 0.0, float(case["offset"])) == pytest.approx(float(case["score"]), abs=1e-7)


@cases("regions")
def test_small_regions(case: Case) -> None:
    cleaned, changed = masks.remove_small_regions(case["mask"], float(case["area"]), str(case["mode"]))
    assert np.array_equal(cleaned, case["cleaned"]) and changed == bool(case["changed"])


@cases("nms")
def test_suppression_keeps_order_and_ties(case: Case) -> None:
    assert list(masks.nms(case["boxes_xyxy"], case["scores"], 0.7)) == case["kept"].tolist()


def test_the_file_is_small_and_complete() -> None:
    assert set(KINDS) == {
        "sizes",
        "resize",
        "coordinates",
        "tokens",
        "normalise",
        "upscale",
        "rle",
        "stability",
        "regions",
        "nms",
    }
    assert all(len(cases) > 0 for cases in KINDS.values())
