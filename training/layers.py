"""The student's configuration and the blocks that its encoder and decoder are made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from boothsam.runtime.manifest import PIXEL_MEAN, PIXEL_STD
from torch import Tensor, nn

MEAN, STD = PIXEL_MEAN, PIXEL_STD


@dataclass(frozen=True)
class StudentConfig:
    """Widths of the network; the defaults are the bundled starter model."""

    stem: int = 16
    widths: tuple[int, int, int, int, int] = (24, 56, 112, 176, 160)  # strides 4 to 64 of the half-size picture
    blocks: tuple[int, int, int, int, int] = (1, 3, 4, 3, 2)
    embedding: int = 112  # channels of image_embedding, stride 32 of the frame
    features_16: int = 32
    features_8: int = 16
    features_4: int = 12
    deep: int = 144  # decoder channels at the two coarsest strides
    looks_8: int = 32  # soft codebook sizes, see appearance.py
    looks_4: int = 16

    def to_dict(self) -> dict[str, object]:
        """Plain values for a checkpoint or a manifest."""
        return asdict(self)


def conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, act: bool = True) -> nn.Sequential:
    """Convolution, BatchNorm and, unless told otherwise, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if act:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution at half the width, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        last = conv_bn(inner, channels, act=False)
        nn.init.zeros_(next(last[1].parameters()))  # begins as the identity: blocks can be added to a trained encoder
        self.body = nn.Sequential(conv_bn(channels, inner), conv_bn(inner, inner, 3), last)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Plain(nn.Module):
    """One 3x3 convolution added to the input: cheaper than a bottleneck where channels are few."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = conv_bn(channels, channels, 3, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def up(x: Tensor) -> Tensor:
    """Twice the size, bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class GroupNorm(nn.Module):
    """Group normalisation over channels and space, for any number of prompts.

    Written out, because the exporter's own rewriting goes through InstanceNormalization with a fixed batch.
    """

    def __init__(self, channels: int, groups: int = 8) -> None:
        super().__init__()
        self.groups, self.channels = groups, channels
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not torch.onnx.is_in_onnx_export():
            return F.group_norm(x.float(), self.groups, self.weight, self.bias).to(x.dtype)
        height, width = int(x.shape[2]), int(x.shape[3])
        grouped = x.reshape(-1, self.groups, self.channels // self.groups * height * width)
        mean = grouped.mean(2, keepdim=True)
        centred = grouped - mean
        scale = torch.rsqrt((centred * centred).mean(2, keepdim=True) + 1e-5)
        shaped = (centred * scale).reshape(-1, self.channels, height, width)
        return shaped * self.weight[:, None, None] + self.bias[:, None, None]


class DecoderBlock(nn.Module):
    """A bottleneck with GroupNorm on the narrow side and a last convolution that starts near zero."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm_a = GroupNorm(inner)
        self.middle = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm_b = GroupNorm(inner)
        self.expand = nn.Conv2d(inner, channels, 1)
        nn.init.normal_(self.expand.weight, std=0.02)
        if self.expand.bias is not None:
            nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm_a(self.squeeze(x)))
        y = F.relu(self.norm_b(self.middle(y)))
        widened: Tensor = self.expand(y)
        return x + widened
