"""Where captures are forwarded: a URL by POST, or a folder.

A URL gets one multipart POST for each capture: the part `metadata` (the sidecar's JSON) and the files `original`,
`mask` and `cutout`. `Idempotency-Key` is the capture's id: a receiver that knows it answers 2xx and stores nothing. A
folder gets `<seq>-<id>/` with the same files and `capture.json`, renamed into place when it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol

import httpx
from boothsam.runtime.errors import OptionError
from boothsam.service.captures.files import sync_folder
from boothsam.service.captures.records import Capture

MAX_RETRY_AFTER_S = 3600.0
# The receiver will never take this capture; everything else may be over tomorrow.
_REFUSED = {400, 413, 415, 422}
# The settings are at fault, or the receiver asks for time, whatever the capture is. No 5xx is among them: a proxy
# answers 502 to every capture when its server is down, but also to the one capture that makes its server crash.
_NOT_THE_CAPTURE = {401, 403, 404, 405, 407, 410, 421, 425, 429}


class Refused(Exception):
    """The receiver will never take this capture."""


class Trouble(Exception):
    """It did not work this time. retry_after: seconds the receiver asked for, 0 when it did not."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Failed(Trouble):
    """The capture itself may be the reason."""


class Unreachable(Trouble):
    """No other capture would fare better."""


class Target(Protocol):
    """A receiver. `name` identifies it in the index."""

    name: str

    async def deliver(self, capture: Capture, paths: Mapping[str, Path]) -> None:
        """Hand one capture over; returns when the receiver has it.

        Raises:
            Refused, Failed, Unreachable. FileNotFoundError: one of `paths` is gone.
        """

    async def close(self) -> None:
        """Let go of connections."""


def target_name(url: str, folder: str) -> str:
    """The name in the index of the target that the settings describe, "" for none."""
    return f"url:{url}" if url else f"folder:{folder}" if folder else ""


def check_target(url: str, folder: str) -> str:
    """The name of a target that `make_target` would make.

    Raises:
        OptionError: neither or both, or a URL that is no http or https one.
    """
    if bool(url) == bool(folder):
        raise OptionError("expected either a URL or a folder to forward to", hint="set forward_url or forward_dir")
    if url:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise OptionError(f"forward_url {url!r} is no URL: {error}", hint="https://host/path") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise OptionError(f"forward_url {url!r}: expected http:// or https:// and a host", hint="https://host/path")
    return target_name(url, folder)


def make_target(url: str, folder: str, *, token: str = "", timeout_s: float = 30.0) -> Target:
    """The target that the settings describe. Raises OptionError as `check_target`."""
    check_target(url, folder)
    return UrlTarget(url, token, timeout_s) if url else FolderTarget(Path(folder))


class UrlTarget:
    """POST to a URL; redirects are not followed, since the token would travel along. timeout_s: for a whole attempt."""

    def __init__(self, url: str, token: str = "", timeout_s: float = 30.0) -> None:
        self.name = check_target(url, "")
        self._url, self._timeout_s = httpx.URL(url), timeout_s
        headers = {"User-Agent": "boothsam"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout_s, follow_redirects=False)

    async def deliver(self, capture: Capture, paths: Mapping[str, Path]) -> None:
        files = {"metadata": ("capture.json", capture.encode(), "application/json")}
        for role, path in paths.items():
            stored = capture.files[role]
            data = await asyncio.to_thread(path.read_bytes)
            files[role] = (f"{role}{stored.suffix}", data, stored.media_type)
        try:
            # httpx's own timeouts start again with every byte; an attempt as a whole must end.
            status, headers = await asyncio.wait_for(self._post(capture.id, files), self._timeout_s)
        except (asyncio.TimeoutError, httpx.TimeoutException):  # asyncio's own class until Python 3.11
            raise Failed(f"no answer within {self._timeout_s:g} s") from None
        except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"no connection: {error}") from None
        except httpx.HTTPError as error:
            raise Failed(f"{type(error).__name__}: {error}") from None
        if 200 <= status < 300:
            return
        if status in _REFUSED:
            raise Refused(f"the receiver answered {status}")
        if status in _NOT_THE_CAPTURE or status < 400:
            raise Unreachable(f"the receiver answered {status}", retry_after(headers))
        raise Failed(f"the receiver answered {status}", retry_after(headers))

    async def _post(self, id: str, files: Mapping[str, tuple[str, bytes, str]]) -> tuple[int, httpx.Headers]:
        headers = {"Idempotency-Key": id}
        async with self._client.stream("POST", self._url, files=files, headers=headers) as response:
            return response.status_code, response.headers  # its body is of no interest

    async def close(self) -> None:
        await self._client.aclose()


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110: seconds or a date), at most an hour; 0 without one.

    A date is compared with the receiver's own Date, because the clock of this machine may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(text).timestamp()
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
    except (ValueError, TypeError, IndexError):
        return 0.0
    return min(max(0.0, until - now), MAX_RETRY_AFTER_S)


class FolderTarget:
    """A folder such as a USB stick or a network share.

    It must exist: what is not mounted must not fill the disk under the mount point.
    """

    def __init__(self, folder: Path) -> None:
        self.name = target_name("", str(folder))
        self._folder = folder

    async def deliver(self, capture: Capture, paths: Mapping[str, Path]) -> None:
        await asyncio.to_thread(self._copy, capture, paths)

    def _copy(self, capture: Capture, paths: Mapping[str, Path]) -> None:
        if not self._folder.is_dir():
            raise Unreachable(f"the folder {self._folder} is not there")
        final = self._folder / f"{capture.seq:012d}-{capture.id}"
        partial = self._folder / f".{capture.id}.part"
        sources = {f"{role}{capture.files[role].suffix}": path.read_bytes() for role, path in paths.items()}
        try:
            if final.is_dir():  # handed over before a crash
                return
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name, data in {**sources, "capture.json": capture.encode()}.items():
                with (partial / name).open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            sync_folder(partial)
            partial.rename(final)
            sync_folder(self._folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                shutil.rmtree(partial)
            reason = f"cannot write to {self._folder}: {error.strerror or error}"
            if error.errno in (errno.ENAMETOOLONG, errno.EFBIG):
                raise Failed(reason) from error
            raise Unreachable(reason) from error

    async def close(self) -> None:
        """Nothing is held open."""
