"""Alpha and rim colours against composites whose alpha is known; see composites.py."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.cutout import AlphaOptions, CutOut, cut_out
from boothsam.runtime.matting import signed_distance
from boothsam.runtime.transforms import upscale_mask

from tests.runtime.composites import BACKDROPS, EDGES, Composite, draw

SIGMAS = (0.8, 1.5, 2.5, 4.0, 6.0)


def _band(alpha: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where the error is measured: three logits to each side of the true contour, and every truly soft pixel."""
    near = np.abs(signed_distance(np.rint(alpha * 255).astype(np.uint8))) < 3 * max(alpha.shape) / 256
    return near | ((alpha > 0) & (alpha < 1))


def _colours(cut: CutOut) -> npt.NDArray[np.float32]:
    full = np.zeros((*cut.original_hw, 3), np.float32)
    x0, y0, x1, y1 = cut.window_xyxy
    full[y0:y1, x0:x1] = cut.rgba[..., :3]
    return full


@pytest.fixture(scope="module")
def pictures() -> dict[tuple[str, str], list[Composite]]:
    return {
        (edge, back): [draw(seed, edge, back, 600, 800) for seed in (0, 1)] for edge, back in product(EDGES, BACKDROPS)
    }


@pytest.mark.parametrize(("edge", "back"), list(product(EDGES, BACKDROPS)))
def test_alpha_beats_the_hard_and_the_best_blurred_mask(
    pictures: dict[tuple[str, str], list[Composite]], edge: str, back: str
) -> None:
    ours, hard, blurred = [], [], []
    for picture in pictures[edge, back]:
        band = _band(picture.alpha)
        mask = upscale_mask(picture.logits, picture.alpha.shape).astype(np.float32)
        alpha = cut_out(picture.image, picture.logits).full_alpha.astype(np.float32) / 255
        ours.append(np.abs(alpha - picture.alpha)[band].mean())
        hard.append(np.abs(mask - picture.alpha)[band].mean())
        blurred.append(
            min(np.abs(cv2.GaussianBlur(mask, (0, 0), sigma) - picture.alpha)[band].mean() for sigma in SIGMAS)
        )
    # Measured against the best blurred mask: 0.04 to 0.35; up to 0.72 where the colours are 25 to 45 levels apart.
    limit = 0.85 if back == "close" else 0.6
    assert np.mean(ours) < limit * np.mean(blurred)
    assert np.mean(ours) < limit * np.mean(hard)


@pytest.mark.parametrize("edge", EDGES)
def test_rim_colours_on_red_are_the_products_own(pictures: dict[tuple[str, str], list[Composite]], edge: str) -> None:
    cleaned, kept = [], []
    for picture in pictures[edge, "red"]:
        for options, errors in ((AlphaOptions(), cleaned), (AlphaOptions(decontaminate=False), kept)):
            cut = cut_out(picture.image, picture.logits, options=options)
            rim = (picture.alpha > 0.05) & (picture.alpha < 0.95) & (cut.full_alpha > 0)
            errors.append(np.abs(_colours(cut) - picture.foreground)[rim].mean())
    assert np.mean(cleaned) < 8
    assert np.mean(kept) > 2 * np.mean(cleaned)


@pytest.mark.parametrize("kind", ["bool", "full logits", "hard low-res steps"])
def test_other_forms_of_mask_do_as_well(pictures: dict[tuple[str, str], list[Composite]], kind: str) -> None:
    picture = pictures["sharp", "textured"][0]
    mask = upscale_mask(picture.logits, picture.alpha.shape)
    forms: dict[str, npt.NDArray[np.generic]] = {
        "bool": mask,
        "full logits": np.where(mask, 9.0, -9.0),
        "hard low-res steps": np.where(picture.logits > 0, np.float32(8), np.float32(-8)),
    }
    band = _band(picture.alpha)
    alpha = cut_out(picture.image, forms[kind]).full_alpha / np.float32(255)
    assert np.abs(alpha - picture.alpha)[band].mean() < 0.5 * np.abs(mask - picture.alpha)[band].mean()


def test_without_refinement_alpha_follows_the_mask(pictures: dict[tuple[str, str], list[Composite]]) -> None:
    picture = pictures["sharp", "white"][0]
    mask = upscale_mask(picture.logits, picture.alpha.shape)
    alpha = cut_out(picture.image, picture.logits, options=AlphaOptions(refine=False)).full_alpha
    # The ramp is found on a reduced picture, so single contour pixels may fall to the other side.
    assert np.count_nonzero((alpha >= 128) != mask) < 0.01 * np.count_nonzero(mask)
    assert len(np.unique(alpha)) > 8


def test_colours_that_do_not_separate_leave_the_mask_in_charge() -> None:
    flat = np.full((300, 400, 3), 128, np.uint8) + np.random.default_rng(0).integers(0, 3, (300, 400, 3), np.uint8)
    mask = np.zeros((300, 400), np.bool_)
    mask[80:220, 100:300] = True
    alpha = cut_out(flat, mask).full_alpha
    assert np.count_nonzero((alpha >= 128) != mask) < 0.01 * np.count_nonzero(mask)


def test_alpha_is_exact_away_from_the_edge_and_nothing_of_the_backdrop_is_kept() -> None:
    picture = draw(2, "hair", "textured", 500, 700)
    cut = cut_out(picture.image, picture.logits, options=AlphaOptions(edge_px=8))
    distance = signed_distance(upscale_mask(picture.logits, (500, 700)).astype(np.uint8) * 255)
    alpha = cut.full_alpha
    # Two reduced cells beyond the band: its border is drawn cell by cell.
    assert (alpha[distance > 13] == 255).all() and (alpha[distance < -13] == 0).all()
    assert not cut.rgba[cut.alpha == 0].any()
    opaque = cut.full_alpha == 255
    np.testing.assert_array_equal(_colours(cut)[opaque], picture.image[opaque])
    for side in (cut.alpha[0], cut.alpha[-1], cut.alpha[:, 0], cut.alpha[:, -1]):
        assert side.any(), "the window is tight"


def test_product_that_leaves_the_photo_stays_opaque_at_its_border() -> None:
    image = np.full((200, 300, 3), 240, np.uint8)
    image[60:, :150] = (40, 90, 160)
    mask = np.zeros((200, 300), np.bool_)
    mask[60:, :150] = True
    alpha = cut_out(image, mask).full_alpha
    assert (alpha[80:, 0] == 255).all() and (alpha[-1, :140] == 255).all()


def test_thin_product_and_full_frame_and_one_pixel() -> None:
    image = np.full((400, 600, 3), 250, np.uint8)
    image[200:206, 50:550] = (30, 30, 60)
    mask = np.zeros((400, 600), np.bool_)
    mask[200:206, 50:550] = True
    alpha = cut_out(image, mask).full_alpha
    assert (alpha[202:204, 60:540] > 200).all()
    whole = cut_out(image, np.ones((400, 600), np.bool_))
    assert whole.window_xyxy == (0, 0, 600, 400) and (whole.alpha == 255).all()
    assert cut_out(image[:1, :1], np.ones((1, 1), np.bool_)).rgba.shape == (1, 1, 4)
