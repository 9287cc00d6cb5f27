"""Where the product goes on a preset's canvas, and how its file is made to fit."""

from __future__ import annotations

import numpy as np
import pytest
from boothsam.runtime.containers import is_lossless
from boothsam.runtime.credits import Credits, read_credits
from boothsam.runtime.cutout import AlphaOptions, CutOut, cut_out
from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import load_image
from boothsam.service.presets.check import check
from boothsam.service.presets.errors import PresetError
from boothsam.service.presets.finish import encode
from boothsam.service.presets.layout import place
from boothsam.service.presets.look import preset_look
from boothsam.service.presets.measure import contrast, measure
from boothsam.service.presets.preset import load_preset, parse_preset

from tests.service.presets.pictures import canvas, product

WHITE = np.full(3, 255, np.uint8)


def _hard(image: np.ndarray, mask: np.ndarray) -> CutOut:  # type: ignore[type-arg]
    return cut_out(image, mask, options=AlphaOptions(refine=False, decontaminate=False))


def test_a_burnt_out_side_does_not_count() -> None:
    image, mask = np.full((200, 300, 3), 200, np.uint8), np.zeros((200, 300), np.bool_)
    mask[50:150, 50:250] = True
    image[mask] = (90, 60, 30)
    image[50:150, 50:150] = 255  # the left half of the product
    placed = place(_hard(image, mask), "white", (1000, 1000), 0.88, 0)
    assert np.abs(np.subtract(placed.box_xyxy, (150, 50, 250, 150))).max() <= 1
    assert placed.scale == pytest.approx(8.8, rel=0.03)
    whole = place(_hard(image, mask), "black", (1000, 1000), 0.88, 0)
    assert np.abs(np.subtract(whole.box_xyxy, (50, 50, 250, 150))).max() <= 1


def test_a_speck_does_not_push_the_product_aside_but_a_part_counts() -> None:
    image, mask = np.full((2000, 2000, 3), 200, np.uint8), np.zeros((2000, 2000), np.bool_)
    mask[900:1100, 900:1100] = True
    mask[10:14, 10:14] = True  # 4 pixels: 2 on the canvas
    image[mask] = 40
    placed = place(_hard(image, mask), "white", (1000, 1000), 0.88, 0)
    assert np.abs(np.subtract(placed.box_xyxy, (900, 900, 1100, 1100))).max() <= 2
    mask[10:14, 10:400] = True
    image[mask] = 40
    placed = place(_hard(image, mask), "white", (1000, 1000), 0.88, 0)
    assert placed.box_xyxy[0] <= 11 and placed.box_xyxy[1] <= 11


def test_the_measure_of_a_canvas_is_its_product() -> None:
    picture = canvas(0.8, 1000)
    picture[100:120, 900:920] = 120  # a part: larger than a speck
    found = measure(contrast(picture, WHITE), lossy=False)
    assert found.box_xyxy == (333, 100, 920, 900) and found.fill == 0.8 and not found.dirty
    assert measure(contrast(np.full((50, 70, 3), 255, np.uint8), WHITE), lossy=False).box_xyxy is None


