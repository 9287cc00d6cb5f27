"""The plate on drawn booths: what stands in them, what only looks so, and what cannot be told."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.errors import CameraMoved, ImageError, NothingFound, OptionError
from boothsam.runtime.masks import box_iou
from boothsam.runtime.plate import MAX_IMAGES, Plate, PlateMatch, shrink

from benchmarks.booth_pairs import booth_pair, shoot

Photo = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.float32]
HEIGHT, WIDTH = 480, 640
BOX = (240, 150, 400, 350)  # of the drawn product


def camera(levels: npt.NDArray[np.floating], seed: int = 0, gain: npt.ArrayLike = 1.0, noise: float = 1.5) -> Photo:
    rng = np.random.default_rng(seed)
    seen = levels * np.asarray(gain, np.float32) + rng.normal(0, noise, levels.shape)
    _, packed = cv2.imencode(".jpg", np.clip(seen, 0, 255).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])


def paper(tone: float = 200) -> Levels:
    """A plain sheet that gets darker to the right."""
    fall = np.linspace(1, 0.8, WIDTH, dtype=np.float32)[None, :, None]
    return np.asarray(np.full((HEIGHT, WIDTH, 3), tone, np.float32) * fall, np.float32)


def wall(seed: int = 0) -> Levels:
    """A backdrop with structure everywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 22, (60, 80, 3)).astype(np.float32)
    return np.asarray(150 + cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.float32)


def stand(scene: Levels, colour: npt.ArrayLike = (170, 60, 40)) -> Levels:
    """A box with a label on the scene."""
    scene = scene.copy()
    x0, y0, x1, y1 = BOX
    scene[y0:y1, x0:x1] = np.asarray(colour, np.float32)
    scene[y0 + 60 : y0 + 110, x0 + 30 : x1 - 30] = (235, 225, 60)
    return scene


def shade(scene: Levels, corners: npt.ArrayLike, depth: float, soft: float) -> Levels:
    """A shadow over part of the scene."""
    dark = np.zeros(scene.shape[:2], np.float32)
    cv2.fillPoly(dark, [np.asarray(corners, np.int32)], 1.0)
    dark = cv2.GaussianBlur(dark, (0, 0), soft)
    return np.asarray(scene * (1 - depth * dark[..., None] * np.array([1, 0.96, 0.9], np.float32)), np.float32)


def near(match: PlateMatch, box: npt.ArrayLike = BOX, px: float = 8) -> bool:
    return match.state == "product" and bool(np.abs(np.subtract(match.box_xyxy, box)).max() <= px)


def test_the_box_and_the_clicks_are_in_the_photos_pixels() -> None:
    plate = Plate.from_images([camera(wall())])
    match = plate.compare(camera(stand(wall()), 1))
    assert near(match, px=4) and match.moved is False and match.shift_px == pytest.approx((0, 0), abs=0.5)
    assert match.coverage == pytest.approx(160 * 200 / (HEIGHT * WIDTH), rel=0.06)
    inside = [240 < x < 400 and 150 < y < 350 for x, y in match.points]
    assert inside == [label == 1 for label in match.labels]
    assert match.labels.count(1) == 1 and match.labels.count(0) == 4
    prompts = match.prompts
    assert prompts.box_xyxy is not None and prompts.point_labels is not None
    large = [cv2.resize(image, (1600, 1200), interpolation=cv2.INTER_CUBIC) for image in (wall(), stand(wall()))]
    scaled = Plate.from_images([camera(large[0], noise=1)]).compare(camera(large[1], 2, noise=1))
    assert near(scaled, np.array(BOX) * 2.5, 10)


def test_an_empty_booth_is_empty_in_any_light() -> None:
    for scene in (paper(), wall(), paper(25)):
        plate = Plate.from_images([camera(scene)])
        for seed, gain in enumerate([1.0, 0.75, 1.2, (1.08, 1.0, 0.9), (0.8, 0.88, 0.97)]):
            match = plate.compare(camera(scene, seed + 1, gain))
            assert match.state == "empty" and match.box_xyxy is None and match.points == (), (seed, match.box_xyxy)
            with pytest.raises(NothingFound, match="the booth is empty"):
                match.require_product()


@pytest.mark.parametrize("gain", [1.0, 0.7, 1.25, (1.1, 1.0, 0.88)])
@pytest.mark.parametrize("scene", ["paper", "wall", "dark"])
def test_a_product_is_found_in_any_light(scene: str, gain: npt.ArrayLike) -> None:
    empty = {"paper": paper(), "wall": wall(), "dark": paper(20)}[scene]
    match = Plate.from_images([camera(empty)]).compare(camera(stand(empty), 1, gain))
    assert near(match), match.box_xyxy


def test_light_that_changes_over_the_frame_is_no_product() -> None:
    fall = np.linspace(1.12, 0.9, HEIGHT, dtype=np.float32)[:, None, None]
    plate = Plate.from_images([camera(wall())])
    assert plate.compare(camera(wall() * fall, 1)).state == "empty"
    assert near(plate.compare(camera(stand(wall()) * fall, 2)))


