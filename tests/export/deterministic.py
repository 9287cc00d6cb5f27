"""The rule behind the golden vectors: weights from names and shapes, a photo from integers, five prompts.

tests/conformance/data/golden/*.npz hold what the original authors' code answers for these weights:
ChaoningZhang/MobileSAM (34bbbfd) and facebookresearch/segment-anything (dca509f), PyTorch 2.13 on a CPU in FP32.
Weights made this way give masks with two sides, so that IoU means something; they are no trained model. Changing a
number here invalidates the files.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from boothsam.runtime.model import Prompts

GOLDEN = Path(__file__).resolve().parents[1] / "conformance" / "data" / "golden"
SIZES = ((300, 400), (1200, 800), (64, 64))
# Fractions of width and height.
CLICK = {"point_coords": [[0.5, 0.5]], "point_labels": [1]}
PROMPTS: dict[str, dict[str, Any]] = {
    "click": CLICK,
    "two_clicks": {"point_coords": [[0.5, 0.5], [0.2, 0.33]], "point_labels": [1, 0]},
    "box": {"box_xyxy": [0.2, 0.2, 0.8, 0.85]},
    "box_and_click": {"point_coords": [[0.21, 0.3]], "point_labels": [0], "box_xyxy": [0.1, 0.1, 0.7, 0.9]},
    "click_single": CLICK,
}


def checkpoint_shapes(variant: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the official checkpoint of `variant`."""
    return {k: tuple(s) for k, s in json.loads((GOLDEN / "checkpoint_keys.json").read_text())[variant].items()}


def tensor(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Values of one state-dict entry: normal, scaled so that activations stay near 1."""
    n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(n)
    if name.endswith("positional_encoding_gaussian_matrix"):
        return n
    if name.endswith((".bias", "running_mean", "attention_biases", "rel_pos_h", "rel_pos_w", "pos_embed")):
        return 0.05 * n
    if len(shape) == 1:
        return 1 + 0.1 * n
    if "embed" in name and len(shape) == 2 and shape[0] == 1:
        return n
    gain = 3.0 if "output_hypernetworks_mlps" in name and ".layers.2." in name else 1.0
    return np.asarray(gain * n / np.sqrt(np.prod(shape[1:])), np.float32)


def fill(module: torch.nn.Module) -> None:
    """Overwrite every floating-point tensor of a module's state dict; integer buffers stay."""
    state = module.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = torch.from_numpy(tensor(name, tuple(value.shape)))
    module.load_state_dict(state)


def photo(h: int, w: int) -> npt.NDArray[np.uint8]:
    """(h, w, 3) RGB: smooth noise with a few hard-edged shapes, in integer arithmetic."""
    y, x = np.mgrid[0:h, 0:w].astype(np.int64)
    base = np.stack([(x * 37 + y * 11) // 9 % 256, (x * 5 + y * 29) // 7 % 256, (x * x + y * y) // 997 % 256], -1)
    base[(x - w // 2) ** 2 + (y - h // 2) ** 2 < (min(h, w) // 4) ** 2] = (230, 40, 60)
    base[(abs(x - w // 5) < w // 10) & (abs(y - h // 3) < h // 5)] = (20, 180, 90)
    return base.astype(np.uint8)


def prompts(name: str, h: int, w: int) -> Prompts:
    """One of PROMPTS on an h x w photo."""
    values = {
        k: v if k == "point_labels" else np.array(v) * ([w, h] if k == "point_coords" else [w, h, w, h])
        for k, v in PROMPTS[name].items()
    }
    return Prompts.make(**values)
