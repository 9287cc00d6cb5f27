"""Make docs/images/demo.png of what `boothsam demo` writes: python docs/make_images.py"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from boothsam.runtime.images import load_image, save_image
from PIL import Image

HEIGHT = 240
GAP = 10


def checkered(path: Path) -> Image.Image:
    """A transparent picture over a checkerboard."""
    cut = Image.open(path).convert("RGBA")
    rows, columns = np.indices((cut.height, cut.width)) // 12
    board = np.where((rows + columns)[..., None] % 2, np.uint8(255), np.uint8(215)).repeat(3, 2)
    ground = Image.fromarray(board)
    ground.paste(cut, mask=cut.getchannel("A"))
    return ground


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subprocess.run([sys.executable, "-m", "boothsam.service.cli", "demo", "-o", folder], check=True)
        strips = []
        for prompt in ("box", "click"):
            tiles = [
                Image.fromarray(load_image(folder / f"{prompt}-outline.jpg")),
                checkered(folder / f"{prompt}-transparent.png"),
                Image.fromarray(load_image(folder / f"{prompt}-white.jpg")),
            ]
            tiles = [tile.resize((round(tile.width * HEIGHT / tile.height), HEIGHT)) for tile in tiles]
            strip = Image.new("RGB", (sum(t.width for t in tiles) + GAP * (len(tiles) - 1), HEIGHT), "white")
            left = 0
            for tile in tiles:
                strip.paste(tile, (left, 0))
                left += tile.width + GAP
            strips.append(strip)
        sheet = Image.new("RGB", (max(s.width for s in strips), 2 * HEIGHT + GAP), "white")
        for row, strip in enumerate(strips):
            sheet.paste(strip, (0, row * (HEIGHT + GAP)))
        save_image(Path(__file__).parent / "images" / "demo.png", np.asarray(sheet), level=9)


if __name__ == "__main__":
    main()