@pytest.mark.parametrize("soft", [1.5, 8.0, 25.0])
def test_a_shadow_belongs_to_no_product(soft: float) -> None:
    x0, _, x1, y1 = BOX
    floor = [(x0, y1), (x1, y1), (x1 + 140, y1 + 60), (x0 + 140, y1 + 60)]
    plate = Plate.from_images([camera(paper())])
    match = plate.compare(camera(stand(shade(paper(), floor, 0.5, soft)), 1))
    assert near(match, px=12), match.box_xyxy


def test_somebodys_soft_shadow_alone_is_an_empty_booth() -> None:
    across = [(0, 150), (180, 120), (220, 480), (0, 480)]
    for scene in (paper(), wall()):
        match = Plate.from_images([camera(scene)]).compare(camera(shade(scene, across, 0.35, 40), 1))
        assert match.state == "empty", match.box_xyxy


def test_the_reflection_in_a_glossy_floor_belongs_to_no_product() -> None:
    scene = stand(paper(120))
    x0, _, x1, y1 = BOX
    deep = 110
    mirror = scene[y1 - deep : y1, x0:x1][::-1]
    fade = np.linspace(0.5, 0, deep, dtype=np.float32)[:, None, None]
    view = scene[y1 : y1 + deep, x0:x1]
    view += fade * (mirror - view)
    match = Plate.from_images([camera(paper(120))]).compare(camera(scene, 1))
    assert near(match, px=12), match.box_xyxy


def test_white_on_white_is_found_by_its_outline() -> None:
    scene = paper(215)
    x0, y0, x1, y1 = BOX
    side = np.linspace(1.06, 0.9, x1 - x0, dtype=np.float32)[None, :, None]
    scene[y0:y1, x0:x1] *= side
    scene[y0:y1, x0 : x0 + 3] *= 0.93
    scene[y0 : y0 + 3, x0:x1] *= 0.95
    match = Plate.from_images([camera(paper(215), noise=1)]).compare(camera(scene, 1, noise=1))
    assert match.state == "product" and match.box_xyxy is not None
    assert box_iou(np.array([match.box_xyxy]), np.array([BOX], float))[0, 0] > 0.7


