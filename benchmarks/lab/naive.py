"""Composition and PNG as the usual examples write them, NumPy and Pillow: for those who end in a mask."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image


def compose(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The photo inside the mask's bounds with the mask as its alpha; (h, w, 4)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return np.dstack([image[window], mask[window].astype(np.uint8) * 255])


def to_png(layered: npt.NDArray[np.uint8]) -> bytes:
    """With Pillow's defaults."""
    buffer = io.BytesIO()
    Image.fromarray(layered).save(buffer, "PNG")
    return buffer.getvalue()
