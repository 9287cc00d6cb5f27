"""Everybody can use it: large targets, legible texts, keyboard alone, their own language, any window."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import boothsam.service
import pytest
from boothsam.runtime.masks import mask_iou
from playwright.sync_api import Browser, expect

from tests.kiosk.kiosk import SIZES, Kiosk
from tests.kiosk.measures import cut_off_targets, faint_texts, overhang, small_targets
from tests.kiosk.scenes import as_file, full_size, mug_scene
from tests.kiosk.service import KioskService

STRINGS = Path(boothsam.service.__file__).parent / "static" / "strings"
MUG = mug_scene("red", centre=(0.5, 0.5))
MUG_FILE = as_file(MUG.image)


def check(kiosk: Kiosk, where: str) -> list[str]:
    """What is too small, too faint or too wide at this moment."""
    found = [f"target {t}" for t in small_targets(kiosk.page)] + [f"contrast {t}" for t in faint_texts(kiosk.page)]
    found += [f"cut off {t}" for t in cut_off_targets(kiosk.page)]
    found += [f"{wide} px too wide"] if (wide := overhang(kiosk.page)) > 0 else []
    return [f"{where}: {what}" for what in found]


@pytest.mark.parametrize("size", SIZES)
def test_targets_contrast_and_width(
    visit: Callable[..., Kiosk], browser: Browser, camera_browser: Browser, size: str
) -> None:
    live = visit(camera_browser, size).open()
    found = check(live, "camera")
    live.on("settings").first.click()
    expect(live.on("booth-switch")).to_be_visible()
    found += check(live, "settings")
    kiosk = visit(browser, size).open()
    found += check(kiosk, "no camera")
    kiosk.load(MUG_FILE)
    found += check(kiosk, "photo")
    kiosk.tap(*MUG.inside())
    kiosk.wait_for_preview()
    found += check(kiosk, "mask")
    kiosk.on("sku").fill("4006381333932")
    expect(kiosk.on("gtin-error")).to_be_visible()
    found += check(kiosk, "wrong number")
    kiosk.on("sku").fill("MUG-7")
    kiosk.on("save").click()
    kiosk.wait_for("saved")
    found += check(kiosk, "saved")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "window", [(960, 540), (540, 960), (320, 640)], ids=["1080p at 200 %", "portrait at 200 %", "320"]
)
def test_a_magnified_page_has_everything(
    visit: Callable[..., Kiosk], browser: Browser, window: tuple[int, int]
) -> None:
    kiosk = visit(browser, viewport={"width": window[0], "height": window[1]}).open()
    kiosk.load(MUG_FILE)
    stage = kiosk.on("stage").bounding_box()
    assert stage is not None and min(stage["width"], stage["height"]) > 150, "there is room to tap"
    kiosk.tap(*MUG.inside())
    assert overhang(kiosk.page) <= 0
    kiosk.on("download").scroll_into_view_if_needed()
    data, _ = kiosk.download()
    assert data[:4] == b"\x89PNG"


@pytest.mark.parametrize("window", [(1280, 800), (1024, 768), (768, 1024)])
def test_other_windows_cut_nothing_off(visit: Callable[..., Kiosk], browser: Browser, window: tuple[int, int]) -> None:
    kiosk = visit(browser, viewport={"width": window[0], "height": window[1]}).open()
    found = check(kiosk, "no camera")
    kiosk.load(MUG_FILE)
    found += check(kiosk, "photo")
    kiosk.tap(*MUG.inside())
    kiosk.wait_for_preview()
    found += check(kiosk, "mask")
    assert not found, "\n".join(found)


def test_keyboard_alone_from_photo_to_download(kiosk: Kiosk) -> None:
    page = kiosk.page
    # Heard from the start: on a busy machine a dialog may be open before the browser has been told to hand it over.
    page.on("filechooser", lambda chooser: None)
    stops: set[str] = set()

    def tab_to(test_id: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            here = page.evaluate(
                """() => {
                  const e = document.activeElement;
                  const ring = [e, e.parentElement ?? e].map((x) => getComputedStyle(x)).some(
                    (s) => s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1 || s.boxShadow !== 'none');
                  return {id: e.dataset.testid || '', ring, name: e.outerHTML.slice(0, 80)};
                }"""
            )
            assert here["ring"] or here["name"].startswith("<body"), f"focus cannot be seen on {here['name']}"
            stops.add(here["id"])
            if here["id"] == test_id:
                return
        raise AssertionError(f"Tab never reached {test_id}: {sorted(stops)}")

    tab_to("open-file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files({"name": "mug.png", "mimeType": "image/png", "buffer": MUG_FILE})
    kiosk.wait_for("ready")
    tab_to("stage")
    with page.expect_response(re.compile("/segment$")):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
    kiosk.wait_for("masked")
    (x, y) = kiosk.asked()[0]["points"][0]
    height, width = kiosk.photo_size()
    assert width / 2 < x < width * 0.6 and height / 2 < y < height * 0.6, "from the middle, right and down"
    answer = kiosk.segments()[0]
    assert mask_iou(full_size(answer["masks"][answer["best"]], MUG), MUG.product) >= 0.85
    kiosk.wait_for_preview()
    announced = " ".join(page.locator("[aria-live]").all_inner_texts())
    assert re.search(r"\d+ ?%", announced), announced
    chosen = kiosk.questions(r"/embeddings/[0-9a-f]+/cutout")
    with page.expect_request(re.compile("/cutout$")) as asked:
        page.keyboard.press("m")
    assert asked.value.post_data_json["logits_id"] != chosen[0]["logits_id"], "M takes the next mask"
    for _ in range(12):
        page.keyboard.press("Shift+ArrowLeft")
    with page.expect_response(re.compile("/segment$")):
        page.keyboard.press("Shift+Enter")
    kiosk.wait_for("masked")
    assert kiosk.asked()[-1]["labels"] == [1, 0]
    page.keyboard.press("Control+z")
    kiosk.wait_for("masked")
    tab_to("download")
    with page.expect_download() as saved:
        page.keyboard.press("Enter")
    assert saved.value.path().stat().st_size > 1000


def test_a_box_by_keyboard(kiosk: Kiosk) -> None:
    kiosk.load(MUG_FILE)
    page = kiosk.page
    kiosk.on("stage").focus()
    for _ in range(6):
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("b")
    page.wait_for_timeout(150)  # at a person's pace: a scanner types faster
    for _ in range(12):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    with page.expect_response(re.compile("/segment$")):
        page.keyboard.press("b")
    x0, y0, x1, y1 = kiosk.asked()[-1]["box"]
    height, width = kiosk.photo_size()
    assert x0 < width / 2 < x1 and y0 < height / 2 < y1


def test_german_by_the_browser_and_by_choice(visit: Callable[..., Kiosk], browser: Browser) -> None:
    strings = {code: json.loads((STRINGS / f"{code}.json").read_text()) for code in ("en", "de")}

    def speaks(kiosk: Kiosk, code: str) -> None:
        expect(kiosk.page.locator("html")).to_have_attribute("lang", code)
        for key in ("camera.none", "action.open", "status.ready"):
            expect(kiosk.page.get_by_text(strings[code][key], exact=True).first).to_be_visible()

    speaks(visit(browser, locale="de-AT").open(), "de")
    kiosk = visit(browser, locale="fr-FR").open()
    speaks(kiosk, "en")
    kiosk.on("settings").click()
    kiosk.on("language-de").click()
    kiosk.on("settings-close").click()
    speaks(kiosk, "de")
    kiosk.page.reload()
    speaks(kiosk, "de")


def test_every_language_has_every_text() -> None:
    languages = [entry["code"] for entry in json.loads((STRINGS / "index.json").read_text())["languages"]]
    assert {"en", "de"} <= set(languages)
    english = json.loads((STRINGS / "en.json").read_text())

    def slots(text: str | dict[str, str]) -> set[str]:
        whole = text if isinstance(text, str) else " ".join(text.values())
        return set(re.findall(r"\{(\w+)\}", whole))

    for language in languages:
        strings = json.loads((STRINGS / f"{language}.json").read_text())
        assert set(strings) == set(english), language
        for key, text in strings.items():
            assert slots(text) == slots(english[key]), (language, key)
            assert isinstance(text, str) or "other" in text, (language, key)


@pytest.fixture(scope="module")
def guarded(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KioskService]:
    """A service that wants a token."""
    service = KioskService(tmp_path_factory.mktemp("token"), token="open-sesame-7").start()
    yield service
    service.stop()


def test_a_token_is_asked_for_once_or_comes_with_the_address(
    visit: Callable[..., Kiosk], browser: Browser, guarded: KioskService
) -> None:
    kiosk = visit(browser, at=guarded)
    kiosk.allow_status(401)
    kiosk.page.goto(guarded.url + "/")
    field = kiosk.on("token")
    expect(field).to_be_visible()
    field.fill("wrong")
    field.press("Enter")
    expect(field).to_be_visible()
    field.fill("open-sesame-7")
    field.press("Enter")
    expect(field).to_be_hidden()
    kiosk.load(MUG_FILE)
    assert kiosk.tap(*MUG.inside())
    kiosk.page.reload()
    kiosk.wait_for("no-camera")
    expect(field).to_be_hidden()
    linked = visit(browser, at=guarded).open("/#token=open-sesame-7")
    assert "token" not in linked.page.url
    linked.load(MUG_FILE)
    assert linked.tap(*MUG.inside())
