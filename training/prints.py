"""Printed matter: words, logos, barcodes and whole wrap-around package designs; (h, w, 3) float32 RGB in 0..255."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import PhotoBank
from boothsam.training.shapes import blend, ellipse, fill, random_outline
from boothsam.training.textures import Colour, Field, Rng, Surface

_ONSETS = ("b", "br", "d", "f", "g", "k", "kl", "l", "m", "n", "p", "r", "s", "st", "t", "v", "j", "sk", "fr", "h")
_VOWELS = ("a", "e", "i", "o", "u", "ei", "oa", "y")
_CODAS = ("", "", "n", "r", "l", "s", "t", "rk", "nd")
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
_SCRIPTS = (cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)


def word(rng: Rng, syllables: int | None = None) -> str:
    """An invented, pronounceable word."""
    count = int(rng.integers(1, 4)) if syllables is None else syllables
    text = "".join(str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS)) for _ in range(count)) + str(rng.choice(_CODAS))
    style = rng.random()
    return text.upper() if style < 0.45 else text.capitalize() if style < 0.8 else text


def write(rng: Rng, text: str, box: tuple[int, int, int, int], ink: Colour, rgb: Surface) -> None:
    """One line of text fitted into box x0, y0, x1, y1 (pixels), in place."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    if width < 5 or height < 4:
        return
    font = int(rng.choice(_SCRIPTS)) if rng.random() < 0.12 else int(rng.choice(_FONTS))
    (tw, th), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = min(width / max(tw, 1), height / max(th * 1.15, 1))
    thickness = max(1, round(scale * rng.choice([1.5, 2.5, 4.0, 6.0])))
    x = x0 + int(rng.choice([0.0, 0.5, 0.5]) * max(0.0, width - tw * scale))
    mask = np.zeros((y1 - y0 + 2, x1 - x0 + 2), np.uint8)
    cv2.putText(mask, text, (x - x0, round((height + th * scale) / 2)), font, scale, 255, thickness, cv2.LINE_AA)
    view = rgb[max(0, y0) : y1, max(0, x0) : x1]
    blend(view, mask[: view.shape[0], : view.shape[1]].astype(np.float32) / 255, ink)


