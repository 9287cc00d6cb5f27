"""Make docs/images/kiosk-*: the kiosk page at three sizes, and one moving picture: python docs/make_kiosk_pictures.py

Needs Chromium and `pip install -e '.[dev]'`. The camera sees boothsam's demo photo (CC0) and a drawn mug, nothing else.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
from boothsam.runtime.images import load_image
from PIL import Image, ImageDraw
from playwright.sync_api import Playwright, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.kiosk import chromium
from tests.kiosk.kiosk import SIZES, Kiosk
from tests.kiosk.scenes import FakeCamera, backdrop, mug_scene
from tests.kiosk.service import KioskService

IMAGES = Path(__file__).parent / "images"
MAX_STILL, MAX_FILM = 150_000, 700_000
CAMERA_HW = (1200, 1800)
CUP = ((297 * 3, 188 * 3), (213 * 3, 272 * 3))  # the cup in the demo photo and its handle, in the camera's pixels
SHOWN = {"portrait": (540, 960), "landscape": (960, 540), "phone": (360, 740)}  # as large as the stills are stored
FILM_SIZE = (1280, 800)
FILM_SHOWN = (800, 500)


def demo_frame() -> npt.NDArray[np.uint8]:
    """The demo photo, as large as a camera's picture."""
    photo = Image.fromarray(load_image(files("boothsam.runtime.demo").joinpath("coffee.jpg").read_bytes()))
    return np.asarray(photo.resize((CAMERA_HW[1], CAMERA_HW[0]), Image.Resampling.LANCZOS))


@contextmanager
def visitor(
    playwright: Playwright, service: KioskService, camera: Path, size: str, **context: object
) -> Iterator[Kiosk]:
    """A page with a camera, in English."""
    browser = chromium.launch(playwright, camera)
    kiosk = Kiosk(browser, service, size, **context)
    try:
        yield kiosk.open()
        assert not kiosk.faults(), kiosk.faults()
    finally:
        kiosk.close()
        browser.close()


def still(kiosk: Kiosk, name: str) -> None:
    """Store what is on the screen as docs/images/kiosk-{name}-{size}.jpg, in the best quality that fits."""
    kiosk.page.wait_for_timeout(500)
    with Image.open(io.BytesIO(kiosk.page.screenshot())) as shot:
        small = shot.convert("RGB").resize(SHOWN[kiosk.size], Image.Resampling.LANCZOS)
    for quality in (90, 85, 80, 75, 70, 60):
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() <= MAX_STILL:
            break
    path = IMAGES / f"kiosk-{name}-{kiosk.size}.jpg"
    path.write_bytes(buffer.getvalue())
    print(f"{path.name}: {buffer.tell() / 1000:.0f} kB, quality {quality}")


def stills(playwright: Playwright, service: KioskService, camera: Path, size: str) -> None:
    """The camera, the selected cup, the finished cut-out."""
    phone = {"has_touch": True, "device_scale_factor": 2} if size == "phone" else {}
    with visitor(playwright, service, camera, size, **phone) as kiosk:
        still(kiosk, "camera")
        kiosk.shoot()
        for point in CUP:
            kiosk.tap(*point)
        kiosk.wait_for_preview()
        kiosk.on("bg-white").click()
        still(kiosk, "cutout")


def booth(playwright: Playwright, service: KioskService, folder: Path) -> None:
    """The loop in a booth with a plate, after its first product."""
    camera = FakeCamera(folder / "booth.y4m", backdrop((1080, 1920)))
    with visitor(playwright, service, camera.path, "landscape") as kiosk:
        kiosk.on("settings").first.click()
        kiosk.on("plate-take").click()
        expect(kiosk.on("plate-age")).to_be_visible()
        kiosk.on("booth-switch").click()
        kiosk.page.keyboard.press("Escape")
        mug = mug_scene("red", (1080, 1920)).image
        camera.show(mug)
        kiosk.sees(mug)
        with kiosk.page.expect_response(lambda r: r.url.endswith("/captures") and r.request.method == "POST"):
            kiosk.scan("MUG-RED-01")
        expect(kiosk.on("booth")).to_have_attribute("data-booth", "waiting")
        expect(kiosk.on("booth")).to_contain_text("MUG-RED-01")
        expect(kiosk.on("toast")).to_be_hidden()
        still(kiosk, "booth")


