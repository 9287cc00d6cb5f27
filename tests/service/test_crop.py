"""`boothsam crop` on a real session: pictures, names, formats, JSON, many photos."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.images import load_image
from boothsam.service.cropping import Look
from boothsam.service.prompts import Answer
from PIL import Image

from tests.service.conftest import DISC_BOX

Run = Callable[..., Any]


def rgba(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGBA"))


@pytest.mark.parametrize("prompt", [("--box", DISC_BOX), ("--point", "400,150"), ("--auto",)])
def test_a_transparent_cut_out(run: Run, photos: Path, tmp_path: Path, prompt: tuple[str, ...]) -> None:
    result = run("crop", photos / "one.png", *prompt, "-o", tmp_path / "cut.png")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'cut.png'}\n"
    assert result.stderr == ""
    picture = rgba(tmp_path / "cut.png")
    assert picture.shape[:2] == pytest.approx((161, 161), abs=8)
    middle = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    assert middle.tolist() == [190, 40, 35, 255]
    assert picture[0, 0].tolist() == [0, 0, 0, 0]
    # The disc's share of its square, pi / 4; the colour model works in cells of 5 photo pixels.
    assert (picture[..., 3] > 127).mean() == pytest.approx(np.pi / 4, abs=0.06)


def test_a_shop_picture(run: Run, photos: Path, tmp_path: Path) -> None:
    options = ("--background", "#ffeedd", "--fill", "0.5", "--size", "400", "--quality", "95")
    result = run("crop", photos / "one.png", "--box", DISC_BOX, *options, "-o", tmp_path / "cut.jpg")
    assert result.exit_code == 0, result.stderr
    picture = load_image(tmp_path / "cut.jpg").astype(int)
    assert picture.shape == (400, 400, 3)
    assert np.abs(picture[0, 0] - (255, 238, 221)).max() <= 2
    red = picture[..., 0] - picture[..., 1] > 80
    columns = np.flatnonzero(red.any(0))
    assert columns[-1] - columns[0] == pytest.approx(200, abs=6)
    assert columns.mean() == pytest.approx(199.5, abs=3)


def test_a_shadow_under_the_product(run: Run, photos: Path, tmp_path: Path) -> None:
    for shadow in ("none", "drop"):
        options = ("--background", "white", "--size", "400", "--fill", "0.5", "--shadow", shadow)
        result = run("crop", photos / "one.png", "--box", DISC_BOX, *options, "-o", tmp_path / f"{shadow}.png")
        assert result.exit_code == 0, result.stderr
    plain, dropped = (rgba(tmp_path / f"{shadow}.png")[..., :3].astype(int) for shadow in ("none", "drop"))
    assert (plain[303:308, 200] == 255).all()
    assert (dropped[303:308, 200] < 246).all() and (dropped[2, 2] == 255).all()
    assert np.abs(plain[200, 200] - dropped[200, 200]).max() <= 2
    result = run("crop", photos / "one.png", "--box", DISC_BOX, "--shadow", "long", "-o", tmp_path / "long.png")
    assert result.exit_code == 2 and "unknown shadow 'long'; expected none, drop, contact, cast" in result.stderr


def test_several_boxes_and_photos_go_to_a_folder(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    result = run("crop", photos / "two.jpg", "--box", DISC_BOX, "--box", "60,60,240,240", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split() == [str(out / "two-1.png"), str(out / "two-2.png")]
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.png").write_bytes((photos / "one.png").read_bytes())
    result = run("crop", photos / "one.png", other / "one.png", "--box", DISC_BOX, "--format", "webp", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert sorted(p.name for p in out.iterdir()) == ["one.webp", "one_2.webp", "two-1.png", "two-2.png"]
    assert (out / "one.webp").read_bytes() == (out / "one_2.webp").read_bytes()


def test_detections_drive_the_model(run: Run, photos: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    records = [
        {"file_name": "one.png", "bbox": [310, 60, 180, 180], "score": 0.9, "category": "disc"},
        {"file_name": "two.jpg", "bbox": [60, 60, 180, 180], "score": 0.8},
        {"file_name": "two.jpg", "bbox": [0, 0, 50, 50], "score": 0.1},
    ]
    boxes.write_text(json.dumps(records))
    out = tmp_path / "cut"
    arguments = (
        "crop",
        photos / "one.png",
        photos / "two.jpg",
        "--boxes",
        boxes,
        "--min-score",
        "0.5",
        "--json",
        "-o",
        out,
    )
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["products"][0]["category"] == "disc"
    assert first["products"][0]["box_xyxy"] == [310, 60, 490, 240]
    assert second["products"][0]["product_xyxy"] == pytest.approx([70, 70, 231, 231], abs=8)
    assert sorted(p.name for p in out.iterdir()) == ["one.png", "two.png"]


def test_yolo_labels_are_shares_of_the_photo(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("0 0.66667 0.375 0.3 0.45\n")
    result = run("crop", photos / "one.png", "--boxes", tmp_path / "one.txt", "--json", "-o", tmp_path / "cut.png")
    assert json.loads(result.stdout)["products"][0]["box_xyxy"] == pytest.approx([310, 60, 490, 240], abs=0.01)


def test_json_says_what_was_done(run: Run, photos: Path, tmp_path: Path) -> None:
    result = run("crop", photos / "one.png", "--point", "400,150", "--json", "-o", tmp_path / "cut.png")
    record = json.loads(result.stdout)
    assert record["photo"] == str(photos / "one.png")
    assert record["size_hw"] == [400, 600]
    (product,) = record["products"]
    assert product["output"] == str(tmp_path / "cut.png")
    assert product["point_coords"] == [[400, 150]] and product["point_labels"] == [1]
    assert product["product_xyxy"] == pytest.approx([320, 70, 481, 231], abs=8)
    assert 0.9 < product["predicted_iou"] <= 1
    assert (record["backend"], record["precision"], record["model"]) == ("ort-cpu", "fp32", "color")
    assert set(record["ms"]) == {"decode_photo", "encode", "decode", "cut_out", "write"}


def test_background_points_take_away(run: Run, tmp_path: Path, photos: Path) -> None:
    result = run("crop", photos / "one.png", "--point", "100,300", "--json", "-o", tmp_path / "a.png")
    whole = json.loads(result.stdout)["products"][0]["product_xyxy"]
    assert whole == pytest.approx([0, 0, 600, 400], abs=8)
    result = run(
        "crop", photos / "one.png", "--point", "400,150", "--point", "100,300,0", "--json", "-o", tmp_path / "b.png"
    )
    assert json.loads(result.stdout)["products"][0]["product_xyxy"] == pytest.approx([320, 70, 481, 231], abs=8)


def test_holes_and_islands_on_request(run: Run, tmp_path: Path) -> None:
    image = np.full((400, 600, 3), 230, np.uint8)
    image[100:300, 200:400] = (190, 40, 35)
    image[190:210, 290:310] = 230
    Image.fromarray(image).save(tmp_path / "ring.png")
    arguments = ("crop", tmp_path / "ring.png", "--point", "230,130", "-o")
    assert run(*arguments, tmp_path / "with.png").exit_code == 0
    assert (
        run(*arguments, tmp_path / "without.png", "--fill-holes", "--drop-islands", "--small-area", "2000").exit_code
        == 0
    )
    centres = [rgba(tmp_path / name)[..., 3][100, 100] for name in ("with.png", "without.png")]
    assert centres[0] < 64 and centres[1] == 255


def test_two_equal_products_are_told(run: Run, photos: Path, tmp_path: Path) -> None:
    result = run("crop", photos / "two.jpg", "--auto", "--json", "-o", tmp_path / "cut.png")
    assert result.exit_code == 0
    assert "warning:" in result.stderr and "2 objects could be the main product" in result.stderr
    assert "hint: choose with --box" in result.stderr
    record = json.loads(result.stdout)
    assert record["products"][0]["auto"]["ambiguous"] is True
    assert len(record["products"][0]["auto"]["rivals_xyxy"]) == 1
    assert record["warnings"][0]["message"].startswith("ambiguous")


def test_an_empty_backdrop_fails(run: Run, photos: Path, tmp_path: Path) -> None:
    result = run("crop", photos / "empty.png", "--auto", "-o", tmp_path / "cut.png")
    assert result.exit_code == 1
    assert "no product stands out" in result.stderr and "hint:" in result.stderr
    assert not (tmp_path / "cut.png").exists()


def test_one_bad_photo_does_not_stop_the_rest(run: Run, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 and then nothing")
    out = tmp_path / "cut"
    result = run("crop", bad, photos / "one.png", tmp_path / "none.jpg", "--box", DISC_BOX, "--json", "-o", out)
    assert result.exit_code == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["error" in record for record in records] == [True, False, True]
    assert records[0]["error"]["type"] == "ImageError"
    assert result.stderr.count("error: ") == 2
    assert result.stderr.endswith("2 of 3 photos failed\n")
    assert [p.name for p in out.iterdir()] == ["one.png"]


def test_an_existing_file_stays_without_force(run: Run, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "cut.png"
    target.write_bytes(b"mine")
    arguments = ("crop", photos / "one.png", "--box", DISC_BOX, "-o", target)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "exists" in result.stderr and "hint: --force" in result.stderr
    assert target.read_bytes() == b"mine"
    assert run(*arguments, "--overwrite").exit_code == 0
    assert rgba(target).shape[2] == 4


def test_nothing_far_outside_the_box_is_cut_out() -> None:
    everything = Answer(np.full((1, 256, 256), 5, np.float32), np.ones(1, np.float32), 0, (200, 100, 400, 300))
    _, cut = Look("png").picture(np.full((400, 600, 3), 230, np.uint8), everything)
    assert cut.box_xyxy == pytest.approx((180, 80, 420, 320), abs=1)


def test_a_progress_line_for_people_alone(run: Run, photos: Path, color_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "boothsam.service.cli", "crop", *[str(photos / "one.png")] * 3, "--box", DISC_BOX]
    command += ["--model", str(color_folder), "-o", str(tmp_path / "cut")]
    terminal, inside = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=inside, env=os.environ | {"TERM": "xterm"})
    os.close(inside)
    stdout, _ = process.communicate(timeout=60)
    seen = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert process.returncode == 0
    assert [Path(line).name for line in stdout.decode().split()] == ["one.png", "one_2.png", "one_3.png"]
    assert "photo 1/3" in seen and "photo 3/3, " in seen and " s left" in seen
    assert seen.endswith("\r\x1b[K")
