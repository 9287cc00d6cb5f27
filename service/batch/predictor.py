"""One photo in three steps (decode, ask, write), the same on the threads of one machine and as a Ray actor."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from boothsam.runtime.errors import BoothsamError, ImageError, OutputError
from boothsam.runtime.images import probe
from boothsam.runtime.model import SamModel
from boothsam.service.batch.outfolder import OutFolder
from boothsam.service.batch.work import Work
from boothsam.service.console import explain
from boothsam.service.cropping import Photo, ask_model, describe, read_photo, write_products
from boothsam.service.problems import from_error
from boothsam.service.prompts import Answer

MAX_BYTES = 1 << 29  # of a photo's file: more than the largest accepted picture takes as an uncompressed PNG
SKIPPED = "skipped"
# A disk that is full or went away is not the photo's fault, and the next photo would fail as well.
_STOPPING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV)

Record = dict[str, Any]


class CannotGoOn(Exception):
    """The output folder takes nothing more: the batch has to stop, and no photo is to blame."""


class _File(io.BytesIO):
    """A file's bytes with its path, for messages."""

    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(data)
        self.name = str(path)


@dataclass(frozen=True)
class ModelChoice:
    """What `SamModel.load` is called with."""

    model: str | None = None
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    resize: str = "exact"

    def load(self) -> SamModel:
        """The model. Raises ModelError, BackendUnavailable, OptionError."""
        return SamModel.load(
            self.model, backend=self.backend, precision=self.precision, threads=self.threads, resize=self.resize
        )


@dataclass
class Ticket:
    """A photo between two steps. facts: what its journal line begins with."""

    work: Work
    facts: Record
    data: bytes = b""
    pixels: int = 0
    photo: Photo | None = None
    answers: tuple[Answer, ...] = ()
    record: Record | None = None

    def end(self, record: Record) -> Ticket:
        """The same photo with nothing more to do, and nothing held."""
        self.record, self.data, self.photo, self.answers = record, b"", None, ()
        return self


class Predictor:
    """Loads the model once and takes photos; its methods may be called from several threads.

    `read`, `decode`, `ask` and `write` follow each other; each returns a ticket, which is finished when it has a
    record. None raises for what is wrong with one photo; `write` raises CannotGoOn.
    """

    def __init__(self, choice: ModelChoice, out: Path) -> None:
        self.model = choice.load()
        self._out = OutFolder(out)
        self._key = f"{self.model.manifest.key} {self.model.precision}"
        if self.model.resize != "exact":
            self._key += f" {self.model.resize} resize"

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Ray Data's form: `work` (pickled Work) to `record` (JSON)."""
        records = [json.dumps(self.run(pickle.loads(work))) for work in batch["work"]]
        return {"record": np.array(records, object)}

    def run(self, work: Work) -> Record:
        """All steps of one photo."""
        ticket = self.read(work)
        for step in (self.decode, self.ask, self.write):
            if ticket.record is None:
                ticket = step(ticket)
        return ticket.record or {}

    def read(self, work: Work) -> Ticket:
        """Read the file and its header. Finished when the journal says that there is nothing to do."""
        item = work.item
        settings = item.settings_key(self._key)
        ticket = Ticket(work, {"photo": str(item.photo), "id": item.id, "settings": settings})
        try:
            stat = item.photo.stat()
            ticket.facts |= {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            known = work.known
            times = known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
            if known and work.policy.trust_times and times and work.unchanged(known.sha256, settings, self._out.folder):
                return ticket.end(self._skipped(ticket))
            if stat.st_size > MAX_BYTES:
                raise ImageError(
                    f"{item.photo} has {stat.st_size / 1e6:.0f} MB, expected a photo of at most {MAX_BYTES / 1e6:.0f}",
                    hint="scale the photo down",
                )
            ticket.data = item.photo.read_bytes()
            sha256 = ticket.facts["sha256"] = hashlib.sha256(ticket.data).hexdigest()
            if work.unchanged(sha256, settings, self._out.folder):
                return ticket.end(self._skipped(ticket))
            if work.error is not None:
                raise work.error
            height, width = probe(_File(ticket.data, item.photo)).size_hw
            ticket.pixels = height * width
        except Exception as error:
            if ticket.facts.setdefault("sha256", "") == "" and work.unchanged("", settings, self._out.folder):
                return ticket.end(self._skipped(ticket))  # as unreadable as it was
            return self._failed(ticket, error)
        return ticket

    def decode(self, ticket: Ticket) -> Ticket:
        """Decode the photo and lay it on the model's frame."""
        try:
            file = _File(ticket.data, ticket.work.item.photo)
            ticket.data = b""
            ticket.photo = read_photo(file, self.model)
        except Exception as error:
            return self._failed(ticket, error)
        return ticket

    def ask(self, ticket: Ticket) -> Ticket:
        """Run the networks."""
        assert ticket.photo is not None
        item = ticket.work.item
        try:
            ticket.answers = tuple(ask_model(self.model, ticket.photo, item.request, item.photo, only=True))
        except Exception as error:
            return self._failed(ticket, error)
        return ticket

    def write(self, ticket: Ticket) -> Ticket:
        """Cut the products out and write their pictures; they are on the disk when this returns."""
        assert ticket.photo is not None
        try:
            products = self._products(ticket, ticket.photo)
        except Exception as error:
            return self._failed(ticket, error)
        known = describe(self.model, ticket.work.item.photo, ticket.photo, ticket.answers, products)
        auto = [product.get("auto", {}) for product in products]
        known["ambiguous"] = any(found.get("ambiguous", False) for found in auto)
        return ticket.end(ticket.facts | {"status": "done", "finished": _now()} | known)

    def _products(self, ticket: Ticket, photo: Photo) -> list[Record]:
        """Write the pictures; a record for each, its `output` relative to the output folder."""
        names = ticket.work.outputs
        paths = [self._out.folder / name for name in names]
        products = write_products(photo, ticket.answers, paths, ticket.work.item.look, self._write)
        for product, name in zip(products, names, strict=True):
            product["output"] = name
        return products

    def _write(self, target: Path, data: bytes) -> None:
        try:
            self._out.write(target, data)
        except OSError as error:
            if error.errno in _STOPPING:
                raise CannotGoOn(f"cannot write {target}: {explain(error)[0]}") from error
            raise OutputError(
                f"cannot write {target}: {(error.strerror or str(error)).lower()}",
                hint="look at the folder and its names",
            ) from error

    @staticmethod
    def _skipped(ticket: Ticket) -> Record:
        known = ticket.work.known
        assert known is not None
        return ticket.facts | {"status": SKIPPED, "done": known.done}

    @staticmethod
    def _failed(ticket: Ticket, error: Exception) -> Ticket:
        if isinstance(error, CannotGoOn):
            raise error
        message, hint = explain(error)
        facts = {"status": "failed", "finished": _now()}
        return ticket.end(ticket.facts | facts | {"error": {"code": code_of(error), "message": message, "hint": hint}})


def code_of(error: Exception) -> str:
    """The HTTP service's stable code where it has one for this error, else what kind of trouble it is."""
    if isinstance(error, FileNotFoundError):
        return "not_found"
    if isinstance(error, OSError):
        return "unreadable"
    if isinstance(error, OutputError):
        return "storage_failed"
    code = from_error(error).code
    return "model_failed" if code == "internal" and isinstance(error, BoothsamError) else code


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
