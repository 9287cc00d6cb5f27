"""From a teacher's labels to training batches: crops and mirror images of photos with their masks and embeddings.

Batch k depends on (seed, k) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from boothsam.training.batches import Batch, normalise
from boothsam.training.generator import MIN_AREA_SHARE
from boothsam.training.photos import Image
from boothsam.training.prompts import MAX_POINTS, READINGS, Bits, Prompt, box_of, draw_prompt, shrink
from boothsam.training.teacher import FRAME, SIDE, Labels
from boothsam.training.textures import Rng
from numpy.typing import NDArray
from torch import Tensor

CLICK_SHARE = 0.4  # of the prompts: clicks that the teacher itself answered
MIN_VISIBLE = 0.6  # share of a thing that a crop must show for it to be asked for
MIN_WORTH = 0.5  # answers that the teacher itself scores lower are no reading


@dataclass
class DistillBatch:
    """prompts: see `Batch`. worth (P, 3): the teacher's score of each reading, 0 where there is none.

    embedding (B, C, G, G): the teacher's, cut and turned like the photo; inside (B, G, G): 1 where the photo is.
    """

    prompts: Batch
    worth: Tensor
    embedding: Tensor
    inside: Tensor


@dataclass(frozen=True)
class View:
    """A window (x0, y0, x1, y1 in frame pixels, even) of a photo, mirrored or not, scaled into a side x side frame."""

    window: tuple[int, int, int, int]
    mirrored: bool
    side: int

    @property
    def scale(self) -> float:
        """Pixels of the view per pixel of the frame."""
        x0, y0, x1, y1 = self.window
        return self.side / max(x1 - x0, y1 - y0)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the photo inside the view."""
        x0, y0, x1, y1 = self.window
        height, width = (max(1, min(self.side, round(length * self.scale))) for length in (y1 - y0, x1 - x0))
        return height, width

    def photo(self, photo: Image) -> Image:
        """(side, side, 3) uint8, the window in its upper left corner, the rest black."""
        height, width = self.size_hw
        x0, y0, x1, y1 = self.window
        method = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        part = cv2.resize(np.ascontiguousarray(photo[y0:y1, x0:x1]), (width, height), interpolation=method)
        full = np.zeros((self.side, self.side, 3), np.uint8)
        full[:height, :width] = part[:, ::-1] if self.mirrored else part
        return full

    def mask(self, stored: Bits) -> Bits:
        """(side, side) bool of a stored (512, 512) mask."""
        height, width = self.size_hw
        step = FRAME // SIDE
        x0, y0, x1, y1 = (v // step for v in self.window)
        part = np.ascontiguousarray(stored[y0:y1, x0:x1]).astype(np.uint8) * 255
        large = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) >= 128
        full = np.zeros((self.side, self.side), np.bool_)
        full[:height, :width] = large[:, ::-1] if self.mirrored else large
        return full

    def point(self, place: NDArray[np.floating]) -> NDArray[np.float32] | None:
        """(2,) x, y in the view of a place in the frame, None outside the window."""
        height, width = self.size_hw
        x, y = (place - np.array(self.window[:2])) * self.scale
        if not (0 <= x < width and 0 <= y < height):
            return None
        return np.array([width - x if self.mirrored else x, y], np.float32)

    def embedding(self, stored: NDArray[np.float16], grid: int) -> Tensor:
        """(C, grid, grid) float32: the stored embedding at the middles of the view's grid cells."""
        middles = (torch.arange(grid, dtype=torch.float32) + 0.5) * (self.side / grid)
        width = self.size_hw[1]
        x = (width - middles if self.mirrored else middles) / self.scale + self.window[0]
        y = middles / self.scale + self.window[1]
        places = torch.stack([x[None].expand(grid, grid), y[:, None].expand(grid, grid)], 2) * (2 / FRAME) - 1
        source = torch.from_numpy(stored.astype(np.float32))[None]
        return F.grid_sample(source, places[None], padding_mode="border", align_corners=False)[0]


def whole_view(labels: Labels, side: int) -> View:
    """The whole photo, not mirrored."""
    height, width = labels.photo.shape[:2]
    return View((0, 0, width, height), False, side)


