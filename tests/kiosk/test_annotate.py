"""The annotation page by keyboard and mouse: what is accepted there lies on the disk, and is what was shown."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from boothsam.runtime.masks import compress_rle, mask_iou, mask_to_rle, rle_to_mask
from playwright.sync_api import Browser, Route, expect

from tests.kiosk.desk import FILES, SCENES, SIZE, Desk
from tests.kiosk.kiosk import SIZES, Kiosk
from tests.kiosk.service import KioskService

Visit = Callable[..., Kiosk]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KioskService]:
    """One service for all tests of this file: its start takes longer than most of them."""
    folder = tmp_path_factory.mktemp("annotating")
    (folder / "photos").mkdir()
    service = KioskService(folder / "service", annotate_dir=folder / "photos", captures_dir="").start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def service(running: KioskService) -> KioskService:
    """What `visit` goes to."""
    return running


@pytest.fixture
def folder(running: KioskService) -> Path:
    """Four drawn mugs, and a file that is no photo between them."""
    photos = Path(str(running.settings["annotate_dir"]))
    for name, data in FILES.items():
        (photos / name).write_bytes(data)
    (photos / "mug-2b.jpg").write_text("no photo")
    return photos


@pytest.fixture
def annotating(running: KioskService, folder: Path) -> KioskService:
    """The service, with nothing annotated yet."""

    def put(path: str, body: Any) -> None:
        assert httpx.put(f"{running.url}/annotations{path}", json=body, timeout=60).status_code == 200

    for photo in running.get("/annotations").json()["photos"]:
        if photo["status"] in ("open", "broken"):
            continue
        digest = running.get(f"/annotations/photos/{photo['key']}").json()["photo_sha256"]
        put(f"/photos/{photo['key']}", {"photo_sha256": digest, "objects": [], "done": False})
    put("/categories", {"categories": [{"id": 1, "name": "product"}]})
    assert not list((folder / "annotations" / "records").iterdir())
    return running


@pytest.fixture
def desk(visit: Visit, browser: Browser, annotating: KioskService, folder: Path) -> Desk:
    return Desk(visit(browser), folder).open()


def test_tap_and_enter_photo_by_photo(desk: Desk, annotating: KioskService) -> None:
    for name in list(SCENES):
        desk.shows(name)
        desk.tap_mug()
        desk.press("Enter")
    desk.saved()
    expect(desk.on("toast")).to_contain_text("Every photo is done")
    expect(desk.on("progress")).to_contain_text("4 of 4")
    records = desk.records()
    assert set(records) == set(SCENES), "the broken one was passed over"
    for name, record in records.items():
        (found,) = record["objects"]
        mask = desk.mask(found["file"])
        assert record["status"] == "done" and mask.shape == SIZE
        assert mask_iou(mask, SCENES[name].product) > 0.75
    dataset = annotating.get("/annotations/export").json()
    assert len(dataset["annotations"]) == 4 and [c["name"] for c in dataset["categories"]] == ["product"]


def test_what_is_saved_is_what_the_service_answers_to_the_same_prompt(desk: Desk, annotating: KioskService) -> None:
    x, y = SCENES["mug-1.png"].inside()
    body = desk.tap(x, y)
    desk.press("m", "n")
    desk.saved()
    order = sorted(range(3), key=lambda i: -body["masks"][i]["iou_prediction"])
    asked = desk.kiosk.asked()[-1]
    point = asked["points"][0]
    assert point == pytest.approx([x, y], abs=1.5)
    question = {"points": [point], "labels": [1]}
    full = annotating.post(f"/embeddings/{body['id']}/segment", json=question).json()["masks"][order[1]]
    (found,) = desk.records()["mug-1.png"]["objects"]
    assert (desk.mask(found["file"]) == rle_to_mask(full["rle"])).all()
    assert found["score"] == pytest.approx(full["iou_prediction"], abs=1e-4)


def test_several_objects_categories_undo_and_removal(desk: Desk) -> None:
    desk.on("edit-categories").click()
    desk.on("new-category").fill("lid")
    desk.on("save-categories").click()
    expect(desk.on("category-2")).to_contain_text("lid")
    desk.tap_mug()
    desk.press("n")
    expect(desk.on("object")).to_have_count(1)
    desk.press("2")
    desk.tap(100, 650)
    desk.press("n")
    desk.saved()
    record = desk.records()["mug-1.png"]
    assert [found["category_id"] for found in record["objects"]] == [1, 2] and record["status"] == "started"
    desk.press("Delete")
    expect(desk.on("object")).to_have_count(1)
    desk.saved()
    desk.press("Control+z")
    expect(desk.on("object")).to_have_count(2)
    desk.saved()
    again = desk.records()["mug-1.png"]["objects"]
    assert [found["sha256"] for found in again] == [found["sha256"] for found in record["objects"]]
    desk.press("Control+z")  # undoes the second N: its prompt is back
    expect(desk.on("object")).to_have_count(1)
    desk.kiosk.wait_for("masked")
    desk.press("Control+z")
    desk.kiosk.wait_for("ready")
    desk.press("Control+y")
    desk.kiosk.wait_for("masked")
    desk.press("n")
    desk.on("object").first.locator("button").first.click()
    desk.press("2")
    desk.saved()
    assert [found["category_id"] for found in desk.records()["mug-1.png"]["objects"]] == [2, 2]


def test_background_points_and_boxes(desk: Desk) -> None:
    x, y = SCENES["mug-1.png"].inside()
    desk.tap(x, y)
    desk.tap(x - 300, y - 200, button="right")
    assert desk.kiosk.asked()[-1]["labels"] == [1, 0] and "mask_input" in desk.kiosk.asked()[-1]
    desk.page.keyboard.down("Shift")
    desk.tap(x + 350, y - 200)
    desk.page.keyboard.up("Shift")
    assert desk.kiosk.asked()[-1]["labels"] == [1, 0, 0]
    desk.tap(x - 350, y, delay=700)
    assert desk.kiosk.asked()[-1]["labels"] == [1, 0, 0, 0]
    desk.press("Escape")
    desk.kiosk.wait_for("ready")
    rows, columns = np.nonzero(SCENES["mug-1.png"].product)
    box = [columns.min() - 6, rows.min() - 6, columns.max() + 6, rows.max() + 6]
    with desk.page.expect_response(re.compile(r"/segment$")):
        desk.page.mouse.move(*desk.at(box[0], box[1]))
        desk.page.mouse.down()
        desk.page.mouse.move(*desk.at(box[2], box[3]), steps=4)
        desk.page.mouse.up()
    desk.kiosk.wait_for("masked")
    assert desk.kiosk.asked()[-1]["box"] == pytest.approx(box, abs=2)
    desk.press("Enter")
    desk.shows("mug-2.png")
    desk.saved()
    (found,) = desk.records()["mug-1.png"]["objects"]
    assert mask_iou(desk.mask(found["file"]), SCENES["mug-1.png"].product) > 0.8


def test_it_goes_on_where_it_stopped(desk: Desk, visit: Visit, browser: Browser, annotating: KioskService) -> None:
    desk.tap_mug()
    desk.press("Enter")
    desk.shows("mug-2.png")
    desk.press("s")
    desk.shows("mug-3.png")
    desk.tap_mug()
    desk.press("n")
    desk.saved()
    desk.kiosk.allow_no_connection()
    desk.kiosk.allow_status(503)
    annotating.stop()
    annotating.start()
    again = Desk(visit(browser), desk.folder).open()
    again.shows("mug-3.png")
    expect(again.on("object")).to_have_count(1)
    status = {name: record["status"] for name, record in again.records().items()}
    assert status == {"mug-1.png": "done", "mug-2.png": "skipped", "mug-3.png": "started"}
    again.press("ArrowLeft")
    expect(again.on("broken")).to_be_visible()
    again.press("j")
    again.shows("mug-2.png")
    again.press("j", "k", "k", "k")
    again.shows("mug-3.png")


def test_a_photo_without_a_product_must_be_meant(desk: Desk) -> None:
    desk.press("Enter")
    expect(desk.on("toast")).to_contain_text("Shift+Enter")
    desk.shows("mug-1.png")
    desk.press("Shift+Enter")
    desk.shows("mug-2.png")
    desk.saved()
    assert desk.records()["mug-1.png"]["objects"] == [] and desk.records()["mug-1.png"]["status"] == "done"


def keys_of(service: KioskService) -> dict[str, str]:
    """The photos' keys by their names."""
    return {photo["name"]: photo["key"] for photo in service.get("/annotations").json()["photos"]}


