"""SAM's prompt encoder: points, box corners and mask prompts to embeddings (facebookresearch/segment-anything)."""

from __future__ import annotations

import math

import torch
from boothsam.export.architectures.config import GRID, IMAGE_SIZE, SamConfig
from boothsam.export.architectures.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F


class PositionEmbedding(nn.Module):
    """Random Fourier features of positions: (..., 2) in [0, 1], x first -> (..., 2 * features)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))
        self.positional_encoding_gaussian_matrix: Tensor

    def forward(self, coords: Tensor) -> Tensor:
        angles = 2 * math.pi * ((2 * coords - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], -1)


class PromptEncoder(nn.Module):
    """Holds the parameters of prompt encoding; `points`, `masks` and `image_positions` use them."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        dim, hidden = config.prompt_embed_dim, config.mask_in_chans
        self.pe_layer = PositionEmbedding(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, hidden // 4, 2, stride=2),
            LayerNorm2d(hidden // 4),
            nn.GELU(),
            nn.Conv2d(hidden // 4, hidden, 2, stride=2),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def label_table(self) -> Tensor:
        """(5, dim): what is added for the labels -1 (padding), 0, 1 (points), 2, 3 (box corners), in this order."""
        return torch.cat([self.not_a_point_embed.weight] + [e.weight for e in self.point_embeddings])  # type: ignore[misc]

    def points(self, coords: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        """(P, N, 2) float32 frame pixels (x, y) and (P, N) int32 labels to (P, N, dim); `table` is `label_table()`."""
        position = self.pe_layer((coords + 0.5) / IMAGE_SIZE)
        position = torch.where((labels == -1).unsqueeze(-1), torch.zeros(()), position)
        return position + F.embedding(labels + 1, table)

    def masks(self, mask_input: Tensor) -> Tensor:
        """(P, 1, 256, 256) logits of an earlier prediction to the dense embedding (P, dim, 64, 64)."""
        y: Tensor = self.mask_downscaling(mask_input)
        return y

    def no_mask(self) -> Tensor:
        """(1, dim, 1, 1): the dense embedding of having no mask prompt, the same everywhere."""
        return self.no_mask_embed.weight.reshape(1, -1, 1, 1)

    def image_positions(self) -> Tensor:
        """(1, 4096, dim): positional encoding of the image tokens, row by row."""
        centres = (torch.arange(GRID, dtype=torch.float32) + 0.5) / GRID
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        position: Tensor = self.pe_layer(torch.stack([x, y], -1).reshape(1, GRID * GRID, 2))
        return position
