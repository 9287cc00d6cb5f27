"""Steps on threads, joined by short queues: while one photo is cut out, the next is in the network and a third decodes.

ONNX Runtime, OpenCV, Pillow and zlib let go of the interpreter lock while they work, so threads are enough.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

DEPTH = 2  # photos that wait between two steps
_END = object()


@dataclass(frozen=True)
class Step:
    """A function from one step's value to the next one's, on `workers` threads."""

    function: Callable[[Any], Any]
    workers: int = 1


@dataclass(frozen=True)
class _Crash:
    error: BaseException


def run_steps(
    items: Iterable[Any], steps: Sequence[Step], finished: Callable[[Any], bool], stop: threading.Event
) -> Iterator[Any]:
    """Push items through the steps; yields each as it leaves, in no particular order.

    items: taken one by one, from a thread of its own, as the first step has room. finished: a value for which it is
    true leaves at once. stop: once set, no further item is taken; those under way are finished and yielded. Closing the
    iterator stops as well and waits for them.

    Raises:
        whatever a step or `items` raises, after the threads have ended.
    """
    queues: list[queue.Queue[Any]] = [queue.Queue(DEPTH) for _ in steps]
    results: queue.Queue[Any] = queue.Queue(64)
    left = [step.workers for step in steps]
    lock = threading.Lock()

    def feed() -> None:
        try:
            for item in items:
                if stop.is_set():
                    break
                queues[0].put(item)
        except BaseException as error:
            results.put(_Crash(error))
        finally:
            if isinstance(items, Generator):
                items.close()
            queues[0].put(_END)

    def work(index: int) -> None:
        inbox, outbox = queues[index], queues[index + 1] if index + 1 < len(queues) else results
        while (value := inbox.get()) is not _END:
            try:
                value = steps[index].function(value)
            except BaseException as error:
                results.put(_Crash(error))
                continue
            (results if finished(value) else outbox).put(value)
        with lock:
            left[index] -= 1
            last = left[index] == 0
        # One end mark: for the next of this step, or from its last to the following step.
        (outbox if last else inbox).put(_END)

    threads = [threading.Thread(target=feed, name="batch-feed", daemon=True)]
    threads += [
        threading.Thread(target=work, args=(index,), name=f"batch-{index}", daemon=True)
        for index, step in enumerate(steps)
        for _ in range(step.workers)
    ]
    for thread in threads:
        thread.start()
    crash: BaseException | None = None
    ended = False
    try:
        while True:
            value = results.get()
            if value is _END:
                ended = True
                break
            if isinstance(value, _Crash):
                crash = crash or value.error
                stop.set()
            else:
                yield value
    finally:
        stop.set()
        while not ended:
            ended = results.get() is _END
        for thread in threads:
            thread.join()
    if crash is not None:
        raise crash


class Budget:
    """Bounds what is under way at once by a sum, first come first served; one that is larger passes alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    def acquire(self, amount: int) -> None:
        """Wait for room."""
        me = object()
        with self._changed:
            self._line.append(me)
            self._changed.wait_for(
                lambda: self._line[0] is me and (not self._used or self._used + amount <= self.limit)
            )
            self._line.popleft()
            self._used += amount
            self._changed.notify_all()

    def release(self, amount: int) -> None:
        """Give room back."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()
