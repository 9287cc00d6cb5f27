"""docs/http.md against the service: its table of codes, its routes and its fields.

`python tests/service/test_http_page.py` writes the table.
"""

from __future__ import annotations

import re
from pathlib import Path

from boothsam.service.app import create_app
from boothsam.service.problems import catalogue
from boothsam.service.schemas import CROP_FORM, REMOVEBG_FORM, SegmentQuestion
from boothsam.service.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
_TABLE = re.compile(r"(?<=-->\n).*?(?=<!-- /codes -->)", re.DOTALL)


def table() -> str:
    """The codes as Markdown, by status."""
    rows = sorted((status, code, title) for code, (status, title) in catalogue.items())
    lines = ["| status | code | |", "|---|---|---|"]
    return "\n".join(lines + [f"| {status} | `{code}` | {title} |" for status, code, title in rows]) + "\n"


def test_the_table_lists_every_code() -> None:
    found = _TABLE.search(PAGE.read_text())
    assert found is not None and found[0] == table(), "python tests/service/test_http_page.py writes the table"


def test_every_route_is_described(tmp_path: Path) -> None:
    text = PAGE.read_text()
    app = create_app(Settings(captures_dir=tmp_path, annotate_dir=tmp_path))
    missing = [path for path in app.openapi()["paths"] if path not in text]
    assert not missing


def test_every_field_is_described() -> None:
    text = PAGE.read_text()
    names = [*CROP_FORM["properties"], *SegmentQuestion.model_fields]
    ignored = {"type"}  # remove.bg's, without a meaning here
    names += [name for name in REMOVEBG_FORM["properties"] if name not in ignored]
    assert not [name for name in names if f"`{name}`" not in text]


if __name__ == "__main__":
    PAGE.write_text(_TABLE.sub(lambda _: table(), PAGE.read_text()))
