"""The starter model's architecture: a light convolutional encoder and a convolutional, prompt-conditioned decoder.

Interface and frame are SAM's (see `boothsam.runtime`): a 1024 x 1024 frame, points in its pixels, four masks of a
quarter of its side, four predicted IoUs. The trunk and the decoder work on the picture at half its side, where nearly
all of the computation is; a shallow branch at full size sharpens the masks. Everything that depends on coordinates is
relative to the frame, so the same weights run at any frame side that is a multiple of 128.

BatchNorm stands in the encoder alone: boxes and clicks have different statistics, and running averages over both
ruin the clicks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from boothsam.training.appearance import Looks
from boothsam.training.decoder import Decoder
from boothsam.training.layers import Bottleneck, Plain, StudentConfig, conv_bn, up
from torch import Tensor, nn


class Encoder(nn.Module):
    """(B, 3, S, S) normalised image -> embedding at S/32, features_16, _8 and _4, looks_8 and looks_4."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.stem = conv_bn(3, config.stem, 3, 2)
        stages: list[nn.Module] = []
        before = config.stem
        for width, count in zip(config.widths, config.blocks, strict=True):
            block = Plain if width <= 32 else Bottleneck
            stages.append(nn.Sequential(conv_bn(before, width, 3, 2), *(block(width) for _ in range(count))))
            before = width
        self.stages = nn.ModuleList(stages)
        w4, w8, w16, w32, w64 = config.widths
        self.context = nn.Sequential(nn.Linear(w64, w64), nn.ReLU(inplace=True), nn.Linear(w64, w64))
        self.lateral_32 = conv_bn(w32, config.embedding, act=False)
        self.lateral_64 = conv_bn(w64, config.embedding, act=False)
        self.lateral_16 = conv_bn(w16, config.embedding, act=False)
        self.fuse_32 = Bottleneck(config.embedding)
        self.fuse_16 = Bottleneck(config.embedding)
        self.out_16 = nn.Conv2d(config.embedding, config.embedding, 1)
        self.down_8 = conv_bn(config.embedding, config.features_16, act=False)
        self.lateral_8 = conv_bn(w8, config.features_16, act=False)
        self.fuse_8 = nn.Sequential(nn.ReLU(inplace=True), conv_bn(config.features_16, config.features_16, 3))
        self.out_8 = nn.Conv2d(config.features_16, config.features_16, 1)
        self.down_4 = conv_bn(config.features_16, w4, act=False)
        self.lateral_4 = conv_bn(w4, w4, act=False)
        self.fuse_4 = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(w4, config.features_8, 3, padding=1))

        self.sharp = nn.Sequential(conv_bn(3, 12, 3, 2), nn.Conv2d(12, config.features_4, 3, 2, 1))
        self.looks_8 = Looks(w4 + config.features_8, config.looks_8)
        self.looks_4 = Looks(config.features_4, config.looks_4)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        half = F.avg_pool2d(image, 2)
        x4, x8, x16, x32, x64 = self._pyramid(half)
        shallow = x4
        x64 = x64 + self.context(x64.mean((2, 3)))[:, :, None, None]
        x32 = self.fuse_32(F.relu(self.lateral_32(x32) + up(self.lateral_64(x64))))
        x16 = self.fuse_16(F.relu(self.lateral_16(x16) + up(x32)))
        x8 = self.fuse_8(self.lateral_8(x8) + up(self.down_8(x16)))
        x4 = self.fuse_4(self.lateral_4(x4) + up(self.down_4(x8)))
        sharp = self.sharp(image)
        colours_4 = F.avg_pool2d(half, 2)
        looks_8 = self.looks_8(F.avg_pool2d(colours_4, 2), torch.cat([shallow, x4], 1))
        return self.out_16(x16), self.out_8(x8), x4, sharp, looks_8, self.looks_4(colours_4, sharp)

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class Student(nn.Module):
    """Encoder and decoder; `frame` is the side of the picture that point coordinates refer to."""

    def __init__(self, config: StudentConfig | None = None, frame: int = 1024) -> None:
        super().__init__()
        self.config = config or StudentConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config, frame)
