"""Annotations as a COCO dataset (cocodataset.org, "Data format"), read from the disk; annotating may go on meanwhile.

Only finished photos go in; what is left out is told. Masks are what the PNG files hold: one that was edited by hand
since is measured anew. They are of the photo's upright size; in a zip or a folder, a photo that only its EXIF
orientation turns upright is therefore written upright, as PNG, since not every trainer reads EXIF.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boothsam
import cv2
import numpy as np
from boothsam.runtime.errors import ImageError
from boothsam.runtime.images import encode_image, load_image, probe
from boothsam.runtime.masks import BoolArray, CocoRle, compress_rle, mask_to_rle
from boothsam.service.annotations.drawing import bbox_of, decode_rle
from boothsam.service.annotations.files import Layout, read_categories, read_records
from boothsam.service.annotations.photos import Photo, check_folders, list_photos
from boothsam.service.annotations.records import Category, MaskObject, NoSuchPhoto, PhotoRecord, StorageFailed
from boothsam.service.captures.export import Member

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True)
class LeftOut:
    """What an export does not hold, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class _Finished:
    photo: Photo
    record: PhotoRecord
    orientation: int


@dataclass(frozen=True)
class Export:
    """The finished photos of a folder, as of one moment."""

    layout: Layout
    categories: tuple[Category, ...]
    finished: tuple[_Finished, ...]
    left_out: tuple[LeftOut, ...]

    def dataset(self, *, polygons: bool = False, upright: bool = False) -> dict[str, Any]:
        """COCO's dictionary; blocks.

        Raises ImageError for a mask that was edited into another size, AnnotationError for one that cannot be read.

        polygons: outlines in place of run lengths. They are rounded to pixel corners, so that holes are lost and edges
        move by up to a pixel; area and bbox stay those of the mask. upright: photos are named as `members` writes them.
        """
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, found in enumerate(self.finished, 1):
            height, width = found.record.size_hw or (0, 0)
            image = {"id": number, "file_name": _file_name(found, upright), "width": width, "height": height}
            turned = {} if upright or found.orientation == 1 else {"exif_orientation": found.orientation}
            images.append(image | {"date_captured": found.record.saved_at} | turned)
            for kept in found.record.objects:
                bbox, area, rle = self._measured(kept, (height, width))
                if not area:
                    continue  # erased by hand
                outline: Any = outlines(decode_rle((height, width), rle["counts"])) if polygons else rle
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kept.category_id,
                    "segmentation": outline,
                    "area": area,
                    "bbox": list(bbox),
                    "iscrowd": 0,
                }
                annotations.append(annotation | ({} if kept.score is None else {"score": kept.score}))
        return {
            "info": {"description": f"annotated with boothsam {boothsam.__version__}", "version": "1.0"},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": [c.document() | {"supercategory": "product"} for c in self.categories],
        }

    def members(self, *, polygons: bool = False) -> Iterator[Member]:
        """The dataset with its photos and masks, as files. Blocks, and raises at once what `dataset` raises."""
        return self._members(self.dataset(polygons=polygons, upright=True))

    def _members(self, dataset: dict[str, Any]) -> Iterator[Member]:
        for found in self.finished:
            name, path = f"images/{_file_name(found, upright=True)}", found.photo.path
            yield Member(name, path if found.orientation == 1 else encode_image(load_image(path), "png"))
            for kept in found.record.objects:
                yield Member(f"masks/{kept.file}", self.layout.masks / kept.file)
        yield Member(ANNOTATIONS, json.dumps(dataset).encode())

    def _measured(self, kept: MaskObject, size_hw: tuple[int, int]) -> tuple[tuple[int, int, int, int], int, CocoRle]:
        """bbox, area and run lengths of the PNG; the record's own where the file is as it was written."""
        path = self.layout.masks / kept.file
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise StorageFailed(f"{path} went while it was exported", hint="export again") from None
        except OSError as error:
            raise self.layout.failed(error) from error
        if hashlib.sha256(data).hexdigest() == kept.sha256:
            return kept.bbox, kept.area, kept.segmentation
        mask: BoolArray = load_image(data)[..., 0] >= 128
        if mask.shape != size_hw:
            found, expected = f"{mask.shape[1]}x{mask.shape[0]}", f"{size_hw[1]}x{size_hw[0]}"
            raise ImageError(f"{path} was changed to {found} pixels; its photo has {expected}", hint=f"rm {path}")
        return bbox_of(mask), int(np.count_nonzero(mask)), compress_rle(mask_to_rle(mask))


def read_export(photos_folder: Path, folder: Path) -> Export:
    """What is finished in a folder of photos; every photo is compared with the sha256 it was annotated under; blocks.

    Raises:
        OptionError: no such folder. AnnotationError: annotations that cannot be read.
    """
    photos_folder, folder = check_folders(photos_folder, folder)
    layout = Layout(folder)
    (records, damaged), (categories, _) = read_records(layout), read_categories(layout)
    left_out = [LeftOut(str(path), why) for path, why in damaged.items()]
    finished = []
    photos = list_photos(photos_folder, folder, {})
    for photo in photos:
        record = records.pop(photo.key, None)
        why = "not annotated" if record is None else _unfinished(photo, record)
        if record is None or why:
            left_out.append(LeftOut(photo.name, why))
            continue
        try:
            finished.append(_Finished(photo, record, probe(photo.path).orientation))
        except ImageError as error:
            left_out.append(LeftOut(photo.name, error.message))
    left_out += [LeftOut(record.name, "the photo is gone") for record in records.values()]
    return Export(layout, categories, tuple(finished), tuple(left_out))


def _unfinished(photo: Photo, record: PhotoRecord) -> str:
    if record.status != "done":
        return "skipped" if record.status == "skipped" else "not finished"
    try:
        same = photo.sha256() == record.sha256
    except NoSuchPhoto as error:
        return error.message
    return "" if same else "another photo lies under the name it was annotated under"


def _file_name(found: _Finished, upright: bool) -> str:
    name = found.photo.name
    return f"{name}.png" if upright and found.orientation != 1 else name


def outlines(mask: BoolArray) -> list[list[float]]:
    """COCO polygons of a (H, W) mask: x0, y0, x1, y1, ... of each part's outer outline, along pixel corners.

    Traced on a doubled grid (Suzuki and Abe, CVGIP 1985, by OpenCV), where the outline of the pixels' squares is a
    chain of corners.
    """
    doubled = np.kron(mask, np.ones((2, 2), np.bool_)).astype(np.uint8)
    found, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # A doubled pixel's index i covers i/2 to (i + 1)/2: rounding half up lands on the pixel's own corner.
    corners = [np.floor((contour[:, 0] + 1) / 2) for contour in found]
    return [ring.ravel().tolist() for ring in corners if len(ring) >= 3]


def summary(left_out: Sequence[LeftOut]) -> dict[str, int]:
    """How many were left out for each reason."""
    counts: dict[str, int] = {}
    for item in left_out:
        counts[item.why] = counts.get(item.why, 0) + 1
    return counts
