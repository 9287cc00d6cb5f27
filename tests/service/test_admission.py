"""Admission: order, bounds, deadlines, clients that leave, and cancellation at every moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from boothsam.service.admission import Admission
from boothsam.service.problems import ServiceProblem


async def _turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Guests:
    """Requests that hold their place until told to leave; `order` lists them as they got in."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.order: list[int] = []
        self.leave: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.most = 0

    async def arrive(self, name: int, is_gone: Callable[[], Awaitable[bool]] | None = None) -> asyncio.Task[None]:
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, is_gone))
        await _turns()
        return self.tasks[name]

    async def _stay(self, name: int, is_gone: Callable[[], Awaitable[bool]] | None) -> None:
        async with self.admission.place(is_gone):
            self.order.append(name)
            self.most = max(self.most, self.admission.in_flight)
            await self.leave[name].wait()

    async def all_leave(self) -> None:
        for event in self.leave.values():
            event.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def _code(task: asyncio.Task[Any]) -> str:
    error = task.exception()
    assert isinstance(error, ServiceProblem)
    return error.code


def test_first_come_first_served_and_never_more_than_allowed() -> None:
    async def run() -> None:
        guests = Guests(Admission(in_flight=2, queue=8))
        for name in range(8):
            await guests.arrive(name)
        assert (guests.order, guests.admission.depth, guests.admission.in_flight) == ([0, 1], 6, 2)
        await guests.all_leave()
        assert guests.order == list(range(8)) and guests.most == 2
        assert (guests.admission.depth, guests.admission.in_flight) == (0, 0)

    asyncio.run(run())


def test_a_full_queue_refuses_at_once_and_says_when_to_return() -> None:
    async def run() -> None:
        admission = Admission(in_flight=1, queue=2)
        assert admission.refusal() is None
        guests = Guests(admission)
        for name in range(3):
            await guests.arrive(name)
        refused = await guests.arrive(3)
        assert refused.done() and _code(refused) == "queue_full"
        error = refused.exception()
        assert isinstance(error, ServiceProblem)
        assert error.status == 429 and error.headers["Retry-After"] == "3" and error.hint  # three ahead, 1 s guessed
        early = admission.refusal()
        assert early is not None and early.code == "queue_full"
        await guests.all_leave()
        assert admission.refusal() is None

    asyncio.run(run())


def test_retry_after_follows_the_measured_time() -> None:
    async def run() -> None:
        admission = Admission(in_flight=1, queue=0)
        for _ in range(60):
            async with admission.place():
                await asyncio.sleep(0)
        assert admission.service_s < 0.5
        admission._service_s = 7.0  # as after slow photos
        async with admission.place():
            refused = admission.refusal()
            assert refused is not None and refused.headers["Retry-After"] == "7"
        admission._service_s = 1e6
        async with admission.place():
            refused = admission.refusal()
            assert refused is not None and refused.headers["Retry-After"] == "120"

    asyncio.run(run())


def test_the_average_counts_photos_that_failed_in_work() -> None:
    async def run() -> None:
        admission = Admission()
        for _ in range(30):
            with pytest.raises(KeyError):
                async with admission.place():
                    raise KeyError
        assert admission.service_s < 0.1 and admission.in_flight == 0

    asyncio.run(run())


def test_a_wait_ends_at_the_deadline_and_leaves_no_ticket() -> None:
    async def run() -> None:
        guests = Guests(Admission(in_flight=1, queue=3, deadline_s=0.05))
        await guests.arrive(0)
        late = await guests.arrive(1)
        await asyncio.wait([late])
        assert _code(late) == "deadline" and guests.admission.depth == 0
        await guests.all_leave()
        assert guests.admission.in_flight == 0 and guests.order == [0]

    asyncio.run(run())


def test_a_client_that_leaves_is_dropped_from_the_queue_and_before_its_work() -> None:
    async def run() -> None:
        gone = False

        async def is_gone() -> bool:
            return gone

        guests = Guests(Admission(in_flight=1, queue=3))
        await guests.arrive(0)
        leaver = await guests.arrive(1, is_gone)
        stayer = await guests.arrive(2)
        gone = True
        await asyncio.wait([leaver], timeout=5)
        assert _code(leaver) == "client_gone" and guests.admission.depth == 1
        guests.leave[2].set()
        guests.leave[0].set()
        await stayer
        assert guests.order == [0, 2]
        straight = await guests.arrive(3, is_gone)  # a free place, but nobody to answer
        assert _code(straight) == "client_gone" and guests.admission.in_flight == 0
        async with guests.admission.place(is_gone=None) as place:
            await place.still_wanted()

    asyncio.run(run())


def test_work_can_be_dropped_between_stages() -> None:
    async def run() -> None:
        answers = iter([False, False, True])

        async def is_gone() -> bool:
            return next(answers)

        admission = Admission()
        with pytest.raises(ServiceProblem) as dropped:
            async with admission.place(is_gone) as place:
                await place.still_wanted()
                await place.still_wanted()
        assert dropped.value.code == "client_gone" and admission.in_flight == 0

    asyncio.run(run())


