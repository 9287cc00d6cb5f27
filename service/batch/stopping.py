"""Ctrl-C and SIGTERM: finish what is under way, take nothing new."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop(threading.Event):
    """Set by the first signal; `signal` is its number."""

    signal: int | None = None


@contextmanager
def stoppable(told: Callable[[], None]) -> Iterator[Stop]:
    """Within the body SIGINT and SIGTERM set the yielded event. told: called at the first one.

    A second Ctrl-C ends the process at once with 130: whatever is under way is done again by the next run.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            os._exit(130)
        stop.signal = stop.signal or number
        if not stop.is_set():
            stop.set()
            told()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
