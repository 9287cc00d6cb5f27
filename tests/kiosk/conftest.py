"""A real service, a real browser and a fake camera, shared by the tests of this folder; a page for each test.

Where there is no Chromium the tests skip; with BOOTHSAM_REQUIRE_BROWSER=1 they fail, so that CI cannot lose them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.kiosk import chromium
from tests.kiosk.kiosk import Kiosk
from tests.kiosk.scenes import FakeCamera, mug_scene
from tests.kiosk.service import KioskService

HERE = Path(__file__).parent
OpenKiosk = Callable[..., Kiosk]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.needs_browser)
            # Browser, service and camera share a machine that may be busy, and some tests need one to be quicker than
            # the other. A fault of the page fails every time; the summary counts what had to run again.
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(scope="session")
def executable() -> Path:
    """Chromium; without one the test skips, or fails where one is required."""
    try:
        return chromium.find()
    except chromium.NoBrowser as reason:
        if chromium.REQUIRED:
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def playwright(executable: Path) -> Iterator[Playwright]:
    """By module, not by session: while it runs, its event loop stands in the way of other tests' loops."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A browser on a machine without a camera."""
    started = chromium.launch(playwright)
    yield started
    started.close()


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> FakeCamera:
    """The camera of `camera_browser`; it sees a red mug at first."""
    return FakeCamera(tmp_path_factory.mktemp("camera") / "camera.y4m", mug_scene("red").image)


@pytest.fixture(scope="module")
def camera_browser(playwright: Playwright, camera: FakeCamera) -> Iterator[Browser]:
    """A browser that sees what `camera` shows."""
    started = chromium.launch(playwright, camera.path)
    yield started
    started.close()


@pytest.fixture(scope="session")
def service(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KioskService]:
    """The service with its starter model; a test that harms it leaves it running again."""
    started = KioskService(tmp_path_factory.mktemp("service")).start()
    yield started
    started.stop()


@pytest.fixture
def visit(service: KioskService) -> Iterator[Callable[..., Kiosk]]:
    """visit(browser, size, **context) opens a visitor's page; whatever its browser complains about fails the test."""
    opened: list[Kiosk] = []

    def start(browser: Browser, size: str = "landscape", at: KioskService | None = None, **context: Any) -> Kiosk:
        kiosk = Kiosk(browser, at or service, size, **context)
        opened.append(kiosk)
        return kiosk

    yield start
    faults = []
    for kiosk in opened:
        faults += kiosk.faults()
        kiosk.close()
    assert not faults, "the browser complained:\n" + "\n".join(faults)


@pytest.fixture
def kiosk(visit: OpenKiosk, browser: Browser) -> Kiosk:
    """The page at 1920x1080 without a camera."""
    return visit(browser).open()


@pytest.fixture
def booth(visit: OpenKiosk, camera_browser: Browser, camera: FakeCamera) -> Kiosk:
    """The page at 1920x1080 with a camera that sees a red mug."""
    camera.show(mug_scene("red").image)
    return visit(camera_browser).open()
