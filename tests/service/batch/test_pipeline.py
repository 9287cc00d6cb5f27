"""The pipeline's bounds and ends, on plain functions and real threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from boothsam.service.batch.pipeline import DEPTH, Budget, Step, run_steps


def never(value: object) -> bool:
    return False


def test_everything_passes_every_step_and_some_leave_early() -> None:
    steps = [Step(lambda v: v * 10, 3), Step(lambda v: v + 1), Step(lambda v: v + 1, 4)]
    found = sorted(run_steps(range(50), steps, lambda v: v in (70, 80), threading.Event()))
    assert found == sorted(v * 10 if v in (7, 8) else v * 10 + 2 for v in range(50))
    assert threading.active_count() == 1


def test_the_source_is_read_no_further_than_the_queues_reach() -> None:
    taken, gate = [], threading.Event()

    def source() -> Iterator[int]:
        for value in range(1000):
            taken.append(value)
            yield value

    def wait(value: int) -> int:
        assert gate.wait(30)
        return value

    results = run_steps(source(), [Step(lambda v: v), Step(wait)], never, threading.Event())
    release = threading.Timer(0.3, gate.set)
    release.start()
    next(results)
    before = len(taken)  # what was taken while nothing could leave, and a little while one left
    results.close()
    release.join()
    assert before <= 64 + 6 * DEPTH + 10
    assert len(taken) < 1000


def test_stop_finishes_what_is_under_way() -> None:
    stop, taken = threading.Event(), []

    def take(value: int) -> int:
        taken.append(value)
        if value == 5:
            stop.set()
        return value

    found = list(run_steps(iter(range(10**6)), [Step(take), Step(lambda v: v)], never, stop))
    assert found == taken and 5 in found and len(found) < 20


@pytest.mark.parametrize("place", ["source", "step"])
def test_a_crash_ends_all_threads_and_is_raised(place: str) -> None:
    def source() -> Iterator[int]:
        yield from range(10)
        if place == "source":
            raise KeyError("source")

    def step(value: int) -> int:
        if place == "step" and value == 3:
            raise KeyError("step")
        return value

    with pytest.raises(KeyError, match=place):
        list(run_steps(source(), [Step(step, 2), Step(lambda v: v)], never, threading.Event()))
    assert threading.active_count() == 1


def test_a_budget_is_kept_in_order_and_lets_a_giant_pass_alone() -> None:
    budget, order, held = Budget(10), [], [0]
    peak, lock = [0], threading.Lock()

    def use(name: int, amount: int, ready: threading.Event) -> None:
        ready.set()
        budget.acquire(amount)
        with lock:
            order.append(name)
            held[0] += amount
            peak[0] = max(peak[0], held[0] if amount <= 10 else 0)
            assert amount <= 10 or held[0] == amount
        with lock:
            held[0] -= amount
        budget.release(amount)

    budget.acquire(6)
    threads = []
    for name, amount in enumerate((6, 50, 3, 4)):
        ready = threading.Event()
        thread = threading.Thread(target=use, args=(name, amount, ready))
        thread.start()
        ready.wait()
        while len(budget._line) < name + 1:
            pass
        threads.append(thread)
    assert order == []  # 3 and 4 would fit, and wait their turn behind the giant
    budget.release(6)
    for thread in threads:
        thread.join(30)
    assert order[:2] == [0, 1] and sorted(order) == [0, 1, 2, 3] and peak[0] <= 10
