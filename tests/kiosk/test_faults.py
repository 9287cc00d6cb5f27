"""What goes wrong in a shop: the server dies, the camera is pulled out, the model is slow, the visitor walks away."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from boothsam.runtime.masks import mask_iou
from playwright.sync_api import Browser, Response, expect

from tests.kiosk.kiosk import Kiosk
from tests.kiosk.scenes import CAMERA_HW, FakeCamera, as_file, full_size, mug_scene

MUG = mug_scene("red")
MUG_FILE = as_file(MUG.image)
OTHER = mug_scene("blue", centre=(0.4, 0.6))


def test_a_killed_server_costs_neither_photo_nor_prompts(kiosk: Kiosk) -> None:
    kiosk.allow_no_connection()
    kiosk.allow_status(404, 422, 503)
    kiosk.load(MUG_FILE)
    kiosk.tap(*MUG.inside())
    kiosk.long_press(225, 188)
    earlier = kiosk.segments()[-1]
    kiosk.service.kill()
    kiosk.wait_for_server("offline")
    expect(kiosk.on("status").first).to_have_attribute("data-state", "offline")
    kiosk.page.mouse.click(*kiosk.at(675, 150), button="right")  # a tap while nobody answers is kept
    kiosk.page.wait_for_timeout(300)
    assert len(kiosk.segments()) == 2

    def has_all_points(response: Response) -> bool:
        asked = response.url.endswith("/segment") and response.ok and response.request.post_data_json
        return bool(asked and asked["labels"] == [1, 0, 0])

    with kiosk.page.expect_response(has_all_points, timeout=60_000):
        kiosk.service.start()
    kiosk.wait_for_server("ok", timeout_ms=40_000)
    kiosk.wait_for("masked")
    newest = kiosk.segments()[-1]
    mask = full_size(newest["masks"][newest["best"]], MUG)
    assert mask_iou(mask, MUG.product) >= 0.9
    assert mask_iou(mask, full_size(earlier["masks"][earlier["best"]], MUG)) > 0.8
    photos = [r for r in kiosk.responses if r.url.endswith("/embeddings") and r.ok]
    assert len(photos) == 2, "the photo was sent again, once"
    data, _ = kiosk.download()
    assert data[:4] == b"\x89PNG"


def test_a_camera_that_is_pulled_out_and_comes_back(booth: Kiosk, camera: FakeCamera) -> None:
    booth.page.evaluate("window.__hands.unplug()")
    booth.wait_for("no-camera")
    expect(booth.on("status").first).to_have_attribute("data-state", "camera-lost")
    booth.page.evaluate("window.__hands.plug()")
    booth.wait_for("camera")
    expect(booth.on("status").first).not_to_have_attribute("data-state", "camera-lost")
    camera.show(OTHER.image)
    booth.sees(OTHER.image)
    booth.shoot()
    answer = booth.tap(*OTHER.inside())
    assert answer is not None
    mask = full_size(answer["masks"][answer["best"]], OTHER)
    assert mask_iou(mask, OTHER.product) >= 0.85, "the photo shows what stands before the camera now"


def test_a_camera_that_makes_no_stills_gives_a_frame(booth: Kiosk) -> None:
    booth.page.evaluate("() => { ImageCapture.prototype.takePhoto = () => new Promise(() => {}); }")
    booth.on("shutter").click()
    booth.wait_for("ready", "masked", timeout_ms=15_000)
    assert booth.photo_size() == CAMERA_HW
    answer = booth.tap(*MUG.inside())
    assert answer is not None
    assert mask_iou(full_size(answer["masks"][answer["best"]], MUG), MUG.product) >= 0.85


def test_a_slow_encoder_never_freezes_the_page(kiosk: Kiosk) -> None:
    kiosk.service.freeze()
    try:
        kiosk.load(as_file(OTHER.image), wait=False)
        kiosk.wait_for("analysing")
        expect(kiosk.on("analysing")).to_be_visible()
        first = kiosk.on("analysing").inner_text()
        kiosk.page.mouse.click(*kiosk.at(*OTHER.inside()))
        expect(kiosk.on("analysing")).not_to_have_text(first, timeout=10_000)
        # Frames go on being painted while nobody answers.
        assert (
            kiosk.page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))") is not None
        )
    finally:
        kiosk.service.thaw()
    kiosk.wait_for("masked")
    (question,) = kiosk.asked()
    assert question["points"][0] == pytest.approx(OTHER.inside(), abs=2), "the tap made meanwhile was answered"


def test_a_visitor_who_walks_away_leaves_nothing(visit: Callable[..., Kiosk], browser: Browser) -> None:
    kiosk = visit(browser)
    kiosk.page.clock.install()
    kiosk.open()
    kiosk.load(MUG_FILE)
    kiosk.tap(*MUG.inside())
    kiosk.on("sku").fill("SECRET")
    kiosk.page.clock.run_for(45_000)
    expect(kiosk.on("idle-warning")).to_be_hidden()
    kiosk.page.clock.run_for(7_000)
    expect(kiosk.on("idle-warning")).to_be_visible()
    kiosk.page.mouse.move(500, 500)
    kiosk.page.mouse.click(960, 40)
    expect(kiosk.on("idle-warning")).to_be_hidden()
    kiosk.page.clock.run_for(52_000)
    expect(kiosk.on("idle-warning")).to_be_visible()
    kiosk.page.clock.run_for(10_000)
    kiosk.wait_for("camera", "no-camera")
    expect(kiosk.on("idle-warning")).to_be_hidden()
    kiosk.load(MUG_FILE)
    assert kiosk.on("sku").input_value() == "" if kiosk.on("sku").count() else True


def test_a_busy_service_is_asked_again_as_it_says(kiosk: Kiosk) -> None:
    refused = []

    def busy(route: object) -> None:
        if len(refused) < 2:
            refused.append(1)
            problem = '{"type":"about:blank","title":"busy","status":429,"code":"queue_full","detail":"x","hint":"y"}'
            headers = {"Retry-After": "1", "Content-Type": "application/problem+json"}
            route.fulfill(status=429, headers=headers, body=problem)  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    kiosk.allow_status(429)
    kiosk.page.route(re.compile(r"/segment$"), busy)
    kiosk.load(MUG_FILE)
    kiosk.page.mouse.click(*kiosk.at(*MUG.inside()))
    kiosk.wait_for("masked")
    assert len(refused) == 2
