"""A finger's prompts: where they land in the photo, what they ask, and that the answer is the service's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from boothsam.runtime.masks import mask_iou
from playwright.sync_api import Browser, expect

from tests.kiosk.kiosk import SIZES, Kiosk
from tests.kiosk.scenes import as_file, full_size, marker_photo, mug_scene
from tests.kiosk.service import KioskService

MUG = mug_scene("red")
MUG_FILE = as_file(MUG.image)
BESIDE = (225, 188)  # a pixel of the wall


def ask(service: KioskService, photo: bytes, **question: Any) -> dict[str, Any]:
    """The service's answer without a page."""
    identity = service.post("/embeddings", files={"image_file": photo}).json()["id"]
    answer = service.post(f"/embeddings/{identity}/segment", json=question)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def markers_on_screen(kiosk: Kiosk) -> list[tuple[float, float]]:
    """Centres of the magenta squares on the screen, sorted."""
    red, green, blue = np.moveaxis(kiosk.screenshot().astype(int), 2, 0)
    found = ((red > 160) & (blue > 160) & (green < 110)).astype(np.uint8)
    _, _, stats, centres = cv2.connectedComponentsWithStats(found)
    return sorted((float(x), float(y)) for (x, y), s in zip(centres[1:], stats[1:], strict=True) if s[4] >= 9)


