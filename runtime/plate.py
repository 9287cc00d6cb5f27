"""The plate: photos of the empty booth, taken once, that say of every later photo where the product is.

`Plate.from_images` learns the booth, `compare` gives the box and the clicks for the model, never the final mask: the
plate knows where something stands, the model knows where it ends. A photo is compared at a longest side of 1024
pixels, so most of the time is its resize; see `plate_motion`, `plate_light` and `plate_difference` for the steps.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
from boothsam.runtime.errors import CameraMoved, ImageError, NothingFound, OptionError
from boothsam.runtime.masks import BoolArray
from boothsam.runtime.model import Prompts
from boothsam.runtime.plate_difference import difference, product_mask
from boothsam.runtime.plate_light import expected, total
from boothsam.runtime.plate_motion import FINE, Motion, Structure, find_motion
from boothsam.runtime.transforms import FloatArray, Size, Uint8Array, check_image

FRAME = 1024  # longest side at which pictures are kept
MAX_IMAGES = 8
MOVED_PX = 4.0  # of FRAME: farther than this is no vibration
MIN_AREA = 0.0006  # share of the frame below which nothing is a product: a coin on a table half a metre wide
MAX_COVERAGE = 0.85  # nothing but a moved camera or a dead lamp changes more than this of the frame
MAIN_PART = 0.03  # of the largest part's area, from which a part belongs to the product
_ASPECT = 0.01
_SMALLEST = 256
_FORMAT = 1

Box = tuple[float, float, float, float]
State = Literal["product", "empty", "camera_moved", "other_size"]


@dataclass(frozen=True)
class PlateMatch:
    """What a photo shows that the empty booth does not.

    box_xyxy: around all of it, x1 and y1 exclusive. points, labels: clicks (x, y), 1 inside each main part, 0 on what
    is backdrop for sure. coverage: share of the photo that changed. moved: whether the camera moved, None where the
    backdrop has too little structure to tell. shift_px: (x, y) by which the backdrop moved, where that could be told.
    Boxes, points and shifts are in pixels of the photo. mask: (h, w) bool on the plate's small frame, a hint at most.
    """

    state: State
    size_hw: Size
    box_xyxy: Box | None = None
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    coverage: float = 0.0
    moved: bool | None = None
    shift_px: tuple[float, float] | None = None
    mask: BoolArray | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the mask, for JSON."""
        box = None if self.box_xyxy is None else [round(v, 1) for v in self.box_xyxy]
        return {
            "state": self.state,
            "box_xyxy": box,
            "points": [[round(x, 1), round(y, 1)] for x, y in self.points],
            "labels": list(self.labels),
            "coverage": round(self.coverage, 5),
            "moved": self.moved,
            "shift_px": None if self.shift_px is None else list(self.shift_px),
        }

    @property
    def prompts(self) -> Prompts:
        """Box and clicks for `SamModel.decode`. Raises what `require_product` raises."""
        self.require_product()
        return Prompts.make(np.array(self.points, np.float64), list(self.labels), self.box_xyxy)

    def require_product(self) -> None:
        """Raise unless there is a product.

        Raises:
            NothingFound: the booth is empty. CameraMoved: the camera moved, or the photo is of another shape.
        """
        if self.state == "empty":
            raise NothingFound(
                "the booth is empty: the photo shows what the plate shows",
                hint="put the product in, or take a new plate if it was in the old one",
            )
        if self.state == "camera_moved":
            where = "" if self.shift_px is None else ", by about {:.0f},{:.0f} pixels".format(*self.shift_px)
            raise CameraMoved(
                f"the camera or the backdrop moved since the plate was taken{where}",
                hint="take the plate again: photograph the empty booth as it stands now",
            )
        if self.state == "other_size":
            raise CameraMoved(
                f"the photo of {self.size_hw[1]}x{self.size_hw[0]} pixels has another shape than the plate",
                hint="take photo and plate with the same camera, in the same orientation and resolution",
            )


