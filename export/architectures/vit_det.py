"""SAM's image encoder (ViT-B, -L, -H): a plain vision transformer with windowed and global attention.

After Li et al. 2022 (ViTDet) as facebookresearch/segment-anything uses it; state-dict names and numbers are theirs.
"""

from __future__ import annotations

import torch
from boothsam.export.architectures.config import GRID, ViTDetConfig
from boothsam.export.architectures.layers import MLPBlock, from_windows, neck, to_windows
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention over a (side, side) grid with decomposed relative positions: (B, side, side, C) -> the same."""

    def __init__(self, dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, self.head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, self.head_dim))
        offsets = torch.arange(side)[:, None] - torch.arange(side)[None, :] + side - 1
        self.register_buffer("offsets", offsets, persistent=False)
        self.offsets: Tensor

    def forward(self, x: Tensor) -> Tensor:
        side, heads, tokens = self.side, self.num_heads, self.side * self.side
        qkv = self.qkv(x).reshape(-1, tokens, 3, heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, -1, tokens, self.head_dim).unbind(0)
        grid = q.reshape(-1, side, side, self.head_dim)
        # (query row, head_dim, key row): one matrix per query row, broadcast over windows, heads and query columns
        rows = grid @ self.rel_pos_h[self.offsets].transpose(1, 2)
        cols = (grid.transpose(1, 2) @ self.rel_pos_w[self.offsets].transpose(1, 2)).transpose(1, 2)
        position = rows.unsqueeze(4) + cols.unsqueeze(3)
        scores = (q * self.head_dim**-0.5) @ k.transpose(1, 2) + position.reshape(-1, tokens, tokens)
        out = scores.softmax(-1) @ v
        out = out.reshape(-1, heads, tokens, self.head_dim).transpose(1, 2)
        y: Tensor = self.proj(out.reshape(-1, side, side, heads * self.head_dim))
        return y


class Block(nn.Module):
    """Pre-norm transformer block over (1, 64, 64, C); `window` 0 attends to the whole grid."""

    def __init__(self, config: ViTDetConfig, window: int) -> None:
        super().__init__()
        dim = config.embed_dim
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, config.num_heads, window or GRID)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, int(dim * config.mlp_ratio), nn.GELU)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.window:
            y = from_windows(self.attn(to_windows(y, GRID, self.window)), GRID, self.window)
        else:
            y = self.attn(y)
        x = x + y
        z: Tensor = x + self.mlp(self.norm2(x))
        return z


class PatchEmbed(nn.Module):
    """(B, 3, 1024, 1024) -> (B, 64, 64, C)."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x)
        return y.permute(0, 2, 3, 1)


class ImageEncoderViT(nn.Module):
    """(1, 3, 1024, 1024) normalised RGB -> (1, out, 64, 64) image embedding."""

    def __init__(self, config: ViTDetConfig, out: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.embed_dim, config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, GRID, GRID, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config, 0 if i in config.global_attn_indexes else config.window_size) for i in range(config.depth)
        )
        self.neck = neck(config.embed_dim, out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return y
