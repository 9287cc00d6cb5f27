"""Draw docs/images/presets.jpg: the demo photo and what four presets make of it. Run from the repository's root."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
from boothsam.runtime.images import load_image, save_image
from boothsam.service.presets.check import check
from boothsam.service.presets.preset import load_preset
from PIL import Image, ImageDraw, ImageFont

PRESETS = ("amazon", "google", "shopify", "gs1")
GTIN = "4006381333931"
# The cup with its saucer: a box, and a few clicks on it and on its shadow.
PROMPT = ("--box", "75,15,510,385", "--fill-holes", "--drop-islands", "--small-area", "3000")
CLICKS = ("300,150", "300,200", "150,300", "430,330", "480,240", "178,130", "100,360,0", "500,355,0")
SIDE, GAP, CAPTION = 280, 14, 64
INK, FAINT, PAPER, FRAME = (30, 30, 34), (110, 110, 118), (244, 244, 246), (205, 205, 210)


def crop(photo: Path, preset: str, folder: Path) -> Path:
    """Run the command of the README; the file it wrote."""
    command = [sys.executable, "-m", "boothsam.service.cli", "crop", str(photo), *PROMPT, "--preset", preset]
    command += [word for click in CLICKS for word in ("--point", click)]
    command += ["--gtin", GTIN] if preset == "gs1" else []
    made = subprocess.run([*command, "-o", f"{folder}/"], capture_output=True, text=True, check=True)
    return Path(made.stdout.strip())


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
        height, width = load_image(photo).shape[:2]
        columns = [("photo", tile(photo), [f"{width}x{height}", photo.name])]
        for preset in PRESETS:
            made = crop(photo, preset, Path(scratch) / preset)
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