@dataclass(frozen=True, eq=False)
class Plate:
    """The empty booth.

    frame: (h, w, 3) uint8 RGB, longest side 1024: the median of the photos. noise: deviation in levels of one pixel
    between two photos, (h, w) float32 on a grid of a sixteenth. size_hw: of the photos. images: how many there were.
    """

    frame: Uint8Array
    noise: FloatArray
    size_hw: Size
    images: int

    @classmethod
    def from_images(cls, images: Iterable[Uint8Array]) -> Plate:
        """From 1 to 8 photos (H, W, 3) uint8 RGB of one size; only one is held at full size at a time.

        Raises:
            ImageError: an array that is no photo. OptionError: none, too many, or of several sizes.
        """
        frames: list[Uint8Array] = []
        sizes: list[Size] = []
        for image in images:
            sizes.append(check_image(image))
            frames.append(shrink(image))
        return cls.from_frames(frames, sizes)

    @classmethod
    def from_frames(cls, frames: Sequence[Uint8Array], sizes: Sequence[Size]) -> Plate:
        """From what `shrink` made of each photo, and the photos' (height, width). Raises as `from_images` does."""
        if len(frames) > MAX_IMAGES:
            raise OptionError(
                f"{len(frames)} photos of the empty booth; at most {MAX_IMAGES}", hint="send fewer of them"
            )
        if not frames:
            raise OptionError("no photo of the empty booth", hint="give one photo at least")
        if len(set(sizes)) > 1:
            found = " and ".join(f"{w}x{h}" for h, w in dict.fromkeys(sizes))
            raise OptionError(
                f"the photos of the empty booth have sizes {found}; expected one size",
                hint="take all of them with the same camera settings",
            )
        if min(sizes[0]) < 32 or max(sizes[0]) < _SMALLEST:
            raise ImageError(
                f"a photo of {sizes[0][1]}x{sizes[0][0]} pixels is too small for a plate",
                hint=f"the longest side must have {_SMALLEST} pixels at least",
            )
        stack = np.stack(frames)
        frame = frames[0] if len(frames) == 1 else np.rint(np.median(stack, 0)).astype(np.uint8)
        return cls(frame, _noise_map(stack), sizes[0], len(frames))

    def compare(self, image: Uint8Array) -> PlateMatch:
        """What a (H, W, 3) uint8 RGB photo shows that the plate does not. Raises ImageError for what is no photo."""
        size_hw = check_image(image)
        aspect = (size_hw[1] / size_hw[0]) / (self.size_hw[1] / self.size_hw[0])
        if abs(aspect - 1) > _ASPECT or 2 * max(size_hw) < max(self.frame.shape):
            return PlateMatch("other_size", size_hw)
        photo = shrink(image)
        if photo.shape != self.frame.shape:
            wanted = (self.frame.shape[1], self.frame.shape[0])
            photo = np.asarray(cv2.resize(photo, wanted, interpolation=cv2.INTER_LINEAR), np.uint8)
        noise = _pixel_noise(photo)
        motion = find_motion(self._structure, Structure.of(photo, noise))
        return _Comparison(self, photo, noise, motion, size_hw).match()

    @cached_property
    def _structure(self) -> Structure:
        return Structure.of(self.frame, self.pixel_noise)

    @cached_property
    def fine(self) -> FloatArray:
        """(h, w, 3) float32 levels at the size where pictures are compared."""
        return _fine(self.frame)

    @cached_property
    def pixel_noise(self) -> float:
        """Deviation of a pixel of `frame` from the booth, in levels."""
        return _pixel_noise(self.frame)

    @cached_property
    def key(self) -> str:
        """Hex digest of everything that comparisons depend on."""
        facts = str((self.size_hw, self.frame.shape)).encode()
        return hashlib.sha256(facts + self.frame.tobytes() + self.noise.tobytes()).hexdigest()

    @property
    def overexposed(self) -> float:
        """Share of the plate that is white beyond measure: there only darker things and edges are seen."""
        return float((self.frame.max(2) >= 254).mean())

    def to_bytes(self) -> bytes:
        """A file of numpy's .npz format."""
        buffer = io.BytesIO()
        facts = np.array([_FORMAT, *self.size_hw, self.images], np.int64)
        np.savez_compressed(buffer, frame=self.frame, noise=self.noise, facts=facts)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Plate:
        """From what `to_bytes` made.

        Raises:
            ImageError: damaged, of another format, or no plate at all.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                frame, noise, facts = (np.ascontiguousarray(file[name]) for name in ("frame", "noise", "facts"))
            version, height, width, images = (int(v) for v in facts)
            whole = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and noise.ndim == 2
            whole = whole and max(frame.shape) <= FRAME and noise.dtype == np.float32 and bool(np.isfinite(noise).all())
            if version != _FORMAT or not whole or min(height, width) < 1 or images < 1:
                raise ValueError(f"version {version}, frame {frame.dtype} {frame.shape}")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ImageError(
                f"the stored plate is damaged or of another version: {str(error)[:200]}", hint="take the plate again"
            ) from None
        return cls(frame, noise, (height, width), images)


class _Comparison:
    """One photo beside the plate."""

    def __init__(self, plate: Plate, photo: Uint8Array, noise: float, motion: Motion, size_hw: Size) -> None:
        self.plate, self.noise, self.motion, self.size_hw = plate, noise, motion, size_hw
        self.photo = _fine(photo)
        self.height, self.width = self.photo.shape[:2]
        # Pixels of a frame of 1024 in one of ours, and how far averaging has brought the noise down.
        self.unit = FRAME / max(self.height, self.width)
        self.averaged = max(self.height, self.width) / max(photo.shape)
        self.per_pixel = np.array([size_hw[1] / self.width, size_hw[0] / self.height])

    def match(self) -> PlateMatch:
        moved = self._moved()
        x, y = np.array(self.motion.shift(self.width, self.height)) * self.per_pixel
        shift = None if moved is None else (round(float(x), 1), round(float(y), 1))
        if moved:
            gained = self.motion.moved > self.motion.here
            return PlateMatch("camera_moved", self.size_hw, moved=True, shift_px=shift if gained else None)
        mask = self._mask()
        coverage = float(mask.mean())
        if coverage > MAX_COVERAGE:
            return PlateMatch("camera_moved", self.size_hw, coverage=coverage, moved=moved, mask=mask)
        parts = _parts(mask)
        if not parts:
            return PlateMatch("empty", self.size_hw, coverage=coverage, moved=moved, shift_px=shift, mask=mask)
        product = np.logical_or.reduce(parts)
        x0, y0, w, h = cv2.boundingRect(product.astype(np.uint8))
        corners = np.array([(x0, y0), (x0 + w, y0 + h)]) * self.per_pixel
        points, labels = self._clicks(parts, product, mask)
        box = (float(corners[0, 0]), float(corners[0, 1]), float(corners[1, 0]), float(corners[1, 1]))
        return PlateMatch("product", self.size_hw, box, points, labels, coverage, moved, shift, mask)

    def _moved(self) -> bool | None:
        motion = self.motion
        if not motion.told:
            return None
        farthest = motion.displacement(self.width, self.height) * self.unit
        if farthest > MOVED_PX and motion.moved >= 0.25 and motion.moved > motion.here + 0.04:
            return True
        # Structure all over the frame, and next to nothing of it is where it was: no product covers that much.
        if motion.here < 0.12 and motion.tiles >= 16 and motion.spread > 0.6:
            return True
        return False if motion.seen and motion.here > 0.2 else None

    def _mask(self) -> BoolArray:
        size = (self.width, self.height)
        near = self.motion.displacement(self.width, self.height) * self.unit <= MOVED_PX
        plate = self.plate.fine
        if near:
            # The plate follows the vibration.
            matrix, rim = self.motion.matrix, cv2.BORDER_REPLICATE
            plate = np.asarray(cv2.warpAffine(plate, matrix, size, flags=cv2.INTER_LINEAR, borderMode=rim), np.float32)
        seen = np.asarray(cv2.GaussianBlur(self.photo, (0, 0), 0.8), np.float32)
        plate = np.asarray(cv2.GaussianBlur(plate, (0, 0), 0.8), np.float32)
        predicted, unknown = expected(plate, seen)
        one = cv2.resize(self.plate.noise, size, interpolation=cv2.INTER_LINEAR)
        both = np.sqrt(one * one + np.float32(self.noise**2)) * np.float32(self.averaged)
        deviation = np.maximum(0.6 * both, np.float32(1.2)) + np.float32(0.002) * total(predicted)
        found = difference(predicted, seen, np.asarray(deviation, np.float32), unknown, slack=0.6)
        return product_mask(found, MIN_AREA)

    def _clicks(
        self, parts: list[BoolArray], product: BoolArray, mask: BoolArray
    ) -> tuple[tuple[tuple[float, float], ...], tuple[int, ...]]:
        """One click inside each of the three largest parts, and up to four on the backdrop about the product."""
        points = [_innermost(part) for part in parts[:3]]
        labels = [1] * len(points)
        x0, y0, w, h = cv2.boundingRect(product.astype(np.uint8))
        room = max(6, round(0.06 * max(w, h)))
        away = cv2.dilate(mask.astype(np.uint8), np.ones((2 * room + 1, 2 * room + 1), np.uint8)) == 0
        sides = [
            (x0 + w / 2, y0 - 2 * room),
            (x0 + w / 2, y0 + h + 2 * room),
            (x0 - 2 * room, y0 + h / 2),
            (x0 + w + 2 * room, y0 + h / 2),
        ]
        for x, y in sides:
            column, row = int(x), int(y)
            if 2 <= column < self.width - 2 and 2 <= row < self.height - 2 and away[row, column]:
                points.append((x, y))
                labels.append(0)
        scaled = tuple((float(x * self.per_pixel[0]), float(y * self.per_pixel[1])) for x, y in points)
        return scaled, tuple(labels)


def _parts(mask: BoolArray) -> list[BoolArray]:
    """The connected parts that belong to the product, largest first."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = [int(i) for i in np.argsort(-areas, kind="stable")] if count > 1 else []
    least = max(MIN_AREA * mask.size, MAIN_PART * int(areas.max(initial=0)))
    return [np.asarray(labels == i + 1, np.bool_) for i in order if areas[i] >= least]


