"""Where everything mode asks: point grids, crops of the photo, and which boxes a crop has cut (segment_anything's
utils/amg.py). Boxes are XYXY in photo pixels."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
from boothsam.runtime.errors import OptionError
from boothsam.runtime.transforms import Size

Box = tuple[int, int, int, int]
PointGrid = npt.NDArray[np.float64]

EDGE_PIXELS = 20.0


def point_grid(points_per_side: int) -> PointGrid:
    """(n * n, 2) points (x, y) in the unit square, the middles of n x n cells, row by row."""
    offset = 1 / (2 * points_per_side)
    side = np.linspace(offset, 1 - offset, points_per_side)
    x, y = np.meshgrid(side, side)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def layer_grids(points_per_side: int, crop_n_layers: int, downscale_factor: float) -> list[PointGrid]:
    """The grid of each crop layer, the whole photo's first; layer i has points_per_side / downscale_factor ** i.

    Raises:
        OptionError: a layer would have no point.
    """
    sides = [int(points_per_side / downscale_factor**layer) for layer in range(crop_n_layers + 1)]
    if min(sides) < 1:
        raise OptionError(
            f"crop layer {sides.index(min(sides))} has no point: points_per_side={points_per_side}, "
            f"crop_n_points_downscale_factor={downscale_factor}",
            hint="raise points_per_side, or lower crop_n_points_downscale_factor or crop_n_layers",
        )
    return [point_grid(side) for side in sides]


def crop_boxes(photo_hw: Size, crop_n_layers: int, overlap_ratio: float) -> list[tuple[Box, int]]:
    """The whole photo, then 2^i x 2^i overlapping crops for each layer i, column by column; with the layer's number.

    overlap_ratio: of the shorter side, in the first layer; halved with each further one.
    """
    height, width = photo_hw
    boxes: list[tuple[Box, int]] = [((0, 0, width, height), 0)]
    for layer in range(1, crop_n_layers + 1):
        crops = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / crops))
        crop_w = math.ceil((overlap * (crops - 1) + width) / crops)
        crop_h = math.ceil((overlap * (crops - 1) + height) / crops)
        for column, row in product(range(crops), range(crops)):
            x0, y0 = (crop_w - overlap) * column, (crop_h - overlap) * row
            x1, y1 = min(x0 + crop_w, width), min(y0 + crop_h, height)
            if x0 < x1 and y0 < y1:  # a photo of fewer pixels than crops: the reference fails on an empty one
                boxes.append(((x0, y0, x1, y1), layer))
    return boxes


def near_crop_edge(
    boxes_xyxy: npt.NDArray[np.floating], crop_xyxy: Box, photo_hw: Size, tolerance: float = EDGE_PIXELS
) -> npt.NDArray[np.bool_]:
    """(n,) whether a side of a box lies within `tolerance` pixels of the crop's side where that is not the photo's:
    the object probably goes on beyond it."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    photo = np.array([0, 0, photo_hw[1], photo_hw[0]], np.float64)
    at_crop = np.abs(boxes - np.array(crop_xyxy, np.float64)) <= tolerance
    at_photo = np.abs(boxes - photo) <= tolerance
    return np.asarray((at_crop & ~at_photo).any(axis=1))
