"""Sample pictures of a training run: prompts, the wanted mask and the answer, to be looked at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from boothsam.training.batches import Batch
from boothsam.training.layers import MEAN, STD
from boothsam.training.student import Student

TILE = 256


@torch.no_grad()
def sample_sheet(model: Student, batch: Batch, path: Path, count: int = 24) -> None:
    """Write a PNG of up to `count` prompts with three outlines: wanted (red), token 0 (green), best-scored (yellow)."""
    model.eval()
    device = next(model.parameters()).device
    coords, labels, image_of = (t.to(device) for t in (batch.coords, batch.labels, batch.image_of))
    logits, scores = model.decoder(*model.encoder(batch.image.to(device)), coords, labels, image_of=image_of)
    logits, scores = logits.cpu(), scores.cpu()
    tiles = []
    for k in range(min(count, len(logits))):
        normalised = batch.image[batch.image_of[k]].permute(1, 2, 0).numpy()
        pixels = normalised * np.array(STD, np.float32) + np.array(MEAN, np.float32)
        tile = cv2.resize(np.clip(pixels, 0, 255).astype(np.uint8), (TILE, TILE), interpolation=cv2.INTER_AREA)
        top = 1 + int(scores[k, 1:].argmax())
        for plane, tint in (
            (batch.readings[k, 0].numpy() - 0.5, (255, 0, 0)),
            (logits[k, 0].numpy(), (0, 255, 0)),
            (logits[k, top].numpy(), (255, 255, 0)),
        ):
            mask = (cv2.resize(plane.astype(np.float32), (TILE, TILE)) > 0).astype(np.uint8)
            outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tile, outlines, -1, tint, 1)
        _draw_prompt(tile, batch, k)
        tiles.append(tile)
    columns = 8
    while len(tiles) % columns:
        tiles.append(np.zeros((TILE, TILE, 3), np.uint8))
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    cv2.imwrite(str(path), np.vstack(rows)[:, :, ::-1])


def _draw_prompt(tile: np.ndarray, batch: Batch, k: int) -> None:
    places = ((batch.coords[k] + 0.5) / 1024 * TILE).round().int().tolist()
    labels = batch.labels[k].tolist()
    for place, label in zip(places, labels, strict=True):
        if label in (0, 1):
            cv2.circle(tile, tuple(place), 4, (0, 255, 255) if label else (255, 0, 255), -1)
    if 2 in labels:
        cv2.rectangle(tile, tuple(places[labels.index(2)]), tuple(places[labels.index(3)]), (255, 255, 255), 1)
