"""Barcodes: read from drawn photos in every pose, checked, and answered by POST /codes from the killable worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from boothsam.runtime.images import encode_image
from boothsam.service import codes
from boothsam.service.codes import read_codes
from boothsam.service.decoding import DecodeWorker
from boothsam.service.problems import ServiceProblem
from starlette.testclient import TestClient

from tests.service.conftest import RED, disc
from tests.service.http_client import code, send, service

zxingcpp = pytest.importorskip("zxingcpp", reason="the extra codes is not installed")

GTIN, OTHER, WRONG = "4006381333931", "9780306406157", "4006381333932"
# GS1 General Specifications, section 5.2: number sets A, B, C and the parity of the left half by the first digit.
_A = ["0001101", "0011001", "0010011", "0111101", "0100011", "0110001", "0101111", "0111011", "0110111", "0001011"]
_C = ["".join("10"[int(bit)] for bit in digit) for digit in _A]
_B = [digit[::-1] for digit in _C]
_PARITY = ["AAAAAA", "AABABB", "AABBAB", "AABBBA", "ABAABB", "ABBAAB", "ABBBAA", "ABABAB", "ABABBA", "ABBABA"]

Picture = npt.NDArray[np.uint8]


def ean13(digits: str, module: int = 3) -> Picture:
    """(h, w) grey bars with quiet zones, drawn by the book: whatever the last digit is."""
    left = "".join(
        (_A if set_ == "A" else _B)[int(d)] for d, set_ in zip(digits[1:7], _PARITY[int(digits[0])], strict=True)
    )
    bits = "0" * 11 + "101" + left + "01010" + "".join(_C[int(d)] for d in digits[7:]) + "101" + "0" * 11
    row = np.repeat(np.array([255 * (bit == "0") for bit in bits], np.uint8), module)
    bars = np.repeat(row[None], 30 * module, 0)
    return np.asarray(cv2.copyMakeBorder(bars, 4 * module, 4 * module, 0, 0, cv2.BORDER_CONSTANT, value=255), np.uint8)


def matrix(kind: str, text: str) -> Picture:
    """(h, w) grey of a code that zxing-cpp draws."""
    made = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, kind))
    drawn = np.array(made.to_image(scale=5))
    return np.asarray(cv2.copyMakeBorder(drawn, 25, 25, 25, 25, cv2.BORDER_CONSTANT, value=255), np.uint8)


def on_product(*labels: tuple[Picture, tuple[int, int], float, float], blur: float = 0) -> Picture:
    """A red product on a backdrop, 900x1200, with (bars, centre, angle, scale) glued to it, and a sensor's noise."""
    photo: npt.NDArray[Any] = np.full((900, 1200, 3), 225, np.uint8)
    disc(photo, (600, 450), 430, RED)
    for bars, centre, angle, scale in labels:
        matrix = cv2.getRotationMatrix2D((bars.shape[1] / 2, bars.shape[0] / 2), angle, scale)
        matrix[:, 2] += centre[0] - bars.shape[1] / 2, centre[1] - bars.shape[0] / 2
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        turned = cv2.warpAffine(bars, matrix, (1200, 900), flags=method)
        where = cv2.warpAffine(np.full_like(bars, 255), matrix, (1200, 900)) > 0
        photo[where] = np.asarray(turned)[where][:, None]
    if blur:
        photo = cv2.GaussianBlur(photo, (0, 0), blur)
    noise = np.random.default_rng(7).normal(0, 3, photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("angle", [0, 12, 30, 45, 60, 90, 135, 180, 270, 300])
def test_bars_are_read_at_every_angle_and_found_where_they_are(angle: float) -> None:
    (found,) = read_codes(on_product((ean13(GTIN), (560, 420), angle, 1)))
    assert (found.text, found.format, found.valid, found.gtin14) == (GTIN, "EAN-13", True, "0" + GTIN)
    corners = np.array(found.quad_xy)
    assert np.linalg.norm(corners.mean(0) - (560, 420)) < 12
    # From its own top left to its top right runs the reading direction.
    (dx, dy), turn = corners[1] - corners[0], np.deg2rad(angle)
    assert np.dot([dx, dy], [np.cos(turn), -np.sin(turn)]) > 0.9 * np.hypot(dx, dy) > 200


@pytest.mark.parametrize(("scale", "blur"), [(0.7, 0), (0.5, 0), (1, 1.5), (1.5, 2)])
def test_small_and_blurred_bars(scale: float, blur: float) -> None:
    found = read_codes(on_product((ean13(GTIN), (600, 450), 0, scale), blur=blur))
    assert [one.gtin14 for one in found] == ["0" + GTIN]


def test_a_large_photo_is_halved_and_its_corners_are_the_photos() -> None:
    large = on_product((ean13(GTIN), (560, 420), 0, 1)).repeat(4, 0).repeat(4, 1)
    assert large[..., 0].size > codes._LARGE
    (found,) = read_codes(large)
    assert found.gtin14 == "0" + GTIN
    assert np.linalg.norm(np.array(found.quad_xy).mean(0) - (2240, 1680)) < 24


@pytest.mark.parametrize("size_hw", [(1, 1), (900, 1200), (5770, 8660), (3000, 16383)])
def test_no_look_is_at_more_pixels_than_decoding_has_time_for(size_hw: tuple[int, int]) -> None:
    view, back = next(codes._views(np.zeros(size_hw, np.uint8)))
    assert view.size <= codes._LARGE
    height, width = view.shape
    edges = np.array([[-0.5, -0.5, 1], [width - 0.5, height - 0.5, 1]]) @ back.T  # of the outermost pixels' squares
    assert edges == pytest.approx(np.array([[-0.5, -0.5], [size_hw[1] - 0.5, size_hw[0] - 0.5]]))


def test_a_wrong_check_digit_is_told_and_never_a_gtin() -> None:
    (found,) = read_codes(on_product((ean13(WRONG), (600, 450), 0, 1)))
    assert (found.text, found.valid, found.gtin14) == (WRONG, False, None)
    both = read_codes(on_product((ean13(WRONG), (600, 250), 0, 1), (ean13(GTIN), (600, 650), 0, 1)))
    assert [one.text for one in both] == [GTIN]  # beside a good one it is most likely misread


def test_several_codes_the_gtins_first() -> None:
    labels = [
        (matrix("QRCode", "see you"), (300, 450), 20.0, 1.0),
        (ean13(GTIN), (700, 250), 0.0, 1.0),
        (ean13(OTHER), (700, 650), 5.0, 1.0),
    ]
    found = read_codes(on_product(*labels))
    assert {one.gtin14 for one in found[:2]} == {"0" + GTIN, "0" + OTHER}
    assert (found[2].text, found[2].format, found[2].valid, found[2].gtin14) == ("see you", "QR Code", None, None)


@pytest.mark.parametrize(
    ("kind", "text", "valid", "gtin14"),
    [
        ("EAN8", "96385074", True, "00000096385074"),
        ("UPCA", "012345678905", True, "00012345678905"),
        ("ITF14", "15400141288763", True, "15400141288763"),
        ("DataBar", "0109506000134352", True, "09506000134352"),
        ("QRCode", "https://id.gs1.org/01/09506000134352/10/ABC?x=1", True, "09506000134352"),
        ("QRCode", "https://id.gs1.org/01/09506000134353", False, None),
        ("QRCode", "https://shop.example/?next=/01/09506000134352", None, None),
        ("QRCode", "09506000134352", None, None),
        ("Code128", "MUG-7", None, None),
        ("DataMatrix", "MUG-7", None, None),
    ],
)
def test_what_counts_as_a_gtin(kind: str, text: str, valid: bool | None, gtin14: str | None) -> None:
    (found,) = read_codes(on_product((matrix(kind, text), (600, 450), 0, 1)))
    assert (found.valid, found.gtin14) == (valid, gtin14)


def test_a_photo_without_bars_has_none(photos: Path) -> None:
    assert read_codes(on_product()) == []
    stripes = np.tile(np.repeat(np.array([30, 220], np.uint8), 9), 40)
    assert not [one for one in read_codes(np.tile(stripes[None, :, None], (300, 1, 3))) if one.gtin14]


@pytest.fixture(scope="module")
def client(color_folder: Path) -> Iterator[TestClient]:
    with service(color_folder) as started:
        yield started


@pytest.fixture(scope="module")
def labelled() -> bytes:
    return encode_image(on_product((ean13(GTIN), (560, 420), 0, 1)), "jpg")


def test_the_route_reads_an_upload_or_a_kept_photo(client: TestClient, labelled: bytes) -> None:
    sent = send(client, "/codes", labelled)
    assert sent.status_code == 200, sent.text
    body = sent.json()
    assert [(one["text"], one["gtin14"]) for one in body["codes"]] == [(GTIN, "0" + GTIN)]
    assert body["ms"]["codes"] > 0 and sent.headers["server-timing"].startswith("codes;dur=")
    id = send(client, "/embeddings", labelled, {"keep": "true"}).json()["id"]
    assert client.post("/codes", json={"embedding_id": id}).json()["codes"] == body["codes"]
    assert client.get("/kiosk/status").json()["codes"] is True


def test_photos_without_codes_and_refusals(client: TestClient, photos: Path, labelled: bytes) -> None:
    assert send(client, "/codes", photos / "one.png").json()["codes"] == []
    assert code(client.post("/codes", json={"embedding_id": "0" * 64}), 404) == "embedding_not_found"
    id = send(client, "/embeddings", photos / "one.png").json()["id"]
    assert code(client.post("/codes", json={"embedding_id": id}), 409) == "photo_not_kept"
    assert code(send(client, "/codes", labelled, {"embedding_id": id}), 422) == "invalid_field"
    assert code(client.post("/codes", json={}), 400) == "missing_image"
    assert code(client.post("/codes", json={"photo": "x"}), 422) == "unknown_field"
    assert code(client.post("/codes", content=b"x", headers={"content-type": "text/plain"}), 415) == "unsupported_media"
    assert code(send(client, "/codes", b"no photo"), 415) == "unsupported_media"
    assert code(send(client, "/codes", labelled[:2000]), 422) == "broken_image"


def test_without_the_extra_the_hint_says_what_to_install(
    client: TestClient, labelled: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "installed", lambda: False)
    refused = send(client, "/codes", labelled)
    assert code(refused, 503) == "codes_unavailable" and "boothsam[codes]" in refused.json()["hint"]
    assert client.get("/kiosk/status").json()["codes"] is False


def test_the_reader_shares_the_workers_limits(labelled: bytes) -> None:
    noise = encode_image(np.random.default_rng(1).integers(0, 256, (1500, 1600, 3), np.uint8), "jpg")

    async def scenario() -> None:
        worker = DecodeWorker()
        worker.start()
        try:
            first = await worker.read_codes(labelled)
            assert first[0]["text"] == GTIN
            assert (await worker.decode(labelled)).shape == (900, 1200, 3)  # one worker does both
            pid = worker.pid
            worker.timeout_s = 0.4  # decoding alone would do; looking for bars everywhere in noise takes longer
            with pytest.raises(ServiceProblem, match="decode_timeout"):
                await worker.read_codes(noise)
            worker.timeout_s = 20
            assert await worker.read_codes(labelled) == first
            assert worker.pid != pid and worker.replaced == 1
        finally:
            worker.close()

    asyncio.run(scenario())
