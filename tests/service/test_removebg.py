"""remove.bg's interface: a published client runs against it, and every parameter shows in the picture."""

from __future__ import annotations

import base64
import io
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import removebg.removebg as published
from boothsam.runtime.cutout import CutOut
from boothsam.runtime.images import encode_image
from boothsam.service.problems import ServiceProblem
from boothsam.service.removebg import (
    Layout,
    encode,
    lay_out,
    parse_colour,
    parse_margins,
    parse_position,
    put_behind,
)
from boothsam.service.shadow import with_shadow
from PIL import Image
from starlette.testclient import TestClient

from tests.service.conftest import RED
from tests.service.http_client import send, service, serving

FULL = {"size": "full"}


@pytest.fixture(scope="module")
def client(color_folder: Path) -> Iterator[TestClient]:
    with service(color_folder) as started:
        yield started


@pytest.fixture
def quiet_root_logger() -> Iterator[None]:
    """The client configures the root logger: put it back, and close the file it opened."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()


def _pixels(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def _remove(client: TestClient, photo: Path | bytes | None, fields: Any = None, **headers: str) -> Any:
    return send(client, "/v1.0/removebg", photo, fields, **headers)


def _box(alpha: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero((alpha >= 128).any(1)), np.flatnonzero((alpha >= 128).any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _error(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    (error,) = answer.json()["errors"]
    assert error["title"]
    return str(error["code"])


@pytest.mark.usefixtures("quiet_root_logger")
def test_a_published_client_works_with_its_endpoint_alone_changed(
    color_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "one.png"
    photo.write_bytes((photos / "one.png").read_bytes())
    with serving(color_folder) as url:
        monkeypatch.setattr(published, "API_ENDPOINT", f"{url}/v1.0/removebg")
        remover = published.RemoveBg("any key", str(tmp_path / "error.log"))
        remover.remove_background_from_img_file(str(photo))
        cut = _pixels((tmp_path / "one.png_no_bg.png").read_bytes())
        encoded = base64.b64encode(photo.read_bytes()).decode()
        remover.remove_background_from_base64_img(encoded, new_file_name=str(tmp_path / "b64.png"), bg_color="ff0000")
        with pytest.raises(published.requests.HTTPError) as refused:
            remover.remove_background_from_img_url("http://127.0.0.1/x.png", new_file_name=str(tmp_path / "url.png"))
    assert cut.shape == (400, 600, 4)  # 0.24 megapixels: within "regular"
    assert (cut[0, 0] == 0).all() and np.abs(cut[150, 400].astype(int) - [*RED, 255]).max() <= 3
    red = _pixels((tmp_path / "b64.png").read_bytes())
    assert np.abs(red[5, 5].astype(int) - [255, 0, 0]).max() <= 2
    assert refused.value.response.status_code == 400
    assert refused.value.response.json()["errors"][0]["code"] == "url_not_supported"


@pytest.mark.usefixtures("quiet_root_logger")
def test_the_clients_key_is_the_token(
    color_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "one.png"
    photo.write_bytes((photos / "one.png").read_bytes())
    with serving(color_folder, token="right") as url:
        monkeypatch.setattr(published, "API_ENDPOINT", f"{url}/v1.0/removebg")
        published.RemoveBg("right", str(tmp_path / "error.log")).remove_background_from_img_file(str(photo))
        assert (tmp_path / "one.png_no_bg.png").stat().st_size > 100
        with pytest.raises(published.requests.HTTPError) as refused:
            wrong = published.RemoveBg("wrong", str(tmp_path / "error.log"))
            wrong.remove_background_from_base64_img("AAAA", new_file_name=str(tmp_path / "never.png"))
    assert refused.value.response.status_code == 403
    assert refused.value.response.json()["errors"][0]["code"] == "unauthorized"


def test_headers_and_the_photos_frame(client: TestClient, photos: Path) -> None:
    answer = _remove(client, photos / "one.png", FULL | {"some_future_field": "1"})
    assert answer.status_code == 200, answer.text
    picture = _pixels(answer.content)
    assert picture.shape == (400, 600, 4)
    x0, y0, x1, y1 = _box(picture[..., 3])
    found = {name: int(answer.headers[f"x-foreground-{name}"]) for name in ("left", "top", "width", "height")}
    assert found == {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0}
    assert answer.headers["x-credits-charged"] == "0" and answer.headers["x-type"] == "product"
    assert (answer.headers["x-width"], answer.headers["x-height"]) == ("600", "400")
    assert int(answer.headers["x-ratelimit-remaining"]) <= int(answer.headers["x-ratelimit-limit"])


def test_json_in_and_out(client: TestClient, photos: Path) -> None:
    encoded = base64.b64encode((photos / "one.png").read_bytes()).decode()
    body = {"image_file_b64": encoded, "size": "full", "crop": True, "bg_color": None}
    answer = client.post("/v1.0/removebg", json=body, headers={"accept": "application/json"})
    data = answer.json()["data"]
    assert set(data) == {"result_b64", "foreground_top", "foreground_left", "foreground_width", "foreground_height"}
    picture = _pixels(base64.b64decode(data["result_b64"]))
    assert picture.shape[:2] == (data["foreground_height"], data["foreground_width"])
    assert abs(data["foreground_left"] - 320) <= 3
    urlencoded = client.post("/v1.0/removebg", data={"image_file_b64": encoded})
    assert urlencoded.status_code == 200


def test_preview_is_a_quarter_of_a_megapixel_and_foreground_stays_in_the_photos_pixels(client: TestClient) -> None:
    photo = np.full((1200, 1800, 3), 230, np.uint8)
    photo[300:900, 900:1500] = RED
    data = encode_image(photo, "png")
    small, full = (_remove(client, data, {"size": size}) for size in ("preview", "auto"))
    height, width = _pixels(small.content).shape[:2]
    assert 0.24e6 < height * width <= 0.2501e6 and abs(width / height - 1.5) < 0.01
    assert _pixels(full.content).shape[:2] == (1200, 1800)
    for name, value in (("top", 300), ("left", 900), ("width", 600), ("height", 600)):
        for answer in (small, full):
            assert abs(int(answer.headers[f"x-foreground-{name}"]) - value) <= 8


@pytest.fixture(scope="module")
def cut() -> CutOut:
    """A red disc of 80 pixels' radius at (400, 150) of a 600x400 photo, in its tight window."""
    alpha = np.zeros((162, 162), np.uint8)
    cv2.circle(alpha, (80, 80), 80, 255, -1)
    rgba = np.zeros((162, 162, 4), np.uint8)
    rgba[alpha > 0] = [*RED, 255]
    return CutOut(rgba[:161, :161], (320, 70, 481, 231), (400, 600))


