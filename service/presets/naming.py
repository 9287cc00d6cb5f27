"""File names of product pictures from a template, with the numbers of the trade checked.

    {stem}                 the photo's name without its ending
    {sku} {gtin} {gtin14}  the product's numbers; gtin14 has leading zeros
    {n}                    1, 2, ... of the product's pictures; {n:02} has two digits
    {type}{face}{angle}{state}   GS1's four characters, see `View`
    {variant}              Amazon's: MAIN for the first picture, then PT01, PT02, ...
    {preset}               the preset's name

A wrong check digit stops everything: the picture would be filed under another product. So does a name that could leave
its folder, or that two pictures share.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter

from boothsam.runtime.errors import OptionError, OutputError

FIELDS = ("stem", "sku", "gtin", "gtin14", "n", "type", "face", "angle", "state", "variant", "preset")
MAX_NAME = 150  # bytes: leaves room for numbers and the ending in a file name of 255
TYPES, FACES, ANGLES, STATES = "ABCDE", "1237890", "CLRN", "10ABCDMP"
# Which face the camera sees after each quarter turn of a table that turns clockwise, seen from above: the product's
# right side, as one who looks at its front calls it, comes first.
_QUARTERS = {"clockwise": "1872", "counterclockwise": "1278"}
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_DIGITS = re.compile(r"(?<!\d)(\d{14}|\d{13}|\d{12}|\d{8})(?!\d)")


@dataclass(frozen=True)
class View:
    """The four characters of GS1's Product Image Specification that tell what a picture shows.

    Attributes:
        type: A product image, B with supporting elements, C and D the same in high resolution, E frame of a spin.
        face: 1 front, 2 left, 3 top, 7 back, 8 right, 9 bottom, 0 none.
        angle: C centre, L left, R right, N no plunge.
        state: 1 in its pack, 0 out of it, A case, B inner pack, C raw, D prepared, M open case, P pallet.

    Raises:
        OptionError: another character.
    """

    type: str = "A"
    face: str = "1"
    angle: str = "N"
    state: str = "1"

    def __post_init__(self) -> None:
        for name, known in (("type", TYPES), ("face", FACES), ("angle", ANGLES), ("state", STATES)):
            value = getattr(self, name)
            if len(value) != 1 or value not in known:
                raise OptionError(
                    f"GS1 {name} {value!r}; expected one of {', '.join(known)}", hint=f"{name} {known[0]}"
                )


def turntable_view(index: int, count: int, turn: str = "clockwise") -> View:
    """The view of frame `index` of `count` equal steps, 0 being the front.

    The quarter turns show a face; what lies between is a frame of a spin (type E, no face), to be numbered by {n}.
    turn: how the table turns, seen from above.

    Raises:
        OptionError: an index that is none, another word for turn.
    """
    if turn not in _QUARTERS:
        raise OptionError(f"turn {turn!r}; expected {' or '.join(_QUARTERS)}", hint="--turn clockwise")
    if not 0 <= index < count:
        raise OptionError(f"frame {index} of {count}; expected 0 to {count - 1}")
    if index * 4 % count == 0:
        return View(face=_QUARTERS[turn][index * 4 // count])
    return View(type="E", face="0")


def gtin_in(stem: str) -> str:
    """The one number of 8, 12, 13 or 14 digits in a file's name, empty if there is none; not checked.

    Raises:
        OptionError: several different ones.
    """
    found = sorted(set(_DIGITS.findall(stem)))
    if len(found) > 1:
        raise OptionError(f"{stem[:80]!r} holds several numbers: {', '.join(found)}", hint="say which one: --gtin")
    return found[0] if found else ""


@dataclass(frozen=True)
class Identity:
    """What is known of one picture before it is named. n: 1 for the product's first picture."""

    stem: str
    sku: str = ""
    gtin: str = ""
    n: int = 1
    view: View = field(default_factory=View)
    preset: str = ""

    def values(self) -> dict[str, str | int]:
        """A value for each field of a template; those that are not known are missing.

        Raises:
            OptionError: a GTIN with a wrong check digit.
        """
        values: dict[str, str | int] = {"stem": self.stem, "n": self.n, "preset": self.preset}
        values |= {name: getattr(self.view, name) for name in ("type", "face", "angle", "state")}
        values["variant"] = "MAIN" if self.n == 1 else f"PT{self.n - 1:02}"
        if self.sku:
            values["sku"] = self.sku
        if self.gtin:
            values["gtin"] = checked_gtin(self.gtin)
            values["gtin14"] = str(values["gtin"]).zfill(14)
        return values


