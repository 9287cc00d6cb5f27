"""The main product of a photo without a prompt: ask the model in many ways and keep what the answers agree on.

Prompts, each with its reason; they share a handful of decoder calls:

    centre-box        box of the middle 70 %: products are placed in the middle
    frame-box         box of the middle 94 %: a product that fills the photo
    centre-click      click in the middle: a product whose box the two above miss
    grid-click-1..8   the other clicks of a 3x3 grid: a product off the centre, and a second product
    centre-corners    centre click, four background clicks near the corners: backdrop reaches them, a product seldom
    stands-out-box    box of a region that differs from the backdrop seen along the border, at most three regions
    stands-out-click  click on that region's innermost point
    stands-out-corners  the same click with the four background clicks
    own-box, own-click  box and innermost point of each candidate itself: a real object answers its own box with itself

The last two come second, for the candidates that the first round named. A candidate's score is the agreement of every
prompt it concerns (a click inside it, a box around it that is not much larger): the mean IoU of their answers with it.
What holds the border of the photo is backdrop, never a product. Among candidates the main product is the one with
the best standing: agreement, predicted IoU, size, nearness to the centre, whether the two large boxes answer with it
and, as far as the backdrop is plain, contrast with it and whether the candidate covers what stands out. In a busy place
(shelves, crates, a hand in a shop) the border says nothing about the backdrop, and the model alone decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.backdrop import MAX_AREA, MIN_AREA, backdrop_difference, standing_out
from boothsam.runtime.errors import NothingFound
from boothsam.runtime.masks import BoolArray, mask_iou
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.runtime.transforms import FloatArray, Uint8Array

log = logging.getLogger("boothsam")

Box = tuple[float, float, float, float]
MAX_BORDER = 0.4  # share of the photo's border that a product may touch
SAME = 0.7  # IoU above which two answers mean the same object
MIN_AGREEMENT = 0.5
MIN_CONTRAST = 1.2  # times the backdrop's own variation, where the backdrop is plain
MIN_IOU = 0.6  # predicted, where it is not: then nothing else tells a product from a piece of the shop
SURE = 0.8  # agreement and predicted IoU from which a product may have the backdrop's own colours
PLAIN, BUSY = 6.0, 14.0  # residual of the backdrop's fit, in Lab units: a booth's paper; shelves, crates, a floor
PIECE = 0.1  # of the largest piece of a mask, below which a piece is a speck
RIVAL = 0.7  # standing of a second product, relative to the first, that makes the choice ambiguous
FIRST_ROUND = 5  # candidates that are asked about themselves


@dataclass(frozen=True)
class Product:
    """One object the prompts agree on.

    low_res_mask: (256, 256) float32 logits, for `cut_out`. box_xyxy: photo pixels. score: agreement of the prompts,
    0 to 1. iou_prediction: the model's own estimate for this mask. prompts: names of those that gave it.
    contrast: how far its colours lie from the backdrop's, in units of the backdrop's own variation.
    """

    low_res_mask: FloatArray
    box_xyxy: Box
    score: float
    iou_prediction: float
    contrast: float
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class AutoResult:
    """The main product, and the boxes (x0, y0, x1, y1 in photo pixels) of every other object that is about as good.

    rivals_xyxy is not empty when the choice was ambiguous.
    """

    product: Product
    rivals_xyxy: tuple[Box, ...]

    @property
    def ambiguous(self) -> bool:
        """Whether a second object could as well be the main product."""
        return bool(self.rivals_xyxy)


@dataclass(frozen=True)
class _Ask:
    """A named single prompt; `click` (x, y) and `box` in cells of the low-resolution mask say whom it concerns."""

    name: str
    prompts: Prompts
    click: tuple[float, float] | None = None
    box: Box | None = None


@dataclass(frozen=True)
class _Answer:
    """One mask: the index of its prompt, logits (256, 256), predicted IoU, the mask (h, w) without padding."""

    ask: int
    logits: FloatArray
    score: float
    mask: BoolArray


@dataclass(frozen=True)
class _Candidate:
    answer: _Answer
    agreement: float
    contrast: float
    standing: float
    prompts: tuple[str, ...]


class _Photo:
    """Geometry of one photo on the grid of low-resolution cells, and what its border says about the backdrop."""

    def __init__(self, image: Uint8Array, embedding: ImageEmbedding, model: SamModel) -> None:
        self.height, self.width = embedding.original_hw
        step = model.manifest.image_size / model.manifest.mask_size
        self.rows, self.columns = (max(1, int(side / step + 0.5)) for side in embedding.input_hw)
        self.per_cell = np.array([self.width / self.columns, self.height / self.rows])
        small = cv2.resize(image, (self.columns, self.rows), interpolation=cv2.INTER_AREA)
        self.difference, residual = backdrop_difference(np.asarray(small, np.uint8))
        self.plainness = float(np.clip((BUSY - residual) / (BUSY - PLAIN), 0, 1))
        self.regions = standing_out(self.difference)
        inset = 0.04 * np.array([self.columns, self.rows])
        far = np.array([self.columns, self.rows]) - inset
        self.corners = [(x, y) for x in (inset[0], far[0]) for y in (inset[1], far[1])]

    def box(self, name: str, box: Sequence[float]) -> _Ask:
        x0, y0, x1, y1 = (float(v) for v in box)
        return _Ask(name, Prompts.make(box_xyxy=self.pixels((x0, y0, x1, y1))), box=(x0, y0, x1, y1))

    def pixels(self, box: Box) -> Box:
        """A box in cells as one in photo pixels."""
        x0, y0, x1, y1 = (float(v) for v in np.array(box) * np.tile(self.per_cell, 2))
        return x0, y0, x1, y1

    def click(self, name: str, x: float, y: float, *, corners: bool = False) -> _Ask:
        points = np.array([(x, y), *(self.corners if corners else ())]) * self.per_cell
        return _Ask(name, Prompts.make(points, [1] + [0] * (len(points) - 1)), click=(x, y))


def find_product(model: SamModel, image: Uint8Array) -> AutoResult:
    """The main product on a (H, W, 3) uint8 RGB photo.

    Raises:
        NothingFound: the prompts agree on nothing, or only on something that does not differ from the backdrop.
    """
    embedding = model.encode(image)
    try:
        return find_product_in(model, embedding, image)
    finally:
        embedding.close()


def find_product_in(model: SamModel, embedding: ImageEmbedding, image: Uint8Array) -> AutoResult:
    """`find_product` for a photo that was encoded before."""
    photo = _Photo(image, embedding, model)
    if min(photo.rows, photo.columns) < 8:
        raise NothingFound(
            f"the photo of {photo.width}x{photo.height} pixels is too narrow to look for a product",
            hint="give --box or --point",
        )
    asks = _first_asks(photo)
    answers = _ask(model, embedding, photo, asks, 0)
    named = _distinct(answers, asks, photo)[:FIRST_ROUND]
    if named:
        own = [ask for candidate in named for ask in _own_asks(photo, candidate.answer.mask)]
        answers += _ask(model, embedding, photo, own, len(asks))
        asks += own
    ranked = _distinct(answers, asks, photo)
    for candidate in ranked:
        log.debug("auto: %s", _describe(candidate, photo))
    sure = [c for c in ranked if c.agreement >= MIN_AGREEMENT and len(c.prompts) >= 3 and _stands_out(c, photo)]
    if not sure:
        raise NothingFound(
            "no product stands out: "
            + (_describe(ranked[0], photo) if ranked else "every answer was backdrop or nothing"),
            hint="put one product on a plain backdrop, or show it with --box x0,y0,x1,y1 or --point x,y",
        )
    best = sure[0]
    rivals = tuple(photo.pixels(_bounds(mask)) for mask in _rivals(best, sure, photo))
    return AutoResult(_product(best, photo), rivals)


def _stands_out(candidate: _Candidate, photo: _Photo) -> bool:
    """From a plain backdrop by its colours; in a busy place only the model can tell, by how sure it is."""
    if photo.plainness < 0.5:
        return candidate.answer.score >= MIN_IOU
    return candidate.contrast >= MIN_CONTRAST or min(candidate.agreement, candidate.answer.score) >= SURE


def _rivals(best: _Candidate, sure: Sequence[_Candidate], photo: _Photo) -> list[BoolArray]:
    """Objects apart from the best: candidates about as good, and regions that stand out about as much as its own."""
    mask = best.answer.mask
    own = max(photo.regions, key=lambda region: mask_iou(region, mask), default=mask)
    found: list[BoolArray] = []
    if _shared(own, mask) >= 0.5:
        bar = RIVAL * _weight(own, photo)
        found = [region for region in photo.regions if region is not own and _weight(region, photo) >= bar]
    for candidate in sure:
        other = candidate.answer.mask
        if candidate.standing >= RIVAL * best.standing and all(_shared(other, m) < 0.2 for m in (mask, own, *found)):
            found.append(other)
    return found


def _weight(region: BoolArray, photo: _Photo) -> float:
    """Area times difference from the backdrop; beyond five units more difference says nothing more."""
    return float(np.minimum(photo.difference[region], 5).sum())


def _first_asks(photo: _Photo) -> list[_Ask]:
    w, h = photo.columns, photo.rows
    asks = [
        photo.box("centre-box", (0.15 * w, 0.15 * h, 0.85 * w, 0.85 * h)),
        photo.box("frame-box", (0.03 * w, 0.03 * h, 0.97 * w, 0.97 * h)),
        photo.click("centre-click", 0.5 * w, 0.5 * h),
        photo.click("centre-corners", 0.5 * w, 0.5 * h, corners=True),
    ]
    grid = [(x, y) for y in (0.25, 0.5, 0.75) for x in (0.25, 0.5, 0.75) if (x, y) != (0.5, 0.5)]
    asks += [photo.click(f"grid-click-{i}", x * w, y * h) for i, (x, y) in enumerate(grid, 1)]
    for region in photo.regions:
        x, y = _innermost(region)
        asks.append(photo.box("stands-out-box", _bounds(region)))
        asks.append(photo.click("stands-out-click", x, y))
        asks.append(photo.click("stands-out-corners", x, y, corners=True))
    return asks


def _own_asks(photo: _Photo, mask: BoolArray) -> list[_Ask]:
    return [photo.box("own-box", _bounds(mask)), photo.click("own-click", *_innermost(mask))]


def _ask(model: SamModel, embedding: ImageEmbedding, photo: _Photo, asks: Sequence[_Ask], first: int) -> list[_Answer]:
    """All answers: the three candidates of a single click, the one mask of everything else."""
    answers = []
    for index, (ask, decoded) in enumerate(
        zip(asks, model.decode_many(embedding, [a.prompts for a in asks]), strict=True)
    ):
        labels = ask.prompts.point_labels
        masks, scores = decoded.select(multimask_output=labels is not None and labels.shape[1] == 1)
        for logits, score in zip(masks[0], scores[0], strict=True):
            clean = _without_specks(logits, photo)
            answers.append(_Answer(first + index, clean, float(score), clean[: photo.rows, : photo.columns] > 0))
    return answers


def _without_specks(logits: FloatArray, photo: _Photo) -> FloatArray:
    """The logits, below zero where the mask's pieces are much smaller than its largest: the next box must be tight."""
    mask = (logits[: photo.rows, : photo.columns] > 0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    if count <= 2 or areas[1:].min() >= PIECE * areas[1:].max():
        return logits
    small = areas < PIECE * areas[1:].max()
    small[0] = False
    clean = logits.copy()
    window = clean[: photo.rows, : photo.columns]
    window[small[labels]] = -np.abs(window[small[labels]])
    return clean


def _distinct(answers: Iterable[_Answer], asks: Sequence[_Ask], photo: _Photo) -> list[_Candidate]:
    """One candidate per object, best standing first."""
    plausible = [a for a in answers if _may_be_product(a.mask)]
    if not plausible:
        return []
    ious = _pairwise_iou([a.mask for a in plausible])
    owner = np.array([a.ask for a in plausible])
    # By prompt: the best agreement that any of its answers has with each candidate, 0 without a plausible answer.
    by_ask = np.stack([ious[owner == index].max(0, initial=0.0) for index in range(len(asks))])
    candidates = [_judge(a, asks, by_ask[:, i], photo) for i, a in enumerate(plausible)]
    kept: list[int] = []
    for index in sorted(range(len(candidates)), key=lambda i: -candidates[i].standing):
        if all(ious[index, other] < SAME for other in kept):
            kept.append(index)
    return [_best_answer([candidates[i] for i in np.flatnonzero(ious[index] >= SAME)]) for index in kept]


def _best_answer(same: Sequence[_Candidate]) -> _Candidate:
    """Of several masks of one object the one that most prompts and the model itself believe in, at the best standing.

    Standing favours size, and so the mask that takes something of the neighbourhood along.
    """
    best = max(same, key=lambda c: c.agreement * c.answer.score)
    return replace(best, standing=max(c.standing for c in same))


def _pairwise_iou(masks: Sequence[BoolArray]) -> npt.NDArray[np.float64]:
    """(n, n) IoU of non-empty masks of one shape."""
    flat = np.stack([m.ravel() for m in masks]).astype(np.float32)
    inter = (flat @ flat.T).astype(np.float64)
    areas = inter.diagonal()
    return np.asarray(inter / (areas[:, None] + areas[None] - inter))


def _may_be_product(mask: BoolArray) -> bool:
    area = np.count_nonzero(mask) / mask.size
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return bool(MIN_AREA <= area <= MAX_AREA and border.mean() <= MAX_BORDER)


def _judge(answer: _Answer, asks: Sequence[_Ask], by_ask: npt.NDArray[np.float64], photo: _Photo) -> _Candidate:
    """by_ask: per prompt, the IoU of its best answer with this one."""
    mask = answer.mask
    concerned = [index for index, ask in enumerate(asks) if _concerns(ask, mask)]
    agreement = float(np.mean(by_ask[concerned])) if concerned else 0.0
    contrast = float(np.median(photo.difference[mask]))
    x, y = np.array(np.nonzero(mask)[::-1]).mean(1) / (photo.columns, photo.rows) - 0.5
    central = 1 - 0.7 * float(np.hypot(x, y))
    size = float(np.sqrt(np.count_nonzero(mask) / mask.size))
    # A click's three answers name part and whole: the region that stands out tells which is the whole.
    covers = 0.25 + max((mask_iou(mask, region) for region in photo.regions), default=0.0)
    apart = covers * min(1.0, contrast / 2) * photo.plainness + 1 - photo.plainness
    # A box about the whole photo asks for the main thing.
    named = max(by_ask[i] for i, ask in enumerate(asks) if ask.name in ("frame-box", "centre-box"))
    # Two products in one mask: neither is half of the other's.
    whole = _largest_part(mask) ** 2
    standing = agreement * size * central * apart * whole * (0.5 + 0.5 * float(named)) * (0.3 + answer.score)
    names = tuple(asks[i].name for i in concerned if by_ask[i] >= SAME)
    return _Candidate(answer, agreement, contrast, standing, names)


def _concerns(ask: _Ask, mask: BoolArray) -> bool:
    """Whether this prompt should be answered with this mask: its click lies inside, or its box holds it closely."""
    if ask.click is not None:
        x, y = ask.click
        return bool(mask[min(int(y), mask.shape[0] - 1), min(int(x), mask.shape[1] - 1)])
    if ask.box is None:
        return False
    x0, y0, x1, y1 = ask.box
    bx0, by0, bx1, by1 = _bounds(mask)
    inside = max(0.0, min(x1, bx1) - max(x0, bx0)) * max(0.0, min(y1, by1) - max(y0, by0))
    own = (bx1 - bx0) * (by1 - by0)
    return inside >= 0.9 * own and own >= 0.4 * (x1 - x0) * (y1 - y0)


def _shared(a: BoolArray, b: BoolArray) -> float:
    """Share of the smaller of two non-empty masks that lies in the other."""
    return float(np.count_nonzero(a & b) / min(np.count_nonzero(a), np.count_nonzero(b)))


def _largest_part(mask: BoolArray) -> float:
    """Share of a mask's area that its largest connected part has."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum())


def _bounds(mask: BoolArray) -> Box:
    """Outer box of a non-empty mask, in cells: the last cell's far side included."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _innermost(mask: BoolArray) -> tuple[float, float]:
    """The point of a mask farthest from its rim, (x, y) in cells."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(distance)), distance.shape)
    return float(x) + 0.5, float(y) + 0.5


def _product(candidate: _Candidate, photo: _Photo) -> Product:
    return Product(
        low_res_mask=np.asarray(candidate.answer.logits, np.float32),
        box_xyxy=photo.pixels(_bounds(candidate.answer.mask)),
        score=candidate.agreement,
        iou_prediction=candidate.answer.score,
        contrast=candidate.contrast,
        prompts=candidate.prompts,
    )


def _describe(candidate: _Candidate, photo: _Photo) -> str:
    box = ",".join(f"{v:.0f}" for v in photo.pixels(_bounds(candidate.answer.mask)))
    return (
        f"the best candidate at {box} has agreement {candidate.agreement:.2f} (at least {MIN_AGREEMENT}) of "
        f"{len(candidate.prompts)} prompts (at least 3), contrast {candidate.contrast:.1f} (at least {MIN_CONTRAST}), "
        f"predicted IoU {candidate.answer.score:.2f}"
    )
