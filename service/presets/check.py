"""Does a finished picture keep a preset's rules? Every broken one with what was found, what mends it and its source."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from boothsam.runtime.cutout import flat_colour
from boothsam.runtime.errors import OptionError
from boothsam.service.presets.facts import Facts, read_facts
from boothsam.service.presets.measure import BLOCK, Measured, contrast, measure
from boothsam.service.presets.naming import checked_gtin
from boothsam.service.presets.preset import Preset
from boothsam.service.presets.rules import MUST, SHOULD, Rule, percent, ratio, size_text

_ENDINGS = {"jpg": (".jpg", ".jpeg"), "png": (".png",), "webp": (".webp",)}
_NAMES = ("ending", "name", "gtin_name")
_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WebP"}


@dataclass(frozen=True)
class Finding:
    """What the check of one rule says.

    Attributes:
        rule: kind of the rule. level: "must" or "should", on the day of the check.
        passed: None where it could not be measured; `found` says why.
        found, wanted: for people. mend: what mends it, "" where nothing has to be.
        source, checked, secondary: see `Rule`.
    """

    rule: str
    level: str
    passed: bool | None
    found: str
    wanted: str
    mend: str
    source: str
    checked: str
    secondary: bool

    def __str__(self) -> str:
        return f"{self.rule}: {self.found}; wanted: {self.wanted}"


@dataclass(frozen=True)
class Report:
    """All findings of one picture. fill: the share that its product spans, None where that was not measured."""

    preset: str
    name: str
    findings: tuple[Finding, ...]
    fill: float | None = None

    @property
    def passed(self) -> bool:
        """Whether no rule that must be kept is broken."""
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Broken rules that must be kept."""
        return tuple(f for f in self.findings if f.passed is False and f.level == MUST)

    @property
    def advice(self) -> tuple[Finding, ...]:
        """Broken rules that should be kept."""
        return tuple(f for f in self.findings if f.passed is False and f.level == SHOULD)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "preset": self.preset,
            "name": self.name,
            "passed": self.passed,
            "fill": None if self.fill is None else round(self.fill, 4),
            "findings": [asdict(finding) for finding in self.findings],
        }


@dataclass(frozen=True)
class _Seen:
    """A picture under a preset. measured: None where no rule needs it, or it cannot be had."""

    facts: Facts
    preset: Preset
    measured: Measured | None
    unmeasured: str

    @property
    def again(self) -> str:
        return f"boothsam crop PHOTO --auto --preset {shlex.quote(self.preset.named)}"

    @property
    def give(self) -> float:
        """The share of the picture by which a lossy encoder's blocks may widen the product."""
        return 2 * BLOCK / min(self.facts.size_wh) if self.facts.lossy else 0.0


# passed, found, what mends it
Verdict = tuple[bool | None, str, str]


def check(data: bytes, preset: Preset, *, name: str | None = None, today: date | None = None) -> Report:
    """Check one encoded picture.

    Args:
        data: the file's bytes: JPEG, PNG or WebP; of other formats only the format is looked at.
        preset: see `load_preset`.
        name: the file's name; without one the rules of names and endings are not checked.
        today: the day on which rules with a date are judged; default: today.

    Raises:
        ImageError: no picture, a damaged or a far too large one.
    """
    facts, day = read_facts(data, name), today or date.today()
    if facts.pixels is None:
        rules = preset.of("formats") or [Rule("formats", ("jpg", "png", "webp"), source="boothsam reads no others")]
        found = [_finding(rule, day, (False, f"{facts.format} by its content", _again(preset))) for rule in rules]
        return Report(preset.name, name or "", tuple(found))
    measured, unmeasured = _measured(facts, preset)
    seen = _Seen(facts, preset, measured, unmeasured)
    findings = []
    for rule in preset.rules:
        if name is None and rule.kind in _NAMES:
            continue
        findings.append(_finding(rule, day, _CHECKS[rule.kind](rule.value, seen)))
    return Report(preset.name, name or "", tuple(findings), None if measured is None else measured.fill)


