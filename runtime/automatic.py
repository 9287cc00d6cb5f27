"""SamAutomaticMaskGenerator: every object of a photo, call-compatible with segment_anything's, without its memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, get_args

import numpy as np
import numpy.typing as npt
from boothsam.runtime import transforms
from boothsam.runtime.automatic_candidates import (
    BestByBox,
    Candidate,
    Frame,
    Judge,
    Limits,
    candidates,
    judge_exact,
    judge_fast,
)
from boothsam.runtime.automatic_grid import Box, PointGrid, crop_boxes, layer_grids, near_crop_edge
from boothsam.runtime.automatic_order import GridOrder
from boothsam.runtime.errors import OptionError
from boothsam.runtime.masks import (
    CocoRle,
    Rle,
    box_xyxy_to_xywh,
    compress_rle,
    mask_to_box,
    mask_to_rle,
    nms,
    nms_steps,
    remove_small_regions,
    rle_area,
    rle_to_mask,
)
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.runtime.transforms import BoolArray, Size, Uint8Array

Mode = Literal["exact", "fast"]
OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]
Progress = Callable[[int, int], None]

_JUDGES: dict[str, Judge] = {"exact": judge_exact, "fast": judge_fast}
# A CPU decodes two prompts at a time no slower than eight (1.0 to 1.15 times as fast), in a quarter of the memory.
_PROMPTS_PER_CALL_ON_CPU = 2
_RUN_BYTES = 36  # of one number in a list


class MaskRecord(TypedDict):
    """One mask, in segment_anything's keys; boxes are X, Y, width, height in photo pixels.

    segmentation: (H, W) bool, or run lengths as `output_mode` says. area: its pixels. predicted_iou: the model's own
    estimate. point_coords: [[x, y]], the grid point that was asked. stability_score: see `mode`. crop_box: what the
    encoder saw.
    """

    segmentation: BoolArray | Rle | CocoRle
    area: int
    bbox: list[float]
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[float]


@dataclass(frozen=True)
class Step:
    """How far `SamAutomaticMaskGenerator.steps` has come.

    done, total: decoder calls; those that turn out not to be needed count as done. nbytes: held, roughly, for masks
    that await the suppression of duplicates and for the run lengths of those that are returned.
    """

    done: int
    total: int
    nbytes: int


Steps = Generator[Step, None, list[MaskRecord]]


@dataclass(frozen=True)
class _Mask:
    """A mask that is kept: its run lengths, its box, and where it came from."""

    rle: Rle
    box_xyxy: Box
    origin: Candidate


class SamAutomaticMaskGenerator:
    """Asks a model about a grid of points and keeps the masks that are good, stable and not there yet.

    Parameters, defaults, filters, order and records are segment_anything's; `mode` is added:

    "exact" judges each mask by its stability and box at the photo's resolution, like the reference, but upscales one
    mask at a time inside its own window. "fast" judges by the decoder's 256x256 logits and upscales only the masks that
    are returned; a mask near a threshold may then come or go, and stability_score is that of the logits. It also leaves
    out points between others that were all answered with the same masks (`automatic_order`).
    docs/everything.md has the difference in masks and time.
    """

    def __init__(
        self,
        model: SamModel,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: float = 1,
        point_grids: Sequence[npt.ArrayLike] | None = None,
        min_mask_region_area: int = 0,
        output_mode: OutputMode = "binary_mask",
        *,
        mode: Mode = "exact",
        max_masks: int | None = None,
    ) -> None:
        """
        Args:
            model: from SamModel.load or sam_model_registry.
            points_per_side: grid points along one side; None when `point_grids` are given.
            points_per_batch: most points per decoder call; a CPU takes fewer, at no loss. Masks do not depend on it.
            pred_iou_thresh: keep masks whose predicted IoU is above it; 0 keeps all.
            stability_score_thresh: keep masks whose stability is at least this; 0 keeps all.
            stability_score_offset: stability is the IoU of the masks at the threshold plus and minus this many logits.
            box_nms_thresh: of two masks whose boxes have a larger IoU the one with the higher predicted IoU is kept.
            crop_n_layers: layer i asks again on 2^i x 2^i crops, for small objects; 0 asks the whole photo only.
            crop_nms_thresh: the same between crops; masks of smaller crops are kept.
            crop_overlap_ratio: how far the crops of the first layer overlap, of the photo's shorter side.
            crop_n_points_downscale_factor: layer i has points_per_side / factor^i points along a side.
            point_grids: instead of points_per_side, for each layer (n, 2) points (x, y) from 0 to 1.
            min_mask_region_area: fill holes and drop islands of fewer pixels, then suppress duplicates again; 0: not.
            output_mode: "binary_mask", "uncompressed_rle", or "coco_rle" (without pycocotools).
            mode: "exact" or "fast", see above.
            max_masks: return no more than the first ones, in the order before any repair; None returns all.

        Raises:
            OptionError: a value outside its range, or both or neither of points_per_side and point_grids.
        """
        if not isinstance(model, SamModel):
            raise OptionError(
                f"expected a SamModel, found {type(model).__name__}",
                hint="SamAutomaticMaskGenerator(SamModel.load('mobile_sam')), or pass predictor.model",
            )
        _choice("output_mode", output_mode, get_args(OutputMode))
        _choice("mode", mode, get_args(Mode))
        for name, value, least in (
            ("points_per_side", 1 if points_per_side is None else points_per_side, 1),
            ("points_per_batch", points_per_batch, 1),
            ("crop_n_layers", crop_n_layers, 0),
            ("min_mask_region_area", min_mask_region_area, 0),
            ("stability_score_offset", stability_score_offset, 0),
            ("crop_overlap_ratio", crop_overlap_ratio, 0),
            ("max_masks", 1 if max_masks is None else max_masks, 1),
        ):
            if value < least:
                raise OptionError(f"{name} must be at least {least}, found {value}")
        if crop_n_points_downscale_factor <= 0:
            raise OptionError(f"crop_n_points_downscale_factor must be above 0, found {crop_n_points_downscale_factor}")
        if (points_per_side is None) == (point_grids is None):
            given = "neither" if point_grids is None else "both"
            raise OptionError(
                f"found {given} of points_per_side and point_grids, expected one of them",
                hint="points_per_side=None when you give point_grids",
            )
        if point_grids is not None:
            self.point_grids = _check_grids(point_grids, crop_n_layers)
        elif points_per_side is not None:
            self.point_grids = layer_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)
        self.predictor = SamPredictor(model)
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.mode = mode
        self.max_masks = max_masks
        self._square = point_grids is None

    def generate(self, image: Uint8Array, *, progress: Progress | None = None) -> list[MaskRecord]:
        """The masks of a (H, W, 3) uint8 RGB photo, in segment_anything's order: by falling predicted IoU; with crops,
        smaller crops first; with min_mask_region_area, masks that needed no repair first.

        progress: called at the start and after each decoder call with the calls done and the calls in all.

        Raises:
            ImageError: another kind of array.
        """
        steps, shown = self.steps(image), -1
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                records: list[MaskRecord] = end.value
                return records
            if progress is not None and step.done > shown:
                shown = step.done
                progress(step.done, step.total)

    def steps(self, image: Uint8Array, embedding: ImageEmbedding | None = None) -> Steps:
        """`generate` in small steps, each at most a decoder call or a mask: for callers that do other work in between,
        or that give up (`close` frees what is held). The generator's return value is the list of records.

        embedding: the whole photo's, where there is one already; it is not closed.

        Raises:
            ImageError: another kind of array. OptionError: the embedding of a photo of another size.
        """
        photo_hw = transforms.check_image(image)
        if embedding is not None and embedding.original_hw != photo_hw:
            raise OptionError(f"the embedding is of a photo of {embedding.original_hw}, this one has {photo_hw}")
        found = yield from self._candidates(image, photo_hw, embedding)
        end = Step(self._calls(photo_hw), self._calls(photo_hw), _nbytes(found))
        masks: list[_Mask] = []
        for candidate in found[: self.max_masks]:
            masks.append(_Mask(*candidate.rle(photo_hw, self.predictor.mask_threshold), candidate))
            end = replace(end, nbytes=end.nbytes + _RUN_BYTES * len(masks[-1].rle["counts"]))
            yield end
        if self.mode == "fast":  # specks of one logit that upscaling removes had stretched some boxes
            exact_boxes = [replace(mask.origin, box_xyxy=mask.box_xyxy) for mask in masks]
            distinct = yield from self._distinct(exact_boxes, end, between_crops=self.crop_n_layers > 0)
            masks = [masks[index] for index in distinct]
        if self.min_mask_region_area > 0:
            masks = yield from _repair(
                masks, self.min_mask_region_area, max(self.box_nms_thresh, self.crop_nms_thresh), end
            )
        records = []
        for mask in masks:
            records.append(self._record(mask))
            yield end
        return records

    def _crops(self, photo_hw: Size) -> list[tuple[Box, int]]:
        return crop_boxes(photo_hw, self.crop_n_layers, self.crop_overlap_ratio)

    def _calls(self, photo_hw: Size) -> int:
        """Decoder calls for all points of all crops."""
        size = self._prompts_per_call()
        return sum(-(-len(self.point_grids[layer]) // size) for _, layer in self._crops(photo_hw))

    def _candidates(
        self, image: Uint8Array, photo_hw: Size, embedding: ImageEmbedding | None
    ) -> Generator[Step, None, list[Candidate]]:
        """What is left after both non-maximum suppressions."""
        crops, total = self._crops(photo_hw), self._calls(photo_hw)
        done, found = 0, list[Candidate]()
        yield Step(0, total, 0)
        for crop_xyxy, layer in crops:
            in_crop, earlier = BestByBox(self.box_nms_thresh), _nbytes(found)
            grid = self.point_grids[layer]
            calls = -(-len(grid) // self._prompts_per_call())
            for batch, settled in self._crop(image, crop_xyxy, grid, embedding):
                for candidate in self._away_from_edges(batch, crop_xyxy, photo_hw):
                    in_crop.add(candidate)
                yield Step(done + settled * calls // len(grid), total, earlier + in_crop.nbytes)
            done, embedding = done + calls, None  # it is the whole photo's, the first crop
            members = in_crop.members()
            step = Step(done, total, earlier + in_crop.nbytes)
            distinct = yield from self._distinct(members, step, between_crops=False)
            found += [members[index] for index in distinct]
        if len(crops) > 1:
            distinct = yield from self._distinct(found, Step(done, total, _nbytes(found)), between_crops=True)
            found = [found[index] for index in distinct]
        return found

    def _distinct(
        self, found: Sequence[Candidate], step: Step, *, between_crops: bool
    ) -> Generator[Step, None, list[int]]:
        """Indices left by non-maximum suppression in each crop by predicted IoU, then between crops by crop size."""
        boxes = _boxes([candidate.box_xyxy for candidate in found])
        kept: list[int] = []
        for crop in dict.fromkeys(candidate.frame.crop_xyxy for candidate in found):
            members = [index for index, candidate in enumerate(found) if candidate.frame.crop_xyxy == crop]
            scores = np.array([found[index].predicted_iou for index in members], np.float32)
            best = yield from _paced(nms_steps(boxes[members], scores, self.box_nms_thresh), step)
            kept += [members[index] for index in best]
        if not between_crops:
            return kept
        sizes = np.array([np.prod(found[index].frame.size_hw, dtype=np.float32) for index in kept], np.float32)
        best = yield from _paced(nms_steps(boxes[kept], 1 / sizes, self.crop_nms_thresh), step)
        return [kept[index] for index in best]

    def _crop(
        self, image: Uint8Array, crop_xyxy: Box, grid: PointGrid, embedding: ImageEmbedding | None
    ) -> Generator[tuple[list[Candidate], int], None, None]:
        """The candidates of each decoder call on one crop, and how many of its points are settled by then."""
        model = self.predictor.model
        x0, y0, x1, y1 = crop_xyxy
        frame = Frame(crop_xyxy, model.manifest.image_size)
        limits = Limits(
            self.pred_iou_thresh,
            self.stability_score_thresh,
            self.stability_score_offset,
            self.predictor.mask_threshold,
        )
        crop = np.ascontiguousarray(image[y0:y1, x0:x1])
        order = GridOrder(len(grid), crop if self._square and self.mode == "fast" else None, self.box_nms_thresh)
        encoded = embedding or model.encode(crop)
        try:
            for indices in order.batches(self._prompts_per_call()):
                points = grid[indices] * np.array([x1 - x0, y1 - y0])
                prompts = Prompts.make(points[:, None, :], np.ones((len(points), 1), np.int32))
                found = candidates(model.decode(encoded, prompts), points, frame, limits, _JUDGES[self.mode])
                order.answered(indices, [[candidate.box_xyxy for candidate in one] for one in found])
                yield [candidate for one in found for candidate in one], order.settled
        finally:
            if embedding is None:
                encoded.close()

    @staticmethod
    def _away_from_edges(batch: list[Candidate], crop_xyxy: Box, photo_hw: Size) -> list[Candidate]:
        cut = near_crop_edge(_boxes([c.box_xyxy for c in batch]), crop_xyxy, photo_hw)
        return [candidate for candidate, gone in zip(batch, cut.tolist(), strict=True) if not gone]

    def _prompts_per_call(self) -> int:
        on_cpu = self.predictor.model.backend in ("ort-cpu", "ov")
        return min(self.points_per_batch, _PROMPTS_PER_CALL_ON_CPU) if on_cpu else self.points_per_batch

    def _record(self, mask: _Mask) -> MaskRecord:
        segmentation: BoolArray | Rle | CocoRle = mask.rle
        if self.output_mode == "binary_mask":
            segmentation = rle_to_mask(mask.rle)
        elif self.output_mode == "coco_rle":
            segmentation = compress_rle(mask.rle)
        return {
            "segmentation": segmentation,
            "area": rle_area(mask.rle),
            "bbox": box_xyxy_to_xywh(mask.box_xyxy),
            "predicted_iou": mask.origin.predicted_iou,
            "point_coords": [list(mask.origin.point_xy)],
            "stability_score": mask.origin.stability_score,
            "crop_box": box_xyxy_to_xywh(mask.origin.frame.crop_xyxy),
        }


def _paced(steps: Generator[None, None, list[int]], step: Step) -> Generator[Step, None, list[int]]:
    """Steps that have nothing to say of their own, each as `step`."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: list[int] = end.value
            return found
        yield step