class Film:
    """Frames of a page with the times they stand, and a finger where it taps."""

    def __init__(self, kiosk: Kiosk) -> None:
        self.kiosk = kiosk
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def take(self, milliseconds: int, finger: tuple[float, float] | None = None, pressed: bool = False) -> None:
        """One frame."""
        with Image.open(io.BytesIO(self.kiosk.page.screenshot())) as shot:
            frame = shot.convert("RGBA")
        if finger is not None:
            radius = 18 if pressed else 26
            layer = Image.new("RGBA", frame.size)
            (x, y), draw = finger, ImageDraw.Draw(layer)
            circle = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(circle, fill=(255, 255, 255, 170 if pressed else 90), outline=(20, 20, 20, 200), width=3)
            frame = Image.alpha_composite(frame, layer)
        self.frames.append(frame.convert("RGB").resize(FILM_SHOWN, Image.Resampling.LANCZOS))
        self.durations.append(milliseconds)

    def tap(self, at: tuple[float, float], act: Callable[[], object]) -> None:
        """A finger comes, presses, and what it does happens."""
        self.take(450, at)
        self.take(180, at, pressed=True)
        act()

    def save(self, path: Path) -> None:
        """As animated WebP, in the best quality that fits."""
        for quality in (80, 70, 60, 50, 40, 30):
            buffer = io.BytesIO()
            self.frames[0].save(
                buffer, "WEBP", save_all=True, append_images=self.frames[1:], duration=self.durations,
                loop=0, quality=quality, method=6, minimize_size=True,
            )  # fmt: skip
            if buffer.tell() <= MAX_FILM:
                break
        path.write_bytes(buffer.getvalue())
        print(f"{path.name}: {buffer.tell() / 1000:.0f} kB, quality {quality}, {len(self.frames)} frames")


def middle(kiosk: Kiosk, test_id: str) -> tuple[float, float]:
    box = kiosk.on(test_id).first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def film(playwright: Playwright, service: KioskService, camera: Path) -> None:
    """Photo, tap, outline, cut-out on white."""
    viewport = {"width": FILM_SIZE[0], "height": FILM_SIZE[1]}
    with visitor(playwright, service, camera, "landscape", viewport=viewport, reduced_motion="no-preference") as kiosk:
        shots = Film(kiosk)
        shots.take(900)
        shots.tap(middle(kiosk, "shutter"), kiosk.shoot)
        shots.take(700)
        for point in CUP:
            shots.tap(kiosk.at(*point), lambda point=point: kiosk.tap(*point))
            for _ in range(8):
                shots.take(120)
        kiosk.wait_for_preview()
        kiosk.page.wait_for_timeout(400)
        shots.take(1200)
        shots.tap(middle(kiosk, "bg-white"), lambda: kiosk.on("bg-white").click())
        kiosk.page.wait_for_timeout(400)
        shots.take(2500)
        shots.save(IMAGES / "kiosk.webp")


def main() -> None:
    """All of them."""
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        camera = FakeCamera(folder / "coffee.y4m", demo_frame()).path
        service = KioskService(folder / "service").start()
        try:
            for size in SIZES:
                stills(playwright, service, camera, size)
            film(playwright, service, camera)
        finally:
            service.stop()
        empty = KioskService(folder / "booth").start()  # no visitor before: the page counts what was saved today
        try:
            booth(playwright, empty, folder)
        finally:
            empty.stop()


if __name__ == "__main__":
    main()
