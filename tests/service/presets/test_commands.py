"""`boothsam crop --preset` and `boothsam check`, on a real session."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.credits import Credits, read_credits
from boothsam.runtime.images import load_image
from PIL import Image

from tests.service.conftest import DISC_BOX
from tests.service.presets.pictures import canvas, jpeg

Run = Callable[..., Any]
GTIN = "4006381333931"


@pytest.mark.parametrize("preset", ["amazon", "google", "ebay", "shopify", "vtex"])
def test_crop_then_check(run: Run, photos: Path, tmp_path: Path, preset: str) -> None:
    made = run("crop", photos / "one.png", "--box", DISC_BOX, "--preset", preset, "-o", f"{tmp_path}/")
    assert made.exit_code == 0, made.stderr
    assert made.stdout == f"{tmp_path / 'one.jpg'}\n"
    assert "will look soft" in made.stderr
    checked = run("check", "--preset", preset, tmp_path / "one.jpg")
    assert checked.exit_code == 0, checked.stderr
    assert checked.stdout == f"{tmp_path / 'one.jpg'}: {preset}: passed\n" and checked.stderr == ""


def test_a_gs1_picture_is_named_by_its_gtin(run: Run, photos: Path, tmp_path: Path) -> None:
    made = run("crop", photos / "one.png", "--auto", "--preset", "gs1", "--gtin", GTIN, "-o", f"{tmp_path}/", "--json")
    assert made.exit_code == 0, made.stderr
    record = json.loads(made.stdout)
    (product,) = record["products"]
    assert Path(product["output"]).name == f"0{GTIN}_A1N1.jpg"
    assert product["preset"]["passed"] and product["preset"]["preset"] == "gs1"
    assert [warning for warning in product["warnings"] if "enlarged" in warning["message"]]
    assert run("check", "--preset", "gs1", product["output"]).exit_code == 0
    crop = ("crop", photos / "one.png", "--auto", "--preset", "gs1")
    wrong = run(*crop, "--gtin", "4006381333932", "-o", f"{tmp_path}/x/")
    assert wrong.exit_code == 1 and "its check digit is 1" in wrong.stderr and not (tmp_path / "x").exists()
    unnamed = run(*crop, "-o", f"{tmp_path}/x/")
    assert unnamed.exit_code == 1 and "needs {gtin14}" in unnamed.stderr and "--gtin" in unnamed.stderr
    named = run(*crop, "-o", tmp_path / "front.jpg")
    assert named.exit_code == 1 and "front.jpg breaks a rule of gs1: name" in named.stderr
    assert not (tmp_path / "front.jpg").exists()


def test_names_by_template_and_photos_without_one(run: Run, photos: Path, tmp_path: Path) -> None:
    options = ("--name", "{sku}_{n}", "--sku", "MUG", "--format", "png")
    made = run("crop", photos / "one.png", photos / "two.jpg", "--auto", *options, "-o", f"{tmp_path}/")
    assert made.exit_code == 0, made.stderr
    assert [Path(line).name for line in made.stdout.split()] == ["MUG_1.png", "MUG_2.png"]
    again = run("crop", photos / "one.png", "--auto", *options, "-o", f"{tmp_path}/")
    assert again.exit_code == 1 and "MUG_1.png exists" in again.stderr
    single = run("crop", photos / "one.png", "--auto", "--name", "{stem}_1", "-o", tmp_path / "a.png")
    assert single.exit_code == 2 and "is a file" in single.stderr
    same = run(
        "crop", photos / "one.png", photos / "two.jpg", "--auto", "--name", "{sku}", "--sku", "M", "-o", tmp_path
    )
    assert same.exit_code == 1 and "would both be called M.png" in same.stderr
    away = run("crop", photos / "one.png", "--auto", "--name", "{sku}", "--sku", "../x", "-o", f"{tmp_path}/")
    assert away.exit_code == 1 and "characters that file names cannot have" in away.stderr


def test_choices_against_a_preset(run: Run, photos: Path, tmp_path: Path) -> None:
    crop = ("crop", photos / "one.png", "--auto", "-o", f"{tmp_path}/")
    law = run(*crop, "--preset", "amazon", "--background", "grey")
    assert law.exit_code == 2 and "amazon wants a background of exactly white" in law.stderr
    assert "hint: leave --background out" in law.stderr and not list(tmp_path.iterdir())
    advice = run(*crop, "--preset", "amazon", "--size", "700")
    assert advice.exit_code == 0 and advice.stderr.count("700x700") == 1 and "warning:" in advice.stderr
    unknown = run(*crop, "--preset", "amazon.co.uk")
    assert unknown.exit_code == 2 and "hint: --preset amazon" in unknown.stderr


def test_a_preset_of_ones_own(run: Run, photos: Path, tmp_path: Path) -> None:
    own = tmp_path / "shop.toml"
    own.write_text(
        'base = "amazon"\n[make]\nsize = [300, 500]\nname = "{sku}-{n:02}"\n'
        '[[rules]]\nrule = "aspect"\nvalue = "3:5"\n[[rules]]\nrule = "min_longest"\nvalue = 500\n'
    )
    made = run("crop", photos / "one.png", "--auto", "--preset", own, "--sku", "MUG", "-o", f"{tmp_path}/out/")
    assert made.exit_code == 0, made.stderr
    output = tmp_path / "out" / "MUG-01.jpg"
    assert load_image(output).shape == (500, 300, 3)
    assert run("check", "--preset", own, output).exit_code == 0
    failed = run("check", "--preset", "amazon", output)
    assert failed.exit_code == 0 and "min_longest" in failed.stderr  # advice
    own.write_text("[[rules]]\nrule = 'max_byte'\nvalue = 1\n")
    assert "hint: write max_bytes instead of max_byte" in run("check", "--preset", own, output).stderr


def test_check_tells_what_is_wrong_and_what_mends_it(run: Run, tmp_path: Path) -> None:
    good, small, broken, text = (tmp_path / name for name in ("good.jpg", "small.jpg", "broken.jpg", "text.txt"))
    good.write_bytes(jpeg(canvas(side=1000)))
    small.write_bytes(jpeg(canvas(0.5, 1000)))
    broken.write_bytes(jpeg(canvas())[:3000])
    text.write_text("no picture")
    result = run("check", "--preset", "amazon", good, small, broken, text, tmp_path / "gone.jpg")
    assert result.exit_code == 1
    assert result.stdout == f"{good}: amazon: passed\n{small}: amazon: failed: min_fill\n"
    for line in (
        "found: 50.4 %: the product's box is 344x504 in 1000x1000",
        "wanted: a product that spans 85 % or more",
        "source: https://",
        "checked 2026-11-21",
    ):
        assert line in result.stderr
    assert "hint: boothsam crop PHOTO --auto --preset amazon --fill 0.88" in result.stderr
    assert "truncated" in result.stderr and "no image" in result.stderr and "gone.jpg" in result.stderr
    assert "4 of 5 pictures failed" in result.stderr
    lines = [
        json.loads(line) for line in run("check", "--preset", "amazon", small, broken, "--json").stdout.splitlines()
    ]
    assert [line["passed"] for line in lines] == [False, False]
    assert [f["rule"] for f in lines[0]["findings"] if f["passed"] is False] == ["min_fill"]
    assert lines[1]["error"]["hint"]


def test_check_on_a_day_to_come(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(jpeg(canvas(0.84, 400)))
    assert run("check", "--preset", "google", picture, "--on", "2027-01-30").exit_code == 0
    assert run("check", "--preset", "google", picture, "--on", "2027-01-31").exit_code == 1
    assert run("check", "--preset", "google", picture, "--on", "tomorrow").exit_code == 2


@pytest.mark.parametrize("command", ["crop", "batch"])
def test_credits_stay_and_everything_else_goes(
    run: Run, photos: Path, tmp_path: Path, color_folder: Path, command: str
) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x013B], exif[0x8298] = "Maker", "Ann", "Ann 2026"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8769)[0xA431] = "SERIAL-1"
    source = tmp_path / "in" / "one.jpg"
    source.parent.mkdir()
    with Image.open(photos / "one.png") as picture:
        picture.save(source, exif=exif, quality=95)
    for kind in ("png", "jpg", "webp"):
        out = tmp_path / kind
        where = source if command == "crop" else source.parent
        model = ("--model", color_folder, "--threads", "1") if command == "batch" else ()
        look = ("--auto", "--background", "white", "--format", kind)
        result = run(command, where, *look, *model, "-o", f"{out}/")
        assert result.exit_code == 0, result.stderr
        data = (out / f"one.{kind}").read_bytes()
        assert read_credits(data) == Credits("Ann", "Ann 2026")
        assert b"SERIAL" not in data and b"Maker" not in data
        with Image.open(out / f"one.{kind}") as made:
            made.load()
            assert set(made.getexif()) == {0x013B, 0x8298}
    assert np.array_equal(load_image(tmp_path / "png" / "one.png")[0, 0], (255, 255, 255))


def test_damaged_metadata_is_no_python_warning(run: Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera's maker"
    data = jpeg(canvas())
    block = exif.tobytes().replace(struct.pack(">HHI", 0x010F, 2, 17), struct.pack(">HHI", 0x010F, 2, 60_000))
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    (tmp_path / "B0.jpg").write_bytes(data)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Image.open(tmp_path / "B0.jpg").getexif()
        assert seen  # Pillow warns
        seen.clear()
        assert run("check", "--preset", "amazon", tmp_path / "B0.jpg").exit_code == 0
        assert not seen
