"""Dimensions of each known SAM, and how they read off a state dict.

Figures from facebookresearch/segment-anything (build_sam.py) and ChaoningZhang/MobileSAM (build_sam.py,
tiny_vit_sam.py).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boothsam.runtime.errors import CheckpointError, OptionError

IMAGE_SIZE = 1024
GRID = 64  # image tokens per side: both encoders have stride 16
MASK_SIZE = 4 * GRID  # low-resolution logits per side

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ViTDetConfig:
    """SAM's plain vision transformer: windowed attention but for the blocks in `global_attn_indexes`."""

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    window_size: int = 14
    mlp_ratio: float = 4.0
    patch_size: int = 16


@dataclass(frozen=True)
class TinyViTConfig:
    """MobileSAM's TinyViT-5M; the first stage is convolutional, so its head count and window are unused."""

    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    mlp_ratio: float = 4.0
    num_classes: int = 1000


@dataclass(frozen=True)
class SamConfig:
    """One SAM: its image encoder, and the dimensions of prompt encoder and mask decoder."""

    variant: str
    encoder: ViTDetConfig | TinyViTConfig
    prompt_embed_dim: int = 256
    mask_in_chans: int = 16
    decoder_depth: int = 2
    decoder_num_heads: int = 8
    decoder_mlp_dim: int = 2048
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256

    @property
    def num_mask_tokens(self) -> int:
        """Masks per prompt: token 0 is the single mask, the others the multimask outputs."""
        return self.num_multimask_outputs + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the encoder's kind is told by its entries."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamConfig:
        """Inverse of `to_dict`.

        Raises:
            OptionError: an unknown, missing or ill-typed entry.
        """
        try:
            encoder: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in dict(values["encoder"]).items()
            }
            kind = TinyViTConfig if "embed_dims" in encoder else ViTDetConfig
            return cls(**{**values, "encoder": kind(**encoder)})
        except (KeyError, TypeError, ValueError) as error:
            known = ", ".join(field.name for field in dataclasses.fields(cls))
            raise OptionError(f"no SAM configuration: {error!r}", hint=f"its entries are {known}") from None


CONFIGS: dict[str, SamConfig] = {
    "vit_t": SamConfig("vit_t", TinyViTConfig()),
    "vit_b": SamConfig("vit_b", ViTDetConfig(768, 12, 12, (2, 5, 8, 11))),
    "vit_l": SamConfig("vit_l", ViTDetConfig(1024, 24, 16, (5, 11, 17, 23))),
    "vit_h": SamConfig("vit_h", ViTDetConfig(1280, 32, 16, (7, 15, 23, 31))),
}


def resolve_config(variant: str | SamConfig) -> SamConfig:
    """A configuration from a variant's name, a path to a JSON file of `SamConfig.to_dict`, or itself.

    Raises:
        OptionError: neither a known variant nor a readable configuration.
    """
    if isinstance(variant, SamConfig):
        return variant
    if variant in CONFIGS:
        return CONFIGS[variant]
    path = Path(variant)
    if path.suffix != ".json":
        raise OptionError(
            f"unknown variant {variant!r}, expected one of {', '.join(CONFIGS)}",
            hint="for a SAM of other dimensions give the path of a .json file written from SamConfig.to_dict()",
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"the SAM configuration {path} cannot be read ({error})") from None
    return SamConfig.from_dict(values)


def _count(shapes: Shapes, template: str) -> int:
    """Number of consecutive indices i from 0 for which the key `template.format(i)` exists."""
    n = 0
    while template.format(n) in shapes:
        n += 1
    return n


def infer_config(shapes: Shapes, *, decoder_num_heads: int = 8) -> SamConfig:
    """Read the configuration off a state dict's names and shapes.

    Head counts of the image encoder follow from the width of its relative positions, global blocks from their length.
    The decoder's head count leaves no trace in the shapes: every published SAM has 8.

    Raises:
        CheckpointError: the names are not those of a SAM.
    """
    try:
        if "image_encoder.patch_embed.seq.0.c.weight" in shapes:
            encoder: ViTDetConfig | TinyViTConfig = TinyViTConfig()
        else:
            encoder = _infer_vitdet(shapes)
        decoder = "mask_decoder.transformer.layers"
        head = "mask_decoder.iou_prediction_head.layers"
        config = SamConfig(
            variant="custom",
            encoder=encoder,
            prompt_embed_dim=shapes["prompt_encoder.no_mask_embed.weight"][1],
            mask_in_chans=shapes["prompt_encoder.mask_downscaling.3.weight"][0],
            decoder_depth=_count(shapes, decoder + ".{}.norm1.weight"),
            decoder_num_heads=decoder_num_heads,
            decoder_mlp_dim=shapes[f"{decoder}.0.mlp.lin1.weight"][0],
            num_multimask_outputs=shapes["mask_decoder.mask_tokens.weight"][0] - 1,
            iou_head_depth=_count(shapes, head + ".{}.weight"),
            iou_head_hidden_dim=shapes[f"{head}.0.weight"][0],
        )
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"the {len(shapes)} tensors are not those of a SAM: {error} is missing or misshapen"
            + (f"; found {', '.join(list(shapes)[:3])}, ..." if shapes else ""),
            hint="expected the state dict of facebookresearch/segment-anything or ChaoningZhang/MobileSAM",
        ) from None
    for name, known in CONFIGS.items():
        if dataclasses.replace(config, variant=name) == known:
            return known
    return config


def _infer_vitdet(shapes: Shapes) -> ViTDetConfig:
    prefix = "image_encoder."
    depth = _count(shapes, prefix + "blocks.{}.norm1.weight")
    lengths = [shapes[f"{prefix}blocks.{i}.attn.rel_pos_h"][0] for i in range(depth)]
    embed_dim, _, patch_size, _ = shapes[prefix + "patch_embed.proj.weight"]
    windows = {length for length in lengths if length != 2 * GRID - 1}
    return ViTDetConfig(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=embed_dim // shapes[prefix + "blocks.0.attn.rel_pos_h"][1],
        global_attn_indexes=tuple(i for i, length in enumerate(lengths) if length == 2 * GRID - 1),
        window_size=(min(windows) + 1) // 2 if windows else 14,
        mlp_ratio=shapes[prefix + "blocks.0.mlp.lin1.weight"][0] / embed_dim,
        patch_size=patch_size,
    )
