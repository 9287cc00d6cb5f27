"""The mask decoder rearranged for speed: the same function as `architectures.mask_decoder`, by exact algebra.

Few tokens (seven for a click or a box) meet 4096 image tokens, so work moves from the image's side to the tokens':

- What depends only on the image is computed once (`Prepare`): the first layer's image tokens, keys, values and queries,
  which are the same for all prompts. Valid without a mask prompt alone, for that changes the image tokens.
- In later layers the image tokens differ per prompt, and projecting them is dear. q . (W k) = (W' q) . k moves the
  projection to the tokens; likewise sum(a W v) = W sum(a v), and (a v) W = a (v W) for the output projection.
- The bias of the keys adds the same to all scores of a query and drops out of the softmax over the image.
- A transposed convolution whose stride is its kernel is a matrix product; the pixels are put in order once, at the end,
  where there are four channels and not thirty-two.
- The last attention is asked by the output tokens alone: nobody reads what the prompt's own tokens would learn there.

Results differ from the plain form by float rounding alone (1e-6 of the logits' range). Each weight is stored once, in
the layout that is used.
"""

from __future__ import annotations

import torch
from boothsam.export.architectures.config import GRID, MASK_SIZE
from boothsam.export.architectures.layers import MLP
from boothsam.export.architectures.mask_decoder import Attention, MaskDecoder, grid_norm
from boothsam.export.architectures.operators import repeat, reshape
from boothsam.export.architectures.sam import Sam
from torch import Tensor, nn
from torch.nn import functional as F

PREPARED = ("prepared.image", "prepared.keys", "prepared.values", "prepared.queries")


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone().contiguous(), requires_grad=False)


def _by_head(weight: Tensor, heads: int) -> nn.Parameter:
    """(heads * d, C) to (heads, d, C)."""
    return _frozen(weight.reshape(heads, -1, weight.shape[1]))


class Prepare(nn.Module):
    """Embedding -> what the first layer needs of the image: once per photo.

    forward(image_embedding (1, C, 64, 64)) gives, in the order of PREPARED: image tokens with the output bias of the
    first image-to-token attention (1, 4096, C); its keys (1, heads, d, 4096) and values (1, heads, 4096, d) for the
    tokens' attention; its queries (1, heads, 4096, d) for the attention to the tokens.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        first = sam.mask_decoder.transformer.blocks()[0]
        self.to_image = first.cross_attn_token_to_image
        self.to_tokens = first.cross_attn_image_to_token
        self.no_mask = _frozen(sam.prompt_encoder.no_mask())
        self.image_pe = _frozen(sam.prompt_encoder.image_positions())

    def forward(self, image_embedding: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        image = reshape(image_embedding + self.no_mask, 0, 0, GRID * GRID).transpose(1, 2)
        placed = image + self.image_pe
        keys = self.to_image.split(F.linear(placed, self.to_image.k_proj.weight)).transpose(2, 3)
        values = self.to_image.split(self.to_image.v_proj(image))
        queries = self.to_tokens.split(self.to_tokens.q_proj(placed))
        return image + self.to_tokens.out_proj.bias, keys, values, queries


class _TokensToImage(nn.Module):
    """Attention of (P, T, C) tokens to (P, 4096, C) image tokens whose projections are done on the tokens' side."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.source = attention
        self.heads = attention.num_heads
        self.dim = attention.q_proj.in_features
        self.key = _by_head(attention.k_proj.weight, self.heads)
        self.value = _frozen(_by_head(attention.v_proj.weight, self.heads).transpose(1, 2))
        self.value_bias = _frozen(attention.v_proj.bias.reshape(self.heads, 1, -1))

    def forward(self, tokens: Tensor, placed: Tensor, image: Tensor) -> Tensor:
        q = self.source.split(self.source.q_proj(tokens)) * self.source.head_dim**-0.5
        scores = reshape(q @ self.key, 0, -1, self.dim) @ placed.transpose(1, 2)
        seen = reshape(scores.softmax(-1) @ image, 0, self.heads, -1, self.dim)
        y: Tensor = self.source.out_proj(self.source.merge(seen @ self.value + self.value_bias))
        return y


