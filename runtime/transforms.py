"""From photo to the model's frame and back: the only copy of SAM's preprocessing and postprocessing.

Rules and rounding follow facebookresearch/segment-anything (utils/transforms.py, modeling/sam.py). Names:
`original_hw` is
the photo's (height, width), `input_hw` the size inside the frame after the longest side became `image_size`.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.errors import ImageError, OptionError, PromptError
from boothsam.runtime.threads import in_threads
from PIL import Image

Size = tuple[int, int]
FloatArray = npt.NDArray[np.float32]
Uint8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

RESIZES = ("exact", "fast")

# Bytes of a photo from which strips on threads pay: 1 million pixels.
_STRIPS_FROM = 3_000_000
_STRIP_ROWS = 256  # of the photo: a few MB in Pillow's form, which the allocator hands out again from strip to strip
_STRIP_COLUMNS = 512  # of the frame
_ROWS_FIRST = 1.9  # height over width up to which Pillow surely resamples rows first
_FAST_LEFT = 1.5  # frames that are left to blur after halving: below, a mean of four pixels is too blunt
_FAST_ROWS = 64
_FINE = 128


def input_size(original_hw: Size, image_size: int = 1024) -> Size:
    """(height, width) after scaling the longest side to `image_size`; halves round up, in double precision.

    Small photos are scaled up too. The short side of an extreme photo is at least one pixel (the reference gives 0
    and fails).
    """
    height, width = original_hw
    scale = image_size * 1.0 / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def check_image(image: npt.NDArray[np.uint8]) -> Size:
    """Return (height, width) of a (H, W, 3) uint8 RGB array.

    Raises:
        ImageError: another dtype, number of channels or an empty side.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(
            f"expected an image of shape (height, width, 3), uint8 RGB; found {found}",
            hint="use boothsam.load_image(path)",
        )
    if 0 in image.shape:
        raise ImageError(f"the image is empty: shape {image.shape}")
    return int(image.shape[0]), int(image.shape[1])


def resize_longest_side(image: Uint8Array, image_size: int = 1024, resize: str = "exact") -> Uint8Array:
    """Scale (H, W, 3) uint8 RGB so that the longer side is `image_size`; returns uint8.

    Pillow's bilinear filter, which antialiases when shrinking, is what SAM was trained with; filters without
    antialiasing move mask edges. resize: "exact" gives its every byte. "fast" shrinks photos of at least three frames
    with a filter of the same width made of OpenCV's quickest steps: grey levels differ by less than 1 on average.
    What that does to masks `boothsam verify --resize fast --photos FOLDER` says. Smaller photos are resized exactly.

    Raises:
        OptionError: another `resize`.
    """
    check_resize(resize)
    target = input_size(check_image(image), image_size)
    if image.shape[:2] == target:
        return image
    if resize == "fast" and max(image.shape[:2]) >= 2 * _FAST_LEFT * image_size:
        return _shrunk_fast(image, target)
    if image.size < _STRIPS_FROM or image.shape[0] > _ROWS_FIRST * image.shape[1]:
        return np.asarray(Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR))
    return _resized_in_strips(image, target)


def check_resize(resize: str) -> None:
    """Raises OptionError unless `resize` is one of RESIZES."""
    if resize not in RESIZES:
        raise OptionError(f"found resize {resize!r}; expected {' or '.join(RESIZES)}", hint="resize='exact'")


