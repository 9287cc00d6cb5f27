"""OUT/batch.jsonl: one durable line for each photo that was done or failed.

The last line of a photo counts. A line has `photo` and `id`, `sha256`, `size` and `mtime_ns` of its file, `settings`
(a hash of prompts, look, weights and precision), `status` (done or failed), `finished`, and
for done: `products` with their `output` (relative to OUT), scores and boxes; `ambiguous`, `warnings`, `ms`, `model`,
`backend`, `precision`; for failed: `error` with `code`, `message` and `hint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boothsam.service.batch.lines import LineFile
from boothsam.service.batch.work import Known


class Journal:
    """The journal's file, and the last line of each photo. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)
        self.known: dict[str, Known] = {}
        for record in self._file.read():
            self._take(record)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Write lines; they are on the disk afterwards. Raises OSError, and then none of them counts."""
        self._file.append(records)
        for record in records:
            self._take(record)

    def close(self) -> None:
        self._file.close()

    def _take(self, record: dict[str, Any]) -> None:
        name = record.get("id")
        if not isinstance(name, str):
            return
        error = record.get("error") or {}
        self.known[name] = Known(
            str(record.get("sha256", "")),
            str(record.get("settings", "")),
            record.get("status") == "done",
            tuple(product["output"] for product in record.get("products", ())),
            int(record.get("size", -1)),
            int(record.get("mtime_ns", -1)),
            str(error.get("code", "")),
            str(error.get("message", "")),
        )
