"""Which product a photo shows, in which order its pictures count, and tables and patterns that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from boothsam.runtime.errors import OptionError
from boothsam.service.catalogue.identify import Named, Pattern, Shown, name_all, show
from boothsam.service.catalogue.table import Row, match, read_names
from boothsam.service.presets.naming import Template

from tests.service.catalogue.conftest import by_photo, photo

BY_SKU = Template("{sku}_{n}")
GTIN = "4006381333931"


def named(template: str, *photos: str, pattern: str | None = None, **rows: Row) -> list[Named]:
    chosen, form = Template(template), Pattern(pattern) if pattern else None
    places = [PurePosixPath(text) for text in photos]
    return name_all([(p, show(p, rows.get(p.stem), form, chosen), 1) for p in places], chosen, "amazon")


def names(template: str, *photos: str, **more: Any) -> list[str]:
    found = named(template, *photos, **more)
    assert all(one.error is None for one in found), found
    return [one.names[0] for one in found]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("MUG-7.jpg", Shown("MUG-7")),
        ("MUG-7_front.jpg", Shown("MUG-7", angle="front")),
        ("MUG-7-Back.JPG", Shown("MUG-7", angle="back")),
        ("MUG-7_02.jpg", Shown("MUG-7", n=2)),
        ("MUG-7_1234.jpg", Shown("MUG-7_1234")),
        ("mugs/red/IMG_0001.jpg", Shown("red")),
        ("red/left.jpg", Shown("red")),
        ("IMG_20261121101112.jpg", Shown("IMG_20261121101112")),  # a date is no GTIN
    ],
)
def test_what_a_file_name_says(path: str, shown: Shown) -> None:
    assert show(PurePosixPath(path), None, None, BY_SKU) == shown


def test_pictures_of_a_product_are_counted_in_their_order() -> None:
    photos = ("m_10.jpg", "m_2.jpg", "m_1.jpg", "other.jpg")
    assert names("{sku}_{n}", *photos) == ["m_3", "m_2", "m_1", "other_1"]
    photos = ("m_detail.jpg", "m_back.jpg", "m.jpg", "m_left.jpg")
    assert names("{sku}.{variant}", *photos) == ["m.PT03", "m.PT02", "m.MAIN", "m.PT01"]
    assert names("{sku}_{n:02}", "a/img10.jpg", "a/img9.jpg", "A/x.jpg") == ["a_02", "a_01", "A_03"]
    frames = {f"f{i}": Row("", f"f{i}", "spin", angle=f"{i}/24") for i in (0, 6, 7)}
    assert names("{sku}_{type}{face}_{n}", "f7.jpg", "f0.jpg", "f6.jpg", **frames) == [
        "spin_E0_3", "spin_A1_1", "spin_A8_2"
    ]  # fmt: skip


def test_a_place_that_a_row_fixes_is_kept() -> None:
    def rows(**places: int | None) -> dict[str, Row]:
        return {name: Row("", name, "M", n=n) for name, n in places.items()}

    photos = ("a.jpg", "b.jpg", "c.jpg")
    assert names("{sku}_{n}", *photos, **rows(a=None, b=None, c=1)) == ["M_2", "M_3", "M_1"]
    assert names("{sku}_{n}", *photos, **rows(a=None, b=2, c=None)) == ["M_1", "M_2", "M_3"]
    assert names("{sku}_{n}", *photos, **rows(a=9, b=3, c=None)) == ["M_3", "M_2", "M_1"]  # no gaps
    assert names("{sku}_{n}", *photos, **rows(a=1, b=1, c=None)) == ["M_1", "M_2", "M_3"]
    assert names("{sku}_{n}", "m.jpg", "m_2.jpg", "m_back.jpg") == ["m_1", "m_2", "m_3"]


def test_a_product_of_which_only_some_rows_know_the_gtin_is_one() -> None:
    rows = {"a": Row("", "a", "M", GTIN, "front"), "b": Row("", "b", "M", GTIN), "c": Row("", "c", "M", "", "7/24")}
    assert names("{sku}_{n}", "a.jpg", "b.jpg", "c.jpg", **rows) == ["M_1", "M_2", "M_3"]
    rows = {"a": Row("", "a", "M", GTIN), "b": Row("", "b", "other", f"0{GTIN}")}
    assert names("{gtin14}_{n}", "a.jpg", "b.jpg", **rows) == [f"0{GTIN}_1", f"0{GTIN}_2"]


def test_patterns() -> None:
    photos = (f"{GTIN}-front.jpg", f"{GTIN}-left.jpg")
    gs1 = "{gtin14}_{type}{face}{angle}{state}"
    assert names(gs1, *photos, pattern="{gtin}-{angle}") == [f"0{GTIN}_A1N1", f"0{GTIN}_A2N1"]
    assert names("{sku}", "2026-11_MUG.7_x.jpg", pattern="{any}_{sku}_x") == ["MUG.7"]
    for wrong, told in (("{skq}", "write {sku}"), ("{n}", "neither {sku} nor {gtin}"), ("{sku}{sku}", "twice")):
        with pytest.raises(OptionError) as raised:
            Pattern(wrong)
        assert told in f"{raised.value.message} {raised.value.hint}"
    with pytest.raises(OptionError, match="does not fit the pattern"):
        Pattern("{sku}_{angle}").read("mug")


def test_a_wrong_gtin_blocks_its_photo_and_no_other(catalogue: Callable[..., Any], tmp_path: Path) -> None:
    folder, out, table = tmp_path / "photos", tmp_path / "out", tmp_path / "names.csv"
    photo(folder / "good.jpg")
    photo(folder / "bad.jpg", 220)
    table.write_text(f"file,gtin\ngood.jpg,{GTIN}\nbad.jpg,4006381333932\n")
    result = catalogue(folder, "-o", out, "--names", table, "--name", "{gtin14}_{n}")
    assert result.exit_code == 1
    assert [p.name for p in (out / "ready").iterdir()] == [f"0{GTIN}_1.jpg"]
    reason = by_photo(out)["bad.jpg"]["reasons"][0]
    assert "its check digit is 1" in reason["message"] and reason["mend"]
    assert by_photo(out)["bad.jpg"]["before"]  # the report shows which photo it is


def test_one_name_for_two_photos_goes_to_neither(catalogue: Callable[..., Any], tmp_path: Path) -> None:
    folder, out, table = tmp_path / "photos", tmp_path / "out", tmp_path / "names.csv"
    for shade, name in ((230, "a"), (220, "b"), (225, "c")):
        photo(folder / f"{name}.jpg", shade)
    table.write_text("file,sku\na.jpg,RED\nb.jpg,red\nc.jpg,BLUE\n")
    result = catalogue(folder, "-o", out, "--names", table, "--name", "{sku}")
    assert result.exit_code == 1
    assert [p.name for p in (out / "ready").iterdir()] == ["BLUE.jpg"]
    for name, other in (("a.jpg", "b.jpg"), ("b.jpg", "a.jpg")):
        reason = by_photo(out)[name]["reasons"][0]
        assert other in reason["message"] and "{n}" in reason["mend"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,skuu\na,b\n", "unknown column `skuu`; did you mean `sku`?"),
        ("file,sku,colour\na,b,c\n", "unknown column `colour`; known are file, sku"),
        ("file,sku,sku\na,b,c\n", "twice"),
        ("file,angle\na,front\n", "expected `file`, and `sku` or `gtin`"),
        ("", "expected `file`, and `sku` or `gtin`"),
        ("file,sku\n,b\n", "line 2 names no file"),
        ("file,sku\na,\n", "has neither sku nor gtin"),
        ("file,sku\na,b,c\n", "more cells than there are columns"),
        ("file,sku,n\na,b,zero\n", "n is 'zero'; expected 1 to 9999"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, text: str, told: str) -> None:
    table = tmp_path / "names.csv"
    table.write_text(text)
    with pytest.raises(OptionError) as raised:
        read_names(table)
    assert told in raised.value.message and str(table) in raised.value.message and raised.value.hint


def test_a_table_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "names.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    for name in ("names.xlsx", "nothing.csv"):
        with pytest.raises(OptionError, match="cannot read the names"):
            read_names(tmp_path / name)


def test_rows_find_their_photos(tmp_path: Path) -> None:
    photos = [PurePosixPath(p) for p in ("a/x.jpg", "b/x.jpg", "Y.JPG")]
    found = match([Row("1", "a\\x.jpg", "A"), Row("2", "y", "Y"), Row("3", "z", "Z")], photos)
    assert {str(p): row.sku for p, row in found.rows.items()} == {"a/x.jpg": "A", "Y.JPG": "Y"}
    assert [row.file for row in found.missing] == ["z"]
    with pytest.raises(OptionError, match=r"could be a/x\.jpg, b/x\.jpg"):
        match([Row("1", "x.jpg", "A")], photos)
    with pytest.raises(OptionError, match=r"are both about Y\.JPG"):
        match([Row("1", "y.jpg", "A"), Row("2", "Y.JPG", "B")], photos)


@pytest.mark.parametrize("sku", ["../up", "a/b", "a:b", "CON", "a\u202eb", ".", "x" * 200])
def test_numbers_that_are_no_file_names_are_refused(sku: str) -> None:
    (found,) = named("{sku}", "a.jpg", a=Row("line 2", "a.jpg", sku))
    assert isinstance(found.error, OptionError) and not found.names


def test_an_unknown_angle_is_told_with_the_nearest() -> None:
    (found,) = named("{sku}_{face}", "a.jpg", a=Row("line 2", "a.jpg", "A", angle="frnt"))
    assert found.error is not None and found.error.hint == "write front"
    (found,) = named("{sku}_{face}", "a.jpg", a=Row("line 2", "a.jpg", "A", angle="24/24"))
    assert found.error is not None and "expected 0 to 23" in found.error.message
