"""Forwards captures when the network is back: at least once, oldest first, and nothing is dropped.

Which captures are pending is in the index, so that a restart resumes. A failure that may lie with the capture puts it
behind the others, with exponential back-off and full jitter; after `max_attempts` such failures it is parked, but only
if something else was delivered meanwhile: a receiver that refuses everything is not the captures' fault. A receiver
that cannot be reached, or asks for time, holds up everything, likewise with back-off. Waiting goes by the monotonic
clock, and is not remembered over a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from boothsam.service.captures.index import Delivery
from boothsam.service.captures.records import CaptureError, NoSuchCapture
from boothsam.service.captures.store import CaptureStore
from boothsam.service.captures.targets import Failed, Refused, Target, Unreachable

MAX_ATTEMPTS = 8
_BATCH = 500
_log = logging.getLogger("boothsam")


@dataclass(frozen=True)
class Backoff:
    """Exponential back-off with full jitter: a random time up to base_s, 2 base_s, 4 base_s, ... and at most cap_s."""

    base_s: float = 1.0
    cap_s: float = 300.0

    def seconds(self, failures: int) -> float:
        """How long to wait after so many failures in a row; 0 after none."""
        if failures < 1:
            return 0.0
        return random.uniform(0, min(self.cap_s, self.base_s * 2 ** min(failures - 1, 30)))


class Outbox:
    """Forwards a store's captures to the target it was opened for. One `run` or `drain` at a time."""

    def __init__(
        self, store: CaptureStore, target: Target, *, backoff: Backoff | None = None, max_attempts: int = MAX_ATTEMPTS
    ) -> None:
        if store.target != target.name:
            raise ValueError(f"the store was opened for {store.target!r}, the target is {target.name!r}")
        self.delivered = 0
        self.trouble = ""  # why nothing gets through at present, "" when something does
        self._store, self._target = store, target
        self._backoff = backoff or Backoff()
        self._max_attempts = max_attempts
        self._due: dict[int, float] = {}  # seq -> monotonic time of the next attempt
        self._seen_failing: dict[int, int] = {}  # seq -> `delivered` when it failed first
        self._troubles = 0  # in a row
        self._failures = 0  # in a row
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Forward until cancelled; an attempt that is under way is then broken off, and repeated after the restart."""
        loop = asyncio.get_running_loop()
        self._store.on_added = self._waker(loop)
        try:
            while True:
                await self._wait(await self._step())
        finally:
            self._store.on_added = lambda: None
            await self._target.close()

    async def drain(self) -> None:
        """Forward everything that can be forwarded now, each capture tried once at most."""
        try:
            tried: set[int] = set()
            while True:
                batch = [d for d in await self._pending() if d.capture.seq not in tried]
                for delivery in batch:
                    tried.add(delivery.capture.seq)
                    await self._attempt(delivery)
                    if self._troubles:
                        return
                if not batch:
                    return
        finally:
            await self._target.close()

    def _waker(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the next start finds what is pending
                loop.call_soon_threadsafe(self._wake.set)

        return wake

    async def _step(self) -> float | None:
        """Try one capture; how long to wait before the next, None until there is a new one."""
        self._wake.clear()
        try:
            pending = await self._pending()
            now = time.monotonic()
            ready = next((d for d in pending if self._due.get(d.capture.seq, 0) <= now), None)
            if ready is None:
                times = [self._due[d.capture.seq] for d in pending]
                return max(0.0, min(times) - now) if times else None
            return await self._attempt(ready)
        except (
            CaptureError
        ) as error:  # the store's own disk: nothing can be noted, so nothing may be tried again at once
            return self._hold(str(error.message), 0.0)

    async def _pending(self) -> list[Delivery]:
        return await asyncio.to_thread(self._store.deliveries, "pending", _BATCH)

    async def _wait(self, seconds: float | None) -> None:
        if seconds is None:
            await self._wake.wait()
        elif self._troubles:  # a new photo does not mend the receiver
            await asyncio.sleep(seconds)
        else:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), seconds)

    async def _attempt(self, delivery: Delivery) -> float:
        capture = delivery.capture
        paths = {role: self._store.path(capture, role) for role in capture.files}
        try:
            await self._target.deliver(capture, paths)
        except Refused as error:
            await self._mark(delivery, "parked", delivery.attempts + 1, str(error))
            self._troubles, self.trouble = 0, ""
            _log.warning("capture %s was parked: %s", capture.id, error)
            return 0.0
        except FileNotFoundError as error:
            try:
                await asyncio.to_thread(self._store.get, capture.id)
            except NoSuchCapture:
                return 0.0  # deleted meanwhile
            await self._mark(delivery, "parked", delivery.attempts + 1, f"{error.filename} is missing")
            return 0.0
        except OSError as error:  # the disk cannot read this one
            return await self._failed(delivery, f"cannot be read: {error}", 0.0)
        except Unreachable as error:
            await self._mark(delivery, "pending", delivery.attempts, str(error))
            return self._hold(str(error), error.retry_after)
        except Failed as error:
            return await self._failed(delivery, str(error), error.retry_after)
        await self._mark(delivery, "delivered", delivery.attempts, "")
        self.delivered += 1
        self._troubles, self._failures, self.trouble = 0, 0, ""
        self._due.pop(capture.seq, None)
        self._seen_failing.pop(capture.seq, None)
        return 0.0

    async def _failed(self, delivery: Delivery, reason: str, asked_s: float) -> float:
        seq, attempts = delivery.capture.seq, delivery.attempts + 1
        self._failures += 1
        others_passed = self.delivered > self._seen_failing.setdefault(seq, self.delivered)
        parked = attempts >= self._max_attempts and others_passed
        await self._mark(delivery, "parked" if parked else "pending", attempts, reason)
        if parked:
            _log.warning("capture %s was parked after %d attempts: %s", delivery.capture.id, attempts, reason)
            self._due.pop(seq, None)
        else:
            self._due[seq] = time.monotonic() + self._backoff.seconds(attempts)
        # The first failures may be this capture's; a row of them is the receiver's.
        return self._hold(reason, asked_s) if self._failures >= 3 or asked_s else 0.0

    def _hold(self, reason: str, asked_s: float) -> float:
        self._troubles += 1
        if reason != self.trouble:
            _log.warning("forwarding to %s waits: %s", self._target.name, reason)
        self.trouble = reason
        return max(asked_s, self._backoff.seconds(self._troubles))

    async def _mark(self, delivery: Delivery, state: str, attempts: int, error: str) -> None:
        if (state, attempts, error) != (delivery.state, delivery.attempts, delivery.error):
            await asyncio.wrap_future(self._store.mark(delivery.capture.seq, state, attempts, error[:500]))