def test_the_photos_frame_is_kept_unless_a_crop_is_asked_for(cut: CutOut) -> None:
    assert _box(lay_out(cut, Layout())[..., 3]) == (320, 70, 481, 231)
    tight = lay_out(cut, Layout(crop=True))
    assert tight.shape == (161, 161, 4) and (tight == cut.rgba).all()
    wide = lay_out(cut, Layout(crop=True, margins=parse_margins("10px 20px 30px 40px")))
    assert wide.shape[:2] == (161 + 40, 161 + 60) and _box(wide[..., 3]) == (40, 10, 201, 171)
    assert lay_out(cut, Layout(crop=True, margins=parse_margins("50%"))).shape[:2] == (161 + 160, 161 + 160)


def test_scale_and_position(cut: CutOut) -> None:
    x0, y0, x1, y1 = _box(lay_out(cut, Layout(scale=0.5))[..., 3])
    assert abs(y1 - y0 - 200) <= 1 and abs(x1 - x0 - 200) <= 1
    assert abs((x0 + x1) / 2 - 300) <= 1 and abs((y0 + y1) / 2 - 200) <= 1
    assert _box(lay_out(cut, Layout(position=(0.0, 1.0)))[..., 3]) == (0, 239, 161, 400)
    assert _box(lay_out(cut, Layout(position=parse_position("100%")))[..., 3]) == (439, 239, 600, 400)
    x0, y0, *_ = _box(lay_out(cut, Layout(scale=0.25, position=(0.0, 0.0)))[..., 3])
    assert x0 <= 1 and y0 <= 1