def test_long_work_gives_way_between_its_slices_and_goes_on_behind_who_waited() -> None:
    async def run() -> None:
        admission, order = Admission(in_flight=1, queue=2, deadline_s=0.05), list[str]()

        async def long(name: str) -> None:
            async with admission.place() as place:
                for number in range(3):
                    order.append(f"{name}{number}")
                    await asyncio.sleep(0)
                    await place.let_others()

        async def short(name: str) -> None:
            async with admission.place():
                order.append(name)
                await asyncio.sleep(0.1)  # longer than anybody else may wait

        await asyncio.gather(long("a"), short("b"), short("c"), return_exceptions=True)
        assert order == ["a0", "b", "a1", "a2"]  # c's wait ended at the deadline; the long work has none
        order.clear()
        await asyncio.gather(long("a"), long("b"))
        assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]
        assert (admission.in_flight, admission.depth) == (0, 0)

    asyncio.run(run())


def test_long_work_counts_by_its_slices_for_it_is_those_that_others_wait_for() -> None:
    async def run() -> None:
        admission = Admission(in_flight=1, queue=1)
        async with admission.place() as place:
            for _ in range(5):
                await asyncio.sleep(0.25)
                await place.let_others()
        assert admission.service_s < 1  # from a guess of 1 s down, not up towards that of all slices together

    asyncio.run(run())


def test_long_work_ends_when_the_service_drains_or_its_client_leaves_while_another_works() -> None:
    async def run(code: str) -> None:
        admission, gone = Admission(in_flight=1, queue=2), False

        async def is_gone() -> bool:
            return gone

        guests = Guests(admission)

        async def long() -> None:
            async with admission.place(is_gone) as place:
                await guests.arrive(1)
                await place.let_others()

        work = asyncio.create_task(long())
        while not guests.order:
            await asyncio.sleep(0)
        assert admission.depth == 1 and admission.in_flight == 1
        if code == "draining":
            admission.drain()
        gone = code == "client_gone"
        await asyncio.wait([work], timeout=5)
        assert _code(work) == code and admission.in_flight == 1  # the guest's place is its own
        await guests.all_leave()
        assert (admission.in_flight, admission.depth) == (0, 0)
        if code == "draining":
            return
        async with admission.place() as place:
            admission.drain()
            with pytest.raises(ServiceProblem, match="draining"):
                await place.let_others()

    asyncio.run(run("draining"))
    asyncio.run(run("client_gone"))


def test_draining_lets_the_work_end_and_refuses_the_rest() -> None:
    async def run() -> None:
        guests = Guests(Admission(in_flight=1, queue=3))
        working = await guests.arrive(0)
        waiting = await guests.arrive(1)
        guests.admission.drain()
        newcomer = await guests.arrive(2)
        await asyncio.wait([waiting])
        assert (_code(waiting), _code(newcomer)) == ("draining", "draining") and not working.done()
        idle = asyncio.create_task(guests.admission.idle())
        await _turns()
        assert not idle.done()
        guests.leave[0].set()
        await asyncio.wait_for(idle, 5)
        await working
        refused = guests.admission.refusal()
        assert refused is not None and refused.status == 503 and guests.admission.draining

    asyncio.run(run())


def test_cancelling_a_waiter_in_the_turn_it_gets_the_place_passes_it_on() -> None:
    async def run() -> None:
        guests = Guests(Admission(in_flight=1, queue=3))
        await guests.arrive(0)
        first, second = await guests.arrive(1), await guests.arrive(2)
        ticket = guests.admission._waiting[0]
        guests.leave[0].set()
        while not ticket.done():  # handed over, but `first` has not run yet
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        await _turns()
        assert first.cancelled() and guests.order == [0, 2] and guests.admission.in_flight == 1
        guests.leave[2].set()
        await second
        assert guests.admission.in_flight == 0

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(20))
def test_no_place_is_lost_or_doubled_under_random_cancellation(seed: int) -> None:
    async def run() -> None:
        rng = random.Random(seed)
        admission = Admission(in_flight=2, queue=20, deadline_s=0.02)
        inside = most = 0

        async def request() -> None:
            nonlocal inside, most
            async with admission.place() as place:
                for _ in range(rng.choice([1, 1, 3])):  # some work in slices
                    inside += 1
                    most = max(most, inside)
                    try:
                        await asyncio.sleep(rng.choice([0, 0, 0.001, 0.003]))
                        if rng.random() < 0.2:
                            raise ValueError
                    finally:
                        inside -= 1
                    await place.let_others()

        tasks = []
        for _ in range(120):
            tasks.append(asyncio.create_task(request()))
            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice([0, 0.001]))
            if rng.random() < 0.4:
                rng.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(admission.idle(), 5)
        assert (inside, admission.in_flight, admission.depth) == (0, 0, 0) and most <= 2
        async with admission.place(), admission.place():
            assert admission.in_flight == 2

    asyncio.run(run())
