"""How an engine gets into the store: one builder at a time, whole or not at all, and only when it was verified."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boothsam.runtime import engine_files
from boothsam.runtime.engine_files import EngineFile, check_folder, pack
from boothsam.runtime.errors import EngineError, OutputError

LOCK, PART = ".lock", ".part"


def open_folder() -> Path:
    """The folder of engines, made for this user alone if it is not there.

    Raises:
        OutputError: it cannot be made. EngineError: other users may write to it.
    """
    place = engine_files.folder()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{place} cannot be made ({error})", hint="set BOOTHSAM_HOME to a folder that you may write to"
        ) from None
    check_folder(place)
    return place


@contextmanager
def build_lock(name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the lock of one engine's file name; gives its file descriptor, for the children that build.

    The kernel frees it when the last process that holds the descriptor ends, however it ends. Its file stays: who
    removed it would let two builders lock two files of one name. Parts that a dead builder left go away.

    waiting: called once when another builder is at it, before waiting for it.
    """
    place = open_folder()
    descriptor = os.open(place / f"{name}{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        for part in place.glob(f".{name}.*{PART}"):
            part.unlink(missing_ok=True)
        yield descriptor
    finally:
        os.close(descriptor)


def publish(name: str, header: Mapping[str, Any], engine: bytes) -> EngineFile:
    """Write an engine under its final name in one rename; an earlier one of that name is replaced.

    name: `engine_files.file_name`. Call it under the `build_lock` of that name. header: has "verified", what the engine
    answered on this device; "passed" in it must be true.

    Raises:
        EngineError: not verified. OutputError: the disk is full, or not ours to write.
    """
    if not isinstance(header.get("verified"), Mapping) or header["verified"].get("passed") is not True:
        raise EngineError(
            f"the engine {name} was not verified on this device; expected golden answers that passed",
            hint="boothsam build MODEL",
        )
    place = open_folder()
    part = place / f".{name}.{uuid.uuid4().hex}{PART}"
    try:
        with part.open("xb") as file:
            file.write(pack(header, engine))
            file.flush()
            os.fsync(file.fileno())
        part.replace(place / name)
        folder = os.open(place, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename too must outlast a power cut
        finally:
            os.close(folder)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{place / name} cannot be written ({error})", hint="free some space on the disk") from None
    return engine_files.read_header(place / name)
