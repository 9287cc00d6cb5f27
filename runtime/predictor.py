"""SamPredictor, call-compatible with segment_anything's, over a model folder instead of a PyTorch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from boothsam.runtime import transforms
from boothsam.runtime.errors import OptionError, PromptError
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.runtime.transforms import BoolArray, FloatArray, Uint8Array


class Prediction(NamedTuple):
    """The answer to one prompt; unpacks like segment_anything's `masks, scores, logits`.

    masks: (C, H, W) bool, or float32 logits when those were asked for. iou_predictions: (C,) the model's own estimate.
    low_res_masks: (C, 256, 256) logits, for `mask_input` and `cut_out`. C is 3 with multimask_output, else 1; not
    sorted.
    """

    masks: BoolArray | FloatArray
    iou_predictions: FloatArray
    low_res_masks: FloatArray

    @property
    def best(self) -> int:
        """Index of the highest predicted IoU."""
        return int(np.argmax(self.iou_predictions))

    def ambiguous(self, threshold: float = 0.1) -> list[int]:
        """Indices whose score is within `threshold` of the best, best first.

        More than one means that the prompt fits several objects (a label and its bottle, say): let the user choose.
        """
        order = np.argsort(-self.iou_predictions, kind="stable")
        close = self.iou_predictions[order] >= self.iou_predictions[order[0]] - threshold
        return [int(index) for index in order[close]]


class SamPredictor:
    """Holds one photo's embedding and answers prompts on it. For a stateless interface see SamModel."""

    mask_threshold = 0.0

    def __init__(self, sam_model: SamModel) -> None:
        self.model = sam_model
        self._embedding: ImageEmbedding | None = None

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        resize: str = "exact",
    ) -> SamPredictor:
        """A predictor over SamModel.load(...): a model folder, an installed name, or None for the bundled starter
        model."""
        return cls(SamModel.load(model, backend=backend, precision=precision, threads=threads, resize=resize))

    def set_image(self, image: Uint8Array, image_format: str = "RGB") -> None:
        """Run the encoder on a (H, W, 3) uint8 photo; `predict` then answers any number of prompts.

        image_format: "RGB", or "BGR" for code that was written for segment_anything and OpenCV.
        """
        if image_format not in ("RGB", "BGR"):
            raise OptionError(f"image_format must be 'RGB' or 'BGR', found {image_format!r}")
        transforms.check_image(image)
        embedding = self.model.encode(np.ascontiguousarray(image[..., ::-1]) if image_format == "BGR" else image)
        self.reset_image()
        self._embedding = embedding

    @property
    def is_image_set(self) -> bool:
        """Whether there is an embedding to predict on."""
        return self._embedding is not None

    @property
    def embedding(self) -> ImageEmbedding:
        """The current photo's embedding.

        Raises:
            PromptError: set_image was not called.
        """
        if self._embedding is None:
            raise PromptError("no image is set", hint="call set_image(image) before predict(...)")
        return self._embedding

    @property
    def original_size(self) -> tuple[int, int]:
        """(height, width) of the photo."""
        return self.embedding.original_hw

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the photo inside the 1024 frame."""
        return self.embedding.input_hw

    def get_image_embedding(self) -> FloatArray:
        """A host copy of the embedding, (1, C, 64, 64) float32 (C = 256 for SAM and MobileSAM)."""
        return np.asarray(self.embedding.tensors["image_embedding"].numpy(), np.float32)

    def predict(
        self,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> Prediction:
        """Masks for one prompt, in segment_anything's argument order and shapes.

        point_coords: (N, 2) (x, y) in photo pixels. point_labels: (N,) 1 foreground, 0 background. box: (4,) XYXY in
        photo
        pixels. mask_input: (1, 256, 256) logits of an earlier call. multimask_output: three candidates, best for a
        single
        click; False gives the one mask that suits a box or several clicks. return_logits: masks unthresholded, float32.

        Raises:
            PromptError: no image, no prompt, or one outside the photo.
        """
        batch = self.predict_batch(point_coords, point_labels, box, mask_input, multimask_output, return_logits)
        if len(batch) != 1:
            raise PromptError(
                f"predict answers one prompt, {len(batch)} were given",
                hint="use predict_batch for several boxes or clicks",
            )
        return batch[0]

    def predict_batch(
        self,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        boxes: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> list[Prediction]:
        """One Prediction per prompt, in one decoder call: (P, N, 2) points, (P, N) labels, (P, 4) boxes, (P, 1, 256,
        256) masks."""
        embedding = self.embedding
        prompts = Prompts.make(point_coords, point_labels, boxes, mask_input)
        low_res, scores = self.model.decode(embedding, prompts).select(multimask_output)
        upscale: Any = transforms.upscale_logits if return_logits else transforms.upscale_mask
        extra = (self.model.manifest.image_size,)
        options = extra if return_logits else (self.mask_threshold, *extra)
        return [
            Prediction(np.stack([upscale(m, embedding.original_hw, *options) for m in masks]), row_scores, masks)
            for masks, row_scores in zip(low_res, scores, strict=True)
        ]

    def reset_image(self) -> None:
        """Forget the photo and free its embedding."""
        if self._embedding is not None:
            self._embedding.close()
        self._embedding = None


def _build(checkpoint: str | Path | None = None) -> SamModel:
    return SamModel.load(checkpoint)


# segment_anything's entry point: `sam_model_registry["vit_b"](checkpoint=...)`, where the checkpoint is a model
# folder or name.
sam_model_registry = dict.fromkeys(("default", "vit_h", "vit_l", "vit_b", "vit_t", "starter"), _build)
