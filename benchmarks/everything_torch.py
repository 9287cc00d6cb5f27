"""What benchmarks/everything.py compares with: segment_anything on the same weights, and PyTorch used well."""

from typing import Any

import numpy as np

Records = list[dict[str, Any]]


def reference_sam(sam: Any) -> Any:
    """segment_anything's Sam with the encoder of a boothsam.export Sam, and the same decoder weights."""
    import torch

    from tests.reference.segment_anything_reference import build_reference_sam

    class Encoder(torch.nn.Module):
        img_size = 1024

        def __init__(self) -> None:
            super().__init__()
            self.inner = sam.image_encoder

        def forward(self, pixels: Any) -> Any:
            return self.inner(pixels)

    config = sam.config.to_dict()
    stand_in = {"embed_dim": 8, "depth": 0, "num_heads": 1, "global_attn_indexes": (), "window_size": 14}
    built = build_reference_sam(config | {"encoder": stand_in | {"mlp_ratio": 1, "patch_size": 16}})
    built.prompt_encoder.load_state_dict(sam.prompt_encoder.state_dict(), strict=True)
    built.mask_decoder.load_state_dict(sam.mask_decoder.state_dict(), strict=True)
    built.image_encoder = Encoder()
    return built.eval()


def batched_well(sam: Any, image: np.ndarray, options: dict[str, Any]) -> Records:
    """What somebody writes who knows where the time goes: small batches, filters on the logits, late upscaling."""
    import torch
    from segment_anything.utils import amg

    from tests.reference.segment_anything_reference import batched_nms, load_reference

    predictor = load_reference().SamPredictor(sam)
    predictor.set_image(image)
    height, width = predictor.input_size
    inside = np.s_[..., : -(-height // 4), : -(-width // 4)]
    points = amg.build_point_grid(options["points_per_side"]) * np.array(image.shape[1::-1])
    logits, scores, boxes = [], [], []
    with torch.no_grad():
        for start in range(0, len(points), 8):
            coords = torch.from_numpy(predictor.transform.apply_coords(points[start : start + 8], image.shape[:2]))
            labels = torch.ones((len(coords), 1), dtype=torch.int)
            sparse, dense = sam.prompt_encoder(points=(coords[:, None], labels), boxes=None, masks=None)
            low_res, iou = sam.mask_decoder(
                image_embeddings=predictor.features,
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
            low_res, iou = low_res.flatten(0, 1), iou.flatten()
            keep = iou > options["pred_iou_thresh"]
            low_res, iou = low_res[keep], iou[keep]
            threshold, offset = sam.mask_threshold, options["stability_score_offset"]
            keep = (
                amg.calculate_stability_score(low_res[inside], threshold, offset) >= options["stability_score_thresh"]
            )
            logits.append(low_res[keep])
            scores.append(iou[keep])
            boxes.append(amg.batched_mask_to_box(low_res[keep][inside] > threshold))
        low_res, iou, box = torch.cat(logits), torch.cat(scores), torch.cat(boxes).float()
        kept = batched_nms(box, iou, torch.zeros(len(box)), 0.7)
        records = []
        for index in kept:
            mask = sam.postprocess_masks(low_res[index][None, None], predictor.input_size, image.shape[:2])[0]
            rle = amg.mask_to_rle_pytorch(mask > sam.mask_threshold)[0]
            records.append({"segmentation": rle, "predicted_iou": float(iou[index])})
    return records


def seeded_mobile_sam() -> Any:
    """MobileSAM with random weights and BatchNorm statistics near those of a trained one."""
    import torch
    from boothsam.export.architectures.sam import build

    torch.manual_seed(0)
    sam = build("vit_t")
    for module in sam.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    return sam.eval()
