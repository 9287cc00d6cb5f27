"""When an outbox asks again, and whom."""

from __future__ import annotations

from pathlib import Path

import pytest
from boothsam.runtime.errors import OptionError
from boothsam.service.captures.outbox import Backoff
from boothsam.service.captures.targets import make_target, retry_after


def test_backoff_doubles_with_full_jitter_up_to_a_cap() -> None:
    backoff = Backoff(base_s=1, cap_s=60)
    assert backoff.seconds(0) == 0
    for failures, most in ((1, 1), (2, 2), (3, 4), (7, 60), (5000, 60)):
        drawn = [backoff.seconds(failures) for _ in range(400)]
        assert 0 <= min(drawn) < 0.2 * most and 0.8 * most < max(drawn) <= most


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "999999"}, 3600),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, 0),
        ({}, 0),
        # The receiver's own clock counts: ours may be years off.
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize("url", ["ftp://x/", "file:///etc/passwd", "nonsense", "http://"])
def test_only_web_addresses(url: str) -> None:
    with pytest.raises(OptionError, match="http"):
        make_target(url, "")


def test_one_target(tmp_path: Path) -> None:
    for url, folder in (("", ""), ("http://127.0.0.1/", str(tmp_path))):
        with pytest.raises(OptionError, match="either"):
            make_target(url, folder)