def test_a_canvas_laid_out_by_another_box() -> None:
    cut = product(120, 200)
    x0, y0, x1, y1 = cut.box_xyxy
    picture = cut.on_canvas("white", size=(500, 400), fill=0.5, box_xyxy=(x0, y0, x1, y0 + (y1 - y0) // 2))
    box = measure(contrast(picture, WHITE), lossy=False).box_xyxy
    assert box is not None and np.abs(np.subtract(box, (130, 100, 370, 400))).max() <= 3  # the lower half hangs out
    with pytest.raises(OptionError, match="is empty"):
        cut.on_canvas("white", size=500, box_xyxy=(x0, y0, x0, y1))


def test_contrast_is_the_largest_difference_of_a_channel() -> None:
    random = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    colour = np.array([10, 128, 250], np.uint8)
    assert np.array_equal(contrast(random, colour), np.abs(random.astype(int) - colour).max(2))


def _noisy(side: int = 600) -> np.ndarray:  # type: ignore[type-arg]
    picture = canvas(0.9, side)
    rows, columns = slice(side // 20, side - side // 20), slice(side // 3, 2 * side // 3)
    picture[rows, columns] = np.random.default_rng(0).integers(0, 200, picture[rows, columns].shape, np.uint8)
    return picture


def _limited(limit: int, level: str = "must", floor: int = 60) -> str:
    rule = f'[[rules]]\nrule = "max_bytes"\nvalue = {limit}\nlevel = "{level}"'
    return f'base = "ebay"\n[make]\nmin_quality = {floor}\nquality = 95\n{rule}'


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_the_best_quality_within_the_limit(kind: str) -> None:
    ann, picture = Credits("Ann", "Ann 2026"), _noisy()
    lengths = {quality: len(encode(picture, kind, quality, None, Credits())) for quality in range(60, 96)}
    added = len(encode(picture, kind, 95, None, ann)) - lengths[95]
    limit = int(lengths[95] * 0.75)
    best = max(quality for quality, length in lengths.items() if length + added <= limit)
    data = encode(picture, kind, 95, parse_preset(_limited(limit), "own.toml"), ann)
    assert 60 < best < 95 and len(data) <= limit
    assert data == encode(picture, kind, best, None, ann)
    assert read_credits(data) == ann


def test_a_small_limit_costs_no_more_quality_than_it_must() -> None:
    picture = canvas(0.9, 120)
    full = encode(picture, "jpg", 95, None, Credits())
    for limit in (len(full), 5000):
        own = parse_preset(_limited(limit), "own.toml")
        assert len(full) <= limit and encode(picture, "jpg", 95, own, Credits()) == full


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_long_credits_are_within_the_limit(kind: str) -> None:
    picture, long = _noisy(), Credits("&" * 2000, "\U0001f4f7" * 2000)
    limit = int(len(encode(picture, kind, 95, None, long)) * 0.85)
    assert len(encode(picture, kind, 95, parse_preset(_limited(limit), "own.toml"), long)) <= limit


def test_a_product_too_small_for_a_preset_without_a_canvas() -> None:
    own = parse_preset('[[rules]]\nrule = "min_longest"\nvalue = 1000', "own.toml")
    with pytest.raises(PresetError, match=r"min_longest: .*\nhint: the preset chooses no canvas: --size PIXELS"):
        preset_look(own)[0].finish(product())


def test_a_limit_that_no_quality_meets_costs_none() -> None:
    full = encode(_noisy(), "jpg", 95, None, Credits())
    assert encode(_noisy(), "jpg", 95, parse_preset(_limited(20_000, "should"), "own.toml"), Credits()) == full


def test_an_impossible_limit_is_an_error_and_advice_a_warning() -> None:
    cut = product(180, 300)
    look, _ = preset_look(parse_preset(_limited(900), "own.toml"), size=600)
    with pytest.raises(PresetError, match=r"max_bytes: .* 900 bytes or less\nhint: choose fewer pixels") as caught:
        look.finish(cut)
    assert load_image(caught.value.data).shape == (600, 600, 3)
    look, _ = preset_look(parse_preset(_limited(900, "should"), "own.toml"), size=600)
    done = look.finish(cut)
    assert [message for message, _ in done.warnings if "max_bytes" in message]


def test_enlarging_more_than_twice_is_a_warning() -> None:
    amazon = load_preset("amazon")
    small, large = (preset_look(amazon, size=size)[0].finish(product(180, 360)) for size in (600, 1200))
    assert not [w for w in small.warnings if "enlarged" in w[0]]
    (warning,) = (w for w in large.warnings if "enlarged" in w[0])
    assert "enlarged 2.9 times" in warning[0] and warning[1]


def test_a_canvas_that_is_no_square() -> None:
    own = parse_preset(
        'base = "amazon"\n[make]\nsize = [600, 800]\n[[rules]]\nrule = "aspect"\nvalue = "3:4"', "own.toml"
    )
    done = preset_look(own)[0].finish(product())
    assert done.size_hw == (800, 600) and done.report is not None and done.report.passed
    assert done.report.fill == pytest.approx(0.88, abs=0.02)


def test_density_and_credits_of_a_preset() -> None:
    done = preset_look(load_preset("gs1"), size=600)[0].finish(product(), Credits("Ann", "Ann 2026"))
    assert read_credits(done.data) == Credits("Ann", "Ann 2026")
    findings = {f.rule: f for f in check(done.data, load_preset("gs1")).findings}
    assert findings["min_dpi"].found == "300" and findings["private"].passed


def test_a_transparent_picture_where_no_rule_forbids_it() -> None:
    look, _ = preset_look(load_preset("shopify"), background="transparent", format="png", size=800)
    done = look.finish(product())
    assert done.report is not None and done.report.passed and done.size_hw == (800, 800)


def test_the_same_picture_twice_is_the_same_file() -> None:
    look, _ = preset_look(load_preset("google"), size=600)
    assert look.finish(product()).data == look.finish(product()).data


def test_a_webp_whose_background_its_encoder_changes_is_written_without_loss() -> None:
    rng, found = np.random.default_rng(5), []
    for _ in range(12):
        cut = product(300, 300)
        cut.rgba[..., :3] = rng.integers(0, 30, (1, 1, 3), np.uint8)
        for fill in (0.98, 0.99):
            look, _ = preset_look(load_preset("google"), size=601, format="webp", fill=fill)
            done = look.finish(cut)
            assert done.report is not None
            assert not [f for f in done.report.advice if f.rule == "background"]
            found.append(is_lossless(done.data))
    assert True in found
