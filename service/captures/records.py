"""What a capture is, on disk and in JSON, and what can go wrong with captures."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from boothsam.runtime.errors import BoothsamError, OptionError

FORMAT = 1
ROLES = ("original", "mask", "cutout")
MEDIA_TYPES = MappingProxyType({".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"})
MAX_TEXT = 64

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(r"[\x21-\x7e]{1,200}")


class CaptureError(BoothsamError):
    """Base of what can go wrong with captures."""


class StoreUnusable(CaptureError):
    """The folder cannot be opened: no permission, or another process writes to it."""


class StorageFailed(CaptureError):
    """The disk refused to write; nothing was acknowledged and nothing was left behind."""


class DiskLow(CaptureError):
    """Not enough free space; nothing was written."""


class KeyConflict(CaptureError):
    """The idempotency key belongs to a capture with other content."""


class NoSuchCapture(CaptureError):
    """No capture of this id."""


class NotForwarded(CaptureError):
    """The capture is still to be forwarded, so that deleting it would lose it."""


class DamagedRecord(CaptureError, ValueError):
    """A sidecar that is not one."""


@dataclass(frozen=True)
class Content:
    """A file to be stored: its bytes and one of `MEDIA_TYPES`' suffixes."""

    data: bytes
    suffix: str

    def __post_init__(self) -> None:
        if self.suffix not in MEDIA_TYPES or not self.data:
            raise OptionError(
                f"cannot store {len(self.data)} bytes as {self.suffix!r}; expected {', '.join(MEDIA_TYPES)}"
            )


@dataclass(frozen=True)
class StoredFile:
    """A file of the store, found by its content: `name` is its path inside `files/`."""

    sha256: str
    bytes: int
    suffix: str

    @classmethod
    def of(cls, content: Content) -> StoredFile:
        """The record of a content that is about to be stored."""
        return cls(hashlib.sha256(content.data).hexdigest(), len(content.data), content.suffix)

    @property
    def name(self) -> str:
        return f"{self.sha256[:2]}/{self.sha256}{self.suffix}"

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.suffix]


@dataclass(frozen=True)
class Capture:
    """One photo with what was made of it.

    Attributes:
        seq: grows with every capture and is never used twice; it orders captures, since clocks jump.
        id: 32 hexadecimal digits, the public name.
        received_at: UTC by the machine's clock, ISO 8601; for people only.
        idempotency_key: chosen by the client, or None. fingerprint: of everything the request asked.
        facts: JSON object: sku, gtin, angle, size_hw, prompts, model, backend, precision, scores and the like.
        files: by role, `original` always, `mask` and `cutout` where they were made.
    """

    seq: int
    id: str
    received_at: str
    idempotency_key: str | None
    fingerprint: str
    facts: Mapping[str, Any]
    files: Mapping[str, StoredFile]

    def document(self) -> dict[str, Any]:
        """The JSON object of sidecars, of the index and of HTTP answers."""
        files = {
            role: {"sha256": f.sha256, "bytes": f.bytes, "media_type": f.media_type} for role, f in self.files.items()
        }
        named = {"id": self.id, "seq": self.seq, "received_at": self.received_at}
        request = {"idempotency_key": self.idempotency_key, "fingerprint": self.fingerprint}
        return {"format": FORMAT} | named | request | {"facts": dict(self.facts), "files": files}

    def encode(self) -> bytes:
        """The document as UTF-8 text; equal captures give equal bytes."""
        return json.dumps(self.document(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> Capture:
        """The capture of a sidecar, whose bytes nobody vouches for.

        Raises:
            DamagedRecord: no JSON, another format, or a member missing or of the wrong kind.
        """
        try:
            document = json.loads(data)
            if document["format"] != FORMAT:
                raise DamagedRecord(f"sidecar of format {document['format']!r}, expected {FORMAT}")
            suffixes = {kind: suffix for suffix, kind in MEDIA_TYPES.items()}
            listed = document["files"]
            if "original" not in listed or not set(listed) <= set(ROLES):
                raise DamagedRecord(f"files {sorted(listed)}; expected `original` among {', '.join(ROLES)}")
            files = {
                role: StoredFile(_match(_SHA256, f["sha256"]), int(f["bytes"]), suffixes[f["media_type"]])
                for role in ROLES
                if (f := listed.get(role)) is not None
            }
            key = document["idempotency_key"]
            seq, facts = document["seq"], document["facts"]
            if not (isinstance(seq, int) and 0 < seq < 2**63 and isinstance(facts, dict)):
                raise DamagedRecord("`seq` must be a positive integer and `facts` an object")
            return cls(
                seq,
                _match(_ID, document["id"]),
                str(document["received_at"]),
                None if key is None else _match(_KEY, key),
                _match(_SHA256, document["fingerprint"]),
                facts,
                files,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DamagedRecord):
                raise
            raise DamagedRecord(f"damaged sidecar: {type(error).__name__} {error}") from error


def fingerprint(files: Mapping[str, StoredFile], request: Mapping[str, Any]) -> str:
    """SHA-256 of what a client asked: the files it sent and the fields beside them."""
    asked = {"files": {role: f.sha256 for role, f in files.items()}, "request": dict(request)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, allow_nan=False).encode()).hexdigest()


def check_key(key: str) -> str:
    """An idempotency key: 1 to 200 visible ASCII characters.

    Raises:
        OptionError: anything else.
    """
    if not _KEY.fullmatch(key):
        raise OptionError(
            f"the idempotency key has {len(key)} characters; expected 1 to 200 visible ASCII ones", hint="use a UUID"
        )
    return key


def check_text(name: str, text: str) -> str:
    """A label such as a sku: 1 to 64 printable characters, none of them at the ends a space.

    Raises:
        OptionError: anything else.
    """
    if not (0 < len(text) <= MAX_TEXT and text.isprintable() and text == text.strip()):
        raise OptionError(
            f"{name} {text[:80]!r}: expected 1 to {MAX_TEXT} printable characters without spaces around them",
            hint=f"shorten {name}",
        )
    return text


def _match(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise DamagedRecord(f"{text[:80]!r} is not of the form {pattern.pattern}")
    return text
