"""Ways in for a photo, an engine that is being built, and a capture whose answer is lost."""

from __future__ import annotations

import base64
import json

import pytest
from playwright.sync_api import Route, expect

from tests.kiosk.kiosk import Kiosk
from tests.kiosk.scenes import as_file, mug_scene

MUG = mug_scene("violet")
MUG_FILE = as_file(MUG.image)
# A file as it comes out of another window, put into an event of that kind.
_GIVE = """([kind, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], 'mug.png', {type: 'image/png'}));
  const event = kind === 'paste'
    ? new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true, cancelable: true})
    : new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_comes_by_drop_and_by_paste(kiosk: Kiosk, way: str) -> None:
    kiosk.page.evaluate(_GIVE, [way, base64.b64encode(MUG_FILE).decode()])
    kiosk.wait_for("ready")
    assert kiosk.photo_size() == MUG.image.shape[:2]
    assert kiosk.tap(*MUG.inside())


def test_a_file_that_is_no_photo_is_told(kiosk: Kiosk) -> None:
    kiosk.load(b"These are words and no picture.", wait=False)
    expect(kiosk.on("toast")).to_have_attribute("data-kind", "bad")
    assert kiosk.page.locator("body").get_attribute("data-state") == "no-camera"


def test_an_engine_that_is_built_shows_how_far_it_is(kiosk: Kiosk) -> None:
    # No engine is ever built on a CPU: the service's own answer, with that state put in.
    status = kiosk.service.get("/kiosk/status").json()
    status |= {"state": "building", "engine": {"state": "building", "progress": 0.37}}
    body = json.dumps(status)
    kiosk.page.route("**/kiosk/status", lambda route: route.fulfill(content_type="application/json", body=body))
    kiosk.wait_for_server("building")
    expect(kiosk.on("status")).to_have_attribute("data-state", "building")
    expect(kiosk.on("status")).to_contain_text("37")
    kiosk.page.unroute("**/kiosk/status")
    kiosk.wait_for_server("ok")
    expect(kiosk.on("status")).to_have_attribute("data-state", "ready")


def test_a_capture_whose_answer_was_lost_is_stored_once(kiosk: Kiosk) -> None:
    kiosk.load(MUG_FILE)
    kiosk.tap(*MUG.inside())
    kiosk.wait_for_preview()
    kiosk.allow("net::ERR_")
    lost: list[str] = []

    def lose_the_first(route: Route) -> None:
        if not lost:
            lost.append(route.fetch().json()["id"])  # the service has stored it; nobody hears of it
            route.abort("connectionreset")
        else:
            route.continue_()

    kiosk.page.route("**/captures", lose_the_first)
    kiosk.on("sku").fill("MUG-ONCE")
    kiosk.on("save").click()
    kiosk.wait_for("saved")
    assert [c["id"] for c in kiosk.service.captures() if c.get("sku") == "MUG-ONCE"] == lost
    posts = [r for r in kiosk.sent if r.method == "POST" and r.url.endswith("/captures")]
    assert len(posts) >= 2 and len({r.headers["idempotency-key"] for r in posts}) == 1
