"""The service's process: one uvicorn worker with bounds, a clean end on SIGTERM, and signs of life for systemd."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import logging
import math
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from boothsam.runtime.errors import BoothsamError, OptionError
from boothsam.service.app import create_app
from boothsam.service.protocol import bounded
from boothsam.service.restart import Restart, start_again
from boothsam.service.sdnotify import feed_watchdog, notify, watchdog_interval_s
from boothsam.service.settings import Settings
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

_log = logging.getLogger(__name__)
# They warn of every malformed request: any client could fill the log.
_CHATTY = ("uvicorn.error", "python_multipart.multipart")


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; returns when what was running is answered, `drain_s` later at most.

    Where the application wishes it (`app.state.restart`), the process starts again instead.

    Raises:
        OptionError: an address other than loopback without a token, or one that cannot be listened on.
        BoothsamError: what kept the application from starting, such as ModelNotFound.
    """
    check_exposure(settings)
    _share_memory_arenas()
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    application = _Application(create_app(settings))
    with listen(settings.host, settings.port) as listener, _told_once(application):
        try:
            asyncio.run(Server(config(settings, application)).serve([listener]))
        except SystemExit:  # uvicorn's way to say that the lifespan failed
            if application.failure is None:
                raise
            raise application.failure from None
    if application.state.restart.wanted:
        start_again()


def _share_memory_arenas(arenas: int = 2) -> None:
    """glibc gives every thread an arena of its own and keeps what is freed in each: with frames of 70 MB that adds up.

    Where the C library is another one, nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-8, arenas)  # M_ARENA_MAX of <malloc.h>


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket, not listening yet. Raises OptionError where the address is taken or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OptionError(f"host {host!r} is no address: {error}", hint="boothsam serve --host 127.0.0.1") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise OptionError(f"cannot listen on {host} port {port}: {reason}", hint="boothsam serve --port 0") from None
    return listener


def check_exposure(settings: Settings) -> None:
    """Raises OptionError for an address that others can reach, without a token."""
    if not settings.token and not is_loopback(settings.host):
        raise OptionError(
            f"host is {settings.host}, which other machines may reach, and no token is set",
            hint="export BOOTHSAM_TOKEN=$(openssl rand -hex 24), or listen on 127.0.0.1",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; any name but localhost counts as reachable."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def config(settings: Settings, app: Any) -> uvicorn.Config:
    """uvicorn's configuration for an ASGI application; where to listen is `listen`'s business."""
    return uvicorn.Config(
        app,
        http=bounded(header_timeout_s=settings.header_timeout_s, max_connections=settings.max_connections),
        ws="none",
        lifespan="on",
        loop="asyncio",
        workers=1,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(settings.keep_alive_s)),
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )


class _Application:
    """The ASGI application, with the error that kept it from starting in place of a printed traceback."""

    def __init__(self, app: FastAPI) -> None:
        self.app, self.state = app, app.state
        self.failure: BoothsamError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        failed: list[Message] = []

        async def hold_failure(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                failed.append(message)
            else:
                await send(message)

        try:
            await self.app(scope, receive, hold_failure)
        except BoothsamError as error:
            if not failed:  # not at the start
                raise
            self.failure = error
            failed = [{"type": "lifespan.startup.failed", "message": error.message}]
        finally:
            for message in failed:
                await send(message)


@contextlib.contextmanager
def _told_once(application: _Application) -> Iterator[None]:
    """uvicorn's own lines about a failed start are dropped: the error is raised, and told with its hint."""

    def is_news(_: logging.LogRecord) -> bool:
        return application.failure is None

    log = logging.getLogger("uvicorn.error")
    log.addFilter(is_news)
    try:
        yield
    finally:
        log.removeFilter(is_news)


class Server(uvicorn.Server):
    """Drains on SIGTERM and ends with status 0; a second signal ends at once."""

    _watchdog: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises the signal again at the end, which would make a clean end look like a crash."""
        loop = asyncio.get_running_loop()
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop)
        except (ValueError, RuntimeError):  # not the main thread, as in tests: nobody sends signals here
            yield
            return
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def on_tick(self, counter: int) -> bool:
        if self._restart().wanted:
            self.should_exit = True
        return await super().on_tick(counter)

    def _stop(self) -> None:
        self._restart().stop()
        self.force_exit = self.should_exit
        self.should_exit = True
        self._drain()

    def _drain(self) -> None:
        """Readiness off and the queue refused, in the same turn of the loop as the signal."""
        admission = getattr(self._state(), "admission", None)
        if admission is not None:
            admission.drain()
        if self._restart().wanted:
            notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        else:
            notify("STOPPING=1")

    def _state(self) -> Any:
        return getattr(self.config.app, "state", None)

    def _restart(self) -> Restart:
        found = getattr(self._state(), "restart", None)
        return found if isinstance(found, Restart) else Restart()

    async def startup(self, sockets: Any = None) -> None:
        """Also tells systemd that the service is ready, and begins to feed its watchdog."""
        await super().startup(sockets)
        if not self.started:
            return
        for listener in sockets or ():
            _log.info("listening on %s port %d", *listener.getsockname()[:2])
            if getattr(getattr(self._state(), "settings", None), "annotate_dir", None) is not None:
                host, port = listener.getsockname()[:2]
                _log.info("annotate at http://%s:%d/annotate", f"[{host}]" if ":" in host else host, port)
        notify("READY=1")
        interval = watchdog_interval_s()
        inference = getattr(self._state(), "inference", None)
        if interval is not None and inference is not None:
            self._watchdog = asyncio.create_task(feed_watchdog(interval, inference.probe))

    async def shutdown(self, sockets: Any = None) -> None:
        """Refuse what waits, let what runs end, then stop the parts."""
        self._drain()
        if self._watchdog is not None:
            self._watchdog.cancel()
        await super().shutdown(sockets)
