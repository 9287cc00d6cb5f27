"""Requests that make sense, with values at and beyond every edge: what schemathesis' random texts seldom reach.

Every operation that works on photos has to answer as documented, and some of the requests have to succeed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.service.fuzz_inputs import check_answer, damaged, few_or_many, files, whole
from tests.service.http_client import send, service

# The photo is 90x60, or 60x90 by its EXIF tag; the product lies around (45, 30).
_edge = st.sampled_from(("0", "1", "27", "30", "45", "59.5", "60", "63", "89", "90", "-5", "1e9", "1e308", "nan", ""))
_point = st.one_of(st.just("45,30"), st.builds("{},{}".format, _edge, _edge))
_box = st.one_of(
    st.just("20,8,70,52"), st.just("0,0,90,60"), st.builds("{},{},{},{}".format, _edge, _edge, _edge, _edge)
)
_color = st.sampled_from(("white", "black", "#12ab90", "transparent", "no colour", "#12ab9", ""))
_flag = st.sampled_from(("true", "false", "1", "", "yes"))


def _form(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Each field now and then."""
    return st.fixed_dictionaries({}, optional=fields)


CROP = _form(
    box=st.lists(_box, min_size=1, max_size=3),
    points=st.lists(_point, min_size=1, max_size=4),
    labels=st.sampled_from(("1", "0", "1,0", "1;1;0", "2", "")),
    boxes=st.sampled_from(("[[20,8,70,52]]", "[]", "[[1,2,3]]", "[[20,8,70,52],[0,0,30,30]]", "{", "[" * 5000)),
    background=_color,
    fill=st.sampled_from(("0.85", "1", "0", "1e-9", "1e-320", "1.01", "nan", "inf", "x")),
    margin=st.sampled_from(("0", "7", "16384", "16385", "-1", "2.5")),
    size=st.sampled_from(("1", "2", "64", "1400", "1500", "16384", "0")),
    format=st.sampled_from(("png", "jpg", "webp", "gif")),
    quality=st.sampled_from(("1", "92", "100", "101")),
    shadow=st.sampled_from(("none", "drop", "contact", "cast", "long")),
    fill_holes=_flag,
    drop_islands=_flag,
    small_area=st.sampled_from(("1", "50", "2147483648", "0")),
    preset=st.sampled_from(("ebay", "google", "shopify", "amazon", "amazn")),
)
_edge_or_share = st.sampled_from(("0", "10px", "20%", "100%", "101%", "-3px", "1e6", "wide", "500px"))
REMOVEBG = _form(
    size=st.sampled_from(("preview", "auto", "50MP", "huge")),
    type=st.just("product"),
    format=st.sampled_from(("auto", "png", "jpg", "webp", "zip", "bmp")),
    roi=st.one_of(st.just("10% 10% 90% 90%"), st.builds("{} {} {} {}".format, *[_edge_or_share] * 4)),
    crop=_flag,
    crop_margin=st.one_of(_edge_or_share, st.builds("{} {}".format, _edge_or_share, _edge_or_share)),
    scale=st.sampled_from(("original", "10%", "100%", "9%", "50px")),
    position=st.sampled_from(("original", "center", "0% 100%", "50%", "101%")),
    channels=st.sampled_from(("rgba", "alpha", "rgb")),
    bg_color=st.sampled_from(("fff", "ff000080", "red", "#zzz", "hsl(0,0%,0%)")),
    add_shadow=_flag,
    shadow_opacity=st.sampled_from(("0", "50", "100", "101")),
)
CAPTURE = _form(
    sku=st.sampled_from(("MUG-7", "x" * 64, "x" * 65, " a", "\u202ea", "../../etc/passwd", "")),
    gtin=st.sampled_from(("4006381333931", "96385074", "4006381333932", "400638133393A", "٤٠٠٦٣٨١٣٣٣٩٣١")),
    angle=st.sampled_from(("front", "top\n")),
    segment=_flag,
    box=_box,
    points=_point,
    labels=st.sampled_from(("1", "0")),
)
_number = st.sampled_from((0, 1, 30, 45, 60, 90, -5, 1e9, 1e308, 10**400, "x", None, True))
QUESTION = st.fixed_dictionaries(
    {},
    optional={
        "points": st.one_of(st.just([[45, 30]]), st.lists(st.tuples(_number, _number), max_size=3)),
        "labels": st.lists(st.sampled_from((0, 1, 2)), max_size=3),
        "box": st.one_of(st.just([20, 8, 70, 52]), st.tuples(_number, _number, _number, _number)),
        "mask_input": st.sampled_from(("earlier", "0" * 32, "", None)),
        "multimask": st.booleans(),
        "format": st.sampled_from(("rle", "png", "gif")),
        "mask_max_side": st.sampled_from((1, 2, 64, 16384, 16385, 0, None)),
    },
)
_earlier = st.sampled_from(("earlier", "earlier", "earlier", "0" * 32, ""))
CUTOUT = st.tuples(
    _form(
        background=_color,
        fill=st.sampled_from((0.85, 1, 0, 1e-320, 1.01, "x")),
        margin=st.sampled_from((0, 7, 16384, -1, 2.5)),
        size=st.sampled_from((1, 2, 64, 1400, 1500, 16384)),
        format=st.sampled_from(("png", "jpg", "webp", "gif")),
        quality=st.sampled_from((1, 100, 101)),
        shadow=st.sampled_from(("none", "drop", "cast", "long")),
        fill_holes=st.sampled_from((True, False, None, "yes")),
        max_side=st.sampled_from((1, 16, 4000, 16384, 0, 10**400, None)),
        limits=st.one_of(st.just([20, 8, 70, 52]), st.tuples(_number, _number, _number, _number), st.none()),
    ),
    _earlier,
)
_EARLIER_FIELDS = st.tuples(_earlier, st.sampled_from(("20,8,70,52", "1,2,3", "")), st.booleans())
_photo = st.one_of(whole, whole, whole, damaged)