@pytest.mark.parametrize("size", SIZES)
def test_a_tap_means_the_pixel_under_it(visit: Callable[..., Kiosk], browser: Browser, size: str) -> None:
    kiosk = visit(browser, size).open()
    # Wider and narrower than the stage, upright and turned by a quarter.
    for (height, width), orientation in (((600, 900), 1), ((900, 500), 6), ((500, 900), 8)):
        markers = [(60, 70), (width // 2, height // 2), (width - 80, height - 50)]
        kiosk.load(as_file(marker_photo((height, width), markers), "JPEG", orientation))
        assert kiosk.photo_size() == (height, width)
        kiosk.settle()  # once: the photo stays where it is, as the next test finds
        on_screen = markers_on_screen(kiosk)
        assert len(on_screen) == len(markers), "all of the photo is on the screen"
        scale = (on_screen[-1][0] - on_screen[0][0]) / (markers[-1][0] - markers[0][0])
        for number, marker in enumerate(markers):
            if number:
                kiosk.on("clear").click()
                kiosk.wait_for("ready")
            x, y = on_screen[number]
            kiosk.gesture(lambda at=(x + 0.5, y + 0.5): kiosk.page.mouse.click(*at))
            (point,) = kiosk.asked()[-1]["points"]
            # A screen's pixel is as fine as a tap can be; the marker's middle on the screen is found to half of one.
            middle = marker[0] + 0.5, marker[1] + 0.5
            assert point == pytest.approx(middle, abs=max(1.0, 1.5 / scale)), (orientation, number, scale)
        kiosk.on("retake").click()
        kiosk.wait_for("no-camera")


@pytest.mark.parametrize("size", SIZES)
def test_the_photo_stays_under_the_finger(visit: Callable[..., Kiosk], browser: Browser, size: str) -> None:
    kiosk = visit(browser, size).open()
    kiosk.load(MUG_FILE)
    kiosk.settle()
    here = kiosk.at(0, 0), kiosk.at(750, 525)
    kiosk.tap(*MUG.inside())
    kiosk.wait_for_preview()
    kiosk.settle()
    assert (kiosk.at(0, 0), kiosk.at(750, 525)) == here, "the mask's coming moved the photo"
    covered = kiosk.page.evaluate(
        """([x, y]) => {
          const stage = document.querySelector('[data-testid=stage]');
          return !stage.contains(document.elementFromPoint(x, y));
        }""",
        kiosk.at(*MUG.inside()),
    )
    assert not covered, "something lies over the product"
    kiosk.on("clear").click()
    kiosk.wait_for("ready")
    kiosk.settle()
    assert (kiosk.at(0, 0), kiosk.at(750, 525)) == here


def test_a_mug_is_cut_out_with_one_tap(kiosk: Kiosk) -> None:
    kiosk.load(MUG_FILE)
    answer = kiosk.tap(*MUG.inside())
    assert answer is not None
    (question,) = kiosk.asked()
    assert question["labels"] == [1] and question["multimask"] is True and question.get("box") is None
    assert question["points"][0] == pytest.approx(MUG.inside(), abs=2)
    best = answer["masks"][answer["best"]]
    assert mask_iou(full_size(best, MUG), MUG.product) >= 0.9
    direct = ask(kiosk.service, MUG_FILE, **question)
    assert [m["rle"] for m in direct["masks"]] == [m["rle"] for m in answer["masks"]]
    assert [m["logits_id"] for m in direct["masks"]] == [m["logits_id"] for m in answer["masks"]]


def test_the_outline_lies_on_the_mask_and_is_computed_once(visit: Callable[..., Kiosk], browser: Browser) -> None:
    kiosk = visit(browser, reduced_motion="no-preference").open()
    kiosk.load(MUG_FILE)
    before = kiosk.screenshot().astype(int)
    answer = kiosk.tap(*MUG.inside())
    assert answer is not None
    kiosk.wait_for_preview()
    kiosk.page.wait_for_function("window.boothsam.counters.contours >= 1")
    counters = kiosk.page.evaluate("({...window.boothsam.counters})")
    kiosk.page.wait_for_function("(n) => window.boothsam.counters.frames >= n + 10", arg=counters["frames"])
    after = kiosk.page.evaluate("({...window.boothsam.counters})")
    assert after["contours"] == counters["contours"], "redrawing does not compute outlines again"
    x0, y0, x1, y1 = answer["masks"][answer["best"]]["box_xyxy"]
    (left, top), (right, bottom) = kiosk.at(x0, y0), kiosk.at(x1, y1)
    changed = np.abs(kiosk.screenshot().astype(int) - before).max(2)
    rim = changed[int(top) - 6 : int(top) + 6, int((left + right) / 2)]
    assert rim.max() > 60, "there is an outline at the product's upper edge"
    stage = kiosk.on("stage").bounding_box()
    assert stage is not None and bottom < stage["y"] + stage["height"]


def test_remove_and_long_press_and_right_click_mean_background(kiosk: Kiosk) -> None:
    kiosk.load(MUG_FILE)
    kiosk.tap(*MUG.inside())
    kiosk.on("mode-remove").click()
    expect(kiosk.on("mode-remove")).to_have_attribute("aria-pressed", "true")
    answer = kiosk.tap(*BESIDE)
    question = kiosk.asked()[-1]
    assert question["labels"] == [1, 0] and question["points"][1] == pytest.approx(BESIDE, abs=2)
    earlier = kiosk.segments()[0]
    assert question["mask_input"] == earlier["masks"][earlier["best"]]["logits_id"], "the shown mask is refined"
    assert question["multimask"] is False and answer is not None and len(answer["masks"]) == 1
    kiosk.on("mode-remove").click()
    kiosk.long_press(675, 150)
    assert kiosk.asked()[-1]["labels"] == [1, 0, 0]
    kiosk.gesture(lambda: kiosk.page.mouse.click(*kiosk.at(150, 300), button="right"))
    assert kiosk.asked()[-1]["labels"] == [1, 0, 0, 0]
    assert mask_iou(full_size(kiosk.segments()[-1]["masks"][0], MUG), MUG.product) >= 0.9


def test_a_drag_is_a_box_and_a_shaky_tap_is_a_tap(kiosk: Kiosk) -> None:
    kiosk.load(MUG_FILE)
    y, x = np.nonzero(MUG.product)
    corners = (int(x.min()) - 8, int(y.min()) - 8), (int(x.max()) + 8, int(y.max()) + 8)
    answer = kiosk.drag(corners[1], corners[0])  # from lower right to upper left: a box all the same
    question = kiosk.asked()[-1]
    assert question["box"] == pytest.approx([*corners[0], *corners[1]], abs=2) and not question.get("points")
    assert answer is not None
    assert mask_iou(full_size(answer["masks"][answer["best"]], MUG), MUG.product) >= 0.8
    kiosk.on("clear").click()
    here = kiosk.at(*MUG.inside())

    def shaky() -> None:
        kiosk.page.mouse.move(*here)
        kiosk.page.mouse.down()
        kiosk.page.mouse.move(here[0] + 3, here[1] - 3, steps=2)
        kiosk.page.mouse.up()

    kiosk.gesture(shaky)
    question = kiosk.asked()[-1]
    assert question.get("box") is None and question["points"][0] == pytest.approx(MUG.inside(), abs=5)


@pytest.mark.parametrize("size", ["portrait", "phone"])
def test_fingers_tap_and_press(visit: Callable[..., Kiosk], browser: Browser, size: str) -> None:
    kiosk = visit(browser, size, has_touch=True, is_mobile=size == "phone").open()
    kiosk.load(MUG_FILE)
    kiosk.gesture(lambda: kiosk.page.touchscreen.tap(*kiosk.at(*MUG.inside())))
    assert kiosk.asked()[-1]["labels"] == [1]
    session = kiosk.context.new_cdp_session(kiosk.page)
    x, y = kiosk.at(*BESIDE)

    def press() -> None:
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        kiosk.page.wait_for_timeout(700)
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    kiosk.gesture(press)
    assert kiosk.asked()[-1]["labels"] == [1, 0]


def test_candidates_are_offered_and_cycled(kiosk: Kiosk) -> None:
    kiosk.load(MUG_FILE)
    answer = kiosk.tap(*MUG.inside())
    assert answer is not None and len(answer["ambiguous"]) >= 2, "the starter model finds this tap ambiguous"
    expect(kiosk.on("candidate-0")).to_be_visible()
    expect(kiosk.on("candidate-1")).to_be_visible()

    def shown(logits: str) -> None:
        expect(kiosk.on("preview")).to_have_attribute("data-logits", logits)

    kiosk.on("candidate-1").click()
    names = [mask["logits_id"] for mask in answer["masks"]]
    shown(names[answer["ambiguous"][1]])
    kiosk.on("candidate-0").click()
    shown(names[answer["ambiguous"][0]])
    seen = [names[answer["ambiguous"][0]]]
    for _ in range(2):
        kiosk.on("next-mask").click()
        expect(kiosk.on("preview")).not_to_have_attribute("data-logits", seen[-1])
        seen.append(str(kiosk.on("preview").get_attribute("data-logits")))
    assert sorted(seen) == sorted(names)
    kiosk.long_press(*BESIDE)
    assert kiosk.asked()[-1]["mask_input"] == seen[-1], "the mask that is shown is the one that is refined"


def test_undo_redo_clear(kiosk: Kiosk) -> None:
    kiosk.load(MUG_FILE)
    expect(kiosk.on("undo")).to_be_disabled()
    kiosk.tap(*MUG.inside())
    kiosk.long_press(*BESIDE)
    kiosk.on("undo").click()
    kiosk.wait_for("masked")
    expect(kiosk.on("redo")).to_be_enabled()
    kiosk.page.keyboard.press("Control+z")
    kiosk.wait_for("ready")
    expect(kiosk.on("undo")).to_be_disabled()
    kiosk.on("redo").click()
    kiosk.page.keyboard.press("Control+y")
    kiosk.wait_for("masked")
    expect(kiosk.on("redo")).to_be_disabled()
    # What is drawn after it is the second mask again, and the next point stands on its shoulders.
    second = kiosk.segments()[1]
    kiosk.long_press(675, 150)
    question = kiosk.asked()[-1]
    assert question["labels"] == [1, 0, 0] and question["mask_input"] == second["masks"][0]["logits_id"]
    kiosk.on("clear").click()
    kiosk.wait_for("ready")
    kiosk.on("undo").click()
    kiosk.wait_for("masked")
