"""The three tasks of a passer-by, with at most three touches each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from boothsam.runtime.masks import mask_iou
from playwright.sync_api import Browser

from tests.kiosk.kiosk import SIZES, Kiosk
from tests.kiosk.scenes import FakeCamera, full_size, mug_scene

MUG = mug_scene("red")


def taps(kiosk: Kiosk) -> int:
    return int(kiosk.page.evaluate("window.__hands.taps"))


@pytest.mark.parametrize("size", SIZES)
def test_cut_out_a_mug_and_fix_a_wrong_mask(
    visit: Callable[..., Kiosk], camera_browser: Browser, camera: FakeCamera, size: str
) -> None:
    camera.show(MUG.image)
    kiosk = visit(camera_browser, size).open()
    kiosk.shoot()
    answer = kiosk.tap(*MUG.inside())
    data, _ = kiosk.download()
    assert taps(kiosk) <= 3 and data[:4] == b"\x89PNG"
    assert answer is not None
    assert mask_iou(full_size(answer["masks"][answer["best"]], MUG), MUG.product) >= 0.85
    # A wrong mask: the wall was hit. Clear and tap again, or tap and remove; then save.
    kiosk.on("clear").click()
    wrong = kiosk.tap(225, 188)
    assert wrong is not None
    before = taps(kiosk)
    assert mask_iou(full_size(wrong["masks"][wrong["best"]], MUG), MUG.product) < 0.5
    kiosk.on("clear").click()
    right = kiosk.tap(*MUG.inside())
    kiosk.download()
    assert taps(kiosk) - before <= 3 and right is not None
    assert mask_iou(full_size(right["masks"][right["best"]], MUG), MUG.product) >= 0.85
    kiosk.wait_for_preview()
