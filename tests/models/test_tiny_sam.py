"""The tiny SAM is a real one: it finds the shapes, everything mode finds masks, and its outlier variant breaks FP16."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from boothsam.export.architectures.config import resolve_config
from numpy.typing import NDArray

from tests.models.outliers import make_outlier
from tests.models.pictures import TEST_PICTURES, Scene, test_picture
from tests.models.tiny_sam import CHECKPOINT, CONFIG, load_tiny_sam
from tests.reference.segment_anything_reference import load_reference

FP16_MAX = 65504


@pytest.fixture(scope="module")
def sam() -> Any:
    torch.set_num_threads(1)
    return load_tiny_sam()


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks that are not both empty."""
    return float((a & b).sum() / (a | b).sum())


def test_checkpoint_is_small_and_its_configuration_exports() -> None:
    assert CHECKPOINT.stat().st_size <= 4 << 20
    assert resolve_config(str(CONFIG)).to_dict() == json.loads(CONFIG.read_text()) | {
        "encoder": json.loads(CONFIG.read_text())["encoder"] | {"global_attn_indexes": (1,)}
    }


def test_pictures_are_drawn_to_the_bit() -> None:
    scene = test_picture("square")
    again = test_picture("square")
    assert np.array_equal(scene.image, again.image) and scene.parents == again.parents
    assert all(mask.any() and not mask.all() for mask in scene.masks)


@pytest.mark.parametrize("name", ["landscape", "portrait", "square"])
def test_boxes_and_clicks_find_the_shapes(sam: Any, name: str) -> None:
    scene: Scene = test_picture(name)
    predictor = load_reference().SamPredictor(sam)
    predictor.set_image(scene.image)
    by_box, by_click, errors = [], [], []
    for index, mask in enumerate(scene.masks):
        found, _, _ = predictor.predict(box=scene.box_xyxy(index), multimask_output=False)
        by_box.append(iou(found[0], mask))
        click = scene.click_xy(index)[None]
        found, scores, _ = predictor.predict(point_coords=click, point_labels=np.array([1]))
        ious = [iou(m, mask) for m in found]
        by_click.append(max(ious))
        errors.append(abs(float(scores.max()) - ious[int(scores.argmax())]))
    assert np.median(by_box) > 0.9 and np.median(by_click) > 0.9, (np.round(by_box, 2), np.round(by_click, 2))
    assert np.median(errors) < 0.1


def everything(sam: Any, scene: Scene, points_per_side: int) -> list[dict[str, Any]]:
    """The original authors' generator with its default thresholds; small batches, for memory."""
    generator = load_reference().SamAutomaticMaskGenerator(sam, points_per_side=points_per_side, points_per_batch=16)
    records: list[dict[str, Any]] = generator.generate(scene.image)
    return records


def shapes_found(records: list[dict[str, Any]], scene: Scene) -> int:
    """How many drawn shapes a mask covers with IoU above 0.8."""
    return sum(any(iou(r["segmentation"], mask) > 0.8 for r in records) for mask in scene.masks)


def test_everything_mode_finds_ten_masks(sam: Any) -> None:
    scene = test_picture("square")
    records = everything(sam, scene, 12)
    assert len(records) >= 10
    assert shapes_found(records, scene) >= len(scene.masks) // 3


@pytest.mark.slow
@pytest.mark.parametrize("name", TEST_PICTURES)
def test_everything_mode_finds_ten_masks_in_every_picture(sam: Any, name: str) -> None:
    scene = test_picture(name)
    records = everything(sam, scene, 16)
    assert len(records) >= 10
    assert shapes_found(records, scene) >= len(scene.masks) // 3


@contextmanager
def watching(module: torch.nn.Module, rounded: bool) -> Iterator[list[float]]:
    """Each submodule's largest absolute output; `rounded` also rounds it to float16, as a plain FP16 engine would."""
    peaks: list[float] = []

    def look(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            peaks.append(float(output.abs().max()))
            return output.half().float() if rounded else output
        return None

    handles = [m.register_forward_hook(look) for m in module.modules() if not list(m.children())]
    try:
        yield peaks
    finally:
        for handle in handles:
            handle.remove()


def box_masks(sam: Any, scene: Scene) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """(n, H, W) masks and (n, 256, 256) logits of the first shapes, by box."""
    predictor = load_reference().SamPredictor(sam)
    predictor.set_image(scene.image)
    answers = [predictor.predict(box=scene.box_xyxy(i), multimask_output=False) for i in range(4)]
    return np.concatenate([a[0] for a in answers]), np.concatenate([a[2] for a in answers])


def test_outlier_variant_is_the_same_function_but_not_in_fp16(sam: Any) -> None:
    scene = test_picture("square")
    outlier = copy.deepcopy(sam)
    outlier.load_state_dict(make_outlier(sam.state_dict()), strict=True)
    expected, expected_logits = box_masks(sam, scene)
    with watching(outlier, rounded=False) as peaks:
        found, logits = box_masks(outlier, scene)
    assert np.array_equal(logits, expected_logits) and np.array_equal(found, expected)
    assert max(peaks) > FP16_MAX
    with watching(sam, rounded=True) as peaks:
        rounded, _ = box_masks(sam, scene)
    assert max(peaks) < FP16_MAX
    assert min(iou(a, b) for a, b in zip(rounded, expected, strict=True)) > 0.98
    with watching(outlier, rounded=True):
        broken, _ = box_masks(outlier, scene)
    assert max(iou(a, b) for a, b in zip(broken, expected, strict=True)) < 0.5