class _ImageToTokens(nn.Module):
    """Attention of the image tokens to the tokens.

    The first layer's queries and output bias come ready-made from `Prepare`; later layers fold the query projection
    into the keys.
    """

    def __init__(self, attention: Attention, *, first: bool) -> None:
        super().__init__()
        self.source = attention
        self.heads = attention.num_heads
        self.dim = attention.q_proj.in_features
        self.first = first
        # out_proj.weight is (C, heads * d)
        self.out = _by_head(attention.out_proj.weight.t(), self.heads)
        if not first:
            self.query = _by_head(attention.q_proj.weight, self.heads)
            self.query_bias = _frozen(attention.q_proj.bias.reshape(self.heads, -1, 1))
            self.out_bias = _frozen(attention.out_proj.bias)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(1, heads, 4096, d) queries in the first layer, else placed image tokens (P, 4096, C) -> (P, 4096, C)."""
        k = self.source.split(self.source.k_proj(keys)) * self.source.head_dim**-0.5
        v = reshape(self.source.split(self.source.v_proj(values)) @ self.out, 0, -1, self.dim)
        if self.first:
            weights = (queries @ k.transpose(2, 3)).softmax(-1).transpose(1, 2)
            return reshape(weights, 0, 0, -1) @ v
        bias = reshape(k @ self.query_bias, 0, 1, -1)
        scores = queries @ reshape(k @ self.query, 0, -1, self.dim).transpose(1, 2) + bias
        weights = reshape(scores, 0, 0, self.heads, -1).softmax(-1)
        return reshape(weights, 0, 0, -1) @ v + self.out_bias


class _Upscale(nn.Module):
    """Image tokens (P, 4096, C) and mask weights (P, C/8, masks) to logits (P, masks, 256, 256)."""

    def __init__(self, decoder: MaskDecoder) -> None:
        super().__init__()
        conv1, norm, _, conv2, _ = decoder.output_upscaling
        assert isinstance(conv1, nn.ConvTranspose2d) and isinstance(conv2, nn.ConvTranspose2d)
        assert isinstance(norm, nn.LayerNorm)
        assert conv1.bias is not None and conv2.bias is not None
        self.masks = decoder.num_mask_tokens
        self.quarter = conv1.out_channels
        # (in, out, 2, 2) to (in, 2 * 2 * out)
        self.weight1 = _frozen(conv1.weight.permute(0, 2, 3, 1).flatten(1))
        self.bias1 = _frozen(conv1.bias.repeat(4))
        self.weight2 = _frozen(conv2.weight.permute(0, 2, 3, 1).flatten(1))
        self.bias2 = _frozen(conv2.bias.repeat(4))
        self.norm_weight, self.norm_bias, self.eps = _frozen(norm.weight), _frozen(norm.bias), norm.eps

    def forward(self, image: Tensor, weights: Tensor) -> Tensor:
        x = reshape(image @ self.weight1 + self.bias1, 0, 4 * GRID * GRID, self.quarter)
        x = F.gelu(F.layer_norm(x, (self.quarter,), self.norm_weight, self.norm_bias, self.eps))
        x = F.gelu(x @ self.weight2 + self.bias2)
        x = reshape(x, 0, 16 * GRID * GRID, self.quarter // 2) @ weights
        # Masks first, then rows and columns (token, first and second upscaling): ONNX Runtime takes the two steps in a
        # third less time than one permutation of both.
        x = reshape(x.transpose(1, 2), 0, self.masks, GRID, GRID, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return reshape(x, 0, self.masks, MASK_SIZE, MASK_SIZE)


class _HyperNetworks(nn.Module):
    """The mask tokens' own MLPs, side by side: (P, masks, C) -> (P, C/8, masks)."""

    def __init__(self, mlps: nn.ModuleList) -> None:
        super().__init__()
        chains = [list(mlp.layers) for mlp in mlps if isinstance(mlp, MLP)]
        layers = list(zip(*chains, strict=True))
        self.weights = nn.ParameterList(_frozen(torch.stack([x.weight.t() for x in layer])) for layer in layers)
        self.biases = nn.ParameterList(_frozen(torch.stack([x.bias for x in layer]).unsqueeze(1)) for layer in layers)

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens.transpose(0, 1)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if i < last:
                x = F.relu(x)
        return x.permute(1, 2, 0)


class FastDecoder(nn.Module):
    """Prepared tensors and points to all masks; the contract of `decoder.onnx`.

    forward(PREPARED..., point_coords (P, N, 2), point_labels (P, N)) -> (P, masks, 256, 256) logits, (P, masks) scores.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        decoder = sam.mask_decoder
        transformer = decoder.transformer
        self.prompts = sam.prompt_encoder
        self.table = _frozen(sam.prompt_encoder.label_table())
        self.image_pe = _frozen(sam.prompt_encoder.image_positions())
        self.output_tokens = _frozen(decoder.output_tokens())
        self.transformer = transformer
        blocks = transformer.blocks()
        self.to_image = nn.ModuleList(_TokensToImage(block.cross_attn_token_to_image) for block in blocks[1:])
        self.to_tokens = nn.ModuleList(
            _ImageToTokens(block.cross_attn_image_to_token, first=block.first) for block in blocks
        )
        self.final = _TokensToImage(transformer.final_attn_token_to_image)
        self.upscale = _Upscale(decoder)
        self.hyper_networks = _HyperNetworks(decoder.output_hypernetworks_mlps)
        self.iou_head = decoder.iou_prediction_head
        self.num_masks = decoder.num_mask_tokens

    def forward(
        self, image: Tensor, keys: Tensor, values: Tensor, queries: Tensor, point_coords: Tensor, point_labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        points = self.prompts.points(point_coords, point_labels, self.table)
        prompt = torch.cat([repeat(self.output_tokens, points), points], 1)
        tokens = prompt
        placed = queries
        for i, block in enumerate(self.transformer.blocks()):
            tokens = block.attend_to_tokens(tokens, prompt)
            if i == 0:
                attention = block.cross_attn_token_to_image
                q = attention.split(attention.q_proj(tokens + prompt)) * attention.head_dim**-0.5
                attended = attention.out_proj(attention.merge((q @ keys).softmax(-1) @ values))
            else:
                placed = image + self.image_pe
                attended = self.to_image[i - 1](tokens + prompt, placed, image)
            tokens = block.norm2(tokens + attended)
            tokens = block.norm3(tokens + block.mlp(tokens))
            image = grid_norm(block.norm4, image + self.to_tokens[i](placed, tokens + prompt, tokens))
        tokens = tokens[:, : 1 + self.num_masks]
        placed = tokens + self.output_tokens
        tokens = self.transformer.norm_final_attn(tokens + self.final(placed, image + self.image_pe, image))
        masks = self.upscale(image, self.hyper_networks(tokens[:, 1:]))
        return masks, self.iou_head(tokens[:, 0])
