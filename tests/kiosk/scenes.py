"""What the kiosk's tests photograph: a drawn booth with one product, the truth about it, and a camera that sees it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.masks import BoolArray, rle_to_mask
from PIL import Image

ImageArray = npt.NDArray[np.uint8]
CAMERA_HW = (540, 960)
MUG_COLOURS = {
    "red": (188, 44, 38),
    "blue": (32, 74, 168),
    "green": (30, 122, 62),
    "violet": (112, 46, 140),
    "black": (34, 34, 38),
}
# EAN-13: a digit's seven modules in the left half, odd parity; and which of the left six are even, by the first digit.
_LEFT_ODD = [0x0D, 0x19, 0x13, 0x3D, 0x23, 0x31, 0x2F, 0x3B, 0x37, 0x0B]
_EVEN = [0b000000, 0b001011, 0b001101, 0b001110, 0b010011, 0b011001, 0b011100, 0b010101, 0b010110, 0b011010]


@dataclass(frozen=True)
class Scene:
    """image: (h, w, 3) uint8 RGB. product: (h, w) bool, what belongs to the product."""

    image: ImageArray
    product: BoolArray

    def inside(self) -> tuple[int, int]:
        """x, y of the product's innermost pixel: where somebody would tap."""
        depth = cv2.distanceTransform(np.pad(self.product, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
        return int(x), int(y)


def backdrop(size_hw: tuple[int, int] = CAMERA_HW, shift_xy: tuple[int, int] = (0, 0)) -> ImageArray:
    """An empty booth: a wall, a table and things that stand still; shift_xy: how far the camera was knocked."""
    height, width = size_hw
    unit = height / 720
    rows = np.linspace(226, 206, height)[:, None, None] * np.ones((1, width, 3))
    image = rows.astype(np.uint8)
    table = round(560 * unit)
    image[table:] = (178, 164, 148)
    for number in range(9):  # pegs on the wall and scratches on the table: by these a moved camera is noticed
        x, y = (60 + 145 * number + 17 * (number % 3)) * unit, (38 + 9 * (number % 4)) * unit
        peg, scratch = (150 + 6 * number, 140, 130), (150, 136, 122)
        cv2.circle(image, (round(x), round(y)), round(9 * unit), peg, -1, cv2.LINE_AA)
        start, end = (x, 640 * unit), (x + 40 * unit, (655 + 5 * number) * unit)
        cv2.line(image, (round(start[0]), round(start[1])), (round(end[0]), round(end[1])), scratch, 3, cv2.LINE_AA)
    moved = np.roll(image, shift_xy, (1, 0))
    grain = np.random.default_rng(7).normal(0, 1.5, moved.shape)
    return np.clip(moved + grain, 0, 255).astype(np.uint8)


def mug_scene(
    colour: str = "red",
    size_hw: tuple[int, int] = CAMERA_HW,
    centre: tuple[float, float] = (0.5, 0.6),
    scale: float = 1.0,
) -> Scene:
    """A mug before the backdrop. centre: of its body, as shares of width and height; scale: 1 is 40 % of the height."""
    image = backdrop(size_hw)
    height, width = size_hw
    mask = np.zeros(size_hw, np.uint8)
    x, y, unit = round(centre[0] * width), round(centre[1] * height), height / 720 * scale
    half, tall = round(105 * unit), round(140 * unit)
    cv2.ellipse(mask, (x + half, y), (round(72 * unit), round(84 * unit)), 0, 0, 360, 1, round(26 * unit))
    cv2.rectangle(mask, (x - half, y - tall), (x + half, y + tall), 1, -1)
    cv2.ellipse(mask, (x, y + tall), (half, round(24 * unit)), 0, 0, 360, 1, -1)
    cv2.ellipse(mask, (x, y - tall), (half, round(24 * unit)), 0, 0, 360, 1, -1)
    product = mask.astype(bool)
    shade = np.clip(1.25 - 0.55 * np.abs((np.arange(width) - x + 0.3 * half) / half), 0.6, 1.25)
    body = np.clip(np.asarray(MUG_COLOURS[colour]) * shade[None, :, None], 0, 255)
    image[product] = np.broadcast_to(body, image.shape)[product].astype(np.uint8)
    return Scene(image, product)


def full_size(mask: Mapping[str, Any], scene: Scene) -> BoolArray:
    """A mask of the segment route at the scene's size; the page asks for smaller ones."""
    small = rle_to_mask(mask["rle"]).astype(np.uint8)
    height, width = scene.product.shape
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def marker_photo(size_hw: tuple[int, int], points: list[tuple[int, int]]) -> ImageArray:
    """A grey photo with a magenta square of 17 pixels round every point: a test finds them on the screen."""
    image = np.full((*size_hw, 3), 128, np.uint8)
    for x, y in points:
        image[max(0, y - 8) : y + 9, max(0, x - 8) : x + 9] = (255, 0, 255)
    return image


def ean13(digits: str) -> ImageArray:
    """The symbol of 13 digits, right or wrong check digit included, three pixels a module with its quiet zone."""
    odd = [format(_LEFT_ODD[int(digit)], "07b") for digit in digits]
    right = [code.translate({48: "1", 49: "0"}) for code in odd]
    even = [code[::-1] for code in right]
    parity = format(_EVEN[int(digits[0])], "06b")
    left = "".join((even if parity[i] == "1" else odd)[i + 1] for i in range(6))
    bits = "0" * 11 + "101" + left + "01010" + "".join(right[7:]) + "101" + "0" * 11
    row = np.array([255 if bit == "0" else 0 for bit in bits], np.uint8).repeat(3)
    return np.repeat(np.tile(row, (150, 1))[..., None], 3, 2)


def with_label(scene: Scene, label: ImageArray, at_xy: tuple[int, int]) -> ImageArray:
    """The scene's image with a label stuck on; at_xy: its upper left corner."""
    image = scene.image.copy()
    x, y = at_xy
    image[y : y + label.shape[0], x : x + label.shape[1]] = label
    return image


def as_file(image: ImageArray, kind: str = "PNG", orientation: int = 1) -> bytes:
    """The image as a file. orientation: the EXIF tag; the stored pixels are turned so that upright it is `image`."""
    turned = {1: image, 6: np.rot90(image), 3: np.rot90(image, 2), 8: np.rot90(image, 3)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    extra = {"quality": 95} if kind == "JPEG" else {}
    Image.fromarray(np.ascontiguousarray(turned)).save(buffer, kind, exif=exif, **extra)
    return buffer.getvalue()


class FakeCamera:
    """A Y4M file that Chromium shows as its camera, ten frames a second; `show` changes what stands before it.

    Chromium reads the file frame by frame and starts again at its end, so a picture written over it in place is seen
    with the next round.
    """

    def __init__(self, path: Path, image: ImageArray) -> None:
        self.path = path
        self.size_hw = (image.shape[0], image.shape[1])
        height, width = self.size_hw
        head = f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420jpeg\n".encode()
        self._offset = len(head) + len(b"FRAME\n")
        path.write_bytes(head + b"FRAME\n" + _planes(image))

    def show(self, image: ImageArray) -> None:
        """Put another picture of the same size before the camera."""
        assert image.shape[:2] == self.size_hw
        with self.path.open("r+b") as file:
            file.seek(self._offset)
            file.write(_planes(image))


def _planes(image: ImageArray) -> bytes:
    return cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420).tobytes()
