"""Running a script of docs/migrating.md, and the photo that it opens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def run_script(text: str) -> dict[str, Any]:
    """Run a script here and now; its variables."""
    variables: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "docs/migrating.md", "exec"), variables)
    return variables


@contextmanager
def working_in(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """As if started in that folder; the patch is undone at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield patch
