"""Uploads to pixels: the header in this process, everything behind it in one warm worker that can be killed.

A decoder fed by strangers may crash, hang or ask for gigabytes. It does so in a process of its own
(`decode_child`), with limits on memory and time, replaced when it dies, when it is late, and every `recycle` photos.

Bytes and pixels travel through memory files (`memfd_create`), which have no name, vanish with their last user
whatever dies first, and are not bound by the size of /dev/shm. Both files are kept from photo to photo, because fresh
pages cost ten times what the copy into them does (36 MB: 31 ms against 3). For the same reason the frame is copied out
here once: a view of the shared pages would have to be entered into the page table anew for each photo, which takes as
long as the copy, and the worker could still write to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from boothsam.runtime.errors import BackendUnavailable
from boothsam.service.decode_child import (
    BROKEN,
    CODES,
    DONE,
    FRAME,
    KEEP_FRAME,
    MESSAGE_BYTES,
    OUT_OF_MEMORY,
    READY,
    REPLY,
    REQUEST,
    TAKEN,
)
from boothsam.service.image_header import Header, check_size, read_header
from boothsam.service.problems import ServiceProblem, problem

Uint8Array = npt.NDArray[np.uint8]
T = TypeVar("T")

_log = logging.getLogger(__name__)
# Importing NumPy, OpenCV and Pillow takes a third of a second on a PC and several on a board with a slow card.
_START_TIMEOUT_S = 30.0
# The wall-clock limit is the real one; WebP decodes on two threads, so processor time may run ahead of it.
_PROCESSOR_FACTOR = 4
_BLOCK_STEP = 4 << 20
# The largest upload file that stays allocated between photos.
_KEEP_UPLOAD = 12 << 20
# Far beyond what the barcodes of one photo can hold.
_MOST_JSON = 4 << 20


class _SharedBlock:
    """A memory file that both processes use, and its mapping here.

    It is sealed against shrinking: a worker that was taken over must not cut the file under the mapping, where reading
    on would be a SIGBUS.
    """

    def __init__(self, name: str, capacity: int) -> None:
        self.capacity = -(-max(capacity, 1) // _BLOCK_STEP) * _BLOCK_STEP
        self.descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, self.capacity)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self.mapping = mmap.mmap(self.descriptor, self.capacity)

    def close(self) -> None:
        """Free the memory; where a thread still copies, it is freed when the thread is done."""
        os.close(self.descriptor)
        with contextlib.suppress(BufferError):
            self.mapping.close()


Take = Callable[[_SharedBlock, bytes], T]  # what comes of the frame file and the worker's reply


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    channel: socket.socket
    ready: bool = False
    served: int = 0

    def alive(self) -> bool:
        return self.process.poll() is None

    def look(self) -> None:
        """Take the child's first message if it has come."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.ready = self.ready or self.channel.recv(MESSAGE_BYTES)[:1] == bytes([READY])

    def end(self) -> int:
        """Kill, reap; returns the exit status, negative for a signal."""
        self.channel.close()
        self.process.kill()
        return self.process.wait()


