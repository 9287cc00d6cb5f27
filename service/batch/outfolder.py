"""The output folder of a batch: its hidden corner, and the lock that keeps a second batch out."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from boothsam.runtime.errors import OutputError
from boothsam.service.captures.files import make_folder, publish
from boothsam.service.console import explain

JOURNAL, FAILURES, CORNER = "batch.jsonl", "failures.csv", ".batch"


def absolute(path: str | Path) -> Path:
    """Without resolving links, so that a photo is called what its user calls it."""
    return Path(os.path.normpath(Path(path).absolute()))


class OutFolder:
    """OUT/batch.jsonl, OUT/failures.csv and OUT/.batch/ with names.jsonl, lock and incoming/ (files being written)."""

    def __init__(self, folder: Path) -> None:
        self.folder = absolute(folder)
        self.journal = self.folder / JOURNAL
        self.failures = self.folder / FAILURES
        self.corner = self.folder / CORNER
        self.names = self.corner / "names.jsonl"
        self.incoming = self.corner / "incoming"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and keep every other batch out of it; also removes what a killed batch left half written.

        The system drops the lock with the process that held it, so a lock file without an owner stops nobody.

        Raises:
            OutputError: another batch writes there, or the folder cannot be written.
        """
        try:
            make_folder(self.incoming)
            descriptor = os.open(self.corner / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self.refused(error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._busy(descriptor) from None
            except OSError as error:
                raise OutputError(
                    f"{self.folder} lies on a file system without locks: {explain(error)[0]}",
                    hint="write to a local disk and copy from there",
                ) from error
            owner = {"pid": os.getpid(), "host": socket.gethostname()}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
            for partial in self.incoming.iterdir():
                partial.unlink()
            yield
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def _busy(self, descriptor: int) -> OutputError:
        owner: dict[str, Any] = {}
        with suppress(ValueError):
            owner = json.loads(os.pread(descriptor, 4096, 0))
        who = f"process {owner['pid']} on {owner['host']}" if {"pid", "host"} <= set(owner) else "another process"
        return OutputError(
            f"another batch ({who}) writes to {self.folder}", hint="wait for it or stop it, or choose another -o"
        )

    def refused(self, error: OSError) -> OutputError:
        """The error for a folder that cannot be used at all."""
        return OutputError(
            f"cannot write to {self.folder}: {(error.strerror or str(error)).lower()}", hint="choose another -o"
        )

    def write(self, target: Path, data: bytes) -> None:
        """A whole and durable file or none. Raises OSError."""
        publish(data, target, self.incoming)
