"""The whole SAM as one torch module, from a padded frame and frame coordinates to logits."""

from __future__ import annotations

import torch
from boothsam.export.architectures.config import IMAGE_SIZE, SamConfig, ViTDetConfig, resolve_config
from boothsam.export.architectures.mask_decoder import MaskDecoder
from boothsam.export.architectures.prompt_encoder import PromptEncoder
from boothsam.export.architectures.tiny_vit import TinyViT
from boothsam.export.architectures.vit_det import ImageEncoderViT
from boothsam.runtime.manifest import PIXEL_MEAN, PIXEL_STD
from torch import Tensor, nn


class Sam(nn.Module):
    """Image encoder, prompt encoder and mask decoder under the official state-dict names."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        encoder = ImageEncoderViT if isinstance(config.encoder, ViTDetConfig) else TinyViT
        self.image_encoder = encoder(config.encoder, config.prompt_embed_dim)  # type: ignore[arg-type]
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD), persistent=False)
        self.pixel_mean: Tensor
        self.pixel_std: Tensor

    def encode(self, image: Tensor, size_hw: Tensor) -> Tensor:
        """Embedding of one frame.

        Args:
            image: (1024, 1024, 3) uint8 RGB, the photo in the upper left corner.
            size_hw: (2,) int32, height and width of the photo in the frame.

        Returns:
            (1, dim, 64, 64) float32.
        """
        pixels = (image.float() - self.pixel_mean) / self.pixel_std
        side = torch.arange(IMAGE_SIZE, dtype=torch.int32, device=image.device)
        inside = (side < size_hw[0]).unsqueeze(1) & (side < size_hw[1]).unsqueeze(0)
        pixels = torch.where(inside.unsqueeze(2), pixels, torch.zeros((), device=image.device))
        embedding: Tensor = self.image_encoder(pixels.permute(2, 0, 1).unsqueeze(0))
        return embedding

    def decode(
        self, image_embedding: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """All masks of P prompts with N points each.

        Args:
            image_embedding: (1, dim, 64, 64) float32 from `encode`.
            point_coords: (P, N, 2) float32, (x, y) in pixels of the frame; box corners are points.
            point_labels: (P, N) int32: 1 foreground, 0 background, 2 and 3 box corners, -1 padding.
            mask_input: (P, 1, 256, 256) float32 logits of an earlier prediction.

        Returns:
            (P, 4, 256, 256) logits, token 0 the single mask, and (P, 4) predicted IoU.
        """
        prompts = self.prompt_encoder
        points = prompts.points(point_coords, point_labels, prompts.label_table())
        dense = prompts.no_mask() if mask_input is None else prompts.masks(mask_input)
        image = (image_embedding + dense).expand(point_coords.shape[0], -1, -1, -1)
        masks, iou = self.mask_decoder(image, prompts.image_positions(), points)
        return masks, iou


def build(variant: str | SamConfig) -> Sam:
    """A SAM of this variant (vit_t, vit_b, vit_l, vit_h), JSON file or configuration, weights not set, in eval mode."""
    return Sam(resolve_config(variant)).eval()
