"""The tiny SAM with outlier channels: the same function, bit for bit in FP32, that breaks when run in plain FP16.

Trained transformers carry a few channels hundreds of times larger than the rest; the tiny one, trained for an hour,
has none. Here a few are scaled by a power of two and the next linear layer's weights by its inverse: every
product and sum in FP32 is the same number as before, while the values in between pass FP16's largest, 65504.
"""

from __future__ import annotations

import torch
from torch import Tensor

FACTOR = 2.0**17
CHANNELS = (3, 17, 40)


def make_outlier(state_dict: dict[str, Tensor], factor: float = FACTOR) -> dict[str, Tensor]:
    """A new state dict with outliers in the encoder's LayerNorms, attention values and neck, and the decoder's MLPs.

    Takes any SAM with the plain ViT encoder. factor: a power of two, or the function is only nearly the same.
    """
    if torch.frexp(torch.tensor(factor))[0] != 0.5:
        raise ValueError(f"found the factor {factor}, expected a power of two\nhint: 2.0**17")
    state = {name: value.clone() for name, value in state_dict.items()}
    blocks = len({name.split(".")[2] for name in state if name.startswith("image_encoder.blocks.")})

    def scale(producer: str, consumer: str, offset: int = 0) -> None:
        for channel in CHANNELS:
            for part in ("weight", "bias"):
                state[f"{producer}.{part}"][offset + channel] *= factor
            state[f"{consumer}.weight"][:, channel] /= factor

    for i in range(blocks):
        block = f"image_encoder.blocks.{i}"
        width = state[f"{block}.norm2.weight"].shape[0]
        scale(f"{block}.norm2", f"{block}.mlp.lin1")
        scale(f"{block}.attn.qkv", f"{block}.attn.proj", offset=2 * width)
    scale("image_encoder.neck.1", "image_encoder.neck.2")
    layer = "mask_decoder.transformer.layers"
    for i in range(len({name.split(".")[3] for name in state if name.startswith(layer)})):
        scale(f"{layer}.{i}.mlp.lin1", f"{layer}.{i}.mlp.lin2")
    return state
