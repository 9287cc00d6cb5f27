"""Form bodies that are odd, too long or made to be slow: read in bounds, beside the event loop, or refused."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import pytest
from boothsam.service.forms import MAX_FIELDS, MAX_TEXT, Form, base64_image, read_form
from boothsam.service.problems import ServiceProblem
from starlette.requests import Request

URLENCODED, JSON = "application/x-www-form-urlencoded", "application/json"
MULTIPART = "multipart/form-data; boundary=B"
PHOTO = base64.b64encode(bytes(range(256)) * 999)


def request(body: bytes, content_type: str) -> Request:
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)] or [b""]

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


def read(body: bytes, content_type: str) -> Form:
    kinds = (content_type.split(";")[0],)
    return asyncio.run(read_form(request(body, content_type), kinds, long=("image_file_b64",)))


def refused(body: bytes, content_type: str) -> ServiceProblem:
    with pytest.raises(ServiceProblem) as caught:
        read(body, content_type)
    return caught.value


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def test_urlencoded_text_is_what_the_standard_library_makes_of_it() -> None:
    draw = random.Random(7)
    for _ in range(2000):
        encoded = "".join(draw.choices("%%%%+41aFfz =~", k=draw.randrange(12)))
        assert read(f"a={encoded}".encode(), URLENCODED).get("a") == unquote_plus(encoded)
    fields = {"image_file_b64": PHOTO.decode(), "bg_color": "r\u00f6t & = +%", "": "nameless", "empty": ""}
    body = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in fields.items())
    assert dict(read(body.encode(), URLENCODED).fields) == fields
    assert read(b"", URLENCODED).fields == () and read(b"&&a&", URLENCODED).fields == (("a", ""),)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"image_file_b64=" + b"%41" * (1 << 20), URLENCODED),
        (json.dumps({"image_file_b64": "A" * (24 << 20)}).encode(), JSON),
    ],
)
def test_the_event_loop_goes_on_while_a_large_body_is_decoded(body: bytes, content_type: str) -> None:
    async def scenario() -> int:
        upload = request(body, content_type)
        await upload.body()  # all has arrived: from here on nothing but the decoding takes time
        reading = asyncio.create_task(read_form(upload, (content_type,), long=("image_file_b64",)))
        beats = 0
        while not reading.done():
            await asyncio.sleep(0)
            beats += 1
        await reading
        return beats

    # On the loop itself the whole of it would be one beat; how many there are beside a thread is the system's choice.
    assert asyncio.run(scenario()) > 3


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"{}," * 5000 + b"{}]",
        b'{"a": [' + b"1," * 5000 + b"1]}",
        b"{" + b",".join(b'"%d": 1' % i for i in range(5000)) + b"}",
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_json_made_of_a_thousand_members_is_refused(body: bytes) -> None:
    found = refused(body, JSON)
    assert found.code == "bad_request" and "too many members" in found.detail


def test_json_values_become_text_as_they_were_sent() -> None:
    body = b'{"scale": 1e400, "size": 007, "crop": true, "type": null, "roi": [1, 2.50, "3"]}'
    assert refused(body, JSON).code == "bad_request"  # 007
    fields = read(body.replace(b"007", b"12345678901234567890"), JSON).fields
    assert fields[:3] == (("scale", "1e400"), ("size", "12345678901234567890"), ("crop", "true"))
    assert fields[3:] == (("roi", "1"), ("roi", "2.50"), ("roi", "3"))


@pytest.mark.parametrize("charset", ["punycode", "undefined", "idna", "utf-7", "hex", "utf-16", "nonsense", "utf-8\0"])
def test_no_codec_of_the_clients_choice_runs(charset: str) -> None:
    body = part("background", b"\xff\xfe+2AA-") + b"--B--\r\n"
    found = refused(body, f"{MULTIPART}; charset={charset}")
    assert found.code == "unsupported_media" and "expected utf-8" in found.detail


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF-8"', "; charset=iso-8859-1"])
def test_ordinary_charsets_pass(charset: str) -> None:
    assert read(part("background", b"white") + b"--B--\r\n", MULTIPART + charset).get("background") == "white"


def test_a_field_that_takes_one_value_is_not_sent_twice() -> None:
    points = Form((("points", "1,1"), ("points", "2,2"), ("format", "png")))
    points.need_known(("points", "format"), ())
    with pytest.raises(ServiceProblem, match="format was sent more than once"):
        Form((("format", "png"), ("format", "webp"))).need_known(("points", "format"), ())
    photo = part("image_file", b"photo", '; filename="a"')
    found = refused(photo + photo + b"--B--\r\n", MULTIPART)
    assert found.code == "invalid_field" and "image_file was sent more than once" in found.detail


@pytest.mark.parametrize("content_type", [URLENCODED, JSON, MULTIPART])
def test_only_a_photo_in_base64_may_be_a_long_text(content_type: str) -> None:
    def body(name: str, size: int) -> bytes:
        text = b"1" * size
        made = {URLENCODED: b"%b=%b" % (name.encode(), text), MULTIPART: part(name, text) + b"--B--\r\n"}
        return made.get(content_type, json.dumps({name: text.decode()}).encode())

    assert len(read(body("image_file_b64", 2 * MAX_TEXT), content_type).get("image_file_b64")) == 2 * MAX_TEXT
    assert len(read(body("roi", MAX_TEXT), content_type).get("roi")) == MAX_TEXT
    found = refused(body("roi", MAX_TEXT + 1), content_type)
    assert found.code == "invalid_field" and str(MAX_TEXT) in found.detail


def test_urlencoded_fields_are_bounded_in_number() -> None:
    assert len(read(b"&".join([b"a=1"] * MAX_FIELDS), URLENCODED).fields) == MAX_FIELDS
    assert refused(b"&".join([b"a=1"] * (MAX_FIELDS + 1)), URLENCODED).code == "bad_request"


def test_base64_with_line_breaks_and_prefix() -> None:
    data = base64.b64decode(PHOTO)
    wrapped = base64.encodebytes(data).decode().replace("\n", "\r\n ")
    assert asyncio.run(base64_image(wrapped, "image_file_b64")) == data
    assert asyncio.run(base64_image("data:image/png;base64," + wrapped, "image_file_b64")) == data
    for text in ("%%%", "aGk\u00e9", "a\0==", "\ud800"):
        with pytest.raises(ServiceProblem, match="no base64"):
            asyncio.run(base64_image(text, "image_file_b64"))
