"""Exports as other programs read them."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import encode_image, load_image
from boothsam.service.captures.export import COLUMNS, csv_blocks, members, write_folder, zip_blocks
from boothsam.service.captures.records import Capture, Content
from boothsam.service.captures.store import CaptureStore
from PIL import Image
from pycocotools.coco import COCO

from tests.service.captures.conftest import FINGERPRINT

HEIGHT, WIDTH = 60, 90


def rectangle(x: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A mask whose area, box and place tell rows from columns."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10:40, x : x + 20] = True
    return mask


def photograph(seed: int, orientation: int = 1) -> bytes:
    rng = np.random.default_rng(seed)
    size = (HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT)
    picture = Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def put(store: CaptureStore, photo: bytes, mask: Any, **facts: Any) -> Capture:
    files = {"original": Content(photo, ".jpg")}
    if mask is not None:
        files["mask"] = Content(encode_image(mask, "png"), ".png")
        files["cutout"] = Content(
            encode_image(np.dstack([np.zeros((*mask.shape, 3), np.uint8), mask * 255]).astype(np.uint8), "png"), ".png"
        )
    facts = {"size_hw": [HEIGHT, WIDTH]} | facts
    return store.add(files, facts, fingerprint=FINGERPRINT).result(30).capture


@pytest.fixture
def filled(store: CaptureStore) -> CaptureStore:
    put(store, photograph(1), rectangle(5), gtin="4006381333931", angle="-45", product_xyxy=[5, 10, 25, 40])
    put(store, photograph(2), rectangle(30), sku="=HYPERLINK(1)", predicted_iou=0.97, model="starter")
    put(store, photograph(3), None, sku="no mask")
    put(store, photograph(4, orientation=6), rectangle(60), sku="no mask")
    put(store, photograph(5), np.zeros((HEIGHT, WIDTH), np.bool_))
    return store


def unzip(blocks: Iterator[bytes]) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(b"".join(blocks))) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_zip_holds_every_file_as_it_was_stored(filled: CaptureStore) -> None:
    files = unzip(zip_blocks(members(filled, filled.walk(), "zip")))
    captures = filled.page()
    assert len(files) == 3 * 4 + 1 + 5 + 1
    for capture in captures:
        name = f"{capture.seq:09d}-{capture.id[:8]}"
        assert Capture.decode(files[f"records/{name}.json"]) == capture
        for role, file in capture.files.items():
            assert files[f"{role}/{name}{file.suffix}"] == filled.path(capture, role).read_bytes()
    table = list(csv.DictReader(io.StringIO(files["captures.csv"].decode())))
    for row in table:
        assert row["original"] in files and (not row["mask"] or row["mask"] in files)


def test_zip_streams_in_small_blocks(filled: CaptureStore) -> None:
    big = bytes(np.random.default_rng(0).integers(0, 255, 5 << 20, np.uint8))
    put(filled, big, None)
    blocks = list(zip_blocks(members(filled, filled.walk(), "zip")))
    assert max(map(len, blocks)) <= (1 << 20) + 4096
    assert big in unzip(iter(blocks)).values()


def test_csv_is_a_table_that_runs_nothing(filled: CaptureStore) -> None:
    rows = list(csv.DictReader(io.StringIO(b"".join(csv_blocks(filled.walk())).decode(), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert [row["seq"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[0]["gtin"] == "4006381333931" and rows[0]["angle"] == "-45"
    assert [rows[0][f"box_{c}"] for c in ("x0", "y0", "x1", "y1")] == ["5", "10", "25", "40"]
    assert rows[1]["sku"] == "'=HYPERLINK(1)", "a spreadsheet would have run it"
    assert rows[2]["mask"] == "" and rows[2]["width"] == "90" and rows[2]["height"] == "60"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with NumPy 2
def test_coco_dataset_loads_in_pycocotools(filled: CaptureStore, tmp_path: Path) -> None:
    count = write_folder(members(filled, filled.walk(), "coco"), tmp_path / "dataset")
    assert count == 6
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "dataset" / "annotations.json"))
    assert coco.getImgIds() == [1, 2, 3, 4, 5]
    names = {row["id"]: row["name"] for row in coco.loadCats(coco.getCatIds())}
    assert sorted(names.values()) == ["4006381333931", "=HYPERLINK(1)", "no mask"]
    for number, x in ((1, 5), (2, 30), (4, 60)):
        (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        assert (coco.annToMask(annotation) == rectangle(x)).all()
        assert annotation["bbox"] == [x, 10, 20, 30] and annotation["area"] == 600
        image = coco.loadImgs([number])[0]
        path = tmp_path / "dataset" / "images" / image["file_name"]
        # A reader that knows no EXIF must see the frame the mask is in.
        assert np.asarray(Image.open(path)).shape == (image["height"], image["width"], 3) == (HEIGHT, WIDTH, 3)
    rotated = filled.page()[3]
    path = tmp_path / "dataset" / "images" / coco.loadImgs([4])[0]["file_name"]
    assert path.suffix == ".png"
    assert (load_image(path) == load_image(filled.path(rotated, "original"))).all()
    assert coco.getAnnIds(imgIds=[3]) == [] and coco.getAnnIds(imgIds=[5]) == []


def test_coco_as_a_zip_has_the_same_files(filled: CaptureStore, tmp_path: Path) -> None:
    files = unzip(zip_blocks(members(filled, filled.walk(), "coco")))
    assert set(files) == {"annotations.json"} | {
        f"images/{r['file_name']}" for r in json.loads(files["annotations.json"])["images"]
    }


@pytest.mark.parametrize("format", ["zip", "coco"])
def test_a_capture_deleted_while_exporting_is_left_out(filled: CaptureStore, format: str) -> None:
    listed = filled.page()
    filled.delete(listed[1].id).result(30)
    files = unzip(zip_blocks(members(filled, listed, format)))
    assert not any(listed[1].id[:8] in name for name in files)
    assert any(listed[0].id[:8] in name for name in files)


def test_unknown_format(store: CaptureStore) -> None:
    with pytest.raises(OptionError, match="unknown export format"):
        members(store, [], "tar")
