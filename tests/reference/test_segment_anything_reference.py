"""The stand-in for torchvision serves the import and leaves no trace; its four functions follow torchvision's rules."""

import sys

import numpy as np
import torch
from PIL import Image

from tests.reference.segment_anything_reference import batched_nms, box_area, load_reference, resize, to_pil_image


def test_the_reference_imports_and_leaves_no_torchvision_behind() -> None:
    reference = load_reference()
    assert reference is load_reference()
    assert {"vit_b", "vit_l", "vit_h"} <= set(reference.sam_model_registry)
    assert not any(name.split(".")[0] == "torchvision" for name in sys.modules)


def test_resize_takes_height_and_width_and_antialiases() -> None:
    stripes = np.zeros((40, 60, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(to_pil_image(stripes), (10, 15))
    assert isinstance(small, Image.Image) and small.size == (15, 10)
    grey = np.asarray(small)  # not aliased stripes
    assert grey.min() > 100 and grey.max() < 160


def test_suppression_is_strict_and_keeps_the_first_of_equals() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10], [50, 50, 50, 50], [50, 50, 50, 50]])
    scores = torch.tensor([0.5, 0.9, 0.5, 0.1, 0.1])
    # IoU of the first two is exactly one half: kept at 0.5, not at 0.49; 0 / 0 keeps both empty boxes.
    assert batched_nms(boxes, scores, torch.zeros(5), 0.5).tolist() == [1, 0, 3, 4]
    assert batched_nms(boxes, scores, torch.zeros(5), 0.49).tolist() == [1, 3, 4]
    assert box_area(boxes).tolist() == [100, 50, 100, 0, 0]
