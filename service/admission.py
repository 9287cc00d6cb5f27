"""Who works, who waits, and who is told to come back: a few requests in flight, a short first-in-first-out queue.

A place is held from decoding to the end of the inference, because both hold a photo in memory. Whoever may not enter at
all (no token, a wrong field, a broken upload) is refused before and never takes one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from boothsam.service.problems import ServiceProblem, problem

IsGone = Callable[[], Awaitable[bool]]
_POLL_S = 0.25
# Weight of the newest service time in the moving average: after ten requests the first guess counts for a tenth.
_WEIGHT = 0.2
_FIRST_GUESS_S = 1.0
_LONGEST_RETRY_S = 120


class Place:
    """A place that is held. `waited_s`: how long it took to get it."""

    def __init__(self, waited_s: float, is_gone: IsGone | None, admission: Admission) -> None:
        self.waited_s = waited_s
        self._is_gone = is_gone
        self._admission = admission
        self._since = time.monotonic()
        self._held = True

    async def let_others(self) -> None:
        """Call it between the slices of long work: whoever waits has its turn first, and then this work goes on.

        Raises:
            ServiceProblem: draining, client_gone; the place is given up then.
        """
        refused = self._admission.refusal() if self._admission.draining else None
        if refused is not None:
            raise refused
        await self.still_wanted()
        if self._admission.depth:
            self.leave()
            await self._admission.enter(math.inf, self._is_gone)
            self._held = True
        self._since = time.monotonic()  # others wait for a slice, and so does the average count it

    def leave(self) -> None:
        """Give the place up, if it is still held."""
        if self._held:
            self._held = False
            self._admission.leave(time.monotonic() - self._since)

    async def still_wanted(self) -> None:
        """Call it between stages. Raises ServiceProblem `client_gone` where nobody waits for the answer any more."""
        if self._is_gone is not None and await self._is_gone():
            raise _gone()


class Admission:
    """Bounded concurrency with a bounded queue; for one event loop.

    Args:
        in_flight: requests that hold a place at once, at least 1.
        queue: requests that may wait for one.
        deadline_s: longest wait.
    """

    def __init__(self, in_flight: int = 1, queue: int = 8, deadline_s: float = 15.0) -> None:
        self._places, self._queue, self._deadline_s = in_flight, queue, deadline_s
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._service_s = _FIRST_GUESS_S
        self._idle_since = time.monotonic()

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Requests that hold a place."""
        return self._running

    @property
    def service_s(self) -> float:
        """Moving average of how long a place is held."""
        return self._service_s

    @property
    def idle_s(self) -> float:
        """Seconds since the last place was given back, 0 while one is held."""
        return 0.0 if self._running else time.monotonic() - self._idle_since

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    def refusal(self) -> ServiceProblem | None:
        """What a request that arrives now is told, None where it may run or wait; known before its upload is read."""
        if self._draining:
            return problem("draining", "the service is shutting down", "send the photo again", headers=self._retry())
        if self._running >= self._places and len(self._waiting) >= self._queue:
            return problem(
                "queue_full",
                f"{self._running} requests are in work and {len(self._waiting)} wait; that is all there is room for",
                "send it again after Retry-After seconds, or raise queue",
                headers=self._retry(),
            )
        return None

    @contextlib.asynccontextmanager
    async def place(self, is_gone: IsGone | None = None) -> AsyncIterator[Place]:
        """Hold a place for the length of the block, waiting for it in the order of arrival.

        Args:
            is_gone: whether the client has closed its connection; asked while waiting and once before the block.

        Raises:
            ServiceProblem: queue_full, deadline, draining, client_gone.
        """
        began = time.monotonic()
        refused = self.refusal()
        if refused is not None:
            raise refused
        await self.enter(began + self._deadline_s, is_gone)
        place = Place(time.monotonic() - began, is_gone, self)
        try:
            await place.still_wanted()
        except BaseException:
            self._leave()  # nothing was done here that the average could count
            raise
        try:
            yield place
        finally:
            place.leave()

    async def enter(self, deadline: float, is_gone: IsGone | None) -> None:
        """Take a place at once or wait for it, however many wait; for `place` and `Place`."""
        if self._running < self._places and not self._waiting:
            self._running += 1
            self._idle.clear()
        else:
            await self._wait(deadline, is_gone)

    def leave(self, held_s: float) -> None:
        """A place that was held for so long is free; for `Place`."""
        self._service_s += _WEIGHT * (held_s - self._service_s)
        self._leave()

    def drain(self) -> None:
        """Refuse what comes and what waits; what is in work goes on. Who waits has lost nothing and may retry."""
        self._draining = True
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.done():
                ticket.set_exception(
                    problem("draining", "the service is shutting down", "send the photo again", headers=self._retry())
                )

    async def idle(self) -> None:
        """Wait until no place is held."""
        await self._idle.wait()

    async def _wait(self, deadline: float, is_gone: IsGone | None) -> None:
        """Returns with a place, or raises without one."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(ticket)
        try:
            while not ticket.done():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise problem(
                        "deadline",
                        f"no place became free within {self._deadline_s:g} s",
                        "send it again after Retry-After seconds, or raise queue_deadline_s",
                        headers=self._retry(),
                    )
                pause = min(left, _POLL_S) if is_gone is not None else left
                await asyncio.wait([ticket], timeout=None if math.isinf(pause) else pause)
                if not ticket.done() and is_gone is not None and await is_gone():
                    raise _gone()
            ticket.result()
        except BaseException:
            # The place may have been handed over in the same turn of the loop in which the wait ended.
            if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
                self._leave()
            else:
                ticket.cancel()
                with contextlib.suppress(ValueError):
                    self._waiting.remove(ticket)
            raise

    def _leave(self) -> None:
        """Hand the place to the first who waits, or give it up."""
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.done():
                ticket.set_result(None)
                return
        self._running -= 1
        if self._running == 0:
            self._idle_since = time.monotonic()
            self._idle.set()

    def _retry(self) -> dict[str, str]:
        """When what is ahead now will be done, by the measured service time."""
        ahead = (self._running + len(self._waiting)) * self._service_s / self._places
        return {"Retry-After": str(min(max(1, math.ceil(ahead)), _LONGEST_RETRY_S))}


def _gone() -> ServiceProblem:
    return problem("client_gone", "the client closed the connection before its turn came")
