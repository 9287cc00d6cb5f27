"""Form bodies in memory: multipart, urlencoded or JSON, never spooled to disk, file names never looked at.

The bytes were counted before (limits.ByteLimit); here the number and the length of parts are bounded. Whatever takes
long for a large body runs in a thread, in calls that do not hold the interpreter for long: /healthz answers meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from boothsam.service.problems import ServiceProblem, problem
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

M = TypeVar("M", bound=BaseModel)
MAX_FILES, MAX_FIELDS = 2, 32
MAX_TEXT = 64 << 10  # characters of one text field
REPEATED = ("box", "points", "labels")  # fields that may be sent more than once
# Brackets and commas in a JSON body: a photo in base64 has none, and 32 MiB of them would become gigabytes of objects.
_MAX_JSON_MARKS = 1000
# Others are decoded by Python's codec of that name, some of which take quadratic time or raise what nobody expects.
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1")
_MULTIPART, _URLENCODED, _JSON = "multipart/form-data", "application/x-www-form-urlencoded", "application/json"
_HEX_DIGIT = np.full(256, 16, np.uint8)
for _digit in b"0123456789abcdefABCDEF":
    _HEX_DIGIT[_digit] = int(chr(_digit), 16)


@dataclass(frozen=True)
class Form:
    """fields: (name, text) in the order sent; files: name -> content, the last of each name; series: all contents of
    the names that may be sent more than once."""

    fields: tuple[tuple[str, str], ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    series: dict[str, tuple[bytes, ...]] = field(default_factory=dict)

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [text for key, text in self.fields if key == name]

    def get(self, name: str, default: str = "") -> str:
        """The last value of a field."""
        values = self.all(name)
        return values[-1] if values else default

    def need_known(self, fields: Iterable[str], files: Iterable[str]) -> None:
        """Raise `unknown_field` for any other name, `invalid_field` for a file where a text belongs, and for two values
        of a field that takes one: ignoring one of them would answer another question than was asked.
        """
        texts, uploads = set(fields), set(files)
        for name in (*(key for key, _ in self.fields), *self.files):
            if name not in texts | uploads:
                raise problem("unknown_field", f"unknown field {name[:80]!r}", f"known are {_list(texts | uploads)}")
        for name in self.files:
            if name not in uploads:
                raise problem("invalid_field", f"{name} was sent as a file; expected text", f"curl -F {name}=...")
        for name in texts - set(REPEATED):
            if len(self.all(name)) > 1:
                raise _twice(name)

    def image(self, name: str = "image_file") -> bytes:
        """The photo's bytes. Raises `missing_image`, `invalid_field` for text in its place."""
        if self.files.get(name):
            return self.files[name]
        if any(key == name for key, _ in self.fields):
            raise problem("invalid_field", f"{name} was sent as text; expected a file", f"curl -F {name}=@photo.jpg")
        found = "it is empty" if name in self.files else "it is missing"
        raise problem("missing_image", f"expected a photo in {name}; {found}", f"curl -F {name}=@photo.jpg")


class _InMemory(MultiPartParser):
    # A spooled file that never rolls over is a BytesIO: photos of people do not reach the disk.
    spool_max_size = sys.maxsize


