"""The page's diffs, for the tests that run them."""

from __future__ import annotations

import pytest

from tests.migrating.diffs import Diff, read_diffs


@pytest.fixture(scope="session")
def diffs() -> dict[str, Diff]:
    return read_diffs()
