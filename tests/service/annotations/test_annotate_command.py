"""`boothsam annotate` as a process: says where the page is, serves it, and ends with 0 on SIGTERM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import requests


def test_annotate_serves_the_page_and_its_photos(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "boothsam.service.cli", "annotate", str(folder), "--port", "0", "--threads", "1"]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*command, "-o", str(tmp_path / "out"), "--category", "mug"],
            stderr=stderr,
            # A kiosk that is switched off must not take the annotation page with it.
            env=os.environ | {"BOOTHSAM_KIOSK": "false", "BOOTHSAM_MIN_FREE_BYTES": "0"},
        )
    try:
        until = time.monotonic() + 60
        while (found := re.search(r"annotate at (http://127\.0\.0\.1:\d+)/annotate", log.read_text())) is None:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        page = requests.get(f"{found[1]}/annotate", timeout=30)
        assert page.status_code == 200 and "script-src 'self'" in page.headers["content-security-policy"]
        for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
            assert requests.get(f"{found[1]}{path}", timeout=30).status_code == 200, path
        listed = requests.get(f"{found[1]}/annotations", timeout=30).json()
        assert [photo["name"] for photo in listed["photos"]] == ["photo-1.png", "photo-2.jpg", "photo-10.jpg"]
        assert listed["categories"] == [{"id": 1, "name": "mug"}]
        assert requests.get(f"{found[1]}/captures", timeout=30).status_code == 404, "captures are left alone"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "out" / "categories.json").is_file() and not (folder / "annotations").exists()
