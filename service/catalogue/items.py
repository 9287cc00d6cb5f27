"""Photos to work: items with their final names, and which files of the output folder are the catalogue's own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path, PurePosixPath

from boothsam.runtime.errors import BoothsamError, OutputError
from boothsam.service.batch.lines import LineFile
from boothsam.service.batch.outfolder import OutFolder
from boothsam.service.batch.sources import Defaults, find_items
from boothsam.service.batch.work import Item, Known, Policy, Work
from boothsam.service.catalogue.identify import Named, Pattern, Shown, name_all, show
from boothsam.service.catalogue.table import Matched, Row, match
from boothsam.service.outputs import FORMATS
from boothsam.service.presets.naming import Identity, Template

READY, NEEDS_WORK, THUMBS = "ready", "needs-work", "thumbs"


class CatalogueFolder(OutFolder):
    """OUT with ready/, needs-work/, thumbs/, the report, and the journal in the hidden OUT/.catalogue."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.corner = self.folder / ".catalogue"
        self.journal = self.corner / "journal.jsonl"
        self.names = self.corner / "names.jsonl"
        self.incoming = self.corner / "incoming"
        self.written = self.corner / "written.jsonl"

    def note(self, names: Sequence[str]) -> None:
        """Write down, before they are written, which files are about to be the catalogue's own. Raises OSError."""
        line = json.dumps({"outputs": list(names)}).encode() + b"\n"
        descriptor = os.open(self.written, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, line)  # one call: threads do not mix their lines
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def noted(self) -> set[str]:
        """Every file that was ever written. Raises OSError."""
        file = LineFile(self.written)  # cuts off a half written line
        try:
            return {name for record in file.read() for name in record["outputs"]}
        finally:
            file.close()


