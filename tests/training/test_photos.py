"""Cut-outs from white pictures and from outlines, and real photos as samples."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from boothsam.training import polygons
from boothsam.training.generator import Sample
from boothsam.training.outlines import labelled_photos, real_sample, write_samples
from boothsam.training.photos import CutoutBank, cut_from_white, cut_outs, list_photos, stands_on_white
from boothsam.training.polygons import Outline, load_outlines, mask_of, matte_of, sha256_of

SQUARE = [[20.0, 10.0], [60.0, 10.0], [60.0, 50.0], [20.0, 50.0]]
HOLE = [[30.0, 20.0], [40.0, 20.0], [40.0, 30.0], [30.0, 30.0]]


def _save(path: Path, rgb: np.ndarray) -> Path:
    cv2.imwrite(str(path), np.ascontiguousarray(rgb[:, :, ::-1]))
    return path


def _noise(seed: int = 0, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3)).astype(np.uint8)


def _on_white() -> np.ndarray:
    photo = np.full((120, 100, 3), 253, np.uint8)
    cv2.ellipse(photo, (50, 60), (30, 40), 0, 0, 360, (200, 60, 30), -1, cv2.LINE_AA)
    return photo


def test_rings_cover_the_pixels_between_their_corners_and_an_inner_ring_is_a_hole() -> None:
    mask = mask_of([SQUARE, HOLE], 60, 80)
    expected = np.zeros((60, 80), bool)
    expected[10:50, 20:60] = True
    expected[20:30, 30:40] = False
    assert np.array_equal(mask, expected)


def test_a_matte_lies_one_pixel_inside_and_half_covered_pixels_are_half_opaque() -> None:
    alpha, window = matte_of([SQUARE], 60, 80, rim=1.0)
    assert (window[0].start, window[0].stop, window[1].start, window[1].stop) == (10, 50, 20, 60)
    assert alpha.shape == (40, 40)
    assert alpha[0].max() < 40  # the rim; drawing at 8 x is exact to an eighth of a pixel
    assert alpha[2:-2, 2:-2].min() == 255
    half, _ = matte_of([[[20.0, 10.0], [60.5, 10.0], [60.5, 50.0], [20.0, 50.0]]], 60, 80, rim=0.0)
    assert half.shape == (40, 41)
    assert abs(int(half[20, 40]) - 128) <= 32  # an eighth of a pixel
    assert half[20, 39] == 255


def test_an_outline_outside_the_photo_is_cut_at_its_border() -> None:
    alpha, window = matte_of([[[-30.0, -20.0], [40.0, -20.0], [40.0, 30.0], [-30.0, 30.0]]], 60, 80, rim=0.0)
    assert (window[0].start, window[1].start) == (0, 0)
    assert alpha.shape == (30, 40)
    assert alpha.min() == 255


def test_white_backgrounds_are_told_from_others() -> None:
    assert stands_on_white(_on_white())
    assert not stands_on_white(_noise())
    grey = np.full((60, 60, 3), 225, np.uint8)
    assert not stands_on_white(grey)


def test_a_face_into_which_the_flood_has_leaked_is_no_cut_out() -> None:
    photo = np.full((160, 120, 3), 255, np.uint8)
    for y in range(30, 130, 8):  # a white carton with stripes: the flood enters between them
        cv2.rectangle(photo, (30, y), (90, y + 3), (30, 60, 160), -1)
    cv2.rectangle(photo, (30, 30), (34, 133), (30, 60, 160), -1)
    assert cut_from_white(photo) is None
    assert cut_from_white(_on_white()) is not None


def test_an_outline_goes_before_the_flood_fill_and_other_photos_give_nothing(tmp_path: Path) -> None:
    photo = _save(tmp_path / "a.png", _noise())
    product = _save(tmp_path / "b.png", _on_white())
    assert cut_outs(photo, {}) == []
    (flooded,) = cut_outs(product, {})
    assert 60 <= flooded[1].shape[1] <= 62  # the ellipse's 61 pixels, less the rim, plus the blur's margin
    whole, held = Outline("box", (SQUARE, HOLE)), Outline("held box", (SQUARE,), whole=False)
    ((rgb, alpha),) = cut_outs(photo, {sha256_of(photo): (whole, held)})
    assert np.array_equal(rgb, _noise()[10:50, 20:60])
    assert alpha[15, 15] == 0
    assert alpha[5, 5] == 255
    ((rgb, alpha),) = cut_outs(product, {sha256_of(product): (whole,)})
    assert alpha.shape == (40, 40)


def test_a_bank_holds_every_whole_thing_and_picks_with_the_callers_generator(tmp_path: Path) -> None:
    photo = _save(tmp_path / "a.png", _noise())
    _save(tmp_path / "b.png", _noise(1))
    _save(tmp_path / "c.png", _on_white())
    other = [[2.0, 2.0], [18.0, 2.0], [18.0, 40.0]]
    known = {sha256_of(photo): (Outline("box", (SQUARE,)), Outline("wedge", (other,)))}
    bank = CutoutBank(list_photos(tmp_path), known)
    assert len(bank) == 3
    first = [bank.pick(np.random.default_rng(seed))[1].shape for seed in range(20)]
    assert len(set(first)) == 3
    assert first == [bank.pick(np.random.default_rng(seed))[1].shape for seed in range(20)]


def test_a_photo_and_its_things_become_a_sample_that_survives_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = _save(tmp_path / "a.png", _noise())
    _save(tmp_path / "b.png", _noise(1))
    wedge = [[2.0, 2.0], [18.0, 2.0], [18.0, 40.0]]
    listing = tmp_path / "outlines.json"
    things = [{"name": "box", "polygons": [SQUARE, HOLE]}, {"name": "wedge", "polygons": [wedge], "whole": False}]
    listing.write_text(json.dumps({"photos": {sha256_of(photo): {"file": "a.png", "things": things}}}))
    # In the function's own module, whatever other tests have done to sys.modules since it was imported.
    monkeypatch.setitem(write_samples.__globals__, "load_outlines", lambda: load_outlines(listing))
    assert write_samples(list_photos(tmp_path), tmp_path / "pool", 320) == 1
    (written,) = (tmp_path / "pool").glob("*.npz")
    sample = Sample.load(written)
    assert sample.image.shape == (240, 320, 3)
    assert set(np.unique(sample.instances).tolist()) == {0, 1, 2}
    assert sample.instances[80, 100] == 1
    assert sample.instances[100, 140] == 0  # the hole
    assert sample.instances[40, 60] == 2
    assert not sample.parts.any()
    assert abs(int((sample.instances == 1).sum()) - 16 * (1600 - 100)) < 40
    labelled = labelled_photos(list_photos(tmp_path))
    assert next((name, int(mask.sum())) for _, mask, name in labelled) == ("box", 1500)
    assert [name for _, _, name in labelled] == ["box", "wedge"]


def test_a_big_photo_is_shrunk_to_the_wanted_side() -> None:
    sample = real_sample(_noise(2, 90, 200), (Outline("box", (SQUARE,)),), 100)
    assert sample.image.shape == (45, 100, 3)
    assert int((sample.instances == 1).sum()) == 20 * 20


def test_a_ring_of_two_points_is_refused(tmp_path: Path) -> None:
    listing = tmp_path / "bad.json"
    things = [{"name": "box", "polygons": [[[1, 2], [3, 4]]]}]
    listing.write_text(json.dumps({"photos": {"00": {"file": "a.jpg", "things": things}}}))
    with pytest.raises(ValueError, match=r"a\.jpg, box: a ring with fewer than three points; hint:"):
        load_outlines(listing)


def test_the_outlines_are_sound_and_leave_the_proof_photos_alone() -> None:
    listing = json.loads(polygons.OUTLINES.read_text(encoding="utf-8"))
    outlines = load_outlines()
    assert len(outlines) >= 150
    assert polygons.OUTLINES.stat().st_size <= 600_000
    for sha256, photo in listing["photos"].items():
        assert len(sha256) == 64
        assert photo["file"].startswith(("iconic/", "dataset/train/"))
        for thing in photo["things"]:
            for ring in thing["polygons"]:
                points = np.array(ring, np.float32)
                assert points.min() >= 0
                assert points.max() <= 464  # the photos' longer side
                assert cv2.contourArea(points) > 4
    for proof in Path(__file__).parents[1].joinpath("data").glob("*.json"):
        shas = {m["sha256"] for m in json.loads(proof.read_text(encoding="utf-8")).get("masks", [])}
        assert not shas & outlines.keys(), proof.name
