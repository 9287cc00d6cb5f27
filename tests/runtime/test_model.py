"""SamModel and SamPredictor over real graphs that segment by colour, so that every answer is known beforehand."""

import shutil
from pathlib import Path

import boothsam
import numpy as np
import pytest
from boothsam.runtime import verify
from boothsam.runtime.backends import DeviceTensor
from boothsam.runtime.backends.deferred import DeferredSession
from boothsam.runtime.errors import (
    BackendUnavailable,
    IntegrityError,
    ManifestError,
    OptionError,
    PromptError,
    ProofError,
    TensorError,
)
from boothsam.runtime.manifest import ModelManifest, record_files
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.model import Prompts, SamModel
from boothsam.runtime.predictor import Prediction, SamPredictor, sam_model_registry

from tests.models.color_model import build_color_model


def photo(height: int = 300, width: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red and a blue rectangle on grey, and their masks."""
    image = np.full((height, width, 3), 128, np.uint8)
    red, blue = np.zeros((2, height, width), bool)
    red[height // 6 : height // 2, width // 10 : width // 3] = True
    blue[height // 2 : height * 5 // 6, width // 2 : width * 9 // 10] = True
    image[red], image[blue] = (220, 30, 30), (30, 30, 220)
    return image, red, blue


def centre(mask: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [float(columns.mean()), float(rows.mean())]


def around(mask: np.ndarray, slack: int = 6) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [columns.min() - slack, rows.min() - slack, columns.max() + slack, rows.max() + slack]


@pytest.fixture(scope="module")
def model(color_folder: Path) -> SamModel:
    return SamModel.load(color_folder, threads=1)


@pytest.fixture
def predictor(model: SamModel) -> SamPredictor:
    return SamPredictor(model)


# The colour model sees cells of 8 frame pixels, so a rim is off by up to half a cell: 12 % of the flattest object here.
CLOSE = 0.87


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (256, 256), (60, 180)])
def test_a_click_and_a_box_find_their_object_in_every_aspect(predictor: SamPredictor, size: tuple[int, int]) -> None:
    image, red, blue = photo(*size)
    predictor.set_image(image)
    for mask in (red, blue):
        masks, scores, logits = predictor.predict(np.array([centre(mask)]), np.array([1]))
        assert masks.shape == (3, *size) and masks.dtype == bool and scores.shape == (3,)
        assert logits.shape == (3, 256, 256) and logits.dtype == np.float32
        assert mask_iou(masks[scores.argmax()], mask) > CLOSE
        masks, scores, _ = predictor.predict(box=np.array(around(mask, 3)), multimask_output=False)
        assert masks.shape == (1, *size) and mask_iou(masks[0], mask) > CLOSE


def test_many_boxes_in_one_call_answer_each_its_own(predictor: SamPredictor) -> None:
    image, red, blue = photo()
    predictor.set_image(image)
    both = predictor.predict_batch(boxes=[around(red), around(blue)], multimask_output=False)
    assert [mask_iou(p.masks[0], m) > CLOSE for p, m in zip(both, (red, blue), strict=True)] == [True, True]
    with pytest.raises(PromptError, match="predict_batch"):
        predictor.predict(box=[around(red), around(blue)])


def test_two_photos_do_not_share_memory(model: SamModel) -> None:
    image, red, _ = photo()
    a = model.encode(image)
    b = model.encode(image[::-1])
    asked = Prompts.make([centre(red)], [1])
    first = model.decode(a, asked).low_res_masks
    model.decode(b, asked)
    assert np.array_equal(model.decode(a, asked).low_res_masks, first)
    assert all(isinstance(t, DeviceTensor) for t in a.tensors.values()) and a.nbytes > 0
    a.close()
    with pytest.raises(TensorError, match="closed"):
        model.decode(a, asked)


def test_ragged_prompts_are_grouped_not_padded(model: SamModel) -> None:
    image, red, blue = photo()
    embedding = model.encode(image)
    prompts = [
        Prompts.make([centre(red)], [1]),
        Prompts.make(box_xyxy=around(blue)),
        Prompts.make([centre(red), centre(blue)], [1, 0]),
        Prompts.make([centre(blue)], [1]),
    ]
    together = model.decode_many(embedding, prompts)
    for one, many in zip(prompts, together, strict=True):
        assert np.array_equal(model.decode(embedding, one).low_res_masks, many.low_res_masks)
    with pytest.raises(OptionError, match="single prompts"):
        model.decode_many(embedding, [Prompts.make(box_xyxy=[around(red), around(blue)])])


@pytest.mark.parametrize(
    ("prompts", "labels"),
    [
        (Prompts.make([[1, 2], [3, 4]], [1, 0]), [[1, 0, -1]]),
        (Prompts.make(box_xyxy=[1, 2, 30, 40]), [[2, 3]]),
        (Prompts.make([[1, 2]], [0], [1, 2, 30, 40]), [[0, 2, 3]]),
        (Prompts.make(mask_input=np.zeros((1, 256, 256))), [[]]),
    ],
)
def test_the_padding_point_comes_with_points_and_no_box(
    model: SamModel, prompts: Prompts, labels: list[list[int]]
) -> None:
    coords, found = model._tokens(prompts, (300, 400))
    assert found.tolist() == labels and coords.shape == (1, len(labels[0]), 2)


def test_mask_input_goes_through_its_own_graph(predictor: SamPredictor) -> None:
    image, red, _ = photo()
    predictor.set_image(image)
    plain = predictor.predict([centre(red)], [1], multimask_output=False)
    again = predictor.predict([centre(red)], [1], mask_input=plain.low_res_masks, multimask_output=False)
    # The colour model adds a twentieth of mask_input.
    expected = plain.low_res_masks * 1.05
    assert np.abs(again.low_res_masks - expected).max() < 1e-5


def test_the_graph_for_mask_prompts_is_opened_when_one_is_asked_for(color_folder: Path, tmp_path: Path) -> None:
    model = SamModel.load(color_folder, backend="ort-cpu", threads=1)
    seldom = model.sessions["decoder_mask"]
    assert isinstance(seldom, DeferredSession)
    image, red, _ = photo()
    embedding = model.encode(image)
    first = model.decode(embedding, Prompts.make([centre(red)], [1]))
    assert not seldom.opened
    again = Prompts.make([centre(red)], [1], mask_input=first.low_res_masks[0, :1])
    assert model.decode(embedding, again).low_res_masks.shape == (1, 4, 256, 256)
    assert seldom.opened
    # hash-checked when the model is loaded all the same
    shutil.copytree(color_folder, tmp_path / "altered")
    file = tmp_path / "altered" / model.manifest.graphs["fp32"]["decoder_mask"]
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match="truncated, altered"):
        SamModel.load(tmp_path / "altered", backend="ort-cpu")


def test_return_logits(predictor: SamPredictor) -> None:
    image, red, _ = photo()
    predictor.set_image(image)
    hard, soft = (predictor.predict([centre(red)], [1], return_logits=flag) for flag in (False, True))
    assert soft.masks.dtype == np.float32 and np.array_equal(soft.masks > 0, hard.masks)


def test_bgr_is_taken_for_code_written_for_opencv(predictor: SamPredictor) -> None:
    image, red, _ = photo()
    predictor.set_image(image)
    rgb = predictor.predict([centre(red)], [1]).low_res_masks
    predictor.set_image(image[..., ::-1], image_format="BGR")
    assert np.array_equal(predictor.predict([centre(red)], [1]).low_res_masks, rgb)
    with pytest.raises(OptionError, match="'RGB' or 'BGR'"):
        predictor.set_image(image, image_format="HSV")


def test_a_tutorial_runs_with_its_imports_changed(color_folder: Path) -> None:
    """The calls of segment_anything's predictor example notebook, on a model folder."""
    sam = sam_model_registry["vit_h"](checkpoint=color_folder)
    sam.to(device="cpu")
    predictor = SamPredictor(sam)
    image, red, blue = photo()
    predictor.set_image(image)

    input_point = np.array([centre(red)])
    input_label = np.array([1])
    masks, scores, logits = predictor.predict(point_coords=input_point, point_labels=input_label, multimask_output=True)
    assert masks.shape == (3, *image.shape[:2])

    input_point = np.array([centre(red), centre(blue)])
    input_label = np.array([1, 0])
    mask_input = logits[np.argmax(scores), :, :]
    masks, _, _ = predictor.predict(
        point_coords=input_point, point_labels=input_label, mask_input=mask_input[None, :, :], multimask_output=False
    )
    assert masks.shape == (1, *image.shape[:2]) and mask_iou(masks[0], red) > CLOSE

    input_box = np.array(around(blue))
    masks, _, _ = predictor.predict(
        point_coords=None, point_labels=None, box=input_box[None, :], multimask_output=False
    )
    assert mask_iou(masks[0], blue) > CLOSE


def test_ambiguous_lists_the_close_candidates_best_first() -> None:
    empty = np.zeros((3, 1, 1), bool)
    prediction = Prediction(empty, np.array([0.70, 0.91, 0.85], np.float32), np.zeros((3, 256, 256), np.float32))
    assert prediction.best == 1
    assert (
        prediction.ambiguous() == [1, 2]
        and prediction.ambiguous(0.01) == [1]
        and prediction.ambiguous(0.5) == [1, 2, 0]
    )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "no prompt"),
        ({"point_coords": [[1, 2]]}, "only point_coords was given"),
        ({"point_labels": [1]}, "only point_labels was given"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, "1 points but 2 labels"),
        ({"point_coords": [[1, 2]], "point_labels": [3]}, r"found \[3\]"),
        ({"point_coords": [], "point_labels": []}, "shape"),
        ({"point_coords": [["a", 2]], "point_labels": [1]}, "no array of numbers"),
        ({"point_coords": [[np.nan, 2]], "point_labels": [1]}, "finite"),
        ({"point_coords": [[401, 2]], "point_labels": [1]}, "outside the photo of 400x300"),
        ({"box": [1, 2, 3]}, "shape"),
        ({"box": [30, 2, 3, 40]}, "empty or reversed"),
        ({"box": [900, 900, 950, 950]}, "outside the photo of 400x300"),
        ({"mask_input": np.zeros((300, 400))}, "mask_input has shape"),
        ({"mask_input": np.full((1, 256, 256), np.nan)}, "not finite"),
    ],
)
def test_bad_prompts(predictor: SamPredictor, prompt: dict[str, object], message: str) -> None:
    predictor.set_image(photo()[0])
    with pytest.raises(PromptError, match=message):
        predictor.predict(**prompt)  # type: ignore[arg-type]


