"""Where the browser is. Debian's Chromium serves; Playwright's own download is not needed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MEND = "apt-get install chromium, or set BOOTHSAM_CHROMIUM to a Chromium or Chrome"
# Taken out of the environment: the service warns of BOOTHSAM_* variables that are none of its settings.
NAMED = os.environ.pop("BOOTHSAM_CHROMIUM", "")
REQUIRED = os.environ.pop("BOOTHSAM_REQUIRE_BROWSER", "") not in ("", "0")


class NoBrowser(Exception):
    """No Chromium on this machine; the message names the command that mends it."""


def find() -> Path:
    """The executable: BOOTHSAM_CHROMIUM's, else the first of NAMES on the PATH."""
    if NAMED:
        if not os.access(NAMED, os.X_OK):
            raise NoBrowser(f"BOOTHSAM_CHROMIUM={NAMED} is no executable; hint: {MEND}")
        return Path(NAMED)
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise NoBrowser(f"none of {', '.join(NAMES)} is on the PATH; hint: {MEND}")


def launch(playwright: Playwright, camera: Path | None = None) -> Browser:
    """A headless browser; camera: the Y4M file that it sees, none: a machine without a camera."""
    arguments = ["--disable-dev-shm-usage", "--force-color-profile=srgb"]
    if camera is not None:
        arguments += [
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-video-capture={camera}",
        ]
    return playwright.chromium.launch(executable_path=find(), args=arguments)
