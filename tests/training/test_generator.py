"""Scenes: the same seed gives the same scene, and every label plane says what is visible."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from boothsam.training import hands, layouts, objects, packages, slender, tableware, turned
from boothsam.training.generator import Sample, Sources, compose
from boothsam.training.lighting import Lamp
from boothsam.training.photos import CutoutBank, PhotoBank, cut_from_white, list_photos
from boothsam.training.pool import fill_pool
from boothsam.training.shapes import Layer
from boothsam.training.stage import MAX_ID, Stage

DRAWN = Sources(PhotoBank([]), CutoutBank([]))
DARK = Lamp(
    shear=0.8, length=0.5, offset=(0.1, 0.1), soft=0.05, cast=0.7, contact=0.6, mirror=0.0, tint=(1.0, 1.0, 1.0)
)


def _grey_stage(lamp: Lamp = DARK, tone: float = 200.0) -> Stage:
    return Stage.on(np.full((160, 240, 3), tone, np.float32), lamp)


def _block(tone: float = 60.0) -> Layer:
    return Layer(np.full((40, 30, 3), tone, np.float32), np.ones((40, 30), np.float32), np.zeros((40, 30), np.uint8))


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


@pytest.mark.parametrize("layout", [layout for layout, _ in layouts.LAYOUTS])
def test_every_layout_shows_something_and_stays_within_a_byte(layout: layouts.Layout) -> None:
    shown = 0
    for seed in range(4):
        stages = [_grey_stage() for _ in range(2)]
        for stage in stages:
            layout(np.random.default_rng([11, seed]), stage, DRAWN)
        first, second = stages
        assert np.array_equal(first.canvas, second.canvas)
        assert np.array_equal(first.instances, second.instances)
        assert first.last <= MAX_ID
        assert len(first.owners) <= 255
        shown += int(first.instances.any())
    assert shown >= 3


def test_a_full_stage_takes_nothing_more() -> None:
    stage = _grey_stage()
    marked = _block()
    marked.parts[:] = 1
    for index in range(300):
        stage.put(np.random.default_rng(0), [marked], index % 200, index % 100, standing=False, shadow=False)
    assert stage.full
    assert stage.last <= MAX_ID
    assert len(stage.owners) <= 255


@pytest.mark.parametrize("standing", [True, False])
def test_a_shadow_darkens_the_backdrop_and_belongs_to_nothing(standing: bool) -> None:
    stage = _grey_stage()
    stage.put(np.random.default_rng(0), [_block()], 100, 80, standing=standing)
    drawn = np.zeros((160, 240), bool)
    drawn[80:120, 100:130] = True
    assert np.array_equal(stage.instances > 0, drawn)
    assert stage.canvas[~drawn].min() < 170
    assert np.allclose(stage.canvas[drawn], 60)


def test_a_glossy_table_mirrors_a_thing_below_its_foot_and_outside_its_mask() -> None:
    lamp = Lamp(0.0, 0.3, (0.0, 0.0), 0.05, 0.0, 0.0, mirror=0.5, tint=(1.0, 1.0, 1.0))
    stage = _grey_stage(lamp)
    stage.put(np.random.default_rng(0), [_block(0.0)], 100, 60, standing=True)
    assert (stage.instances > 0).sum() == 40 * 30
    below = stage.canvas[101:128, 105:125].mean((1, 2))
    assert below[0] < 150
    assert below[-1] > below[0] + 20  # it fades
    assert stage.canvas[30:55, 105:125].min() == 200


def test_palm_and_fingers_are_one_instance_with_the_held_thing_between_them() -> None:
    found = 0
    for seed in range(8):
        alpha = np.zeros((200, 200), np.float32)
        alpha[40:160, 70:130] = 1
        rng = np.random.default_rng([12, seed])
        back, front = hands.grip(rng, alpha, 14)
        held = Layer(np.zeros((200, 200, 3), np.float32), alpha, np.zeros((200, 200), np.uint8), joined=False)
        stage = Stage.on(np.full((200, 200, 3), 120, np.float32), DARK)
        stage.put(rng, [back, held, front], 0, 0, standing=False)
        assert set(np.unique(stage.instances)) <= {0, 1, 2}
        assert not stage.groups
        over = (front.alpha > 0.5) & (alpha > 0.5)
        found += int(over.any())
        assert (stage.instances[over] == 1).all()
        assert (stage.instances[(alpha > 0.5) & ~over] == 2).all()
    assert found >= 6


def test_glass_shows_what_stands_behind_and_labels_do_not() -> None:
    seen = 0
    for seed in range(30):
        layer = turned.bottle(np.random.default_rng([13, seed]), 120, DRAWN.photos, DRAWN.cutouts)[0]
        before, behind = (Stage.on(np.full((120, 120, 3), tone, np.float32), DARK) for tone in (30.0, 220.0))
        for stage in (before, behind):
            stage.put(np.random.default_rng(1), [layer], 0, 0, standing=False, shadow=False)
        change = np.abs(behind.canvas - before.canvas).mean(2)
        solid = layer.alpha > 0.99
        if layer.through is None:
            assert change[solid].max() < 3
        else:
            seen += 1
            assert change[solid & (layer.through > 0.4)].mean() > 20
            assert change[solid & (layer.through == 0)].max(initial=0) < 3
    assert seen >= 4


def test_a_carton_is_one_solid_thing_whose_faces_are_parts() -> None:
    faces = []
    for seed in range(12):
        layer = packages.package(np.random.default_rng([14, seed]), 200, DRAWN.photos, DRAWN.cutouts)[0]
        solid = (layer.alpha > 0.5).astype(np.uint8)
        pieces, _ = cv2.connectedComponents(solid)
        assert pieces == 2
        solid = cv2.copyMakeBorder(solid, 12, 12, 12, 12, cv2.BORDER_CONSTANT)
        closed = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
        inside = cv2.erode(closed, np.ones((9, 9), np.uint8)) > 0
        assert solid[inside].all()  # no seam where faces meet
        faces.append(len(np.unique(layer.parts[layer.alpha > 0.5])))
    assert max(faces) >= 4


def test_a_bag_can_be_seen_through_under_its_handles_and_an_assembly_is_in_one_piece() -> None:
    holes = 0
    for seed in range(10):
        bag = packages.carrier_bag(np.random.default_rng([15, seed]), 200, DRAWN.photos, DRAWN.cutouts)[0]
        _, hierarchy = cv2.findContours((bag.alpha > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        holes += int((hierarchy[0, :, 3] >= 0).any())
        thing = slender.assembly(np.random.default_rng([15, seed]), 160, DRAWN.photos, DRAWN.cutouts)[0]
        count, _ = cv2.connectedComponents((thing.alpha > 0.02).astype(np.uint8))
        assert count == 2
    assert holes >= 4


def test_camouflage_brings_the_backdrop_close_to_the_thing() -> None:
    stage = _grey_stage(tone=40.0)
    layouts.camouflage(np.random.default_rng(2), stage, [_block(230.0)])
    assert abs(float(stage.canvas.mean()) - 230) < 60


def test_no_seam_of_the_old_white_background_is_left_round_a_product(tmp_path: Path) -> None:
    photo = np.full((120, 120, 3), 255, np.uint8)
    cv2.circle(photo, (60, 60), 44, (255, 200, 200), -1, cv2.LINE_AA)  # the studio's glow
    cv2.circle(photo, (60, 60), 41, (200, 30, 30), -1, cv2.LINE_AA)
    cv2.imwrite(str(tmp_path / "a.png"), photo[:, :, ::-1])
    layer = objects.real_product(np.random.default_rng(3), 240, DRAWN.photos, CutoutBank([tmp_path / "a.png"]))[0]
    rim = (layer.alpha > 0.5) & (cv2.erode((layer.alpha > 0.5).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0)
    assert rim.any()
    channels = np.sort(layer.rgb[rim], axis=1)  # the product may be recoloured by swapping channels
    assert np.median(channels[:, 0]) < 110


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


@pytest.mark.parametrize("maker", [*(m for m, _ in objects.MAKERS if m is not objects.real_product), hands.hand])
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