def barcode(rng: Rng, x: int, y: int, width: int, height: int, rgb: Surface) -> None:
    """Black bars on white with a quiet zone, in place."""
    view = rgb[y : y + height, x : x + width]
    if view.shape[0] < 4 or view.shape[1] < 10:
        return
    view[:] = np.float32(rng.uniform(225, 252))
    quiet = max(1, view.shape[1] // 14)
    inner = view.shape[1] - 2 * quiet
    bars = np.repeat(rng.integers(0, 2, 48), 2)[(np.arange(inner) * 96 // max(inner, 1))]
    view[quiet : -max(1, quiet), quiet : quiet + inner] *= (1 - 0.9 * bars.astype(np.float32))[None, :, None]


@dataclass
class Palette:
    """Colours that are printed together."""

    ground: Colour
    accent: Colour
    second: Colour
    ink: Colour


def palette(rng: Rng) -> Palette:
    """Ground, two accents and an ink that is legible on the ground."""
    roll = rng.random()
    if roll < 0.45:
        ground = np.full(3, rng.uniform(222, 252), np.float32) - rng.uniform(0, 14, 3).astype(np.float32)
    elif roll < 0.55:
        ground = np.full(3, rng.uniform(12, 50), np.float32)
    else:
        ground = textures.colour(rng)
    accent, second = textures.vivid(rng), textures.vivid(rng) if rng.random() < 0.6 else textures.colour(rng)
    light = float(ground.mean()) > 140
    ink = accent if rng.random() < 0.35 and abs(float(accent.mean() - ground.mean())) > 60 else np.float32(0)
    if isinstance(ink, np.float32):
        ink = np.full(3, rng.uniform(10, 60) if light else rng.uniform(215, 255), np.float32)
    return Palette(ground, accent, second, np.asarray(ink, np.float32))


def _wave(rng: Rng, height: int, width: int, level: float, rise: float) -> Field:
    """1 below a wavy line at `level` (share of the height), continuous over the wrap's two ends."""
    xs = np.linspace(0, 2 * np.pi, width, dtype=np.float32)
    line = level * height + rise * height * np.sin(int(rng.integers(1, 5)) * xs + np.float32(rng.uniform(0, 6.3)))
    ys = np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(np.clip(ys - line[None], 0, 1), np.float32)


def _motif(rng: Rng, rgb: Surface, colours: Palette, photos: PhotoBank, x0: int, x1: int) -> None:
    """A picture in a panel: a photo or a drawing in a round or free shape."""
    height, width = rgb.shape[0], x1 - x0
    side = int(min(width, height) * rng.uniform(0.35, 0.95))
    if side < 6:
        return
    y = int(rng.uniform(0.15, 0.9) * max(1, height - side))
    x = x0 + (width - side) // 2
    view = rgb[y : y + side, x : x + side]
    picture = photos.crop(rng, side, side, zoom=4.0) if rng.random() < 0.5 else None
    paint = textures.gradient(rng, side, side) if picture is None else picture.astype(np.float32)
    if picture is None and rng.random() < 0.5:
        paint = np.broadcast_to(colours.second, (side, side, 3))
    centre = side / 2
    outline = ellipse(centre, centre, side * 0.49, side * rng.uniform(0.3, 0.49)) if rng.random() < 0.4 else None
    mask = fill(random_outline(rng, side) if outline is None else outline, side, side)
    blend(view, mask[: view.shape[0], : view.shape[1]], paint[: view.shape[0], : view.shape[1]])


def _small_print(rng: Rng, rgb: Surface, ink: Colour, x0: int, x1: int) -> None:
    """A paragraph too small to read."""
    height = rgb.shape[0]
    line = max(2, int(height * rng.uniform(0.012, 0.03)))
    y = int(height * rng.uniform(0.3, 0.7))
    left, right = x0 + int((x1 - x0) * 0.12), x0 + int((x1 - x0) * 0.88)
    for row in range(int(rng.integers(3, 9))):
        top = y + 2 * line * row
        end = right - int(rng.uniform(0, 0.35) * (right - left))
        breaks = rng.random(max(1, end - left)) < 0.85
        rgb[top : top + line, left:end][:, breaks[: max(0, end - left)]] *= np.float32(0.3)
        rgb[top : top + line, left:end][:, breaks[: max(0, end - left)]] += ink * np.float32(0.7)


def wrap_design(rng: Rng, height: int, widths: list[int], photos: PhotoBank) -> Surface:
    """A package's print as one strip (height, sum(widths), 3): ground and bands run on from panel to panel.

    widths: panels from left to right; the widest carry name and picture, the others small print or a barcode.
    """
    height, widths = max(height, 8), [max(4, w) for w in widths]
    total = sum(widths)
    colours = palette(rng)
    rgb: Surface = np.broadcast_to(colours.ground, (height, total, 3)).astype(np.float32)
    roll = rng.random()
    if roll < 0.15:
        rgb += (textures.ramp(rng, height, total)[..., None] - np.float32(0.5)) * np.float32(rng.uniform(20, 80))
    elif roll < 0.27:
        rgb = np.ascontiguousarray(textures.surface(rng, height, total, photos, 0.6))
    if rng.random() < 0.6:
        blend(rgb, _wave(rng, height, total, rng.uniform(0.55, 0.92), rng.uniform(0, 0.05)), colours.accent)
    if rng.random() < 0.45:
        top = 1 - _wave(rng, height, total, rng.uniform(0.08, 0.4), rng.uniform(0, 0.04))
        blend(rgb, top, colours.second if rng.random() < 0.5 else colours.accent)
    if rng.random() < 0.3:
        y = int(height * rng.uniform(0.1, 0.8))
        rgb[y : y + max(1, int(height * rng.uniform(0.01, 0.1)))] = colours.second
    x0 = 0
    for width in widths:
        x1 = x0 + width
        if width >= 0.8 * max(widths) or rng.random() < 0.4:
            _front(rng, rgb, colours, photos, x0, x1)
        else:
            _side_panel(rng, rgb, colours, x0, x1)
        x0 = x1
    return np.clip(rgb, 0, 255)


def _front(rng: Rng, rgb: Surface, colours: Palette, photos: PhotoBank, x0: int, x1: int) -> None:
    height, width = rgb.shape[0], x1 - x0
    if rng.random() < 0.75:
        _motif(rng, rgb, colours, photos, x0, x1)
    margin = int(width * rng.uniform(0.05, 0.15))
    y = int(height * rng.uniform(0.06, 0.3))
    if rng.random() < 0.5:
        mark = int(min(width * 0.7, height * 0.25))
        blob = ellipse(x0 + width / 2, y + mark * 0.3, mark * 0.48, mark * rng.uniform(0.2, 0.36))
        blend(rgb, fill(blob, height, rgb.shape[1]), colours.accent)
        box = (x0 + (width - mark) // 2 + mark // 8, y, x0 + (width + mark) // 2 - mark // 8, y + int(mark * 0.6))
        write(rng, word(rng, 2), box, np.full(3, 250, np.float32), rgb)
        y += int(mark * 0.75)
    for _ in range(int(rng.integers(1, 4))):
        tall = int(height * rng.uniform(0.05, 0.17))
        write(rng, word(rng), (x0 + margin, y, x1 - margin, min(height, y + tall)), colours.ink, rgb)
        y += int(tall * rng.uniform(1.0, 1.5))
    if rng.random() < 0.5:
        y = int(height * rng.uniform(0.8, 0.92))
        write(rng, word(rng), (x0 + margin, y, x1 - margin, min(height, y + height // 14)), colours.ink, rgb)


def _side_panel(rng: Rng, rgb: Surface, colours: Palette, x0: int, x1: int) -> None:
    height, width = rgb.shape[0], x1 - x0
    if rng.random() < 0.4:
        y = int(height * rng.uniform(0.1, 0.3))
        write(rng, word(rng), (x0 + width // 8, y, x1 - width // 8, y + height // 12), colours.ink, rgb)
    if rng.random() < 0.7:
        _small_print(rng, rgb, colours.ink, x0, x1)
    if rng.random() < 0.4:
        barcode(rng, x0 + width // 8, int(height * rng.uniform(0.75, 0.88)), int(width * 0.7), height // 9, rgb)


def print_design(rng: Rng, height: int, width: int, photos: PhotoBank) -> Surface:
    """One panel of print, (height, width, 3)."""
    return (
        wrap_design(rng, height, [width], photos)[:height, :width]
        if min(height, width) >= 8
        else _tiny(rng, height, width)
    )


def _tiny(rng: Rng, height: int, width: int) -> Surface:
    return np.broadcast_to(textures.colour(rng), (max(1, height), max(1, width), 3)).astype(np.float32)
