"""Masks as annotations hold them: a PNG and run lengths, made of a model's answer or of what a client sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from boothsam.runtime.errors import NothingFound, OptionError
from boothsam.runtime.images import encode_image
from boothsam.runtime.masks import BoolArray, CocoRle, compress_rle, mask_to_box, mask_to_rle, rle_to_mask
from boothsam.service.annotations.records import WrongAnnotation


@dataclass(frozen=True)
class Drawn:
    """A new object before it has a place: fields as in `records.MaskObject`. png: the mask's file."""

    category_id: int
    png: bytes
    bbox: tuple[int, int, int, int]
    area: int
    score: float | None
    segmentation: CocoRle


def draw(mask: BoolArray, category_id: int, score: float | None) -> Drawn:
    """A (H, W) bool mask as an object; blocks.

    Raises:
        NothingFound: no pixel is set.
    """
    area = int(np.count_nonzero(mask))
    if not area:
        raise NothingFound("the mask is empty", hint="point at the product")
    return Drawn(category_id, encode_image(mask, "png"), bbox_of(mask), area, score, compress_rle(mask_to_rle(mask)))


def bbox_of(mask: BoolArray) -> tuple[int, int, int, int]:
    """COCO's x, y, width, height of a (H, W) mask that is not empty, in whole pixels."""
    x0, y0, x1, y1 = mask_to_box(mask)
    return x0, y0, x1 - x0 + 1, y1 - y0 + 1


def decode_rle(size_hw: tuple[int, int], counts: str | list[int]) -> BoolArray:
    """(H, W) bool mask of COCO's run lengths, compressed (text) or not (list); blocks.

    The text form is the inverse of `runtime.masks.compress_rle` (pycocotools' rleFrString).

    Raises:
        WrongAnnotation: another alphabet, a cut-off number, or runs that do not add up to H x W.
    """
    try:
        runs = _runs(counts, size_hw[0] * size_hw[1]) if isinstance(counts, str) else counts
        return rle_to_mask({"size": list(size_hw), "counts": runs})
    except (OptionError, OverflowError) as error:
        message = error.message if isinstance(error, OptionError) else "a run length is out of range"
        raise WrongAnnotation(message, hint="send COCO run lengths of the upright photo") from error


def _runs(text: str, pixels: int) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for code in text.encode("ascii", "replace"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise OptionError(f"{chr(code)!r} makes no run length")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if not 0 <= runs[-1] <= pixels:
            raise OptionError(f"a run of {runs[-1]} pixels in a photo of {pixels}")
        value = shift = 0
    if shift:
        raise OptionError("the run lengths are cut off")
    return runs