def test_a_scaled_shadow_is_not_cut_off(cut: CutOut) -> None:
    alpha = lay_out(with_shadow(cut, 0.4), Layout(scale=0.5))[..., 3].astype(int)
    assert np.abs(np.diff(alpha[230, :195])).max() <= 4  # beside the product the shadow fades, without a step
    assert np.abs(np.diff(alpha[304:, 300])).max() <= 8


def test_what_lies_behind(cut: CutOut) -> None:
    canvas = lay_out(cut, Layout())
    assert put_behind(canvas, None, None) is canvas
    half = put_behind(canvas, parse_colour("#ffffff80"), None)
    assert (half[0, 0] == (255, 255, 255, 128)).all() and (half[150, 400] == [*RED, 255]).all()
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:, 50:] = (9, 99, 9)
    covered = put_behind(canvas, None, picture)
    assert (covered[5, 590] == (9, 99, 9, 255)).all() and (covered[5, 5] == (0, 0, 0, 255)).all()
    faint = canvas.copy()
    faint[..., 3] //= 2
    assert np.abs(put_behind(faint, (0, 0, 255, 255), None)[150, 400].astype(int) - [95, 20, 146, 255]).max() <= 1
    x0, y0, x1, y1 = _box(canvas[..., 3])
    shaded = lay_out(with_shadow(cut, 0.4), Layout())
    assert 20 < shaded[y1 + 2, (x0 + x1) // 2, 3] < 110 and (shaded[y1 + 2, (x0 + x1) // 2, :3] == 0).all()
    assert (shaded[150, 400] == [*RED, 255]).all() and _box(shaded[..., 3]) == (x0, y0, x1, y1)


def test_files(cut: CutOut) -> None:
    canvas = lay_out(cut, Layout())
    kinds = {kind: encode(canvas, kind, "rgba") for kind in ("auto", "png", "jpg", "webp", "zip")}
    assert [kind for _, kind in kinds.values()] == ["png", "png", "jpg", "webp", "zip"]
    assert (_pixels(kinds["jpg"][0])[0, 0] == 255).all()  # white, where nothing else was asked for
    white = put_behind(canvas, (255, 255, 255, 255), None)
    assert encode(white, "auto", "rgba")[1] == "jpg" and _pixels(encode(white, "png", "rgba")[0]).shape[2] == 3
    alpha = _pixels(encode(canvas, "auto", "alpha")[0])
    assert (alpha == canvas[..., 3]).all()
    with zipfile.ZipFile(io.BytesIO(kinds["zip"][0])) as archive:
        assert sorted(archive.namelist()) == ["alpha.png", "color.jpg"]
        assert (_pixels(archive.read("alpha.png")) == alpha).all()
        assert np.abs(_pixels(archive.read("color.jpg"))[150, 400].astype(int) - RED).max() <= 4
    assert encode(canvas, "zip", "rgba") == kinds["zip"]


@pytest.mark.parametrize(
    ("text", "colour"),
    [("f00", (255, 0, 0, 255)), ("#f008", (255, 0, 0, 136)), ("00ff0080", (0, 255, 0, 128)),
     ("white", (255, 255, 255, 255)), ("", None)],
)  # fmt: skip
def test_colours(text: str, colour: tuple[int, ...] | None) -> None:
    assert parse_colour(text) == colour


@pytest.mark.parametrize("text", ["rgb(999,0,0)", "hsl(0,0%,5000%)", "mauve-ish", "#12", "white" + " " * 40])
def test_colours_that_are_none(text: str) -> None:
    with pytest.raises(ServiceProblem, match="bg_color"):
        parse_colour(text)


def test_a_margin_cannot_make_a_canvas_of_gigabytes(cut: CutOut, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(crop=True, margins=parse_margins("50%"))
    assert lay_out(cut, layout).shape == (321, 321, 4)
    monkeypatch.setattr("boothsam.service.removebg.MAX_CANVAS_PIXELS", 100_000)
    with pytest.raises(ServiceProblem, match="321x321 pixels"):
        lay_out(cut, layout)


def test_roi_finds_the_product_inside_it(client: TestClient, photos: Path) -> None:
    for roi, left in (("0 0 50% 100%", 70), ("300px 0px 600px 400px", 320)):
        answer = _remove(client, photos / "two.jpg", FULL | {"roi": roi})
        assert abs(int(answer.headers["x-foreground-left"]) - left) <= 3
        assert abs(_box(_pixels(answer.content)[..., 3])[0] - left) <= 3


def test_a_picture_behind_and_a_shadow(client: TestClient, photos: Path) -> None:
    backdrop = encode_image(np.full((50, 50, 3), (9, 99, 9), np.uint8), "png")
    files = [
        ("image_file", ("a", (photos / "one.png").read_bytes())),
        ("bg_image_file", ("b", backdrop)),
        *((name, (None, text)) for name, text in (FULL | {"format": "png", "add_shadow": "true"}).items()),
    ]
    answer = client.post("/v1.0/removebg", files=files)
    picture = _pixels(answer.content)
    assert picture.shape == (400, 600, 3) and (picture[3, 3] == (9, 99, 9)).all()
    below = int(answer.headers["x-foreground-top"]) + int(answer.headers["x-foreground-height"]) + 4
    assert 40 < picture[below, 400, 1] < 95


def test_formats_and_channels_have_their_media_type(client: TestClient, photos: Path) -> None:
    for fields, kind in (({"format": "zip"}, "application/zip"), ({"channels": "alpha"}, "image/png")):
        assert _remove(client, photos / "one.png", fields).headers["content-type"] == kind


def test_account_charges_nothing(client: TestClient) -> None:
    attributes = client.get("/v1.0/account").json()["data"]["attributes"]
    assert attributes["credits"]["total"] == 0 and attributes["api"]["free_calls"] > 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"image_url": "http://169.254.169.254/"}, "url_not_supported"),
        ({"bg_image_url": "http://127.0.0.1/"}, "url_not_supported"),
        ({"size": "huge"}, "invalid_field"),
        ({"format": "gif"}, "invalid_field"),
        ({"roi": "1 2 3"}, "invalid_field"),
        ({"roi": "9% 9% 9% 9%"}, "invalid_field"),
        ({"roi": "a b c d"}, "invalid_field"),
        ({"crop": "yes please"}, "invalid_field"),
        ({"crop_margin": "900px"}, "invalid_field"),
        ({"scale": "5%"}, "invalid_field"),
        ({"position": "120%"}, "invalid_field"),
        ({"bg_color": "octarine"}, "invalid_field"),
        ({"channels": "red"}, "invalid_field"),
        ({"shadow_opacity": "nan"}, "invalid_field"),
        ({"image_file_b64": "AAAA"}, "invalid_field"),
    ],
)
def test_refusals_come_in_the_errors_envelope(
    client: TestClient, photos: Path, fields: dict[str, str], expected: str
) -> None:
    assert _error(_remove(client, photos / "one.png", fields), 400) == expected


def test_refusals_of_the_photo(client: TestClient, photos: Path) -> None:
    assert _error(_remove(client, None, {"size": "auto"}), 400) == "missing_image"
    assert _error(_remove(client, b"%PDF-1.7 ..."), 400) == "unsupported_media"
    assert _error(_remove(client, photos / "empty.png"), 400) == "nothing_found"
    assert _error(client.post("/v1.0/removebg", json={"image_file_b64": "*"}), 400) == "invalid_field"
    assert _error(client.post("/v1.0/removebg", json=[1]), 400) == "bad_request"
    assert _error(client.post("/v1.0/removebg", json={"image_file_b64": {"a": 1}}), 400) == "invalid_field"
    assert _error(client.get("/v1.0/nothing"), 404) == "not_found"