def _nbytes(found: Sequence[Candidate]) -> int:
    return sum(candidate.patch.values.nbytes for candidate in found)


def _boxes(boxes: Sequence[Box]) -> npt.NDArray[np.float64]:
    return np.array(boxes, np.float64).reshape(-1, 4)


def _repair(masks: list[_Mask], area: int, threshold: float, step: Step) -> Generator[Step, None, list[_Mask]]:
    """Holes filled and islands dropped, one mask in memory at a time; among duplicates untouched masks are kept."""
    repaired, untouched = [], []
    for mask in masks:
        whole, filled = remove_small_regions(rle_to_mask(mask.rle), area, "holes")
        whole, dropped = remove_small_regions(whole, area, "islands")
        untouched.append(not (filled or dropped))
        repaired.append(
            replace(mask, rle=mask_to_rle(whole), box_xyxy=mask_to_box(whole)) if filled or dropped else mask
        )
        yield step
    kept = nms(_boxes([mask.box_xyxy for mask in repaired]), np.array(untouched, np.float32), threshold)
    return [repaired[index] for index in kept]


def _choice(name: str, found: str, expected: tuple[str, ...]) -> None:
    if found not in expected:
        raise OptionError(f"{name} must be one of {', '.join(expected)}; found {found!r}")


def _check_grids(point_grids: Sequence[npt.ArrayLike], crop_n_layers: int) -> list[npt.NDArray[np.float64]]:
    grids = [np.asarray(grid, np.float64) for grid in point_grids]
    if len(grids) < crop_n_layers + 1:
        raise OptionError(
            f"{len(grids)} point_grids for crop_n_layers={crop_n_layers}; expected {crop_n_layers + 1}: "
            "the whole photo's and one for each layer"
        )
    for index, grid in enumerate(grids):
        if grid.ndim != 2 or grid.shape[1] != 2 or not ((grid >= 0) & (grid <= 1)).all():
            raise OptionError(f"point_grids[{index}] must be (n, 2) points from 0 to 1, found shape {grid.shape}")
    return grids