def checked_gtin(text: str) -> str:
    """The digits of a GTIN. Raises InvalidGtin (an OptionError); BackendUnavailable without python-stdnum."""
    from boothsam.service.captures.gtin import check_gtin
    from boothsam.service.console import need_extra

    with need_extra("serve", "checking a GTIN"):
        return check_gtin(text)


class Template:
    """A template of file names, without their ending. Raises OptionError for one that is wrong."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise OptionError(f"the name template {text!r} is wrong: {error}", hint='--name "{stem}"') from None
        self.fields = tuple(name for _, name, _, _ in parts if name is not None)
        for _, name, spec, conversion in parts:
            if name is None:
                continue
            if name not in FIELDS:
                near = difflib.get_close_matches(name, FIELDS, 1)
                meant = f"write {{{near[0]}}}" if near else f"known are {', '.join(FIELDS)}"
                raise OptionError(f"the name template {text!r} has the unknown field {{{name}}}", hint=meant)
            if conversion or (spec and not (name == "n" and re.fullmatch(r"0[1-9]", spec))):
                raise OptionError(f"the name template {text!r} formats {{{name}}}; only {{n:02}} can be", hint="{n:02}")
        if not self.fields:
            raise OptionError(
                f"the name template {text!r} has no field: all pictures would have one name", hint='--name "{stem}"'
            )

    @property
    def numbered(self) -> bool:
        """Whether several pictures of one product get different names."""
        return "n" in self.fields or "variant" in self.fields

    def name(self, identity: Identity) -> str:
        """The name of one picture.

        Raises:
            OptionError: a field that is not known, a wrong GTIN, or a name that is no safe file name.
        """
        values: Mapping[str, str | int] = identity.values()
        for wanted in self.fields:
            if wanted not in values:
                option = "gtin" if wanted.startswith("gtin") else wanted
                raise OptionError(
                    f"the name template {self.text!r} needs {{{wanted}}}, which is not known for {identity.stem!r}",
                    hint=f"--{option} NUMBER, or another template: --name '{{stem}}'",
                )
        return safe_name(self.text.format_map(values))


def safe_name(name: str) -> str:
    """The name, if it stays in its folder on every system. Raises OptionError."""
    wrong = ""
    if any(c in '/\\:*?"<>|' or not c.isprintable() for c in name):
        wrong = "has characters that file names cannot have"
    elif not name.strip(". ") or name != name.strip(" ") or name.startswith(".") or name.endswith("."):
        wrong = "is empty, hidden, or begins or ends with a dot or space"
    elif _RESERVED.fullmatch(name):
        wrong = "is reserved on Windows"
    elif len(name.encode()) > MAX_NAME:
        wrong = f"has {len(name.encode())} bytes, more than {MAX_NAME}"
    if wrong:
        raise OptionError(f"the file name {name[:200]!r} {wrong}", hint="change the SKU or the template: --name")
    return name


def plan_names(template: Template, identities: Sequence[Identity], folder: Path, ending: str) -> list[Path]:
    """A file in the folder for each picture.

    Raises:
        OptionError: see `Template.name`. OutputError: two pictures of one name, on any system.
    """
    taken: dict[str, Identity] = {}
    paths = []
    for identity in identities:
        name = template.name(identity) + ending
        other = taken.setdefault(_folded(name), identity)
        if other is not identity:
            raise OutputError(
                f"{other.stem!r} and {identity.stem!r} would both be called {name}",
                hint="put {n} or {stem} into the template: --name '{stem}_{n}'",
            )
        paths.append(folder / name)
    return paths


def _folded(name: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", name).casefold()
