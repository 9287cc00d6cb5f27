"""The model that Triton's clients ask, run for real in a stand-in for the server: its masks are SamPredictor's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from boothsam.engines.triton import INPUTS, OUTPUTS, Settings, export_repository
from boothsam.runtime.errors import ManifestError, OptionError
from boothsam.runtime.images import encode_image, load_image
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.predictor import Prediction, SamPredictor
from boothsam.runtime.store import starter_folder
from boothsam.service import triton_model
from boothsam.service.embeddings import embedding_id

from tests.engines.triton_asking import PROMPTS, boxes, click, colours, png, servers, unpacked
from tests.engines.triton_stand_in import Array, Refused, Server, TritonError
from tests.models.pictures import test_picture as draw

WAIT_S = 60
# Logits may differ by the order of sums where ONNX Runtime splits work otherwise; masks here never did.
LOGIT_ERROR = 1e-4
Ask = Callable[..., dict[str, Array]]


@pytest.fixture(scope="module")
def picture() -> Array:
    """A drawn picture whose width is no multiple of eight, higher than wide."""
    return np.ascontiguousarray(draw("portrait").image[:, :475])


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The tiny SAM, which has a `prepare` graph."""
    out = tmp_path_factory.mktemp("triton") / "repository"
    made = export_repository(tiny, out, name="sam", device="cpu")
    assert made.models == ("sam", "sam_encoder", "sam_prepare", "sam_decoder", "sam_decoder_mask")
    found = Server(out)
    yield found
    found.close()


@pytest.fixture(scope="module")
def predictor(tiny: Path, picture: Array) -> SamPredictor:
    found = SamPredictor.load(tiny, backend="ort-cpu", threads=1)
    found.set_image(picture)
    return found


