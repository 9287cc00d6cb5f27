"""segment-anything's code before and after, on the tiny real SAM: the same masks. NanoSAM's after, held to them too.

The checkpoint's name is the only thing exchanged: the original's registry loads the tiny SAM under it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from boothsam.runtime.errors import PromptError
from boothsam.runtime.masks import mask_iou

from tests.migrating.diffs import Diff
from tests.migrating.scripts import run_script, working_in
from tests.models.pictures import test_picture
from tests.models.tiny_folder import export_tiny_sam
from tests.models.tiny_sam import load_tiny_sam
from tests.reference.segment_anything_reference import load_reference

SAME = 0.999  # mask IoU: two implementations of one arithmetic in float32 may differ at a few pixels of an edge
Variables = dict[str, Any]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photo.jpg, and the page's model folders: the tiny SAM under both names."""
    folder = tmp_path_factory.mktemp("migrating")
    picture = test_picture("landscape").image
    assert cv2.imwrite(str(folder / "photo.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    export_tiny_sam(folder / "models" / "vit_b")
    (folder / "models" / "vit_t").symlink_to("vit_b")
    return folder


@pytest.fixture(scope="module")
def original(workplace: Path, diffs: dict[str, Diff]) -> Variables:
    """The tutorial's variables with the original package."""
    registry = load_reference().sam_model_registry
    with working_in(workplace) as patch:
        patch.setitem(registry, "vit_b", lambda checkpoint: load_tiny_sam())
        return run_script(diffs["segment-anything"].before)


@pytest.fixture(scope="module")
def after(workplace: Path, diffs: dict[str, Diff]) -> Variables:
    """The tutorial's variables with this package."""
    with working_in(workplace):
        return run_script(diffs["segment-anything"].after)


def test_the_tutorial_gives_the_same_masks(original: Variables, after: Variables) -> None:
    assert after["scores"] == pytest.approx(original["scores"], abs=1e-3)
    for name in ("clicked", "refined", "boxed"):
        mine, theirs = after[name], original[name]
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype, name
        assert mask_iou(mine, theirs) >= SAME, name
        assert 1_000 < np.count_nonzero(mine) < 20_000, f"{name} is no object of this picture"
    assert after["each"].shape == original["each"].shape and len(after["each"]) == 2
    assert min(map(mask_iou, after["each"], original["each"])) >= SAME


def test_the_generator_gives_the_same_records(original: Variables, after: Variables) -> None:
    assert len(after["records"]) == len(original["records"]) >= 10
    for mine, theirs in zip(after["records"], original["records"], strict=True):
        assert set(mine) == set(theirs) and mine["point_coords"] == theirs["point_coords"]
        assert mask_iou(mine["segmentation"], theirs["segmentation"]) >= SAME


def test_what_the_page_says_of_the_rest(original: Variables, after: Variables) -> None:
    for name in ("device", "transform", "features", "predict_torch", "set_torch_image"):
        assert hasattr(original["predictor"], name) and not hasattr(after["predictor"], name), name
    for name in ("is_image_set", "original_size", "input_size", "get_image_embedding", "reset_image"):
        assert hasattr(original["predictor"], name) and hasattr(after["predictor"], name), name
    label, inside = np.array([1]), np.array([[381, 141]])
    refused: list[Variables] = [
        {},
        {"point_coords": np.array([[381, 4000]]), "point_labels": label},
        {"point_coords": inside, "point_labels": np.array([2])},
        {"box": np.array([900, 900, 950, 950])},
        {"box": np.array([441, 203, 322, 79])},
    ]
    for prompt in refused:
        original["predictor"].predict(**prompt)
        with pytest.raises(PromptError):
            after["predictor"].predict(**prompt)


def test_nanosam_after_is_what_the_original_answers(
    workplace: Path, diffs: dict[str, Diff], original: Variables
) -> None:
    compile(diffs["nanosam"].before, "docs/migrating.md", "exec")  # it cannot be installed: a reader's code at least
    with working_in(workplace):
        found = run_script(diffs["nanosam"].after)
    click, label = np.array([[381, 141]]), np.array([1])
    masks, _, _ = original["predictor"].predict(click, label, multimask_output=False)
    assert mask_iou(found["clicked"], masks[0]) >= SAME
    assert mask_iou(found["boxed"], original["boxed"]) >= SAME
