"""boothsam.runtime.transforms against the reference's rules; PyTorch's interpolation is the yardstick for upscaling."""

import os

import numpy as np
import pytest
import torch
from boothsam.runtime import transforms
from boothsam.runtime.errors import ImageError, OptionError, PromptError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

sides = st.integers(1, 3000)


def blob(seed: int = 0) -> np.ndarray:
    """256x256 logits of a smooth two-sided field with a hard rim."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((1, 1, 9, 9)).astype(np.float32))
    return interpolate(coarse, (256, 256), mode="bicubic")[0, 0].numpy() * 6


def reference_upscale(low_res: np.ndarray, original_hw: tuple[int, int]) -> np.ndarray:
    """Sam.postprocess_masks in PyTorch."""
    height, width = transforms.input_size(original_hw)
    frame = interpolate(torch.from_numpy(low_res)[None, None], (1024, 1024), mode="bilinear", align_corners=False)
    return interpolate(frame[..., :height, :width], original_hw, mode="bilinear", align_corners=False)[0, 0].numpy()


def test_halves_round_up() -> None:
    assert transforms.input_size((1500, 2250)) == (683, 1024)  # 682.67
    assert transforms.input_size((2048, 3)) == (1024, 2)  # 1.5
    assert transforms.input_size((64, 64)) == (1024, 1024)
    assert transforms.input_size((1, 20000)) == (1, 1024)


@given(sides, sides)
def test_the_longest_side_is_exact(height: int, width: int) -> None:
    found = transforms.input_size((height, width))
    assert max(found) == 1024 and min(found) >= 1


@pytest.mark.parametrize("shape", [(300, 400), (1200, 800), (64, 64), (1024, 1024), (5, 2000)])
def test_preprocess_is_pillows_bilinear_at_the_top_left(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    frame, size_hw = transforms.preprocess(image)
    height, width = transforms.input_size(shape)
    expected = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    assert frame.shape == (1024, 1024, 3) and frame.dtype == np.uint8 and size_hw.dtype == np.int32
    assert size_hw.tolist() == [height, width]
    assert np.array_equal(frame[:height, :width], expected)
    assert not frame[height:].any() and not frame[:, width:].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3000), st.floats(0.001, 1), st.booleans(), st.sampled_from([64, 256, 1024]))
def test_strips_on_threads_give_every_byte_of_the_whole(
    longer: int, aspect: float, upright: bool, image_size: int
) -> None:
    shape = (longer, max(1, round(longer * aspect)))
    image = np.random.default_rng(longer).integers(0, 256, (*(shape if upright else shape[::-1]), 3), np.uint8)
    target = transforms.input_size(image.shape[:2], image_size)
    whole = np.asarray(Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "_STRIPS_FROM", 0)
        patch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
        assert np.array_equal(transforms.resize_longest_side(image, image_size), whole)


@pytest.mark.parametrize("shape", [(1512, 2016), (1501, 2001), (2016, 1512), (1200, 1200), (3500, 1000)])
def test_a_photo_large_enough_for_strips(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    assert image.size > transforms._STRIPS_FROM
    target = transforms.input_size(shape)
    whole = np.asarray(Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR))
    assert np.array_equal(transforms.resize_longest_side(image), whole)


def camera_photo(height: int, width: int) -> np.ndarray:
    """Soft shapes, a sharp edge and a sensor's noise."""
    rng = np.random.default_rng(4)
    coarse = torch.from_numpy(rng.random((1, 3, 12, 16)).astype(np.float32))
    smooth = interpolate(coarse, (height, width), mode="bicubic")[0].numpy().transpose(1, 2, 0) * 200 + 20
    smooth[:, width // 3 : width // 3 + 40] = 230
    return np.clip(smooth + 3 * rng.standard_normal(smooth.shape, np.float32), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(750, 1000), (1000, 750), (575, 769), (1536, 250), (1251, 1751)])
def test_the_fast_resize_differs_by_less_than_a_grey_level(shape: tuple[int, int]) -> None:
    """A frame of 256 keeps it quick; scales are those of 12 to 80 megapixels."""
    image = camera_photo(*shape)
    exact = transforms.resize_longest_side(image, 256).astype(np.int16)
    found = transforms.resize_longest_side(image, 256, "fast")
    assert found.dtype == np.uint8 and found.shape == exact.shape
    error = found - exact
    # Measured: 0.18 to 0.45 on average, 17 at most, at the sharp edge; without antialiasing 1.5 to 3.5 and 80.
    assert np.abs(error).mean() < 0.5 and np.abs(error).max() <= 20
    assert abs(error.mean()) < 0.15  # rounding favours no side


