"""Deletes captures after their days are over, but not on the word of a clock that jumped.

Boards without a battery wake up in 1970 or years ahead. So the wall clock is compared with the monotonic one, and at
the start with the time of the newest capture: after a jump of more than `JUMP_S`, or when more than `LONG_OFF_S` seem
to have passed since that capture, nothing is deleted for `HOLD_S` of running time, in which people or NTP can mend the
clock. A capture that is still to be forwarded is never deleted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from boothsam.service.captures.records import CaptureError, NoSuchCapture, NotForwarded
from boothsam.service.captures.store import CaptureStore

JUMP_S = 3600.0
LONG_OFF_S = 7 * 86400.0
HOLD_S = 86400.0
SWEEP_S = 3600.0
_log = logging.getLogger("boothsam")


class Retention:
    """Decides when old captures may go. wall and monotonic: the clocks, in seconds."""

    def __init__(
        self,
        store: CaptureStore,
        days: int,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._days = store, days
        self._wall, self._monotonic = wall, monotonic
        self._offset = wall() - monotonic()
        self._trusted_from = monotonic()
        newest = store.page(1, before=2**62)
        if newest and not -JUMP_S <= wall() - _seconds(newest[0].received_at) <= LONG_OFF_S:
            self._distrust("the clock is far from the newest capture's time")

    def _distrust(self, reason: str) -> None:
        _log.warning("no captures are deleted for %g hours: %s", HOLD_S / 3600, reason)
        self._trusted_from = self._monotonic() + HOLD_S

    async def sweep(self) -> int:
        """Delete what is over its days, if the clock can be trusted; how many."""
        offset = self._wall() - self._monotonic()
        if abs(offset - self._offset) > JUMP_S:
            self._distrust(f"the clock jumped by {offset - self._offset:.0f} s")
        self._offset = offset
        if not self._days or self._monotonic() < self._trusted_from:
            return 0
        now = datetime.fromtimestamp(self._wall(), timezone.utc)
        before, until = (t.isoformat(timespec="milliseconds") for t in (now - timedelta(days=self._days), now))
        count = 0
        for id in await asyncio.to_thread(self._store.received_before, before, until):
            try:
                await asyncio.wrap_future(self._store.delete(id))  # one by one: new photos come in between
                count += 1
            except (NotForwarded, NoSuchCapture):
                continue
        return count

    async def run(self) -> None:
        """Sweep every hour until cancelled."""
        while True:
            try:
                count = await self.sweep()
                if count:
                    _log.info("%d captures older than %d days were deleted", count, self._days)
            except CaptureError as error:
                _log.warning("old captures could not be deleted: %s", error.message)
            await asyncio.sleep(SWEEP_S)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
