"""Which product a photo shows, and what its pictures will be called.

Of each photo the first of these that is there counts: its row in names.csv, a pattern for file names, else its folder
(one per product) or its own name without an angle or number behind an underscore: `MUG-7_front`, `MUG-7_02` are
pictures of MUG-7.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from boothsam.runtime.errors import BoothsamError, OptionError, OutputError
from boothsam.service.catalogue.table import Row
from boothsam.service.presets.naming import Identity, Template, View, gtin_in, turntable_view
from boothsam.service.presets.schema import nearest

# In the order in which a shop shows them. A detail is no face of the product.
ANGLES = {"front": "1", "left": "2", "right": "8", "back": "7", "top": "3", "bottom": "9", "detail": "0"}
_FRAME = re.compile(r"(\d{1,4})/(\d{1,4})")
_TAIL = re.compile(rf"(?P<sku>.+?)(?:[_ -](?P<angle>{'|'.join(ANGLES)})|_(?P<n>\d{{1,3}}))", re.IGNORECASE)
_PARTS = {
    "sku": r"(?P<sku>.+?)",
    "gtin": r"(?P<gtin>\d{14}|\d{13}|\d{12}|\d{8})",
    "angle": rf"(?P<angle>{'|'.join(ANGLES)})",
    "n": r"(?P<n>\d{1,4})",
    "any": r".*?",
}


@dataclass(frozen=True)
class Shown:
    """What one photo shows. n: its wished place among the product's pictures."""

    sku: str = ""
    gtin: str = ""
    angle: str = ""
    n: int | None = None

    @property
    def view(self) -> View:
        """GS1's characters for the angle. Raises OptionError for an angle that is none."""
        frame = _FRAME.fullmatch(self.angle)
        if frame is not None:
            return turntable_view(int(frame[1]), int(frame[2]))
        angle = self.angle.lower()
        if angle and angle not in ANGLES:
            near = nearest(angle, ANGLES)
            meant = f"write {near}" if near else f"known are {', '.join(ANGLES)}, or a turntable's frame such as 3/24"
            raise OptionError(f"unknown angle {self.angle[:40]!r}", hint=meant)
        return View(face=ANGLES[angle or "front"])


class Pattern:
    """A pattern for file names, such as `{sku}_{angle}`. Raises OptionError for one that is wrong."""

    def __init__(self, text: str) -> None:
        self.text = text
        pieces = re.split(r"\{([^{}]*)\}", text)
        names = pieces[1::2]
        for name in names:
            if name not in _PARTS:
                near = nearest(name, _PARTS)
                meant = f"write {{{near}}}" if near else f"known are {', '.join(_PARTS)}"
                raise OptionError(f"the pattern {text!r} has the unknown field {{{name}}}", hint=meant)
            if name != "any" and names.count(name) > 1:
                raise OptionError(f"the pattern {text!r} has {{{name}}} twice", hint="{any} matches anything")
        if not {"sku", "gtin"} & set(names):
            raise OptionError(f"the pattern {text!r} has neither {{sku}} nor {{gtin}}", hint='--pattern "{sku}_{n}"')
        parts = [_PARTS[piece] if i % 2 else re.escape(piece) for i, piece in enumerate(pieces)]
        self._form = re.compile("".join(parts), re.IGNORECASE)

    def read(self, stem: str) -> Shown:
        """What a file's name says. Raises OptionError when it does not fit."""
        found = self._form.fullmatch(unicodedata.normalize("NFC", stem))
        if found is None:
            raise OptionError(
                f"the file name {stem[:80]!r} does not fit the pattern {self.text!r}",
                hint="rename the photo, give it a row in --names, or change --pattern",
            )
        parts = found.groupdict()
        n = parts.get("n")
        return Shown(parts.get("sku") or "", parts.get("gtin") or "", parts.get("angle") or "", int(n) if n else None)


def show(photo: PurePosixPath, row: Row | None, pattern: Pattern | None, template: Template) -> Shown:
    """What one photo shows. photo: its path in the folder.

    Raises:
        OptionError: a name that does not fit the pattern, or that holds several GTINs where one is needed.
    """
    if row is not None:
        return Shown(row.sku, row.gtin, row.angle, row.n)
    stem = unicodedata.normalize("NFC", photo.stem)
    if pattern is not None:
        return pattern.read(stem)
    # Dates and counters look like GTINs: a name is searched for one only where the pictures are to be named by it.
    gtin = gtin_in(stem) if {"gtin", "gtin14"} & set(template.fields) else ""
    tail = _TAIL.fullmatch(stem)
    angle, n = (tail["angle"] or "", tail["n"]) if tail else ("", None)
    own = tail["sku"] if tail else stem
    sku = unicodedata.normalize("NFC", photo.parent.name) if len(photo.parts) > 1 else own
    return Shown(sku, gtin, angle.lower(), int(n) if n is not None else None)


