"""Windows, options, canvases and files of cut-outs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.cutout import AlphaOptions, CutOut, cut_out
from boothsam.runtime.errors import ImageError, NothingFound, OptionError, OutputError, PromptError
from boothsam.runtime.images import encode_image, load_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def _scene(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 4, (*mask.shape, 3), np.uint8)
    return np.where(mask[..., None], np.array([40, 80, 150], np.uint8), np.array([235, 232, 228], np.uint8)) + noise


def _mask(height: int = 400, width: int = 600) -> npt.NDArray[np.bool_]:
    mask = np.zeros((height, width), np.bool_)
    mask[100:300, 150:450] = True
    return mask


@pytest.fixture(scope="module")
def cut() -> CutOut:
    return cut_out(_scene(_mask()), _mask())


def test_box_is_the_products(cut: CutOut) -> None:
    assert cut.original_hw == (400, 600)
    assert np.abs(np.subtract(cut.box_xyxy, (150, 100, 450, 300))).max() <= 1
    assert cut.full_alpha.shape == (400, 600)


@pytest.mark.parametrize("value", [np.full((256, 256), -3, np.float32), np.zeros((400, 600), np.bool_)])
def test_empty_mask_is_nothing_found(value: npt.NDArray[Any]) -> None:
    with pytest.raises(NothingFound, match="hint:"):
        cut_out(_scene(_mask()), value)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((3, 256, 256), np.float32),
        np.zeros((256, 200), np.float32),
        np.zeros((256, 256), np.bool_),
        np.zeros((400, 600), np.uint8),
        np.full((256, 256), np.nan, np.float32),
    ],
)
def test_unusable_logits(value: npt.NDArray[Any]) -> None:
    with pytest.raises(OptionError, match="hint:"):
        cut_out(_scene(_mask()), value)


def test_bad_photo_and_bad_box() -> None:
    with pytest.raises(ImageError):
        cut_out(np.zeros((400, 600), np.uint8), _mask())
    with pytest.raises(PromptError):
        cut_out(_scene(_mask()), _mask(), box=(700, 0, 800, 100))
    with pytest.raises(NothingFound):
        cut_out(_scene(_mask()), _mask(), box=(0, 0, 50, 50))


def test_box_drops_what_lies_outside_it() -> None:
    mask = _mask()
    mask[20:60, 20:60] = True
    cut = cut_out(_scene(mask), mask, box=(140, 90, 460, 310))
    assert cut.window_xyxy[0] > 100


@pytest.mark.parametrize(("fill_holes", "filled"), [(0, False), (500, False), (5000, True)])
def test_holes(fill_holes: int, filled: bool) -> None:
    mask = _mask()
    mask[180:220, 280:320] = False
    alpha = cut_out(_scene(mask), mask, options=AlphaOptions(fill_holes=fill_holes)).full_alpha
    assert (alpha[200, 300] == 255) is np.bool_(filled)


def test_backdrop_around_the_window_is_no_hole() -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[20:80, 20:80] = True
    alpha = cut_out(_scene(mask), mask, options=AlphaOptions(fill_holes=6000)).full_alpha
    assert alpha[5, 5] == 0


def test_islands() -> None:
    mask = _mask()
    mask[30:50, 30:50] = True
    assert cut_out(_scene(mask), mask).window_xyxy[0] < 40
    assert cut_out(_scene(mask), mask, options=AlphaOptions(drop_islands=1000)).window_xyxy[0] > 100


@pytest.mark.parametrize("options", [{"fill_holes": -1}, {"edge_px": 0.0}, {"threshold": float("nan")}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        AlphaOptions(**options)


def _product_box(canvas: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    solid = np.abs(canvas.astype(int) - 255).max(-1) > 100
    ys, xs = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


@pytest.mark.parametrize("size", [500, 2000, (900, 300), (300, 900)])
@pytest.mark.parametrize(("fill", "margin"), [(0.85, None), (1.0, 20), (None, None), (None, 40)])
def test_fill_is_the_boxs_share_of_the_usable_canvas(
    cut: CutOut, size: int | tuple[int, int], fill: float | None, margin: int | None
) -> None:
    canvas = cut.on_canvas("white", size=size, fill=fill, margin=margin)
    width, height = (size, size) if isinstance(size, int) else size
    assert canvas.shape == (height, width, 3)
    x0, y0, x1, y1 = _product_box(canvas)
    share = max((x1 - x0) / (width - 2 * (margin or 0)), (y1 - y0) / (height - 2 * (margin or 0)))
    expected = fill or (0.85 if margin is None else 1.0)
    assert share == pytest.approx(expected, abs=4 / min(width, height))  # box and placement round to pixels
    assert (x1 - x0) / (y1 - y0) == pytest.approx(1.5, rel=0.03)
    assert abs((x0 + x1) / 2 - width / 2) <= 2 and abs((y0 + y1) / 2 - height / 2) <= 2


def test_native_size_keeps_every_pixel(cut: CutOut) -> None:
    canvas = cut.on_canvas(None, fill=1.0, margin=30)
    assert canvas.shape[2] == 4
    x0, y0, x1, y1 = cut.box_xyxy
    assert canvas.shape[:2] == (y1 - y0 + 60, x1 - x0 + 60)
    opaque = canvas[..., 3] == 255
    assert np.count_nonzero(opaque) == np.count_nonzero(cut.alpha == 255)
    np.testing.assert_array_equal(canvas[opaque], cut.rgba[cut.alpha == 255])


@pytest.mark.parametrize(
    ("name", "colour"), [("white", (255, 255, 255)), ("#0a64fE", (10, 100, 254)), ("black", (0, 0, 0))]
)
@pytest.mark.parametrize("size", [None, 333, 1200])
def test_flat_background_is_exact(cut: CutOut, name: str, colour: tuple[int, int, int], size: int | None) -> None:
    canvas = cut.on_canvas(name, size=size)
    for border in (canvas[0], canvas[-1], canvas[:, 0], canvas[:, -1]):
        assert (border == colour).all()


@pytest.mark.parametrize("quality", [92, 96])
def test_white_survives_jpeg(cut: CutOut, quality: int) -> None:
    data = encode_image(cut.on_canvas("white", size=800), "jpg", quality=quality)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.layer[0][1:3] == picture.layer[1][1:3], "4:4:4"  # type: ignore[attr-defined]
    for canvas in (load_image(data), np.asarray(Image.open(io.BytesIO(data)))):
        for border in (canvas[:16], canvas[-16:], canvas[:, :16], canvas[:, -16:]):
            assert (border == 255).all()


def test_picture_as_background(cut: CutOut) -> None:
    backdrop = np.random.default_rng(0).integers(0, 255, (700, 800, 3), np.uint8)
    canvas = cut.on_canvas(backdrop)
    assert canvas.shape == backdrop.shape
    np.testing.assert_array_equal(canvas[0], backdrop[0])
    assert cut.on_canvas(backdrop, size=(100, 300)).shape == (300, 100, 3)


@pytest.mark.parametrize("size", [120, 900])
def test_resizing_makes_no_dark_fringe(size: int) -> None:
    """A white product on a transparent canvas stays white wherever it is visible, shrunk or enlarged."""
    mask = _mask()
    image = np.where(mask[..., None], np.uint8(255), np.uint8(60)).repeat(3, 2)
    canvas = cut_out(image, mask).on_canvas(None, size=size)
    visible = canvas[..., 3] > 20
    assert canvas[..., :3][visible].min() >= 240
    assert not canvas[canvas[..., 3] == 0].any()


@pytest.mark.parametrize(
    "options",
    [{"background": "pinkish"}, {"background": "#12345"}, {"background": "#12345g"}, {"fill": 0.0},
     {"fill": 1e-320}, {"fill": 1.2}, {"margin": -1}, {"size": 100, "margin": 50}, {"size": 0}, {"size": 20000}],
)  # fmt: skip
def test_bad_canvas_options(cut: CutOut, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        cut.on_canvas(**options)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 90), st.integers(0, 90), st.integers(4, 60), st.integers(4, 60), st.integers(1, 400))
def test_any_box_fits_any_canvas(x: int, y: int, width: int, height: int, size: int) -> None:
    mask = np.zeros((120, 130), np.bool_)
    mask[y : y + height, x : x + width] = True
    cut = cut_out(_scene(mask), mask)
    x0, y0, x1, y1 = cut.window_xyxy
    assert 0 <= x0 < x1 <= 130 and 0 <= y0 < y1 <= 120 and cut.rgba.shape == (y1 - y0, x1 - x0, 4)
    assert cut.on_canvas("white", size=size).shape == (size, size, 3)


def test_a_single_pixel_is_said_to_be_too_small() -> None:
    mask = np.zeros((200, 200), np.bool_)
    mask[100, 100] = True
    with pytest.raises(NothingFound, match=r"1 pixel.*too small"):
        cut_out(_scene(mask), mask)


def test_save(cut: CutOut, tmp_path: Path) -> None:
    path = cut.save(tmp_path / "mug.png")
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), cut.rgba)
    with pytest.raises(OutputError, match="on_canvas"):
        cut.save(tmp_path / "mug.jpg")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mug.png"]
