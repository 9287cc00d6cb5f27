"""Saving: a capture holds the mask that was seen; numbers are checked; a full disk and a far server are told."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from boothsam.runtime.masks import mask_iou, rle_to_mask
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.kiosk.kiosk import Kiosk
from tests.kiosk.scenes import as_file, ean13, mug_scene, with_label
from tests.kiosk.service import KioskService

MUG = mug_scene("green")
MUG_FILE = as_file(MUG.image)
GTIN, WRONG = "4006381333931", "4006381333932"


def masked(kiosk: Kiosk, photo: bytes = MUG_FILE) -> Kiosk:
    """With the mug selected and its verdict told."""
    kiosk.load(photo)
    kiosk.tap(*MUG.inside())
    kiosk.wait_for_preview()
    return kiosk


def test_a_capture_holds_photo_mask_and_number(kiosk: Kiosk) -> None:
    masked(kiosk)
    answer = kiosk.segments()[-1]
    kiosk.on("sku").fill("MUG-GREEN")
    kiosk.on("save").click()
    kiosk.wait_for("saved")
    (capture,) = [c for c in kiosk.service.captures() if c.get("sku") == "MUG-GREEN"]
    assert kiosk.service.get(f"/captures/{capture['id']}/original").content == MUG_FILE
    with Image.open(io.BytesIO(kiosk.service.get(f"/captures/{capture['id']}/mask").content)) as mask:
        stored = np.asarray(mask.convert("L")) > 127
    full = kiosk.service.post(
        f"/embeddings/{answer['id']}/segment", json=kiosk.asked()[-1] | {"mask_max_side": None}
    ).json()
    # Stored is what is at least half product after matting; the answer's mask is the network's own edge.
    assert mask_iou(stored, rle_to_mask(full["masks"][answer["best"]]["rle"])) >= 0.97, "the mask that was seen"
    posts = [r for r in kiosk.sent if r.method == "POST" and r.url.endswith("/captures")]
    assert len(posts) == 1 and posts[0].headers["idempotency-key"]


def test_a_wrong_check_digit_is_told_and_not_saved(kiosk: Kiosk) -> None:
    masked(kiosk)
    before = len(kiosk.service.captures())
    kiosk.on("sku").fill(WRONG)
    expect(kiosk.on("gtin-error")).to_be_visible()
    save = kiosk.on("save")
    if save.is_enabled():
        save.click()
        kiosk.page.wait_for_timeout(300)
    assert len(kiosk.service.captures()) == before
    kiosk.on("sku").fill(GTIN)
    expect(kiosk.on("gtin-error")).to_be_hidden()
    save.click()
    kiosk.wait_for("saved")
    assert kiosk.service.captures()[-1]["gtin"].lstrip("0") == GTIN


def test_a_scanner_fills_the_number_wherever_the_focus_is(kiosk: Kiosk) -> None:
    masked(kiosk)
    kiosk.page.evaluate("document.activeElement?.blur()")
    kiosk.scan(GTIN)
    expect(kiosk.on("sku")).to_have_value(GTIN)
    assert kiosk.page.locator("body").get_attribute("data-state") == "masked", "digits and Enter did nothing else"
    kiosk.scan(WRONG)
    expect(kiosk.on("gtin-error")).to_be_visible()


def test_the_number_is_read_from_the_photo(kiosk: Kiosk) -> None:
    pytest.importorskip("zxingcpp", reason="the photo's code is read by zxing-cpp; hint: pip install 'boothsam[codes]'")
    masked(kiosk, as_file(with_label(MUG, ean13(GTIN), (10, 200))))
    if not kiosk.on("sku").input_value():
        kiosk.on("read-code").click()
    expect(kiosk.on("sku")).to_have_value(GTIN)


@pytest.fixture(scope="module")
def small_disk(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KioskService]:
    """A service whose disk counts as nearly full: nobody has this many bytes free."""
    service = KioskService(tmp_path_factory.mktemp("full"), min_free_bytes=1 << 60).start()
    yield service
    service.stop()


def test_a_full_disk_is_told_and_the_picture_can_still_be_had(
    visit: Callable[..., Kiosk], browser: Browser, small_disk: KioskService
) -> None:
    kiosk = visit(browser, at=small_disk).open()
    kiosk.allow_status(507)
    status = kiosk.on("status").first
    expect(status).to_have_attribute("data-state", "disk-low")
    assert "disk" in status.inner_text().lower() or "stor" in status.inner_text().lower()
    masked(kiosk)
    kiosk.on("sku").fill("MUG-1")
    save = kiosk.on("save")
    if save.is_enabled():
        save.click()
        expect(kiosk.on("toast")).to_be_visible()
    kiosk.page.wait_for_timeout(200)
    assert kiosk.page.locator("body").get_attribute("data-state") != "saved"
    assert small_disk.captures() == []
    data, _ = kiosk.download()
    assert data[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def cut_off(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KioskService]:
    """A service that forwards captures to an address where nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    service = KioskService(tmp_path_factory.mktemp("offline"), forward_url=f"http://127.0.0.1:{port}/").start()
    yield service
    service.stop()


def test_captures_that_wait_for_the_network_are_counted(
    visit: Callable[..., Kiosk], browser: Browser, cut_off: KioskService
) -> None:
    kiosk = visit(browser, at=cut_off).open()
    masked(kiosk)
    kiosk.on("sku").fill("MUG-OFFLINE")
    kiosk.on("save").click()
    kiosk.wait_for("saved")
    status = kiosk.on("status").first
    expect(status).to_have_attribute("data-state", "waiting")
    expect(status).to_contain_text("1")