def random_view(rng: Rng, labels: Labels, side: int) -> View:
    """Often one thing large in the frame, else any part or all of the photo; mirrored half the time."""
    height, width = labels.photo.shape[:2]
    mirrored = bool(rng.random() < 0.5)
    roll = rng.random()
    if roll < 0.4:
        thing = labels.object(int(rng.integers(len(labels.objects))))
        x0, y0, x1, y1 = (v * FRAME / SIDE for v in box_of(thing))
        margin = rng.uniform(0.05, 1.0, 4) * max(x1 - x0, y1 - y0)
        window = x0 - margin[0], y0 - margin[1], x1 + margin[2], y1 + margin[3]
    elif roll < 0.65:
        w, h = width * rng.uniform(0.5, 1.0), height * rng.uniform(0.5, 1.0)
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
        window = left, top, left + w, top + h
    else:
        return View((0, 0, width, height), mirrored, side)
    # Even numbers cut the stored masks, at half the frame's side, exactly.
    even = [2 * round(v / 2) for v in window]
    left, top = max(0, min(even[0], width - 16)), max(0, min(even[1], height - 16))
    right, bottom = min(width, max(even[2], left + 16)), min(height, max(even[3], top + 16))
    return View((left, top, right, bottom), mirrored, side)


@dataclass(frozen=True)
class _Shown:
    """What of a photo's labels can be asked for in a view: masks (side, side) with their scores, clicks by index."""

    masks: list[Bits]
    scores: list[float]
    clicks: list[tuple[int, NDArray[np.float32]]]


def _shown(labels: Labels, view: View) -> _Shown:
    smallest = max(24.0, MIN_AREA_SHARE * view.side * view.side)
    full = (FRAME / SIDE * view.scale) ** 2  # pixels of the view per stored pixel
    masks, scores = [], []
    for index, score in enumerate(labels.object_scores):
        stored = labels.object(index)
        mask = view.mask(stored)
        area = np.count_nonzero(mask)
        if area >= smallest and area >= MIN_VISIBLE * full * np.count_nonzero(stored):
            masks.append(mask)
            scores.append(float(score))
    places = [(index, view.point(place)) for index, place in enumerate(labels.clicks)]
    return _Shown(masks, scores, [(index, place) for index, place in places if place is not None])


