"""SAM's mask decoder: two-way transformer, upscaling, hypernetworks (facebookresearch/segment-anything).

Written as the paper has it. `boothsam.export.fast_decoder` is the same function, rearranged for speed.
"""

from __future__ import annotations

import torch
from boothsam.export.architectures.config import GRID, MASK_SIZE, SamConfig
from boothsam.export.architectures.layers import MLP, LayerNorm2d, MLPBlock
from boothsam.export.architectures.operators import repeat, reshape
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention whose inner width is dim / downsample: (B, Q, dim), (B, K, dim) twice -> (B, Q, dim)."""

    def __init__(self, dim: int, num_heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.inner_dim = dim // downsample
        self.num_heads = num_heads
        self.head_dim = self.inner_dim // num_heads
        self.q_proj = nn.Linear(dim, self.inner_dim)
        self.k_proj = nn.Linear(dim, self.inner_dim)
        self.v_proj = nn.Linear(dim, self.inner_dim)
        self.out_proj = nn.Linear(self.inner_dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, inner) -> (B, heads, T, head_dim)."""
        return reshape(x, 0, 0, self.num_heads, self.head_dim).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        """(B, heads, T, head_dim) -> (B, T, inner)."""
        return reshape(x.transpose(1, 2), 0, 0, self.inner_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = self.split(self.q_proj(q)), self.split(self.k_proj(k)), self.split(self.v_proj(v))
        weights = ((q * self.head_dim**-0.5) @ k.transpose(2, 3)).softmax(-1)
        y: Tensor = self.out_proj(self.merge(weights @ v))
        return y


def grid_norm(norm: nn.LayerNorm, image: Tensor) -> Tensor:
    """LayerNorm of (P, 4096, dim) image tokens, as (P, 64, 64, dim).

    In three dimensions ONNX Runtime merges it with the sum before it into SkipLayerNormalization, whose CPU kernel was
    measured to take five times as long as the two.
    """
    dim = norm.normalized_shape[0]
    return reshape(norm(reshape(image, 0, GRID, GRID, dim)), 0, GRID * GRID, dim)


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, then to the image, pass an MLP; then the image attends to the tokens."""

    def __init__(self, config: SamConfig, first: bool) -> None:
        super().__init__()
        dim, heads = config.prompt_embed_dim, config.decoder_num_heads
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, config.decoder_mlp_dim, nn.ReLU)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, 2)

    def attend_to_tokens(self, tokens: Tensor, token_pe: Tensor) -> Tensor:
        """Self-attention of (B, T, dim) with its norm; the first block has neither positions nor a residual here."""
        if self.first:
            attended: Tensor = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_pe
            attended = tokens + self.self_attn(placed, placed, tokens)
        y: Tensor = self.norm1(attended)
        return y

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.attend_to_tokens(tokens, token_pe)
        placed = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, placed, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = grid_norm(self.norm4, image + self.cross_attn_image_to_token(placed, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """(B, 4096, dim) image tokens and (B, T, dim) prompt tokens to both, updated; positions are added at each
    attention.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        dim = config.prompt_embed_dim
        self.layers = nn.ModuleList(TwoWayBlock(config, i == 0) for i in range(config.decoder_depth))
        self.final_attn_token_to_image = Attention(dim, config.decoder_num_heads, 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def blocks(self) -> list[TwoWayBlock]:
        """`layers` with their type."""
        return [layer for layer in self.layers if isinstance(layer, TwoWayBlock)]

    def forward(self, image: Tensor, image_pe: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        tokens = prompt
        for block in self.blocks():
            tokens, image = block(tokens, image, prompt, image_pe)
        attended = self.final_attn_token_to_image(tokens + prompt, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image


class MaskDecoder(nn.Module):
    """Prompt embeddings and image tokens to the logits and predicted IoU of all mask tokens."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        dim = config.prompt_embed_dim
        self.num_mask_tokens = config.num_mask_tokens
        self.transformer = TwoWayTransformer(config)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(self.num_mask_tokens))
        self.iou_prediction_head = MLP(dim, config.iou_head_hidden_dim, self.num_mask_tokens, config.iou_head_depth)

    def output_tokens(self) -> Tensor:
        """(1, 1 + masks, dim): the learned IoU and mask tokens that stand before the prompt's."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight]).unsqueeze(0)

    def forward(self, image: Tensor, image_pe: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """All masks of each prompt.

        Args:
            image: (P, dim, 64, 64) image embedding plus dense prompt embedding.
            image_pe: (1, 4096, dim) positions of the image tokens.
            prompt: (P, N, dim) embedded points.

        Returns:
            (P, masks, 256, 256) logits and (P, masks) predicted IoU.
        """
        tokens = torch.cat([repeat(self.output_tokens(), prompt), prompt], 1)
        flat = reshape(image, 0, 0, GRID * GRID).transpose(1, 2)
        tokens, flat = self.transformer(flat, image_pe, tokens)
        grid = reshape(flat.transpose(1, 2), 0, 0, GRID, GRID)
        upscaled = reshape(self.output_upscaling(grid), 0, 0, MASK_SIZE * MASK_SIZE)
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 1)
        masks = reshape(weights @ upscaled, 0, 0, MASK_SIZE, MASK_SIZE)
        return masks, self.iou_prediction_head(tokens[:, 0])