class DecodeWorker:
    """One warm decoding process; calls wait their turn.

    Args:
        max_pixels: largest accepted height x width. max_side: largest accepted side in pixels.
        timeout_s: wall-clock limit for one photo.
        memory_bytes: address space for one photo beyond what the idle worker has.
        recycle: photos after which the worker is replaced, without a pause.

    Attributes:
        replaced: how often a worker was replaced because it died or was late.
    """

    def __init__(
        self,
        max_pixels: int = 50_000_000,
        max_side: int = 16384,
        timeout_s: float = 10.0,
        memory_bytes: int = 1536 << 20,
        recycle: int = 500,
    ) -> None:
        self.max_pixels, self.max_side, self.timeout_s = max_pixels, max_side, timeout_s
        self.memory_bytes, self.recycle = memory_bytes, recycle
        self.replaced = 0
        self._child: _Child | None = None
        self._spare: _Child | None = None
        self._upload: _SharedBlock | None = None
        self._frame: _SharedBlock | None = None
        self._lock = asyncio.Lock()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None when none runs."""
        return self._child.process.pid if self._child is not None and self._child.alive() else None

    def start(self) -> None:
        """Start the worker; it warms up while the caller goes on.

        Raises:
            BackendUnavailable: a system without memory files, that is, not Linux.
        """
        if not hasattr(os, "memfd_create"):
            raise BackendUnavailable(
                f"the decoding worker needs memfd_create, which {sys.platform} lacks; expected Linux",
                hint="run the service on Linux, or in a Linux container",
            )
        self._closed = False
        if self._child is None:
            self._child = self._spawn()

    def close(self) -> None:
        """Kill the worker and drop what it was doing. Idempotent."""
        self._closed = True
        for job in self._jobs:
            job.cancel()
        for child in (self._child, self._spare):
            if child is not None:
                child.end()
        self._child = self._spare = None
        if not self._jobs:
            self._free()

    def _free(self) -> None:
        for block in (self._upload, self._frame):
            if block is not None:
                block.close()
        self._upload = self._frame = None

    async def decode(self, data: bytes | bytearray | memoryview) -> Uint8Array:
        """Decode one upload to (h, w, 3) uint8 sRGB, upright; writable, owned by the caller.

        Cancelling the call does not kill the worker: the photo in work is finished and dropped.

        Raises:
            ServiceProblem: unsupported_media, too_many_pixels (the header says so, or memory ran out), broken_image,
                decode_timeout; not_ready when no worker can be started.
        """
        return await self._shielded(data, FRAME, _copy)

    async def read_codes(self, data: bytes | bytearray | memoryview) -> list[dict[str, Any]]:
        """Decode one upload and read the barcodes on it: `codes.Code` as JSON; needs zxing-cpp.

        Raises:
            ServiceProblem: as `decode`, whose limits hold for both together.
        """
        return await self._shielded(data, CODES, _listed)

    async def _shielded(self, data: bytes | bytearray | memoryview, wanted: int, take: Take[T]) -> T:
        header = read_header(data)
        check_size(header, self.max_pixels, self.max_side)
        job = asyncio.get_running_loop().create_task(self._decode(data, header, wanted, take))
        self._jobs.add(job)
        job.add_done_callback(self._forget)
        try:
            return await asyncio.shield(job)
        finally:
            # The job's exception holds this call, and with it the upload; a cycle would keep both until a collection.
            del job

    def _forget(self, job: asyncio.Task[Any]) -> None:
        self._jobs.discard(job)
        if not job.cancelled():
            job.exception()  # looked at, so that a photo nobody waits for any more leaves no warning

    async def _decode(self, data: bytes | bytearray | memoryview, header: Header, wanted: int, take: Take[T]) -> T:
        async with self._lock:
            size = header.height * header.width * 3
            self._upload = upload = _at_least(self._upload, "boothsam-upload", len(data))
            self._frame = frame = _at_least(self._frame, "boothsam-frame", size)
            try:
                upload.mapping[: len(data)] = data
                limits = self.max_pixels, self.max_side, self.timeout_s * _PROCESSOR_FACTOR
                request = REQUEST.pack(len(data), size, *limits, wanted)
                reply = await self._ask(request, [upload.descriptor, frame.descriptor], header)
                return await asyncio.to_thread(take, frame, reply)
            finally:
                self._upload, self._frame = _keep(upload, _KEEP_UPLOAD), _keep(frame, KEEP_FRAME)
                if self._closed:
                    self._free()

    async def _ask(self, request: bytes, descriptors: list[int], header: Header) -> bytes:
        """The reply to a photo that is done. A worker that dies or hangs before it took the photo is replaced once."""
        for _ in range(2):
            child = await self._warm()
            with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                socket.send_fds(child.channel, [request], descriptors)
                if (await self._reply(child))[:1] == bytes([TAKEN]):
                    return await self._result(child, header)
            self._replace(child)
        raise _not_starting()

    async def _reply(self, child: _Child) -> bytes:
        """The next message; empty when the worker is gone. Raises asyncio.TimeoutError."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(loop.sock_recv(child.channel, MESSAGE_BYTES), self.timeout_s)
        return b""

    async def _result(self, child: _Child, header: Header) -> bytes:
        size = f"{header.width}x{header.height}"
        try:
            reply = await self._reply(child)
        except asyncio.TimeoutError:
            self._replace(child)
            raise problem(
                "decode_timeout",
                f"decoding this {size} {header.format} was stopped after {self.timeout_s:g} s",
                "send a smaller photo, or raise decode_timeout_s",
            ) from None
        if len(reply) < REPLY.size:
            status = self._replace(child)
            died = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise problem("broken_image", f"the decoder died over this photo ({died})", "take or copy the photo again")
        child.served += 1
        kind, height, width = REPLY.unpack_from(reply)
        if kind == DONE and sorted((height, width)) == sorted((header.height, header.width)):
            return reply
        if kind == BROKEN:
            detail = reply[REPLY.size :].decode(errors="replace")
            raise problem("broken_image", detail, "take or copy the photo again")
        if kind == OUT_OF_MEMORY:
            raise problem(
                "too_many_pixels",
                f"decoding {size} pixels needs more than {self.memory_bytes >> 20} MiB",
                "send a smaller photo, or raise decode_memory_bytes",
            )
        self._replace(child)
        raise _senseless()

    async def _warm(self) -> _Child:
        """A worker that has started and lives."""
        loop = asyncio.get_running_loop()
        self._swap()
        for _ in range(2):
            if self._closed:
                raise problem("draining", "the service is shutting down", "send the photo again in a moment")
            child = self._child
            if child is None:
                child = self._child = self._spawn()
            if not child.ready:
                with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
                    reply = await asyncio.wait_for(loop.sock_recv(child.channel, MESSAGE_BYTES), _START_TIMEOUT_S)
                    child.ready = reply[:1] == bytes([READY])
            if child.ready and child.alive():
                return child
            self._replace(child)
        raise _not_starting()

    def _swap(self) -> None:
        """After `recycle` photos a spare is started beside the old worker, and takes over once it is warm."""
        child, spare = self._child, self._spare
        if spare is not None:
            spare.look()
            if spare.ready:
                if child is not None:
                    child.end()
                self._child, self._spare = spare, None
            elif not spare.alive():
                spare.end()
                self._spare = None
        elif child is not None and child.served >= self.recycle:
            self._spare = self._spawn()

    def _replace(self, child: _Child) -> int:
        """End a worker and start the next one at once; the exit status of the old."""
        status = child.end()
        self.replaced += 1
        _log.warning("decoding worker %d ended (status %d) and is replaced", child.process.pid, status)
        if self._child is child:
            self._child = None if self._closed else self._spawn()
        return status

    def _spawn(self) -> _Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        # No settings, and so no token, reach the worker; maths libraries start no threads and reserve no memory for
        # them; and the current folder is not searched for modules.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BOOTHSAM_")}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "boothsam.service.decode_child", str(theirs.fileno()), str(self.memory_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Child(process, ours)


def _senseless() -> ServiceProblem:
    return problem("broken_image", "the decoder gave an answer that makes no sense", "take the photo again")


def _not_starting() -> ServiceProblem:
    return problem("not_ready", "the decoding worker does not start; the log says why", "boothsam doctor")


def _at_least(block: _SharedBlock | None, name: str, size: int) -> _SharedBlock:
    if block is not None and block.capacity >= size:
        return block
    if block is not None:
        block.close()
    return _SharedBlock(name, size)


def _keep(block: _SharedBlock, most: int) -> _SharedBlock | None:
    if block.capacity <= most:
        return block
    block.close()
    return None


def _copy(block: _SharedBlock, reply: bytes) -> Uint8Array:
    _, height, width = REPLY.unpack_from(reply)
    shared = np.frombuffer(block.mapping, np.uint8, height * width * 3)
    return shared.reshape(height, width, 3).copy()


def _listed(block: _SharedBlock, reply: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(block.mapping[: min(int(reply[REPLY.size :]), _MOST_JSON)])
    except (ValueError, RecursionError):
        raise _senseless() from None
    return list(found)
