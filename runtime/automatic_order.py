"""In which order fast mode asks a grid, and which of its points it need not ask.

First every second row and column, and the last ones. A point between them is left out where the answers around it agree
(every mask of one neighbour has a twin among those of the others) and the photo looks there as it does around: it would
be answered with the same masks once more, to be dropped as duplicates. What can be lost is an object that fits between
points of the coarse grid, changes none of the masks around it and has the colours of what surrounds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from boothsam.runtime.automatic_grid import Box
from boothsam.runtime.masks import box_iou
from boothsam.runtime.transforms import Uint8Array

# Below, the first round would be so coarse that whole objects lie between its points.
FEWEST_PER_SIDE = 24
_SAMPLES = 4  # along a side of a grid point's cell
_SAME = 6  # grey levels that noise and shading may differ by


class GridOrder:
    """The questions about one grid.

    Args:
        count: points of the grid.
        image: what a square grid covers, (H, W, 3) uint8, if its points may be left out; None asks all, in order.
        twin_iou: two masks whose boxes have a larger IoU are twins.
    """

    def __init__(self, count: int, image: Uint8Array | None, twin_iou: float) -> None:
        self.count = count
        self.settled = 0  # points that were asked or need not be
        self._side = int(np.sqrt(count)) if image is not None and count >= FEWEST_PER_SIDE**2 else None
        self._looks = None if image is None or self._side is None else _looks(image, self._side)
        self._twin_iou = twin_iou
        self._boxes: dict[int, Sequence[Box]] = {}

    def batches(self, size: int) -> Iterator[list[int]]:
        """Indices of the points to ask next, at most `size`; call `answered` before taking the next batch."""
        first, between = self._rounds()
        yield from _chunks(first, size)
        wanted = [i for i, around in between.items() if not (self._looks_like(i, around) and self._agree(around))]
        self.settled += len(between) - len(wanted)
        yield from _chunks(wanted, size)

    def answered(self, indices: Sequence[int], boxes: Sequence[Sequence[Box]]) -> None:
        """Note the boxes of the masks that were found at each of these points."""
        self._boxes.update(zip(indices, boxes, strict=True))
        self.settled += len(indices)

    def _rounds(self) -> tuple[list[int], dict[int, list[int]]]:
        """The first round, and each other point with those of the first round around it."""
        if self._side is None:
            return list(range(self.count)), {}
        side, lines = self._side, np.unique([*range(0, self._side, 2), self._side - 1])
        before = lines[np.searchsorted(lines, range(side), "right") - 1].tolist()
        after = lines[np.searchsorted(lines, range(side), "left")].tolist()
        first, between = [], {}
        for index in range(self.count):
            row, column = divmod(index, side)
            around = {y * side + x for y in (before[row], after[row]) for x in (before[column], after[column])}
            if index in around:
                first.append(index)
            else:
                between[index] = sorted(around)
        return first, between

    def _agree(self, around: Sequence[int]) -> bool:
        """Whether these points were answered with the same masks, at least one."""
        one, *others = (np.array(self._boxes[index], np.float64).reshape(-1, 4) for index in around)
        if not all(map(len, (one, *others))):
            return False
        twins = (box_iou(one, other) > self._twin_iou for other in others)
        return all(both.any(1).all() and both.any(0).all() for both in twins)

    def _looks_like(self, index: int, around: Sequence[int]) -> bool:
        """Whether no colour of the point's cell leaves the range of those around it."""
        assert self._looks is not None
        low, high = self._looks
        inside = low[index] >= low[around].min(0) - _SAME, high[index] <= high[around].max(0) + _SAME
        return bool(inside[0].all() and inside[1].all())


def _looks(image: Uint8Array, side: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """(side * side, 3) darkest and brightest mean colour, per channel, of the samples in each point's cell."""
    small = cv2.resize(image, (side * _SAMPLES, side * _SAMPLES), interpolation=cv2.INTER_AREA).astype(np.int16)
    cells = small.reshape(side, _SAMPLES, side, _SAMPLES, 3)
    return cells.min((1, 3)).reshape(-1, 3), cells.max((1, 3)).reshape(-1, 3)


def _chunks(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(indices), size):
        yield list(indices[start : start + size])
