"""What a teacher says about a photo: its embedding, the masks it is sure of, and its three answers to clicks.

The teacher is any SAM behind the runtime's classes: a checkpoint in PyTorch or an exported model folder. Its encoder,
the expensive part, runs once per photo; `Labels` keeps everything else that training needs.

Masks come from a grid of clicks, filtered as segment_anything's automatic mask generator does it (predicted IoU,
stability, non-maximum suppression of boxes; utils/amg.py). Each one left is asked for again by its own box, and kept
when the two answers agree: a thing that the teacher means answers its box with itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from boothsam.runtime.errors import OptionError
from boothsam.runtime.masks import mask_iou, mask_to_box, nms, remove_small_regions, stability_score
from boothsam.runtime.model import Decoded, ImageEmbedding, Prompts, SamModel
from boothsam.runtime.transforms import FloatArray, Uint8Array, preprocess
from boothsam.training.generator import MIN_AREA_SHARE
from boothsam.training.photos import Image
from boothsam.training.prompts import click_in
from numpy.typing import NDArray

FRAME = 1024  # side of the frame that clicks, boxes and masks refer to
SIDE = FRAME // 2  # of the stored masks
OUTSIDE = -32.0  # logit of the padding
SPECK = 0.05  # of a mask's area: smaller islands are dropped before its box is taken, for one stray pixel moves that
CHUNK = 32  # clicks per decoder call: 32 MiB of logits

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelConfig:
    """How a photo is asked about; the thresholds are those of the reference's everything mode."""

    points_per_side: int = 16
    min_predicted_iou: float = 0.88
    min_stability: float = 0.95
    nms_iou: float = 0.7  # boxes of two masks that overlap more are one thing
    min_box_agreement: float = 0.8  # IoU of a mask with the answer to its own box
    max_objects: int = 48
    max_clicks: int = 24  # of the grid's; each object adds one

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or self.max_objects < 1 or self.max_clicks < 0:
            raise OptionError(
                f"points_per_side {self.points_per_side}, max_objects {self.max_objects}, max_clicks "
                f"{self.max_clicks}: expected at least 1, 1 and 0",
                hint="leave them out of [labels] for the defaults",
            )