def test_the_next_photo_is_analysed_ahead(
    visit: Visit, browser: Browser, annotating: KioskService, folder: Path
) -> None:
    keys = keys_of(annotating)
    # A device that takes long for a photo looks at none ahead: here the first one is known.
    assert annotating.post(f"/annotations/photos/{keys['mug-1.png']}/embedding").status_code == 200
    ahead = re.compile(f"{keys['mug-2.png']}/embedding")
    desk = Desk(visit(browser), folder)
    with desk.page.expect_response(ahead):
        desk.open()
    desk.tap_mug()
    with desk.page.expect_response(ahead) as caught:
        desk.press("Enter")
    assert caught.value.json()["cached"]
    others = [r for r in desk.kiosk.sent if f"{keys['mug-4.png']}/embedding" in r.url]
    assert not others, "one photo ahead and no more"


def test_a_click_during_the_analysis_counts(
    visit: Visit, browser: Browser, annotating: KioskService, folder: Path
) -> None:
    desk = Desk(visit(browser), folder)
    held: list[Route] = []  # also the question that is asked ahead
    desk.page.route(re.compile(f"{keys_of(annotating)['mug-2.png']}/embedding"), lambda route: held.append(route))
    desk.open()
    desk.press("ArrowRight")
    expect(desk.on("photo-name")).to_contain_text("mug-2.png")
    expect(desk.on("analysing")).to_be_visible()
    desk.sees()
    desk.tap(*SCENES["mug-2.png"].inside(), answer=False)
    assert desk.kiosk.asked() == []
    for route in held:
        route.continue_()
    desk.kiosk.wait_for("masked")
    desk.press("n")
    desk.saved()
    (found,) = desk.records()["mug-2.png"]["objects"]
    assert mask_iou(desk.mask(found["file"]), SCENES["mug-2.png"].product) > 0.75


