"""Draw docs/images/presets.jpg: the demo photo and what four presets make of it. Run from the repository's root."""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
from boothsam import SamPredictor
from boothsam.runtime.images import load_image, save_image
from boothsam.runtime.transforms import Uint8Array
from boothsam.service.presets.check import check
from boothsam.service.presets.look import preset_look
from boothsam.service.presets.preset import load_preset
from boothsam.service.prompts import Answer
from PIL import Image, ImageDraw, ImageFont

PRESETS = ("amazon", "google", "shopify", "gs1")
GTIN = "4006381333931"
# The cup with its saucer: a box, and a few clicks on it and on what is not; asked twice, the second time with the first
# answer's logits, as a person at the kiosk does who corrects a mask.
BOX = (76, 18, 480, 372)
ON = ((300, 100), (330, 260), (420, 200), (120, 200))
OFF = ((100, 380), (470, 380), (60, 300), (490, 330), (120, 330), (455, 350))
SIDE, GAP, CAPTION = 280, 14, 64
INK, FAINT, PAPER, FRAME = (30, 30, 34), (110, 110, 118), (244, 244, 246), (205, 205, 210)


def product(photo: Uint8Array) -> Answer:
    """The mask of the cup in the starter model."""
    predictor = SamPredictor.load(backend="ort-cpu")
    predictor.set_image(photo)
    prompt = {"box": BOX, "point_coords": [*ON, *OFF], "point_labels": [1] * len(ON) + [0] * len(OFF)}
    _, _, first = predictor.predict(**prompt, multimask_output=False)
    _, scores, logits = predictor.predict(**prompt, mask_input=first, multimask_output=False)
    return Answer(logits, scores, 0, BOX)


def make(photo: Uint8Array, answer: Answer, preset: str, folder: Path) -> Path:
    """What `crop --preset` writes for this mask."""
    look, _ = preset_look(load_preset(preset), fill_holes=True, drop_islands=True, small_area=3000)
    name = f"{GTIN:0>14}_A1N1.jpg" if preset == "gs1" else "coffee.jpg"
    path = folder / preset / name
    path.parent.mkdir()
    path.write_bytes(look.finish(look.cut(photo, answer)).data)
    return path


def facts(picture: Path, preset: str) -> list[str]:
    """Two lines for the caption, of the finished file."""
    data = picture.read_bytes()
    report = check(data, load_preset(preset), name=picture.name)
    assert report.passed, report.failed
    height, width = load_image(data).shape[:2]
    fill = "" if report.fill is None else f", fill {report.fill:.0%}"
    return [f"{width}x{height}{fill}, {len(data) / 1000:.0f} kB", picture.name if preset == "gs1" else "check: passed"]


def tile(picture: Path) -> Image.Image:
    """The picture in a square."""
    image = Image.open(picture).convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), PAPER)
    square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return square


def main() -> None:
    """Make the sheet."""
    font, small = ImageFont.load_default(17), ImageFont.load_default(13)
    with (
        tempfile.TemporaryDirectory() as scratch,
        resources.as_file(resources.files("boothsam.runtime.demo") / "coffee.jpg") as photo,
    ):
        pixels = load_image(photo)
        answer, (height, width) = product(pixels), pixels.shape[:2]
        columns = [("photo", tile(photo), [f"{width}x{height}", photo.name])]
        for preset in PRESETS:
            made = make(pixels, answer, preset, Path(scratch))
            columns.append((f"--preset {preset}", tile(made), facts(made, preset)))
    across = len(columns) * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (across, SIDE + CAPTION + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (title, square, lines) in enumerate(columns):
        left = GAP + index * (SIDE + GAP)
        sheet.paste(square, (left, GAP))
        draw.rectangle((left - 1, GAP - 1, left + SIDE, GAP + SIDE), outline=FRAME)
        draw.text((left, GAP + SIDE + 6), title, INK, font)
        for row, line in enumerate(lines):
            draw.text((left, GAP + SIDE + 29 + 17 * row), line, FAINT, small)
    save_image(Path(__file__).parent / "images" / "presets.jpg", np.asarray(sheet), quality=88)


if __name__ == "__main__":
    main()
