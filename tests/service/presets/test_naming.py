"""File names: templates, GTINs, GS1 views, and names that would harm somebody."""

from __future__ import annotations

from pathlib import Path

import pytest
from boothsam.runtime.errors import OptionError, OutputError
from boothsam.service.presets.files import Naming
from boothsam.service.presets.naming import Identity, Template, View, gtin_in, plan_names, safe_name, turntable_view
from boothsam.service.presets.preset import load_preset
from hypothesis import given
from hypothesis import strategies as st

GS1 = "{gtin14}_{type}{face}{angle}{state}"


@pytest.mark.parametrize(
    ("template", "identity", "name"),
    [
        ("{stem}", Identity("IMG_1"), "IMG_1"),
        ("{sku}_{n}", Identity("a", sku="MUG-7", n=3), "MUG-7_3"),
        ("{sku}_{n:02}", Identity("a", sku="MUG-7", n=3), "MUG-7_03"),
        (GS1, Identity("a", gtin="4006381333931"), "04006381333931_A1N1"),
        (GS1, Identity("a", gtin="96385074", view=View("C", "7", "C", "0")), "00000096385074_C7C0"),
        (GS1, Identity("a", gtin="036000291452"), "00036000291452_A1N1"),
        (GS1, Identity("a", gtin="10012345678902"), "10012345678902_A1N1"),
        ("{gtin}-{preset}", Identity("a", gtin="4006381 333931", preset="gs1"), "4006381333931-gs1"),
        ("{sku}.{variant}", Identity("a", sku="B0", n=1), "B0.MAIN"),
        ("{sku}.{variant}", Identity("a", sku="B0", n=3), "B0.PT02"),
        ("{{{stem}}}", Identity("a"), "{a}"),
    ],
)
def test_templates(template: str, identity: Identity, name: str) -> None:
    assert Template(template).name(identity) == name


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{stm}", r"unknown field \{stm\}\nhint: write \{stem\}"),
        ("{stem.__class__}", "unknown field"),
        ("{stem[0]}", "unknown field"),
        ("{}", "unknown field"),
        ("{stem!r}", "formats"),
        ("{sku:>200}", "formats"),
        ("{n:0200}", "formats"),
        ("{sku}_{n:3}", "formats"),
        ("{stem", "is wrong"),
        ("front", "has no field"),
    ],
)
def test_wrong_templates(template: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Template(template)


@pytest.mark.parametrize("gtin", ["4006381333932", "1234", "400638133393A", "00000000000001", "٤006381333931"])
def test_a_wrong_gtin_stops(gtin: str) -> None:
    with pytest.raises(OptionError, match="hint:"):
        Template(GS1).name(Identity("a", gtin=gtin))


def test_a_field_that_is_not_known() -> None:
    with pytest.raises(OptionError, match=r"needs \{gtin14\}, which is not known for 'mug'\nhint: --gtin"):
        Template(GS1).name(Identity("mug"))
    with pytest.raises(OptionError, match=r"needs \{sku\}"):
        Template("{sku}").name(Identity("mug"))


@pytest.mark.parametrize(
    "sku", ["../../etc/passwd", "a/b", "a\\b", "..", ".hidden", "a\nb", "a:b", "NUL", "com1", "x" * 200, "a\x00b", " "]
)
def test_names_that_would_leave_the_folder_or_break_a_system(sku: str) -> None:
    with pytest.raises(OptionError, match="hint:"):
        Template("{sku}").name(Identity("mug", sku=sku))


@given(st.text(max_size=40))
def test_a_safe_name_stays_in_its_folder(name: str) -> None:
    try:
        kept = safe_name(name)
    except OptionError:
        return
    path = Path("folder") / (kept + ".jpg")
    assert path.parent == Path("folder") and "\0" not in kept and len(path.name.encode()) < 255


def test_two_pictures_of_one_name_are_refused() -> None:
    both = [Identity("one", sku="Mug"), Identity("two", sku="MUG")]
    with pytest.raises(OutputError, match=r"'one' and 'two' would both be called MUG.jpg"):
        plan_names(Template("{sku}"), both, Path("out"), ".jpg")
    accents = [Identity("caf\u00e9"), Identity("cafe\u0301")]
    with pytest.raises(OutputError, match="would both be called"):
        plan_names(Template("{stem}"), accents, Path("out"), ".jpg")


def test_the_number_in_a_photos_name() -> None:
    assert gtin_in("4006381333931_front") == gtin_in("front-4006381333931") == "4006381333931"
    assert gtin_in("IMG_1234") == gtin_in("4006381333931234") == ""
    with pytest.raises(OptionError, match="several numbers"):
        gtin_in("4006381333931 96385074")


@pytest.mark.parametrize(("turn", "faces"), [("clockwise", "1872"), ("counterclockwise", "1278")])
@pytest.mark.parametrize("count", [4, 8, 36, 72])
def test_a_turntables_faces(turn: str, faces: str, count: int) -> None:
    views = [turntable_view(index, count, turn) for index in range(count)]
    stills = {index: view.face for index, view in enumerate(views) if view.type == "A"}
    assert stills == {index * count // 4: face for index, face in enumerate(faces)}
    assert all((view.type, view.face) == ("E", "0") for index, view in enumerate(views) if index not in stills)


def test_an_odd_turntable_has_one_face() -> None:
    assert [turntable_view(index, 5).type for index in range(5)] == ["A", "E", "E", "E", "E"]
    with pytest.raises(OptionError, match="expected 0 to 4"):
        turntable_view(5, 5)
    with pytest.raises(OptionError, match="clockwise or counterclockwise"):
        turntable_view(0, 4, "left")


@pytest.mark.parametrize("wrong", [{"type": "F"}, {"face": "4"}, {"angle": "X"}, {"state": "Z"}, {"face": ""}])
def test_views_of_the_standard_only(wrong: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="GS1"):
        View(**wrong)


def _plan(naming: Naming | None, photos: list[str], counts: list[int] | None = None) -> list[object]:
    assert naming is not None
    paths = [Path(photo) for photo in photos]
    found = naming.plan(paths, counts or [1] * len(paths), Path("out"), ".jpg", "gs1")
    return [[path.name for path in entry] if isinstance(entry, tuple) else type(entry).__name__ for entry in found]


def test_naming_of_a_whole_command() -> None:
    gs1 = load_preset("gs1")
    assert Naming.choose(None, None) is None and Naming.choose(None, load_preset("amazon")) is None
    found = _plan(Naming.choose(None, gs1), ["4006381333931.jpg", "mug.jpg", "96385075.jpg"])
    assert found == [["04006381333931_A1N1.jpg"], "OptionError", "InvalidGtin"]  # the others go on
    assert _plan(Naming.choose("{sku}_{n}", None, sku="MUG"), ["b.jpg", "a.jpg"], [1, 2]) == [
        ["MUG_1.jpg"],
        ["MUG_2.jpg", "MUG_3.jpg"],
    ]
    assert _plan(Naming.choose("{stem}_{n}", None), ["b.jpg", "a.jpg"]) == [["b_1.jpg"], ["a_1.jpg"]]


def test_naming_of_a_turn() -> None:
    naming = Naming.choose(None, load_preset("gs1"), gtin="4006381333931", turn="clockwise")
    found = _plan(naming, [f"{index}.jpg" for index in range(8)])
    assert found == [
        [f"04006381333931_{end}.jpg"]
        for end in ("A1N1", "E0N1_002", "A8N1", "E0N1_004", "A7N1", "E0N1_006", "A2N1", "E0N1_008")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "{stem}", "sku": "A"}, "--sku is given, but the names '{stem}' do not use it"),
        ({"name": None, "gtin": "1"}, "--gtin is given"),
        ({"name": GS1, "gtin": "1", "view": "A1N1", "turn": "clockwise"}, "exclude each other"),
        ({"name": GS1, "gtin": "1", "view": "A1N"}, "expected GS1's four characters"),
    ],
)
def test_options_that_do_nothing_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Naming.choose(preset=None, **options)
