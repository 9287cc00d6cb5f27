"""The questions of the kit: drawn pictures and prompts, each aimed at a rule that existing SAM runtimes break.

The rules and the runtimes are listed in docs/conformance.md; `catches` names the drift as tests/conformance/drifts.py
implements it, with the projects seen doing it in brackets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from boothsam.conformance.pictures import Scene, draw_scene


@dataclass(frozen=True)
class Picture:
    """How to draw one of the kit's pictures: arguments of `draw_scene`."""

    seed: int
    size_hw: tuple[int, int]
    count: int
    radius: tuple[int, int]
    hatch: int = 0


PICTURES = {
    "landscape": Picture(101, (480, 640), 12, (30, 70)),
    "portrait_2_3": Picture(102, (600, 400), 10, (28, 60)),
    "square": Picture(103, (512, 512), 10, (30, 60)),
    "wide_3_1": Picture(104, (312, 1000), 10, (30, 60)),
    "tiny_64": Picture(105, (64, 64), 3, (9, 15)),
    "large_portrait": Picture(106, (1200, 800), 10, (64, 128)),
    "hatched": Picture(107, (1100, 1467), 10, (90, 160), hatch=60),
}


@cache
def scene(picture: str) -> Scene:
    """The drawn picture of that name."""
    p = PICTURES[picture]
    return draw_scene(p.seed, p.size_hw, count=p.count, radius=p.radius, hatch=p.hatch)


@dataclass(frozen=True)
class Ask:
    """One call of `predict`: clicks on or beside drawn objects, a box around one, masks of the call before.

    clicks: object indices to click, each on its own pixel nearest its middle; a negative number -1-i clicks object i
    with label 0. box: object index. spread: add this many more positive clicks along the first object's middle row.
    refine: feed back the previous call's low-res logits of the best score. single: multimask_output=False.
    """

    clicks: tuple[int, ...] = ()
    box: int | None = None
    spread: int = 0
    refine: bool = False
    single: bool = False

    def arguments(self, drawn: Scene) -> dict[str, Any]:
        """Keyword arguments of SamPredictor.predict, without mask_input."""
        arguments: dict[str, Any] = {"multimask_output": not self.single}
        if self.clicks:
            indices = [i if i >= 0 else -1 - i for i in self.clicks]
            coords = [drawn.click_xy(i) for i in indices]
            labels = [int(i >= 0) for i in self.clicks]
            if self.spread:
                row = int(coords[0][1])
                columns = np.flatnonzero(drawn.masks[indices[0]][row])
                picked = columns[np.linspace(0, len(columns) - 1, self.spread + 2).astype(int)[1:-1]]
                coords += [np.array([x, row], np.float64) for x in picked]
                labels += [1] * self.spread
            arguments |= {"point_coords": np.array(coords), "point_labels": np.array(labels)}
        if self.box is not None:
            arguments["box"] = drawn.box_xyxy(self.box)
        return arguments


@dataclass(frozen=True)
class Case:
    """Calls in sequence on one picture after one `set_image`, and the drifts that this case exists for."""

    name: str
    picture: str
    asks: tuple[Ask, ...]
    rule: str
    catches: tuple[str, ...]


CASES = (
    Case(
        "click", "landscape", (Ask((0,)),),
        "one padding point (label -1) follows a click, half a pixel is added, no mask is no_mask_embed, pixels are RGB",
        ("no_padding_point", "has_mask_minus_one", "bgr", "no_half_pixel", "one_mask_for_multimask", "argmax_of_four"),
    ),
    Case(
        "box", "landscape", (Ask(box=1, single=True),),
        "a box alone takes no padding point", ("padding_with_box", "no_box_argument"),
    ),
    Case(
        "box_multimask", "landscape", (Ask(box=2),),
        "multimask_output=True gives tokens 1 to 3, unsorted, for a box too",
        ("single_mask_by_count", "argmax_of_four"),
    ),
    Case(
        "box_and_click", "landscape", (Ask((-1,), box=0, single=True),),
        "points come with a box's corners and no padding point", ("padding_with_box",),
    ),
    Case(
        "two_clicks", "landscape", (Ask((3, -5), single=True),),
        "several points take no mask prompt unless one is given", ("zero_mask_with_points", "no_padding_point"),
    ),
    Case(
        "ten_clicks", "landscape", (Ask((1,), spread=9, single=True),),
        "any number of points, none dropped, none padded further", ("six_points",),
    ),
    Case(
        "click_single", "landscape", (Ask((4,), single=True),),
        "multimask_output=False gives token 0, whatever scores best", ("argmax_of_four", "single_mask_by_count"),
    ),
    Case(
        "refine", "landscape", (Ask((1,)), Ask((1,), refine=True, single=True)),
        "mask_input is the earlier call's logits, not a 0/1 mask", ("mask_as_binary", "no_mask_input"),
    ),
    Case(
        "sequence", "landscape", (Ask((0,)), Ask((3,)), Ask(box=1, single=True), Ask((0,))),
        "no call leaves anything behind for the next", ("points_list_shared",),
    ),
    Case(
        "portrait", "portrait_2_3", (Ask((1,)), Ask(box=1, single=True)),
        "the longest side becomes 1024, halves round up, padding is right and below",
        ("canvas_684x1024", "squash", "truncated_size", "black_padding"),
    ),
    Case(
        "square", "square", (Ask((0,)), Ask(box=1, single=True)),
        "a square photo fills the whole frame", ("canvas_684x1024",),
    ),
    Case(
        "wide", "wide_3_1", (Ask((0,)), Ask(box=0, single=True), Ask((7,)), Ask(box=10)),
        "x and y are scaled by two ratios of rounded sizes", ("single_scale", "squash"),
    ),
    Case(
        "tiny", "tiny_64", (Ask((0,)), Ask(box=0, single=True)),
        "small photos are enlarged to 1024 too, bilinearly", ("bicubic", "never_enlarge"),
    ),
    Case(
        "large", "large_portrait", (Ask((0,)), Ask(box=1, single=True), Ask((2,))),
        "masks are upscaled in two steps, 256 to 1024, then the crop to the photo; set where the logit is > 0",
        ("one_step_upscale", "threshold_half", "truncated_size"),
    ),
    Case(
        "hatched", "hatched", (Ask((0,)), Ask(box=1, single=True)),
        "shrinking antialiases (Pillow's bilinear filter)", ("no_antialias",),
    ),
)  # fmt: skip
