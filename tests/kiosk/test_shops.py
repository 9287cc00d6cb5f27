"""Pictures for a marketplace, and the small faults that are mended unless somebody says no."""

from __future__ import annotations

import io

import numpy as np
import pytest
from boothsam.service.presets.check import check
from boothsam.service.presets.preset import load_preset
from PIL import Image
from playwright.sync_api import expect

from tests.kiosk.kiosk import Kiosk
from tests.kiosk.scenes import as_file, mug_scene
from tests.kiosk.test_cutout import CUTOUT, service_cut

MUG = mug_scene("blue")
MUG_FILE = as_file(MUG.image)


@pytest.fixture
def cut(kiosk: Kiosk) -> Kiosk:
    """A page on which the blue mug is selected and its preview shown."""
    kiosk.load(MUG_FILE)
    kiosk.tap(*MUG.inside())
    kiosk.wait_for_preview()
    return kiosk


@pytest.mark.parametrize("name", ["amazon", "google"])
def test_a_shops_picture_passes_the_shops_check_and_is_what_was_shown(cut: Kiosk, name: str) -> None:
    cut.on("preset").select_option(name)
    cut.wait_for_preview()
    for decided in ("bg-white", "bg-transparent", "format-png", "format-webp"):
        expect(cut.on(decided)).to_be_disabled()
    data, file_name = cut.download()
    report = check(data, load_preset(name), name=file_name)
    assert not [finding for finding in report.failed if finding.rule != "name"], report.failed
    question = cut.questions(CUTOUT)[-1]
    assert question["preset"] == name and data == service_cut(cut, question)
    shown = cut.on("preview").evaluate("async (image) => { await image.decode(); return image.naturalWidth; }")
    with Image.open(io.BytesIO(data)) as image:
        assert image.width == shown and np.array_equal(np.asarray(image)[0, 0], [255, 255, 255])
    cut.on("preset").select_option("")
    cut.wait_for_preview()
    expect(cut.on("bg-white")).to_be_enabled()


def test_small_faults_are_mended_unless_the_switch_is_off(cut: Kiosk) -> None:
    question = cut.questions(CUTOUT)[-1]
    assert question["fill_holes"] is True and question["drop_islands"] is True
    cut.on("settings").click()
    expect(cut.on("tidy-switch")).to_have_attribute("aria-checked", "true")
    cut.on("tidy-switch").click()
    cut.page.keyboard.press("Escape")
    cut.wait_for_preview()
    data, _ = cut.download()
    question = cut.questions(CUTOUT)[-1]
    assert not question.get("fill_holes") and not question.get("drop_islands")
    assert data == service_cut(cut, question)
