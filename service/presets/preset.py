"""Presets: the rules of a market, and how `boothsam crop` makes a picture that keeps them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from boothsam.runtime.errors import OptionError
from boothsam.service.presets import schema
from boothsam.service.presets.rules import Rule


@dataclass(frozen=True)
class Recipe:
    """How a picture is made; whoever makes it may choose otherwise where no rule is broken.

    Attributes:
        format: jpg, png or webp.
        size: canvas as (width, height) in pixels; None: as large as the product's own pixels make it.
        fill: share of the canvas that the product's box spans on its tighter side; None: 0.85.
        background: white, black, grey, #rrggbb or transparent.
        quality, min_quality: of JPEG and WebP: the first choice, and how far it may fall to meet a byte limit.
        dpi: pixels per inch to write into the file, None: none.
        name: template of file names, see `naming`.
    """

    format: str = "jpg"
    size: tuple[int, int] | None = None
    fill: float | None = None
    background: str = "white"
    quality: int = 92
    min_quality: int = 80
    dpi: int | None = None
    name: str = "{stem}"


@dataclass(frozen=True)
class Preset:
    """A market's rules. source: the file it was read from, empty for the built-in ones."""

    name: str
    title: str
    make: Recipe
    rules: tuple[Rule, ...]
    source: str = ""

    def of(self, kind: str) -> list[Rule]:
        """The rules of one kind, the strictest level first."""
        return sorted((rule for rule in self.rules if rule.kind == kind), key=lambda rule: rule.level)

    @property
    def named(self) -> str:
        """What `--preset` has to be given to get this one."""
        return self.source or self.name

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def preset_names() -> tuple[str, ...]:
    """The built-in presets."""
    return tuple(_built_in())


def load_preset(named: str) -> Preset:
    """A built-in preset by its name, or one's own from a .toml file.

    Raises:
        OptionError: no such preset, or a file that is none; says which entry is wrong and what it may be.
    """
    if named.lower().endswith(".toml") or "/" in named:
        path = Path(named)
        try:
            text = path.read_text("utf-8-sig")  # some editors begin a file with a byte order mark
        except UnicodeDecodeError as error:
            raise OptionError(f"the preset {named} is no UTF-8: {error}", hint="save it as text in UTF-8") from None
        except OSError as error:
            reason = error.strerror or str(error)
            hint = f"check the path, or use one of {', '.join(preset_names())}"
            raise OptionError(f"cannot read the preset {named}: {reason.lower()}", hint=hint) from None
        return parse_preset(text, named)
    return built_in(named)


def built_in(name: str) -> Preset:
    """A built-in preset, never a file. Raises OptionError."""
    found = _built_in().get(name)
    if found is None:
        near = schema.nearest(name, preset_names())
        raise OptionError(
            f"unknown preset {name[:80]!r}; expected {', '.join(preset_names())} or a .toml file",
            hint=f"--preset {near or preset_names()[0]}",
        )
    return found


def parse_preset(text: str, source: str) -> Preset:
    """One's own preset from TOML. source: the file's name, for messages. Raises OptionError."""
    table = schema.parse_toml(text, source)
    where = schema.Where(source)
    where.need_known(table, ("base", "name", "title", "make", "rules"))
    base: Preset | None = None
    if "base" in table:
        base = built_in(where.text(table, "base"))
    name = where.text(table, "name", Path(source).stem)
    made = asdict(base.make) if base else {}
    make = Recipe(**made | schema.read_recipe(where.at("make"), table.get("make", {})))
    own = schema.read_rules(where.at("rules"), table.get("rules", []))
    replaced = {rule.kind for rule in own}
    kept = base.rules if base else _common_rules()
    rules = tuple(rule for rule in kept if rule.kind not in replaced) + own
    return Preset(name, where.text(table, "title", name), make, rules, source)


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    source = resources.files("boothsam.service.presets").joinpath("presets.toml")
    return schema.parse_toml(source.read_text("utf-8"), "presets.toml")


@lru_cache(maxsize=1)
def _common_rules() -> tuple[Rule, ...]:
    return schema.read_rules(schema.Where("presets.toml").at("common.rules"), _tables()["common"]["rules"])


@lru_cache(maxsize=1)
def _built_in() -> dict[str, Preset]:
    found = {}
    for name, table in _tables().items():
        if name == "common":
            continue
        where = schema.Where("presets.toml").at(name)
        where.need_known(table, ("title", "make", "rules"))
        own = schema.read_rules(where.at("rules"), table["rules"])
        common = tuple(rule for rule in _common_rules() if rule.kind not in {r.kind for r in own})
        make = Recipe(**schema.read_recipe(where.at("make"), table["make"]))
        found[name] = Preset(name, where.text(table, "title"), make, own + common)
    return found