def _innermost(part: BoolArray) -> tuple[float, float]:
    padded = cv2.copyMakeBorder(part.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(distance)), distance.shape)
    return float(column) + 0.5, float(row) + 0.5


def shrink(image: Uint8Array) -> Uint8Array:
    """At a longest side of 1024 at most, antialiased."""
    height, width = image.shape[:2]
    scale = FRAME / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _fine(frame: Uint8Array) -> FloatArray:
    height, width = frame.shape[:2]
    scale = min(1.0, FINE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)


def _pixel_noise(frame: Uint8Array) -> float:
    """Deviation of the noise in levels: the median of the Laplacian that no surface shows (Immerkaer, 1996)."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    second = cv2.filter2D(grey, cv2.CV_32F, kernel)[::3, ::3]  # every ninth is enough for a median
    return float(np.median(np.abs(second))) / (0.6745 * 6)


def _noise_map(stack: Uint8Array) -> FloatArray:
    """Deviation of a pixel between shots, by region, once there are three; before that the picture's own noise."""
    rows, columns = (max(2, side // 16) for side in stack.shape[1:3])
    own = _pixel_noise(stack[0])
    if len(stack) < 3:
        return np.full((rows, columns), own, np.float32)
    grey = stack.astype(np.float32).mean(3)
    grey -= np.median(grey.reshape(len(stack), -1), 1)[:, None, None]  # exposure differs between shots
    deviation = cv2.resize(grey.var(0, ddof=1), (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(np.maximum(np.sqrt(deviation), 0.7 * own), np.float32)
