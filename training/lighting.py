"""Light on a scene: contact and cast shadows, reflections in the table, vignettes, and the camera's flaws."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from boothsam.training import textures
from boothsam.training.photos import Image
from boothsam.training.textures import Field, Rng, Surface

Window = tuple[slice, slice]


def clip(canvas: Field, x: int, y: int, h: int, w: int) -> tuple[Window, Window] | tuple[None, None]:
    """Slices of the canvas and of an h x w patch at (x, y) where both exist, or (None, None)."""
    y0, x0 = max(0, y), max(0, x)
    y1, x1 = min(canvas.shape[0], y + h), min(canvas.shape[1], x + w)
    if y1 <= y0 or x1 <= x0:
        return None, None
    return np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]


@dataclass(frozen=True)
class Lamp:
    """One light for a whole scene.

    shear, length: where the top of a standing thing's shadow falls, in heights of the thing (length < 0: forward);
    offset: shift of a lying thing's shadow, in its size; soft: blur at the far end, in sizes; cast, contact: darkness
    0..1; mirror: strength of the reflection in a glossy table; tint (3,) colour of the darkness.
    """

    shear: float
    length: float
    offset: tuple[float, float]
    soft: float
    cast: float
    contact: float
    mirror: float
    tint: tuple[float, float, float]


def random_lamp(rng: Rng) -> Lamp:
    """From a light tent's faint shade to a hard low sun."""
    tint = tuple(float(v) for v in rng.uniform(0.75, 1.0, 3))
    return Lamp(
        shear=float(rng.normal(0, 0.7)),
        length=float(rng.uniform(0.1, 0.9) if rng.random() < 0.7 else rng.uniform(-0.6, -0.05)),
        offset=(float(rng.normal(0, 0.06)), float(rng.normal(0.02, 0.05))),
        soft=float(np.exp(rng.uniform(np.log(0.01), np.log(0.2)))),
        cast=float(rng.uniform(0.1, 0.75)) if rng.random() < 0.8 else 0.0,
        contact=float(rng.uniform(0.2, 0.8)) if rng.random() < 0.85 else 0.0,
        mirror=float(rng.uniform(0.08, 0.6)) if rng.random() < 0.16 else 0.0,
        tint=(tint[0], tint[1], tint[2]),
    )