@pytest.fixture
def start(color_folder: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    yield from servers(color_folder, tmp_path)


def agree(answer: Mapping[str, Array], expected: list[Prediction]) -> None:
    masks = unpacked(answer)
    assert masks.shape == (len(expected), *expected[0].masks.shape)
    for row, one in enumerate(expected):
        assert [mask_iou(a, b) for a, b in zip(masks[row], one.masks, strict=True)] == [1.0] * len(one.masks)
        assert any(mask.any() for mask in one.masks)
        np.testing.assert_allclose(answer["low_res_masks"][row], one.low_res_masks, atol=LOGIT_ERROR)
        np.testing.assert_allclose(answer["iou_predictions"][row], one.iou_predictions, atol=LOGIT_ERROR)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", PROMPTS)
def test_masks_are_those_of_the_predictor(
    server: Server, predictor: SamPredictor, picture: Array, kind: str, multimask: bool
) -> None:
    prompt = PROMPTS[kind]
    extra = {} if multimask else {"multimask_output": np.array([False])}  # True when left out
    answer = server.infer("sam", {"image": png(picture), **prompt, **extra})
    expected = predictor.predict_batch(
        prompt.get("point_coords"), prompt.get("point_labels"), prompt.get("box"), multimask_output=multimask
    )
    agree(answer, expected)
    assert answer["original_hw"].tolist() == list(picture.shape[:2])


@pytest.mark.parametrize("more", [{}, click(240, 300)], ids=["alone", "with a click"])
def test_a_mask_prompt_is_that_of_the_predictor(
    server: Server, predictor: SamPredictor, picture: Array, more: dict[str, Array]
) -> None:
    earlier = predictor.predict(np.array([[240, 300]]), np.array([1]))
    mask = earlier.low_res_masks[earlier.best][None]
    answer = server.infer("sam", {"image": png(picture), "mask_input": mask[None], **more})
    expected = predictor.predict(
        more["point_coords"][0] if more else None, more["point_labels"][0] if more else None, mask_input=mask
    )
    agree(answer, [expected])


def test_a_known_photo_is_encoded_once(server: Server, predictor: SamPredictor, picture: Array) -> None:
    shown = np.ascontiguousarray(picture[:, ::-1])
    other = SamPredictor(predictor.model)
    other.set_image(shown)
    before = server.calls.copy()
    first = server.infer("sam", {"image": png(shown)}, ["embedding_id"])
    assert first.keys() == {"embedding_id"}  # what is not asked for is not computed, and needs no prompt
    key = first["embedding_id"][0]
    for source in ({"embedding_id": np.array([key], np.object_)}, {"image": png(shown)}):
        answer = server.infer("sam", {**source, **boxes((100, 100, 300, 300))})
        assert answer["embedding_id"][0] == key
        agree(answer, other.predict_batch(boxes=[[100, 100, 300, 300]]))
    ran = {name: count - before[name] for name, count in server.calls.items() if count != before[name]}
    assert ran == {"sam": 3, "sam_encoder": 1, "sam_prepare": 1, "sam_decoder": 2}


def test_an_id_is_the_services_and_pixels_have_their_own(server: Server, tiny: Path, picture: Array) -> None:
    data = png(picture)
    sent = server.infer("sam", {"image": data}, ["embedding_id"])["embedding_id"][0].decode()
    assert sent == embedding_id(hashlib.sha256(data[0]).hexdigest(), ModelManifest.load(tiny).key, "fp32")
    pixels = server.infer("sam", {"image_rgb": picture}, ["embedding_id"])["embedding_id"][0].decode()
    turned = server.infer("sam", {"image_rgb": picture.reshape(475, 640, 3)}, ["embedding_id"])["embedding_id"][0]
    assert len({sent, pixels, turned.decode()}) == 3


def test_pixels_and_a_jpeg_are_taken_too(server: Server, predictor: SamPredictor, picture: Array) -> None:
    agree(
        server.infer("sam", {"image_rgb": picture, **PROMPTS["box"]}),
        predictor.predict_batch(boxes=PROMPTS["box"]["box"]),
    )
    data = encode_image(picture, "jpg")
    other = SamPredictor(predictor.model)
    other.set_image(load_image(data))
    answer = server.infer("sam", {"image": np.array([data], np.object_), **PROMPTS["box"]})
    agree(answer, other.predict_batch(boxes=PROMPTS["box"]["box"]))


def test_the_starter_model_with_its_six_maps_answers(tmp_path: Path, picture: Array) -> None:
    export_repository(starter_folder(), tmp_path / "starter", device="cpu")
    server = Server(tmp_path / "starter")
    predictor = SamPredictor.load(backend="ort-cpu", threads=1)
    predictor.set_image(picture)
    agree(
        server.infer("starter", {"image_rgb": picture, **PROMPTS["box"]}),
        predictor.predict_batch(boxes=PROMPTS["box"]["box"]),
    )
    server.close()


def test_configuration_and_code_name_the_same() -> None:
    assert [f.name for f in fields(triton_model.Limits)] == [f.name for f in fields(Settings)]
    assert [t.name for t in OUTPUTS] == list(triton_model.OUTPUTS)
    assert set(triton_model.SOURCES) < {t.name for t in INPUTS}


BAD: dict[str, tuple[dict[str, Array], str]] = {
    "no photo": ({**click(1, 1)}, "no photo"),
    "two photos": (
        {"image": png(colours(1, 2, 3)), "image_rgb": colours(1, 2, 3), **click(1, 1)},
        "image and image_rgb",
    ),
    "no prompt": ({"image_rgb": colours(1, 2, 3)}, "no prompt"),
    "points alone": ({"image_rgb": colours(1, 2, 3), "point_coords": np.zeros((1, 1, 2), np.float32)}, "point_labels"),
    "another number of labels": (
        {"image_rgb": colours(1, 2, 3), **click(1, 1), "point_labels": np.ones((1, 2), np.int32)},
        "labels",
    ),
    "a label of 7": ({"image_rgb": colours(1, 2, 3), **click(1, 1, 7)}, "found [7]"),
    "outside": ({"image_rgb": colours(1, 2, 3), **click(91, 1)}, "lies outside"),
    "not finite": ({"image_rgb": colours(1, 2, 3), **click(np.nan, 1)}, "finite"),
    "a reversed box": ({"image_rgb": colours(1, 2, 3), **boxes((50, 50, 10, 10))}, "reversed"),
    "no box at all": ({"image_rgb": colours(1, 2, 3), "box": np.zeros((0, 4), np.float32)}, "zero"),
    "no image": ({"image": np.array([b"GIF89a, so to say"], np.object_), **click(1, 1)}, "GIF"),
    "nothing": ({"image": np.array([b""], np.object_), **click(1, 1)}, "empty"),
    "half a photo": ({"image": np.array([png(colours(1, 2, 3))[0][:150]], np.object_), **click(1, 1)}, "PNG"),
    "an empty array": ({"image_rgb": np.zeros((0, 5, 3), np.uint8), **click(1, 1)}, "empty"),
    "NaN in a mask": (
        {"image_rgb": colours(1, 2, 3), "mask_input": np.full((1, 1, 256, 256), np.nan, np.float32)},
        "finite",
    ),
    "too many prompts": ({"image_rgb": colours(1, 2, 3), **boxes(*[(1, 1, 9, 9)] * 65)}, "at most 64"),
    "too many points": (
        {
            "image_rgb": colours(1, 2, 3),
            "point_coords": np.ones((1, 32, 2), np.float32),
            "point_labels": np.ones((1, 32), np.int32),
        },
        "at most 64 of 32",
    ),
    "a box and too many points": (
        {
            "image_rgb": colours(1, 2, 3),
            "point_coords": np.ones((1, 31, 2), np.float32),
            "point_labels": np.ones((1, 31), np.int32),
            **boxes((1, 1, 9, 9)),
        },
        "1 prompts of 33 points",
    ),
}


@pytest.fixture(scope="module")
def color(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    out = tmp_path_factory.mktemp("triton") / "color"
    export_repository(color_folder, out, device="cpu")
    server = Server(out)
    yield server
    server.close()


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_an_error_and_harms_nobody(color: Server, case: str) -> None:
    inputs, words = BAD[case]
    with pytest.raises(Refused) as found:
        color.infer("color", inputs)
    assert found.value.code == TritonError.INVALID_ARG and words in found.value.message
    assert unpacked(color.infer("color", {"image_rgb": colours(200, 30, 30), **click(45, 30)})).any()


def test_what_triton_itself_refuses_never_reaches_the_model(color: Server) -> None:
    before = color.calls.copy()
    for wrong in (
        {"image_rgb": colours(1, 2, 3).astype(np.float32)},
        {"image_rgb": colours(1, 2, 3)[..., :1]},
        {"box": np.zeros(4, np.float32)},
        {"nonsense": np.zeros(4, np.float32)},
    ):
        with pytest.raises(Refused):
            color.infer("color", wrong)
    with pytest.raises(Refused, match="unexpected inference output"):
        color.infer("color", {"image_rgb": colours(1, 2, 3)}, ["nonsense"])
    assert color.calls == before


def test_an_unknown_id_says_what_to_do(color: Server) -> None:
    for key in (b"0" * 64, b"", "Ä".encode()):
        with pytest.raises(Refused, match="send the photo again") as found:
            color.infer("color", {"embedding_id": np.array([key], np.object_), **click(1, 1)})
        assert found.value.code == TritonError.NOT_FOUND


def test_a_large_photo_is_refused_before_it_is_decoded(start: Callable[..., Server]) -> None:
    server = start(max_pixels=5000)
    for source in ({"image": png(colours(1, 2, 3))}, {"image_rgb": colours(1, 2, 3)}):
        with pytest.raises(Refused, match="pixels") as found:
            server.infer("color", {**source, **click(1, 1)})
        assert found.value.code == TritonError.INVALID_ARG
    assert "color_encoder" not in server.calls


def test_an_answer_that_shared_memory_could_not_hold_is_refused(color: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    one = 60 * 12  # bytes of a mask of 90x60 pixels
    monkeypatch.setattr(triton_model, "MOST_MASK_BYTES", 3 * one)
    asked = {"image_rgb": colours(200, 30, 30), **boxes((20, 10, 70, 50), (30, 20, 60, 40))}
    with pytest.raises(Refused, match="6 masks of 90x60 pixels") as found:
        color.infer("color", asked)
    assert found.value.code == TritonError.INVALID_ARG
    assert color.infer("color", {**asked, "multimask_output": np.array([False])})["masks"].shape == (2, 1, 60, 12)
    assert color.infer("color", asked, ["low_res_masks"])["low_res_masks"].shape == (2, 3, 256, 256)


@pytest.mark.parametrize("threads", [0, 3])
def test_a_server_that_fails_is_told_and_logged(start: Callable[..., Server], threads: int) -> None:
    server = start(threads=threads)
    taken = server.configs.pop("color_decoder")
    with pytest.raises(Refused, match="could not run 'color_decoder': unknown model") as found:
        server.infer("color", {"image_rgb": colours(1, 2, 3), **click(45, 30)})
    assert found.value.code == TritonError.INTERNAL and "color_decoder" in server.log[0]
    server.configs["color_decoder"] = taken

    def broken() -> None:
        raise RuntimeError("shared memory is full")

    server.before["color_encoder"] = broken
    with pytest.raises(Refused, match="unexpected RuntimeError: shared memory is full") as found:
        server.infer("color", {"image_rgb": colours(4, 5, 6), **click(45, 30)})
    assert found.value.code == TritonError.INTERNAL
    del server.before["color_encoder"]
    assert server.infer("color", {"image_rgb": colours(4, 5, 6), **click(45, 30)})["iou_predictions"].shape == (1, 3)


def test_a_wrong_parameter_or_another_format_stops_the_load(color_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    export_repository(color_folder, out, device="cpu")
    config, facts = out / "color" / "config.pbtxt", out / "color" / "1" / "boothsam.json"
    good = config.read_text()
    config.write_text(good.replace('"32"', '"many"'))
    with pytest.raises(OptionError, match=r"the parameter max_points in .* is 'many'"):
        Server(out)
    config.write_text(good)
    body = json.loads(facts.read_text())
    for wrong, words in (({**body, "format": 2}, "has format 2"), ({"format": 1}, "cannot be read")):
        facts.write_text(json.dumps(wrong))
        with pytest.raises(ManifestError, match=words):
            Server(out)