@dataclass(frozen=True)
class Named:
    """What one photo shows, and the names of its pictures without their ending; or why it gets none."""

    shown: Shown
    identities: tuple[Identity, ...] = ()
    names: tuple[str, ...] = ()
    error: BoothsamError | None = None


def name_all(
    photos: Sequence[tuple[PurePosixPath, Shown | BoothsamError, int]], template: Template, preset: str
) -> list[Named]:
    """Names for all pictures of a catalogue: the same photos always get the same ones.

    photos: path in the folder, what it shows, and how many pictures it gives. A product's pictures are counted in the
    order of angle and name, with each `n` at its place. Photos that cannot be named, or whose pictures would share a
    name, get an error.
    """
    groups: dict[str, list[int]] = {}
    for index, (photo, shown, _) in enumerate(photos):
        if isinstance(shown, Shown):
            groups.setdefault(_product(photo, shown, template), []).append(index)
    counts: dict[int, int] = {}
    for members in groups.values():
        n = 1
        for index in _in_order(members, photos):
            counts[index] = n
            n += photos[index][2]
    named = [_name(photo, shown, many, counts.get(i, 1), template, preset) for i, (photo, shown, many) in
             enumerate(photos)]  # fmt: skip
    return _without_collisions([photo for photo, _, _ in photos], named)


def _name(
    photo: PurePosixPath, shown: Shown | BoothsamError, many: int, first: int, template: Template, preset: str
) -> Named:
    if not isinstance(shown, Shown):
        return Named(Shown(), error=shown)
    stem = unicodedata.normalize("NFC", photo.stem)
    try:
        view = shown.view
        found = [Identity(stem, shown.sku, shown.gtin, first + i, view, preset) for i in range(many)]
        return Named(shown, tuple(found), tuple(template.name(identity) for identity in found))
    except BoothsamError as error:
        return Named(shown, error=error)


def _without_collisions(photos: Sequence[PurePosixPath], named: Sequence[Named]) -> list[Named]:
    owners: dict[str, list[int]] = {}
    for index, one in enumerate(named):
        for name in one.names:
            owners.setdefault(_folded(name), []).append(index)
    result = list(named)
    for index, one in enumerate(named):
        for name in one.names:
            sharing = owners[_folded(name)]
            if len(sharing) > 1:
                others = sorted({str(photos[i]) for i in sharing if i != index}) or ["another product of the photo"]
                # Which of them the name belongs to is not for the machine to say: none of them gets it.
                error = OutputError(
                    f"{photos[index]} and {', '.join(others[:3])} would both be called {name}",
                    hint="put {n} into the template, such as --name '{sku}_{n}', or give each its own sku in --names",
                )
                result[index] = Named(one.shown, error=error)
                break
    return result


def _product(photo: PurePosixPath, shown: Shown, template: Template) -> str:
    """What pictures that are counted together have in common: the number that their names have."""
    by_gtin = bool({"gtin", "gtin14"} & set(template.fields)) or "sku" not in template.fields or not shown.sku
    if shown.gtin and by_gtin:
        return f"gtin {shown.gtin.zfill(14)}"
    return f"sku {_folded(shown.sku or photo.stem)}"


def _in_order(
    members: Sequence[int], photos: Sequence[tuple[PurePosixPath, Shown | BoothsamError, int]]
) -> Iterator[int]:
    """The photos of one product: those that wish a place there, the others around them."""
    wishes: dict[int, int] = {}
    for index in members:
        shown = photos[index][1]
        if isinstance(shown, Shown) and shown.n is not None:
            wishes[index] = shown.n
    ordered = sorted(members, key=lambda i: _order(photos[i][0], photos[i][1]))
    placed = deque(sorted((i for i in ordered if i in wishes), key=wishes.__getitem__))
    others = deque(i for i in ordered if i not in wishes)
    place = 1
    while placed or others:
        index = placed.popleft() if placed and (not others or wishes[placed[0]] <= place) else others.popleft()
        place += photos[index][2]
        yield index


def _order(photo: PurePosixPath, shown: Shown | BoothsamError) -> tuple[int, int, list[tuple[int, int, str]]]:
    assert isinstance(shown, Shown)
    frame = _FRAME.fullmatch(shown.angle)
    angles: Mapping[str, int] = {angle: place for place, angle in enumerate(ANGLES)}
    place = len(ANGLES) if frame else angles.get(shown.angle.lower(), 0 if not shown.angle else len(ANGLES))
    return place, int(frame[1]) if frame else 0, _natural(str(photo))


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sorts mug_2 before mug_10."""
    parts = re.split(r"(\d+)", text.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
