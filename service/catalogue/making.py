"""One photo to its pictures: made, checked under the names they will have, judged, and put where they belong.

What a preset's rules refuse, or the photo of which should be taken again, goes to needs-work/ and never to ready/.
"""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from boothsam.runtime.errors import ImageError
from boothsam.runtime.images import encode_image, load_image
from boothsam.runtime.transforms import Uint8Array
from boothsam.service.batch.predictor import CannotGoOn, ModelChoice, Predictor, Record, Ticket
from boothsam.service.catalogue.items import NEEDS_WORK, READY, CatalogueFolder, CatalogueItem
from boothsam.service.console import explain
from boothsam.service.cropping import Photo
from boothsam.service.presets.check import Finding, Report, check
from boothsam.service.presets.errors import PresetError
from boothsam.service.presets.naming import Identity
from boothsam.service.prompts import Answer
from boothsam.service.retake import judge

THUMB = 360  # longest side, in pixels: sharp at half that size on a dense display
_QUALITY = 80


class CataloguePredictor(Predictor):
    """The batch's steps, ending in a catalogue's folders."""

    def __init__(self, choice: ModelChoice, out: Path) -> None:
        super().__init__(choice, out)
        self._out = self._place = CatalogueFolder(out)

    def _note(self, names: list[str]) -> None:
        try:
            self._place.note(names)
        except OSError as error:
            raise CannotGoOn(f"cannot write {self._place.written}: {explain(error)[0]}") from error

    def _products(self, ticket: Ticket, photo: Photo) -> list[Record]:
        """Nothing is written before all products of the photo are made."""
        item = ticket.work.item
        assert isinstance(item, CatalogueItem)
        made = [
            _make(item, photo, answer, identity, name)
            for answer, identity, name in zip(ticket.answers, item.identities, item.names, strict=True)
        ]
        self._note([product["output"] for _, product in made])
        self._write(self._out.folder / item.thumbs[0], photo_thumb(photo.image))
        for (data, product), thumb in zip(made, item.thumbs[1:], strict=True):
            self._write(self._out.folder / thumb, picture_thumb(data))
            self._write(self._out.folder / product["output"], data)
        return [product for _, product in made]

    def _failed(self, ticket: Ticket, error: Exception) -> Ticket:  # type: ignore[override]
        """A photo of which nothing came is shown in the report as well, where it can be decoded."""
        item = ticket.work.item
        assert isinstance(item, CatalogueItem)
        image = None if ticket.photo is None else ticket.photo.image
        if image is None and ticket.data and not isinstance(error, ImageError):  # without a name, or of a wrong one
            with suppress(ImageError):
                image = load_image(ticket.data)
        if image is not None and not isinstance(error, CannotGoOn):
            self._write(self._out.folder / item.thumbs[0], photo_thumb(image))
        return Predictor._failed(ticket, error)


def _make(
    item: CatalogueItem, photo: Photo, answer: Answer, identity: Identity, name: str
) -> tuple[bytes, dict[str, Any]]:
    look, preset = item.look, item.look.preset
    assert preset is not None
    cut = look.cut(photo.image, answer)
    warnings: list[tuple[str, str]] = []
    try:
        finished = look.finish(cut, photo.credits)
        told = {f"{preset.name}: {finding}" for finding in finished.report.advice} if finished.report else set()
        data, warnings = finished.data, [w for w in finished.warnings if w[0] not in told]  # the check says them again
    except PresetError as error:
        data = error.data
    # Once more under its name, which has rules of its own: this is what the market will see.
    report = check(data, preset, name=name)
    score, auto = float(answer.iou_predictions[answer.best]), answer.facts.get("auto", {})
    agreement = auto.get("agreement")
    verdict = judge(photo.image, cut.alpha, cut.window_xyxy, score if agreement is None else agreement)
    refused = not report.passed
    again = verdict.retake and not item.accept_retakes
    status = "refused" if refused else "retake" if again else "ready"
    return data, {
        "output": f"{NEEDS_WORK if refused or again else READY}/{name}",
        "status": status,
        "sku": identity.sku,
        "gtin": identity.gtin,
        "n": identity.n,
        "angle": item.product.angle,
        "bytes": len(data),
        "window_xyxy": list(cut.window_xyxy),
        "product_xyxy": list(cut.box_xyxy),
        "predicted_iou": round(score, 4),
        "agreement": agreement,
        "retake": verdict.to_dict(),
        "check": _told(report),
        "warnings": [{"message": message, "hint": hint} for message, hint in warnings],
    } | answer.facts


def _told(report: Report) -> dict[str, Any]:
    """What the report page says of a check: rules that are kept in a word each, the others in full."""
    return {
        "passed": report.passed,
        "fill": None if report.fill is None else round(report.fill, 4),
        "kept": sorted({f.rule for f in report.findings if f.passed}),
        "unmeasured": [_finding(f) for f in report.findings if f.passed is None],
        "failed": [_finding(f) for f in report.failed],
        "advice": [_finding(f) for f in report.advice],
    }


def _finding(finding: Finding) -> dict[str, str]:
    names: tuple[str, ...] = ("rule", "found", "wanted", "mend", "source")
    return {name: str(getattr(finding, name)) for name in names}


def photo_thumb(image: Uint8Array) -> bytes:
    """A small WebP of a (H, W, 3) photo."""
    scale = min(1.0, THUMB / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return encode_image(np.asarray(small, np.uint8), "webp", quality=_QUALITY)


def picture_thumb(data: bytes) -> bytes:
    """A small WebP of an encoded picture of our own, with its transparency."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        shown = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    shown.thumbnail((THUMB, THUMB))
    return encode_image(np.asarray(shown, np.uint8), "webp", quality=_QUALITY)
