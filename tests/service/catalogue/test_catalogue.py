"""A folder of photos in, a folder for the market out: what is ready, what is not and why, what a second run does."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import save_image
from boothsam.service.presets.check import check
from boothsam.service.presets.preset import load_preset

from tests.service.catalogue.conftest import PRESET, by_photo, files, journal, photo, report
from tests.service.conftest import RED, disc

Run = Callable[..., Any]


def ready(out: Path) -> list[str]:
    return sorted(p.name for p in (out / "ready").glob("*"))


def test_a_folder_becomes_pictures_and_a_report(catalogue: Run, folder: Path, market: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = catalogue(folder, "-o", out, "--json")
    assert result.exit_code == 1, result.stderr  # not everything is ready
    assert ready(out) == ["MUG-7_1.jpg", "MUG-7_2.jpg"]
    assert [p.name for p in (out / "needs-work").iterdir()] == ["cup_1.jpg"]
    found = by_photo(out)
    assert found["MUG-7_front.jpg"]["output"] == "ready/MUG-7_1.jpg"  # the front comes first, whatever its name
    assert found["MUG-7_back.jpg"]["output"] == "ready/MUG-7_2.jpg"
    assert found["cup.jpg"]["status"] == "retake"
    assert [r["code"] for r in found["cup.jpg"]["reasons"] if r["kind"] == "retake"] == ["touches_border"]
    assert found["empty.png"]["reasons"][0]["code"] == "nothing_found"
    assert found["torn.jpg"]["reasons"][0]["code"] == "broken_image"
    preset = load_preset(str(market))
    for name in ready(out):
        assert check((out / "ready" / name).read_bytes(), preset, name=name).passed
    told = json.loads(result.stdout)
    assert told | {"ready": 2, "retake": 1, "refused": 0, "failed": 2, "waiting": 0, "photos": 5} == told
    assert "report: " in result.stderr
    _the_sums_are_those_of_the_records(folder, out)
    catalogue(folder, "-o", out, "--accept-retakes")
    assert ready(out) == ["MUG-7_1.jpg", "MUG-7_2.jpg", "cup_1.jpg"] and not list((out / "needs-work").iterdir())
    entry = by_photo(out)["cup.jpg"]
    assert entry["status"] == "ready"  # told all the same
    assert {"kind": "advice", "code": "touches_border"}.items() <= entry["reasons"][0].items()


def _the_sums_are_those_of_the_records(folder: Path, out: Path) -> None:
    body, lines = report(out), journal(out)
    totals = body["totals"]
    assert totals["photos"] == len(lines) == len(list(folder.iterdir()))
    statuses = Counter(entry["status"] for entry in body["pictures"])
    assert {name: totals[name] for name in statuses} == statuses
    assert totals["pictures"] == sum(len(line.get("products", ())) for line in lines)
    assert totals["pictures"] == len(ready(out)) + len(list((out / "needs-work").iterdir()))
    rows = list(csv.DictReader((out / "report.csv").read_text().splitlines()))
    assert [(row["photo"], row["status"]) for row in rows] == [(e["photo"], e["status"]) for e in body["pictures"]]
    page = (out / "report.html").read_text()
    for status in ("ready", "retake", "failed"):
        assert f'href="#{status}"' in page and f'<section id="{status}">' in page
        assert page.count(f'<article class="card {status}">') == totals[status]
    assert '<section id="refused">' not in page and "<script" not in page
    assert str(folder) not in page  # a report is handed on: no path of this machine


def test_everything_ready_ends_with_0_and_again_does_nothing(catalogue: Run, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    photo(folder / "a" / "1.jpg")
    photo(folder / "a" / "2.jpg", 220)
    photo(folder / "b" / "1.jpg", 225)
    assert catalogue(folder, "-o", out).exit_code == 0
    assert ready(out) == ["a_1.jpg", "a_2.jpg", "b_1.jpg"]  # a folder is a product
    before, times = files(out), {p: p.stat().st_mtime_ns for p in (out / "ready").iterdir()}
    result = catalogue(folder, "-o", out)
    assert result.exit_code == 0 and "as before" in result.stderr
    assert files(out) == before and {p: p.stat().st_mtime_ns for p in (out / "ready").iterdir()} == times
    assert len(journal(out)) == 3
    (out / "ready" / "a_2.jpg").unlink()
    assert catalogue(folder, "-o", out).exit_code == 0 and files(out) == before and len(journal(out)) == 4


def test_names_csv_and_what_it_changes(catalogue: Run, tmp_path: Path) -> None:
    folder, out, names = tmp_path / "photos", tmp_path / "out", tmp_path / "names.csv"
    photo(folder / "x.jpg", 230)
    photo(folder / "y.jpg", 220)
    names.write_text("file;sku;gtin;angle\nx.jpg;RED;;back\ny;RED;;front\nz.jpg;BLUE;;\n")
    result = catalogue(folder, "-o", out, "--names", names)
    assert result.exit_code == 0 and "there is no photo 'z.jpg'" in result.stderr
    first = files(out)
    assert by_photo(out)["y.jpg"]["output"] == "ready/RED_1.jpg" and report(out)["missing"] == ["z.jpg"]
    assert "Named, but not in the folder" in (out / "report.html").read_text()
    # Swapped: each name now holds the other photo's picture; and back, which must not be taken for done.
    names.write_text("file;sku;angle\nx.jpg;RED;front\ny;RED;back\n")
    assert catalogue(folder, "-o", out, "--names", names).exit_code == 0
    swapped = files(out)
    assert swapped["ready/RED_1.jpg"] == first["ready/RED_2.jpg"] != first["ready/RED_1.jpg"]
    names.write_text("file;sku;angle\nx.jpg;RED;back\ny;RED;front\n")
    assert catalogue(folder, "-o", out, "--names", names).exit_code == 0 and files(out) == first
    names.write_text("file;sku;angle\nx.jpg;GREEN;\ny;RED;\n")
    result = catalogue(folder, "-o", out, "--names", names)
    assert result.exit_code == 0 and ready(out) == ["GREEN_1.jpg", "RED_1.jpg"] and "removed" in result.stderr


def test_a_name_that_changes_hands_is_done_again_after_a_crash(catalogue: Run, tmp_path: Path) -> None:
    folder, out, names = tmp_path / "photos", tmp_path / "out", tmp_path / "names.csv"
    photo(folder / "x.jpg", 230)
    photo(folder / "y.jpg", 220)
    names.write_text("file,sku\nx.jpg,A\ny.jpg,B\n")
    assert catalogue(folder, "-o", out, "--names", names).exit_code == 0
    first, lines = files(out), (out / ".catalogue" / "journal.jsonl").read_text().splitlines(True)
    names.write_text("file,sku\nx.jpg,B\ny.jpg,A\n")
    assert catalogue(folder, "-o", out, "--names", names).exit_code == 0
    # As if it had been killed when only the second photo's line was missing, and the table had then been put back.
    done = (out / ".catalogue" / "journal.jsonl").read_text().splitlines(True)
    (out / ".catalogue" / "journal.jsonl").write_text("".join(lines + done[2:3]))
    names.write_text("file,sku\nx.jpg,A\ny.jpg,B\n")
    assert catalogue(folder, "-o", out, "--names", names).exit_code == 0
    assert files(out) == first


def test_pictures_of_photos_that_are_gone_go_and_others_stay(catalogue: Run, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    photo(folder / "a.jpg")
    gone = [photo(folder / "b.jpg", 220), photo(folder / "empty.jpg", radius=0), photo(folder / "no:name.jpg", 225)]
    assert catalogue(folder, "-o", out).exit_code == 1
    assert ready(out) == ["a_1.jpg", "b_1.jpg"] and len(list((out / "thumbs").iterdir())) == 6
    (out / "ready" / "mine.txt").write_text("a note")
    for path in gone:
        path.unlink()
    assert catalogue(folder, "-o", out).exit_code == 0
    assert ready(out) == ["a_1.jpg", "mine.txt"] and len(list((out / "thumbs").iterdir())) == 2


def test_a_file_of_somebody_else_is_not_replaced(catalogue: Run, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    photo(folder / "a.jpg")
    (out / "ready").mkdir(parents=True)
    (out / "ready" / "a_1.jpg").write_bytes(b"precious")
    result = catalogue(folder, "-o", out)
    assert result.exit_code == 1 and "is not of this catalogue" in result.stderr
    assert (out / "ready" / "a_1.jpg").read_bytes() == b"precious"
    assert catalogue(folder, "-o", out, "--force").exit_code == 0
    assert (out / "ready" / "a_1.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_a_picture_mended_by_hand_stays(catalogue: Run, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    photo(folder / "cup.jpg", centre=(20, 200))  # cut off
    assert catalogue(folder, "-o", out).exit_code == 1
    mended = out / "ready" / "cup_1.jpg"
    mended.parent.mkdir(exist_ok=True)
    mended.write_bytes(b"painted for an hour")
    photo(folder / "new.jpg", 220)
    assert catalogue(folder, "-o", out).exit_code == 1
    assert mended.read_bytes() == b"painted for an hour" and ready(out) == ["cup_1.jpg", "new_1.jpg"]
    photo(folder / "cup.jpg", 225)  # taken again: now it would be ready
    result = catalogue(folder, "-o", out)
    assert result.exit_code == 1 and "is not of this catalogue" in result.stderr
    assert mended.read_bytes() == b"painted for an hour"
    (folder / "cup.jpg").unlink()
    assert catalogue(folder, "-o", out).exit_code == 0 and mended.read_bytes() == b"painted for an hour"


def test_a_file_written_before_a_crash_is_the_catalogues_own(catalogue: Run, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    photo(folder / "a.jpg")
    photo(folder / "b.jpg", 220)
    assert catalogue(folder, "-o", out).exit_code == 0
    before = files(out)
    # As if it had been killed between the second picture and its line, in the middle of a note.
    lines = (out / ".catalogue" / "journal.jsonl").read_text().splitlines(True)
    (out / ".catalogue" / "journal.jsonl").write_text(lines[0])
    with (out / ".catalogue" / "written.jsonl").open("a") as notes:
        notes.write('{"outputs": ["ready/c')
    assert catalogue(folder, "-o", out).exit_code == 0 and files(out) == before
    (out / ".catalogue" / "journal.jsonl").write_text(lines[0])
    gone = json.loads(lines[0])["photo"]
    for path in folder.iterdir():
        if str(path) != gone:
            path.unlink()
    assert catalogue(folder, "-o", out).exit_code == 0 and len(ready(out)) == 1


def test_what_its_own_check_refuses_never_lands_in_ready(catalogue: Run, tmp_path: Path) -> None:
    folder, out, strict = tmp_path / "photos", tmp_path / "out", tmp_path / "strict.toml"
    photo(folder / "a.jpg")
    photo(folder / "12345.jpg", 220)
    rule = '\n[[rules]]\nrule = "name"\nvalue = "[0-9]+_1"\nsource = "https://example.org/<rules>"\n'
    strict.write_text(PRESET + rule)
    result = catalogue(folder, "-o", out, "--preset", strict)
    assert result.exit_code == 1 and ready(out) == ["12345_1.jpg"]
    entry = by_photo(out)["a.jpg"]
    assert (entry["status"], entry["output"]) == ("refused", "needs-work/a_1.jpg")
    assert [r["code"] for r in entry["reasons"] if r["kind"] == "rule"] == ["name"] and entry["reasons"][0]["mend"]
    assert 'href="https://example.org/&lt;rules&gt;"' in (out / "report.html").read_text()
    # The shop mends the name: the picture moves over, and nothing is left behind.
    (folder / "a.jpg").rename(folder / "77.jpg")
    assert catalogue(folder, "-o", out, "--preset", strict).exit_code == 0
    assert ready(out) == ["12345_1.jpg", "77_1.jpg"] and not list((out / "needs-work").iterdir())


def test_several_products_of_one_photo(catalogue: Run, tmp_path: Path) -> None:
    folder, out, boxes = tmp_path / "photos", tmp_path / "out", tmp_path / "boxes.json"
    image = np.full((400, 600, 3), 230, np.uint8)
    disc(image, (150, 200), 80, RED)
    disc(image, (450, 200), 80, RED)
    folder.mkdir()
    save_image(folder / "pair.png", image)
    photo(folder / "one.png")
    records = [{"bbox": [x, 110, 180, 180], "file_name": "pair.png"} for x in (60, 360)]
    boxes.write_text(json.dumps([*records, {"bbox": [210, 110, 180, 180], "file_name": "one.png"}]))
    assert catalogue(folder, "-o", out, "--boxes", boxes).exit_code == 0
    assert ready(out) == ["one_1.jpg", "pair_1.jpg", "pair_2.jpg"]
    result = catalogue(folder, "-o", out, "--boxes", boxes, "--name", "{stem}")
    assert result.exit_code == 1 and ready(out) == ["one.jpg"] and "would both be called pair" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--preset", "amazn"), "--preset amazon"),
        (("--name", "{skuu}"), "write {sku}"),
        (("--name", "fixed"), "has no field"),
        (("--pattern", "{skuu}"), "write {sku}"),
        (("--shadow", "cast"), "a cast shadow darkens the background"),
        (("--size", "300"), "the canvas is 300x300 pixels"),
        (("--plate", "nothing.jpg"), "nothing.jpg"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_is_done(
    catalogue: Run, folder: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    result = catalogue(folder, "-o", tmp_path / "out", *arguments)
    assert result.exit_code in (1, 2) and told in result.stderr and "hint:" in result.stderr
    assert not (tmp_path / "out").exists()


def test_folders_that_are_none(catalogue: Run, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    result = catalogue(tmp_path / "nothing", "-o", tmp_path / "out")
    assert result.exit_code == 2 and "no photo in" in result.stderr
    result = catalogue(tmp_path / "missing", "-o", tmp_path / "out")
    assert result.exit_code == 2 and "is no folder" in result.stderr
    photo(tmp_path / "photos" / "a.jpg")
    result = catalogue(tmp_path / "photos", "-o", tmp_path / "photos")
    assert result.exit_code == 2 and "lie in the output folder" in result.stderr


def test_only_the_empty_booth_differs(catalogue: Run, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    photo(folder / "a.png")
    plate = photo(tmp_path / "plate.png", radius=0)
    assert catalogue(folder, "-o", out, "--plate", plate).exit_code == 0
    assert ready(out) == ["a_1.jpg"]