async def read_form(
    request: Request,
    kinds: Sequence[str] = (_MULTIPART,),
    long: Collection[str] = (),
    series: Collection[str] = (),
    most: int = MAX_FILES,
) -> Form:
    """Read the body as a form.

    kinds: accepted content types. long: text fields that may exceed MAX_TEXT. series: files that may be sent more than
    once. most: files in all.

    Raises:
        ServiceProblem: `unsupported_media` for another content type or charset, `bad_request` for a malformed body,
            `invalid_field` for a text that is too long or a file sent twice; whatever the limits raise while the body
            streams.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.split(";")[0].strip().lower()
    if kind not in kinds:
        raise problem(
            "unsupported_media",
            f"the body has the content type {kind[:80]!r}; expected {' or '.join(kinds)}",
            "curl -F image_file=@photo.jpg",
        )
    charset = parse_options_header(content_type)[1].get(b"charset", _CHARSETS[0]).lower()
    if charset not in _CHARSETS:
        raise problem("unsupported_media", f"the charset is {charset[:40]!r}; expected utf-8", "leave the charset out")
    if kind == _MULTIPART:
        form = await _multipart(request, sys.maxsize if long else MAX_TEXT, series, most)
    else:
        form = await asyncio.to_thread(_from_json if kind == _JSON else _from_urlencoded, await request.body())
    for name, text in form.fields:
        if len(text) > MAX_TEXT and name not in long:
            raise problem("invalid_field", f"{name[:80]} has {len(text)} characters; at most {MAX_TEXT}")
    return form


async def read_json(request: Request, model: type[M], limit: int = MAX_TEXT) -> M:
    """A small JSON body, of `limit` bytes at most, as a model.

    Raises:
        ServiceProblem: `unsupported_media`, `too_large`, `bad_request` for what is no JSON, `unknown_field`,
            `invalid_field`.
    """
    body = await _small_json(request, limit)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, mistake["loc"]))[:80]
        if mistake["type"] == "json_invalid":
            raise problem("bad_request", f"the body is no JSON: {mistake['msg']}") from None
        if mistake["type"] == "extra_forbidden":
            known = _list(set(model.model_fields))
            raise problem("unknown_field", f"unknown field {place!r}", f"known are {known}") from None
        raise problem("invalid_field", f"{place or 'the body'}: {mistake['msg']}", "GET /openapi.json") from None


async def read_json_form(request: Request) -> Form:
    """A small JSON object as a form, for questions whose members are a form's fields.

    Raises:
        ServiceProblem: `unsupported_media`, `too_large`, `bad_request` for what is no JSON object, `invalid_field`.
    """
    return _from_json(await _small_json(request))


async def _small_json(request: Request, limit: int = MAX_TEXT) -> bytes:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != _JSON:
        hint = "curl -H 'Content-Type: application/json' -d '{...}'"
        raise problem("unsupported_media", f"the body has the content type {kind[:80]!r}; expected {_JSON}", hint)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise problem("too_large", f"more than {limit} bytes of JSON", "photos go to POST /embeddings")
    return bytes(body)


async def _multipart(request: Request, max_text: int, series: Collection[str] = (), most: int = MAX_FILES) -> Form:
    parser = _InMemory(request.headers, request.stream(), max_files=most, max_fields=MAX_FIELDS, max_part_size=max_text)
    try:
        parsed = await parser.parse()
    except MultiPartException as error:
        raise problem("bad_request", error.message.rstrip("."), "send a form as curl -F does") from None
    fields: list[tuple[str, str]] = []
    files: dict[str, bytes] = {}
    repeated: dict[str, tuple[bytes, ...]] = {}
    try:
        for key, value in parsed.multi_items():
            if not isinstance(value, UploadFile):
                fields.append((key, value))
            elif key in files and key not in series:
                raise _twice(key)
            else:
                files[key] = await value.read()
                if key in series:
                    repeated[key] = (*repeated.get(key, ()), files[key])
    finally:
        await parsed.close()
    return Form(tuple(fields), files, repeated)


def _from_urlencoded(body: bytes) -> Form:
    pairs = body.split(b"&", MAX_FIELDS)
    if len(pairs) > MAX_FIELDS:
        raise problem("bad_request", f"more than {MAX_FIELDS} fields", "send a form as curl -F does")
    split = (pair.partition(b"=") for pair in pairs if pair)
    return Form(tuple((_percent_decoded(name), _percent_decoded(value)) for name, _, value in split))


def _percent_decoded(encoded: bytes) -> str:
    """`urllib.parse.unquote_plus`, which takes ten times as long, and gigabytes, for a body made of escapes."""
    codes = np.frombuffer(encoded.replace(b"+", b" "), np.uint8)
    digits = _HEX_DIGIT[codes]
    at = np.flatnonzero((codes[:-2] == ord("%")) & (digits[1:-1] < 16) & (digits[2:] < 16))
    if not at.size:
        return codes.tobytes().decode(errors="replace")
    decoded, kept = codes.copy(), np.ones(codes.size, bool)
    decoded[at] = digits[at + 1] << 4 | digits[at + 2]
    kept[at + 1] = kept[at + 2] = False
    return decoded[kept].tobytes().decode(errors="replace")


def _from_json(body: bytes) -> Form:
    if any(len(body.split(mark, _MAX_JSON_MARKS)) > _MAX_JSON_MARKS for mark in (b",", b"[", b"{")):
        raise problem("bad_request", "the JSON body has too many members", "send one value for each field")
    try:
        # Numbers become text in the end; as they are, a million digits cost nothing.
        members = json.loads(body, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise problem("bad_request", "the body is no JSON object", "send {...}, or a form as curl -F does")
    fields = []
    for key, value in members.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict | list):
                raise problem("invalid_field", f"{key[:80]} is nested; expected text, a number or true or false")
            if one is not None:
                fields.append((key, one if isinstance(one, str) else json.dumps(one)))
    return Form(tuple(fields))


async def base64_image(text: str, name: str) -> bytes:
    """The bytes of a base64 field, with or without a data: prefix. Raises `invalid_field`."""

    def decode() -> bytes:
        encoded = text.split(",", 1)[1] if text.startswith("data:") and "," in text else text
        # Line breaks are common, as in MIME.
        return base64.b64decode(encoded.encode("ascii").translate(None, b" \t\r\n"), validate=True)

    try:
        return await asyncio.to_thread(decode)
    except (binascii.Error, ValueError):
        raise problem(
            "invalid_field", f"{name} is no base64", f"send it as a file instead: image_file in place of {name}"
        ) from None


async def sha256(data: bytes) -> str:
    """Hex digest, made outside the event loop: 32 MiB take longer than a health check may."""
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())


def number(form: Form, name: str, low: float, high: float, *, whole: bool = False) -> float | None:
    """A numeric field within low..high; None when it was not sent or is empty. Raises `invalid_field`."""
    text = form.get(name)
    if not text:
        return None
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise _wrong(name, text, f"a {'whole ' if whole else ''}number from {low:g} to {high:g}")
    return value


def whole_number(form: Form, name: str, low: int, high: int) -> int | None:
    """`number` for integers."""
    value = number(form, name, low, high, whole=True)
    return None if value is None else int(value)


def choice(form: Form, name: str, known: Sequence[str], default: str) -> str:
    """One of the known words. Raises `invalid_field`."""
    text = form.get(name, default) or default
    if text not in known:
        raise _wrong(name, text, _list(known))
    return text


def flag(form: Form, name: str) -> bool:
    """true or false; false when not sent. Raises `invalid_field`."""
    text = form.get(name).lower()
    if text not in ("", "true", "false", "1", "0"):
        raise _wrong(name, text, "true or false")
    return text in ("true", "1")


def _twice(name: str) -> ServiceProblem:
    return problem("invalid_field", f"{name[:80]} was sent more than once; expected one value", f"send one {name[:80]}")


def _wrong(name: str, text: str, expected: str) -> ServiceProblem:
    return problem("invalid_field", f"{name} is {text[:80]!r}; expected {expected}", f"mend or leave out {name}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names) if isinstance(names, set) else names)
