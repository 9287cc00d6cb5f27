"""A store at work: opened, its outbox and its retention running, all ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from boothsam.service.captures.outbox import Outbox
from boothsam.service.captures.retention import Retention
from boothsam.service.captures.store import MIN_FREE, CaptureStore
from boothsam.service.captures.targets import make_target, target_name

_log = logging.getLogger("boothsam")


@asynccontextmanager
async def running(
    folder: Path,
    *,
    min_free_bytes: int = MIN_FREE,
    retention_days: int = 0,
    forward_url: str = "",
    forward_dir: str = "",
    forward_token: str = "",
    forward_timeout_s: float = 30.0,
) -> AsyncIterator[CaptureStore]:
    """The store of a running service; parameters as in `service.settings`.

    On the way out an attempt to forward that is under way is broken off, and what was handed over is written.

    Raises:
        StoreUnusable, DiskLow: the folder. OptionError: the target.
    """
    target = make_target(forward_url, forward_dir, token=forward_token, timeout_s=forward_timeout_s) if (
        forward_url or forward_dir
    ) else None  # fmt: skip
    name = target_name(forward_url, forward_dir)
    store = await asyncio.to_thread(CaptureStore.open, folder, target=name, min_free_bytes=min_free_bytes)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, store.close)
        if target is not None:
            _keep_running(stack, asyncio.create_task(Outbox(store, target).run(), name="outbox"))
        if retention_days:
            _keep_running(stack, asyncio.create_task(Retention(store, retention_days).run(), name="retention"))
        yield store


def _keep_running(stack: AsyncExitStack, task: asyncio.Task[None]) -> None:
    def report(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and ended.exception() is not None:
            _log.error("%s stopped: a bug", ended.get_name(), exc_info=ended.exception())

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    task.add_done_callback(report)
    stack.push_async_callback(end)
