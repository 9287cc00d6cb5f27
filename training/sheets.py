"""Pictures made of labelled tiles: fitted photos, outlines, prompts, checkerboards. All arrays (h, w, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.runtime.transforms import Uint8Array
from boothsam.training.photos import Image
from boothsam.training.prompts import Bits, box_of
from numpy.typing import ArrayLike
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

WANTED, FOUND, PROMPT = (20, 170, 90), (225, 50, 45), (255, 176, 0)  # outlines: drawn by hand, the model's, prompts
INK, PALE, PAPER = (35, 35, 40), (120, 120, 128), (255, 255, 255)
GAP = 8


@dataclass(frozen=True)
class Tile:
    """A picture and the line under it."""

    picture: Image
    label: str = ""


def fit(picture: Image, side: int, ground: tuple[int, int, int] = (244, 244, 246)) -> Image:
    """The whole picture centred on a side x side ground; small ones are enlarged."""
    scale = side / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=method)
    canvas = np.full((side, side, 3), ground, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    return canvas


def window_around(mask: Bits, margin: float = 0.25) -> tuple[slice, slice]:
    """Rows and columns of the mask's box with `margin` of its longer side around it, inside the photo."""
    x0, y0, x1, y1 = box_of(mask)
    pad = margin * max(x1 - x0, y1 - y0) + 4
    height, width = mask.shape
    rows = slice(max(0, int(y0 - pad)), min(height, int(y1 + pad)))
    return rows, slice(max(0, int(x0 - pad)), min(width, int(x1 + pad)))


def outlined(picture: Image, mask: Bits, colour: tuple[int, int, int], side: int) -> Image:
    """The picture fitted to `side` with the mask's outline, two pixels wide whatever the photo's size, and a tint."""
    base = fit(picture, side)
    plane = fit(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, 2), side, (0, 0, 0))[..., 0] > 127
    base[plane] = (base[plane] * 0.78 + np.array(colour) * 0.22).astype(np.uint8)
    contours, _ = cv2.findContours(plane.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(base, contours, -1, PAPER, 4, cv2.LINE_AA)
    cv2.drawContours(base, contours, -1, colour, 2, cv2.LINE_AA)
    return base


def with_prompt(picture: Image, side: int, box: ArrayLike | None = None, click: ArrayLike | None = None) -> Image:
    """The picture fitted to `side` with a box (x0, y0, x1, y1) and a click (x, y) in its own pixels."""
    base = fit(picture, side)
    scale = side / max(picture.shape[:2])
    shift = (side - np.array([picture.shape[1], picture.shape[0]]) * scale) / 2

    def place(point: ArrayLike) -> tuple[int, int]:
        x, y = (int(v) for v in np.round(np.asarray(point, float) * scale + shift))
        return x, y

    if box is not None:
        corners = np.asarray(box, float).reshape(2, 2)
        for colour, thick in ((PAPER, 4), (PROMPT, 2)):
            cv2.rectangle(base, place(corners[0]), place(corners[1]), colour, thick, cv2.LINE_AA)
    if click is not None:
        for colour, radius in ((PAPER, 7), (PROMPT, 5)):
            cv2.circle(base, place(click), radius, colour, -1, cv2.LINE_AA)
    return base


def on_checkerboard(rgba: Uint8Array, cell: int = 10) -> Image:
    """(h, w, 4) RGBA over light grey squares."""
    rows, columns = (np.arange(length) // cell for length in rgba.shape[:2])
    board = np.where((rows[:, None] + columns)[..., None] % 2, 255, 226).astype(np.float32)
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(rgba[..., :3] * alpha + board * (1 - alpha)), np.uint8)


def note(text: str, side: int) -> Image:
    """A blank tile that says why it is blank."""
    picture = Pillow.new("RGB", (side, side), (244, 244, 246))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(max(11, side // 13))
    lines = text.split("\n")
    step = font.getbbox("Ag")[3] + 4
    top = side / 2 - step * (len(lines) - 1) / 2
    for row, line in enumerate(lines):
        pen.text((side / 2, top + row * step), line, PALE, font, anchor="mm")
    return np.asarray(picture)


def sheet(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[Tile]], *, side: int, columns: int = 1, note: str = ""
) -> Image:
    """Rows of tiles under column heads, `columns` rows beside each other, with a title line.

    Every row has as many tiles as there are heads, each fitted to `side`. Labels that do not fit end in an ellipsis.
    """
    wrong = [len(row) for row in rows if len(row) != len(heads)]
    if wrong or not rows:
        raise ValueError(f"found {wrong[:1] or 'no'} tiles in a row, expected {len(heads)}, one under each head")
    large, medium, small = (ImageFont.load_default(max(10, round(side * k))) for k in (0.11, 0.078, 0.068))
    margin, line = 2 * GAP, round(side * 0.11)
    block = len(heads) * (side + GAP) - GAP
    step_x, step_y = block + 3 * GAP, side + line + GAP
    deep = -(-len(rows) // columns)
    top = margin + round(side * 0.2) + line + GAP // 2
    size = 2 * margin + columns * step_x - 3 * GAP, top + deep * step_y + margin - GAP
    page = Pillow.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((margin, margin), title, INK, large)
    if note:
        pen.text((size[0] - margin, margin + round(side * 0.03)), note, PALE, medium, anchor="ra")
    for column in range(columns):
        for index, head in enumerate(heads):
            pen.text((margin + column * step_x + index * (side + GAP), top - GAP // 2), head, PALE, medium, anchor="ls")
    for number, row in enumerate(rows):
        column, depth = divmod(number, deep)  # down first: the order reads like a list
        for index, tile in enumerate(row):
            x, y = margin + column * step_x + index * (side + GAP), top + depth * step_y
            page.paste(Pillow.fromarray(fit(tile.picture, side)), (x, y))
            pen.text((x, y + side + 2), _shortened(tile.label, small, side), INK, small)
    return np.asarray(page)


def _shortened(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
