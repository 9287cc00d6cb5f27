"""Pieces of one picture on the process's cores, for steps that leave Python's lock to others (NumPy, OpenCV, Pillow,
zlib)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_MOST = 8  # more only wait for memory


def in_threads(function: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """`function` of every piece, in order; the first exception is raised. What a piece is must not hang on the number
    of cores, or results would."""
    workers = min(_MOST, len(pieces), len(os.sched_getaffinity(0)))
    if workers < 2:
        return [function(piece) for piece in pieces]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, pieces))