@pytest.mark.parametrize("shift", [(0.0, 1.0), (1.2, -0.8), (-1.4, 0.0)])
def test_vibration_is_neither_a_move_nor_a_product(shift: tuple[float, float]) -> None:
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    plate = Plate.from_images([camera(wall())])
    for scene, state in ((wall(), "empty"), (stand(wall()), "product")):
        moved = cv2.warpAffine(scene, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        match = plate.compare(camera(moved, 1))
        assert match.state == state and match.moved is False
        assert match.shift_px == pytest.approx(shift, abs=0.4)


@pytest.mark.parametrize(
    ("turn", "zoom", "shift"),
    [(0, 1, (7, 0)), (0, 1, (-5, 9)), (0, 1, (60, -35)), (1.5, 1, (0, 0)), (0, 1.03, (0, 0)), (-6, 0.9, (30, 10))],
)
def test_a_moved_camera_is_told_with_and_without_a_product(turn: float, zoom: float, shift: tuple[int, int]) -> None:
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), turn, zoom)
    matrix[:, 2] += shift
    plate = Plate.from_images([camera(wall())])
    for scene in (wall(), stand(wall())):
        seen = cv2.warpAffine(scene, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        match = plate.compare(camera(seen, 1, 0.9))
        assert match.state == "camera_moved" and match.moved is True and match.box_xyxy is None
        with pytest.raises(CameraMoved, match="moved since the plate was taken"):
            match.require_product()
        if turn == 0 and zoom == 1:
            assert match.shift_px == pytest.approx(shift, abs=1.5)


def test_a_plain_backdrop_cannot_tell_and_says_so() -> None:
    plate = Plate.from_images([camera(paper())])
    match = plate.compare(camera(np.roll(stand(paper()), 20, 0), 1))
    assert match.state == "product" and match.moved is None and match.shift_px is None


def test_another_shape_and_another_resolution() -> None:
    plate = Plate.from_images([camera(wall())])
    photo = camera(stand(wall()), 1)
    assert plate.compare(photo[:, :400]).state == "other_size"
    assert plate.compare(np.ascontiguousarray(photo.transpose(1, 0, 2))).state == "other_size"
    assert plate.compare(cv2.resize(photo, (160, 120))).state == "other_size"
    with pytest.raises(CameraMoved, match="400x480 pixels has another shape"):
        plate.compare(photo[:, :400]).require_product()
    doubled = plate.compare(cv2.resize(photo, (1280, 960), interpolation=cv2.INTER_CUBIC))
    assert near(doubled, np.array(BOX) * 2, 12), doubled.box_xyxy


def test_an_overexposed_plate_sees_what_is_darker_and_invents_nothing() -> None:
    bright = wall() + 110
    plate = Plate.from_images([camera(bright)])
    assert plate.overexposed > 0.3
    match = plate.compare(camera(bright, 1, 0.75))
    assert match.state == "empty", match.box_xyxy
    assert near(plate.compare(camera(stand(bright), 2, 0.9)), px=12)


def test_two_products_and_one_at_the_border() -> None:
    scene = paper()
    scene[100:260, 60:160] = (40, 90, 160)
    scene[240:480, 420:600] = (40, 140, 60)
    match = Plate.from_images([camera(paper())]).compare(camera(scene, 1))
    assert near(match, (60, 100, 600, 480)) and match.labels[:2] == (1, 1)
    (x0, y0), (x1, y1) = match.points[:2]
    assert (420 < x0 < 600 and y0 > 240) and (60 < x1 < 160 and 100 < y1 < 260)


def test_nearly_everything_changed_is_no_product() -> None:
    match = Plate.from_images([camera(paper())]).compare(camera(wall(5), 1))
    assert match.state == "camera_moved" and match.coverage > 0.85 and match.moved is None


def test_several_shots_make_a_plate_without_their_noise_and_passers_by() -> None:
    shots = [camera(paper(), seed, noise=6) for seed in range(5)]
    shots[2] = camera(stand(paper()), 2, noise=6)
    plate = Plate.from_images(shots)
    single = Plate.from_images(shots[:1])
    assert plate.images == 5 and plate.size_hw == (HEIGHT, WIDTH)
    truth = paper()
    assert np.abs(plate.frame - truth).mean() < 0.6 * np.abs(single.frame - truth).mean()
    assert plate.compare(camera(paper(), 9, noise=6)).state == "empty"
    assert near(plate.compare(camera(stand(paper()), 10, noise=6)))
    assert float(np.median(plate.noise)) == pytest.approx(6 * 0.58, rel=0.4)  # of the mean of three channels


def test_a_plate_survives_its_file_and_a_damaged_file_is_refused() -> None:
    plate = Plate.from_images([camera(wall(), seed) for seed in range(3)])
    data = plate.to_bytes()
    again = Plate.from_bytes(data)
    assert (again.frame == plate.frame).all() and (again.noise == plate.noise).all()
    assert (again.size_hw, again.images, again.key) == (plate.size_hw, plate.images, plate.key)
    assert Plate.from_images([camera(wall(), 5)]).key != plate.key
    match = again.compare(camera(stand(wall()), 7))
    assert match.facts == plate.compare(camera(stand(wall()), 7)).facts
    flipped = data[:200] + bytes([data[200] ^ 255]) + data[201:]
    for broken in (b"", data[: len(data) // 2], data[:-40], b"PK" + data[2:200], b"text", flipped):
        with pytest.raises(ImageError, match="damaged"):
            Plate.from_bytes(broken)


def test_what_makes_no_plate() -> None:
    photo = camera(paper())
    with pytest.raises(OptionError, match="no photo of the empty booth"):
        Plate.from_images([])
    with pytest.raises(OptionError, match=f"at most {MAX_IMAGES}"):
        Plate.from_images([photo] * (MAX_IMAGES + 1))
    with pytest.raises(OptionError, match="sizes 640x480 and 640x400"):
        Plate.from_images([photo, photo[:400]])
    with pytest.raises(ImageError, match="too small"):
        Plate.from_images([photo[:100, :100]])
    with pytest.raises(ImageError):
        Plate.from_images([photo.astype(np.float32)])  # type: ignore[list-item]


def test_shrink_keeps_small_photos_and_the_aspect_of_large_ones() -> None:
    assert shrink(camera(paper())).shape == (480, 640, 3)
    assert shrink(np.zeros((3000, 4000, 3), np.uint8)).shape == (768, 1024, 3)


@pytest.mark.parametrize("seed", range(3000, 3006))
def test_composed_booths(seed: int) -> None:
    """The measurement of benchmarks/plate.py in small, with floors far below what it finds."""
    pair = booth_pair(seed, longest=640)
    plate = Plate.from_images(pair.plates)
    assert plate.compare(pair.empty).state == "empty"
    match = plate.compare(pair.photo)
    assert match.state == "product" and match.box_xyxy is not None, match.state
    assert box_iou(np.array([match.box_xyxy]), np.array([pair.box_xyxy], float))[0, 0] > 0.4
    assert plate.compare(shoot(np.random.default_rng(seed), pair.scene, pair.camera)).state == "product"


def test_a_photo_as_backdrop() -> None:
    data = pytest.importorskip("skimage.data")
    table = np.asarray(data.coffee(), np.float32)
    cat = np.asarray(data.chelsea(), np.float32)
    scene = table.copy()
    matte = np.zeros(table.shape[:2], np.float32)
    cv2.ellipse(matte, (300, 200), (110, 130), 0, 0, 360, 1.0, -1)
    matte = cv2.GaussianBlur(matte, (0, 0), 1)[..., None]
    fitted = cv2.resize(cat, (table.shape[1], table.shape[0]))
    scene += matte * (fitted - scene)
    plate = Plate.from_images([camera(table, seed) for seed in range(3)])
    assert plate.compare(camera(table, 8, 1.1)).state == "empty"
    assert near(plate.compare(camera(scene, 9, 0.9)), (190, 70, 411, 331), 10)
