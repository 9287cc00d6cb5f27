"""The annotation page as an annotator's hands and eyes, and four drawn mugs to annotate."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from boothsam.runtime.images import load_image
from boothsam.runtime.masks import BoolArray
from playwright.sync_api import Locator, expect

from tests.kiosk.kiosk import WAIT_MS, Kiosk
from tests.kiosk.scenes import as_file, mug_scene

COLOURS = ("red", "blue", "green", "violet")
SIZE = (720, 1280)
SCENES = {f"mug-{n}.png": mug_scene(colour, SIZE, scale=0.7) for n, colour in enumerate(COLOURS, 1)}
FILES = {name: as_file(scene.image) for name, scene in SCENES.items()}


class Desk:
    """The page as an annotator uses it."""

    def __init__(self, kiosk: Kiosk, folder: Path) -> None:
        self.kiosk, self.page, self.folder = kiosk, kiosk.page, folder

    def open(self) -> Desk:
        self.kiosk.open("/annotate")
        self.kiosk.wait_for("ready")
        self.sees()
        return self

    def sees(self) -> None:
        """Until the photo is on the screen; it may come after its analysis."""
        photo = self.page.locator("body").get_attribute("data-photo") or ""
        expect(self.on("stage")).to_have_attribute("data-shown", photo, timeout=WAIT_MS)

    def on(self, test_id: str) -> Locator:
        return self.kiosk.on(test_id)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The window's coordinates of a photo's pixel: the photo lies centred and whole in the stage."""
        box = self.on("stage").bounding_box()
        assert box is not None
        height, width = SIZE
        scale = min(box["width"] / width, box["height"] / height)
        left = box["x"] + (box["width"] - width * scale) / 2
        top = box["y"] + (box["height"] - height * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def name(self) -> str:
        found = re.search(r"mug-\d\.png", self.on("photo-name").inner_text())
        assert found is not None
        return found[0]

    def tap(self, x: float, y: float, *, answer: bool = True, **mouse: Any) -> dict[str, Any]:
        """Click a photo's pixel; the answer to it."""
        if not answer:
            self.page.mouse.click(*self.at(x, y), **mouse)
            return {}
        with self.page.expect_response(re.compile(r"/segment$")) as caught:
            self.page.mouse.click(*self.at(x, y), **mouse)
        body: dict[str, Any] = caught.value.json()
        self.kiosk.wait_for("masked")
        return body

    def tap_mug(self) -> dict[str, Any]:
        return self.tap(*SCENES[self.name()].inside())

    def press(self, *keys: str) -> Desk:
        for key in keys:
            self.page.keyboard.press(key)
        return self

    def saved(self) -> None:
        """Until nothing waits to be written."""
        expect(self.on("save-state")).to_have_attribute("data-state", "saved", timeout=WAIT_MS)

    def shows(self, name: str) -> None:
        """Until that photo is there and can be pointed at."""
        expect(self.on("photo-name")).to_contain_text(name, timeout=WAIT_MS)
        self.kiosk.wait_for("ready", "masked")
        self.sees()

    def records(self) -> dict[str, dict[str, Any]]:
        """What lies on the disk, by the photo's name."""
        found = [json.loads(path.read_text()) for path in (self.folder / "annotations" / "records").iterdir()]
        return {record["name"]: record for record in found}

    def mask(self, file: str) -> BoolArray:
        return np.asarray(load_image(self.folder / "annotations" / "masks" / file)[..., 0] == 255)
