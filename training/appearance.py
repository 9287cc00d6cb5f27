"""Looks: what a thing is made of, learned anew for every prompt, as GrabCut does, but with learned looks.

The encoder says for every place which of a few looks it has (a soft codebook that starts as a palette of colours). The
decoder counts looks inside and outside of what a prompt, or its own draft of a mask, marks; the logarithm of the two
counts' ratio, painted back onto the picture, says which places look like the thing and which like its surroundings.
Counting and painting are matrix products: a few million multiplications per prompt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 0.005  # share of a look below which absence says no more
SCALE = 0.4  # brings log ratios (at most +-5.3) to the size of other features


def palette(count: int) -> Tensor:
    """(count, 3) colours in SAM's normalised units, spread evenly over brightness and hue; the same ones every time."""
    k = torch.arange(count, dtype=torch.float32)
    luma = ((k + 0.5) * 0.7549) % 1.0 * 4.0 - 2.0  # R2 sequence (Roberts 2018) in brightness and two colour axes
    warm = ((k + 0.5) * 0.5698) % 1.0 * 1.6 - 0.8
    green = ((k + 0.5) * 0.3247) % 1.0 * 1.2 - 0.6
    return torch.stack([luma + warm + green, luma - green, luma - warm + green], 1)


class Looks(nn.Module):
    """(B, 3, H, W) normalised colours and (B, C, H, W) features -> (B, K, H, W) shares of K looks, summing to 1."""

    SHARPNESS = 2.5

    def __init__(self, features: int, looks: int) -> None:
        super().__init__()
        self.assign = nn.Conv2d(3 + features, looks, 1)
        colours = palette(looks)
        with torch.no_grad():  # -sharpness * squared distance, less what all looks share
            self.assign.weight.mul_(0.1)
            self.assign.weight[:, :3, 0, 0] = 2 * self.SHARPNESS * colours
            if self.assign.bias is not None:
                self.assign.bias.copy_(-self.SHARPNESS * (colours * colours).sum(1))

    def forward(self, colours: Tensor, features: Tensor) -> Tensor:
        alike = self.assign(torch.cat([colours, features], 1))
        if not torch.onnx.is_in_onnx_export():
            return torch.softmax(alike, 1)
        # Written out: ONNX Runtime's Softmax over channels transposes there and back, for a quarter of the encoder.
        grown = torch.exp(alike - alike.amax(1, keepdim=True))
        return grown / grown.sum(1, keepdim=True)


def count_looks(windows: Tensor, looks: Tensor, image_of: Tensor | None) -> Tensor:
    """Weights (P, E, H*W), each row summing to 1 or 0, and looks (B, K, H, W) -> shares (P, E, K).

    image_of (P,), ascending, says which image a prompt belongs to; without it B is 1.
    """
    known, places, rows = int(looks.shape[1]), int(looks.shape[2] * looks.shape[3]), int(windows.shape[1])
    if image_of is None:
        flat = looks.reshape(known, places).transpose(0, 1)
        return torch.matmul(windows.reshape(-1, places), flat).reshape(-1, rows, known)
    flat = looks.flatten(2).transpose(1, 2)
    counts = torch.bincount(image_of, minlength=len(looks)).tolist()
    return torch.cat([torch.matmul(w, f) for w, f in zip(torch.split(windows, counts), flat, strict=True) if len(w)])


def paint(ratios: Tensor, looks: Tensor, image_of: Tensor | None) -> Tensor:
    """Weights of looks (P, E, K) and looks (B, K, H, W) -> maps (P, E, H, W)."""
    known, height, width, rows = int(looks.shape[1]), int(looks.shape[2]), int(looks.shape[3]), int(ratios.shape[1])
    if image_of is None:
        flat = looks.reshape(known, height * width)
        return torch.matmul(ratios.reshape(-1, known), flat).reshape(-1, rows, height, width)
    counts = torch.bincount(image_of, minlength=len(looks)).tolist()
    pieces = zip(torch.split(ratios, counts), looks.flatten(2), strict=True)
    return torch.cat([torch.matmul(r, f) for r, f in pieces if len(r)]).reshape(-1, rows, height, width)


def share_out(weights: Tensor) -> Tensor:
    """(P, E, H, W) or (P, E, H*W) weights -> (P, E, H*W), each row summing to nearly 1, or 0 where there is none."""
    rows = weights.flatten(2)
    return rows / (rows.sum(2, keepdim=True) + 1e-4)


def log_ratio(inside: Tensor, outside: Tensor) -> Tensor:
    """How much more often a look occurs inside than outside; scaled."""
    return (torch.log(inside + EPSILON) - torch.log(outside + EPSILON)) * SCALE


class PromptLikeness(nn.Module):
    """What looks like the prompt's evidence rather than like its surroundings: ratios (P, KINDS, K).

    Kinds: about the foreground clicks against the whole picture, background clicks against the picture, the box's
    middle against its rim outside, all of the box against that, and all of the box against the picture.
    """

    KINDS = 5

    def forward(self, windows: Tensor, looks: Tensor, image_of: Tensor | None) -> Tensor:
        """windows (P, 5, G * G): clicks 1, clicks 0, middle, around, within; looks (B, K, G, G)."""
        shares = count_looks(windows, looks, image_of)
        every = looks.mean((2, 3))
        every = every[:, None] if image_of is None else every[image_of][:, None]
        there = (windows.sum(2, keepdim=True) > 0.5).to(shares.dtype)  # (P, 5, 1)
        one, zero, middle, around, within = shares.unbind(1)
        rim = around[:, None] + (1 - there[:, 3:4]) * every
        fore, back = log_ratio(one[:, None], every), log_ratio(zero[:, None], every)
        boxed = torch.cat([log_ratio(middle[:, None], rim), log_ratio(within[:, None], rim)], 1)
        wide = log_ratio(within[:, None], every)
        return torch.cat([fore * there[:, 0:1], back * there[:, 1:2], boxed * there[:, 2:3], wide * there[:, 2:3]], 1)


class DraftLikeness(nn.Module):
    """What looks like the draft of a mask rather than like what lies around it, for every token."""

    REACH = 13  # cells of the counting grid

    def forward(self, share: Tensor, looks: Tensor, image_of: Tensor | None) -> tuple[Tensor, Tensor]:
        """share (P, T, G, G) 0..1 and looks (B, K, G, G) -> ratios (P, T, K), separation (P, T, 2)."""
        wide = F.max_pool2d(share, (self.REACH, 1), 1, (self.REACH // 2, 0))
        wide = F.max_pool2d(wide, (1, self.REACH), 1, (0, self.REACH // 2))
        inside = count_looks(share_out(share), looks, image_of)
        outside = count_looks(share_out(wide * (1 - share)), looks, image_of)
        ratio = log_ratio(inside, outside)
        return ratio, torch.stack([(ratio * inside).sum(2), (ratio * outside).sum(2)], 2)
