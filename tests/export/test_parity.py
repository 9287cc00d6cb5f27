"""The parity check sees agreement where it is and disagreement where it is."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from boothsam.export.parity import CaseParity, ParityReport, Tolerance, check_parity, drawn_photos, questions
from boothsam.export.torch_session import DEVICE, torch_model
from boothsam.runtime.errors import ParityError, TensorError
from boothsam.runtime.model import Prompts

from tests.export.conftest import Exported
from tests.models.pictures import test_picture

PHOTO = {"landscape": drawn_photos()["landscape"]}


def test_the_export_of_a_trained_sam_agrees(tiny: Exported) -> None:
    report = check_parity(tiny.sam, tiny.model, PHOTO)
    assert report.passed, report.failures
    report.require()
    assert len(report.cases) == len(questions(PHOTO["landscape"])) + 2
    assert "mask IoU at least" in report.summary() and report.to_dict()["passed"] is True
    assert max(case.mask_share for case in report.cases) > 0.01


@pytest.mark.slow
def test_it_agrees_on_all_shapes_of_photo(tiny: Exported) -> None:
    check_parity(tiny.sam, tiny.model).require()


def test_one_altered_weight_is_found(tiny: Exported) -> None:
    other = copy.deepcopy(tiny.sam)
    with torch.no_grad():
        other.mask_decoder.transformer.norm_final_attn.bias.add_(0.01)
    with pytest.raises(
        ParityError, match=r"does not answer what its checkpoint answers: .*logit error .* \(at most 0\.001\)"
    ):
        check_parity(other, tiny.model, PHOTO).require()


def test_an_altered_encoder_is_found(tiny: Exported) -> None:
    other = copy.deepcopy(tiny.sam)
    with torch.no_grad():
        other.image_encoder.neck[3].bias.add_(0.01)
    failures = check_parity(other, tiny.model, PHOTO).failures
    assert any("embedding error" in failure for failure in failures)


def report(**changes: float) -> ParityReport:
    case = CaseParity("a/click", logits=1e-6, scores=1e-7, mask_iou=1.0, flips=0, mask_share=0.2)
    return ParityReport("m", "ort-cpu", Tolerance(), {"a": 1e-6}, (dataclasses.replace(case, **changes),))


@pytest.mark.parametrize("figure", ["logits", "scores"])
def test_figures_that_are_no_numbers_fail(figure: str) -> None:
    assert report().passed
    assert not report(**{figure: float("nan")}).passed


def test_a_flipped_pixel_in_a_small_mask_passes_and_a_moved_mask_does_not() -> None:
    assert report(mask_iou=0.98, flips=1).passed
    assert report(mask_iou=0.9995, flips=20).passed
    assert report(mask_iou=0.98, flips=20).failures == (
        "a/click: mask IoU 0.98000 (at least 0.999), 20 pixels flipped",
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_agreement_on_nothing_is_no_proof(share: float) -> None:
    with pytest.raises(ParityError, match=r"no mask that proves anything"):
        report(mask_share=share).require()
    empty = ParityReport("m", "ort-cpu", Tolerance(), {}, ())
    assert not empty.passed and "on nothing" in empty.summary()


def test_torch_tensors_own_their_memory_and_stay_with_torch(tiny: Exported) -> None:
    reference = torch_model(tiny.sam, "tiny")
    image = test_picture("square").image
    embedding = reference.encode(image)
    tensor = embedding.tensors["image_embedding"]
    assert (tensor.device, tensor.shape, tensor.dtype, tensor.nbytes) == (DEVICE, (1, 64, 64, 64), np.float32, 1 << 20)
    copied = tensor.numpy()
    embedding.close()
    assert copied.any()
    with pytest.raises(TensorError, match="closed"):
        reference.decode(embedding, Prompts.make([[5, 5]], [1]))
    with pytest.raises(TensorError):
        tiny.model.decode(reference.encode(image), Prompts.make([[5, 5]], [1]))
