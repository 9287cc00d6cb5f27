"""A soft shadow under a cut-out: the product's outline, pushed down, blurred and dark."""

from __future__ import annotations

import cv2
import numpy as np
from boothsam.runtime.cutout import CutOut
from boothsam.runtime.errors import OptionError

SHADOWS = ("none", "drop")
OPACITY = 0.35
_BLUR, _DROP = 0.03, 0.025  # standard deviation and way down, as shares of the product's longest side
_MOST = 0.49


def with_shadow(cut: CutOut, opacity: float = OPACITY) -> CutOut:
    """The cut-out with its shadow in the same layer, so that it lies right on any canvas.

    opacity: of the darkest part, 0 to 0.49. Below one half, because what is half opaque counts as product where a
    canvas is laid out: so the shadow does not, and moves the product by no more than its soft edge. The window of the
    result may reach out of the photo.

    Raises:
        OptionError: an opacity outside its range.
    """
    if not 0 <= opacity <= _MOST:
        raise OptionError(f"a shadow's opacity {opacity} must lie in 0..{_MOST}")
    height, width = cut.rgba.shape[:2]
    sigma, drop = max(1.0, _BLUR * max(height, width)), round(_DROP * max(height, width))
    pad = int(np.ceil(3 * sigma))
    bottom = pad + drop
    rgba = cv2.copyMakeBorder(cut.rgba, pad, bottom, pad, pad, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    alpha = rgba[..., 3].astype(np.float32) / 255
    moved = np.zeros_like(alpha)
    moved[drop:] = alpha[: alpha.shape[0] - drop]
    shade = opacity * cv2.GaussianBlur(moved, (0, 0), sigma)
    total = alpha + shade * (1 - alpha)
    # The shadow is black: straight colour is the product's, weighted by its part of the whole coverage.
    weight = np.divide(alpha, total, out=np.zeros_like(alpha), where=total > 0)
    result = np.empty_like(rgba)
    result[..., :3] = np.rint(rgba[..., :3] * weight[..., None])
    result[..., 3] = np.rint(255 * total)
    result[..., :3][result[..., 3] == 0] = 0
    x0, y0, x1, y1 = cut.window_xyxy
    return CutOut(np.asarray(result, np.uint8), (x0 - pad, y0 - pad, x1 + pad, y1 + bottom), cut.original_hw)
