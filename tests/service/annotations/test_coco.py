"""The COCO export against pycocotools, and run lengths against its C code."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.errors import ImageError
from boothsam.runtime.images import encode_image, load_image
from boothsam.runtime.masks import BoolArray, compress_rle, mask_iou, mask_to_rle
from boothsam.service.annotations.coco import Export, outlines, read_export
from boothsam.service.annotations.drawing import decode_rle, draw
from boothsam.service.annotations.records import WrongAnnotation
from boothsam.service.annotations.store import AnnotationStore
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.service.annotations.conftest import SIZE, Open, draw_photo, drawn, keys, png, sha256

# pycocotools with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def blobs(seed: int, size: tuple[int, int] = SIZE) -> BoolArray:
    """A mask with several parts, holes, and pixels on the border."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((size[0] // 20 + 2, size[1] // 20 + 2)).astype(np.float32)
    mask = np.asarray(Image.fromarray(noise).resize((size[1], size[0]), Image.Resampling.BICUBIC)) > 0.3
    return np.asarray(mask, np.bool_)


def load(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.fixture
def annotated(open_store: Open, folder: Path) -> AnnotationStore:
    """photo-1 with two objects of two categories, photo-2 with none, photo-10 skipped, photo-11 half done."""
    draw_photo(folder / "photo-11.png")
    store = open_store()
    store.set_categories([(1, "mug"), (None, "bottle")])
    of = keys(store)
    objects = [draw(blobs(1), 1, 0.75), draw(blobs(2), 2, None)]
    store.save(of["photo-1.png"], sha256(folder / "photo-1.png"), SIZE, objects, done=True)
    store.save(of["photo-2.jpg"], sha256(folder / "photo-2.jpg"), SIZE, [], done=True)
    store.skip(of["photo-10.jpg"])
    store.save(of["photo-11.png"], sha256(folder / "photo-11.png"), SIZE, [drawn(1, 1, 9, 9)], done=False)
    return store


def test_pycocotools_loads_it_bit_for_bit(annotated: AnnotationStore, folder: Path, tmp_path: Path) -> None:
    found = read_export(folder, folder / "annotations")
    assert sorted(item.why for item in found.left_out) == ["not finished", "skipped"]
    (tmp_path / "out.json").write_text(json.dumps(found.dataset()))
    coco = load(tmp_path / "out.json")
    assert [image["file_name"] for image in coco.dataset["images"]] == ["photo-1.png", "photo-2.jpg"]
    assert all((image["height"], image["width"]) == SIZE for image in coco.dataset["images"])
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [(1, "mug"), (2, "bottle")]
    annotations = coco.loadAnns(coco.getAnnIds())
    files = [kept.file for kept in annotated.entry(keys(annotated)["photo-1.png"]).objects]
    assert len(annotations) == 2
    for annotation, file in zip(annotations, files, strict=True):
        mask = png(annotated, file) == 255
        assert (coco.annToMask(annotation).astype(bool) == mask).all()
        assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0
        assert annotation["bbox"] == coco_masks.toBbox(coco.annToRLE(annotation)).tolist()
    assert [annotation.get("score") for annotation in annotations] == [0.75, None]
    assert [annotation["category_id"] for annotation in annotations] == [1, 2]


def test_evaluated_against_itself_it_is_perfect(annotated: AnnotationStore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text(json.dumps(read_export(folder, folder / "annotations").dataset()))
    truth = load(tmp_path / "out.json")
    kept = ("image_id", "category_id", "segmentation")
    results = [{name: a[name] for name in kept} | {"score": 0.9} for a in truth.dataset["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0) and evaluation.stats[8] == pytest.approx(1.0)


def test_outlines_are_close_and_keep_the_masks_measures(
    annotated: AnnotationStore, folder: Path, tmp_path: Path
) -> None:
    dataset = read_export(folder, folder / "annotations").dataset(polygons=True)
    (tmp_path / "out.json").write_text(json.dumps(dataset))
    coco = load(tmp_path / "out.json")
    annotation = coco.dataset["annotations"][0]
    solid = np.zeros(SIZE, np.bool_)
    solid[50:150, 40:200] = True
    solid[149, 199] = False
    rings = outlines(solid)
    assert mask_iou(coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(rings, *SIZE))) > 0, solid) > 0.99
    assert min(rings[0][::2]) == 40 and max(rings[0][::2]) == 200 and max(rings[0][1::2]) == 150
    filled = coco.annToMask(annotation) > 0
    mask = blobs(1)
    assert (filled & mask).sum() / mask.sum() > 0.97 and annotation["area"] == mask.sum()
    assert all(isinstance(ring, list) and len(ring) >= 6 for ring in annotation["segmentation"])


def test_a_mask_edited_by_hand_counts(annotated: AnnotationStore, folder: Path) -> None:
    first, second = (o.file for o in annotated.entry(keys(annotated)["photo-1.png"]).objects)
    edited = np.zeros(SIZE, np.bool_)
    edited[5:15, 7:10] = True
    (annotated.layout.masks / first).write_bytes(encode_image(edited, "png"))
    (annotated.layout.masks / second).write_bytes(encode_image(edited & False, "png"))
    (annotation,) = read_export(folder, folder / "annotations").dataset()["annotations"]
    assert annotation["bbox"] == [7, 5, 3, 10] and annotation["area"] == 30
    assert (coco_masks.decode(annotation["segmentation"]) == edited).all()
    (annotated.layout.masks / first).write_bytes(encode_image(edited[:100], "png"))
    for whole in (Export.dataset, Export.members):  # before a first byte of a zip is sent
        with pytest.raises(ImageError, match="600x100"):
            whole(read_export(folder, folder / "annotations"))


def test_a_replaced_or_lost_photo_is_left_out_and_told(annotated: AnnotationStore, folder: Path) -> None:
    draw_photo(folder / "photo-1.png", (50, 50))
    (folder / "photo-2.jpg").unlink()
    found = read_export(folder, folder / "annotations")
    assert not found.finished
    why = {item.name: item.why for item in found.left_out}
    assert "another photo" in why["photo-1.png"] and why["photo-2.jpg"] == "the photo is gone"


def test_a_turned_photo_is_written_upright(open_store: Open, folder: Path, run: Callable[..., Any]) -> None:
    picture = Image.open(folder / "photo-1.png").convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.rotate(90, expand=True).save(folder / "turned.jpg", exif=turned, quality=95)
    store = open_store()
    path, key = folder / "turned.jpg", keys(store)["turned.jpg"]
    store.save(key, sha256(path), SIZE, [drawn(10, 20, 110, 70)], done=True)
    store.close()
    out = folder.parent / "out.zip"
    result = run("annotate", folder, "--export", out)
    assert result.exit_code == 0, result.stderr
    with zipfile.ZipFile(out) as archive:
        assert sorted(archive.namelist()) == ["annotations.json", "images/turned.jpg.png", "masks/turned-1.png"]
        body = json.loads(archive.read("annotations.json"))
        upright = load_image(archive.read("images/turned.jpg.png"))
        mask = load_image(archive.read("masks/turned-1.png"))
    assert body["images"][0] | {"date_captured": ""} == {
        "id": 1, "file_name": "turned.jpg.png", "width": 600, "height": 400, "date_captured": "",
    }  # fmt: skip
    assert (upright == load_image(path)).all() and mask.shape == upright.shape
    plain = read_export(folder, folder / "annotations").dataset()["images"][0]
    assert plain["file_name"] == "turned.jpg" and plain["exif_orientation"] == 6


def test_export_by_command(annotated: AnnotationStore, folder: Path, run: Callable[..., Any]) -> None:
    """Also while somebody annotates: the store is open meanwhile."""
    out = folder.parent / "out.json"
    result = run("annotate", folder, "--export", out)
    assert result.exit_code == 0 and result.stdout == f"{out}\n", result.stderr
    assert "2 photos exported" in result.stderr and "1 left out: skipped" in result.stderr
    assert len(load(out).dataset["annotations"]) == 2
    again = run("annotate", folder, "--export", out)
    assert again.exit_code == 1 and "hint: --force" in again.stderr
    assert run("annotate", folder, "--export", out, "--polygons", "--force").exit_code == 0
    assert isinstance(load(out).dataset["annotations"][0]["segmentation"], list)
    whole = folder.parent / "dataset"
    assert run("annotate", folder, "--export", whole).exit_code == 0
    assert (whole / "images" / "photo-1.png").read_bytes() == (folder / "photo-1.png").read_bytes()
    assert (whole / "masks" / "photo-1-2.png").is_file()
    for wrong, expected in (
        ((folder, "--export", folder.parent / "out.csv"), "a .json file"),
        ((folder.parent / "nowhere", "--export", out), "boothsam annotate FOLDER"),
        ((folder, "--polygons"), "--export"),
        ((folder, "-o", folder, "--export", out), "annotations"),
    ):
        result = run("annotate", *wrong)
        assert result.exit_code == 2 and expected in result.stderr, result.stderr


def test_categories_by_command(open_store: Open, folder: Path, run: Callable[..., Any]) -> None:
    out = folder.parent / "out.json"
    assert run("annotate", folder, "--category", "mug", "--category", " lid ", "--export", out).exit_code == 0
    assert run("annotate", folder, "--category", "cup", "--category", "mug", "--export", out, "--force").exit_code == 0
    assert [(c.id, c.name) for c in open_store().categories] == [(1, "mug"), (2, "lid"), (3, "cup")]


@pytest.mark.parametrize("size", [(1, 1), (400, 600), (37, 5), (3, 1000)])
def test_run_lengths_read_what_pycocotools_writes(size: tuple[int, int]) -> None:
    for seed in range(4):
        mask = np.random.default_rng(seed).random(size) > 0.5 if seed else np.ones(size, np.bool_)
        mask = blobs(seed, size) if seed == 3 and min(size) > 30 else mask
        theirs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert theirs == compress_rle(mask_to_rle(mask))["counts"]
        assert (decode_rle(size, theirs) == mask).all()
        assert (decode_rle(size, mask_to_rle(mask)["counts"]) == mask).all()


@pytest.mark.parametrize(
    "counts", ["", "0", "~~~", "é", "o", "ooooooooooooooooooooooooooo0", "P" * 50, [1, 2], [2**40], [-1, 241]]
)
def test_run_lengths_that_make_no_mask(counts: Any) -> None:
    with pytest.raises(WrongAnnotation) as caught:
        decode_rle((20, 12), counts)
    assert caught.value.hint