def _shrunk_fast(image: Uint8Array, target: Size) -> Uint8Array:
    """Means of 2x2 pixels while at least `_FAST_LEFT` frames are left, a small blur, then bilinear samples.

    What antialiases is the filter's variance. For a scale r Pillow's triangle has r*r/6 (in squared pixels of what is
    sampled), k halvings have (1 - 1/4**k)/12, bilinear samples 1/6 on average; the blur adds what is missing. Between
    the steps values keep seven more bits: rounding to grey levels there would cost masks more than the filter does.
    """
    fine: npt.NDArray[Any] = _halved(image)
    halvings = 1
    while max(fine.shape[:2]) >= 2 * _FAST_LEFT * max(target):
        fine = np.asarray(cv2.resize(fine, _half(fine.shape)[::-1], interpolation=cv2.INTER_AREA))
        halvings += 1
    scale = max(fine.shape[:2]) / max(target)
    missing = scale**2 / 6 - 1 / 6 - (1 - 0.25**halvings) / 12
    if missing > 0.5:
        fine = np.asarray(cv2.GaussianBlur(fine, (5, 5), math.sqrt(missing)))
    else:  # weights side, 1 - 2 * side, side have the variance 2 * side
        ratio = missing / 2 / (1 - missing)
        fine = np.asarray(cv2.GaussianBlur(fine, (3, 3), math.sqrt(-0.5 / math.log(ratio))))
    fine = np.asarray(cv2.resize(fine, target[::-1], interpolation=cv2.INTER_LINEAR))
    return np.asarray(cv2.convertScaleAbs(fine, alpha=1 / _FINE), np.uint8)


def _half(shape: tuple[int, ...]) -> Size:
    return (shape[0] + 1) // 2, (shape[1] + 1) // 2


