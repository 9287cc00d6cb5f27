"""Wall-clock time of named stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stages:
    """Milliseconds by stage name, in the order they first ran; a stage that runs again adds to its time."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time the body under `name`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.ms[name] = self.ms.get(name, 0.0) + 1e3 * (perf_counter() - start)

    def rounded(self) -> dict[str, float]:
        """For JSON: milliseconds with one decimal."""
        return {name: round(value, 1) for name, value in self.ms.items()}
