"""The retake verdict: every check on a photo that breaks it and on one that does not."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.service import retake
from skimage.measure import blur_effect

WINDOW = (100, 60, 300, 220)


@pytest.fixture(scope="module")
def photo() -> npt.NDArray[np.uint8]:
    """A product with print on it, on a plain backdrop, with a camera's noise."""
    rng = np.random.default_rng(5)
    image = np.full((300, 400, 3), 215, np.uint8)
    image[70:210, 110:290] = (60, 110, 150)
    for row in range(80, 200, 12):
        cv2.putText(image, "BOOTH 0123", (116, row + 8), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (245, 240, 230), 1)
    return np.asarray(np.clip(image + rng.normal(0, 1.5, image.shape), 0, 255), np.uint8)


@pytest.fixture(scope="module")
def alpha() -> npt.NDArray[np.uint8]:
    mask = np.zeros((160, 200), np.uint8)
    mask[10:150, 10:190] = 255
    return mask


def test_a_good_photo_passes(photo: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8]) -> None:
    verdict = retake.judge(photo, alpha, WINDOW, 0.9)
    assert not verdict.retake and verdict.reasons == ()
    assert set(verdict.measures) == {"blur", "clipped_highlights", "touches_border", "low_agreement"}


@pytest.mark.parametrize("kernel", [(19, 19), (25, 1), (1, 25)])
def test_defocus_and_motion_are_blur(
    photo: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8], kernel: tuple[int, int]
) -> None:
    verdict = retake.judge(np.asarray(cv2.blur(photo, kernel), np.uint8), alpha, WINDOW, 0.9)
    assert [reason.code for reason in verdict.reasons] == ["blur"]
    assert verdict.reasons[0].value > verdict.reasons[0].limit


def test_blur_is_the_measure_of_crete_et_al(photo: npt.NDArray[np.uint8]) -> None:
    crop = photo[60:220, 100:300]
    everything = np.ones(crop.shape[:2], np.bool_)
    for sigma in (0.0, 1.0, 3.0):
        image = cv2.GaussianBlur(crop, (0, 0), sigma) if sigma else crop
        expected = blur_effect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), h_size=11)
        # scikit-image treats the outermost rows and columns in its own way.
        assert retake.blur(np.asarray(image, np.uint8), everything) == pytest.approx(expected, abs=0.03)


def test_burnt_out_light(photo: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8]) -> None:
    burnt = photo.copy()
    burnt[80:130, 120:280] = 255
    verdict = retake.judge(burnt, alpha, WINDOW, 0.9)
    assert [reason.code for reason in verdict.reasons] == ["clipped_highlights"]
    assert verdict.measures["clipped_highlights"] == pytest.approx(50 * 160 / (140 * 180), abs=0.01)
    backdrop = photo.copy()
    backdrop[:60] = 255  # not the product
    assert not retake.judge(backdrop, alpha, WINDOW, 0.9).retake


def test_a_product_that_leaves_the_photo(photo: npt.NDArray[np.uint8]) -> None:
    mask = np.zeros((160, 200), np.uint8)
    mask[10:150, :190] = 255
    shifted = np.ascontiguousarray(photo[:, 110:])
    verdict = retake.judge(shifted, mask, (0, 60, 200, 220), 0.9)
    assert "touches_border" in [reason.code for reason in verdict.reasons]
    assert verdict.measures["touches_border"] == 140
    # The window may end at the photo's border while the product does not.
    inside = np.zeros((160, 200), np.uint8)
    inside[10:150, 10:190] = 255
    assert retake.border_pixels(inside >= 128, (0, 60, 200, 220), photo.shape) == 0


def test_low_agreement(photo: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8]) -> None:
    verdict = retake.judge(photo, alpha, WINDOW, 0.5)
    assert [reason.code for reason in verdict.reasons] == ["low_agreement"]
    assert verdict.to_dict()["reasons"][0]["advice"]


def test_an_empty_mask_and_a_flat_photo_have_no_blur_and_no_clipping() -> None:
    flat = np.full((20, 20, 3), 128, np.uint8)
    assert retake.blur(flat, np.ones((20, 20), np.bool_)) == 0
    assert retake.clipped_share(flat, np.zeros((20, 20), np.bool_)) == 0
