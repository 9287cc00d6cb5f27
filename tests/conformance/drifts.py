"""Runtimes that break one of SAM's rules each, as existing projects do: the kit must catch every one of them.

Built on the tiny SAM's own modules, so that nothing but the named rule differs. Who does what is a reading of their
code;
DRIFTS names the projects.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])

DRIFTS = {
    "canvas_684x1024": "samexporter <= 0.4, rembg, X-AnyLabeling: every photo is fitted into 684 x 1024",
    "no_antialias": "samexporter <= 0.4, rembg, X-AnyLabeling: warpAffine, bilinear without antialiasing",
    "padding_with_box": "samexporter, osam, roboflow inference: the padding point is appended to a box too",
    "single_mask_by_count": "samexporter, osam with the single-mask export: the number of tokens chooses the one mask",
    "has_mask_minus_one": "osam: has_mask_input = -1, so dense = 2 no_mask_embed - downscaled zeros",
    "threshold_half": "segment-anything-services: masks where the logit exceeds 0.5",
    "zero_mask_with_points": "segment-anything-services: several points come with a mask prompt of zeros",
    "points_list_shared": "roboflow inference: points are appended to one shared list",
    "mask_as_binary": "roboflow inference: mask_input is made 0/1",
    "truncated_size": "nanosam: the short side is cut, not rounded",
    "bicubic": "nanosam: Pillow's default filter for resize",
    "single_scale": "nanosam: one scale for x and y",
    "one_step_upscale": "nanosam: 256 to the photo in one step after an integer crop",
    "no_padding_point": "EdgeSAM's ONNX predictor, segment-anything-cpp-wrapper: no padding point at all",
    "no_box_argument": "EdgeSAM's ONNX predictor: predict has no box",
    "argmax_of_four": "EfficientViT-SAM's decoder export: the best scored of all four tokens",
    "no_mask_input": "EfficientViT-SAM's decoder export: mask_input is ignored",
    "one_mask_for_multimask": "sam-hq: multimask_output=True returns one mask",
    "squash": "SAM 2, EfficientSAM, cpp-wrapper's callers: the photo is stretched to 1024 x 1024",
    "six_points": "EfficientSAM: points beyond the sixth are dropped",
    "black_padding": "padding before normalising: the border is black instead of the mean colour",
    "bgr": "a photo read by OpenCV and never turned to RGB",
    "no_half_pixel": "prompt coordinates without the half pixel",
    "never_enlarge": "photos smaller than 1024 are not enlarged",
}


class DriftingPredictor:
    """segment_anything's SamPredictor over `sam`, right but for the rule that `drift` names ("" breaks none)."""

    def __init__(self, sam: Any, drift: str = "") -> None:
        if drift and drift not in DRIFTS:
            raise ValueError(
                f'found drift {drift!r}, expected one of {", ".join(DRIFTS)}\nhint: "" is the right predictor'
            )
        self.sam, self.drift = sam, drift
        self.shared_points: list[list[float]] = []
        self.shared_labels: list[int] = []

    @torch.no_grad()
    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Resize, normalise, pad and encode (H, W, 3) RGB."""
        if self.drift == "bgr":
            image = image[..., ::-1]
        self.original_hw = h, w = image.shape[0], image.shape[1]
        self.input_hw = self._input_size(h, w)
        new_h, new_w = self.input_hw
        filter_ = Image.Resampling.BICUBIC if self.drift == "bicubic" else Image.Resampling.BILINEAR
        if self.drift == "no_antialias":
            pixels = cv2.warpAffine(
                image, np.array([[new_w / w, 0, 0], [0, new_h / h, 0]]), (new_w, new_h), flags=cv2.INTER_LINEAR
            )
        else:
            pixels = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((new_w, new_h), filter_))
        frame = np.zeros((1024, 1024, 3))
        if self.drift == "black_padding":
            frame = (frame - MEAN) / STD
        frame[:new_h, :new_w] = (pixels - MEAN) / STD
        self.embedding = self.sam.image_encoder(torch.from_numpy(frame.transpose(2, 0, 1).copy()).float()[None])

    def _input_size(self, h: int, w: int) -> tuple[int, int]:
        if self.drift == "squash":
            return 1024, 1024
        scale = 1024 / max(h, w)
        if self.drift == "canvas_684x1024":
            scale = min(684 / h, 1024 / w)
        if self.drift == "never_enlarge":
            scale = min(scale, 1.0)
        if self.drift == "truncated_size":
            return int(h * scale), int(w * scale)
        return int(h * scale + 0.5), int(w * scale + 0.5)

    @torch.no_grad()
    def predict(
        self,
        point_coords: NDArray[np.float64] | None = None,
        point_labels: NDArray[np.int64] | None = None,
        box: NDArray[np.float64] | None = None,
        mask_input: NDArray[np.float32] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """As segment_anything's: masks (C, H, W), scores (C,), low-resolution logits (C, 256, 256)."""
        if box is not None and self.drift == "no_box_argument":
            raise TypeError("predict() got an unexpected keyword argument 'box'")
        coords, labels = self._tokens(point_coords, point_labels, box)
        several = point_coords is not None and len(point_coords) > 1
        low_res, scores = self._decode(coords, labels, self._dense(mask_input, several))
        chosen = self._choose(scores, len(labels), multimask_output)
        low_res, scores = low_res[chosen], scores[chosen]
        logits = self._upscale(low_res)
        threshold = 0.5 if self.drift == "threshold_half" else 0.0
        masks = logits if return_logits else logits > threshold
        return masks.numpy(), scores.numpy(), low_res.numpy()

    def _tokens(self, point_coords: Any, point_labels: Any, box: Any) -> tuple[Tensor, Tensor]:
        points = [] if point_coords is None else point_coords.tolist()
        labels = [] if point_labels is None else point_labels.tolist()
        if self.drift == "six_points":
            points, labels = points[:6], labels[:6]
        if self.drift == "points_list_shared":
            self.shared_points += points
            self.shared_labels += labels
            points, labels = list(self.shared_points), list(self.shared_labels)
        padded = bool(points) and (box is None or self.drift == "points_list_shared")
        if box is not None:
            points, labels = points + box.reshape(2, 2).tolist(), labels + [2, 3]
        ratio = np.array(self.input_hw[::-1]) / np.array(self.original_hw[::-1])
        if self.drift == "single_scale":
            ratio = np.full(2, 1024 / max(self.original_hw))
        coords = np.array(points).reshape(-1, 2) * ratio
        if self.drift != "no_padding_point" and (padded or self.drift == "padding_with_box"):
            coords, labels = np.concatenate([coords, np.zeros((1, 2))]), labels + [-1]
        return torch.from_numpy(coords).float(), torch.tensor(labels)

    def _dense(self, mask_input: Any, several_points: bool) -> Tensor:
        prompt = self.sam.prompt_encoder
        no_mask = prompt.no_mask_embed.weight.reshape(1, -1, 1, 1)
        zeros = torch.zeros(1, 1, 256, 256)
        if self.drift == "no_mask_input" or mask_input is None:
            if self.drift == "has_mask_minus_one":
                return 2 * no_mask - prompt.mask_downscaling(zeros)
            if self.drift == "zero_mask_with_points" and several_points:
                return prompt.mask_downscaling(zeros)
            return no_mask.expand(1, -1, 64, 64)
        mask = torch.from_numpy(np.asarray(mask_input, np.float32))[None]
        if self.drift == "mask_as_binary":
            mask = (mask > 0).float()
        return prompt.mask_downscaling(mask)

    def _decode(self, coords: Tensor, labels: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        prompt = self.sam.prompt_encoder
        table = torch.cat([prompt.not_a_point_embed.weight, *(e.weight for e in prompt.point_embeddings)])
        half = 0.0 if self.drift == "no_half_pixel" else 0.5
        sparse = prompt.pe_layer.forward_with_coords(coords[None] + half, (1024, 1024)) * (labels >= 0)[None, :, None]
        logits, scores = self.sam.mask_decoder.predict_masks(
            self.embedding, prompt.get_dense_pe(), sparse + table[labels + 1], dense
        )
        return logits[0], scores[0]

    def _choose(self, scores: Tensor, tokens: int, multimask_output: bool) -> list[int]:
        if self.drift == "argmax_of_four":
            return [int(scores.argmax())]
        if self.drift == "single_mask_by_count":
            weighted = scores + (tokens - 2.5) * torch.tensor([1000.0, 0, 0, 0])
            return [int(weighted.argmax())]
        if self.drift == "one_mask_for_multimask" and multimask_output:
            return [1 + int(scores[1:].argmax())]
        return [1, 2, 3] if multimask_output else [0]

    def _upscale(self, low_res: Tensor) -> Tensor:
        h, w = self.input_hw
        if self.drift == "one_step_upscale":
            crop = low_res[None, :, : int(h / 4), : int(w / 4)]
            return F.interpolate(crop, self.original_hw, mode="bilinear", align_corners=False)[0]
        frame = F.interpolate(low_res[None], (1024, 1024), mode="bilinear", align_corners=False)[..., :h, :w]
        return F.interpolate(frame, self.original_hw, mode="bilinear", align_corners=False)[0]