def test_a_restart_between_mask_and_save_loses_nothing(desk: Desk, annotating: KioskService) -> None:
    desk.kiosk.allow_no_connection()
    desk.kiosk.allow_status(404, 422, 503)
    desk.kiosk.allow("ERR_CONTENT_LENGTH_MISMATCH")  # a thumbnail may be on its way
    x, y = SCENES["mug-1.png"].inside()
    desk.tap(x, y)
    desk.tap(x - 300, y - 250, button="right")
    shown = desk.kiosk.segments()[-1]["masks"][0]
    annotating.kill()
    desk.press("n")
    expect(desk.on("save-state")).to_have_attribute("data-state", "offline")
    assert not list((desk.folder / "annotations" / "records").iterdir())
    annotating.start()
    desk.saved()
    (found,) = desk.records()["mug-1.png"]["objects"]
    saved = [r for r in desk.kiosk.responses if r.request.method == "PUT" and r.ok][-1].request.post_data_json
    # A logits_id is a content hash: after the restart the service was asked for the very mask that was shown.
    assert saved["objects"][0]["logits_id"] == shown["logits_id"]
    assert found["score"] == pytest.approx(shown["iou_prediction"], abs=1e-4)
    desk.tap(x, y)
    desk.press("Enter")
    desk.shows("mug-2.png")


def test_another_photo_under_the_name_is_told(desk: Desk) -> None:
    desk.tap_mug()
    desk.press("Enter")
    desk.shows("mug-2.png")
    desk.saved()
    shutil.copy(desk.folder / "mug-4.png", desk.folder / "mug-1.png")
    desk.press("ArrowLeft")
    expect(desk.on("toast")).to_contain_text("Another photo")
    expect(desk.on("object")).to_have_count(0)
    desk.shows("mug-1.png")
    desk.tap(*SCENES["mug-4.png"].inside())
    desk.press("Enter")
    desk.shows("mug-2.png")
    desk.saved()
    (found,) = desk.records()["mug-1.png"]["objects"]
    assert mask_iou(desk.mask(found["file"]), SCENES["mug-4.png"].product) > 0.75