@pytest.mark.parametrize("shape", [(2000, 3071), (600, 800), (1024, 768), (5, 7)])
def test_photos_below_three_frames_are_resized_exactly_in_any_mode(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(6).integers(0, 256, (*shape, 3), np.uint8)
    fast, exact = (transforms.resize_longest_side(image, resize=resize) for resize in ("fast", "exact"))
    assert np.array_equal(fast, exact)


def test_an_unknown_resize() -> None:
    with pytest.raises(OptionError, match="'quick'; expected exact or fast"):
        transforms.preprocess(np.zeros((4, 4, 3), np.uint8), resize="quick")


def test_points_use_two_ratios_of_the_rounded_sizes() -> None:
    mapped = transforms.map_points([[2250, 1500], [0, 0]], (1500, 2250))
    assert mapped.tolist() == [[1024, 683], [0, 0]]  # one common scale would give 682.67
    assert mapped.dtype == np.float32
    assert transforms.map_boxes([[0, 0, 2250, 1500]], (1500, 2250)).tolist() == [[0, 0, 1024, 683]]


def test_map_points_leaves_its_argument_alone() -> None:
    points = np.array([[10.0, 20.0]])
    transforms.map_points(points, (100, 200))
    assert points.tolist() == [[10.0, 20.0]]


@pytest.mark.parametrize("original_hw", [(600, 800), (1500, 2250), (2001, 1337), (64, 64), (3000, 4000), (37, 911)])
def test_two_step_upscaling_is_the_references(original_hw: tuple[int, int]) -> None:
    low_res = blob()
    found, expected = transforms.upscale_logits(low_res, original_hw), reference_upscale(low_res, original_hw)
    assert found.shape == original_hw and found.dtype == np.float32
    # Logits reach 20; both compute in float32, in another order.
    assert np.abs(found - expected).max() < 2e-4
    differing = np.count_nonzero((found > 0) != (expected > 0))
    assert differing / found.size < 5e-6  # 5 ppm: pixels whose logit is 0 within float rounding


@settings(deadline=None, max_examples=60)
@given(st.integers(20, 1400), st.integers(20, 1400), st.data())
def test_a_window_equals_the_whole(height: int, width: int, data: st.DataObject) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    low_res = blob()
    whole = transforms.upscale_logits(low_res, (height, width))[y0:y1, x0:x1]
    window = transforms.upscale_logits_window(low_res, (height, width), (x0, y0, x1, y1))
    # The same samples; coordinates of another magnitude round differently in float32 (about 1e-4 of a pixel, steps of
    # about 1).
    assert np.abs(window - whole).max() < 1e-3


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 5), st.floats(-8, 8))
def test_a_mask_lies_inside_its_window(height: int, width: int, seed: int, threshold: float) -> None:
    low_res = blob(seed)
    whole = transforms.upscale_logits(low_res, (height, width)) > threshold
    window = transforms.mask_window(low_res, (height, width), threshold)
    if window is None:
        assert not whole.any()
    else:
        x0, y0, x1, y1 = window
        assert whole.sum() == whole[y0:y1, x0:x1].sum()
    mask = transforms.upscale_mask(low_res, (height, width), threshold)
    assert np.count_nonzero(mask != whole) <= 2  # a logit equal to the threshold within rounding


def test_the_window_is_not_the_whole_frame() -> None:
    low_res = np.full((256, 256), -5.0, np.float32)
    low_res[100:120, 60:70] = 5
    x0, y0, x1, y1 = transforms.mask_window(low_res, (3000, 4000)) or (0, 0, 0, 0)
    assert (x1 - x0) * (y1 - y0) < 0.02 * 3000 * 4000


def test_an_empty_mask_has_no_window() -> None:
    low_res = np.zeros((256, 256), np.float32)  # 0 is not > 0
    assert transforms.mask_window(low_res, (30, 40)) is None
    assert not transforms.upscale_mask(low_res, (30, 40)).any()


def test_a_mask_in_the_padding_alone_is_empty() -> None:
    low_res = np.full((256, 256), -5.0, np.float32)
    low_res[250:, :] = 5
    assert transforms.mask_window(low_res, (400, 800)) is None


@pytest.mark.parametrize("window", [(0, 0, 0, 5), (5, 5, 4, 9), (-1, 0, 5, 5), (0, 0, 41, 5)])
def test_bad_windows(window: tuple[int, int, int, int]) -> None:
    with pytest.raises(OptionError, match="empty or leaves the photo"):
        transforms.upscale_logits_window(blob(), (30, 40), window)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[1]],
    ],
)
def test_what_is_no_image(image: object) -> None:
    with pytest.raises(ImageError):
        transforms.preprocess(image)  # type: ignore[arg-type]


@pytest.mark.parametrize("point", [[np.nan, 1.0], [np.inf, 1.0], [-0.5, 1.0], [41.0, 1.0], [1.0, 31.0]])
def test_bad_points(point: list[float]) -> None:
    with pytest.raises(PromptError):
        transforms.check_points(np.array([[point]]), (30, 40))


def test_points_on_the_far_border_are_inside() -> None:
    transforms.check_points(np.array([[[40.0, 30.0], [0.0, 0.0]]]), (30, 40))


@pytest.mark.parametrize("box", [[5, 5, 4, 9], [5, 5, 5, 9], [np.nan, 0, 1, 1], [50, 0, 60, 9], [-9, -9, -1, -1]])
def test_bad_boxes(box: list[float]) -> None:
    with pytest.raises(PromptError):
        transforms.check_boxes(np.array([box]), (30, 40))


def test_a_box_over_the_border_is_kept_as_the_reference_keeps_it() -> None:
    transforms.check_boxes(np.array([[-3.0, -3.0, 45.0, 20.0]]), (30, 40))
