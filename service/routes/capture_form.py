"""What POST /captures is asked: its form, read and checked before a place is taken."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from boothsam.runtime.errors import BoothsamError
from boothsam.service import forms
from boothsam.service.captures import records
from boothsam.service.captures.capturing import AS_DRAWN, Tidy
from boothsam.service.captures.gtin import InvalidGtin, check_gtin
from boothsam.service.captures.records import Content, StoredFile
from boothsam.service.detections import Box
from boothsam.service.forms import Form
from boothsam.service.http_prompts import parse_limits, parse_prompts
from boothsam.service.image_header import read_header
from boothsam.service.problems import problem
from boothsam.service.prompts import Request as Prompt
from boothsam.service.routes.common import errors_as
from boothsam.service.schemas import CROP_FORM

_TEXT = {"type": "string", "maxLength": records.MAX_TEXT}
_PROMPTS = ("box", "points", "labels")
_EARLIER = ("embedding_id", "logits_id", "limits")
_TIDY = ("fill_holes", "drop_islands")
_FIELDS = ("sku", "gtin", "angle", "segment", *_TIDY, *_EARLIER, *_PROMPTS)
_FILES = ("image_file", "mask_file")
CAPTURE_FORM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "image_file": CROP_FORM["properties"]["image_file"] | {
            "description": "the photo: JPEG, PNG or WebP; may be left out where embedding_id names one that is kept"},
        "mask_file": {"type": "string", "format": "binary",
                      "description": "a mask made by the client, of the upright photo's size: white is product"},
        "sku": _TEXT | {"example": "MUG-7", "description": "the shop's own number"},
        "gtin": {"type": "string", "example": "4006381333931", "description": "8, 12, 13 or 14 digits"},
        "angle": _TEXT | {"example": "front", "description": "which view of the product it is"},
        "segment": {"type": "string", "enum": ["true", "false"], "default": "true",
                    "description": "false: store the photo alone"},
        "embedding_id": {"type": "string", "description": "a photo that was analysed before; with logits_id"},
        "logits_id": {"type": "string", "description": "an earlier answer's mask of it, to be stored with its cut-out"},
        "limits": {"type": "string", "example": "120,80,480,320",
                   "description": "with logits_id: a box instead of the one that the mask was asked with"},
    } | {name: CROP_FORM["properties"][name] for name in (*_PROMPTS, *_TIDY)},
}  # fmt: skip
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_CODES: tuple[tuple[type[BoothsamError], str], ...] = (
    (InvalidGtin, "invalid_gtin"),
    (records.KeyConflict, "conflict"),
    (records.DiskLow, "disk_low"),
    (records.NoSuchCapture, "not_found"),
    (records.NotForwarded, "not_forwarded"),
    (records.CaptureError, "storage_failed"),
)


def as_problems() -> AbstractContextManager[None]:
    """Errors of captures as problems with their codes."""
    return errors_as(_CODES, passing="storage_failed")


@dataclass(frozen=True)
class Earlier:
    """The mask of an earlier answer. limits: a box instead of the one that it was asked with."""

    embedding_id: str
    logits_id: str
    limits: Box | None


@dataclass(frozen=True)
class CaptureRequest:
    """A capture as it was asked for; its mask is the client's, an earlier answer's, the prompt's, or there is none.

    photo: the upload, None only where `earlier` names one that may have been kept. labels: sku, gtin and angle as sent.
    tidy: of the model's mask.
    """

    photo: bytes | None
    mask: bytes | None
    earlier: Earlier | None
    prompt: Prompt
    segment: bool
    labels: Mapping[str, Any]
    tidy: Tidy = AS_DRAWN

    @classmethod
    def read(cls, form: Form) -> CaptureRequest:
        """Raises `missing_image`, `unknown_field`, `invalid_field`, `invalid_prompt`, `invalid_gtin`."""
        form.need_known(_FIELDS, _FILES)
        earlier, mask = _earlier(form), form.files.get("mask_file")
        photo = form.image() if earlier is None or "image_file" in form.files else None
        prompt, segment = parse_prompts(form), form.get("segment") != "false"
        forms.flag(form, "segment")
        if len(prompt.boxes) > 1:
            raise problem("invalid_prompt", f"{len(prompt.boxes)} boxes; a capture shows one product", "send one box")
        if (mask is not None) + (earlier is not None) + (not prompt.auto) + (not segment) > 1:
            found = "mask_file, logits_id, prompts and segment=false exclude each other"
            raise problem("invalid_field", found, "send one of them")
        tidy = Tidy(*(forms.flag(form, name) for name in _TIDY))
        if tidy != AS_DRAWN and (mask is not None or not segment):
            found = "fill_holes and drop_islands mend the model's mask, and this capture has none"
            raise problem("invalid_field", found, "leave them out, or mask_file and segment=false")
        return cls(photo, mask, earlier, prompt, segment, _labels(form), tidy)

    def contents(self) -> dict[str, Content]:
        """The files that were sent, by role. Raises `unsupported_media`."""
        sent = {"original": self.photo, "mask": self.mask}
        return {role: content_of(data) for role, data in sent.items() if data is not None}

    def fingerprint(self, digests: Mapping[str, StoredFile]) -> str:
        """Of everything that was asked; blocks.

        An embedding's id stands for its photo: whether the photo is sent along makes no difference, so that a client
        that has to send it after all, since the service let go of it, repeats its request and makes no new one.
        """
        asked = dict(self.labels) | {
            "segment": self.segment,
            "prompts": [list(self.prompt.boxes), list(self.prompt.points)],
        }
        if self.tidy != AS_DRAWN:  # of requests without these fields the fingerprint stays what it was
            asked["tidy"] = [self.tidy.fill_holes, self.tidy.drop_islands]
        if self.earlier is None:
            return records.fingerprint(digests, asked)
        limits = None if self.earlier.limits is None else list(self.earlier.limits)
        return records.fingerprint({}, asked | {"earlier": [self.earlier.embedding_id, self.earlier.logits_id, limits]})


def content_of(photo: bytes) -> Content:
    """An upload to be stored, its kind told by its first bytes. Raises `unsupported_media`."""
    return Content(photo, _SUFFIXES[read_header(photo).format])


def _earlier(form: Form) -> Earlier | None:
    embedding, logits, limits = form.get("embedding_id"), form.get("logits_id"), parse_limits(form)
    if not embedding and not logits and limits is None:
        return None
    if not (embedding and logits):
        missing = "logits_id" if embedding else "embedding_id"
        raise problem("invalid_field", f"{missing} is missing", "embedding_id and logits_id go together")
    return Earlier(embedding, logits, limits)


def _labels(form: Form) -> dict[str, Any]:
    labels: dict[str, Any] = {}
    with as_problems():
        for name in ("sku", "angle"):
            if form.get(name):
                labels[name] = records.check_text(name, form.get(name))
        if form.get("gtin"):
            labels["gtin"] = check_gtin(form.get("gtin"))
    return labels
