"""The shapes of the service's JSON, and of its forms, as OpenAPI shows them.

Words and units are the command line's: boxes are x0, y0, x1, y1 in pixels of the photo after its EXIF rotation, x1 and
y1 exclusive; sizes are [height, width]; times are milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from boothsam.service.http_prompts import MAX_COORDINATE, MAX_POINTS
from pydantic import BaseModel, ConfigDict, Field

Box = tuple[float, float, float, float]
_Coordinate = Annotated[float, Field(ge=-MAX_COORDINATE, le=MAX_COORDINATE, allow_inf_nan=False)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """RFC 9457, with a stable code."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    instance: str = Field(description="the request's id, as in X-Request-ID and the log")


class Rle(_Closed):
    """COCO's uncompressed run lengths: column-major, the first run counts zeros."""

    size: tuple[int, int]
    counts: list[int]


class Candidate(_Closed):
    """One of several objects that the prompt may mean."""

    iou_prediction: float
    box_xyxy: Box
    rle: Rle


class RetakeReason(_Closed):
    """A check that failed."""

    code: Literal["blur", "clipped_highlights", "touches_border", "low_agreement"]
    value: float
    limit: float
    advice: str


class Retake(_Closed):
    """Whether the photo should be taken again while the product still stands there."""

    retake: bool
    reasons: list[RetakeReason]
    measures: dict[str, float]


class Product(_Closed):
    """One product picture.

    predicted_iou is the model's own estimate of its mask, agreement that of the automatic prompts.
    """

    picture_b64: str
    media_type: str
    size_hw: tuple[int, int]
    etag: str
    product_xyxy: Box
    window_xyxy: Box
    predicted_iou: float
    stability_score: float
    agreement: float | None
    prompt: dict[str, Any] = Field(description="the prompt as understood; for auto: what was found and why")
    ambiguous: bool
    candidates: list[Candidate] = Field(description="other readings of an ambiguous prompt, best first")
    rivals_xyxy: list[Box] = Field(description="auto: other objects that could as well be the main product")
    rle: Rle = Field(description="pixels of the photo that are at least half product")
    retake: Retake


class Warning(_Closed):
    """Something that did not stop the request."""

    message: str
    hint: str


class CropAnswer(_Closed):
    """The answer to POST /crop with `Accept: application/json`."""

    request_id: str
    photo_sha256: str
    embedding_id: str = Field(description="for POST /embeddings/{id}/segment, while it is cached")
    size_hw: tuple[int, int]
    products: list[Product]
    model: str
    backend: str
    precision: str
    ms: dict[str, float]
    warnings: list[Warning]


class EmbeddingAnswer(_Closed):
    """The answer to POST /embeddings."""

    id: str = Field(description="content hash of upload, model and precision")
    size_hw: tuple[int, int]
    cached: bool
    nbytes: int
    model: str
    precision: str
    ms: dict[str, float]


class SegmentQuestion(_Closed):
    """A prompt on a photo that was sent before."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"points": [[300, 200]], "labels": [1]}, {"box": [120, 80, 480, 320]}]},
    )
    points: list[tuple[_Coordinate, _Coordinate]] = Field([], max_length=MAX_POINTS, description="x, y in photo pixels")
    labels: list[Literal[0, 1]] = Field(
        [], max_length=MAX_POINTS, description="1 product, 0 background; none: all product"
    )
    box: tuple[_Coordinate, _Coordinate, _Coordinate, _Coordinate] | None = Field(
        None, description="x0, y0, x1, y1 in photo pixels"
    )
    mask_input: str | None = Field(
        None, max_length=64, description="logits_id of an earlier mask of this photo, to refine it"
    )
    multimask: bool = Field(True, description="three candidates, or one mask")
    format: Literal["rle", "png"] = Field("rle", description="how masks are written in JSON")


class Mask(_Closed):
    """One mask; either rle or png_b64 is set."""

    iou_prediction: float
    stability_score: float
    box_xyxy: Box
    area: int
    logits_id: str | None = Field(description="for mask_input; null when the cache keeps nothing")
    rle: Rle | None = None
    png_b64: str | None = None


class SegmentAnswer(_Closed):
    """Masks in the model's order; `best` is the index of the highest iou_prediction."""

    id: str
    size_hw: tuple[int, int]
    masks: list[Mask]
    best: int
    ambiguous: list[int] = Field(description="indices about as good as the best, best first")
    ms: dict[str, float]


