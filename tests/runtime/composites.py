"""Pictures with known alpha: drawn products over drawn backdrops, and logits as a good, imperfect model gives them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.transforms import input_size

FloatArray = npt.NDArray[np.float32]
EDGES = ("sharp", "defocus", "hair")
BACKDROPS = ("white", "red", "textured", "close")


@dataclass(frozen=True)
class Composite:
    """image (H, W, 3) uint8; alpha (H, W) float32 0..1; foreground (H, W, 3) float32 0..255; logits (256, 256)."""

    image: npt.NDArray[np.uint8]
    alpha: FloatArray
    foreground: FloatArray
    logits: FloatArray


def _noise(rng: np.random.Generator, height: int, width: int, cell: float) -> FloatArray:
    """Smooth noise of unit deviation; features about `cell` pixels across."""
    rows, columns = max(2, round(height / cell)), max(2, round(width / cell))
    field = cv2.resize(
        rng.normal(size=(rows, columns)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def _texture(rng: np.random.Generator, height: int, width: int, base: npt.ArrayLike, contrast: float) -> FloatArray:
    unit = max(height, width)
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = base
    for cell, share in ((unit / 5, 0.6), (unit / 30, 0.5), (unit / 150, 0.35)):
        tint = rng.uniform(0.4, 1.0, 3).astype(np.float32)
        picture += _noise(rng, height, width, cell)[..., None] * tint * contrast * share
    return picture


def _print_label(rng: np.random.Generator, picture: FloatArray) -> None:
    """Hard-edged blocks of other colours, as printed packages have, drawn over `picture`."""
    height, width = picture.shape[:2]
    for _ in range(60):
        corner = rng.uniform(0, 1, 2) * (width, height)
        size = rng.uniform(0.02, 0.15, 2) * (width, height)
        tilted = cv2.boxPoints((tuple(corner), tuple(size), float(rng.uniform(0, 90))))
        cv2.fillPoly(picture, [np.rint(tilted).astype(np.int32)], tuple(float(v) for v in rng.uniform(20, 235, 3)))


def _alpha(rng: np.random.Generator, height: int, width: int, edge: str) -> FloatArray:
    """A wavy closed outline, drawn four times too large and averaged; threads for "hair", a lens blur for "defocus"."""
    over = 4
    unit = min(height, width)
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radius = np.ones_like(angle)
    for wave in range(2, 8):
        radius += rng.normal(0, 0.18 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    centre = np.array([width, height]) * rng.uniform(0.46, 0.54, 2)
    outline = centre + 0.27 * unit * radius[:, None] * np.stack([1.15 * np.cos(angle), np.sin(angle)], 1)
    canvas = np.zeros((height * over, width * over), np.uint8)
    cv2.fillPoly(canvas, [np.round(outline * over * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    if edge == "hair":
        for index in rng.integers(0, len(outline), 260):
            heading = angle[index] + rng.normal(0, 0.35)
            length = unit * rng.uniform(0.008, 0.03)
            along = np.linspace(-0.3, 1, 12)[:, None] * length
            bend = heading + np.linspace(0, rng.normal(0, 0.8), 12)
            thread = outline[index] + along * np.stack([np.cos(bend), np.sin(bend)], 1)
            thickness = max(1, round(over * rng.uniform(0.0005, 0.0016) * unit))
            cv2.polylines(canvas, [np.round(thread * over * 16).astype(np.int32)], False, 255, thickness, cv2.LINE_8, 4)
    alpha = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    sigma = max(height, width) / 340 if edge == "defocus" else 0.6
    return np.clip(cv2.GaussianBlur(alpha, (0, 0), sigma), 0, 1).astype(np.float32)


def imperfect_logits(rng: np.random.Generator, alpha: FloatArray, error_px: float = 1.0) -> FloatArray:
    """(256, 256) logits of an (H, W) alpha: blurred, shifted, the boundary wandering `error_px` logits to and fro."""
    inside = input_size((alpha.shape[0], alpha.shape[1]), 256)
    frame = np.zeros((256, 256), np.float32)
    frame[: inside[0], : inside[1]] = cv2.resize(alpha, inside[::-1], interpolation=cv2.INTER_AREA)
    frame = cv2.GaussianBlur(frame, (0, 0), 0.8)
    ys, xs = np.mgrid[:256, :256].astype(np.float32)
    shift = rng.normal(0, 0.25, 2)
    dx = (_noise(rng, 256, 256, 10) * 0.5 * error_px + shift[0]).astype(np.float32)
    dy = (_noise(rng, 256, 256, 10) * 0.5 * error_px + shift[1]).astype(np.float32)
    frame = cv2.remap(frame, xs + dx, ys + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    logits = np.log((frame + 1e-4) / (1 - frame + 1e-4)) * 1.5
    return np.asarray(logits + _noise(rng, 256, 256, 3) * 0.5, np.float32)


def draw(seed: int, edge: str, backdrop: str, height: int = 900, width: int = 1200) -> Composite:
    """One composite; `edge` of EDGES, `backdrop` of BACKDROPS; with sensor noise of 2 levels."""
    rng = np.random.default_rng([seed, EDGES.index(edge), BACKDROPS.index(backdrop)])
    alpha = _alpha(rng, height, width, edge)
    nearest, furthest = (25, 45) if backdrop == "close" else (90, 500)
    while True:
        base = rng.uniform(40, 215, 3)
        behind = {"white": np.full(3, 250.0), "red": np.array([205.0, 25.0, 30.0])}.get(
            backdrop, rng.uniform(60, 200, 3)
        )
        if nearest < np.linalg.norm(base - behind) < furthest:
            break
    foreground = _texture(rng, height, width, base, 22)
    if seed % 2:
        _print_label(rng, foreground)
    if edge == "defocus":  # a lens that blurs the outline blurs what lies inside it
        foreground = np.asarray(cv2.GaussianBlur(foreground, (0, 0), max(height, width) / 340), np.float32)
    foreground = np.clip(foreground, 0, 255)
    background = np.clip(_texture(rng, height, width, behind, 25 if backdrop == "textured" else 3), 0, 255)
    mixed = background + alpha[..., None] * (foreground - background) + rng.normal(0, 2, (height, width, 3))
    return Composite(
        np.clip(np.round(mixed), 0, 255).astype(np.uint8),
        alpha,
        foreground.astype(np.float32),
        imperfect_logits(rng, alpha),
    )