@pytest.fixture(scope="module")
def client(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A ready service with captures, and a bound of two megapixels, so that no answer takes long."""
    folder = tmp_path_factory.mktemp("fuzz") / "captures"
    with service(color_folder, captures_dir=str(folder), min_free_bytes=0, max_pixels=2_000_000) as started:
        yield started


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def _succeeded(seen: Mapping[int, int]) -> None:
    assert any(200 <= status < 300 for status in seen), seen
    assert any(400 <= status < 500 for status in seen), seen


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_crop(client: TestClient, document: dict[str, Any], accept: str) -> None:
    seen: Counter[int] = Counter()

    @few_or_many
    @given(photo=_photo, fields=CROP)
    def ask(photo: bytes, fields: dict[str, Any]) -> None:
        answer = send(client, "/crop", photo, fields, accept=accept)
        check_answer(document, "post", "/crop", answer)
        seen[answer.status_code] += 1

    ask()
    _succeeded(seen)


def test_removebg(client: TestClient, document: dict[str, Any]) -> None:
    seen: Counter[int] = Counter()

    @few_or_many
    @given(photo=_photo, fields=REMOVEBG)
    def ask(photo: bytes, fields: dict[str, Any]) -> None:
        answer = send(client, "/v1.0/removebg", photo, fields)
        check_answer(document, "post", "/v1.0/removebg", answer)
        seen[answer.status_code] += 1

    ask()
    _succeeded(seen)


def test_captures(client: TestClient, document: dict[str, Any]) -> None:
    seen: Counter[int] = Counter()

    @few_or_many
    @given(photo=_photo, fields=CAPTURE, key=st.sampled_from((None, "a", "b", "x" * 200, "x" * 201)))
    def ask(photo: bytes, fields: dict[str, Any], key: str | None) -> None:
        answer = send(client, "/captures", photo, fields, **({} if key is None else {"idempotency_key": key}))
        check_answer(document, "post", "/captures", answer)
        seen[answer.status_code] += 1
        if answer.status_code == 201:
            for role in answer.json()["files"]:
                assert client.get(f"/captures/{answer.json()['id']}/{role}").status_code == 200

    ask()
    _succeeded(seen)


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_segment(client: TestClient, document: dict[str, Any], accept: str) -> None:
    seen: Counter[int] = Counter()
    key = send(client, "/embeddings", files()[0]).json()["id"]
    first = client.post(f"/embeddings/{key}/segment", json={"points": [[45, 30]]}).json()["masks"][0]["logits_id"]

    @few_or_many
    @given(question=QUESTION)
    def ask(question: dict[str, Any]) -> None:
        if question.get("mask_input") == "earlier":
            question = question | {"mask_input": first}
        answer = client.post(f"/embeddings/{key}/segment", json=question, headers={"accept": accept})
        check_answer(document, "post", "/embeddings/{id}/segment", answer)
        seen[answer.status_code] += 1

    ask()
    _succeeded(seen)


def test_cutout(client: TestClient, document: dict[str, Any]) -> None:
    seen: Counter[int] = Counter()
    key, first = _kept(client)

    @few_or_many
    @given(question=CUTOUT)
    def ask(question: tuple[dict[str, Any], str]) -> None:
        fields, mask = question
        body = fields | {"logits_id": first if mask == "earlier" else mask}
        answer = client.post(f"/embeddings/{key}/cutout", json=body)
        check_answer(document, "post", "/embeddings/{id}/cutout", answer)
        seen[answer.status_code] += 1

    ask()
    _succeeded(seen)


def test_captures_of_an_earlier_answer(client: TestClient, document: dict[str, Any]) -> None:
    seen: Counter[int] = Counter()
    key, first = _kept(client)

    @few_or_many
    @given(asked=_EARLIER_FIELDS, photo=_photo, fields=CAPTURE)
    def ask(asked: tuple[str, str, bool], photo: bytes, fields: dict[str, Any]) -> None:
        mask, limits, alone = asked
        fields = {name: text for name, text in fields.items() if name in ("sku", "angle", "gtin") or not alone}
        fields |= {"embedding_id": key, "logits_id": first if mask == "earlier" else mask, "limits": limits}
        answer = send(client, "/captures", None if alone else photo, fields)
        check_answer(document, "post", "/captures", answer)
        seen[answer.status_code] += 1

    ask()
    _succeeded(seen)


def _kept(client: TestClient) -> tuple[str, str]:
    """An embedding with its photo, and a mask of it."""
    key = send(client, "/embeddings", files()[0], {"keep": "true"}).json()["id"]
    masks = client.post(f"/embeddings/{key}/segment", json={"points": [[45, 30]]}).json()["masks"]
    return key, masks[0]["logits_id"]
