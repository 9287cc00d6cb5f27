"""systemd's notification protocol: datagrams to the socket that NOTIFY_SOCKET names (sd_notify(3)).

Outside systemd, where the variable is missing, nothing is sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)


def notify(*states: str) -> bool:
    """Send states such as "READY=1" in one message; whether it was sent. A supervisor that is gone is logged only."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # Linux' abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto("\n".join(states).encode(), address)
    except OSError as error:
        _log.warning("cannot notify the supervisor at %s: %s", os.environ["NOTIFY_SOCKET"], error)
        return False
    return True


def watchdog_interval_s() -> float | None:
    """Seconds between signs of life, a third of what the unit's WatchdogSec= allows; None where nobody watches."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 3e6 or None


async def feed_watchdog(interval_s: float, alive: Callable[[], Awaitable[object]]) -> None:
    """Forever: await `alive`, and send a sign of life only when it returned. What it raises is logged.

    One that never returns sends nothing more, and systemd restarts the service after WatchdogSec=.
    """
    while True:
        try:
            await alive()
        except Exception:
            _log.exception("no sign of life for the watchdog")
        else:
            notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
