"""What a photo's border says about its backdrop, and what differs from it."""

from __future__ import annotations

import cv2
import numpy as np
from boothsam.runtime.masks import BoolArray
from boothsam.runtime.transforms import FloatArray, Uint8Array

MIN_AREA, MAX_AREA = 0.002, 0.85  # share of the photo that a product may cover


def backdrop_difference(image: Uint8Array) -> tuple[FloatArray, float]:
    """How far each pixel of a small (h, w, 3) uint8 RGB photo is from the backdrop, (h, w) float32; 1 is usual.

    The second value says how plain the backdrop is: the median distance, in Lab, of the border band from its fit.

    The backdrop is a quadratic surface in Lab, fitted to the border band and so following gradients and vignettes;
    unit is the 95th percentile of the distance (Mahalanobis, in the band's own covariance) that the band itself has.
    The fit leaves out, three times, what lies far from it, so that a product may touch the border.
    """
    height, width = image.shape[:2]
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
    y, x = (axis.ravel() for axis in np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j])
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    rim = max(2, round(0.06 * min(height, width)))
    band = np.ones((height, width), np.bool_)
    band[rim:-rim, rim:-rim] = False
    chosen = np.flatnonzero(band)
    members = chosen
    for _ in range(3):
        weights = np.linalg.lstsq(surface[members], lab[members], rcond=None)[0]
        size = np.linalg.norm(lab[chosen] - surface[chosen] @ weights, axis=1)
        members = chosen[size <= max(2.0, 3 * float(np.median(size)))]
    residual = lab - surface @ weights
    # One Lab unit is what a camera's noise and JPEG leave on a perfect backdrop.
    covariance = residual[members].T @ residual[members] / len(members) + np.eye(3)
    distance = np.sqrt(np.einsum("ni,ij,nj->n", residual, np.linalg.inv(covariance), residual))
    unit = max(2.0, float(np.percentile(distance[members], 95)))
    spread = float(np.median(np.linalg.norm(residual[chosen], axis=1)))
    return np.asarray(distance / unit, np.float32).reshape(height, width), spread


def standing_out(difference: FloatArray, count: int = 3) -> list[BoolArray]:
    """The largest regions that differ from the backdrop, by area times difference."""
    smooth = cv2.GaussianBlur(difference, (0, 0), 1.5)
    mask = cv2.morphologyEx((smooth > 1.5).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    number, labels = cv2.connectedComponents(mask, connectivity=8)
    regions = [np.asarray(labels == label, np.bool_) for label in range(1, number)]
    regions = [r for r in regions if MIN_AREA * r.size <= np.count_nonzero(r) <= MAX_AREA * r.size]
    return sorted(regions, key=lambda r: -float(np.minimum(smooth[r], 5).sum()))[:count]