def test_predicting_before_set_image_and_after_reset(predictor: SamPredictor) -> None:
    with pytest.raises(PromptError, match="no image is set"):
        predictor.predict(box=[0, 0, 1, 1])
    predictor.set_image(photo()[0])
    assert predictor.is_image_set and predictor.original_size == (300, 400) and predictor.input_size == (768, 1024)
    assert predictor.get_image_embedding().shape[0] == 1
    predictor.reset_image()
    assert not predictor.is_image_set


def test_a_bad_photo_keeps_the_one_before(predictor: SamPredictor) -> None:
    predictor.set_image(photo()[0])
    with pytest.raises(boothsam.runtime.errors.ImageError):
        predictor.set_image(np.zeros((3, 3), np.uint8))
    assert predictor.original_size == (300, 400)


def test_another_models_embedding_is_refused(model: SamModel, tmp_path: Path) -> None:
    other = build_color_model(tmp_path / "other")
    (other / "extra.onnx").write_bytes((other / "encoder.onnx").read_bytes() + b"")
    manifest = ModelManifest.load(other)
    graphs = {"fp32": {**manifest.graphs["fp32"], "encoder": "extra.onnx"}}
    ModelManifest("other", "color", "Apache-2.0", graphs, manifest.embedding, record_files(other)).save(other)
    embedding = SamModel.load(other, threads=1).encode(photo()[0])
    with pytest.raises(TensorError, match="made by the model"):
        model.decode(embedding, Prompts.make(box_xyxy=[0, 0, 9, 9]))


