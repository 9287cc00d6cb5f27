"""Counting and painting looks: against plain histograms, per image, and where nothing is marked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from boothsam.training.appearance import (
    EPSILON,
    SCALE,
    DraftLikeness,
    Looks,
    PromptLikeness,
    count_looks,
    log_ratio,
    paint,
    palette,
    share_out,
)


@pytest.fixture(scope="module")
def looks() -> torch.Tensor:
    """Three images of 8 x 8 places, each of one of four looks."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(0, 4, (3, 8, 8), generator=generator)
    return torch.nn.functional.one_hot(chosen, 4).permute(0, 3, 1, 2).float()


def test_counts_are_histograms_of_what_is_marked(looks: torch.Tensor) -> None:
    marked = torch.zeros(2, 3, 8, 8)
    marked[0, 0, 2:5, 1:6] = 1
    marked[1, 2, :, 4:] = 1
    found = count_looks(share_out(marked), looks, torch.tensor([0, 2]))
    for row, image, evidence in ((0, 0, 0), (1, 2, 2)):
        chosen = looks[image].argmax(0)[marked[row, evidence] > 0]
        wanted = np.bincount(chosen.numpy(), minlength=4) / len(chosen)
        # share_out adds 1e-4 to the sum, so that nothing marked gives nothing
        np.testing.assert_allclose(found[row, evidence].numpy(), wanted, atol=1e-4)
    assert (found[0, 1:] == 0).all()


def test_one_image_and_several_agree(looks: torch.Tensor) -> None:
    windows = share_out(torch.rand(3, 2, 8, 8))
    image_of = torch.tensor([0, 0, 2])
    together = count_looks(windows, looks, image_of)
    maps = paint(together, looks, image_of)
    assert maps.shape == (3, 2, 8, 8)
    for row, image in enumerate(image_of.tolist()):
        alone = count_looks(windows[row : row + 1], looks[image : image + 1], None)
        torch.testing.assert_close(alone[0], together[row])
        torch.testing.assert_close(paint(alone, looks[image : image + 1], None)[0], maps[row])


def test_painting_gives_every_place_its_looks_ratio(looks: torch.Tensor) -> None:
    ratio = torch.tensor([[[1.0, -2.0, 0.5, 3.0]]])
    painted = paint(ratio, looks[:1], None)[0, 0]
    assert torch.equal(painted, ratio[0, 0][looks[0].argmax(0)])


def test_log_ratio_is_that_of_smoothed_shares() -> None:
    inside, outside = torch.tensor([0.5, 0.0]), torch.tensor([0.25, 0.5])
    wanted = SCALE * np.log((inside.numpy() + EPSILON) / (outside.numpy() + EPSILON))
    np.testing.assert_allclose(log_ratio(inside, outside).numpy(), wanted, rtol=1e-5)


def test_what_is_not_prompted_says_nothing(looks: torch.Tensor) -> None:
    windows = torch.zeros(1, 5, 64)
    windows[0, 0, 27] = 1  # a single foreground click
    ratios = PromptLikeness()(windows, looks[:1], None)
    clicked = int(looks[0].argmax(0).flatten()[27])
    assert int(ratios[0, 0].argmax()) == clicked
    assert (ratios[0, 0].argsort()[:3] != clicked).all()
    assert (ratios[0, 1:] == 0).all()


def test_a_draft_knows_its_look_from_what_lies_around_it() -> None:
    looks = torch.zeros(1, 2, 32, 32)
    looks[:, 0] = 1
    looks[:, 0, 8:20, 8:20], looks[:, 1, 8:20, 8:20] = 0, 1
    draft = torch.zeros(1, 1, 32, 32)
    draft[:, :, 9:18, 9:18] = 1  # misses two columns and rows of the thing
    ratio, apart = DraftLikeness()(draft, looks, None)
    painted = paint(ratio, looks, None)[0, 0]
    assert (painted[8:20, 8:20] > 0.5).all()
    assert (painted[:8] < 0).all()
    assert apart[0, 0, 0] > 0 > apart[0, 0, 1]


def test_looks_are_shares_and_begin_as_colours() -> None:
    torch.manual_seed(0)
    module = Looks(6, 16)
    colours = palette(16)
    assert torch.equal(colours, palette(16))
    picture = colours.T.reshape(1, 3, 4, 4)
    shares = module(picture, torch.zeros(1, 6, 4, 4))
    torch.testing.assert_close(shares.sum(1), torch.ones(1, 4, 4))
    assert torch.equal(shares[0].flatten(1).argmax(0), torch.arange(16))
