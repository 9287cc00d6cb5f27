"""Fetch a known checkpoint: resumed where it broke off, and refused unless its sha256 is the recorded one."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boothsam.export.checkpoints import Checkpoint, find_checkpoint
from boothsam.runtime.errors import BackendUnavailable, DownloadError
from boothsam.runtime.store import home

MIRROR = "BOOTHSAM_MIRROR"
BLOCK = 1 << 18
ATTEMPTS = 5  # without a single new byte; any progress starts the count anew
Progress = Callable[[int, int], None]


def source_url(checkpoint: Checkpoint) -> str:
    """Where a checkpoint is fetched: its authors' server, or $BOOTHSAM_MIRROR/FILE."""
    mirror = os.environ.get(MIRROR)
    return f"{mirror.rstrip('/')}/{checkpoint.file}" if mirror else checkpoint.url


def download(name: str, folder: Path | None = None, *, progress: Progress | None = None) -> Path:
    """The file of a known checkpoint, fetched unless it is there already with the right bytes.

    Args:
        name: mobile_sam, sam_vit_b, sam_vit_l or sam_vit_h.
        folder: where to put it, by default $BOOTHSAM_HOME/checkpoints.
        progress: called with (bytes so far, bytes in all).

    Returns:
        Path of the complete file.

    Raises:
        ModelNotFound: no such checkpoint.
        DownloadError: unreachable, broken off for good (what arrived is kept for the next call), or other bytes than
        the
            recorded ones (removed).
        BackendUnavailable: pooch is not installed.
    """
    return fetch(find_checkpoint(name), folder, progress=progress)


def fetch(checkpoint: Checkpoint, folder: Path | None = None, *, progress: Progress | None = None) -> Path:
    """`download` for a checkpoint of your own."""
    try:
        import pooch
    except ImportError as error:
        raise BackendUnavailable(f"pooch is not installed ({error})", hint="pip install 'boothsam[export]'") from None
    pooch.get_logger().setLevel(logging.WARNING)
    folder = folder or home() / "checkpoints"
    target = folder / checkpoint.file
    part = folder / f"{checkpoint.file}.part"
    downloader = ResumingDownloader(part, checkpoint.bytes, progress)
    url = source_url(checkpoint)
    by_hand = (
        f"copy {checkpoint.file} ({checkpoint.bytes} bytes) to {target} by hand, set {MIRROR} to a server that has it, "
        f"or try again: what arrived is kept"
    )
    try:
        pooch.retrieve(
            url, known_hash=f"sha256:{checkpoint.sha256}", fname=checkpoint.file, path=folder, downloader=downloader
        )
    except _Unreachable as error:
        raise DownloadError(f"{checkpoint.name} cannot be fetched from {url}: {error}", hint=by_hand) from None
    except ValueError as error:
        raise DownloadError(
            f"{url} gave other bytes than the published {checkpoint.file}, which were removed: {error}",
            hint=f"if {MIRROR} is set, check what it serves; else a proxy may have answered: {by_hand}",
        ) from None
    except OSError as error:
        raise DownloadError(f"{target} cannot be written ({error})", hint="check free space and rights") from None
    return target


class _Unreachable(Exception):
    """The server cannot be reached, refuses, or breaks off again and again."""


class ResumingDownloader:
    """A pooch downloader over HTTP(S) that continues a partial file with a Range request.

    part: where the bytes gather; it outlives a failure and is moved to pooch's own temporary file when complete.
    size: bytes of the whole file. progress: called with (bytes so far, size).
    """

    def __init__(self, part: Path, size: int, progress: Progress | None = None, *, timeout_s: float = 30.0) -> None:
        self.part = part
        self.size = size
        self.progress = progress or (lambda _done, _size: None)
        self.timeout_s = timeout_s
        self.pause_s = 1.0

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise _Unreachable("only http and https are fetched")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        failures = 0
        while (before := self._have()) < self.size:
            try:
                self._continue(url, before)
                reason = "the connection closed early"
            except (OSError, http.client.HTTPException) as error:
                reason = self._judge(error)
            if self._have() >= self.size:
                break
            failures = failures + 1 if self._have() == before else 0
            if failures >= ATTEMPTS:
                raise _Unreachable(f"{reason}, at {self._have()} of {self.size} bytes")
            time.sleep(self.pause_s * failures)
        self.part.replace(output_file)

    def _have(self) -> int:
        """Bytes gathered; a file larger than the whole is of another origin and dropped."""
        have = self.part.stat().st_size if self.part.exists() else 0
        if have > self.size:
            self.part.unlink()
            return 0
        return have

    def _judge(self, error: Exception) -> str:
        """The reason of a failure in words; raises when asking again cannot help."""
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise _Unreachable(f"the server answers {error.code} {error.reason}")
            return f"the server answers {error.code} {error.reason}"
        if isinstance(error, OSError) and (error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise error  # the disk's fault, not the network's
        return str(error.reason) if isinstance(error, urllib.error.URLError) else str(error) or type(error).__name__

    def _continue(self, url: str, have: int) -> None:
        headers = {"User-Agent": "boothsam", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
            resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
            if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise _Unreachable(
                    f"asked to continue at byte {have}, the server gave {answer.headers['Content-Range']}"
                )
            done = have if resumed else 0
            with self.part.open("ab" if resumed else "wb") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                    done += len(block)
                    if done > self.size:
                        raise _Unreachable(f"the server sends more than the {self.size} bytes of the published file")
                    self.progress(done, self.size)
