"""The questions that everything mode is asked in tests, and what the reference generator answered
(make_everything_answers.py wrote tests/data/everything.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.models.pictures import TEST_PICTURES, Scene, test_picture

ANSWERS = Path(__file__).parents[1] / "data" / "everything.json"


@dataclass(frozen=True)
class Case:
    """A picture and the generator's arguments; `clicks` puts a grid on the shapes instead of points_per_side."""

    picture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    clicks: bool = False

    @property
    def scene(self) -> Scene:
        """The drawn picture."""
        return test_picture(self.picture)

    def options(self) -> dict[str, Any]:
        """Keyword arguments for either generator."""
        if not self.clicks:
            return dict(self.arguments)
        return self.arguments | {"points_per_side": None, "point_grids": [click_grid(self.scene)]}


def click_grid(scene: Scene) -> npt.NDArray[np.float64]:
    """(n, 2) points from 0 to 1: one in each shape, and a coarse lattice, so that few prompts find many masks."""
    height, width = scene.image.shape[:2]
    clicks = np.array([scene.click_xy(i) for i in range(len(scene.masks))]) / (width, height)
    side = (np.arange(6) + 0.5) / 6
    lattice = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    return np.concatenate([clicks, lattice])


CASES = {name: Case(name, clicks=True) for name in TEST_PICTURES} | {
    "square": Case("square", {"points_per_side": 12}),
    "crops": Case(
        "large",
        {"points_per_side": 8, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2, "pred_iou_thresh": 0.8},
    ),
    "repaired": Case("square", {"min_mask_region_area": 150, "stability_score_thresh": 0.8}, clicks=True),
    "unfiltered": Case(
        "portrait", {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 0.9}
    ),
}


def recorded(name: str) -> list[dict[str, Any]]:
    """The reference generator's records for a case, `segmentation` as COCO run lengths."""
    answers: dict[str, list[dict[str, Any]]] = json.loads(ANSWERS.read_text())["answers"]
    return answers[name]
