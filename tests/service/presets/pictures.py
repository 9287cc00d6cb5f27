"""Products on a canvas, whole files and damaged ones, for the preset tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from boothsam.runtime.cutout import CutOut, cut_out
from boothsam.runtime.images import encode_image
from hypothesis import strategies as st

Uint8Array = npt.NDArray[np.uint8]
NAMES = {"amazon": "B000123456.MAIN", "gs1": "04006381333931_A1N1", "vtex": "mug-7"}  # else: any


def file_name(preset: str, ending: str = ".jpg") -> str:
    """A name that the preset takes."""
    return NAMES.get(preset, "mug 7") + ending


def product(width: int = 120, height: int = 200, colour: tuple[int, int, int] = (60, 90, 150)) -> CutOut:
    """A plain product of that size in a photo of 400x400."""
    mask = np.zeros((400, 400), np.bool_)
    top, left = (400 - height) // 2, (400 - width) // 2
    mask[top : top + height, left : left + width] = True
    return cut_out(np.where(mask[..., None], np.array(colour), 225).astype(np.uint8), mask)


def canvas(fill: float = 0.9, side: int = 600, colour: tuple[int, int, int] = (60, 90, 150)) -> Uint8Array:
    """(side, side, 3): a product of `fill` of the height and a third of the width on pure white."""
    picture = np.full((side, side, 3), 255, np.uint8)
    rows = round(side * (1 - fill) / 2)
    picture[rows : side - rows, side // 3 : 2 * side // 3] = colour
    return picture


def jpeg(picture: Uint8Array) -> bytes:
    """At the presets' own quality."""
    return encode_image(picture, "jpg", quality=92)


@st.composite
def products(draw: st.DrawFn) -> tuple[Uint8Array, npt.NDArray[np.bool_]]:
    """A photo and any mask in it that is not empty: lines, single pixels, islands, whole frames, cut by the border."""
    height, width = draw(st.integers(8, 260)), draw(st.integers(8, 260))
    mask = np.zeros((height, width), np.bool_)
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 9)) == 0:
            mask[:] = True
            continue
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        down, across = (draw(st.sampled_from((1, 2, 9, 60, 400))) for _ in range(2))
        if draw(st.booleans()):
            mask[y : y + down, x : x + across] = True
        else:  # a slope
            steps = np.arange(min(down, height - y, width - x))
            mask[y + steps, x + steps] = True
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    darkest = draw(st.integers(0, 215))
    texture = random.integers(darkest, min(256, darkest + draw(st.sampled_from((1, 12, 60, 255)))), (height, width, 3))
    backdrop = random.integers(222, 230, (height, width, 3))
    return np.where(mask[..., None], texture, backdrop).astype(np.uint8), mask
