"""Old captures go, and clocks that jump take nothing along."""

from __future__ import annotations

import asyncio

import pytest
from boothsam.service.captures import store as store_module
from boothsam.service.captures.records import Capture
from boothsam.service.captures.retention import HOLD_S, Retention
from boothsam.service.captures.store import CaptureStore

from tests.service.captures.conftest import Open, put

DAY = 86400.0
NOW = 1_800_000_000.0  # January 2027


class Clocks:
    """A wall clock that can be set, and a monotonic one that cannot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.running = NOW, 50.0
        monkeypatch.setattr(store_module.time, "time", lambda: self.wall)

    def pass_days(self, days: float) -> None:
        self.wall += days * DAY
        self.running += days * DAY

    def start(self, store: CaptureStore, days: int) -> Retention:
        return Retention(store, days, wall=lambda: self.wall, monotonic=lambda: self.running)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def sweep(retention: Retention) -> int:
    return asyncio.run(retention.sweep())


def left(store: CaptureStore) -> list[str]:
    return [capture.facts["sku"] for capture in store.page()]


def test_what_is_over_its_days_goes(store: CaptureStore, clocks: Clocks) -> None:
    retention = clocks.start(store, 30)
    put(store, "old")
    clocks.pass_days(20)
    put(store, "young")
    assert sweep(retention) == 0
    clocks.pass_days(10.5)
    assert sweep(retention) == 1 and left(store) == ["young"]
    assert len(store.layout.file_names()) == 3


def test_zero_days_keep_everything(store: CaptureStore, clocks: Clocks) -> None:
    retention = clocks.start(store, 0)
    put(store, "old")
    clocks.pass_days(9999)
    assert sweep(retention) == 0


@pytest.mark.parametrize("jump_days", [1, 400, -400])
def test_a_jump_of_the_clock_deletes_nothing_for_a_day_of_running(
    store: CaptureStore, clocks: Clocks, jump_days: float
) -> None:
    retention = clocks.start(store, 30)
    put(store, "fresh")
    clocks.pass_days(29.5)
    assert sweep(retention) == 0
    clocks.wall += jump_days * DAY
    assert sweep(retention) == 0
    clocks.pass_days(0.9)
    assert sweep(retention) == 0
    clocks.wall -= jump_days * DAY  # NTP mends it, which is a jump as well
    assert sweep(retention) == 0 and left(store) == ["fresh"]
    clocks.pass_days(1.1)
    assert sweep(retention) == 1


def test_a_clock_far_ahead_at_the_start_deletes_nothing_at_first(store: CaptureStore, clocks: Clocks) -> None:
    put(store, "fresh")
    clocks.wall += 4000 * DAY
    retention = clocks.start(store, 30)
    assert sweep(retention) == 0
    clocks.pass_days(HOLD_S / DAY + 0.1)
    assert sweep(retention) == 1, "a clock that stays is believed in the end"


def test_a_capture_taken_in_1970_is_as_old_as_the_one_before(store: CaptureStore, clocks: Clocks) -> None:
    retention = clocks.start(store, 30)
    put(store, "before")
    clocks.wall -= NOW
    put(store, "in 1970")
    clocks.wall += NOW
    sweep(retention)
    clocks.pass_days(25)
    put(store, "after")
    assert sweep(retention) == 0
    clocks.pass_days(6)
    assert sweep(retention) == 2 and left(store) == ["after"]


def test_a_capture_of_unknown_age_is_never_deleted(store: CaptureStore, clocks: Clocks) -> None:
    clocks.wall = 100.0
    put(store, "in 1970")
    clocks.wall = NOW
    retention = clocks.start(store, 30)
    clocks.pass_days(300)
    assert sweep(retention) == 0


def test_a_capture_from_the_future_does_not_keep_the_others(store: CaptureStore, clocks: Clocks) -> None:
    retention = clocks.start(store, 30)
    clocks.wall += 5000 * DAY
    put(store, "future")
    clocks.wall -= 5000 * DAY
    put(store, "present")
    sweep(retention)
    clocks.pass_days(31)
    assert sweep(retention) == 1 and left(store) == ["future"]


def test_what_is_still_to_be_forwarded_stays(open_store: Open, clocks: Clocks) -> None:
    store = open_store(target="url:http://127.0.0.1:1/")
    retention = clocks.start(store, 1)
    captures: dict[str, Capture] = {name: put(store, name) for name in ("pending", "parked", "delivered")}
    store.mark(captures["parked"].seq, "parked", 8, "refused").result(30)
    store.mark(captures["delivered"].seq, "delivered", 0).result(30)
    clocks.pass_days(2)
    assert sweep(retention) == 1 and left(store) == ["pending", "parked"]
