"""The image encoders rearranged for speed: the same functions as `architectures.sam.Sam.encode`, by exact algebra.

For both kinds, the photo is normalised behind the transpose to channels first, where a factor per channel is one number
for a whole plane, and what is outside the photo is multiplied by zero. For TinyViT, too:

- Queries, keys and values are projected before the grid is padded to whole windows, and outputs after it was cut again:
  no padded token is projected. For this a padded token's key and value have to be zero. The bias of the keys (with it
  what the norm's shift makes of them) adds the same to all scores of a query and drops out of the softmax; the bias of
  the values goes through the attention unchanged, since its weights sum to one, and into the bias of the output.
- Cutting into windows and into heads is one transpose, and so is the way back.
- MLPs and output projections are convolutions of one pixel, for their neighbours are convolutions: ONNX Runtime keeps
  its blocked layout from one block to the next, adds the residuals inside the convolutions, and computes them faster
  than matrix products (110 against 92 GFLOP/s on one core with AVX2).

SAM's own encoder gains nothing by that: its time is in large matrix products.

Results differ from the plain form by float rounding alone (4e-6 of the embedding's range).
"""

from __future__ import annotations

import torch
from boothsam.export.architectures import tiny_vit
from boothsam.export.architectures.config import IMAGE_SIZE
from boothsam.export.architectures.operators import crop, pad
from boothsam.export.architectures.sam import Sam
from torch import Tensor, nn
from torch.nn import functional as F


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().float().contiguous(), requires_grad=False)


class _Pointwise(nn.Module):
    """A linear layer over the channels of (1, C, H, W)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = _frozen(weight[:, :, None, None]), _frozen(bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


class _Attention(nn.Module):
    """`tiny_vit.Attention` over (1, dim, side, side), which it cuts into windows of `window` by `window` itself."""

    def __init__(self, source: tiny_vit.Attention, side: int, window: int) -> None:
        super().__init__()
        self.side, self.window = side, window
        self.count = -(-side // window)
        self.heads, self.norm = source.num_heads, source.norm
        self.biases, self.indices = source.attention_biases, source.indices
        # Double precision, so that folding costs no more than one rounding. Each head's q, k and v lie side by side.
        weight = source.qkv.weight.detach().double().reshape(self.heads, 3, source.head_dim, -1)
        bias = source.qkv.bias.detach().double().reshape(self.heads, 3, source.head_dim)
        query, key, value = weight.transpose(0, 1).flatten(1, 2)
        query_bias, _, value_bias = bias.transpose(0, 1).flatten(1, 2)
        # The plain form pads before the norm, which makes its shift of a padded token; without the shift it is zero.
        shift = self.norm.bias.detach().double()
        scale = source.head_dim**-0.5
        self.query, self.key, self.value = _frozen(query * scale), _frozen(key), _frozen(value)
        self.query_bias = _frozen((query_bias + query @ shift) * scale)
        out, out_bias = source.proj.weight.detach().double(), source.proj.bias.detach().double()
        self.out = _Pointwise(out, out_bias + out @ (value_bias + value @ shift))

    def _split(self, x: Tensor) -> Tensor:
        """(1, side, side, dim) to (windows, heads, window^2, head_dim)."""
        count, window = self.count, self.window
        if count * window != self.side:
            x = pad(x, count * window - self.side, count * window - self.side)
        x = x.reshape(count, window, count, window, self.heads, -1).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(count * count, self.heads, window * window, -1)

    def _merge(self, x: Tensor) -> Tensor:
        """(windows, heads, window^2, head_dim) to (1, side, side, dim)."""
        count, window = self.count, self.window
        x = x.reshape(count, count, self.heads, window, window, -1).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(1, count * window, count * window, self.query.shape[0])
        return x if count * window == self.side else crop(x, self.side, self.side)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        tokens = F.layer_norm(x.permute(0, 2, 3, 1), norm.normalized_shape, norm.weight, None, norm.eps)
        q = self._split(F.linear(tokens, self.query, self.query_bias))
        k, v = self._split(F.linear(tokens, self.key)), self._split(F.linear(tokens, self.value))
        scores = q @ k.transpose(2, 3) + self.biases[:, self.indices]
        y: Tensor = self.out(self._merge(scores.softmax(-1) @ v).permute(0, 3, 1, 2))
        return y


class _Block(nn.Module):
    """`tiny_vit.Block`: (1, dim, side, side) -> the same."""

    def __init__(self, source: tiny_vit.Block) -> None:
        super().__init__()
        self.attn = _Attention(source.attn, source.side, source.window)
        self.local_conv = source.local_conv
        self.norm, self.act = source.mlp.norm, source.mlp.act
        self.fc1 = _Pointwise(source.mlp.fc1.weight, source.mlp.fc1.bias)
        self.fc2 = _Pointwise(source.mlp.fc2.weight, source.mlp.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_conv(x + self.attn(x))
        tokens = self.norm(x.permute(0, 2, 3, 1))
        y: Tensor = x + self.fc2(self.act(self.fc1(tokens.permute(0, 3, 1, 2))))
        return y


def _tiny_vit(source: tiny_vit.TinyViT) -> nn.Sequential:
    """`tiny_vit.TinyViT`: (1, 3, 1024, 1024) normalised RGB -> (1, out, 64, 64)."""
    parts: list[nn.Module] = [source.patch_embed]
    for layer in source.layers:
        assert isinstance(layer, tiny_vit.Stage)
        parts += [_Block(block) if isinstance(block, tiny_vit.Block) else block for block in layer.blocks]
        parts += [] if layer.downsample is None else [layer.downsample]
    return nn.Sequential(*parts, source.neck)


class FastEncoder(nn.Module):
    """`Sam.encode`: image (1024, 1024, 3) uint8 RGB and size_hw (2,) int32 -> (1, dim, 64, 64) float32."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.mean = _frozen(sam.pixel_mean.reshape(3, 1, 1))
        self.scale = _frozen(1 / sam.pixel_std.double().reshape(3, 1, 1))
        source = sam.image_encoder
        self.encoder: nn.Module = _tiny_vit(source) if isinstance(source, tiny_vit.TinyViT) else source

    def forward(self, image: Tensor, size_hw: Tensor) -> Tensor:
        side = torch.arange(IMAGE_SIZE, dtype=torch.int32, device=image.device)
        inside = (side < size_hw[0]).unsqueeze(1) & (side < size_hw[1]).unsqueeze(0)
        pixels = (image.float().permute(2, 0, 1) - self.mean) * self.scale * inside.float()
        embedding: Tensor = self.encoder(pixels.unsqueeze(0))
        return embedding
