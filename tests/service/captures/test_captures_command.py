"""`boothsam captures`: list, export, forward, fsck."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service.captures.conftest import Open, put
from tests.service.captures.receiver import receiver

Run = Callable[..., Any]


@pytest.fixture
def kept(open_store: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of three captures, the one that the settings name."""
    monkeypatch.chdir(tmp_path)
    store = open_store()
    for i in range(3):
        put(store, f"n{i}", **({"gtin": "96385074"} if i == 1 else {}))
    store.close()
    monkeypatch.setenv("BOOTHSAM_CAPTURES_DIR", str(store.layout.folder))
    return store.layout.folder


def test_list(run: Run, kept: Path) -> None:
    result = run("captures", "list")
    assert result.exit_code == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["1", "2", "3"]
    assert "96385074 n1  original+mask+cutout" in result.stdout
    records = [json.loads(line) for line in run("captures", "list", "-n", 2, "--json").stdout.splitlines()]
    assert [record["facts"]["sku"] for record in records] == ["n1", "n2"]
    only = run("captures", "list", "--gtin", "96385074", "--json")
    assert json.loads(only.stdout)["seq"] == 2
    nothing = run("captures", "list", "--sku", "nobody")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "no captures\n")


def test_export(run: Run, kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.zip"
    result = run("captures", "export", "-o", out)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{out}\n", "3 captures\n")
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 13
    refused = run("captures", "export", "-o", out)
    assert refused.exit_code == 1 and "--force" in refused.stderr
    assert run("captures", "export", "-o", out, "--force", "--sku", "n1").stderr == "1 captures\n"
    table = tmp_path / "table.csv"
    assert run("captures", "export", "-o", table, "--after", 1).exit_code == 0
    assert len(table.read_text().splitlines()) == 3
    folder = tmp_path / "folder"
    assert run("captures", "export", "-o", folder).exit_code == 0
    assert len(list(folder.glob("original/*.jpg"))) == 3 and (folder / "captures.csv").is_file()
    for wrong in ((tmp_path / "x.tar",), (tmp_path / "x.csv", "--format", "coco"), (tmp_path / "x", "--format", "rar")):
        assert run("captures", "export", "-o", *wrong).exit_code == 2


def test_an_export_that_fails_leaves_nothing(run: Run, kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "photos.zip"
    result = run("captures", "export", "-o", out, "--format", "coco")  # these captures' bytes are no photos
    assert result.exit_code == 1
    assert not out.exists() and not list(tmp_path.glob(".photos*"))


def test_forward_to_a_folder_and_a_url(run: Run, kept: Path, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    missing = run("captures", "forward", "--to", stick)
    assert missing.exit_code == 1 and "is not there" in missing.stderr
    assert missing.stdout == "0 delivered, 3 pending, 0 parked\n"
    stick.mkdir()
    assert run("captures", "forward", "--to", stick).stdout == "3 delivered, 0 pending, 0 parked\n"
    assert len(list(stick.iterdir())) == 3
    assert run("captures", "forward", "--to", stick).stdout == "0 delivered, 0 pending, 0 parked\n"
    with receiver() as remote:
        remote.answer = lambda sku, _number: 422 if sku == "n1" else 200
        result = run("captures", "forward", "--to", remote.url, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout) == {"delivered": 2, "pending": 0, "parked": 1, "trouble": ""}
        again = run("captures", "forward", "--to", remote.url)
        assert "is parked: the receiver answered 422" in again.stderr and "--retry-parked" in again.stderr
        remote.answer = lambda _sku, _number: 200
        assert run("captures", "forward", "--to", remote.url, "--retry-parked").exit_code == 0


def test_forward_needs_a_target_and_the_folder_to_itself(run: Run, kept: Path, open_store: Open) -> None:
    assert run("captures", "forward").exit_code == 2
    assert run("captures", "forward", "--to", "ftp://x/").exit_code == 2
    open_store(kept)
    result = run("captures", "forward", "--to", "http://127.0.0.1:1/")
    assert result.exit_code == 1 and "another process" in result.stderr


def test_fsck(run: Run, kept: Path, open_store: Open) -> None:
    sound = run("captures", "fsck", "--deep")
    assert sound.exit_code == 0 and sound.stdout.endswith(": in order\n")
    (kept / "files" / "aa").mkdir(exist_ok=True)
    (kept / "files" / "aa" / "stray.jpg").write_bytes(b"x")
    (kept / "index.sqlite3").write_bytes(b"broken" * 1000)
    looked = run("captures", "fsck", "--json")
    assert looked.exit_code == 1 and not json.loads(looked.stdout)["sound"]
    assert (kept / "index.sqlite3").read_bytes().startswith(b"broken"), "a look changes nothing"
    mended = run("captures", "fsck", "--repair")
    assert mended.exit_code == 0, mended.stderr
    assert "built again with 3 captures" in mended.stdout and "1 files that belong to no capture" in mended.stdout
    assert run("captures", "fsck", "--deep").exit_code == 0
    photo = next(path for path in (kept / "files").rglob("*.jpg"))
    photo.write_bytes(b"?" * photo.stat().st_size)
    assert run("captures", "fsck").exit_code == 0
    lost = run("captures", "fsck", "--deep", "--json")
    assert lost.exit_code == 1 and len(json.loads(lost.stdout)["lost"]) == 1
    assert run("captures", "fsck", "--deep", "--repair").exit_code == 1


@pytest.mark.parametrize("command", [("list",), ("export", "-o", "x.zip"), ("fsck",), ("fsck", "--repair")])
def test_no_captures_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("captures", *command, "--folder", tmp_path / "nowhere")
    assert result.exit_code in (1, 2)
    assert "hint: " in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "nowhere").exists() and not (tmp_path / "x.zip").exists()


def test_looking_at_captures_loads_no_web_framework() -> None:
    code = "import sys, boothsam.service.commands.captures as c, boothsam.service.captures.reader; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"fastapi", "httpx", "onnxruntime", "cv2", "stdnum"} & set(loaded)
