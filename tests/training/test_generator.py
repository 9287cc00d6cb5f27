"""Scenes: the same seed gives the same scene, and every label plane says what is visible."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from boothsam.training import objects, tableware
from boothsam.training.generator import Sample, Sources, compose
from boothsam.training.photos import CutoutBank, PhotoBank, cut_from_white, list_photos
from boothsam.training.pool import fill_pool

DRAWN = Sources(PhotoBank([]), CutoutBank([]))


@pytest.mark.parametrize("seed", range(12))
def test_a_scene_is_determined_by_its_seed(seed: int) -> None:
    first, second = (compose(np.random.default_rng(seed), 192, DRAWN) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.instances, second.instances)
    assert np.array_equal(first.parts, second.parts)


@pytest.mark.parametrize("seed", range(24))
def test_label_planes_fit_the_picture_and_each_other(seed: int) -> None:
    scene = compose(np.random.default_rng([3, seed]), 192, DRAWN)
    assert scene.image.dtype == np.uint8
    assert scene.image.shape == (*scene.instances.shape, 3)
    assert max(scene.image.shape) == 192
    assert scene.parts.shape == scene.instances.shape
    for part in np.unique(scene.parts)[1:]:
        owners = set(np.unique(scene.instances[scene.parts == part]).tolist())
        # 0: the owner was too small to count and was dropped
        assert owners <= {scene.part_owner[part - 1], 0}
    for group in scene.groups:
        assert len(group) > 1


def test_the_mask_is_where_the_thing_was_drawn() -> None:
    """The picture changes most inside the mask: shadows and reflections outside it are much weaker."""
    inside, outside = [], []
    for seed in range(30):
        scene = compose(np.random.default_rng([4, seed]), 192, DRAWN)
        edge = cv2.morphologyEx(scene.instances, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        steep = np.abs(cv2.Laplacian(cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY), cv2.CV_32F))
        if edge.any():
            inside.append(steep[edge].mean())
            outside.append(steep[~edge].mean())
    assert np.mean(inside) > 1.5 * np.mean(outside)


def test_an_occluder_takes_pixels_away() -> None:
    """Planes hold one id per pixel, so visible masks of different things never overlap; some scenes must show it."""
    crowded = [compose(np.random.default_rng([5, s]), 128, DRAWN) for s in range(20)]
    assert max(len(np.unique(scene.instances)) for scene in crowded) > 4


def test_a_cup_has_a_hole_in_its_handle() -> None:
    holes = 0
    for seed in range(12):
        cup = tableware.cup(np.random.default_rng(seed), 160, DRAWN.photos, DRAWN.cutouts)[-1]
        solid = (cup.alpha > 0.5).astype(np.uint8)
        _, hierarchy = cv2.findContours(solid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        holes += int((hierarchy[0, :, 3] >= 0).any())
    assert holes >= 4


@pytest.mark.parametrize("maker", [m for m, _ in objects.MAKERS if m is not objects.real_product])
@pytest.mark.parametrize("side", [12, 40, 150])
def test_every_maker_draws_something_at_every_size(maker: objects.Maker, side: int) -> None:
    for seed in range(4):
        for layer in maker(np.random.default_rng([seed, side]), side, DRAWN.photos, DRAWN.cutouts):
            assert layer.rgb.shape == (side, side, 3)
            assert layer.alpha.shape == layer.parts.shape == (side, side)
            assert 0 <= layer.alpha.min() <= layer.alpha.max() <= 1
            assert np.isfinite(layer.rgb).all()


def test_a_product_on_white_is_cut_out_with_its_white_label() -> None:
    photo = np.full((200, 160, 3), 253, np.uint8)
    cv2.ellipse(photo, (80, 100), (50, 70), 0, 0, 360, (200, 60, 30), -1, cv2.LINE_AA)
    cv2.rectangle(photo, (65, 85), (95, 115), (255, 255, 255), -1)
    cut = cut_from_white(photo)
    assert cut is not None
    rgb, alpha = cut
    assert rgb.shape[:2] == alpha.shape
    assert alpha[alpha.shape[0] // 2, alpha.shape[1] // 2] == 255  # the label belongs to the product
    assert abs(int((alpha > 127).sum()) - np.pi * 50 * 70) < 0.06 * np.pi * 50 * 70
    assert cut_from_white(np.full((50, 50, 3), 255, np.uint8)) is None


def test_scenes_survive_the_disk_and_a_pool_goes_on_where_it_stopped(tmp_path: Path) -> None:
    assert fill_pool(tmp_path, 3, 96, 9, DRAWN) == 3
    assert fill_pool(tmp_path, 5, 96, 9, DRAWN) == 2
    scene = compose(np.random.default_rng([9, 4]), 96, DRAWN)
    read = Sample.load(tmp_path / "0009-000004.npz")
    assert np.array_equal(read.image, scene.image)
    assert np.array_equal(read.instances, scene.instances)
    assert np.array_equal(read.parts, scene.parts)
    assert read.part_owner == scene.part_owner
    assert read.groups == scene.groups


def test_photos_are_used_when_given_and_a_wrong_folder_is_told(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8))
    assert len(list_photos(tmp_path)) == 1
    bank = PhotoBank(list_photos(tmp_path))
    crop = bank.crop(np.random.default_rng(1), 50, 40)
    assert crop is not None
    assert crop.shape == (50, 40, 3)
    with pytest.raises(FileNotFoundError, match="hint:"):
        list_photos(tmp_path / "nowhere")