def test_by_keyboard_alone(desk: Desk) -> None:
    desk.press("?")
    expect(desk.on("help-overlay")).to_be_visible()
    desk.press("Escape")
    expect(desk.on("help-overlay")).to_have_count(0)
    desk.on("stage").focus()
    desk.press("Alt+ArrowDown", "Alt+ArrowDown", " ")
    desk.kiosk.wait_for("masked")
    assert desk.kiosk.asked()[-1]["points"] == [[640, 440]]
    desk.press("Shift+Enter")
    desk.shows("mug-2.png")
    desk.saved()
    assert len(desk.records()["mug-1.png"]["objects"]) == 1


def test_a_button_that_was_clicked_does_not_eat_enter(desk: Desk) -> None:
    desk.on("skip").click()
    desk.shows("mug-2.png")
    desk.tap_mug()
    desk.press("Enter")
    desk.shows("mug-3.png")
    desk.saved()
    assert desk.records()["mug-2.png"]["status"] == "done"


def test_export_and_german(visit: Visit, browser: Browser, annotating: KioskService, folder: Path) -> None:
    desk = Desk(visit(browser, locale="de-AT"), folder).open()
    expect(desk.on("finish")).to_contain_text("Fertig, nächstes Foto")
    desk.tap_mug()
    desk.on("finish").click()
    desk.shows("mug-2.png")
    desk.saved()
    data, name = desk.kiosk.download("export")
    assert name == "photos-coco.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert sorted(archive.namelist()) == ["annotations.json", "images/mug-1.png", "masks/mug-1-1.png"]
    strings = [json.loads((STRINGS / f"{name}.json").read_text()) for name in ("en", "de")]
    assert set(strings[0]) == set(strings[1])


STRINGS = Path(__file__).parents[2] / "service" / "static" / "strings" / "annotate"


def test_a_token_is_asked_for_once(visit: Visit, browser: Browser, folder: Path, tmp_path: Path) -> None:
    service = KioskService(
        tmp_path / "guarded", annotate_dir=folder, annotations_dir=tmp_path / "out", captures_dir="", token="hush"
    ).start()
    try:
        kiosk = visit(browser, at=service).open("/annotate")
        kiosk.allow_status(401)
        kiosk.on("token").fill("hush")
        kiosk.on("token-give").click()
        kiosk.wait_for("ready")
        kiosk.page.reload()
        kiosk.wait_for("ready")
    finally:
        service.stop()


@pytest.mark.parametrize("size", SIZES)
def test_every_size_shows_the_photo_and_every_button(
    visit: Visit, browser: Browser, annotating: KioskService, folder: Path, size: str
) -> None:
    desk = Desk(visit(browser, size), folder).open()
    desk.tap_mug()
    page = desk.page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth && scrollX === 0")
    stage = desk.on("stage").bounding_box()
    assert stage is not None and stage["width"] * stage["height"] > 0.3 * SIZES[size][0] * SIZES[size][1]
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, input, [tabindex="0"]')]
          .filter((e) => e.checkVisibility())
          .map((e) => [e.dataset.testid ?? e.textContent, e.getBoundingClientRect()])
          .filter(([, r]) => r.width < 48 || r.height < 48).map(([name]) => name)"""
    )
    assert not small
    for button in ("previous", "undo", "mode-remove", "skip", "accept", "finish", "next", "next-mask", "help"):
        expect(desk.on(button)).to_be_in_viewport(ratio=1)


def test_run_lengths_in_the_browser(desk: Desk) -> None:
    rng = np.random.default_rng(3)
    mask = np.kron(rng.random((30, 50)) > 0.6, np.ones((20, 31), np.bool_))
    packed = compress_rle(mask_to_rle(mask))
    found = desk.page.evaluate(
        """async ([rle, side]) => {
          const {unpackRuns, displayRuns} = await import('/static/js/annotate/runs.js');
          let refused = 0;
          for (const text of ['~', 'o', ' ']) { try { unpackRuns(text); } catch { refused += 1; } }
          return {runs: unpackRuns(rle.counts), small: displayRuns(rle, side), refused};
        }""",
        [packed, 310],
    )
    assert found["runs"] == mask_to_rle(mask)["counts"] and found["refused"] == 3
    small = rle_to_mask(found["small"])
    rows = ((np.arange(small.shape[0]) + 0.5) * mask.shape[0] / small.shape[0]).astype(int)
    columns = ((np.arange(small.shape[1]) + 0.5) * mask.shape[1] / small.shape[1]).astype(int)
    assert small.shape == (120, 310) and (small == mask[np.ix_(rows, columns)]).all()
