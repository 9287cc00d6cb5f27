"""From a preset to the look of a picture, and what the chosen options would break before anything is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from boothsam.runtime.cutout import DEFAULT_FILL, Background, flat_colour
from boothsam.runtime.errors import OptionError
from boothsam.service.outputs import FORMATS
from boothsam.service.presets.preset import Preset
from boothsam.service.presets.rules import MUST, Rule, percent, ratio

if TYPE_CHECKING:
    from boothsam.service.cropping import Look

Warning = tuple[str, str]


@dataclass(frozen=True)
class Plan:
    """What a picture will be. size_wh: None where the product decides. fill: of the whole canvas."""

    format: str
    size_wh: tuple[int, int] | None
    fill: float
    background: Background
    shadow: str


def preset_look(
    preset: Preset,
    *,
    format: str | None = None,
    background: Background = None,
    fill: float | None = None,
    margin: int | None = None,
    size: int | None = None,
    quality: int | None = None,
    fill_holes: bool = False,
    drop_islands: bool = False,
    small_area: int | None = None,
    shadow: str = "none",
    today: date | None = None,
) -> tuple[Look, list[Warning]]:
    """The look that a preset gives; what is not None was chosen by somebody and goes first.

    Returns the look, and a message and a hint for each piece of advice that the choices go against.

    Raises:
        OptionError: a choice that breaks a rule that must be kept, or is none.
    """
    from boothsam.service.cropping import Look

    make = preset.make
    look = Look(
        format=format or make.format,
        background=make.background if background is None else background,
        fill=fill or make.fill,
        margin=margin,
        size=size,
        quality=make.quality if quality is None else quality,
        fill_holes=fill_holes,
        drop_islands=drop_islands,
        small_area=small_area,
        shadow=shadow,
        preset=preset,
    )
    return look, contradictions(look, today)


def plan_of(look: Look) -> Plan:
    """What a look will make."""
    size, share = look.canvas, look.fill or DEFAULT_FILL
    if size is not None:
        # The product fills its share of what the margins leave, on whichever side is tighter.
        share *= max((side - 2 * (look.margin or 0)) / side for side in size)
    return Plan(look.format, size, share, look.background, look.shadow)


def contradictions(look: Look, today: date | None = None) -> list[Warning]:
    """Which of the preset's rules the look will break, known before a picture is made.

    Returns a message and a hint for each piece of advice. Raises OptionError for a rule that must be kept.
    """
    warnings: list[Warning] = []
    day, name = today or date.today(), look.preset.name if look.preset is not None else ""
    for rule, (found, option) in broken_rules(look):
        message = f"{found}, but {name} wants {rule.wanted}{_from(rule)}"
        hint = _hint(look, rule, found, option)
        if rule.level_on(day) == MUST:
            raise OptionError(message, hint=hint)
        warnings.append((message, hint))
    return warnings


def broken_rules(look: Look) -> list[tuple[Rule, tuple[str, str]]]:
    """The rules that the look's choices break, with what was found and the option that chose it."""
    plan, broken = plan_of(look), []
    for rule in look.preset.rules if look.preset is not None else ():
        conflict = _CONFLICTS.get(rule.kind)
        told = conflict(rule.value, plan) if conflict is not None else None
        if told is not None:
            broken.append((rule, told))
    return broken


def _hint(look: Look, rule: Rule, found: str, option: str) -> str:
    """What mends a conflict: the option, or the preset where it breaks its own rule."""
    preset = look.preset
    assert preset is not None
    make = preset.make
    own = Plan(make.format, make.size, make.fill or DEFAULT_FILL, make.background, "none")
    if _CONFLICTS[rule.kind](rule.value, own) == (found, option):
        return f"mend make.{_KEYS[option]} or the rule {rule.kind} in {preset.named}: they contradict each other"
    if option == "--format":
        return f"leave --format out; a file OUT must end with {FORMATS[make.format]}"
    return f"leave {option} out: the preset chooses it"


def _from(rule: Rule) -> str:
    return f" ({rule.source})" if rule.source else ""


def _format(value: tuple[str, ...], plan: Plan) -> tuple[str, str] | None:
    return None if plan.format in value else (f"the format is {plan.format}", "--format")


def _ending(value: tuple[str, ...], plan: Plan) -> tuple[str, str] | None:
    return None if FORMATS[plan.format] in value else (f"the ending will be {FORMATS[plan.format]}", "--format")


def _background(value: str, plan: Plan) -> tuple[str, str] | None:
    found = "a picture" if isinstance(plan.background, np.ndarray) else plan.background or "transparent"
    same = isinstance(plan.background, str) and found != "transparent"
    if not same or not np.array_equal(flat_colour(str(found)), flat_colour(value)):
        return f"the background is {found}", "--background"
    return None if plan.shadow == "none" else (f"a {plan.shadow} shadow darkens the background", "--shadow")


def _size(broken: Callable[[Any, int, int], bool]) -> Callable[[Any, Plan], tuple[str, str] | None]:
    def judge(value: Any, plan: Plan) -> tuple[str, str] | None:
        if plan.size_wh is None or not broken(value, *plan.size_wh):
            return None
        return f"the canvas is {plan.size_wh[0]}x{plan.size_wh[1]} pixels", "--size"

    return judge


def _fill(broken: Callable[[float, float], bool]) -> Callable[[float, Plan], tuple[str, str] | None]:
    def judge(value: float, plan: Plan) -> tuple[str, str] | None:
        if not broken(plan.fill, value):
            return None
        return f"the product will span {percent(plan.fill)} of the canvas", "--fill and --margin"

    return judge


_KEYS = {"--format": "format", "--background": "background", "--size": "size", "--fill and --margin": "fill"}
_CONFLICTS: Mapping[str, Callable[[Any, Plan], tuple[str, str] | None]] = MappingProxyType(
    {
        "formats": _format,
        "ending": _ending,
        "background": _background,
        "aspect": _size(lambda value, w, h: abs(w - h * ratio(value)) > 0.5 * max(1.0, ratio(value))),
        "min_side": _size(lambda value, w, h: min(w, h) < value),
        "min_longest": _size(lambda value, w, h: max(w, h) < value),
        "max_longest": _size(lambda value, w, h: max(w, h) > value),
        "max_sum": _size(lambda value, w, h: w + h > value),
        "max_pixels": _size(lambda value, w, h: w * h > value),
        "min_fill": _fill(lambda found, value: found < value),
        "max_fill": _fill(lambda found, value: found > value),
    }
)