def make_batch(
    files: Sequence[Path], seed: int, step: int, *, side: int, grid: int, batch: int, prompts: int
) -> DistillBatch:
    """Training batch number `step`: `batch` photos with `prompts` prompts each; all hold an object."""
    rng = np.random.default_rng([seed, step])
    images, frames, embeddings, inside = [], [], [], []
    drawn: list[tuple[Prompt, NDArray[np.float32]]] = []
    for _ in range(batch):
        labels = Labels.load(files[int(rng.integers(len(files)))])
        view = random_view(rng, labels, side)
        shown = _shown(labels, view)
        if not shown.masks:
            view = whole_view(labels, side)
            shown = _shown(labels, view)
        height, width = view.size_hw
        images.append(normalise(_recoloured(rng, view.photo(labels.photo)), height, width))
        frames.append(inside_photo(view, side // 4))
        embeddings.append(view.embedding(labels.embedding, grid))
        inside.append(inside_photo(view, grid))
        drawn += [_draw(rng, labels, view, shown) for _ in range(prompts)]
    owners = np.repeat(np.arange(batch), prompts)
    return DistillBatch(
        _stack(images, frames, [prompt for prompt, _ in drawn], owners),
        torch.from_numpy(np.stack([worth for _, worth in drawn])),
        torch.stack(embeddings),
        torch.from_numpy(np.stack(inside)),
    )


def inside_photo(view: View, grid: int) -> NDArray[np.float32]:
    """(grid, grid) 1 in cells that the photo reaches into."""
    cell = view.side / grid
    height, width = view.size_hw
    plane = np.zeros((grid, grid), np.float32)
    plane[: int(np.ceil(height / cell)), : int(np.ceil(width / cell))] = 1
    return plane


def _stack(
    images: list[NDArray[np.float32]],
    frames: list[NDArray[np.float32]],
    drawn: list[Prompt],
    owners: NDArray[np.int64],
) -> Batch:
    return Batch(
        image=torch.from_numpy(np.stack(images)),
        frame=torch.from_numpy(np.stack(frames)),
        coords=torch.from_numpy(np.stack([p.points for p in drawn])) * FRAME - 0.5,
        labels=torch.from_numpy(np.stack([p.labels for p in drawn])),
        readings=torch.from_numpy(np.stack([p.readings for p in drawn])),
        valid=torch.from_numpy(np.stack([p.valid for p in drawn])),
        single=torch.tensor([p.single for p in drawn]),
        image_of=torch.from_numpy(owners),
    )


def _recoloured(rng: Rng, image: Image) -> Image:
    """Other light now and then; the teacher's embedding stays the goal, so the student learns to disregard it."""
    if rng.random() < 0.5:
        return image
    gain = rng.normal(1, 0.05, 3) * rng.uniform(0.75, 1.2)
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def _draw(rng: Rng, labels: Labels, view: View, shown: _Shown) -> tuple[Prompt, NDArray[np.float32]]:
    """One prompt and the teacher's score of each of its readings."""
    if shown.clicks and rng.random() < CLICK_SHARE:
        index, place = shown.clicks[int(rng.integers(len(shown.clicks)))]
        answered = click_prompt(labels, view, index, place)
        if answered is not None:
            return answered
    return object_prompt(rng, shown.masks, shown.scores)


def click_prompt(
    labels: Labels, view: View, index: int, place: NDArray[np.float32]
) -> tuple[Prompt, NDArray[np.float32]] | None:
    """A click of the teacher's with its answers, best first; None when the view shows too little of the best one."""
    scores = labels.answer_scores[index]
    order = np.argsort(-scores, kind="stable")
    readings = np.zeros((READINGS, view.side // 4, view.side // 4), np.float32)
    valid, worth = np.zeros(READINGS, np.bool_), np.zeros(READINGS, np.float32)
    full = (FRAME / SIDE * view.scale) ** 2
    single, used = 0, 0
    for answer in order:
        stored = labels.answer(index, int(answer))
        mask = view.mask(stored)
        area = np.count_nonzero(mask)
        shown = area >= max(24.0, MIN_VISIBLE * full * np.count_nonzero(stored))
        if not shown or scores[answer] < MIN_WORTH:
            if used == 0:
                return None
            continue
        readings[used], valid[used], worth[used] = shrink(mask), True, min(1.0, float(scores[answer]))
        single = used if answer == labels.singles[index] else single
        used += 1
    points, marks = np.zeros((MAX_POINTS, 2), np.float32), np.full(MAX_POINTS, -1, np.int32)
    points[0], marks[0] = place / view.side, 1
    return Prompt(points, marks, readings, valid, single), worth


def object_prompt(rng: Rng, masks: list[Bits], scores: list[float]) -> tuple[Prompt, NDArray[np.float32]]:
    """A box or clicks for one of the masks; larger ones are asked for more often. Clicks get the others' readings."""
    weights = np.sqrt([float(np.count_nonzero(mask)) for mask in masks])
    chosen = int(rng.choice(len(masks), p=weights / weights.sum()))
    prompt = draw_prompt(rng, [("whole", masks[chosen])], 0)
    worth = np.zeros(READINGS, np.float32)
    worth[0] = scores[chosen]
    if (prompt.labels == 2).any():
        return prompt, worth
    side = masks[0].shape[0]
    clicks = [
        (int(x), int(y), bool(label))
        for (x, y), label in zip(prompt.points * side, prompt.labels, strict=True)
        if label in (0, 1)
    ]
    used = 1
    for other, (mask, score) in enumerate(zip(masks, scores, strict=True)):
        if other != chosen and used < READINGS and all(bool(mask[y, x]) == label for x, y, label in clicks):
            prompt.readings[used], prompt.valid[used], worth[used] = shrink(mask), True, score
            used += 1
    return prompt, worth
