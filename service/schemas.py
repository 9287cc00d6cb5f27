"""The shapes of the service's JSON, and of its forms, as OpenAPI shows them.

Words and units are the command line's: boxes are x0, y0, x1, y1 in pixels of the photo after its EXIF rotation, x1 and
y1 exclusive; sizes are [height, width]; times are milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from boothsam.service.http_prompts import MAX_COORDINATE, MAX_POINTS
from boothsam.service.presets.preset import preset_names
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


class RuleFinding(_Closed):
    """What the check of one rule says; passed is null where it could not be measured."""

    rule: str
    level: Literal["must", "should"]
    passed: bool | None
    found: str
    wanted: str
    mend: str
    source: str
    checked: str
    secondary: bool


class PresetReport(_Closed):
    """The picture against its preset. fill: share of the width or height that the product spans."""

    preset: str
    name: str
    passed: bool
    fill: float | None
    findings: list[RuleFinding]


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
    check: PresetReport | None = Field(None, description="with a preset: what each of its rules found")


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

    id: str = Field(description="content hash of upload, model, precision and resize")
    size_hw: tuple[int, int]
    cached: bool
    nbytes: int
    photo_kept: bool = Field(description="whether the photo lies beside it, for cut-outs, captures and barcodes")
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
    mask_max_side: int | None = Field(
        None, ge=1, le=16384, description="longest side at which masks are written, for a display; default: the photo's"
    )


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
    mask_size_hw: tuple[int, int] = Field(description="of rle and png; boxes and areas are in photo pixels")
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
    resize: Literal["exact", "fast"]
    proof: dict[str, Any]
    engine: dict[str, Any]
    queue: dict[str, int]


class CodeFound(_Closed):
    """One barcode."""

    text: str = Field(description="GS1 codes with their application identifiers in brackets")
    format: str = Field(description="such as EAN-13, QR Code")
    valid: bool | None = Field(description="whether the check digit of its GTIN is right; null: it holds none")
    gtin14: str | None = Field(description="the GTIN with leading zeros; null: none, or not valid")
    quad_xy: list[tuple[float, float]] = Field(
        min_length=4, max_length=4, description="its corners in photo pixels, from its own top left, clockwise"
    )


class CodesAnswer(_Closed):
    """The answer to POST /codes."""

    codes: list[CodeFound] = Field(description="those with a valid GTIN first")
    ms: dict[str, float]


class EngineState(_Closed):
    """What is known about a device engine. progress: 0 to 1 while it is being built."""

    state: Literal["none", "building", "ready", "failed"]
    progress: float | None


class CapturesState(_Closed):
    """How the captures do. reason: why they cannot be read, or empty."""

    waiting: int = Field(description="still to be forwarded")
    failed: int = Field(description="refused by the target, parked")
    disk_low: bool
    free_bytes: int
    forwarding: bool = Field(description="whether captures are forwarded at all")
    reason: str


class PlateState(_Closed):
    """The picture of the empty booth."""

    taken_at: str = Field(description="UTC, ISO 8601")
    size_hw: tuple[int, int]


class KioskStatus(_Closed):
    """What the kiosk's page shows of the service."""

    state: Literal["loading", "proving", "ready", "building", "draining", "failed"]
    reason: str
    engine: EngineState
    model: str
    boothsam: str
    queue: dict[str, int]
    captures: CapturesState | None = Field(description="null: this service keeps none")
    plate: PlateState | None
    annotate: bool = Field(description="whether a folder is being annotated at /annotate")
    presets: list[str]
    codes: bool = Field(description="whether barcodes can be read from photos")


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
    "plate": {"type": "string", "enum": ["true", "false"],
              "description": "find the product by what differs from PUT /plate's picture of the empty booth"},
    "background": {"type": "string", "example": "white",
                   "description": "transparent (default), white, black, grey or #rrggbb"},
    "fill": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "example": 0.85,
             "description": "share of the canvas that the product spans on its tighter side"},
    "margin": {"type": "integer", "minimum": 0, "description": "pixels that stay free on each side"},
    "size": {"type": "integer", "minimum": 1, "maximum": 7071, "example": 2000,
             "description": "side of a square canvas in pixels"},
    "format": {"type": "string", "enum": ["png", "jpg", "webp"], "default": "png"},
    "quality": {"type": "integer", "minimum": 1, "maximum": 100, "default": 92, "description": "of JPEG and WebP"},
    "shadow": {"type": "string", "enum": ["none", "drop", "contact", "cast"], "default": "none"},
    "fill_holes": {"type": "string", "enum": ["true", "false"], "description": "close small holes in the product"},
    "drop_islands": {"type": "string", "enum": ["true", "false"], "description": "drop small pieces apart from it"},
    "small_area": {"type": "integer", "minimum": 1, "description": "what is small for these two, in photo pixels"},
    "preset": {"type": "string", "enum": list(preset_names()),
               "description": "a marketplace: the picture is made for its rules and checked against them; other fields "
                              "go first, unless a rule forbids it. GET /presets lists them"},
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
    "properties": {
        "image_file": CROP_FORM["properties"]["image_file"],
        "keep": {"type": "string", "enum": ["true", "false"], "default": "false",
                 "description": "keep the photo beside its embedding, for cut-outs, captures and barcodes"},
    },
}  # fmt: skip
CODES_QUESTION: dict[str, Any] = {
    "type": "object",
    "required": ["embedding_id"],
    "additionalProperties": False,
    "properties": {"embedding_id": {"type": "string", "description": "of a photo that was sent with keep=true"}},
}
CODES_FORM: dict[str, Any] = CODES_QUESTION | {
    "required": [],
    "properties": CODES_QUESTION["properties"] | {"image_file": CROP_FORM["properties"]["image_file"]},
}
PROMPT_FIELDS = ("box", "boxes", "points", "labels", "plate")


def _as_json(field: dict[str, Any]) -> dict[str, Any]:
    """A form's field as a JSON member: what the form writes as true and false is a boolean there."""
    return {"type": "boolean"} | {k: v for k, v in field.items() if k == "description"} if field.get("enum") == [
        "true", "false"
    ] else field  # fmt: skip


CUTOUT_QUESTION: dict[str, Any] = {
    "type": "object",
    "required": ["logits_id"],
    "additionalProperties": False,
    "properties": {
        "logits_id": {"type": "string", "maxLength": 64, "description": "of the mask, from an earlier answer"},
        "limits": {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 4, "maxItems": 4,
                   "description": "x0, y0, x1, y1: what lies farther outside than a tenth of it is cut off; "
                                  "default: the box that the mask was asked with"},
        "max_side": {"type": ["integer", "null"], "minimum": 1, "maximum": 16384,
                     "description": "the finished picture is scaled down to it, for previews"},
    } | {name: _as_json(field) for name, field in _TEXTS.items() if name not in PROMPT_FIELDS},
}  # fmt: skip
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
