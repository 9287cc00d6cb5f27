"""Our modules against the original authors' code: names and shapes, golden answers, and module against module."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from boothsam.export.architectures.config import CONFIGS, SamConfig, infer_config, resolve_config
from boothsam.export.architectures.sam import Sam, build
from boothsam.export.checkpoints import load_checkpoint
from boothsam.export.torch_session import torch_model
from boothsam.runtime.errors import CheckpointError, OptionError
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.model import Prompts
from boothsam.runtime.transforms import upscale_logits

from tests.export.deterministic import GOLDEN, PROMPTS, SIZES, checkpoint_shapes, fill, photo, prompts
from tests.models.pictures import test_picture
from tests.models.tiny_sam import CHECKPOINT, CONFIG, load_tiny_sam
from tests.reference.segment_anything_reference import load_reference

# FP32 sums in another order: measured 8e-6 on embeddings and 1.5e-5 on logits, both of standard deviation 1 to 2.
EMBEDDING_ERROR = 1e-4
LOGIT_ERROR = 1e-4
SCORE_ERROR = 1e-5
MASK_IOU = 0.9999


@pytest.mark.parametrize("variant", CONFIGS)
def test_state_dict_is_the_official_one(variant: str) -> None:
    with torch.device("meta"):
        sam = build(variant)
    expected = checkpoint_shapes(variant)
    assert {name: tuple(value.shape) for name, value in sam.state_dict().items()} == expected
    assert infer_config(expected) == CONFIGS[variant]


def compare_with_golden(sam: Sam, variant: str, size_hw: tuple[int, int]) -> None:
    """Every prompt of one golden photo."""
    golden = np.load(GOLDEN / f"{variant}.npz")
    model = torch_model(sam, variant)
    h, w = size_hw
    embedding = model.encode(photo(h, w))
    found = embedding.tensors["image_embedding"].numpy()[:, ::8, ::4, ::4]
    expected = golden[f"{h}x{w}/image_embedding[::8,::4,::4]"]
    assert np.abs(found.reshape(expected.shape) - expected).max() <= EMBEDDING_ERROR
    asked = {name: prompts(name, h, w) for name in PROMPTS}
    first = model.decode(embedding, asked["click"]).low_res_masks[:, 1:2]
    click = asked["click"]
    asked["refine_with_mask_input"] = Prompts.make(click.point_coords, click.point_labels, mask_input=first)
    for name, prompt in asked.items():
        multimask = name not in ("click_single", "refine_with_mask_input")
        logits, scores = (a[0] for a in model.decode(embedding, prompt).select(multimask))
        key = f"{h}x{w}/{name}"
        assert np.abs(logits[:, ::4, ::4] - golden[f"{key}/low_res_masks[:,::4,::4]"]).max() <= LOGIT_ERROR, name
        assert np.abs(scores - golden[f"{key}/iou_predictions"]).max() <= SCORE_ERROR, name
        if f"{key}/masks_packed" in golden:
            masks = np.stack([upscale_logits(low, size_hw) > 0 for low in logits])
            wanted = np.unpackbits(golden[f"{key}/masks_packed"])[: masks.size].reshape(masks.shape) > 0
            ious = [mask_iou(a, b) for a, b in zip(masks, wanted, strict=True)]
            assert min(ious) >= MASK_IOU, (name, ious)


def filled(variant: str) -> Sam:
    sam = build(variant)
    fill(sam)
    return sam


def test_mobile_sam_answers_as_its_authors_code() -> None:
    compare_with_golden(filled("vit_t"), "vit_t", SIZES[0])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["vit_t", "vit_b"])
def test_every_golden_photo(variant: str) -> None:
    sam = filled(variant)
    for size_hw in SIZES:
        compare_with_golden(sam, variant, size_hw)


def pictures() -> dict[str, npt.NDArray[np.uint8]]:
    """Landscape, portrait, square and tiny photos."""
    drawn = {name: test_picture(name).image for name in ("landscape", "portrait", "square")}
    return drawn | {"tiny": test_picture("square").image[200:248, 200:264].copy()}


def compare_with_package(ours: Sam, theirs: Any, image: npt.NDArray[np.uint8]) -> None:
    """One state dict in both: segment_anything's own predictor against our module in the runtime."""
    predictor = load_reference().SamPredictor(theirs)
    predictor.set_image(image)
    model = torch_model(ours, "ours")
    embedding = model.encode(image)
    found = embedding.tensors["image_embedding"].numpy()
    assert np.abs(found - predictor.get_image_embedding().numpy()).max() <= EMBEDDING_ERROR
    h, w = image.shape[:2]
    for name in PROMPTS:
        prompt = prompts(name, h, w)
        multimask = name != "click_single"
        given = {
            "point_coords": None if prompt.point_coords is None else prompt.point_coords[0],
            "point_labels": None if prompt.point_labels is None else prompt.point_labels[0],
            "box": None if prompt.box_xyxy is None else prompt.box_xyxy[0],
        }
        masks, scores, _ = predictor.predict(**given, multimask_output=multimask)
        low, found_scores = (a[0] for a in model.decode(embedding, prompt).select(multimask))
        assert np.abs(scores - found_scores).max() <= 1e-4, name
        ious = [mask_iou(upscale_logits(a, (h, w)) > 0, b) for a, b in zip(low, masks, strict=True)]
        assert min(ious) >= MASK_IOU, (name, ious)


@pytest.mark.parametrize("name", ["landscape", "portrait", "square", "tiny"])
def test_tiny_sam_answers_as_segment_anything(name: str) -> None:
    compare_with_package(load_checkpoint(CHECKPOINT, str(CONFIG)).sam, load_tiny_sam(), pictures()[name])


@pytest.mark.slow
def test_vit_b_answers_as_segment_anything() -> None:
    theirs = load_reference().sam_model_registry["vit_b"]()
    fill(theirs)
    ours = build("vit_b")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for image in pictures().values():
        compare_with_package(ours, theirs, image)


def test_configurations_travel_as_json(tmp_path: Path) -> None:
    for config in CONFIGS.values():
        path = tmp_path / f"{config.variant}.json"
        path.write_text(json.dumps(config.to_dict()))
        assert resolve_config(str(path)) == config
    tiny = resolve_config(str(CONFIG))
    shapes = {name: tuple(value.shape) for name, value in build(tiny).state_dict().items()}
    inferred = infer_config(shapes, decoder_num_heads=tiny.decoder_num_heads)
    assert dataclasses.replace(inferred, variant=tiny.variant) == tiny


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("vit_x", "unknown variant 'vit_x', expected one of vit_t, vit_b, vit_l, vit_h"),
        ("nowhere.json", r"nowhere\.json cannot be read"),
    ],
)
def test_unknown_variants_are_refused(variant: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolve_config(variant)


def test_ill_formed_configurations_are_refused() -> None:
    with pytest.raises(OptionError, match="no SAM configuration"):
        SamConfig.from_dict({"variant": "x", "encoder": {"depth": 2}})
    with pytest.raises(OptionError, match="'heads'"):
        SamConfig.from_dict({**CONFIGS["vit_b"].to_dict(), "heads": 3})
    with pytest.raises(CheckpointError, match="not those of a SAM"):
        infer_config({"conv1.weight": (64, 3, 7, 7)})
