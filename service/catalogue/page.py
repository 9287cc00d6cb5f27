"""report.html: what is ready, what is left to do and what mends it; one page without scripts that opens offline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib import resources
from itertools import groupby

from boothsam.service.catalogue.html import Html, h, href, join
from boothsam.service.catalogue.records import Catalogue, Entry, Reason
from boothsam.service.problems import catalogue as problems

_SECTIONS = (
    ("retake", "Take again", "The picture was made, but the photo will not do. It lies in needs-work/."),
    ("refused", "Rules not kept", "The market would refuse these pictures. They lie in needs-work/."),
    ("failed", "No picture", "Nothing could be made of these photos."),
    ("waiting", "Not done yet", "The run was stopped before these. The same command goes on here."),
    ("ready", "Ready", "Upload these. They lie in ready/ and keep every rule that must be kept."),
)
_TILES = {"ready": "ready", "retake": "take again", "refused": "rules not kept", "failed": "no picture",
          "waiting": "not done yet"}  # fmt: skip
_TITLES = {
    "blur": "The product is blurred",
    "clipped_highlights": "Parts of the product are burnt out",
    "touches_border": "The product is cut off by the photo’s border",
    "low_agreement": "Not sure what the product is",
    "warning": "Good to know",
    "broken_image": "Damaged photo",
    "not_found": "The photo is gone",
    "unreadable": "The photo cannot be read",
    "storage_failed": "The picture cannot be filed",
    "invalid_field": "The picture cannot be filed",
}
_OPEN_GROUPS = 40  # products up to which the ready ones are shown unfolded


def page(catalogue: Catalogue) -> bytes:
    """The whole page, UTF-8."""
    style = resources.files(__package__).joinpath("page.css").read_text("utf-8")
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("meta", http_equiv="Content-Security-Policy",
          content="default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; base-uri 'none'"),
        h("title", f"Catalogue for {catalogue.title}"),
        h("style", Html(style)),
    )  # fmt: skip
    sections = [_section(catalogue, *section) for section in _SECTIONS]
    body = h("body", _header(catalogue), h("main", *sections, _missing(catalogue)), _footer(catalogue))
    return ("<!doctype html>\n" + h("html", head, body, lang="en") + "\n").encode("utf-8", "replace")


def _header(catalogue: Catalogue) -> Html:
    totals = catalogue.totals
    made = datetime.fromisoformat(catalogue.made)
    facts = [
        _count(totals["photos"], "photo"),
        _count(totals["products"], "product"),
        _count(totals["pictures"], "picture"),
        f"{made:%Y-%m-%d %H:%M} UTC",
        f"model {catalogue.model}" if catalogue.model else "",
    ]
    shown = [status for status in _TILES if totals[status] or status == "ready"]
    tiles = [
        h("a", h("b", totals[status]), h("span", label), href=f"#{status}", class_=f"tile {status}")
        for status, label in _TILES.items()
        if status in shown
    ]
    bar = [h("i", class_=status, style=f"flex-grow:{totals[status]}", title=f"{totals[status]} {_TILES[status]}")
           for status in _TILES if totals[status]]  # fmt: skip
    return h(
        "header",
        h("p", "boothsam catalogue", class_="brand"),
        h("h1", catalogue.title),
        h("p", " · ".join(fact for fact in facts if fact), class_="facts"),
        h("nav", *tiles, class_="tiles"),
        h("div", *bar, class_="bar", role="img", aria_label="shares of the pictures"),
    )


def _section(catalogue: Catalogue, status: str, title: str, lead: str) -> Html:
    found = [entry for entry in catalogue.entries if entry.status == status]
    if not found and status != "ready":
        return Html("")
    heading = h("h2", title, " ", h("small", len(found)))
    if status == "ready":
        body = _groups(found) if found else h("p", "Nothing is ready yet.", class_="lead")
    elif status == "waiting":
        body = h("ul", *(h("li", _name(entry.photo)) for entry in found), class_="names")
    else:
        body = h("div", *(_card(entry) for entry in found), class_="cards todo")
    return h("section", heading, h("p", lead, class_="lead") if found else None, body, id=status)


def _groups(entries: Sequence[Entry]) -> Html:
    """Products with several pictures first, each under its number; then one grid of those with a single one."""
    ordered = sorted(entries, key=lambda entry: (entry.group.casefold(), entry.n or 0))
    groups = [(name, list(members)) for name, members in groupby(ordered, key=lambda entry: entry.group)]
    several = [(name, members) for name, members in groups if len(members) > 1]
    single = [members[0] for _, members in groups if len(members) == 1]
    opened = len(several) <= _OPEN_GROUPS
    blocks = [
        h(
            "details",
            h("summary", _name(name or "without a number"), " ", h("small", _count(len(members), "picture"))),
            h("div", *(_card(entry) for entry in members), class_="cards"),
            class_="group",
            open=opened,
        )
        for name, members in several
    ]
    if single:
        heading = h("h3", "Products with one picture", class_="group") if several else None
        blocks.append(join(heading, h("div", *(_card(entry) for entry in single), class_="cards")))
    return join(*blocks)


def _card(entry: Entry) -> Html:
    name = entry.output.rsplit("/", 1)[-1]
    facts = [
        f"SKU {entry.sku}" if entry.sku else "",
        f"GTIN {entry.gtin}" if entry.gtin else "",
        entry.angle,
        f"fills {entry.fill:.0%}" if entry.fill is not None else "",
        f"{entry.bytes / 1000:,.0f} kB" if entry.bytes else "",
    ]
    return h(
        "article",
        h("div", _before(entry), _after(entry), class_="pair"),
        h(
            "div",
            h("h3", h("a", _name(name), href=href(entry.output)) if entry.output else _name(entry.photo)),
            h("p", "from ", _name(entry.photo), class_="from") if entry.output else None,
            h("p", *(h("span", fact) for fact in facts if fact), _score(entry), class_="chips"),
            _reasons(entry.blocking, "reasons"),
            _more(entry),
            class_="text",
        ),
        class_=f"card {entry.status}",
    )


def _before(entry: Entry) -> Html:
    if not entry.before:
        return h("figure", h("span", "cannot be shown", class_="none"), h("figcaption", "photo"))
    box = None
    if entry.box_shares is not None:
        x0, y0, x1, y1 = (100 * share for share in entry.box_shares)
        place = f"left:{x0:.2f}%;top:{y0:.2f}%;width:{x1 - x0:.2f}%;height:{y1 - y0:.2f}%"
        box = h("i", class_="box", style=place)
    image = h("img", src=href(entry.before), alt=f"photo {entry.photo}", loading="lazy")
    return h("figure", h("span", image, box, class_="frame"), h("figcaption", "photo"))


def _after(entry: Entry) -> Html | None:
    if not entry.output:
        return None
    shown: Html = h("span", "no thumbnail", class_="none")
    if entry.after:
        shown = h(
            "span", h("img", src=href(entry.after), alt=f"picture {entry.output}", loading="lazy"), class_="frame"
        )
    return h("figure", h("a", shown, href=href(entry.output)), h("figcaption", "picture"), class_="after")


def _score(entry: Entry) -> Html | None:
    score = entry.predicted_iou if entry.agreement is None else entry.agreement
    if score is None:
        return None
    level = "good" if score >= 0.85 else "fair" if score >= 0.7 else "poor"
    return h("span", f"{score:.0%} sure", class_=level, title="how far the model's answers agree on the product")


def _reasons(reasons: Iterable[Reason], class_: str) -> Html | None:
    lines = [
        h(
            "li",
            h("b", _title(reason)),
            h("span", reason.message),
            h("em", reason.mend) if reason.mend else None,
            _source(reason.source),
        )
        for reason in reasons
    ]
    return h("ul", *lines, class_=class_) if lines else None


def _title(reason: Reason) -> str:
    if reason.code in _TITLES:
        return _TITLES[reason.code]
    if reason.kind == "error" and reason.code in problems:
        return problems[reason.code][1]
    return reason.code.replace("_", " ").capitalize()


def _source(source: str) -> Html | None:
    """Only a web address is a link: a preset of one's own can hold any text."""
    if not source:
        return None
    if source.startswith(("https://", "http://")):
        return h("a", "the rule", href=source, rel="noreferrer noopener", class_="source", title=source)
    return h("small", source, class_="source")


