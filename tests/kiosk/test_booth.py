"""The booth: scan, shoot, next, with nobody touching the screen; and what stops it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from boothsam.runtime.masks import mask_iou
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.kiosk.kiosk import Kiosk
from tests.kiosk.scenes import MUG_COLOURS, FakeCamera, ImageArray, as_file, backdrop, mug_scene
from tests.kiosk.service import KioskService

SKUS = {colour: f"SKU-{number:04d}" for number, colour in enumerate(MUG_COLOURS, 1)}
PLACES = ((0.5, 0.6), (0.3, 0.58), (0.66, 0.6), (0.42, 0.56), (0.55, 0.6))


@pytest.fixture(scope="module")
def service(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KioskService]:
    """One of its own: other tests want no plate."""
    started = KioskService(tmp_path_factory.mktemp("booth")).start()
    yield started
    started.stop()


def put(kiosk: Kiosk, camera: FakeCamera, image: ImageArray) -> None:
    """Put something before the camera, and wait until it is what the kiosk sees."""
    camera.show(image)
    kiosk.sees(image)


def take_plate(kiosk: Kiosk, camera: FakeCamera) -> None:
    """Photograph the empty booth."""
    put(kiosk, camera, backdrop())
    kiosk.on("settings").click()
    before = kiosk.on("plate-age").inner_text()
    with kiosk.page.expect_response(lambda r: r.url.endswith("/plate") and r.request.method == "PUT") as caught:
        kiosk.on("plate-take").click()
    assert caught.value.ok, caught.value.text()
    expect(kiosk.on("plate-age")).not_to_have_text(before)
    kiosk.on("settings-close").click()


def start_loop(kiosk: Kiosk) -> None:
    """Turn the loop on, without its countdown."""
    kiosk.on("settings").click()
    kiosk.on("booth-switch").click()
    waiting(kiosk)
    kiosk.on("settings").click()
    kiosk.on("delay-0").click()
    kiosk.on("settings-close").click()


def waiting(kiosk: Kiosk) -> None:
    """Until the loop waits for the next scan."""
    expect(kiosk.on("booth")).to_have_attribute("data-booth", "waiting")


def stopped(kiosk: Kiosk, reason: str) -> None:
    """Until the loop has stopped, and says why in words."""
    expect(kiosk.on("booth")).to_have_attribute("data-booth", "stopped")
    expect(kiosk.on("booth")).to_have_attribute("data-reason", reason)
    assert len(kiosk.on("booth").get_by_role("heading").inner_text()) > 10


def scan_and_store(kiosk: Kiosk, sku: str) -> None:
    """Scan, and wait until the capture is stored and the loop waits again."""
    with kiosk.page.expect_response(lambda r: r.url.endswith("/captures") and r.request.method == "POST") as caught:
        kiosk.scan(sku)
    assert caught.value.ok, caught.value.text()
    waiting(kiosk)


def taps(kiosk: Kiosk) -> int:
    return int(kiosk.page.evaluate("window.__hands.taps"))


def of(kiosk: Kiosk, sku: str) -> list[dict[str, object]]:
    return [c for c in kiosk.service.captures() if c.get("sku") == sku]


@pytest.fixture(scope="module")
def plate(service: KioskService) -> None:
    """The empty booth's picture, sent past the page."""
    answer = service.put("/plate", files={"image_file": as_file(backdrop())})
    assert answer.status_code == 200, answer.text


@pytest.fixture
def loop(visit: Callable[..., Kiosk], camera_browser: Browser, camera: FakeCamera, plate: None) -> Kiosk:
    """A booth with a plate whose loop was turned on before, and waits for the first scan."""
    camera.show(backdrop())
    kiosk = visit(camera_browser)
    kiosk.remember(booth=True, **{"booth.delay": 0})
    kiosk.open()
    waiting(kiosk)
    kiosk.sees(backdrop())
    return kiosk


def test_five_products_are_shot_without_a_touch(booth: Kiosk, camera: FakeCamera) -> None:
    loop = booth
    take_plate(loop, camera)
    start_loop(loop)
    before, counted = taps(loop), len(loop.service.captures())
    scenes = {colour: mug_scene(colour, centre=place) for colour, place in zip(SKUS, PLACES, strict=True)}
    for colour, sku in SKUS.items():
        put(loop, camera, scenes[colour].image)
        scan_and_store(loop, sku)
    assert taps(loop) == before, "nobody touched the screen"
    for colour, sku in SKUS.items():
        (capture,) = of(loop, sku)
        with Image.open(io.BytesIO(loop.service.get(f"/captures/{capture['id']}/mask").content)) as mask:
            assert mask_iou(np.asarray(mask.convert("L")) > 127, scenes[colour].product) >= 0.85, sku
    expect(loop.on("counter")).to_contain_text(str(counted + 5))
    # The same number again is the next angle.
    scan_and_store(loop, SKUS["black"])
    assert sorted(str(capture.get("angle")) for capture in of(loop, SKUS["black"])) == ["1", "2"]


def test_an_empty_booth_stops_the_loop_and_the_next_scan_goes_on(loop: Kiosk, camera: FakeCamera) -> None:
    loop.scan("SKU-EMPTY")
    stopped(loop, "empty")
    assert of(loop, "SKU-EMPTY") == []
    put(loop, camera, mug_scene("blue").image)
    scan_and_store(loop, "SKU-EMPTY")
    assert len(of(loop, "SKU-EMPTY")) == 1


def test_a_moved_camera_stops_the_loop(loop: Kiosk, camera: FakeCamera) -> None:
    put(loop, camera, np.roll(mug_scene("red").image, (18, 44), (0, 1)))
    loop.scan("SKU-MOVED")
    stopped(loop, "camera_moved")
    assert of(loop, "SKU-MOVED") == []


def test_a_product_at_the_border_stops_the_loop(loop: Kiosk, camera: FakeCamera) -> None:
    put(loop, camera, mug_scene("green", centre=(0.06, 0.6)).image)
    loop.scan("SKU-BORDER")
    stopped(loop, "touches_border")
    assert of(loop, "SKU-BORDER") == []
    put(loop, camera, mug_scene("green").image)
    loop.on("booth-again").click()
    waiting(loop)
    assert len(of(loop, "SKU-BORDER")) == 1


def test_a_wrong_barcode_stops_the_loop(loop: Kiosk, camera: FakeCamera) -> None:
    put(loop, camera, mug_scene("red").image)
    before = loop.service.captures()
    loop.scan("4006381333932")
    stopped(loop, "wrong-barcode")
    assert loop.service.captures() == before
    scan_and_store(loop, "4006381333931")
    assert loop.service.captures()[-1]["gtin"].lstrip("0") == "4006381333931"


def test_a_lost_camera_stops_the_loop(loop: Kiosk) -> None:
    loop.page.evaluate("window.__hands.unplug()")
    loop.scan("SKU-BLIND")
    stopped(loop, "no-camera")
    assert of(loop, "SKU-BLIND") == []


def test_the_plate_selects_the_product_before_the_first_tap(booth: Kiosk, camera: FakeCamera, plate: None) -> None:
    put(booth, camera, mug_scene("violet", centre=(0.35, 0.6)).image)
    booth.on("shutter").click()
    booth.wait_for("masked")
    assert taps(booth) == 1


def test_the_loop_survives_a_reload(booth: Kiosk, camera: FakeCamera) -> None:
    start_loop(booth)
    booth.page.reload()
    waiting(booth)
    booth.wait_for("camera")
    scan_and_store(booth, "SKU-RELOADED")
    assert len(of(booth, "SKU-RELOADED")) == 1
