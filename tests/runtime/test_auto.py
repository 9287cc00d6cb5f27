"""The main product without a prompt, on drawn photos and a model whose answers are exact."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.auto import PLAIN, AutoResult, find_product
from boothsam.runtime.backdrop import backdrop_difference
from boothsam.runtime.errors import NothingFound
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import upscale_mask

Uint8Array = npt.NDArray[np.uint8]
SIZE_HW = (480, 640)
RED = (185, 40, 35)


@pytest.fixture(scope="module")
def model(color_folder: Path) -> SamModel:
    return SamModel.load(color_folder, threads=1)


def noisy(image: npt.NDArray[np.float64], rng: np.random.Generator, sigma: float = 2.0) -> Uint8Array:
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def flat(rng: np.random.Generator) -> Uint8Array:
    return noisy(np.full((*SIZE_HW, 3), rng.uniform(120, 240, 3)), rng)


def gradient(rng: np.random.Generator) -> Uint8Array:
    y, x = np.mgrid[0 : 1 : SIZE_HW[0] * 1j, 0 : 1 : SIZE_HW[1] * 1j][..., None]
    vignette = 40 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    return noisy(rng.uniform(130, 190, 3) + rng.uniform(-50, 50, 3) * x + rng.uniform(-50, 50, 3) * y - vignette, rng)


def wood(rng: np.random.Generator) -> Uint8Array:
    height, width = SIZE_HW
    warp = cv2.GaussianBlur(rng.normal(0, 1, SIZE_HW), (0, 0), 40) * 1200
    y, x = np.mgrid[:height, :width]
    rings = np.sin(2 * np.pi * rng.uniform(0.02, 0.06) * (0.9 * y + 0.05 * x + 0.4 * warp))
    grain = cv2.GaussianBlur(rng.normal(0, 1, SIZE_HW), (0, 0), sigmaX=25, sigmaY=1) * 25
    planks = (y // 120 % 2) * 0.08
    light = 0.85 + 0.11 * rings + 0.12 * grain + 0.5 * planks
    return noisy(np.array([170, 120, 70]) * light[..., None], rng, 3)


BACKDROPS = {"flat": flat, "gradient": gradient, "wood": wood}


def put(
    image: Uint8Array, centre: tuple[int, int], radius: int, colour: tuple[int, int, int] = RED
) -> npt.NDArray[np.bool_]:
    """Draw a bottle-like product in place; returns its mask."""
    mask = np.zeros(image.shape[:2], np.uint8)
    x, y = centre
    cv2.ellipse(mask, (x, y + radius // 3), (radius, radius), 0, 0, 360, 1, -1)
    cv2.rectangle(mask, (x - radius // 2, y - radius), (x + radius // 2, y), 1, -1)
    shade = np.linspace(0.9, 1.1, image.shape[1])[None, :, None]
    image[mask > 0] = np.clip(np.array(colour) * np.broadcast_to(shade, image.shape)[mask > 0], 0, 255).astype(np.uint8)
    return mask > 0


def iou(result: AutoResult, truth: npt.NDArray[np.bool_]) -> float:
    return mask_iou(upscale_mask(result.product.low_res_mask, truth.shape), truth)


@pytest.mark.parametrize("backdrop", BACKDROPS)
@pytest.mark.parametrize(("centre", "radius"), [((130, 120), 60), ((500, 330), 70), ((320, 240), 130)])
def test_a_product_anywhere_is_found(model: SamModel, backdrop: str, centre: tuple[int, int], radius: int) -> None:
    image = BACKDROPS[backdrop](np.random.default_rng(3))
    truth = put(image, centre, radius)
    result = find_product(model, image)
    assert iou(result, truth) > 0.8
    assert not result.ambiguous
    assert result.product.score >= 0.8
    assert len(result.product.prompts) >= 5
    x0, y0, x1, y1 = result.product.box_xyxy
    assert x0 < centre[0] < x1 and y0 < centre[1] < y1


def test_a_product_that_is_cut_off_by_the_border_is_found(model: SamModel) -> None:
    image = gradient(np.random.default_rng(4))
    truth = put(image, (300, 420), 110)
    assert iou(find_product(model, image), truth) > 0.8


@pytest.mark.parametrize("backdrop", BACKDROPS)
@pytest.mark.parametrize("seed", range(2))
def test_an_empty_backdrop_holds_nothing(model: SamModel, backdrop: str, seed: int) -> None:
    with pytest.raises(NothingFound) as caught:
        find_product(model, BACKDROPS[backdrop](np.random.default_rng(seed)))
    assert "no product stands out" in caught.value.message
    assert caught.value.hint is not None and "--box" in caught.value.hint


@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_two_equal_products_are_ambiguous(model: SamModel, backdrop: str) -> None:
    image = BACKDROPS[backdrop](np.random.default_rng(5))
    left, right = put(image, (190, 240), 75), put(image, (450, 240), 75)
    result = find_product(model, image)
    assert result.ambiguous
    assert max(iou(result, left), iou(result, right)) > 0.8
    assert len(result.rivals_xyxy) == 1
    centres = sorted((box[0] + box[2]) / 2 for box in (result.product.box_xyxy, *result.rivals_xyxy))
    assert centres == pytest.approx([190, 450], abs=30)


def test_a_small_second_object_is_not_ambiguous(model: SamModel) -> None:
    image = flat(np.random.default_rng(6))
    truth = put(image, (260, 240), 110)
    put(image, (570, 90), 28, (40, 60, 150))
    result = find_product(model, image)
    assert not result.ambiguous
    assert iou(result, truth) > 0.8


@pytest.mark.parametrize("shape", [(1, 1, 3), (4, 3000, 3), (3000, 4, 3)])
def test_a_photo_without_room_holds_nothing(model: SamModel, shape: tuple[int, int, int]) -> None:
    with pytest.raises(NothingFound):
        find_product(model, np.zeros(shape, np.uint8))


def test_the_backdrop_model_follows_light_and_leaves_the_product() -> None:
    rng = np.random.default_rng(7)
    image = gradient(rng)[::4, ::4].copy()
    difference, spread = backdrop_difference(image)
    assert np.percentile(difference, 90) < 1.5
    assert spread < PLAIN
    mask = put(image, (60, 100), 25)
    difference, _ = backdrop_difference(image)
    assert np.median(difference[mask]) > 3
    assert np.percentile(difference[~mask], 90) < 1.5