def _more(entry: Entry) -> Html | None:
    others = [reason for reason in entry.reasons if reason not in entry.blocking]
    if not entry.kept and not others:
        return None
    advice = f", {_count(len(others), 'remark')}" if others else ""
    kept = h("p", "Kept: ", ", ".join(rule.replace("_", " ") for rule in entry.kept), class_="kept")
    return h(
        "details",
        h("summary", f"{_count(len(entry.kept), 'rule')} kept{advice}"),
        _reasons(others, "advice"),
        kept if entry.kept else None,
        class_="more",
    )


def _missing(catalogue: Catalogue) -> Html:
    if not catalogue.missing:
        return Html("")
    return h(
        "section",
        h("h2", "Named, but not in the folder ", h("small", len(catalogue.missing))),
        h("p", "The table of names has rows for these files.", class_="lead"),
        h("ul", *(h("li", _name(name)) for name in catalogue.missing), class_="names"),
        id="missing",
    )


def _footer(catalogue: Catalogue) -> Html:
    return h(
        "footer",
        h("p", "The same as a table: ", h("a", "report.csv", href="./report.csv"), " · for machines: ",
          h("a", "report.json", href="./report.json")),
        h("p", f"Checked against the preset “{catalogue.preset}”. Markets change their rules: boothsam’s "
          "presets name the source of each and the day it was looked up."),
    )  # fmt: skip


def _name(text: str) -> Html:
    """A file's name or number: in its own direction, so that no letter in it turns the line around."""
    return h("bdi", text)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")