def test_loading_what_is_wrong(color_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no precision 'fp16'; it has fp32"):
        SamModel.load(color_folder, precision="fp16")
    with pytest.raises(OptionError, match="unknown backend 'gpu'"):
        SamModel.load(color_folder, backend="gpu")
    tampered = build_color_model(tmp_path / "tampered")
    (tampered / "decoder.onnx").write_bytes((tampered / "decoder.onnx").read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="truncated, altered"):
        SamModel.load(tampered)


def test_no_backend_at_all(color_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boothsam.runtime.backends.find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"boothsam\[cpu\]"):
        SamModel.load(color_folder)
    with pytest.raises(BackendUnavailable, match="onnxruntime is not installed"):
        SamModel.load(color_folder, backend="ort-cpu")


def test_to_confirms_and_never_moves(model: SamModel) -> None:
    if model.backend == "ort-cpu":
        assert model.to("cpu") is model
        with pytest.raises(BackendUnavailable, match="loaded for 'cpu'"):
            model.to(device="cuda:0")


def test_the_choice_of_backend_has_a_reason(model: SamModel) -> None:
    assert model.backend in ("ort-cpu", "ort-cuda") and "automatic order" in model.reason


def golden(folder: Path) -> Path:
    """Record golden answers into a colour model folder."""
    photos = {"two": photo()[0]}
    verify.write_golden(SamModel.load(folder, threads=1), folder, photos, verify.default_cases(photos))
    old = ModelManifest.load(folder)
    ModelManifest(old.name, old.variant, old.licence, old.graphs, old.embedding, record_files(folder)).save(folder)
    return folder


def test_golden_answers_hold_and_a_changed_model_fails_them(tmp_path: Path) -> None:
    folder = golden(build_color_model(tmp_path / "model"))
    report = verify.verify_golden(SamModel.load(folder, threads=1), folder)
    assert report.passed and len(report.cases) == 4 and report.numerics == "device"
    report.require()
    assert min(case.mask_iou_min for case in report.cases) == 1.0

    encoder = (folder / "encoder.onnx").read_bytes()
    changed = encoder.replace(np.float32(123.675).tobytes(), np.float32(60).tobytes())
    changed = changed.replace(np.float32(58.395).tobytes(), np.float32(20).tobytes())
    assert changed != encoder
    (folder / "encoder.onnx").write_bytes(changed)
    old = ModelManifest.load(folder)
    ModelManifest(old.name, old.variant, old.licence, old.graphs, old.embedding, record_files(folder)).save(folder)
    report = verify.verify_golden(SamModel.load(folder, threads=1), folder)
    assert not report.passed
    with pytest.raises(ProofError, match="disagrees with its golden answers"):
        report.require()


def test_a_rim_pixel_of_a_tiny_mask_is_forgiven_and_a_tenth_of_a_mask_is_not() -> None:
    logits = np.full((1, 4, 64, 64), -1.0, np.float32)
    logits[..., :5, :5] = 1
    scores = np.ones((1, 4), np.float32)
    other = logits.copy()
    other[0, 0, 0, 5] = 1
    close = verify.agree("close", verify.Decoded(other, scores), verify.Decoded(logits, scores))
    assert close.mask_iou_min == pytest.approx(25 / 26) and close.disagreeing == 0 and close.passed
    other[0, 1, :5, 5] = 1
    far = verify.agree("far", verify.Decoded(other, scores), verify.Decoded(logits, scores))
    assert far.disagreeing == 1 and not far.passed
    assert not verify.agree("score", verify.Decoded(logits, scores - 0.01), verify.Decoded(logits, scores)).passed


def test_golden_answers_that_are_missing_or_altered(tmp_path: Path, model: SamModel, color_folder: Path) -> None:
    with pytest.raises(ManifestError, match="lists no golden/"):
        verify.verify_golden(model, color_folder)
    folder = golden(build_color_model(tmp_path / "model"))
    (folder / "golden" / "two.png").write_bytes(b"")
    with pytest.raises(IntegrityError):
        verify.verify_golden(SamModel.load(folder, threads=1), folder)


def test_compare_judges_a_model_by_another(model: SamModel, tmp_path: Path) -> None:
    photos = {"two": photo()[0]}
    report = verify.compare(model, model, photos, verify.default_cases(photos))
    assert report.passed and all(case.boundary_iou_mean == 1.0 for case in report.cases)
    assert report.to_dict()["passed"] is True
