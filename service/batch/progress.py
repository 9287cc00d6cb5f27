"""How far a batch is: one line that is rewritten for people, a line now and then for logs."""

from __future__ import annotations

import os
import sys
from time import monotonic

from boothsam.service.console import say

EVERY_S = 10.0  # between two lines of a log
_REDRAW_S = 0.2


class Counter:
    """Photos done, failed and passed over so far.

    total: of the run; None while watching. earlier: failures of earlier runs among those passed over.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.done = self.failed = self.skipped = self.earlier = self.ambiguous = 0
        self._start = monotonic()

    @property
    def seconds(self) -> float:
        return monotonic() - self._start

    @property
    def rate(self) -> float:
        """Photos per second, without those passed over."""
        return (self.done + self.failed) / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        seen = self.done + self.failed + self.skipped
        text = f"{self.done} done, {self.failed} failed"
        text += f", {self.skipped} as before" if self.skipped else ""
        text = f"{seen}/{self.total}: {text}" if self.total is not None else text
        text += f", {self.rate:.1f} photos/s" if self.rate else ""
        if self.total is not None and self.rate > 0 and self.done + self.failed:
            text += f", {duration((self.total - seen) / self.rate)} left"
        return text


class Ticker:
    """Shows a counter on stderr: rewritten in place on a terminal, else every ten seconds."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._last = monotonic() - (_REDRAW_S if self._terminal else 0)
        self._told = ""

    def tick(self) -> None:
        """Show it, if it is time and something changed."""
        now = monotonic()
        if now - self._last < (_REDRAW_S if self._terminal else EVERY_S):
            return
        self._last = now
        text = str(self._counter)
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        elif text != self._told:
            say(text)
        self._told = text

    def clear(self) -> None:
        """Empty the line."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """12 s, 3:05 min or 2:10 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
