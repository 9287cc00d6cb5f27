"""Presets written down as TOML: every mistake is named with its place and what was expected."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from typing import Any

from boothsam.runtime.cutout import flat_colour
from boothsam.runtime.errors import OptionError
from boothsam.service.outputs import FORMATS
from boothsam.service.presets.naming import Template
from boothsam.service.presets.rules import KINDS, LEVELS, MUST, Rule

_MAX_SIDE = 16384
_RECIPE = ("format", "size", "fill", "background", "quality", "min_quality", "dpi", "name")
_RULE = ("rule", *(field.name for field in fields(Rule) if field.name != "kind"))


def nearest(found: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    return next(iter(difflib.get_close_matches(found, list(known), 1)), None)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """A TOML document. Raises OptionError with the parser's line and column."""
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: dict[str, Any] = toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise OptionError(f"{source} is no TOML: {error}", hint="see docs/marketplaces.md for a preset") from None
    return table


@dataclass(frozen=True)
class Where:
    """A place in a file, for messages."""

    source: str
    place: str = ""

    def at(self, place: str) -> Where:
        """A place below this one."""
        return Where(self.source, f"{self.place}.{place}" if self.place else place)

    def error(self, found: str, expected: str) -> OptionError:
        """What to raise here."""
        return OptionError(f"{self} {found}; expected {expected}", hint=f"mend {self}")

    def __str__(self) -> str:
        return f"{self.source}: {self.place}" if self.place else self.source

    def need_known(self, table: Any, known: Iterable[str]) -> None:
        """Raise for what is no table, and for a key that nobody reads."""
        if not isinstance(table, Mapping):
            raise self.error(f"is {table!r}", "a table")
        for key in table:
            if key not in known:
                near = nearest(key, known)
                hint = f"write {near} instead of {key}" if near else f"known are {', '.join(known)}"
                raise OptionError(f"{self} has the unknown key {key!r}", hint=hint)

    def text(self, table: Mapping[str, Any], key: str, default: str | None = None) -> str:
        """A text; the default where it is missing."""
        value = table.get(key, default)
        if not isinstance(value, str):
            raise self.at(key).error("is missing" if value is None else f"is {value!r}", "a text")
        return value

    def whole(self, table: Mapping[str, Any], key: str, low: int, high: int) -> int:
        """A whole number within low..high."""
        value = table[key]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.at(key).error(f"is {value!r}", f"a whole number from {low} to {high}")
        return value


def read_recipe(where: Where, table: Any) -> dict[str, Any]:
    """The keys of a `make` table, checked."""
    where.need_known(table, _RECIPE)
    made: dict[str, Any] = {}
    if "format" in table:
        made["format"] = where.text(table, "format")
        if made["format"] not in FORMATS:
            near = nearest(made["format"], FORMATS)
            raise where.at("format").error(f"is {made['format']!r}", near or ", ".join(FORMATS))
    if "size" in table:
        made["size"] = _size(where.at("size"), table["size"])
    if "fill" in table:
        fill = table["fill"]
        if isinstance(fill, bool) or not isinstance(fill, int | float) or not 0 < fill <= 1:
            raise where.at("fill").error(f"is {fill!r}", "a share above 0, up to 1")
        made["fill"] = float(fill)
    if "background" in table:
        made["background"] = where.text(table, "background")
        if made["background"] != "transparent":
            try:
                flat_colour(made["background"])
            except OptionError:
                wanted = "white, black, grey, #rrggbb or transparent"
                raise where.at("background").error(f"is {made['background']!r}", wanted) from None
    for key, high in (("quality", 100), ("min_quality", 100), ("dpi", 4800)):
        if key in table:
            made[key] = where.whole(table, key, 1, high)
    if "name" in table:
        made["name"] = where.text(table, "name")
        Template(made["name"])
    return made


def _size(where: Where, value: Any) -> tuple[int, int]:
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, list) or len(sides) != 2:
        raise where.error(f"is {value!r}", "a side such as 2000, or [width, height]")
    for side in sides:
        if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= _MAX_SIDE:
            raise where.error(f"is {value!r}", f"pixels from 1 to {_MAX_SIDE}")
    return sides[0], sides[1]


def read_rules(where: Where, tables: Any) -> tuple[Rule, ...]:
    """An array of rules, checked."""
    if not isinstance(tables, list):
        raise where.error("is no array of tables", "[[rules]] before each rule")
    return tuple(_rule(where.at(str(number)), table) for number, table in enumerate(tables, 1))


def _rule(where: Where, table: Any) -> Rule:
    where.need_known(table, _RULE)
    kind = where.text(table, "rule")
    if kind not in KINDS:
        near = nearest(kind, KINDS)
        hint = f"write {near} instead of {kind}" if near else f"known are {', '.join(KINDS)}"
        raise OptionError(f"{where} is the unknown rule {kind!r}", hint=hint)
    if "value" not in table:
        raise where.at("value").error("is missing", "what the rule wants")
    try:
        value = KINDS[kind].check(table["value"])
    except ValueError as error:
        raise where.at("value").error(f"of {kind} is {table['value']!r}", str(error)) from None
    level = where.text(table, "level", MUST)
    if level not in LEVELS:
        raise where.at("level").error(f"is {level!r}", " or ".join(LEVELS))
    secondary = table.get("secondary", False)
    if not isinstance(secondary, bool):
        raise where.at("secondary").error(f"is {secondary!r}", "true or false")
    source = where.text(table, "source", where.source)
    days = [_day(where, table, key) for key in ("checked", "since")]
    return Rule(kind, value, level, source, days[0], secondary, days[1], where.text(table, "note", ""))


def _day(where: Where, table: Mapping[str, Any], key: str) -> str:
    value = table.get(key, "")
    if value == "":
        return ""
    try:
        return (value if isinstance(value, date) else date.fromisoformat(value)).isoformat()[:10]
    except (TypeError, ValueError):
        raise where.at(key).error(f"is {value!r}", "a date such as 2026-11-21") from None