def cast_shadow(rng: Rng, lamp: Lamp, canvas: Surface, alpha: Field, x: int, y: int, standing: bool) -> None:
    """Darken the canvas where a patch at (x, y) takes the light away, in place.

    Worked out on a coarse grid; a standing thing's shadow starts at its foot and grows softer away from it.
    """
    h, w = alpha.shape
    size = max(h, w)
    reach = int(size * (0.25 + (max(abs(lamp.shear), abs(lamp.length)) if standing else max(map(abs, lamp.offset)))))
    reach = min(reach, int(size * 1.3))
    view, inner = clip(canvas, x - reach, y - reach, h + 2 * reach, w + 2 * reach)
    if view is None or inner is None:
        return
    coarse = max(1, size // 80)
    rows, columns = view[0].stop - view[0].start, view[1].stop - view[1].start
    grid = (max(2, columns // coarse), max(2, rows // coarse))
    small = cv2.resize(alpha, (max(2, w // coarse), max(2, h // coarse)), interpolation=cv2.INTER_AREA)
    fx, fy = small.shape[1] / w, small.shape[0] / h
    left, top = (x - view[1].start) * fx, (y - view[0].start) * fy
    foot = small.shape[0] - 1.0
    if standing:
        shear = lamp.shear + rng.normal(0, 0.05)
        # A point at height t above the foot lands t * shear aside and t * length up the picture.
        warp = np.array(
            [[1, -shear, left + shear * foot], [0, lamp.length, top + foot * (1 - lamp.length)]], np.float32
        )
    else:
        dx, dy = (o * size * fx + rng.normal(0, 0.3) for o in lamp.offset)
        warp = np.array([[1, 0, left + dx], [0, 1, top + dy]], np.float32)
    plain = np.array([[1, 0, left], [0, 1, top]], np.float32)
    shade = np.zeros((grid[1], grid[0]), np.float32)
    unit = size * fx
    if lamp.cast > 0:
        far = cv2.warpAffine(small, warp, grid)
        near = cv2.GaussianBlur(far, (0, 0), max(0.6, unit * lamp.soft * 0.25))
        far = cv2.GaussianBlur(far, (0, 0), max(0.6, unit * lamp.soft))
        ys = np.arange(grid[1], dtype=np.float32)[:, None]
        away = np.clip(np.abs(ys - top - foot) / max(1.0, unit * 0.5), 0, 1) if standing else np.float32(0.5)
        shade = np.asarray((near + away * (far - near)) * np.float32(lamp.cast), np.float32)
    if lamp.contact > 0:
        close = cv2.warpAffine(small, plain, grid)
        sigma = max(0.6, unit * rng.uniform(0.012, 0.05))
        close = cv2.GaussianBlur(close, (0, 0), sigma)
        if standing:
            ys = np.arange(grid[1], dtype=np.float32)[:, None]
            close = close * np.clip(1 - np.abs(ys - top - foot) / max(1.0, unit * 0.18), 0, 1)
        shade = np.maximum(shade, close * np.float32(lamp.contact))
    tint = 1 - shade[..., None] * np.array(lamp.tint, np.float32)
    canvas[view] *= cv2.resize(tint, (columns, rows), interpolation=cv2.INTER_LINEAR)


def reflect(rng: Rng, lamp: Lamp, canvas: Surface, rgb: Surface, alpha: Field, x: int, y: int) -> None:
    """The mirror image of a standing patch in a glossy table, fading downwards, in place; part of the backdrop."""
    h, w = alpha.shape
    deep = int(h * 0.7)
    view, inner = clip(canvas, x, y + h - 1, deep, w)
    if view is None or inner is None or deep < 4:
        return
    mirrored, matte = rgb[::-1][:deep][inner], alpha[::-1][:deep][inner]
    fade = np.linspace(1, 0, deep, dtype=np.float32)[inner[0]] ** np.float32(1.3)
    matte = matte * fade[:, None] * np.float32(lamp.mirror)
    blur = rng.uniform(0.3, 0.02 * h + 0.6)
    picture = cv2.GaussianBlur(np.ascontiguousarray(mirrored), (0, 0), blur)
    matte = cv2.GaussianBlur(matte, (0, 0), blur)
    canvas[view] += matte[..., None] * (picture - canvas[view])


def room_light(rng: Rng, canvas: Surface) -> None:
    """Uneven light and vignetting over the finished scene, in place; smooth, so worked out coarsely."""
    h, w = canvas.shape[:2]
    rows, columns = max(2, h // 8), max(2, w // 8)
    light = np.ones((rows, columns), np.float32)
    if rng.random() < 0.5:
        light *= 1 - np.float32(rng.uniform(0.05, 0.4)) * (textures.ramp(rng, rows, columns) - np.float32(0.4))
    if rng.random() < 0.4:
        ys, xs = (
            np.linspace(-1, 1, rows, dtype=np.float32)[:, None],
            np.linspace(-1, 1, columns, dtype=np.float32)[None],
        )
        light *= 1 - np.float32(rng.uniform(0.05, 0.35)) * (ys**2 + xs**2) / 2
    tinted = np.repeat(light[..., None], 3, 2)
    if rng.random() < 0.15:
        mood = textures.smooth_noise(rng, rows, columns, 2)[..., None]
        tinted *= 1 + mood * rng.uniform(-0.1, 0.1, 3).astype(np.float32)
    canvas *= cv2.resize(tinted, (w, h), interpolation=cv2.INTER_LINEAR)


def camera(rng: Rng, image: Surface) -> Image:
    """White balance, exposure, contrast, blur, noise, sharpening and JPEG; (h, w, 3) uint8."""
    gain = rng.normal(1, 0.05, 3).astype(np.float32) * np.float32(rng.uniform(0.75, 1.15))
    contrast = np.float32(rng.uniform(0.75, 1.2))
    image = image * (gain * contrast)
    image += 128 - 128 * contrast
    side = max(image.shape[:2])
    if rng.random() < 0.55:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3) * side / 512)
    if rng.random() < 0.05:
        length = int(rng.integers(3, 8)) | 1
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        image = cv2.filter2D(image, -1, kernel if rng.random() < 0.5 else kernel.T)
    if rng.random() < 0.15:  # a phone's sharpening: bright and dark seams along edges
        image = image + (image - cv2.GaussianBlur(image, (0, 0), 1.5)) * np.float32(rng.uniform(0.3, 1.0))
    if rng.random() < 0.6:
        # One tile repeated at odd places is as good as fresh noise and many times as fast.
        tile = rng.standard_normal((211, 197, 1 if rng.random() < 0.5 else 3), np.float32)
        repeats = (image.shape[0] // 211 + 1, image.shape[1] // 197 + 1, 1)
        noise = np.tile(tile * np.float32(rng.uniform(0.5, 9)), repeats)[: image.shape[0], : image.shape[1]]
        image += noise
    flat: Image = np.clip(image, 0, 255, out=image).astype(np.uint8)
    if rng.random() < 0.6:
        quality = int(rng.integers(35, 96))
        _, packed = cv2.imencode(".jpg", flat, [cv2.IMWRITE_JPEG_QUALITY, quality])
        flat = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return flat
