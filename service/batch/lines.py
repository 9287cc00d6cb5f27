"""An append-only file of JSON lines that survives being killed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from boothsam.service.captures.files import sync_folder

_log = logging.getLogger(__name__)


class LineFile:
    """One writer appends; what was appended is on the disk when `append` returns.

    A last line that lacks its end, because the writer was killed, is cut off when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if new:
            sync_folder(path.parent)
        self._end = self._whole_end()
        os.ftruncate(self._descriptor, self._end)

    def _whole_end(self) -> int:
        end = os.fstat(self._descriptor).st_size
        while end:
            start = max(0, end - 65536)
            found = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Every record; a line that is none is told and passed over."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line)
                except ValueError:
                    record = None
                if isinstance(record, dict):
                    yield record
                else:
                    _log.warning("%s, line %d is damaged and was passed over", self.path, number)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add one line for each record, all or none. Raises OSError."""
        if not records:
            return
        data = b"".join(json.dumps(record, allow_nan=False).encode() + b"\n" for record in records)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self._end + written)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(data)

    def close(self) -> None:
        os.close(self._descriptor)
