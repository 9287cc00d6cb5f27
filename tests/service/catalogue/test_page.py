"""report.html: nothing that comes from outside is ever markup, and it says the same as the tables."""

from __future__ import annotations

import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from boothsam.service.catalogue.html import clean, h, href
from boothsam.service.catalogue.page import page
from boothsam.service.catalogue.records import STATUSES, Catalogue, Entry, Reason
from boothsam.service.catalogue.report import as_csv

from tests.service.catalogue.conftest import photo

EVIL = "\"><img src=x onerror=alert(1)>&lt;\u202e\x07'</script><script>alert(2)</script>"


KNOWN = frozenset(
    ["html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "article", "div"]
    + ["p", "h1", "h2", "h3", "a", "b", "i", "em", "span", "small", "ul", "li", "bdi", "figure", "figcaption", "img"]
    + ["details", "summary"]
)


class _Tags(HTMLParser):
    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def evil(status: str) -> Entry:
    sources = {"rule": EVIL, "retake": "javascript:alert(3)", "advice": "https://x.example/" + EVIL}
    reasons = tuple(Reason(kind, EVIL, EVIL, EVIL, source) for kind, source in sources.items())
    return Entry(
        photo=EVIL,
        status=status,
        output=EVIL,
        sku=EVIL,
        gtin=EVIL,
        n=1,
        angle=EVIL,
        predicted_iou=0.5,
        ambiguous=True,
        box_shares=(0, 0, 1, 1),
        kept=(EVIL,),
        reasons=reasons,
        before=EVIL,
        after=EVIL,
    )


def test_no_text_from_outside_becomes_markup() -> None:
    body = page(Catalogue(EVIL, EVIL, "2026-11-21T10:00:00+00:00", tuple(map(evil, STATUSES)), (EVIL,), EVIL))
    found = _Tags(body)
    assert not found.open  # every element is closed, in order
    assert {tag for tag, _ in found.tags} <= KNOWN
    for _, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src"):
            assert (attributes.get(name) or "#").startswith(("./", "#", "https://x.example/"))
    text = body.decode()
    assert "\u202e" not in text and "\x07" not in text and "alert(1)" in found.text
    policy = next(a["content"] for t, a in found.tags if t == "meta" and "content" in a and "src" in str(a["content"]))
    assert policy is not None and policy.startswith("default-src 'none'") and "script" not in policy


NAMES = (
    "<img src=x onerror=alert(1)>.jpg",
    "a&b 'c' \"d\".jpg",
    "#top?.jpg",
    "100%.jpg",
    "=cmd|x.jpg",
    b"\xff\xfe.jpg",
)


@pytest.mark.parametrize("name", NAMES)
def test_file_names_of_all_kinds(catalogue: Callable[..., Any], tmp_path: Path, name: str | bytes) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    good = photo(folder / "good.jpg")
    good.rename(folder / os.fsdecode(name))
    result = catalogue(folder, "-o", out, "--name", "{preset}_{n}")
    assert result.exit_code == 0, result.stderr
    found = _Tags((out / "report.html").read_bytes())
    images = [attributes for tag, attributes in found.tags if tag == "img"]
    assert len(images) == 2 and all(set(image) == {"src", "alt", "loading"} for image in images)
    if isinstance(name, str):
        assert name in found.text
    assert (out / "report.csv").read_text().count("\n") == 2


def test_a_table_runs_no_formula() -> None:
    entry = Entry("=cmd|' /C calc'!A0.jpg", "failed", reasons=(Reason("error", "x", "@SUM(A1)"),))
    line = as_csv(Catalogue("p", "t", "2026-11-21T10:00:00+00:00", (entry,))).decode().splitlines()[1]
    assert line.startswith("'=cmd")


def test_the_builder() -> None:
    assert h("p", "<", h("b", "&"), None, class_='a"b', hidden=False, open=True) == (
        '<p class="a&quot;b" open>&lt;<b>&amp;</b></p>'
    )
    assert href("ready/a b#?%.jpg") == "./ready/a%20b%23%3F%25.jpg"
    assert clean("a\udcff\u202eb\tc") == "a\ufffd\ufffdb\tc"


def test_many_products_are_folded_and_few_are_open() -> None:
    def shown(products: int) -> int:
        entries = tuple(Entry(f"{i}-{n}", "ready", f"ready/{i}_{n}.jpg", f"S{i}", "", n) for i in range(products)
                        for n in (1, 2))  # fmt: skip
        body = page(Catalogue("p", "t", "2026-11-21T10:00:00+00:00", entries)).decode()
        assert body.count('<details class="group"') == products
        return body.count('<details class="group" open>')

    assert (shown(3), shown(60)) == (3, 0)
