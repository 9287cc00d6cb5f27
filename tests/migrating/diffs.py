"""The diffs of docs/migrating.md: a reader's code before and after, as text that can be run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
_DIFF = re.compile(r"^<!-- diff: (\S+) -->\n```diff\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Diff(NamedTuple):
    """before, after: the whole text without the marks. removed, added: only the lines that differ, in order."""

    before: str
    after: str
    removed: list[str]
    added: list[str]


def read_diffs() -> dict[str, Diff]:
    """By name. Raises ValueError where a line begins with no mark, or a diff holds nothing that changes."""
    found = {}
    for name, text in _DIFF.findall(PAGE.read_text()):
        lines = text.splitlines()
        if wrong := [line for line in lines if line[:1] not in (" ", "-", "+")]:
            raise ValueError(f"{PAGE.name}, diff {name}: lines without a mark: {wrong}")
        removed, added = ([line[1:] for line in lines if line[0] == mark] for mark in "-+")
        if not removed or not added:
            raise ValueError(f"{PAGE.name}, diff {name}: nothing is replaced")
        before, after = ("\n".join(line[1:] for line in lines if line[0] != mark) + "\n" for mark in "+-")
        found[name] = Diff(before, after, removed, added)
    return found
