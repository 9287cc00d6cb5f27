"""Shadows: where they lie, how dark they are, and that the product and its place stay as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.cutout import CutOut
from boothsam.runtime.errors import OptionError
from boothsam.service.cropping import Look
from boothsam.service.shadow import MOST, SHADOWS, on_canvas_with_shadow, with_shadow
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.conftest import DISC_BOX

KINDS = SHADOWS[1:]
FILL = 0.7

Mask = npt.NDArray[np.uint8]


def product(alpha: Mask, colour: tuple[int, int, int] = (200, 60, 40)) -> CutOut:
    """A plain product of this alpha, in the middle of a photo three times as large."""
    height, width = alpha.shape
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[alpha > 0, :3] = colour
    rgba[..., 3] = alpha
    return CutOut(rgba, (width, height, 2 * width, 2 * height), (3 * height, 3 * width))


def table() -> Mask:
    """A top on two legs, 300x200: what lies between the legs hangs over the ground."""
    alpha = np.zeros((200, 300), np.uint8)
    alpha[:40] = alpha[:, 20:50] = alpha[:, 250:280] = 255
    return alpha


def ball(side: int = 300) -> Mask:
    alpha = np.zeros((side, side), np.uint8)
    cv2.circle(alpha, (side // 2, side // 2), side // 2 - 2, 255, -1, cv2.LINE_AA)
    return alpha


def bottle() -> Mask:
    alpha = np.zeros((400, 120), np.uint8)
    alpha[100:] = 255
    alpha[:, 40:80] = 255
    return alpha


def on_white(cut: CutOut, kind: str, fill: float = FILL) -> npt.NDArray[np.float64]:
    """How much darker than the white canvas of 600x600 a shadow makes it, 0 to 255."""
    plain, shaded = (on_canvas_with_shadow(cut, name, "white", 600, fill, None) for name in ("none", kind))
    return (plain.astype(float) - shaded).mean(2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [table, ball, bottle])
def test_the_product_stays_what_and_where_it_was(kind: str, shape: object) -> None:
    cut = product(shape())  # type: ignore[operator]
    shaded = with_shadow(cut, kind=kind)
    assert shaded.box_xyxy == cut.box_xyxy
    left, top = (cut.window_xyxy[i] - shaded.window_xyxy[i] for i in (0, 1))
    height, width = cut.rgba.shape[:2]
    inside = shaded.rgba[top : top + height, left : left + width]
    assert (inside[cut.alpha == 255] == cut.rgba[cut.alpha == 255]).all()
    outside = np.ones(shaded.alpha.shape, bool)
    outside[top : top + height, left : left + width] = cut.alpha == 0
    assert 30 < shaded.alpha[outside].max() < 128  # to be seen, and never counted as product
    assert (shaded.rgba[outside][:, :3] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_shadow_is_cut_off_by_the_canvas(kind: str) -> None:
    for shape in (table(), ball(), bottle()):
        for background, fill in (("white", 1.0), ("white", 0.85), (None, 0.85)):
            plain, shaded = (
                on_canvas_with_shadow(product(shape), name, background, 400, fill, None) for name in ("none", kind)
            )
            for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
                assert (plain[side] == shaded[side]).all()
    rgba = with_shadow(product(ball()), kind=kind).rgba  # without a canvas there is room for all of it
    assert max(int(rgba[side][..., 3].max()) for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])) <= 2


def test_contact_is_darkest_at_what_touches_and_fades_where_the_product_rises() -> None:
    dark = on_white(product(table()), "contact")
    scale = 600 * FILL / 300
    left, top = (600 - 300 * scale) / 2, (600 - 200 * scale) / 2
    below = dark[round(top + 200 * scale) + 3]
    leg, between, beyond = (round(left + x * scale) for x in (35, 150, 340))
    assert below[leg] > 40 and below[leg] > 3 * below[between] and below[beyond] < 5
    ground = dark[:, leg]
    assert ground[round(top + 200 * scale) + 3 :].argmax() <= 3  # tight: nowhere darker farther away
    assert dark[: round(top + 150 * scale)].max() < 3  # nothing of it in the air


def test_contact_follows_a_ball_and_not_a_line() -> None:
    dark = on_white(product(ball()), "contact")
    side = 600 * FILL
    bottom = round(300 + side / 2)
    assert dark[bottom + 4, 300] > 25
    assert dark[bottom + 4, 300 - round(side / 2)] < 5 and dark[round(300 - side / 4)].max() < 3
    assert abs(dark[:, :300].sum() - dark[:, 300:].sum()) < 0.03 * dark.sum()


def test_cast_falls_to_the_right_lighter_and_wider_with_distance() -> None:
    cut = product(bottle())
    dark = on_white(cut, "cast", 0.6)
    right = round(300 + 60 * 0.9)
    assert dark[:, right + 8 :].sum() > 5 * dark[:, : round(300 - 60 * 0.9) - 8].sum()
    near, far = dark[:, right + 15].max(), dark[:, right + 110].max()
    assert near > 1.5 * far > 6
    assert dark[: round(300 - 200 * 0.9 + 120)].max() < 3  # on the ground, not on a wall
    alpha = with_shadow(cut, kind="cast").alpha
    columns = alpha[:, alpha.shape[1] - 130 :: 60].astype(float)
    assert (np.abs(np.diff(columns, axis=0)).max(0) < 12).all()  # a penumbra, no edge


@pytest.mark.parametrize("kind", ["contact", "cast"])
def test_no_dark_line_around_a_soft_rim(kind: str) -> None:
    soft = cv2.GaussianBlur(cv2.copyMakeBorder(ball(), 20, 20, 20, 20, cv2.BORDER_CONSTANT, value=0), (0, 0), 4)
    cut = product(np.asarray(soft, np.uint8), (250, 250, 250))
    shaded = on_canvas_with_shadow(cut, kind, "white", 600, 0.8, None).astype(int).mean(2)
    # From the backdrop beside it into a white product the picture only gets lighter, wherever it is entered.
    for angle in np.deg2rad(np.arange(0, 360, 5)):
        radius = np.arange(180, 300)
        x, y = np.rint(300 + radius * np.cos(angle)).astype(int), np.rint(300 + radius * np.sin(angle)).astype(int)
        line = shaded[y, x]
        rim, beside = line[:85], line[60:85]
        assert rim.min() >= beside.min() - 4


def test_a_hole_shows_the_ground_behind_it_and_glass_stays_clear() -> None:
    alpha = bottle()
    alpha[150:250, 30:90] = 120
    shaded = with_shadow(product(alpha), kind="cast")
    left, top = (product(alpha).window_xyxy[i] - shaded.window_xyxy[i] for i in (0, 1))
    middle = shaded.rgba[top + 190 : top + 210, left + 50 : left + 70]
    assert (middle[..., 3] == 120).all() and (middle[..., :3] == (200, 60, 40)).all()


def test_a_photo_of_twice_the_pixels_gets_the_same_shadow() -> None:
    for kind in KINDS:
        small, large = on_white(product(ball(400)), kind), on_white(product(ball(1600)), kind)
        y, x = np.ogrid[:600, :600]
        beside = np.hypot(y - 299.5, x - 299.5) > 300 * FILL + 2
        assert np.abs(small - large)[beside].max() < 10 and large[beside].max() > 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_canvas_shows_the_same_shadow_as_a_layer(kind: str) -> None:
    cut = product(ball(400))
    free, canvas = with_shadow(cut, kind=kind), on_canvas_with_shadow(cut, kind, "white", None, 0.4, None)
    x0, y0, x1, y1 = cut.box_xyxy
    left = round((canvas.shape[1] - (x1 - x0)) / 2) + free.window_xyxy[0] - x0
    top = round((canvas.shape[0] - (y1 - y0)) / 2) + free.window_xyxy[1] - y0
    shown = canvas[top : top + free.rgba.shape[0], left : left + free.rgba.shape[1], 0].astype(int)
    beside = (free.rgba[..., :3] == 0).all(2)
    assert np.abs(255 - free.alpha.astype(int) - shown)[beside].max() <= 3


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_mask(kind: str, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    alpha = np.zeros((height, width), np.uint8)
    for _ in range(data.draw(st.integers(1, 4))):
        y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        y1, x1 = data.draw(st.integers(y + 1, height)), data.draw(st.integers(x + 1, width))
        alpha[y:y1, x:x1] = data.draw(st.sampled_from((1, 90, 128, 255)))
    cut = product(alpha)
    shaded = with_shadow(cut, kind=kind)
    assert shaded.rgba.shape[:2] == (
        shaded.window_xyxy[3] - shaded.window_xyxy[1],
        shaded.window_xyxy[2] - shaded.window_xyxy[0],
    )
    left, top = (cut.window_xyxy[i] - shaded.window_xyxy[i] for i in (0, 1))
    inside = shaded.alpha[top : top + height, left : left + width].astype(int)
    assert (inside >= alpha).all() and inside[alpha == 0].max(initial=0) < 128
    canvas = on_canvas_with_shadow(cut, kind, "white", 64, 0.8, None)
    assert canvas.shape == (64, 64, 3)
    assert (canvas[[0, -1]] == on_canvas_with_shadow(cut, "none", "white", 64, 0.8, None)[[0, -1]]).all()


def test_the_look_takes_every_kind_and_names_them() -> None:
    for kind in SHADOWS:
        Look("png", shadow=kind)
    with pytest.raises(OptionError, match="unknown shadow 'long'; expected none, drop, contact, cast"):
        Look("png", shadow="long")
    with pytest.raises(OptionError, match=f"0.5 must lie in 0..{MOST}"):
        with_shadow(product(ball()), 0.5, "contact")
    cut = product(ball())
    assert with_shadow(cut, kind="none") is cut


def test_crop_and_batch_make_the_same_shadow(run: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    options = ("--background", "white", "--size", "300")
    table, photo = tmp_path / "shadows.csv", photos / "one.png"
    table.write_text(f'photo,name,box,shadow\n{photo},none,"{DISC_BOX}",none\n{photo},cast,"{DISC_BOX}",cast\n')
    result = run("batch", table, *options, "--shadow", "contact", "-o", tmp_path / "table")
    assert result.exit_code == 0, result.stderr
    for kind in ("none", "contact", "cast"):
        arguments = ("--box", DISC_BOX, *options, "--shadow", kind)
        single, many = tmp_path / f"{kind}.png", tmp_path / kind
        assert run("crop", photo, *arguments, "-o", single).exit_code == 0
        if kind == "contact":
            assert run("batch", photo, *arguments, "-o", many).exit_code == 0
            assert (many / "one.png").read_bytes() == single.read_bytes()
        else:
            assert (tmp_path / "table" / f"{kind}.png").read_bytes() == single.read_bytes()
    assert len({(tmp_path / f"{kind}.png").read_bytes() for kind in ("none", "contact", "cast")}) == 3