@dataclass(frozen=True)
class Labels:
    """One photo with its labels; places in pixels of the frame, whose upper left corner the photo fills.

    photo (h, w, 3) uint8 RGB, max(h, w) = 1024; embedding (C, G, G) float16 of the whole frame; objects
    (M, 512, 64) uint8, packed bits of (M, 512, 512) masks over the whole frame, object_scores (M,) the teacher's
    predicted IoU; clicks (K, 2) x, y; answers (K, 3, 512, 64) uint8, packed likewise, answer_scores (K, 3); singles
    (K,) which answer the teacher's single mask is nearest.
    """

    photo: Image
    embedding: NDArray[np.float16]
    objects: NDArray[np.uint8]
    object_scores: FloatArray
    clicks: FloatArray
    answers: NDArray[np.uint8]
    answer_scores: FloatArray
    singles: NDArray[np.int64]

    def object(self, index: int) -> Bits:
        """(512, 512) bool, one of `objects`."""
        return unpack(self.objects[index])

    def answer(self, index: int, which: int) -> Bits:
        """(512, 512) bool, one of the three answers to a click."""
        return unpack(self.answers[index, which])

    def save(self, path: Path) -> None:
        """Write one .npz, complete or not at all; the photo as JPEG."""
        _, jpeg = cv2.imencode(".jpg", self.photo[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                photo=jpeg,
                embedding=self.embedding,
                objects=self.objects,
                object_scores=self.object_scores,
                clicks=self.clicks,
                answers=self.answers,
                answer_scores=self.answer_scores,
                singles=self.singles,
            )
        temporary.replace(path)

    @staticmethod
    def load(path: Path) -> Labels:
        """Read what `save` wrote."""
        with np.load(path) as data:
            photo: Image = np.asarray(cv2.imdecode(data["photo"], cv2.IMREAD_COLOR))
            return Labels(
                np.ascontiguousarray(photo[:, :, ::-1]),
                data["embedding"],
                data["objects"],
                data["object_scores"],
                data["clicks"],
                data["answers"],
                data["answer_scores"],
                data["singles"],
            )


def unpack(packed: NDArray[np.uint8]) -> Bits:
    """Packed bits (..., n) to (..., 8 n) bool."""
    return np.unpackbits(packed, axis=-1).view(np.bool_)


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher; `key` is the hash of its weights."""

    model: SamModel
    name: str
    key: str
    licence: str


def load_teacher(path: Path, variant: str | None = None, backend: str = "auto") -> Teacher:
    """A teacher from a checkpoint file (`variant` as `load_checkpoint` takes it) or from an exported model folder.

    Raises:
        CheckpointError, ModelError, BackendUnavailable: what is at `path` cannot be loaded.
    """
    if path.is_dir():
        model = SamModel.load(path, backend=backend)
        return Teacher(model, model.manifest.name, model.manifest.key, model.manifest.licence)
    from boothsam.export.checkpoints import load_checkpoint
    from boothsam.export.torch_session import torch_model

    loaded = load_checkpoint(path, variant)
    name = loaded.known.name if loaded.known else path.stem
    licence = loaded.known.licence if loaded.known else "unknown"
    return Teacher(torch_model(loaded.sam, name), name, loaded.sha256, licence)


def label_photo(teacher: Teacher, image: Uint8Array, config: LabelConfig) -> Labels:
    """Ask the teacher about a (H, W, 3) uint8 RGB photo."""
    frame, size_hw = preprocess(image, FRAME)
    height, width = (int(side) for side in size_hw)
    embedding = teacher.model.encode_frame(frame, size_hw, (height, width))
    try:
        return _Questions(teacher.model, embedding, config).labels(frame[:height, :width])
    finally:
        embedding.close()


@dataclass(frozen=True)
class _Mask:
    """A confident mask (m, m) without specks, and its predicted IoU."""

    bits: Bits
    score: float


@dataclass(frozen=True)
class _Click:
    """A click (x, y) answered with confidence: logits (3, m, m), scores (3,), which is nearest to the single mask."""

    place: FloatArray
    logits: FloatArray
    scores: FloatArray
    single: int


class _Questions:
    """All questions to one photo. Its own pixels are the frame's: the photo was scaled before."""

    def __init__(self, model: SamModel, embedding: ImageEmbedding, config: LabelConfig) -> None:
        self.model, self.embedding, self.config = model, embedding, config
        self.height, self.width = embedding.original_hw

    def labels(self, photo: Image) -> Labels:
        masks, clicks = self._grid()
        objects, scores = self._by_box(masks)
        chosen = self._spread(clicks, objects, photo) + self._on_objects(objects)
        whole = np.asarray(self.embedding.tensors["image_embedding"].numpy(), np.float32)[0]
        packed = [[self._packed(answer) for answer in click.logits] for click in chosen]
        return Labels(
            np.ascontiguousarray(photo),
            whole.astype(np.float16),
            np.array([self._packed(answer) for answer in objects], np.uint8).reshape(-1, SIDE, SIDE // 8),
            np.array(scores, np.float32),
            np.array([click.place for click in chosen], np.float32).reshape(-1, 2),
            np.array(packed, np.uint8).reshape(-1, 3, SIDE, SIDE // 8),
            np.array([click.scores for click in chosen], np.float32).reshape(-1, 3),
            np.array([click.single for click in chosen], np.int64),
        )

    def _grid(self) -> tuple[list[_Mask], list[_Click]]:
        """Confident masks of a grid of clicks, one per thing, best first; and the clicks that gave any."""
        masks: list[_Mask] = []
        clicks: list[_Click] = []
        for places, decoded in self._ask_clicks():
            logits, scores = decoded.select(multimask_output=True)
            sure = (scores >= self.config.min_predicted_iou) & (stability_score(logits) >= self.config.min_stability)
            for row in np.flatnonzero(sure.any(1)):
                found = [m for m in np.flatnonzero(sure[row]) if self._large_enough(logits[row, m])]
                masks += [_Mask(_without_specks(logits[row, m] > 0), float(scores[row, m])) for m in found]
                if found:
                    clicks.append(self._click(places[row], decoded, int(row)))
        if not masks:
            return [], []
        boxes = np.array([mask_to_box(mask.bits) for mask in masks], np.float64) + (0, 0, 1, 1)
        kept = nms(boxes, np.array([mask.score for mask in masks]), self.config.nms_iou)
        return [masks[index] for index in kept[: self.config.max_objects]], clicks

    def _ask_clicks(self) -> Iterator[tuple[FloatArray, Decoded]]:
        """(places (n, 2), answers) over the whole grid."""
        middles = (np.arange(self.config.points_per_side) + 0.5) / self.config.points_per_side
        grid = np.array([(x * self.width, y * self.height) for y in middles for x in middles], np.float32)
        for start in range(0, len(grid), CHUNK):
            places = grid[start : start + CHUNK]
            yield places, self._ask(places)

    def _by_box(self, masks: list[_Mask]) -> tuple[list[FloatArray], list[float]]:
        """The answers (m, m) to the masks' own boxes and their scores, where they agree with the masks."""
        objects, scores = [], []
        step = FRAME / self.model.manifest.mask_size
        for start in range(0, len(masks), CHUNK):
            part = masks[start : start + CHUNK]
            boxes = np.array([mask_to_box(mask.bits) for mask in part], np.float64)
            boxes = np.minimum((boxes + (0, 0, 1, 1)) * step, [self.width, self.height] * 2)
            decoded = self.model.decode(self.embedding, Prompts.make(box_xyxy=boxes))
            logits, found = self._inside(decoded).select(False)
            for mask, answer, score in zip(part, logits[:, 0], found[:, 0], strict=True):
                clean = _without_specks(answer > 0)
                if mask_iou(mask.bits, clean) >= self.config.min_box_agreement:
                    objects.append(np.where(clean | (answer <= 0), answer, OUTSIDE).astype(np.float32))
                    scores.append(float(np.clip(score, 0, 1)))
        return objects, scores

    def _on_objects(self, objects: list[FloatArray]) -> list[_Click]:
        """A click on each object's innermost point, if the teacher is sure of any answer."""
        if not objects:
            return []
        step = FRAME / self.model.manifest.mask_size
        places = np.array([click_in(np.random.default_rng(0), answer > 0, 1.0) * step for answer in objects])
        places = np.minimum(places, (self.width - 0.5, self.height - 0.5)).astype(np.float32)
        found = []
        for start in range(0, len(places), CHUNK):
            part = places[start : start + CHUNK]
            decoded = self._ask(part)
            sure = decoded.iou_predictions[:, 1:].max(1) >= self.config.min_predicted_iou
            found += [self._click(part[row], decoded, int(row)) for row in np.flatnonzero(sure)]
        return found

    def _ask(self, places: FloatArray) -> Decoded:
        """All four answers to clicks (n, 2), negative outside the photo: the padding belongs to nothing."""
        prompts = Prompts.make(places[:, None], np.ones((len(places), 1), np.int32))
        return self._inside(self.model.decode(self.embedding, prompts))

    def _inside(self, decoded: Decoded) -> Decoded:
        logits = decoded.low_res_masks.copy()
        rows, columns = (-(-side * logits.shape[-1] // FRAME) for side in (self.height, self.width))
        logits[..., rows:, :] = logits[..., columns:] = OUTSIDE
        return Decoded(logits, decoded.iou_predictions)

    @staticmethod
    def _click(place: FloatArray, decoded: Decoded, row: int) -> _Click:
        answers = decoded.low_res_masks[row]
        nearest = int(np.argmax([mask_iou(answers[0] > 0, answer > 0) for answer in answers[1:]]))
        return _Click(place, answers[1:].copy(), decoded.iou_predictions[row, 1:], nearest)

    def _large_enough(self, logits: FloatArray) -> bool:
        return bool(np.count_nonzero(logits > 0) >= MIN_AREA_SHARE * logits.size)

    def _packed(self, logits: FloatArray) -> NDArray[np.uint8]:
        """(512, 64) uint8: the logits enlarged, thresholded, and packed."""
        return np.packbits(cv2.resize(logits, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) > 0, axis=-1)

    def _spread(self, clicks: list[_Click], objects: list[FloatArray], photo: Image) -> list[_Click]:
        """At most `max_clicks` of them, by a seed that is the photo's own; a quarter may lie on backdrop."""
        seed = int(hashlib.sha256(photo.tobytes()).hexdigest()[:8], 16)
        order = np.random.default_rng(seed).permutation(len(clicks))
        step = FRAME / self.model.manifest.mask_size
        cells = {int(index): tuple((clicks[index].place / step).astype(int)) for index in order}
        on = [index for index, (x, y) in cells.items() if any(answer[y, x] > 0 for answer in objects)]
        off = [index for index in cells if index not in on][: self.config.max_clicks // 4]
        return [clicks[index] for index in sorted(on[: self.config.max_clicks - len(off)] + off)]


def _without_specks(mask: Bits) -> Bits:
    return remove_small_regions(mask, SPECK * np.count_nonzero(mask), "islands")[0]
