"""The measures find what they are for: small targets, faint texts also over pictures, and pages that are too wide."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page

from tests.kiosk.measures import cut_off_targets, faint_texts, overhang, small_targets

GOOD = "<button style='width:48px;height:48px;background:#fff;color:#000'>ok</button>"


@pytest.fixture
def page(browser: Browser) -> Page:
    return browser.new_context(viewport={"width": 400, "height": 300}).new_page()


def test_a_good_page_passes(page: Page) -> None:
    page.set_content(GOOD + "<input type=file hidden><button disabled style='width:60px;height:60px'>off</button>")
    assert (small_targets(page), faint_texts(page), overhang(page)) == ([], [], 0)


def test_a_small_button_is_found(page: Page) -> None:
    page.set_content(GOOD + "<button style='width:200px;height:47px' data-testid=low>x</button>")
    assert [t.split()[0] for t in small_targets(page)] == ["button#low"]


@pytest.mark.parametrize(
    ("text", "ground", "faint"),
    [
        ("#777", "background:#fff", True),  # 4.48
        ("#767676", "background:#fff", False),  # 4.54
        ("rgba(0,0,0,.5)", "background:#fff", True),
        ("#fff", "background:linear-gradient(90deg,rgb(0,0,0),rgb(200,200,200))", True),
    ],
)
def test_faint_texts_are_found(page: Page, text: str, ground: str, faint: bool) -> None:
    page.set_content(f"<p style='{ground}'><b style='color:{text}'>words</b></p>")
    assert bool(faint_texts(page)) == faint


@pytest.mark.parametrize(("alpha", "faint"), [(0.3, True), (0.9, False)])
def test_text_over_a_picture_counts_with_the_worse_of_white_and_black(page: Page, alpha: float, faint: bool) -> None:
    canvas = "<canvas id=film style='position:fixed;inset:0;width:100%;height:100%'></canvas>"
    panel = f"position:fixed;top:50px;left:50px;color:#fff;background:rgba(0,0,0,{alpha});pointer-events:none"
    page.set_content(f"<body style='background:#000'>{canvas}<div style='{panel}'>over the photo</div>")
    assert faint_texts(page) == [], "an empty canvas shows nothing of its own"
    page.evaluate("film.getContext('2d').fillRect(0, 0, 300, 150)")
    assert bool(faint_texts(page)) == faint


def test_a_control_that_is_cut_off_is_found(page: Page) -> None:
    hidden = "<div style='overflow:hidden;width:100%'><div style='width:430px;text-align:right'>"
    page.set_content(f"{hidden}{GOOD}</div></div>")
    assert overhang(page) <= 0, "nothing can be scrolled"
    assert len(cut_off_targets(page)) == 1
    page.set_content(GOOD)
    assert cut_off_targets(page) == []


def test_a_wide_page_is_found(page: Page) -> None:
    page.set_content(GOOD + "<div style='width:500px;height:10px'></div>")
    assert overhang(page) == 100 + 8  # the body's margin