class Ready(BaseModel):
    """What answers, and how it was proven."""

    ready: bool
    state: Literal["loading", "proving", "ready", "draining", "failed"]
    reason: str
    boothsam: str
    model: str
    model_key: str
    backend: str
    precision: str
    proof: dict[str, Any]
    engine: dict[str, Any]
    queue: dict[str, int]


_FILE = {"type": "string", "format": "binary"}
_TEXTS: dict[str, dict[str, Any]] = {
    "box": {"type": "array", "items": {"type": "string"}, "example": ["120,80,480,320"],
            "description": "x0,y0,x1,y1 in photo pixels; repeat for several products (JSON answers only)"},
    "points": {"type": "array", "items": {"type": "string"}, "example": ["300,200"],
               "description": "x,y in photo pixels; repeat, or separate by ;"},
    "labels": {"type": "array", "items": {"type": "string"}, "example": ["1"],
               "description": "one per point: 1 product, 0 background; repeat, or separate by , or ;. Default: all 1"},
    "boxes": {"type": "string", "example": "[[120,80,480,320]]",
              "description": "JSON list of boxes, for several products (JSON answers only)"},
    "background": {"type": "string", "example": "white",
                   "description": "transparent (default), white, black, grey or #rrggbb"},
    "fill": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "example": 0.85,
             "description": "share of the canvas that the product spans on its tighter side"},
    "margin": {"type": "integer", "minimum": 0, "description": "pixels that stay free on each side"},
    "size": {"type": "integer", "minimum": 1, "maximum": 7071, "example": 2000,
             "description": "side of a square canvas in pixels"},
    "format": {"type": "string", "enum": ["png", "jpg", "webp"], "default": "png"},
    "quality": {"type": "integer", "minimum": 1, "maximum": 100, "default": 92, "description": "of JPEG and WebP"},
    "shadow": {"type": "string", "enum": ["none", "drop"], "default": "none"},
    "fill_holes": {"type": "string", "enum": ["true", "false"], "description": "close small holes in the product"},
    "drop_islands": {"type": "string", "enum": ["true", "false"], "description": "drop small pieces apart from it"},
    "small_area": {"type": "integer", "minimum": 1, "description": "what is small for these two, in photo pixels"},
}  # fmt: skip
CROP_FIELDS, CROP_FILES = tuple(_TEXTS), ("image_file", "background_file")
CROP_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["image_file"],
    "additionalProperties": False,
    "properties": {
        "image_file": _FILE | {"description": "the photo: JPEG, PNG or WebP"},
        "background_file": _FILE | {"description": "a picture as background, scaled to cover the canvas"},
    }
    | _TEXTS,
}
EMBEDDING_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["image_file"],
    "additionalProperties": False,
    "properties": {"image_file": CROP_FORM["properties"]["image_file"]},
}
_REMOVEBG_TEXTS: dict[str, dict[str, Any]] = {
    "image_file_b64": {"type": "string", "description": "the photo in base64"},
    "image_url": {"type": "string", "description": "refused: this service fetches nothing"},
    "size": {"type": "string", "default": "preview", "example": "auto",
             "description": "preview, small, regular: 0.25 megapixels; medium 1.5; hd 4; full, 4k, auto: 25; 50MP"},
    "type": {"type": "string", "description": "ignored: every product is one"},
    "format": {"type": "string", "enum": ["auto", "png", "jpg", "webp", "zip"], "default": "auto"},
    "roi": {"type": "string", "description": "x1 y1 x2 y2 in px or %: the product is looked for inside"},
    "crop": {"type": "string", "enum": ["true", "false"], "default": "false"},
    "crop_margin": {"type": "string", "example": "10px", "description": "1, 2 or 4 values in px or %"},
    "scale": {"type": "string", "default": "original", "description": "10% to 100%, or original"},
    "position": {"type": "string", "default": "original", "description": "original, center, or x% y%"},
    "channels": {"type": "string", "enum": ["rgba", "alpha"], "default": "rgba"},
    "bg_color": {"type": "string", "example": "ffffff", "description": "3, 4, 6 or 8 hex digits, or a colour's name"},
    "bg_image_url": {"type": "string", "description": "refused: this service fetches nothing"},
    "add_shadow": {"type": "string", "enum": ["true", "false"], "default": "false"},
    "shadow_opacity": {"type": "integer", "minimum": 0, "maximum": 100, "description": "percent; at most 49 is used"},
}  # fmt: skip
REMOVEBG_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"image_file": _FILE, "bg_image_file": _FILE} | _REMOVEBG_TEXTS,
}
REMOVEBG_JSON: dict[str, Any] = {"type": "object", "properties": _REMOVEBG_TEXTS}
