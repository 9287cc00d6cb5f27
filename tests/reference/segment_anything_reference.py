"""The original authors' code as the reference: `segment-anything` 1.0 from PyPI, imported without torchvision.

The package takes four names from torchvision: `resize` and `to_pil_image` (which, on a PIL image, are Pillow's own
antialiased bilinear filter) and `batched_nms` and `box_area`. torchvision pins one torch release and adds 7 MB of
compiled code, so those four are written here instead, to torchvision 0.2x's rules, and stand in for it during the
import alone: `sys.modules` is as before once `load_reference` returns.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from types import ModuleType
from typing import Any

import torch
from PIL import Image


def to_pil_image(array: Any) -> Image.Image:
    """torchvision.transforms.functional.to_pil_image for an (h, w, 3) or (h, w) uint8 array."""
    return Image.fromarray(array)


def resize(image: Image.Image, size_hw: tuple[int, int]) -> Image.Image:
    """torchvision.transforms.functional.resize of a PIL image to (h, w): Pillow's antialiasing bilinear filter."""
    return image.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    """Areas of (n, 4) XYXY boxes, without adding a pixel: an inclusive box of one pixel has area 0."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy NMS of (n, 4) float32 XYXY boxes, all of one class (all that segment-anything asks for).

    Highest score first, ties by position (a stable sort, as in torchvision's CPU kernel); a box goes if its IoU with a
    kept one is strictly above the threshold; 0 / 0 (two boxes without area) keeps both. Returns kept indices, best
    first.
    """
    if idxs.any():
        raise NotImplementedError("found several classes; segment-anything's generators only use class 0")
    order = torch.sort(scores, descending=True, stable=True).indices
    areas = box_area(boxes)
    alive = torch.ones(len(boxes), dtype=torch.bool)
    keep = []
    for i in order.tolist():
        if not alive[i]:
            continue
        keep.append(i)
        low, high = torch.maximum(boxes[i, :2], boxes[:, :2]), torch.minimum(boxes[i, 2:], boxes[:, 2:])
        inter = (high - low).clamp(min=0).prod(dim=1)
        alive &= ~(inter / (areas[i] + areas - inter) > iou_threshold)
    return torch.tensor(keep, dtype=torch.int64)


def load_reference() -> ModuleType:
    """The imported `segment_anything` package. Raises ModuleNotFoundError with the mending command if it is missing."""
    if "segment_anything" in sys.modules:
        return sys.modules["segment_anything"]
    names = {
        "torchvision": {},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {"resize": resize, "to_pil_image": to_pil_image},
        "torchvision.ops": {},
        "torchvision.ops.boxes": {"batched_nms": batched_nms, "box_area": box_area},
    }
    before = {name: sys.modules.get(name) for name in names}
    for name, members in names.items():
        module = ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module
    try:
        return importlib.import_module("segment_anything")
    except ModuleNotFoundError as error:
        if error.name != "segment_anything":
            raise
        raise ModuleNotFoundError(
            "found no package segment_anything, expected version 1.0\nhint: pip install segment-anything==1.0"
        ) from error
    finally:
        for name, module_before in before.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before


def build_reference_sam(config: dict[str, Any], image_size: int = 1024) -> Any:
    """A `segment_anything` Sam of any dimensions, from the package's own classes, in eval mode with untrained weights.

    `config` is boothsam.export's SamConfig.to_dict() of a plain ViT (see tests/models/tiny_sam.json). Relative
    positions, qkv bias, LayerNorm eps 1e-6 and SAM's pixel mean and std are as in the package's build_sam.py.
    """
    load_reference()
    modeling = importlib.import_module("segment_anything.modeling")
    encoder, dim = config["encoder"], config["prompt_embed_dim"]
    grid = image_size // encoder["patch_size"]
    sam = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=image_size,
            patch_size=encoder["patch_size"],
            embed_dim=encoder["embed_dim"],
            depth=encoder["depth"],
            num_heads=encoder["num_heads"],
            mlp_ratio=encoder["mlp_ratio"],
            out_chans=dim,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=encoder["window_size"],
            global_attn_indexes=tuple(encoder["global_attn_indexes"]),
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=config["mask_in_chans"],
        ),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=dim,
            transformer=modeling.TwoWayTransformer(
                depth=config["decoder_depth"],
                embedding_dim=dim,
                num_heads=config["decoder_num_heads"],
                mlp_dim=config["decoder_mlp_dim"],
            ),
            num_multimask_outputs=config["num_multimask_outputs"],
            iou_head_depth=config["iou_head_depth"],
            iou_head_hidden_dim=config["iou_head_hidden_dim"],
        ),
    )
    return sam.eval()
