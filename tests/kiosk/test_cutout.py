"""The picture: the preview is true to what is saved, and what is saved is what the service cuts out."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.kiosk.kiosk import Kiosk
from tests.kiosk.scenes import as_file, mug_scene

MUG = mug_scene("blue")
MUG_FILE = as_file(MUG.image)
CUTOUT = r"/embeddings/[0-9a-f]+/cutout"
# The preview as it stands in its element, before the page's own styles: its pixels with alpha, as a list.
_PIXELS = """async (element) => {
  if (element.tagName === 'IMG') await element.decode();
  const [w, h] = element.tagName === 'IMG'
    ? [element.naturalWidth, element.naturalHeight] : [element.width, element.height];
  const canvas = new OffscreenCanvas(w, h);
  const context = canvas.getContext('2d');
  context.drawImage(element, 0, 0);
  return {w, h, rgba: Array.from(context.getImageData(0, 0, w, h).data)};
}"""


@pytest.fixture
def cut(kiosk: Kiosk) -> Kiosk:
    """A page on which the blue mug is selected and its preview shown."""
    kiosk.load(MUG_FILE)
    kiosk.tap(*MUG.inside())
    kiosk.wait_for_preview()
    expect(kiosk.on("verdict")).to_have_attribute("data-light", "green")
    return kiosk


def picture(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"))


def preview(kiosk: Kiosk) -> npt.NDArray[np.uint8]:
    """(h, w, 4) RGBA of the newest preview."""
    kiosk.wait_for_preview()
    got = kiosk.on("preview").evaluate(_PIXELS)
    return np.array(got["rgba"], np.uint8).reshape(got["h"], got["w"], 4)


def service_cut(kiosk: Kiosk, question: dict[str, Any]) -> bytes:
    """The same question asked without the page."""
    identity = kiosk.answers("/embeddings")[-1]["id"]
    answer = kiosk.service.post(f"/embeddings/{identity}/cutout", json=question)
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_downloads_are_the_services_bytes(cut: Kiosk, kind: str) -> None:
    cut.on("bg-white").click()
    cut.on(f"format-{kind}").click()
    data, name = cut.download()
    assert name.endswith(f".{kind}")
    question = cut.questions(CUTOUT)[-1]
    assert question["format"] == kind and question["background"] == "white" and question.get("max_side") is None
    assert data == service_cut(cut, question)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[kind]
    # The cutout route promises POST /crop's bytes: the same point asked there without a page.
    (asked,) = cut.asked()
    x, y = asked["points"][0]
    chosen = question["logits_id"] == (best := cut.segments()[0])["masks"][best["best"]]["logits_id"]
    assert chosen
    fields = {key: str(value) for key, value in question.items() if key != "logits_id" and value is not None}
    fields |= {"points": f"{x},{y}", "labels": "1"}
    fields = {key: {"True": "true", "False": "false"}.get(value, value) for key, value in fields.items()}
    crop = cut.service.post("/crop", files={"image_file": MUG_FILE}, data=fields)
    assert crop.status_code == 200, crop.text
    assert crop.content == data


def test_the_preview_is_the_finished_alpha_made_smaller(cut: Kiosk) -> None:
    cut.on("bg-transparent").click()
    shown = preview(cut)
    cut.on("format-png").click()
    data, _ = cut.download()
    final = picture(data)
    assert final.shape[0] / final.shape[1] == pytest.approx(shown.shape[0] / shown.shape[1], rel=0.01)
    alpha = Image.fromarray(final[..., 3])
    small = np.asarray(alpha.resize((shown.shape[1], shown.shape[0]), Image.Resampling.BOX)).astype(int)
    # Two ways to make a picture smaller differ along the edge, by a part of a pixel's coverage; the shape is the same.
    assert np.abs(small - shown[..., 3].astype(int)).mean() < 1.0
    assert ((small > 127) == (shown[..., 3] > 127)).mean() > 0.999
    assert 0.2 < (shown[..., 3] > 127).mean() < 0.99, "something is cut out, and something is not there"


def test_backgrounds_change_what_is_seen_and_saved(cut: Kiosk) -> None:
    def corner() -> tuple[int, ...]:
        """The middle colour of the preview's upper right corner, which is backdrop, as on the screen."""
        box = cut.on("preview-frame").bounding_box()
        assert box is not None
        x, y = int(box["x"] + box["width"]) - 20, int(box["y"]) + 20
        return tuple(int(c) for c in np.median(cut.screenshot()[y - 4 : y + 4, x - 4 : x + 4], (0, 1)))

    def becomes(colour: tuple[int, ...], within: int) -> None:
        """The page paints when it gets round to it: the last of the looks counts."""
        for _ in range(50):
            if (seen := corner()) == pytest.approx(colour, abs=within):
                return
            cut.page.wait_for_timeout(100)
        assert seen == pytest.approx(colour, abs=within)

    cut.on("bg-white").click()
    becomes((255, 255, 255), 0)
    cut.on("colour-input").fill("#3366cc")
    becomes((0x33, 0x66, 0xCC), 2)
    cut.on("format-png").click()
    data, _ = cut.download()
    assert tuple(picture(data)[2, -3]) == (0x33, 0x66, 0xCC, 255)
    cut.on("bg-transparent").click()
    data, _ = cut.download()
    assert picture(data)[2, -3, 3] == 0


def test_copy_puts_the_png_on_the_clipboard(visit: Callable[..., Kiosk], browser: Browser) -> None:
    kiosk = visit(browser, permissions=["clipboard-read", "clipboard-write"]).open()
    kiosk.load(MUG_FILE)
    kiosk.tap(*MUG.inside())
    kiosk.wait_for_preview()
    kiosk.on("bg-transparent").click()
    kiosk.on("copy").click()
    expect(kiosk.on("toast")).to_have_attribute("data-kind", "good")
    copied = kiosk.page.evaluate("""async () => {
      const [item] = await navigator.clipboard.read();
      return Array.from(new Uint8Array(await (await item.getType('image/png')).arrayBuffer()));
    }""")
    question = {"logits_id": kiosk.questions(CUTOUT)[-1]["logits_id"], "background": "transparent", "format": "png"}
    final = picture(service_cut(kiosk, kiosk.questions(CUTOUT)[-1] | question | {"max_side": None}))
    # The browser writes the PNG anew and may premultiply: pixels that can be seen are the same.
    got, solid = picture(bytes(copied)), final[..., 3] == 255
    assert got.shape == final.shape and np.array_equal(got[..., 3], final[..., 3])
    assert np.array_equal(got[solid], final[solid])


def test_the_traffic_light_warns_of_a_product_at_the_border(kiosk: Kiosk) -> None:
    scene = mug_scene("green", centre=(0.06, 0.6))
    kiosk.load(as_file(scene.image))
    kiosk.tap(*scene.inside())
    verdict = kiosk.on("verdict")
    kiosk.wait_for_preview()
    expect(verdict).to_have_attribute("data-light", re.compile("red|amber"))
    assert len(verdict.inner_text().strip()) > 10, "a sentence says what to do"
    newest = [r for r in kiosk.responses if r.url.endswith("/cutout")][-1]
    assert "touches_border" in newest.headers["x-retake"]
