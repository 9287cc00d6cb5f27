"""POST /everything's form and answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from boothsam.runtime.automatic import Mode, OutputMode, SamAutomaticMaskGenerator
from boothsam.runtime.model import SamModel
from boothsam.service import forms
from boothsam.service.forms import Form
from boothsam.service.schemas import EMBEDDING_FORM, Rle, Warning, _Closed
from pydantic import Field

MOST_PER_SIDE, MOST_LAYERS, MOST_MASKS = 64, 2, 1000
_RLE: tuple[OutputMode, ...] = ("coco_rle", "uncompressed_rle")
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_TEXTS: dict[str, dict[str, Any]] = {
    "mode": {"type": "string", "enum": list(get_args(Mode)), "default": "exact",
             "description": "exact: segment_anything's masks; fast: less time, masks near a threshold may come or go"},
    "points_per_side": {"type": "integer", "minimum": 1, "maximum": MOST_PER_SIDE, "default": 32,
                        "description": "a grid of so many points squared is asked"},
    "pred_iou_thresh": _SHARE | {"default": 0.88, "description": "masks predicted better are kept"},
    "stability_score_thresh": _SHARE | {"default": 0.95, "description": "masks at least as stable are kept"},
    "box_nms_thresh": _SHARE | {"default": 0.7, "description": "boxes that overlap more are duplicates"},
    "crop_n_layers": {"type": "integer", "minimum": 0, "maximum": MOST_LAYERS, "default": 0,
                      "description": "ask again on 4, 16 crops, for small objects"},
    "min_mask_region_area": {"type": "integer", "minimum": 0, "maximum": 1 << 31, "default": 0,
                             "description": "holes and islands of fewer pixels are mended"},
    "max_masks": {"type": "integer", "minimum": 1, "maximum": MOST_MASKS, "default": MOST_MASKS,
                  "description": "no more than the first ones"},
    "output_mode": {"type": "string", "enum": list(_RLE), "default": "coco_rle",
                    "description": "run lengths as text (pycocotools) or as numbers"},
}  # fmt: skip
FIELDS = tuple(_TEXTS)
FORM: dict[str, Any] = EMBEDDING_FORM | {
    "properties": {"image_file": EMBEDDING_FORM["properties"]["image_file"]} | _TEXTS
}


class CompressedRle(_Closed):
    """COCO's compressed run lengths."""

    size: tuple[int, int]
    counts: str


class EverythingMask(_Closed):
    """One mask, in segment_anything's keys; boxes are x, y, width, height in photo pixels."""

    segmentation: CompressedRle | Rle
    area: int
    bbox: tuple[float, float, float, float]
    predicted_iou: float
    point_coords: list[tuple[float, float]] = Field(description="the grid point that was asked")
    stability_score: float
    crop_box: tuple[float, float, float, float]


class EverythingAnswer(_Closed):
    """The answer to POST /everything."""

    request_id: str
    photo_sha256: str
    embedding_id: str = Field(description="for POST /embeddings/{id}/segment, while it is cached")
    size_hw: tuple[int, int]
    mode: Literal["exact", "fast"]
    masks: list[EverythingMask] = Field(description="by falling predicted IoU; with crops, smaller crops first")
    model: str
    backend: str
    precision: str
    ms: dict[str, float]
    warnings: list[Warning]


@dataclass(frozen=True)
class Options:
    """What was asked; fields as the generator calls them."""

    mode: Mode
    output_mode: OutputMode
    max_masks: int
    settings: dict[str, Any]

    @classmethod
    def read(cls, form: Form) -> Options:
        """From a form; what was not sent has segment_anything's default. Raises `invalid_field`."""
        settings: dict[str, Any] = {}
        for name, field in _TEXTS.items():
            if field["type"] == "string" or name == "max_masks":
                continue
            whole = field["type"] == "integer"
            value = forms.number(form, name, field["minimum"], field["maximum"], whole=whole)
            settings[name] = field["default"] if value is None else int(value) if whole else value
        return cls(
            cast("Mode", forms.choice(form, "mode", get_args(Mode), "exact")),
            cast("OutputMode", forms.choice(form, "output_mode", _RLE, _RLE[0])),
            forms.whole_number(form, "max_masks", 1, MOST_MASKS) or MOST_MASKS,
            settings,
        )

    def generator(self, model: SamModel) -> SamAutomaticMaskGenerator:
        """A generator with these options."""
        return SamAutomaticMaskGenerator(
            model, **self.settings, output_mode=self.output_mode, mode=self.mode, max_masks=self.max_masks
        )
