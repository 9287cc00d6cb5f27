"""`boothsam crop --plate` and `--set`, and the same in a batch, on the colour model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.images import load_image, save_image
from boothsam.service.turntable import natural
from PIL import Image

from tests.service.conftest import RED

Run = Callable[..., Any]
Photo = npt.NDArray[np.uint8]
BLUE_GREY = (150, 160, 175)


def booth(
    seed: int = 0, axes: tuple[int, int] | None = None, at: tuple[int, int] = (300, 220), shift: int = 0
) -> Photo:
    """640x480: printed marks on a sheet, with noise; the product is a red ellipse."""
    marks = np.random.default_rng(3)
    image = np.full((480, 640, 3), 195, np.uint8)
    for x, y in zip(marks.integers(0, 640, 70).tolist(), marks.integers(0, 480, 70).tolist(), strict=True):
        cv2.circle(image, (x + shift, y), 3, BLUE_GREY, -1)
    if axes is not None:
        cv2.ellipse(image, at, axes, 0, 0, 360, RED, -1)
    noise = np.random.default_rng(seed).normal(0, 1.5, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def save(folder: Path, name: str, image: Photo) -> Path:
    folder.mkdir(exist_ok=True)
    return save_image(folder / name, image, quality=95)


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    return save(tmp_path, "empty.jpg", booth())


def test_the_plate_takes_the_place_of_a_prompt(run: Run, tmp_path: Path, plate: Path) -> None:
    photo, out = save(tmp_path, "photo.jpg", booth(1, (90, 60))), tmp_path / "cut.png"
    result = run("crop", photo, "--plate", plate, "-o", out, "--json")
    assert result.exit_code == 0, result.stderr
    (product,) = json.loads(result.stdout)["products"]
    assert product["plate"]["state"] == "product" and product["plate"]["moved"] is False
    assert product["product_xyxy"] == pytest.approx([210, 160, 391, 281], abs=8)
    alpha = np.asarray(Image.open(out))[..., 3]
    assert (alpha > 127).sum() == pytest.approx(np.pi * 90 * 60, rel=0.06)
    several = [word for seed in range(3) for word in ("--plate", save(tmp_path, f"empty{seed}.png", booth(seed)))]
    result = run("crop", photo, *several, "-o", tmp_path / "again.png")
    assert result.exit_code == 0, result.stderr


def test_empty_moved_and_other_photos_say_so(run: Run, tmp_path: Path, plate: Path) -> None:
    cases = {
        "none.jpg": (booth(1), "the booth is empty", "take a new plate"),
        "moved.jpg": (booth(1, (90, 60), shift=20), "the camera or the backdrop moved", "take the plate again"),
        "shape.jpg": (booth(1, (90, 60))[:, :400], "another shape than the plate", "same camera"),
    }
    for name, (image, message, hint) in cases.items():
        result = run("crop", save(tmp_path, name, image), "--plate", plate, "-o", tmp_path / "cut.png")
        assert result.exit_code == 1 and message in result.stderr and hint in result.stderr, result.stderr
    assert not (tmp_path / "cut.png").exists()


def test_the_plate_excludes_other_prompts_and_must_be_right(run: Run, tmp_path: Path, plate: Path) -> None:
    photo = save(tmp_path, "photo.jpg", booth(1, (90, 60)))
    result = run("crop", photo, "--plate", plate, "--auto", "-o", tmp_path / "cut.png")
    assert result.exit_code == 2 and "--auto and --plate exclude each other" in result.stderr
    other = save(tmp_path, "other.jpg", booth()[:300])
    result = run("crop", photo, "--plate", plate, "--plate", other, "-o", tmp_path / "cut.png")
    assert result.exit_code == 2 and "sizes 640x480 and 640x300" in result.stderr
    result = run("crop", photo, "--plate", tmp_path / "gone.jpg", "-o", tmp_path / "cut.png")
    assert result.exit_code != 0 and "gone.jpg" in result.stderr


def test_a_batch_by_the_plate(run: Run, tmp_path: Path, color_folder: Path, plate: Path) -> None:
    photos = tmp_path / "photos"
    for index, at in enumerate([(300, 220), (340, 250)]):
        save(photos, f"{index}.jpg", booth(index, (90, 60), at))
    save(photos, "none.jpg", booth(9))
    command = ("batch", photos, "--plate", plate, "-o", tmp_path / "out", "--model", color_folder, "--threads", "1")
    result = run(*command)
    assert result.exit_code == 1, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "batch.jsonl").read_text().splitlines()]
    status = {Path(line["photo"]).name: line["status"] for line in lines}
    assert status == {"0.jpg": "done", "1.jpg": "done", "none.jpg": "failed"}
    assert [line["error"]["code"] for line in lines if line["status"] == "failed"] == ["nothing_found"]
    counted = run(*command).stderr.split()
    assert counted[counted.index("before") + 1] == "2", "the same plate: nothing is done again"
    done = (tmp_path / "out" / "batch.jsonl").read_text()
    save(tmp_path, "empty.jpg", booth(5))
    run(*command)
    assert (tmp_path / "out" / "batch.jsonl").read_text() != done, "another plate is another setting"


def spin(folder: Path, widths: Sequence[int], at: Sequence[tuple[int, int]] | None = None) -> Path:
    for index, width in enumerate(widths):
        place = (300, 220) if at is None else at[index]
        save(folder, f"frame{index}.jpg", booth(index, (width, 80), place))
    return folder


WIDTHS = [100, 95, 80, 60, 45, 40, 45, 60, 80, 95, 100, 98]


def test_all_frames_of_a_set_get_one_box_one_scale_one_canvas(run: Run, tmp_path: Path, plate: Path) -> None:
    folder, out = spin(tmp_path / "spin", WIDTHS), tmp_path / "out"
    options = ("--background", "white", "--fill", "0.8", "--size", "400", "--format", "png")
    result = run("crop", "--set", folder, "--plate", plate, *options, "-o", f"{out}/", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["common_box_xyxy"] == pytest.approx([200, 140, 401, 301], abs=8)
    assert [Path(f["photo"]).name for f in told["frames"]] == [f"frame{i}.jpg" for i in range(12)]
    assert {f["verdict"] for f in told["frames"]} == {"ok"}
    scale = 0.8 * 400 / (told["common_box_xyxy"][2] - told["common_box_xyxy"][0])
    for index, width in enumerate(WIDTHS):
        picture = load_image(out / f"frame{index}.png").astype(int)
        assert picture.shape == (400, 400, 3)
        red = picture[..., 0] - picture[..., 1] > 70
        columns, rows = np.flatnonzero(red.any(0)), np.flatnonzero(red.any(1))
        assert len(columns) == pytest.approx(2 * width * scale, abs=14)
        assert len(rows) == pytest.approx(160 * scale, abs=14)
        assert columns.mean() == pytest.approx(199.5, abs=8) and rows.mean() == pytest.approx(199.5, abs=8)


def test_transparent_frames_keep_the_photos_pixels_and_one_size(run: Run, tmp_path: Path) -> None:
    folder, out = spin(tmp_path / "spin", [100, 70, 40, 70]), tmp_path / "out"
    result = run("crop", "--set", folder, "--box", "180,120,420,320", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split() == [str(out / f"frame{i}.png") for i in range(4)]
    pictures = [np.asarray(Image.open(out / f"frame{i}.png")) for i in range(4)]
    assert len({picture.shape for picture in pictures}) == 1 and pictures[0].shape[2] == 4
    for width, picture in zip([100, 70, 40, 70], pictures, strict=True):
        assert (picture[..., 3] > 127).any(0).sum() == pytest.approx(2 * width, abs=10)


def test_a_bad_frame_is_asked_again_with_its_neighbours_box(run: Run, tmp_path: Path) -> None:
    folder = spin(tmp_path / "spin", [60] * 8)
    image = booth(50, (60, 80))
    cv2.line(image, (300, 220), (640, 480), RED, 40)  # a hand in the product's colour: the colour model takes it along
    save(folder, "frame3.jpg", image)
    box = ("--box", "10,10,630,470")
    result = run("crop", "--set", folder, *box, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["common_box_xyxy"] == pytest.approx([240, 140, 361, 301], abs=8)
    assert [f["verdict"] for f in told["frames"]] == ["ok"] * 3 + ["asked_again"] + ["ok"] * 4
    assert "frame3.jpg" in result.stderr and "asked again" in result.stderr
    alphas = [np.asarray(Image.open(tmp_path / "out" / f"frame{i}.png"))[..., 3] > 127 for i in (2, 3)]
    assert alphas[0].shape == alphas[1].shape and 1 < alphas[1].sum() / alphas[0].sum() < 1.2


def test_a_handle_seen_from_the_side_is_kept(run: Run, tmp_path: Path) -> None:
    """Right in frame 0, left half a turn later; the frames next to that one do not show it."""
    folder = spin(tmp_path / "spin", [60] * 8)
    for index, x in ((0, 370), (4, 230)):
        image = booth(index, (60, 80))
        cv2.ellipse(image, (x, 220), (60, 40), 0, 0, 360, RED, 16)
        save(folder, f"frame{index}.jpg", image)
    result = run("crop", "--set", folder, "--box", "10,10,630,470", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["common_box_xyxy"] == pytest.approx([162, 140, 439, 301], abs=8)
    verdicts = [f["verdict"] for f in told["frames"]]
    assert (verdicts[0], verdicts[4]) == ("confirmed", "confirmed") and {*verdicts} == {"ok", "confirmed"}
    assert told["frames"][4]["box_xyxy"] == pytest.approx([162, 140, 361, 301], abs=8)


def test_a_frame_whose_product_is_gone_or_elsewhere(run: Run, tmp_path: Path, plate: Path) -> None:
    places = [(300, 220)] * 8
    places[5] = (500, 380)
    folder = spin(tmp_path / "spin", [60] * 8, places)
    save(folder, "frame2.jpg", booth(60))
    result = run("crop", "--set", folder, "--plate", plate, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["common_box_xyxy"] == pytest.approx([240, 140, 361, 301], abs=8)
    verdicts = {Path(f["photo"]).stem: f["verdict"] for f in told["frames"]}
    assert verdicts.pop("frame2") == "failed" and verdicts.pop("frame5") == "outlier"
    assert set(verdicts.values()) == {"ok"}
    assert "output" not in told["frames"][2] and told["frames"][2]["error"]["type"] == "NothingFound"
    assert not (tmp_path / "out" / "frame2.png").exists() and (tmp_path / "out" / "frame7.png").exists()
    assert "1 of 8 frames failed" in result.stderr


def test_what_a_set_cannot_be(run: Run, tmp_path: Path) -> None:
    folder, out = spin(tmp_path / "spin", [60, 60]), tmp_path / "out"
    photo = folder / "frame0.jpg"
    box = ("--box", "200,100,400,330")
    for words, message in (
        ((photo, "--set", folder, *box, "-o", out), "both photos and --set"),
        ((*box, "-o", out), "neither photos nor --set"),
        (("--set", folder, *box, *box, "-o", out), "a set shows one product"),
        (("--set", tmp_path / "gone", *box, "-o", out), "is no folder"),
        (("--set", folder, *box, "-o", tmp_path / "one.png"), "names one file"),
        (("--set", folder, *box, "--shadow", "contact", "-o", out), "needs a canvas"),
    ):
        result = run("crop", *words)
        assert result.exit_code == 2 and message in result.stderr, (words, result.stderr)
    (tmp_path / "none").mkdir()
    result = run("crop", "--set", tmp_path / "none", *box, "-o", out)
    assert result.exit_code == 2 and "holds no photos" in result.stderr
    assert run("crop", "--set", folder, *box, "-o", out).exit_code == 0
    again = run("crop", "--set", folder, *box, "-o", out)
    assert again.exit_code != 0 and "--force replaces it" in again.stderr
    save(folder, "frame1.jpg", booth(1, (60, 80))[:400])
    mixed = run("crop", "--set", folder, *box, "-o", out, "--force")
    assert mixed.exit_code == 1 and "the set's first photo has 640x480" in mixed.stderr


def test_frame_9_comes_before_frame_10() -> None:
    names = ["b10.jpg", "b9.jpg", "a2.jpg", "B09.jpg", "10.jpg", "9.jpg", "b.jpg"]
    ordered = [path.name for path in sorted(map(Path, names), key=natural)]
    assert ordered == ["9.jpg", "10.jpg", "a2.jpg", "B09.jpg", "b9.jpg", "b10.jpg", "b.jpg"]
