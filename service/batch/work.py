"""What one photo is asked for, and whether that was done before."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from boothsam.runtime.errors import BoothsamError
from boothsam.service.cropping import Look
from boothsam.service.detections import Detections
from boothsam.service.prompts import Request


@dataclass(frozen=True)
class Item:
    """One photo of the batch with its prompts and its look.

    id: what the journal knows it by: its absolute path, with `#name` behind it where a table names its products.
    name: its pictures' place in the output folder, without their ending.
    error: why it cannot be done, such as a table's malformed row; found again for the journal when its turn comes.
    """

    id: str
    photo: Path
    name: PurePosixPath
    request: Request
    look: Look
    error: BoothsamError | None = None

    @classmethod
    def make(cls, id: str, photo: Path, name: PurePosixPath, request: Request, look: Look, *, only: bool) -> Item:
        """With the photo's own detections in place of the whole file's, so that an item is small and stands alone."""
        error = None
        if request.detections is not None:
            try:
                found = request.detections.of(photo, only=only)
                request = replace(request, detections=Detections(request.detections.source, found))
            except BoothsamError as reason:
                error, request = reason, Request(auto=True)
        return cls(id, photo, name, request, look, error)

    @property
    def products(self) -> int:
        """Number of pictures it will give."""
        return 1 if self.error is not None else self.request.count(self.photo, only=True)

    def settings_key(self, model_key: str) -> str:
        """Hash of everything but the photo that its pictures depend on: prompts, look, weights and precision."""
        request = self.request
        found = [] if request.detections is None else request.detections.of(self.photo, only=True)
        boxes = [(record.box, record.relative) for record in found]
        asked = [request.boxes, request.points, boxes, request.auto, asdict(self.look), model_key]
        if request.plate is not None:
            asked.append(request.plate.key)
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Known:
    """What the journal says about a photo: its last line.

    outputs: paths relative to the output folder. size, mtime_ns: of the photo's file. code, message: of the error.
    """

    sha256: str
    settings: str
    done: bool
    outputs: tuple[str, ...] = ()
    size: int = -1
    mtime_ns: int = -1
    code: str = ""
    message: str = ""


@dataclass(frozen=True)
class Policy:
    """What to do with photos that the journal knows.

    redo: do all of them again. retry_failed: try those that failed again. trust_times: a file of the same size and
    modification time is the same photo, and is not read again.
    """

    redo: bool = False
    retry_failed: bool = False
    trust_times: bool = False


@dataclass(frozen=True)
class Work:
    """An item with the files that its pictures go to, relative to the output folder, and its past."""

    item: Item
    outputs: tuple[str, ...]
    known: Known | None = None
    policy: Policy = Policy()
    error: BoothsamError | None = None

    def unchanged(self, sha256: str, settings: str, out: Path) -> bool:
        """Whether this photo with these settings needs nothing more."""
        known = self.known
        if known is None or self.policy.redo or (known.sha256, known.settings) != (sha256, settings):
            return False
        if not known.done:
            return not self.policy.retry_failed
        return all((out / name).is_file() for name in known.outputs)
