"""The service's plate: the empty booth, kept in memory and, over restarts, in one file of the state folder.

plate.bin is a line of JSON (format, time, sha256 of what follows) and the plate's own bytes. It is written under
another name, synced and renamed, so that it is whole or not there; a file that is neither is reported with every
question about the plate, and stops nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from boothsam.runtime.errors import ImageError
from boothsam.runtime.images import encode_image
from boothsam.runtime.plate import Plate
from boothsam.service.captures.files import FULL, make_folder, sync_folder
from boothsam.service.problems import ServiceProblem, problem

log = logging.getLogger("boothsam.service")
FILE = "plate.bin"
_FORMAT = 1
_MAX_BYTES = 64 << 20  # far more than any plate takes; a larger file is none


@dataclass(frozen=True, eq=False)
class TakenPlate:
    """A plate and when it was taken, UTC."""

    plate: Plate
    taken_at: datetime

    @property
    def facts(self) -> dict[str, Any]:
        """As `schemas.PlateState`."""
        return {"taken_at": self.taken_at.isoformat(timespec="seconds"), "size_hw": list(self.plate.size_hw)}

    @cached_property
    def picture(self) -> bytes:
        """The plate as JPEG, its longest side 1024 pixels."""
        return encode_image(self.plate.frame, "jpg", quality=90)

    def to_bytes(self) -> bytes:
        """The file."""
        body = self.plate.to_bytes()
        head = {"boothsam_plate": _FORMAT, "taken_at": self.taken_at.isoformat(), "sha256": _sha256(body)}
        return json.dumps(head).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, data: bytes) -> TakenPlate:
        """From `to_bytes`. Raises ImageError."""
        head, _, body = data.partition(b"\n")
        try:
            facts = json.loads(head)
            if facts["boothsam_plate"] != _FORMAT or facts["sha256"] != _sha256(body):
                raise ValueError("its checksum or its format differs")
            taken_at = datetime.fromisoformat(facts["taken_at"]).astimezone(timezone.utc)
        except (ValueError, KeyError, TypeError) as error:
            raise ImageError(f"the stored plate is damaged: {error}", hint="take the plate again") from None
        return cls(Plate.from_bytes(body), taken_at)


class PlateStore:
    """Safe to use from any thread; `put` and `remove` block while the disk works.

    folder: None keeps the plate in memory only.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._taken: TakenPlate | None = None
        self._damage = ""
        if folder is not None:
            self._read(folder / FILE)

    @property
    def current(self) -> TakenPlate | None:
        """The plate, None when there is none that can be used."""
        return self._taken

    def need(self) -> TakenPlate:
        """The plate. Raises `no_plate`, `plate_damaged`."""
        taken = self._taken
        if taken is None:
            raise self._missing()
        return taken

    def put(self, plate: Plate) -> TakenPlate:
        """Keep a plate in place of the last one; it is on the disk when this returns. Raises `plate_not_stored`."""
        taken = TakenPlate(plate, datetime.now(timezone.utc))
        with self._lock:
            if self._folder is not None:
                try:
                    _write(self._folder, taken.to_bytes())
                except OSError as error:
                    raise _not_stored(self._folder, error) from error
            self._taken, self._damage = taken, ""
        return taken

    def remove(self) -> None:
        """Forget the plate, a damaged file too. Raises `no_plate`, `plate_not_stored`."""
        with self._lock:
            if self._taken is None and not self._damage:
                raise self._missing()
            if self._folder is not None:
                try:
                    (self._folder / FILE).unlink(missing_ok=True)
                    sync_folder(self._folder)
                except OSError as error:
                    raise _not_stored(self._folder, error) from error
            self._taken, self._damage = None, ""

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise ImageError(f"the stored plate has more than {_MAX_BYTES} bytes")
            self._taken = TakenPlate.from_bytes(data)
        except FileNotFoundError:
            return
        except (OSError, ImageError) as error:
            self._damage = error.message if isinstance(error, ImageError) else f"it cannot be read: {error.strerror}"
            log.warning("no plate: %s: %s; take the plate again", path, self._damage)

    def _missing(self) -> ServiceProblem:
        if self._damage:
            return problem("plate_damaged", self._damage, "PUT /plate with a photo of the empty booth")
        return problem("no_plate", "no plate was taken", "PUT /plate with a photo of the empty booth")


def _write(folder: Path, data: bytes) -> None:
    """Write the file, whole and durable on return; the last plate's stays until then. Raises OSError."""
    make_folder(folder)
    partial = folder / f"{FILE}.part"  # always the same name: what a power cut left is written over
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / FILE)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def _not_stored(folder: Path, error: OSError) -> ServiceProblem:
    log.error("the plate cannot be written to %s: %s", folder, error)
    if error.errno in FULL:
        return problem("plate_not_stored", "the disk is full", "free some space on the service's machine")
    reason = (error.strerror or errno.errorcode.get(error.errno or 0, "")).lower()
    return problem("plate_not_stored", f"the state folder cannot be written: {reason}", "set BOOTHSAM_STATE_DIR")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
