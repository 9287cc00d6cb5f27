"""Small layers that several parts of SAM share, written so that each becomes few, fusable ONNX operators."""

from __future__ import annotations

from itertools import pairwise

from boothsam.export.architectures.operators import pad
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W), as channels-last LayerNormalization between two transposes.

    The mean/variance form of the reference decomposes into operators that overflow in FP16; TensorRT and ONNX Runtime
    know this one.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MLPBlock(nn.Module):
    """Two linear layers with an activation between: (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, hidden: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin2(self.act(self.lin1(x)))
        return y


class MLP(nn.Module):
    """`depth` linear layers with ReLU between: (..., dim_in) -> (..., dim_out)."""

    def __init__(self, dim_in: int, hidden: int, dim_out: int, depth: int) -> None:
        super().__init__()
        dims = [dim_in] + [hidden] * (depth - 1) + [dim_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.layers
        for layer in inner:
            x = F.relu(layer(x))
        y: Tensor = last(x)
        return y


def neck(dim: int, out: int) -> nn.Sequential:
    """Last layers of both encoders: (B, dim, 64, 64) -> (B, out, 64, 64)."""
    return nn.Sequential(
        nn.Conv2d(dim, out, 1, bias=False),
        LayerNorm2d(out),
        nn.Conv2d(out, out, 3, padding=1, bias=False),
        LayerNorm2d(out),
    )


def to_windows(x: Tensor, side: int, size: int) -> Tensor:
    """(1, side, side, C) to (windows, size, size, C), padded with zeros at the bottom and right where needed.

    Sizes are arguments, not read off the tensor, for the exporter would trace reading them.
    """
    count = -(-side // size)
    if count * size != side:
        x = pad(x, count * size - side, count * size - side)
    return x.reshape(count, size, count, size, -1).transpose(1, 2).reshape(count * count, size, size, -1)


def from_windows(windows: Tensor, side: int, size: int) -> Tensor:
    """Inverse of `to_windows`: (windows, size, size, C) to (1, side, side, C), padding cut off."""
    count = -(-side // size)
    x = windows.reshape(count, count, size, size, -1).transpose(1, 2).reshape(1, count * size, count * size, -1)
    return x if count * size == side else x[:, :side, :side]
