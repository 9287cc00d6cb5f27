"""Starting the service again in its own process: how it comes to use the engines that were built while it answered.

The process keeps its number, so systemd and a container's supervisor see one service that reloads. What clients hold
survives: the kiosk's page sends its photo again, an embedding's id is made from the photo.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from boothsam.service.admission import Admission

log = logging.getLogger("boothsam.service")
# Set for the service that follows: engines that it cannot use must not make it start again and again.
STARTED_AGAIN = "_BOOTHSAM_STARTED_AGAIN"
_POLL_S = 0.25


class Restart:
    """Whether the process shall start again once it has ended cleanly."""

    def __init__(self) -> None:
        self.wanted = False
        self._stopping = False

    def possible(self, port: int, backend: str) -> str | None:
        """Why it must not happen, None where it may.

        port, backend: as set. Port 0 would be another one the next time; of the backends "auto" and "trt" use engines.
        """
        if port == 0:
            return "its port would be another one"
        if backend not in ("auto", "trt"):
            return f"its backend is set to {backend}, which uses no engines"
        if STARTED_AGAIN in os.environ:
            return "it did so before, and the engines were not taken then; boothsam doctor says why"
        return None

    async def when_quiet(self, admission: Admission, quiet_s: float) -> None:
        """Wait until no place was held for `quiet_s` seconds, then wish for it, unless the service is being stopped."""
        while admission.idle_s < quiet_s:
            await asyncio.sleep(min(_POLL_S, quiet_s))
        self.wanted = not self._stopping

    def stop(self) -> None:
        """Take the wish back for good: whoever says stop means it, also where the service has to drain first."""
        self.wanted, self._stopping = False, True


def start_again() -> None:
    """Replace this process by a new start of the same command; returns only by an exception, OSError."""
    log.warning("starting again, to use the engines")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {STARTED_AGAIN: "1"})