def _halved(image: Uint8Array) -> npt.NDArray[np.uint16]:
    """Means of 2x2 pixels of (H, W, 3) uint8, in parts of 1/_FINE grey level, uint16."""
    if image.shape[0] % 2:  # the last row counts half
        fine = np.multiply(image, _FINE, dtype=np.uint16)
        return np.asarray(cv2.resize(fine, _half(image.shape)[::-1], interpolation=cv2.INTER_AREA), np.uint16)
    result = np.empty((*_half(image.shape), 3), np.uint16)

    def halve(top: int) -> None:
        part = np.multiply(image[top : top + _FAST_ROWS], _FINE, dtype=np.uint16)
        rows = result[top // 2 : (top + len(part)) // 2]
        cv2.resize(part, rows.shape[1::-1], dst=rows, interpolation=cv2.INTER_AREA)

    in_threads(halve, range(0, len(image), _FAST_ROWS))
    return result


def _resized_in_strips(image: Uint8Array, target: Size) -> Uint8Array:
    """Pillow's bilinear resize, byte for byte, on as many threads as there are cores.

    Pillow resamples every row, rounds to bytes, then resamples every column (the other way round for photos more than
    twice as tall as wide, which are not for here). So a strip of rows has its first pass and a strip of columns its
    second without the others, and no copy of the whole photo in Pillow's four bytes a pixel is made.
    """
    height, width = target
    narrow = np.empty((image.shape[0], width, 3), np.uint8)
    resized = np.empty((height, width, 3), np.uint8)

    def across(top: int) -> None:
        rows = slice(top, min(top + _STRIP_ROWS, len(narrow)))
        strip = Image.fromarray(image[rows])
        narrow[rows] = np.asarray(strip.resize((width, rows.stop - top), Image.Resampling.BILINEAR))

    def down(left: int) -> None:
        columns = slice(left, min(left + _STRIP_COLUMNS, width))
        strip = Image.fromarray(np.ascontiguousarray(narrow[:, columns]))
        resized[:, columns] = np.asarray(strip.resize((columns.stop - left, height), Image.Resampling.BILINEAR))

    in_threads(across, range(0, len(narrow), _STRIP_ROWS))
    in_threads(down, range(0, width, _STRIP_COLUMNS))
    return resized


def preprocess(
    image: Uint8Array, image_size: int = 1024, resize: str = "exact"
) -> tuple[Uint8Array, npt.NDArray[np.int32]]:
    """The encoder's two inputs: the frame (image_size, image_size, 3) uint8, filled at the right and bottom, and
    size_hw int32 (2,).

    The fill value does not matter: the graph zeroes everything outside size_hw after normalising. resize: as
    `resize_longest_side` takes it.
    """
    resized = resize_longest_side(image, image_size, resize)
    height, width = resized.shape[:2]
    frame = np.zeros((image_size, image_size, 3), np.uint8)
    frame[:height, :width] = resized
    return frame, np.array([height, width], np.int32)


def map_points(points: npt.ArrayLike, original_hw: Size, image_size: int = 1024) -> FloatArray:
    """Photo pixels to frame pixels for (..., 2) points in (x, y) order; float32.

    x and y are scaled by two separate ratios of the rounded sizes, as the reference does, not by one common scale.
    """
    height, width = input_size(original_hw, image_size)
    coords = np.array(points, np.float64)
    coords[..., 0] *= width / original_hw[1]
    coords[..., 1] *= height / original_hw[0]
    return coords.astype(np.float32)


def map_boxes(boxes_xyxy: npt.ArrayLike, original_hw: Size, image_size: int = 1024) -> FloatArray:
    """Photo pixels to frame pixels for (..., 4) boxes in XYXY order: each corner is a point."""
    boxes = np.asarray(boxes_xyxy, np.float64)
    return map_points(boxes.reshape(*boxes.shape[:-1], 2, 2), original_hw, image_size).reshape(boxes.shape)


def check_points(points: npt.NDArray[np.floating], original_hw: Size) -> None:
    """Refuse points that are not finite or lie outside the photo; (x, y) in photo pixels, the far border included."""
    height, width = original_hw
    if not np.isfinite(points).all():
        raise PromptError(f"point coordinates must be finite numbers, found {points.tolist()}")
    outside = (points < 0).any(-1) | (points[..., 0] > width) | (points[..., 1] > height)
    if outside.any():
        x, y = points[outside][0]
        raise PromptError(
            f"point ({x:g}, {y:g}) lies outside the photo of {width}x{height} pixels (width x height)",
            hint="points are x,y in pixels of the photo after its EXIF rotation",
        )


def check_boxes(boxes_xyxy: npt.NDArray[np.floating], original_hw: Size) -> None:
    """Refuse boxes that are not finite, reversed, empty or wholly outside the photo; XYXY in photo pixels.

    A box that hangs over the border is passed on as it is, as the reference does.
    """
    height, width = original_hw
    if not np.isfinite(boxes_xyxy).all():
        raise PromptError(f"box coordinates must be finite numbers, found {boxes_xyxy.tolist()}")
    for x0, y0, x1, y1 in boxes_xyxy.reshape(-1, 4):
        if x1 <= x0 or y1 <= y0:
            raise PromptError(
                f"box {x0:g},{y0:g},{x1:g},{y1:g} is empty or reversed; expected x0,y0,x1,y1 with x0 < x1 and y0 < y1",
                hint="COCO boxes are x,y,width,height: add the corner to them first",
            )
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise PromptError(
                f"box {x0:g},{y0:g},{x1:g},{y1:g} lies outside the photo of {width}x{height} pixels (width x height)",
                hint="boxes are x0,y0,x1,y1 in pixels of the photo after its EXIF rotation",
            )


def upscale_logits(low_res: npt.NDArray[np.floating], original_hw: Size, image_size: int = 1024) -> FloatArray:
    """(h, w) low-resolution logits to (H, W) float32 logits of the photo, in the reference's two bilinear steps.

    The whole frame first, then the crop of the padding, then the photo's size: one step from 256 would shift the mask
    by the
    rounding of the short side. Agrees with torch's F.interpolate (align_corners=False) but for float rounding.
    """
    height, width = input_size(original_hw, image_size)
    frame = cv2.resize(np.asarray(low_res, np.float32), (image_size, image_size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(
        cv2.resize(frame[:height, :width], (original_hw[1], original_hw[0]), interpolation=cv2.INTER_LINEAR), np.float32
    )


def _window(start: int, stop: int, out: int, source: int) -> tuple[slice, slice, slice]:
    """Source slice, its image in the output and the wanted part of that, for one axis of an exact sub-window.

    Sampling phases repeat every out/g output and source/g source pixels (g their greatest common divisor), so a
    window that
    starts and ends on that grid is resized exactly as it would be inside the whole; one period beside the wanted part
    keeps the clamping at a cut out of it.
    """
    g = math.gcd(out, source)
    period_out, period_in = out // g, source // g
    pad = -(-out // source) * 2  # output pixels that a cut can influence: two source pixels
    first = max(0, (start - pad) // period_out)
    last = min(g, -(-(stop + pad) // period_out))
    offset = first * period_out
    return (
        slice(first * period_in, last * period_in),
        slice(offset, last * period_out),
        slice(start - offset, stop - offset),
    )


def _frame_window(low_res: npt.NDArray[np.floating], rows: slice, columns: slice, image_size: int) -> FloatArray:
    """Rows and columns of the logits enlarged to the frame.

    Where a logit is a whole number of frame pixels wide, the sampling phases are the same in any part of the logits:
    those around the window, one more on each side, are enlarged exactly as they would be among all.
    """
    logits = np.asarray(low_res, np.float32)
    down, across = image_size // logits.shape[0], image_size // logits.shape[1]
    top = left = 0
    size = image_size, image_size
    if image_size % logits.shape[0] == 0 == image_size % logits.shape[1]:
        top, bottom = max(0, rows.start // down - 1), min(logits.shape[0], -(-rows.stop // down) + 1)
        left, right = max(0, columns.start // across - 1), min(logits.shape[1], -(-columns.stop // across) + 1)
        logits, size = logits[top:bottom, left:right], ((right - left) * across, (bottom - top) * down)
    frame = cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR)
    y, x = top * down, left * across
    return np.asarray(frame[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x], np.float32)


def upscale_logits_window(
    low_res: npt.NDArray[np.floating], original_hw: Size, window_xyxy: tuple[int, int, int, int], image_size: int = 1024
) -> FloatArray:
    """`upscale_logits(...)[y0:y1, x0:x1]` without computing the rest: (y1 - y0, x1 - x0) float32.

    Raises:
        OptionError: an empty window or one outside the photo.
    """
    x0, y0, x1, y1 = window_xyxy
    if not (0 <= x0 < x1 <= original_hw[1] and 0 <= y0 < y1 <= original_hw[0]):
        raise OptionError(
            f"window {window_xyxy} (x0, y0, x1, y1) is empty or leaves the photo of {original_hw} (height, width)"
        )
    height, width = input_size(original_hw, image_size)
    source_y, out_y, want_y = _window(y0, y1, original_hw[0], height)
    source_x, out_x, want_x = _window(x0, x1, original_hw[1], width)
    part = _frame_window(low_res, source_y, source_x, image_size)
    size = out_y.stop - out_y.start, out_x.stop - out_x.start
    if part.shape != size:
        part = np.asarray(cv2.resize(part, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    return np.asarray(part[want_y, want_x], np.float32)


def mask_window(
    low_res: npt.NDArray[np.floating], original_hw: Size, threshold: float = 0.0, image_size: int = 1024
) -> tuple[int, int, int, int] | None:
    """XYXY photo window that surely holds every pixel whose upscaled logit exceeds `threshold`; None when there is
    none.

    Bilinear interpolation cannot exceed its corners, so nothing lies further than one low-resolution pixel from a
    positive one.
    """
    positive = np.asarray(low_res) > threshold
    if not positive.any():
        return None
    height, width = input_size(original_hw, image_size)
    spans = []
    for axis, inside, out in ((1, height, original_hw[0]), (0, width, original_hw[1])):
        hit = np.flatnonzero(positive.any(axis=axis))
        step = image_size / positive.shape[1 - axis]  # frame pixels per logit
        low = (hit[0] - 1.0) * step - 2.0
        high = (hit[-1] + 2.0) * step + 2.0
        spans.append((max(0, math.floor(low * out / inside)), min(out, math.ceil(high * out / inside))))
    (y0, y1), (x0, x1) = spans
    return None if y0 >= y1 or x0 >= x1 else (x0, y0, x1, y1)


def upscale_mask(
    low_res: npt.NDArray[np.floating], original_hw: Size, threshold: float = 0.0, image_size: int = 1024
) -> BoolArray:
    """(h, w) logits to the photo's (H, W) bool mask, `> threshold` strictly, computing only the mask's own window."""
    mask = np.zeros(original_hw, np.bool_)
    window = mask_window(low_res, original_hw, threshold, image_size)
    if window is not None:
        x0, y0, x1, y1 = window
        np.greater(upscale_logits_window(low_res, original_hw, window, image_size), threshold, out=mask[y0:y1, x0:x1])
    return mask