@dataclass(frozen=True)
class CatalogueItem(Item):
    """A photo with the files that its pictures will be.

    place: the photo's path in its folder. product: what it shows. names: of its pictures, with their ending.
    accept_retakes: pictures of photos that should be taken again are ready all the same.
    """

    place: PurePosixPath = field(default_factory=PurePosixPath)
    product: Shown = field(default_factory=Shown)
    identities: tuple[Identity, ...] = ()
    names: tuple[str, ...] = ()
    accept_retakes: bool = False

    @property
    def thumbs(self) -> list[str]:
        """Small pictures for the report, relative to OUT: of the photo, then of each finished picture."""
        key = hashlib.sha256(self.id.encode(errors="surrogateescape")).hexdigest()[:20]
        return [f"{THUMBS}/{key}-{index}.webp" for index in range(len(self.names) + 1)]

    @property
    def files(self) -> list[str]:
        """Every file that it may be given, relative to OUT."""
        return [f"{place}/{name}" for name in self.names for place in (READY, NEEDS_WORK)] + self.thumbs

    def settings_key(self, model_key: str) -> str:
        """As `Item.settings_key`, with the names, and which rules hold today."""
        preset = self.look.preset
        assert preset is not None
        levels = [rule.level_on(date.today()) for rule in preset.rules]
        own = [super().settings_key(model_key), self.names, levels, self.accept_retakes]
        return hashlib.sha256(repr(own).encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Naming:
    """How pictures are named: the template, and where the products' numbers come from."""

    template: Template
    pattern: Pattern | None = None
    rows: tuple[Row, ...] = ()


def find_photos(
    folder: Path, out: Path, defaults: Defaults, naming: Naming, *, accept_retakes: bool = False
) -> tuple[list[CatalogueItem], Matched]:
    """Every photo of a folder with the names of its pictures, and which row of the table is about which photo.

    Raises:
        OptionError: no photo, or a table that does not fit the folder.
    """
    items = find_items([str(folder)], out, defaults)
    root = Path(os.path.normpath(folder.absolute()))
    places = [PurePosixPath(item.photo.relative_to(root)) for item in items]
    matched = match(naming.rows, places)
    preset = defaults.look.preset
    named = name_all(
        [(place, _shown(place, matched, naming), item.products) for place, item in zip(places, items, strict=True)],
        naming.template,
        preset.name if preset is not None else "",
    )
    ending = FORMATS[defaults.look.format]
    found = [_item(i, p, n, ending, accept_retakes) for i, p, n in zip(items, places, named, strict=True)]
    return found, matched


def _shown(place: PurePosixPath, matched: Matched, naming: Naming) -> Shown | BoothsamError:
    try:
        return show(place, matched.rows.get(place), naming.pattern, naming.template)
    except BoothsamError as error:
        return error


def _item(item: Item, place: PurePosixPath, named: Named, ending: str, accept: bool) -> CatalogueItem:
    values = {f.name: getattr(item, f.name) for f in fields(Item)}
    values["error"] = item.error or named.error
    names = tuple(name + ending for name in named.names)
    return CatalogueItem(
        **values,
        place=place,
        product=named.shown,
        identities=named.identities,
        names=names,
        accept_retakes=accept,
    )


class Places:
    """Which files of OUT were ever written by this catalogue, and for which photo the names are.

    Files of others are never replaced, and own ones that are not wanted any more go. A photo has a name in ready/ and
    in needs-work/, of which one is written: what somebody else puts in the other place is his. A name is written down
    before its file, so that a file that exists is known for what it is after any interruption.
    """

    def __init__(self, out: OutFolder, known: Mapping[str, Known]) -> None:
        assert isinstance(out, CatalogueFolder)
        self._out = out
        self._file = LineFile(out.names)
        self._owner: dict[str, str] = {}
        for record in self._file.read():
            self._owner.update(dict.fromkeys(record["outputs"], record["id"]))
        self._before = {name for record in known.values() for name in record.outputs}
        self._own = self._written()

    def _written(self) -> set[str]:
        """Files that are the catalogue's own; nobody else calls a file as it calls thumbnails."""
        thumbs = {name for name in self._owner if name.startswith(f"{THUMBS}/")}
        return thumbs | self._before | self._out.noted()

    def plan(self, items: Iterable[Item], known: Mapping[str, Known], policy: Policy) -> list[Work]:
        """Work for each item, its files written down. Raises OSError."""
        chosen = [item for item in items if isinstance(item, CatalogueItem)]
        # Before any name changes hands: a picture that another photo has written since is not this photo's any more.
        past = {item.id: self._past(item.id, known.get(item.id)) for item in chosen}
        works, claims = [], []
        for item in chosen:
            files = item.files
            error = item.error or (None if policy.redo else self._stranger(files))
            claimed = files if error is None else item.thumbs[:1]  # a photo without a name is shown all the same
            if any(self._owner.get(name) != item.id for name in claimed):
                self._owner.update(dict.fromkeys(claimed, item.id))
                claims.append({"id": item.id, "outputs": claimed})
            outputs = tuple(f"{READY}/{name}" for name in item.names)
            works.append(Work(item, outputs, past[item.id], policy, error))
        self._file.append(claims)
        return works

    def _past(self, id: str, known: Known | None) -> Known | None:
        return known if known and all(self._owner.get(name) == id for name in known.outputs) else None

    def _stranger(self, files: Sequence[str]) -> OutputError | None:
        for name in files:
            if name not in self._own and os.path.lexists(self._out.folder / name):
                return OutputError(
                    f"{self._out.folder / name} exists and is not of this catalogue",
                    hint="move it away, choose another -o, or --force to replace it",
                )
        return None

    def release(self, ids: Sequence[str]) -> None:
        """Nothing: the pictures of a photo that is gone go with the next `sweep`."""

    def sweep(self, wanted: Iterable[str]) -> list[str]:
        """Delete the catalogue's own files that are not wanted any more; returns their names. Raises OSError."""
        gone = []
        for name in sorted(self._written() - set(wanted)):
            path = self._out.folder / name
            if path.is_file():
                path.unlink()
                gone.append(name)
        return gone

    def close(self) -> None:
        """Close the file of names."""
        self._file.close()
