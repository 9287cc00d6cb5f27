"""MobileSAM's image encoder: TinyViT-5M without its class head, at 1024 pixels.

After Wu et al. 2022 (TinyViT) as ChaoningZhang/MobileSAM changed it: the last merging keeps its resolution, so that 64
x 64 tokens remain, and SAM's neck follows. State-dict names, unused class head included, are theirs.
"""

from __future__ import annotations

import itertools

import torch
from boothsam.export.architectures.config import GRID, IMAGE_SIZE, TinyViTConfig
from boothsam.export.architectures.layers import from_windows, neck, to_windows
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch norm; the exporter folds the norm into the convolution."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(dim_in, dim_out, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(dim_out))


class PatchEmbed(nn.Module):
    """(B, 3, H, W) -> (B, dim, H/4, W/4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, 3, 2), nn.GELU(), ConvNorm(dim // 2, dim, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.seq(x)
        return y


class MBConv(nn.Module):
    """Inverted bottleneck with residual: (B, dim, H, W) -> the same."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(x + self.conv3(self.act(self.conv2(self.act(self.conv1(x))))))
        return y


class PatchMerging(nn.Module):
    """(B, dim, H, W) -> (B, out, H / stride, W / stride)."""

    def __init__(self, dim: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, out)
        self.conv2 = ConvNorm(out, out, 3, stride, groups=out)
        self.conv3 = ConvNorm(out, out)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))
        return y


def bias_indices(window: int) -> Tensor:
    """(window^2, window^2) int64: which learned bias belongs to a pair of tokens.

    The reference numbers the distances (|dx|, |dy|) in order of first appearance, which is |dx| * window + |dy|.
    """
    points = torch.tensor(list(itertools.product(range(window), repeat=2)))
    distance = (points[:, None] - points[None]).abs()
    return distance[..., 0] * window + distance[..., 1]


class Attention(nn.Module):
    """Window attention with one learned bias per distance: (B, window^2, dim) -> the same. Has its own norm."""

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.tokens = window * window
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        self.register_buffer("indices", bias_indices(window), persistent=False)
        self.indices: Tensor

    def forward(self, x: Tensor) -> Tensor:
        # each head's q, k and v lie side by side, unlike in SAM's own encoder
        qkv = self.qkv(self.norm(x)).reshape(-1, self.tokens, self.num_heads, 3, self.head_dim)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        scores = (q * self.head_dim**-0.5) @ k.transpose(2, 3) + self.attention_biases[:, self.indices]
        out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, self.tokens, self.num_heads * self.head_dim)
        y: Tensor = self.proj(out)
        return y


class Mlp(nn.Module):
    """Pre-norm MLP: (..., dim) -> the same."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.act(self.fc1(self.norm(x))))
        return y


class Block(nn.Module):
    """Window attention, depthwise convolution, MLP: (1, dim, side, side) -> the same."""

    def __init__(self, dim: int, num_heads: int, side: int, window: int, hidden: int) -> None:
        super().__init__()
        self.dim = dim
        self.side = side
        self.window = window
        self.attn = Attention(dim, num_heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        windows = to_windows(x, self.side, self.window).reshape(-1, self.window * self.window, self.dim)
        attended = self.attn(windows).reshape(-1, self.window, self.window, self.dim)
        x = (x + from_windows(attended, self.side, self.window)).permute(0, 3, 1, 2)
        x = self.local_conv(x).permute(0, 2, 3, 1)
        x = x + self.mlp(x)
        return x.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one width, then merging; the last stage has none."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """(1, 3, 1024, 1024) normalised RGB -> (1, out, 64, 64) image embedding."""

    def __init__(self, config: TinyViTConfig, out: int) -> None:
        super().__init__()
        dims = config.embed_dims
        side = IMAGE_SIZE // 4
        self.patch_embed = PatchEmbed(dims[0])
        self.layers = nn.ModuleList()
        for i, dim in enumerate(dims):
            hidden = int(dim * config.mlp_ratio)
            blocks: list[nn.Module] = [
                MBConv(dim, hidden) if i == 0 else Block(dim, config.num_heads[i], side, config.window_sizes[i], hidden)
                for _ in range(config.depths[i])
            ]
            stride = 2 if side > GRID else 1
            merging = PatchMerging(dim, dims[i + 1], stride) if i + 1 < len(dims) else None
            self.layers.append(Stage(blocks, merging))
            side //= stride
        self.norm_head = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], config.num_classes)
        self.neck = neck(dims[-1], out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.neck(x)
        return y
