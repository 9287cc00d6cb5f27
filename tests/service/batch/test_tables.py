"""CSV and Parquet: prompts, names and looks by the row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boothsam.runtime.errors import BackendUnavailable, OptionError
from boothsam.runtime.images import load_image
from boothsam.service.batch.tables import read_table
from PIL import Image

from tests.service.batch.conftest import BOX, files, journal

Batch = Callable[..., Any]


def test_rows_say_where_the_product_is_and_how_it_looks(batch: Batch, folder: Path, tmp_path: Path) -> None:
    table = folder / "photos.csv"
    table.write_text(
        "photo,sku,box,points,labels,background,size,price\n"
        f'a.png,mug-1,"{BOX}",,,white,200,9.99\n'
        'sub/a.jpg,,,"400,150;100,300",1;0,,,\n'
        f'sub/b.jpg,both,"{BOX};10,10,90,90",,,,,\n'
        f'a.png,twice,"{BOX}",,,black,,\n'
        'sub/a.png,bad,"1,2,3",,,,,\n'
        "sub/a.png,../../up,,,,,,\n"
        'sub/a.png,colour,"310,60,490,240",,,no-colour,,\n'
        'gone.png,,"310,60,490,240",,,,,\n',
        encoding="utf-8-sig",
    )
    out = tmp_path / "cut"
    result = batch(table, "-o", out, "--fill", "0.5")
    assert result.exit_code == 1
    assert "columns that mean nothing here: price" in result.stderr
    made = files(out)
    assert sorted(made) == ["mug-1.png", "sub/a.png", "sub/both-1.png", "sub/both-2.png", "twice.png"]
    assert load_image(out / "mug-1.png").shape == (200, 200, 3)
    with Image.open(out / "sub" / "a.png") as shown:
        assert shown.mode == "RGBA"
    failed = {line["id"].rpartition("/")[2]: line["error"] for line in journal(out) if line["status"] == "failed"}
    assert {name: error["code"] for name, error in failed.items()} == {
        "a.png": "invalid_prompt",  # rows that are wrong go by their photo
        "a.png#2": "invalid_field",
        "a.png#colour": "invalid_field",
        "gone.png": "not_found",
    }
    assert "photos.csv, row 6" in failed["a.png"]["message"]
    lines = journal(out)
    assert batch(table, "-o", out, "--fill", "0.5").exit_code == 1
    assert journal(out) == lines


def test_parquet_may_hold_lists(batch: Batch, folder: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="boothsam[batch] is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {
        "photo": ["a.png", "sub/a.jpg", "sub/b.jpg"],
        "box": [[310.0, 60.0, 490.0, 240.0], None, None],
        "points": [None, [[400.0, 150.0], [100.5, 300.0]], None],
        "labels": [None, [1, 0], None],
        "name": ["one", "", None],
    }
    table = folder / "photos.parquet"
    parquet.write_table(pyarrow.table(rows), table)
    result = batch(table, "-o", tmp_path / "cut", "--box", BOX)
    assert result.exit_code == 0, result.stderr
    assert sorted(files(tmp_path / "cut")) == ["one.png", "sub/a.png", "sub/b.png"]
    asked = {line["photo"]: line["products"][0] for line in journal(tmp_path / "cut")}
    assert asked[str(folder / "a.png")]["box_xyxy"] == [310, 60, 490, 240]
    assert asked[str(folder / "sub" / "a.jpg")]["point_coords"] == [[400, 150], [100.5, 300]]
    assert asked[str(folder / "sub" / "a.jpg")]["point_labels"] == [1, 0]


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "photos.parquet").write_bytes(b"PAR1")
    with pytest.raises(BackendUnavailable) as caught:
        list(read_table(tmp_path / "photos.parquet"))
    assert caught.value.hint == "pip install 'boothsam[batch]'"


@pytest.mark.parametrize("text", ["photo;box\na.png;1,2,30,40\n", "photo\tbox\na.png\t1,2,30,40\n"])
def test_other_separators(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    (row,) = read_table(tmp_path / "t.csv")
    assert row.request is not None and row.request.boxes == ((1, 2, 30, 40),)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"path,box\na.png,\n", "no column `photo`; it has path, box"),
        (b"", "no column `photo`; it has none"),
        (b'photo,box\n,"1,2,3,4"\n', "row 2 names no photo"),
        (b"photo\n\xff\xfe\n", "cannot read the table"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(OptionError, match=message):
        list(read_table(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("size", "12.5", "whole number"),
        ("size", "0", "1 to 16384"),
        ("quality", "many", "is no number"),
        ("fill_holes", "perhaps", "true or false"),
        ("name", ".hidden", "cannot be a file's name"),
        ("name", "a/b", "cannot be a file's name"),
        ("labels", "1", "0 points but 1 labels"),
        ("points", "1;2", "expected x,y"),
    ],
)
def test_wrong_cells_fail_their_row(tmp_path: Path, column: str, value: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(f"photo,{column}\na.png,{value}\nb.png,\n")
    wrong, right = read_table(tmp_path / "t.csv")
    assert wrong.error is not None and message in wrong.error.message and "row 2" in wrong.error.message
    assert right.error is None and right.request is None
