"""The rim's colours pixel by pixel, against the same formula written for the whole picture at once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from boothsam.runtime import matting
from boothsam.runtime.matting import Reduced, clean_rim

EDGE_PX = 13.0  # cells of three pixels


def plain(image: matting.Uint8Array, alpha: matting.Uint8Array) -> matting.Uint8Array:
    """(h, w, 3): colours in which alpha < 255 gave its share to the backdrop; the rest is the photo's."""
    reduced = Reduced.of(image, EDGE_PX)
    scale = reduced.scale
    share = matting._shrink(matting._fit(alpha, scale), scale) / np.float32(255)
    radius = max(2, round(EDGE_PX / scale))

    def spread(part: matting.FloatArray) -> matting.FloatArray:
        near = matting._spread(reduced.colour, np.clip(part * 5 - 4, 0, 1) ** 2 + np.float32(1e-5) * part, radius)
        large = cv2.resize(near, reduced.photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(large[: alpha.shape[0], : alpha.shape[1]])

    near, far = spread(share), spread(1 - share)
    weight = alpha[..., None].astype(np.float32) / 255
    clean = np.clip(np.rint(near + weight * (image - far - weight * (near - far))), 0, 255).astype(np.uint8)
    return np.where((alpha > 0)[..., None] & (alpha < 255)[..., None], clean, image)


@pytest.mark.parametrize("shape", [(150, 201), (151, 200), (152, 202), (7, 100)])
def test_every_pixel_of_the_rim_and_no_other(shape: tuple[int, int]) -> None:
    """Sides that are no whole cells, a product that leaves the photo at the right and the bottom, several tiles."""
    height, width = shape
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (6, 7, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    inside = np.minimum(columns - 60, rows + 30)
    alpha = np.clip(128 + 12 * (inside + 8 * np.sin(rows / 9)), 0, 255).astype(np.uint8)
    alpha[:, -2:] = np.minimum(alpha[:, -2:], 90)  # half-transparent beside what is repeated to fill the last cell
    left, top, across, down = cv2.boundingRect(alpha)
    window = slice(top, top + down), slice(left, left + across)
    assert left > 0 and ((alpha > 0) & (alpha < 255)).sum() > 100
    rgba = np.dstack([image, alpha])[window].copy()
    clean_rim(image, alpha, EDGE_PX, rgba, (left, top))
    assert np.array_equal(rgba[..., 3], alpha[window])
    expected = plain(image, alpha)[window].astype(np.int16)
    assert np.abs(rgba[..., :3] - expected).max() <= 1
    opaque = alpha[window] == 255
    assert np.array_equal(rgba[opaque][:, :3], image[window][opaque])