def check_name(name: str, format: str, preset: Preset, today: date | None = None) -> tuple[Finding, ...]:
    """Check the rules of names and endings alone, before there is a picture. format: jpg, png or webp."""
    path, day = PurePath(name), today or date.today()
    seen = _Seen(Facts(format, (1, 1), 0, path.suffix.lower(), path.stem), preset, None, "")
    return tuple(
        _finding(rule, day, _CHECKS[rule.kind](rule.value, seen)) for rule in preset.rules if rule.kind in _NAMES
    )


def _finding(rule: Rule, day: date, verdict: Verdict) -> Finding:
    passed, found, mend = verdict
    return Finding(
        rule.kind,
        rule.level_on(day),
        passed,
        found,
        rule.wanted,
        mend if passed is False else "",
        rule.source,
        rule.checked,
        rule.secondary,
    )


def _measured(facts: Facts, preset: Preset) -> tuple[Measured | None, str]:
    """The product and its background, where a rule asks for them."""
    rules = preset.of("background")
    if not rules and not preset.of("min_fill") and not preset.of("max_fill"):
        return None, "no rule asks for it"
    assert facts.pixels is not None
    if facts.transparent and facts.alpha is not None:
        return measure(facts.alpha, lossy=facts.lossy), ""
    colour = flat_colour(str(rules[0].value)) if rules else facts.pixels[0, 0]
    found = measure(contrast(facts.pixels, colour), lossy=facts.lossy)
    if not rules and found.dirty_border:
        return None, "the border has more than one colour: the product cannot be told from its background"
    return found, ""


def _again(preset: Preset) -> str:
    return f"boothsam crop PHOTO --auto --preset {shlex.quote(preset.named)} -o OUT"


def _formats(value: tuple[str, ...], seen: _Seen) -> Verdict:
    kind = seen.facts.format
    return kind in value, f"{_FORMATS[kind]} by its content", f"{seen.again} --format {value[0]} -o OUT"


def _ending(value: tuple[str, ...], seen: _Seen) -> Verdict:
    facts = seen.facts
    fits = _ENDINGS[facts.format]
    allowed = [ending for ending in value if ending in fits]
    ending = facts.ending or "no ending"
    found = f"{ending}, the content is {_FORMATS[facts.format]}"
    mend = f"rename it to {facts.stem}{allowed[0]}" if allowed else f"{seen.again} -o OUT{value[0]}"
    return facts.ending in allowed, found, mend


def _name(value: str, seen: _Seen) -> Verdict:
    stem = seen.facts.stem or ""
    return re.fullmatch(value, stem) is not None, repr(stem), f"{seen.again} --name TEMPLATE -o FOLDER/"


def _gtin_name(value: bool, seen: _Seen) -> Verdict:
    head = re.match(r"\d{14}(?!\d)", seen.facts.stem or "")
    mend = f"{seen.again} --gtin GTIN -o FOLDER/"
    if head is None:
        return False, f"{seen.facts.stem!r} begins with no 14 digits", mend
    try:
        checked_gtin(head[0])
    except OptionError as error:
        return False, error.message, mend
    return True, head[0], mend


def _aspect(value: str, seen: _Seen) -> Verdict:
    width, height = seen.facts.size_wh
    # Half a pixel of the shorter side: a canvas of 3:4 need not divide evenly.
    fits = abs(width - height * ratio(value)) <= 0.5 * max(1.0, ratio(value))
    return fits, f"{width}x{height}", f"{seen.again} -o OUT"


def _side(least: bool, measure_of: Callable[[int, int], int]) -> Callable[[Any, _Seen], Verdict]:
    def judge(value: int, seen: _Seen) -> Verdict:
        width, height = seen.facts.size_wh
        found = measure_of(width, height)
        return found >= value if least else found <= value, f"{width}x{height} pixels", f"{seen.again} -o OUT"

    return judge


