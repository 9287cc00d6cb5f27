"""The kinds of rule that a preset can hold, and what a value of each must look like."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any

from boothsam.runtime.cutout import flat_colour
from boothsam.runtime.errors import OptionError
from boothsam.service.outputs import FORMATS

MUST, SHOULD = "must", "should"
LEVELS = (MUST, SHOULD)


@dataclass(frozen=True)
class Rule:
    """One rule of a market.

    Attributes:
        kind: key of `KINDS`.
        value: plain text, number, flag or a tuple of texts.
        level: "must": a picture that breaks it is refused; "should": advice, a warning.
        source: where the rule was read: a URL, or what the preset's author says.
        checked: ISO date on which that was done, empty if not said.
        secondary: the source is not the market itself.
        since: ISO date from which a "must" holds; before it is advice. Empty: always.
        note: what the value means, for people.
    """

    kind: str
    value: Any
    level: str = MUST
    source: str = ""
    checked: str = ""
    secondary: bool = False
    since: str = ""
    note: str = ""

    def level_on(self, day: date) -> str:
        """The level that holds on a day."""
        return SHOULD if self.since and day < date.fromisoformat(self.since) else self.level

    @property
    def wanted(self) -> str:
        """What the rule wants, for people."""
        text = KINDS[self.kind].wanted(self.value)
        text += f" ({self.note})" if self.note else ""
        return text + (f", from {self.since} on" if self.since else "")


@dataclass(frozen=True)
class Kind:
    """A kind of rule. check: raises ValueError for a value that is none. wanted: the value for people."""

    check: Callable[[Any], Any]
    wanted: Callable[[Any], str]


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10**10:
        raise ValueError("a whole number, 1 or more")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError("a share above 0, up to 1")
    return float(value)


def _true(value: Any) -> bool:
    if value is not True:
        raise ValueError("true; leave the rule out if it does not hold")
    return True


def _formats(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(f, str) and f in FORMATS for f in value):
        raise ValueError(f'a list such as ["jpg", "png"] of {", ".join(FORMATS)}')
    return tuple(value)


def _endings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(e, str) and e[:1] == "." for e in value):
        raise ValueError('a list of endings such as [".jpg"]')
    return tuple(ending.lower() for ending in value)


def _colour(value: Any) -> str:
    try:
        if not isinstance(value, str):
            raise OptionError("no text")
        flat_colour(value)
    except OptionError:
        raise ValueError("white, black, grey or #rrggbb") from None
    return value


def _srgb(value: Any) -> str:
    if value != "sRGB":
        raise ValueError('"sRGB", the one that is known')
    return "sRGB"


def _aspect(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", value):
        raise ValueError('width and height such as "1:1" or "3:4"')
    return value


def _pattern(value: Any) -> str:
    try:
        if not isinstance(value, str):
            raise TypeError("it is no text")
        re.compile(value)
    except (TypeError, re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"a regular expression ({error})") from None
    return value


def ratio(aspect: str) -> float:
    """Width over height of "3:4"."""
    across, down = aspect.split(":")
    return int(across) / int(down)


def size_text(count: int) -> str:
    """Bytes for people; exact where rounding would hide by how much a limit was missed."""
    return f"{count / 1e6:g} MB" if count % 100_000 == 0 and count >= 10**6 else f"{count:,} bytes"


def percent(share: float) -> str:
    """A share for people, rounded down: 0.8496 does not reach 85 %."""
    return f"{math.floor(share * 1000) / 10:g} %"


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "formats": Kind(_formats, lambda v: f"one of the formats {', '.join(v)}"),
        "ending": Kind(_endings, lambda v: f"an ending that fits the content, one of {', '.join(v)}"),
        "name": Kind(_pattern, lambda v: f"a file name of the form {v}"),
        "gtin_name": Kind(_true, lambda v: "a file name that begins with a GTIN of 14 digits, check digit right"),
        "aspect": Kind(_aspect, lambda v: f"a canvas of {v}"),
        "min_side": Kind(_whole, lambda v: f"{v} pixels or more on both sides"),
        "min_longest": Kind(_whole, lambda v: f"{v} pixels or more on the longest side"),
        "max_longest": Kind(_whole, lambda v: f"{v} pixels or fewer on the longest side"),
        "max_sum": Kind(_whole, lambda v: f"width and height of {v} pixels or fewer together"),
        "max_pixels": Kind(_whole, lambda v: f"{v / 1e6:g} million pixels or fewer"),
        "min_fill": Kind(_share, lambda v: f"a product that spans {percent(v)} or more of the longest usable side"),
        "max_fill": Kind(_share, lambda v: f"a product that spans {percent(v)} or less of the longest usable side"),
        "background": Kind(_colour, lambda v: f"a background of exactly {v}, border and corners included"),
        "min_bytes": Kind(_whole, lambda v: f"a file of {size_text(v)} or more"),
        "max_bytes": Kind(_whole, lambda v: f"a file of {size_text(v)} or less"),
        "min_dpi": Kind(_whole, lambda v: f"{v} pixels per inch or more"),
        "colour": Kind(_srgb, lambda v: "sRGB: RGB or grey pixels, with an sRGB profile or none"),
        "upright": Kind(_true, lambda v: "upright pixels, no orientation left to apply"),
        "still": Kind(_true, lambda v: "a still picture"),
        "private": Kind(_true, lambda v: "no GPS position, serial numbers or maker notes"),
    }
)
