"""The decoding worker's own process: `python -m boothsam.service.decode_child FD MEMORY_BYTES`, started by `decoding`.

It holds no model, no token and no socket but the one to its parent. Per photo it receives two memory files: one
with the upload's bytes, and one to write the frame of height x width x 3 bytes to. The parent enforces the wall-clock
limit by killing it; it limits its own address space and processor time.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from boothsam.runtime.errors import ImageError
from boothsam.runtime.images import encode_image, load_image

# upload bytes, frame bytes, max_pixels, max_side, seconds of processor time, what is wanted: the frame, or the barcodes
# on it
REQUEST = struct.Struct("<QQQQdB")
FRAME, CODES = range(2)
# kind, height, width; a message in UTF-8 follows, or, of barcodes, how many bytes of JSON the frame file holds.
# TAKEN comes before the work: a worker that is gone before it has not died of the photo.
REPLY = struct.Struct("<BII")
READY, TAKEN, DONE, BROKEN, OUT_OF_MEMORY = range(5)
MESSAGE_BYTES = 4096
# The largest frame file that stays allocated between photos: 24 million pixels.
KEEP_FRAME = 72 << 20


class _Frames:
    """The mapping of the parent's frame file, kept while it stays the same file.

    A mapping made anew for each photo is entered into the page table anew, which costs more than the copy (36 MB: 7 ms
    against 3).
    """

    def __init__(self) -> None:
        self._inode = -1
        self._pixels = np.empty(0, np.uint8)

    def of(self, descriptor: int, size: int) -> npt.NDArray[np.uint8]:
        """The first `size` bytes of the file. Raises MemoryError where the mapping exceeds the limit."""
        found = os.fstat(descriptor)
        if found.st_ino != self._inode:
            self._pixels, self._inode = np.empty(0, np.uint8), -1
            try:
                self._pixels = np.frombuffer(mmap.mmap(descriptor, found.st_size), np.uint8)
            except OSError as error:
                raise MemoryError(str(error)) from error
            self._inode = found.st_ino
        return self._pixels[:size]

    def keep(self, most: int) -> None:
        """Let go of a file of more than `most` bytes, or its pages would stay allocated."""
        if self._pixels.size > most:
            self._pixels, self._inode = np.empty(0, np.uint8), -1


def main() -> None:
    """Serve one parent until it closes the socket."""
    # systemd and a terminal signal the whole group; the parent drains first and then closes the socket.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    _warm_up()
    _limit_memory(int(sys.argv[2]))
    # A parent that ends with a message of ours unread resets the socket instead of closing it: the same good end.
    with contextlib.suppress(ConnectionError):
        _serve(channel)


def _serve(channel: socket.socket) -> None:
    channel.send(REPLY.pack(READY, 0, 0))
    frames = _Frames()
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, REQUEST.size, 2)
        if not message:
            return
        channel.send(REPLY.pack(TAKEN, 0, 0))
        try:
            reply = _answer(frames, descriptors, *REQUEST.unpack(message))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        frames.keep(KEEP_FRAME)
        channel.send(reply[:MESSAGE_BYTES])


def _warm_up() -> None:
    """Decode one picture of each kind, so that no photo pays for loading a decoder."""
    for kind in ("jpg", "png", "webp"):
        load_image(encode_image(np.zeros((8, 8, 3), np.uint8), kind))


def _limit_memory(beyond: int) -> None:
    """Bound the address space to what the idle process has and `beyond` bytes more; no core file with a photo in it."""
    idle = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (idle + beyond, idle + beyond))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_processor(seconds: float) -> None:
    """A decoder that spins after its parent was killed must not spin forever."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _answer(
    frames: _Frames,
    descriptors: list[int],
    upload_bytes: int,
    frame_bytes: int,
    max_pixels: int,
    max_side: int,
    seconds: float,
    wanted: int,
) -> bytes:
    _limit_processor(seconds)
    upload, frame = descriptors
    try:
        target = frames.of(frame, frame_bytes)
        pixels = load_image(os.pread(upload, upload_bytes, 0), max_pixels=max_pixels, max_side=max_side)
    except ImageError as error:
        return REPLY.pack(BROKEN, 0, 0) + error.message.encode()
    except MemoryError:
        return REPLY.pack(OUT_OF_MEMORY, 0, 0)
    if pixels.nbytes != frame_bytes:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        return REPLY.pack(BROKEN, 0, 0) + f"the image decodes to {size}, its header says otherwise".encode()
    if wanted == CODES:
        return _read_codes(frames, frame, pixels)
    np.copyto(target, pixels.reshape(-1))
    return REPLY.pack(DONE, *pixels.shape[:2])


def _read_codes(frames: _Frames, frame: int, pixels: npt.NDArray[np.uint8]) -> bytes:
    from boothsam.service.codes import read_codes

    try:
        found = json.dumps([code.to_dict() for code in read_codes(pixels)]).encode()
        np.copyto(frames.of(frame, len(found)), np.frombuffer(found, np.uint8))
    except MemoryError:
        return REPLY.pack(OUT_OF_MEMORY, 0, 0)
    return REPLY.pack(DONE, *pixels.shape[:2]) + str(len(found)).encode()


if __name__ == "__main__":
    main()
