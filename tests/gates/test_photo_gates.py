"""Gates on what a 12-megapixel photo costs beside the networks: whole frames in memory, pixels that differ."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from boothsam.runtime.cutout import cut_out
from boothsam.runtime.model import SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.runtime.transforms import Size, input_size, preprocess, upscale_mask
from torch.nn.functional import interpolate

PHOTO = (3000, 4000)
FRAME = 3000 * 4000 * 3  # bytes of the photo
RENEW = "A full-size array more was made somewhere: work on the window or in strips, or raise the gate and say why."
T = TypeVar("T")


@pytest.fixture(scope="module")
def photo() -> np.ndarray[Any, Any]:
    rows, columns = np.ogrid[:3000, :4000]
    image = np.full((*PHOTO, 3), (120, 130, 140), np.uint8)
    image[(columns - 1900) ** 2 / 1100**2 + (rows - 1400) ** 2 / 950**2 < 1] = (200, 40, 30)
    return image


def ellipse() -> np.ndarray[Any, Any]:
    """(256, 256) logits of the photo's product: 27 % of it."""
    x, y = np.arange(256, dtype=np.float32)[None], np.arange(256, dtype=np.float32)[:, None]
    return (20 * (1 - ((x - 121) / 70) ** 2 - ((y - 89) / 61) ** 2)).astype(np.float32)


def peak(work: Callable[[], T]) -> tuple[float, T]:
    """Memory that `work` held at once beyond what was there before, in photos; NumPy's and OpenCV's arrays count."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = work()
        return (tracemalloc.get_traced_memory()[1] - before) / FRAME, made
    finally:
        tracemalloc.stop()


def test_the_way_to_the_encoder_copies_no_photo(photo: np.ndarray[Any, Any]) -> None:
    exact, _ = peak(lambda: preprocess(photo))
    assert exact <= 0.8, f"preprocess held {exact:.2f} photos at once, at most 0.8 were expected. {RENEW}"
    fast, _ = peak(lambda: preprocess(photo, resize="fast"))
    assert fast <= 1.4, f"the fast preprocess held {fast:.2f} photos at once, at most 1.4 were expected. {RENEW}"


def test_a_cut_out_holds_the_windows_layers_only(photo: np.ndarray[Any, Any]) -> None:
    logits = ellipse()
    cut_out(photo, logits)
    held, cut = peak(lambda: cut_out(photo, logits))
    share = cut.rgba.shape[0] * cut.rgba.shape[1] / (PHOTO[0] * PHOTO[1])
    assert 0.3 < share < 0.4
    assert held <= 1.1, (
        f"cut_out held {held:.2f} photos at once for a product of {share:.0%} of it, at most 1.1 were expected. {RENEW}"
    )


def test_set_image_to_cut_out_holds_no_copy_of_the_photo(photo: np.ndarray[Any, Any], color_folder: Path) -> None:
    predictor = SamPredictor(SamModel.load(color_folder, backend="ort-cpu", threads=1))
    predictor.set_image(photo)

    def click() -> object:
        found = predictor.predict([[1900, 1400]], [1], multimask_output=False)
        return cut_out(photo, found.low_res_masks[0])

    held, _ = peak(click)
    assert held <= 1.5, f"a click and its cut-out held {held:.2f} photos at once, at most 1.5 were expected. {RENEW}"


@pytest.mark.parametrize("size_hw", [PHOTO, (4000, 3000), (1500, 2250), (2001, 1337)])
def test_masks_differ_from_the_two_step_upscaling_by_parts_per_million(size_hw: Size) -> None:
    """The reference interpolates in PyTorch: 256 to 1024, the padding off, then to the photo."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(5)
    coarse = torch.from_numpy(rng.standard_normal((1, 1, 9, 9)).astype(np.float32))
    low_res = interpolate(coarse, (256, 256), mode="bicubic")[0, 0].numpy() * 6
    height, width = input_size(size_hw)
    frame = interpolate(torch.from_numpy(low_res)[None, None], (1024, 1024), mode="bilinear", align_corners=False)
    expected = interpolate(frame[..., :height, :width], size_hw, mode="bilinear", align_corners=False)[0, 0].numpy() > 0
    found = upscale_mask(low_res, size_hw)
    ppm = 1e6 * np.count_nonzero(found != expected) / expected.size
    assert 0.1 < expected.mean() < 0.9
    assert ppm <= 0.5, (
        f"{ppm:.2f} pixels of a million differ from the reference's mask at {size_hw}, at most 0.5 were expected "
        "(those whose logit is 0 within float rounding): a step of the upscaling or its sampling grid has changed."
    )
