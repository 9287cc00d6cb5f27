"""A small proof set: drawn photos and hand-written polygons of what is on them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from boothsam.runtime.images import save_image

RED, BLUE, GROUND = (190, 40, 35), (30, 60, 160), (230, 230, 230)


def circle(x: float, y: float, radius: float) -> list[list[float]]:
    turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return [[x + radius * np.cos(t), y + radius * np.sin(t)] for t in turns]


@pytest.fixture(scope="session")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn photos below photos/, and masks of a disc (drawn twice), and of a square (once); listing.json."""
    folder = tmp_path_factory.mktemp("proof")
    (folder / "photos" / "deep").mkdir(parents=True)
    for name, colour in (("disc.png", RED), ("square.png", BLUE)):
        image = np.full((300, 400, 3), GROUND, np.uint8)
        if name == "disc.png":
            cv2.circle(image, (200, 150), 60, colour, -1)
        else:
            cv2.rectangle(image, (120, 90), (260, 210), colour, -1)
        save_image(folder / "photos" / "deep" / name, image)
    square = [[120, 90], [260, 90], [260, 210], [120, 210]]

    def entry(name: str, file: str, rings: list[Any], **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256((folder / "photos" / "deep" / file).read_bytes()).hexdigest()
        return {"name": name, "file": f"x/{file}", "sha256": digest, "source": "drawn", "polygons": rings} | more

    masks = [
        entry("disc", "disc.png", [circle(200, 150, 60)], group="a", category="fruit", auto=True)
        | {"second": [circle(201, 150, 58)]},
        entry("square", "square.png", [square], group="b", category="package"),
    ]
    (folder / "listing.json").write_text(json.dumps({"masks": masks}))
    return folder / "listing.json"
