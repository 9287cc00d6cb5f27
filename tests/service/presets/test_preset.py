"""Presets as data: the built-in ones are complete, and a mistake in one's own is named."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from boothsam.runtime.errors import OptionError
from boothsam.service.cropping import Look
from boothsam.service.presets.look import preset_look
from boothsam.service.presets.preset import load_preset, parse_preset, preset_names
from boothsam.service.presets.rules import KINDS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "marketplaces.md"


@pytest.mark.parametrize("name", preset_names())
def test_every_rule_has_a_source_and_a_date(name: str) -> None:
    preset = load_preset(name)
    assert preset.title and preset.make.size and preset.make.background == "white"
    for rule in preset.rules:
        assert date(2026, 1, 1) <= date.fromisoformat(rule.checked) <= date.today()
        assert rule.source.startswith(("https://", "docs/", "copy of")) and rule.wanted
    assert {"colour", "upright", "still", "private", "formats"} <= {rule.kind for rule in preset.rules}


@pytest.mark.parametrize("name", preset_names())
def test_the_presets_own_choices_break_no_rule(name: str) -> None:
    look, warnings = preset_look(load_preset(name))
    assert not warnings and look.canvas == load_preset(name).make.size


def test_the_page_lists_every_preset_and_every_kind_of_rule() -> None:
    text = DOCS.read_text()
    for name in preset_names():
        assert f"| `{name}` |" in text
        for rule in load_preset(name).rules:
            assert rule.source.startswith("docs/") or rule.source in text, rule
    for kind in KINDS:
        assert f"| `{kind}` |" in text


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"unknown preset 'amazn'.*\nhint: --preset amazon"):
        load_preset("amazn")
    with pytest.raises(OptionError, match=r"cannot read the preset nowhere/own.toml: no such file"):
        load_preset("nowhere/own.toml")


OWN = """
base = "amazon"
title = "Our shop"
[make]
size = [1200, 1600]
fill = 0.92
quality = 85
[[rules]]
rule = "aspect"
value = "3:4"
[[rules]]
rule = "min_fill"
value = 0.9
note = "our art director"
"""


def test_ones_own_preset(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(OWN)
    preset = load_preset(str(path))
    assert (preset.name, preset.title, preset.named) == ("shop", "Our shop", str(path))
    assert preset.make.size == (1200, 1600) and preset.make.background == "white"
    assert [rule.value for rule in preset.of("min_fill")] == [0.9]  # in place of the base's
    assert preset.of("min_fill")[0].source == str(path) and preset.of("background")
    alone = parse_preset('[[rules]]\nrule = "min_side"\nvalue = 300', "alone.toml")
    assert {rule.kind for rule in alone.rules} == {"colour", "upright", "still", "private", "min_side"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size = ", r"is no TOML: "),
        ('bse = "amazon"', r"unknown key 'bse'\nhint: write base instead of bse"),
        ('base = "amazn"', r"unknown preset 'amazn'"),
        ("make = 3", r"own.toml: make is 3; expected a table"),
        ("[make]\nsise = 3", r"make has the unknown key 'sise'\nhint: write size"),
        ("[make]\nsize = 0", r"make.size is 0; expected pixels from 1 to 16384"),
        ("[make]\nsize = [1, 2, 3]", r"make.size is \[1, 2, 3\]"),
        ("[make]\nfill = 1.5", r"make.fill is 1.5; expected a share"),
        ('[make]\nformat = "gif"', r"make.format is 'gif'"),
        ('[make]\nbackground = "beige"', r"make.background is 'beige'; expected white, black"),
        ('[[rules]]\nrule = "formats"\nvalue = [["jpg"]]', r"expected a list such as"),
        ('[[rules]]\nrule = "name"\nvalue = "a{99999999999999}"', r"expected a regular expression"),
        (f'[[rules]]\nrule = "name"\nvalue = "{"(" * 3000}"', r"expected a regular expression"),
        ('[[rules]]\nrule = "name"\nvalue = ["a"]', r"expected a regular expression"),
        ("[make]\nquality = 101", r"make.quality is 101; expected a whole number from 1 to 100"),
        ("[make]\nquality = true", r"make.quality is True"),
        ('[make]\nname = "{skuu}"', r"unknown field \{skuu\}\nhint: write \{sku\}"),
        ("rules = 3", r"rules is no array of tables"),
        (
            '[[rules]]\nrule = "min_filling"\nvalue = 1',
            r"rules.1 is the unknown rule 'min_filling'\nhint: write min_fill",
        ),
        ('[[rules]]\nrule = "min_fill"', r"rules.1.value is missing"),
        ('[[rules]]\nrule = "min_fill"\nvalue = 85', r"value of min_fill is 85; expected a share above 0"),
        ('[[rules]]\nrule = "max_bytes"\nvalue = "4 MB"', r"value of max_bytes is '4 MB'; expected a whole number"),
        ('[[rules]]\nrule = "aspect"\nvalue = "square"', r'expected width and height such as "1:1"'),
        ('[[rules]]\nrule = "name"\nvalue = "("', r"expected a regular expression"),
        ('[[rules]]\nrule = "private"\nvalue = false', r"leave the rule out"),
        ('[[rules]]\nrule = "formats"\nvalue = ["gif"]', r"expected a list such as"),
        ('[[rules]]\nrule = "min_side"\nvalue = 1\nlevel = "shall"', r"level is 'shall'; expected must or should"),
        ('[[rules]]\nrule = "min_side"\nvalue = 1\nsince = "soon"', r"since is 'soon'; expected a date"),
        ('[[rules]]\nrule = "min_side"\nvalue = 1\nsauce = "x"', r"unknown key 'sauce'\nhint: write source"),
    ],
)
def test_mistakes_in_ones_own_preset(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        parse_preset(text, "own.toml")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("preset", "options", "found"),
    [
        ("amazon", {"background": "grey"}, "the background is grey, but amazon wants a background of exactly white"),
        ("amazon", {"shadow": "drop"}, "a drop shadow darkens the background"),
        ("amazon", {"size": 400}, "the canvas is 400x400 pixels, but amazon wants 500 pixels or more"),
        ("amazon", {"fill": 0.5}, "will span 50 % of the canvas"),
        ("amazon", {"fill": 0.88, "margin": 300}, "will span 61.6 % of the canvas"),
        ("amazon", {"format": "webp"}, "the format is webp"),
        ("shopify", {"size": 5000}, "4472 pixels or fewer"),
        ("ebay", {"size": 7000}, "width and height of 12000 pixels or fewer together"),
    ],
)
def test_choices_against_a_law_are_errors(preset: str, options: dict[str, object], found: str) -> None:
    with pytest.raises(OptionError, match=re.escape(found)) as caught:
        preset_look(load_preset(preset), **options)  # type: ignore[arg-type]
    assert "leave" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("preset", "options", "count"),
    [
        ("google", {"background": "#eeeeee", "size": 1500}, 1),
        ("google", {"shadow": "contact"}, 1),
        ("google", {"fill": 0.95}, 1),
        ("amazon", {"size": 800}, 1),
        ("amazon", {"background": "#ffffff"}, 0),
        ("ebay", {"background": "black", "shadow": "drop", "fill": 0.4}, 0),
    ],
)
def test_choices_against_advice_are_warnings(preset: str, options: dict[str, object], count: int) -> None:
    look, warnings = preset_look(load_preset(preset), **options)  # type: ignore[arg-type]
    assert isinstance(look, Look) and len(warnings) == count
    assert all(message and hint for message, hint in warnings)


def test_a_rule_with_a_date_is_a_law_from_then_on() -> None:
    _, warnings = preset_look(load_preset("google"), size=400, today=date(2026, 11, 21))
    assert len(warnings) == 2
    with pytest.raises(OptionError, match="from 2027-01-31 on"):
        preset_look(load_preset("google"), size=400, today=date(2027, 2, 1))


def test_files_of_other_editors(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_bytes(b"\xef\xbb\xbf" + OWN.encode())
    assert load_preset(str(path)).title == "Our shop"
    path.write_bytes(OWN.encode("utf-16"))
    with pytest.raises(OptionError, match=r"is no UTF-8: .*\nhint: save it as text in UTF-8"):
        load_preset(str(path))


@pytest.mark.parametrize(
    ("make", "rule", "value", "key"),
    [
        ("size = 300", "min_longest", "1000", "make.size"),
        ("size = 300\nfill = 0.5", "min_fill", "0.8", "make.fill"),
        ('background = "grey"', "background", '"white"', "make.background"),
        ('format = "webp"', "formats", '["jpg"]', "make.format"),
    ],
)
def test_a_preset_that_contradicts_itself_is_what_has_to_be_mended(make: str, rule: str, value: str, key: str) -> None:
    own = parse_preset(f'[make]\n{make}\n[[rules]]\nrule = "{rule}"\nvalue = {value}', "own.toml")
    with pytest.raises(OptionError, match=rf"hint: mend {key} or the rule {rule} in own.toml"):
        preset_look(own)


def test_an_ending_of_a_file_is_not_called_an_option() -> None:
    with pytest.raises(OptionError, match=r"hint: leave --format out; a file OUT must end with .jpg"):
        preset_look(load_preset("amazon"), format="webp")
