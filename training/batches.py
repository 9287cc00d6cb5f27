"""From pool files to training batches: cheap augmentation, the padded frame, prompts.

Batch k depends on (seed, k) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from boothsam.training.generator import MIN_AREA_SHARE, Sample
from boothsam.training.layers import MEAN, STD
from boothsam.training.photos import Image
from boothsam.training.prompts import Prompt, box_of, candidates, draw_prompt, main_thing
from boothsam.training.textures import Rng
from numpy.typing import NDArray
from torch import Tensor

MAX_THINGS = 16  # of one scene that prompts are drawn for: a heap holds hundreds, and each costs a full mask
ABOUT_ALL = 0.12  # of the prompts, where a scene has one main thing, are a box about the whole photo
KIND_WEIGHT = {"whole": 1.0, "part": 0.2, "group": 0.5}


@dataclass
class Batch:
    """image (B, 3, S, S) float32 normalised, zero in the padding; frame (B, S/4, S/4) 1 inside the photo;

    coords (P, N, 2) in pixels of a 1024 frame less SAM's 0.5; labels (P, N); readings (P, 3, S/4, S/4) coverage;
    valid (P, 3); single (P,); image_of (P,).
    """

    image: Tensor
    frame: Tensor
    coords: Tensor
    labels: Tensor
    readings: Tensor
    valid: Tensor
    single: Tensor
    image_of: Tensor


def augment(rng: Rng, sample: Sample, side: int) -> tuple[Sample, int, int]:
    """Crop, mirror, recolour and place into a side x side frame; returns it with the photo's (h, w) inside it."""
    image: Image = sample.image
    planes: Image = np.stack([sample.instances, sample.parts], 2)
    window = _window(rng, planes[..., 0])
    image, planes = image[window], planes[window]
    if rng.random() < 0.5:
        image, planes = image[:, ::-1], planes[:, ::-1]
    scale = side / max(image.shape[:2])
    height, width = (max(1, min(side, round(length * scale))) for length in image.shape[:2])
    image = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA if scale < 1 else 1)
    planes = cv2.resize(np.ascontiguousarray(planes), (width, height), interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        gain = rng.normal(1, 0.08, 3) * rng.uniform(0.7, 1.25)
        image = np.clip(image * gain + rng.normal(0, 8), 0, 255).astype(np.uint8)
    if rng.random() < 0.06:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    full, marks = np.zeros((side, side, 3), np.uint8), np.zeros((side, side, 2), np.uint8)
    full[:height, :width], marks[:height, :width] = image, planes
    framed = Sample(
        full, np.ascontiguousarray(marks[..., 0]), np.ascontiguousarray(marks[..., 1]), sample.part_owner, sample.groups
    )
    return framed, height, width


def _window(rng: Rng, instances: NDArray[np.uint8]) -> tuple[slice, slice]:
    """What to show of a scene: often one thing large in the frame, as product photos are; else any part, or all."""
    h, w = instances.shape
    roll = rng.random()
    present = np.flatnonzero(np.bincount(instances.ravel(), minlength=256) >= 0.004 * h * w)
    present = present[present > 0]
    if roll < 0.45 and len(present):
        x0, y0, x1, y1 = box_of(instances == int(rng.choice(present)))
        margin = rng.uniform(0.03, 0.9, 4) * max(x1 - x0, y1 - y0) * rng.uniform(0.3, 1.0)
        top, bottom = max(0, int(y0 - margin[0])), min(h, int(y1 + margin[1]))
        left, right = max(0, int(x0 - margin[2])), min(w, int(x1 + margin[3]))
        return slice(top, max(bottom, top + 8)), slice(left, max(right, left + 8))
    if roll < 0.7:
        ch, cw = (max(8, int(length * rng.uniform(0.5, 1.0))) for length in (h, w))
        top, left = int(rng.integers(h - ch + 1)), int(rng.integers(w - cw + 1))
        return slice(top, top + ch), slice(left, left + cw)
    return slice(0, h), slice(0, w)


def thin_out(rng: Rng, sample: Sample, most: int = MAX_THINGS) -> Sample:
    """The same picture with at most `most` of its things labelled, parts of the others neither."""
    present = np.flatnonzero(np.bincount(sample.instances.ravel(), minlength=256))
    present = present[present > 0]
    if len(present) <= most:
        return sample
    keep = np.zeros(256, np.uint8)
    chosen = rng.choice(present, most, replace=False)
    keep[chosen] = chosen
    instances = keep[sample.instances]
    parts = np.where(instances > 0, sample.parts, 0).astype(np.uint8)
    return Sample(sample.image, instances, parts, sample.part_owner, sample.groups)


def normalise(image: Image, height: int, width: int) -> NDArray[np.float32]:
    """(S, S, 3) uint8 -> (3, S, S) float32 by SAM's mean and deviation; what lies outside the photo is zero."""
    mean, deviation = np.array(MEAN, np.float32), np.array(STD, np.float32)
    planes = ((image.astype(np.float32) - mean) / deviation).transpose(2, 0, 1)
    planes[:, height:] = 0
    planes[:, :, width:] = 0
    return np.ascontiguousarray(planes, np.float32)


def make_batch(files: Sequence[Path], seed: int, step: int, side: int, batch: int, prompts: int) -> Batch:
    """Training batch number `step`: `batch` scenes with `prompts` prompts each; scenes without a mask are redrawn."""
    rng = np.random.default_rng([seed, step])
    images: list[NDArray[np.float32]] = []
    frames: list[NDArray[np.float32]] = []
    drawn: list[Prompt] = []
    owners: list[int] = []
    while len(images) < batch:
        sample, height, width = augment(rng, Sample.load(files[int(rng.integers(len(files)))]), side)
        sample = thin_out(rng, sample)
        masks = candidates(sample, max(24.0, MIN_AREA_SHARE * side * side))
        if not masks:
            continue
        weights = np.array([KIND_WEIGHT[kind] for kind, _ in masks])
        main = main_thing(masks, height, width)
        for _ in range(prompts):
            if main is not None and rng.random() < ABOUT_ALL:
                drawn.append(draw_prompt(rng, masks, main, (height, width)))
            else:
                drawn.append(draw_prompt(rng, masks, int(rng.choice(len(masks), p=weights / weights.sum()))))
            owners.append(len(images))
        images.append(normalise(sample.image, height, width))
        frame = np.zeros((side // 4, side // 4), np.float32)
        frame[: -(-height // 4), : -(-width // 4)] = 1
        frames.append(frame)
    return _stack(images, frames, drawn, owners)


def _stack(
    images: list[NDArray[np.float32]], frames: list[NDArray[np.float32]], drawn: list[Prompt], owners: list[int]
) -> Batch:
    return Batch(
        torch.from_numpy(np.stack(images)),
        torch.from_numpy(np.stack(frames)),
        torch.from_numpy(np.stack([p.points for p in drawn])) * 1024 - 0.5,
        torch.from_numpy(np.stack([p.labels for p in drawn])),
        torch.from_numpy(np.stack([p.readings for p in drawn])),
        torch.from_numpy(np.stack([p.valid for p in drawn])),
        torch.tensor([p.single for p in drawn]),
        torch.tensor(owners),
    )
