"""Golden vectors of SAM's rules, function by function: inputs and what the original authors' code answers.

Kinds, and the fields of each case in data/vectors.npz (written by tests/conformance/make_vectors.py):
    sizes        original_hw (n, 2) -> input_hw (n, 2): the longest side becomes 1024, halves round up
    resize       image uint8, image_size -> resized uint8: Pillow's antialiased bilinear filter, to the last bit
    coordinates  original_hw, points (n, 2), boxes_xyxy (n, 4) -> points_in_frame, boxes_in_frame float32: two ratios
    tokens       points, labels, box_xyxy in frame pixels -> point_coords, point_labels (1, N) with corners and padding
                 point, and the embeddings made of them from tokens/weights (label_embeddings for -1, 0 ... 3)
    normalise    image uint8 -> frame_8x12 float32: the corner of the frame that holds it, zeros to the right and below
    upscale      input/low_res (256, 256) -> logits (every `stride`th) and mask_counts (RLE of > 0) at original_hw
    rle          mask -> counts (column-major, zeros first), area, box_xyxy (last pixel inside; empty: zeros), box_xywh
    stability    upscale/input/low_res, offset -> score
    regions      mask, area, mode -> cleaned, changed
    nms          boxes_xyxy, scores -> kept at IoU threshold 0.7
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

VECTORS = Path(__file__).with_name("data") / "vectors.npz"
Case = MappingProxyType[str, npt.NDArray[Any]]


@cache
def golden_vectors() -> MappingProxyType[str, MappingProxyType[str, Case]]:
    """kind -> case -> field -> array."""
    kinds: dict[str, dict[str, dict[str, npt.NDArray[Any]]]] = {}
    with np.load(VECTORS) as file:
        for key in file.files:
            kind, case, field = key.split("/")
            kinds.setdefault(kind, {}).setdefault(case, {})[field] = file[key]
    return MappingProxyType(
        {
            kind: MappingProxyType({case: MappingProxyType(f) for case, f in cases.items()})
            for kind, cases in kinds.items()
        }
    )