def _fill(least: bool) -> Callable[[float, _Seen], Verdict]:
    def judge(value: float, seen: _Seen) -> Verdict:
        measured = seen.measured
        if measured is None:
            return None, f"not measured: {seen.unmeasured}", ""
        if measured.box_xyxy is None:
            return False, "no product stands out from the background", f"{seen.again} -o OUT"
        found = measured.fill
        # A pixel of rounding; a lossy edge is wider than the product, never narrower.
        passed = found >= value - 1.0 / min(seen.facts.size_wh) if least else found <= value + seen.give
        x0, y0, x1, y1 = measured.box_xyxy
        text = f"{percent(found)}: the product's box is {x1 - x0}x{y1 - y0} in {'x'.join(map(str, seen.facts.size_wh))}"
        return passed, text, f"{seen.again} --fill {_between(seen.preset)} -o OUT"

    return judge


def _between(preset: Preset) -> str:
    """A fill that keeps the preset's rules with room on both sides."""
    low = max((rule.value for rule in preset.of("min_fill")), default=0.0)
    high = min((rule.value for rule in preset.of("max_fill")), default=1.0)
    made = preset.make.fill
    return f"{made if made and low < made < high else (low + high) / 2:g}"


def _background(value: str, seen: _Seen) -> Verdict:
    facts, measured = seen.facts, seen.measured
    mend = f"{seen.again} -o OUT"
    if facts.transparent:
        return False, "the background is transparent; shops show it grey or black", mend
    assert measured is not None and facts.pixels is not None
    if not measured.dirty_border and not measured.dirty:
        return True, f"exactly {value}", mend
    where = "border pixels differ" if measured.dirty_border else "pixels away from the product differ"
    x, y = measured.example_xy or (0, 0)
    colour = ", ".join(map(str, facts.pixels[y, x]))
    return False, f"{measured.dirty_border or measured.dirty} {where}; at {x}, {y} it is {colour}", mend


def _bytes(least: bool) -> Callable[[int, _Seen], Verdict]:
    def judge(value: int, seen: _Seen) -> Verdict:
        found = seen.facts.nbytes
        change = "--size with more pixels" if least else "--size with fewer pixels, or a lower --quality"
        return found >= value if least else found <= value, size_text(found), f"{seen.again} {change} -o OUT"

    return judge


def _dpi(value: int, seen: _Seen) -> Verdict:
    dpi = seen.facts.dpi
    if seen.facts.format == "webp":
        return None, "not measured: WebP has no field for it", ""
    return dpi is not None and dpi >= value - 0.5, "none" if dpi is None else f"{dpi:g}", f"{seen.again} -o OUT"


def _colour(value: str, seen: _Seen) -> Verdict:
    mode, profile = seen.facts.mode, seen.facts.profile
    plain = mode in ("L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "1")
    fits = plain and seen.facts.srgb
    found = f"{mode} pixels, {f'profile {profile!r}' if profile else 'no profile'}"
    return fits, found, f"{seen.again} -o OUT"


def _upright(value: bool, seen: _Seen) -> Verdict:
    found = seen.facts.orientation
    return found == 1, f"EXIF orientation {found}", f"{seen.again} -o OUT"


def _still(value: bool, seen: _Seen) -> Verdict:
    return seen.facts.frames == 1, f"{seen.facts.frames} frame(s)", f"{seen.again} -o OUT"


def _private(value: bool, seen: _Seen) -> Verdict:
    found = seen.facts.private
    return not found, ", ".join(found) or "none of these", f"{seen.again} -o OUT"


_CHECKS: Mapping[str, Callable[[Any, _Seen], Verdict]] = MappingProxyType(
    {
        "formats": _formats,
        "ending": _ending,
        "name": _name,
        "gtin_name": _gtin_name,
        "aspect": _aspect,
        "min_side": _side(True, min),
        "min_longest": _side(True, max),
        "max_longest": _side(False, max),
        "max_sum": _side(False, lambda width, height: width + height),
        "max_pixels": _side(False, lambda width, height: width * height),
        "min_fill": _fill(True),
        "max_fill": _fill(False),
        "background": _background,
        "min_bytes": _bytes(True),
        "max_bytes": _bytes(False),
        "min_dpi": _dpi,
        "colour": _colour,
        "upright": _upright,
        "still": _still,
        "private": _private,
    }
)
