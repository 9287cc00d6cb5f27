"""What `boothsam everything` writes: a picture per mask, a COCO document, and all masks laid over the photo."""

from __future__ import annotations

import colorsys
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from boothsam.runtime.automatic import MaskRecord
from boothsam.runtime.errors import OutputError
from boothsam.runtime.images import save_image
from boothsam.runtime.masks import Rle, compress_rle, rle_to_mask
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import BoolArray, Uint8Array
from boothsam.service.outputs import make_parent, write_text

DOCUMENT, OVERLAY = "masks.json", "overlay.jpg"
_OURS = re.compile(r"mask-\d{3,}\.png|masks\.json|overlay\.jpg")
_GOLDEN = 0.61803398875  # of the colour circle: neighbours in the list get colours far apart


def lower_thresholds(model: str, pred_iou_thresh: float, stability_score_thresh: float) -> tuple[float, float]:
    """The two thresholds to try next where nothing was found. The starter model's soft masks score far below SAM's."""
    most = 0.5 if model == "starter" else 1.0
    return max(0.0, min(most, pred_iou_thresh - 0.15)), max(0.0, min(most, stability_score_thresh - 0.1))


def check_folder(folder: Path, photo: Path, *, force: bool) -> None:
    """Find out before any work whether the results can lie in `folder`.

    Raises:
        OutputError: it is a file, holds the photo under a name of ours, or holds earlier results and not `force`.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, expected a folder", hint="-o names a folder for the masks")
    taken = _earlier(folder)
    if photo.exists() and any(path.samefile(photo) for path in taken):
        raise OutputError(f"{photo} would be overwritten", hint="write into another folder: -o masks/")
    if taken and not force:
        raise OutputError(f"{folder} holds earlier results: {taken[0].name}", hint="--force replaces them")


def _earlier(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _OURS.fullmatch(path.name))


def write_results(folder: Path, image: Uint8Array, records: Sequence[MaskRecord], document: dict[str, Any]) -> None:
    """Write the pictures that `document` names, the overlay, and last the document; then drop earlier masks.

    image: (H, W, 3) uint8. records: with uncompressed run lengths, in the document's order.
    """
    overlay = image.copy()
    for record, annotation in zip(records, document["annotations"], strict=True):
        mask = rle_to_mask(_rle(record))
        output = folder / annotation["file_name"]
        make_parent(output)
        save_image(output, mask)
    for index in sorted(range(len(records)), key=lambda i: -records[i]["area"]):  # small ones on top
        tint(overlay, rle_to_mask(_rle(records[index])), index)
    make_parent(folder / OVERLAY)
    save_image(folder / OVERLAY, overlay)
    write_text(folder / DOCUMENT, json.dumps(document) + "\n", force=True)
    current = {DOCUMENT, OVERLAY} | {annotation["file_name"] for annotation in document["annotations"]}
    for path in _earlier(folder):
        if path.name not in current:
            path.unlink()


def tint(image: Uint8Array, mask: BoolArray, index: int) -> None:
    """Lay colour number `index` over the masked part of a (H, W, 3) uint8 picture, in place, with a rim."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    colour = np.array(colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.85, 1.0)) * 255
    inside = np.ascontiguousarray(mask[window]).astype(np.uint8)
    part = image[window]
    part[inside > 0] = np.rint(0.55 * part[inside > 0] + 0.45 * colour)
    width = max(1, round(max(image.shape[:2]) / 1000))
    framed = cv2.copyMakeBorder(inside, width, width, width, width, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(framed, np.ones((2 * width + 1, 2 * width + 1), np.uint8))[width:-width, width:-width]
    part[(inside > 0) & (eroded == 0)] = colour


def coco_document(
    photo: Path, image: Uint8Array, records: Sequence[MaskRecord], model: SamModel, settings: dict[str, Any]
) -> dict[str, Any]:
    """A COCO document that pycocotools loads; our own fields beside COCO's. `segmentation` is compressed."""
    height, width = image.shape[:2]
    return {
        "info": {"description": f"boothsam everything on {photo.name}", "settings": settings},
        "images": [{"id": 1, "file_name": photo.name, "width": width, "height": height}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": compress_rle(_rle(record)),
                "bbox": record["bbox"],
                "area": record["area"],
                "predicted_iou": round(record["predicted_iou"], 4),
                "stability_score": round(record["stability_score"], 4),
                "point_coords": record["point_coords"],
                "crop_box": record["crop_box"],
                "file_name": f"mask-{number:03d}.png",
            }
            for number, record in enumerate(records, 1)
        ],
        "model": {
            "name": model.manifest.name,
            "key": model.manifest.key,
            "backend": model.backend,
            "precision": model.precision,
        },
    }


def _rle(record: MaskRecord) -> Rle:
    rle = record["segmentation"]
    assert isinstance(rle, dict) and isinstance(rle["counts"], list)
    return {"size": rle["size"], "counts": rle["counts"]}
