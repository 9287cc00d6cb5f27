"""Comparing two models' masks on photos: the figures, the gates, and the picture of the worst cases."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.errors import OptionError, ProofError
from boothsam.runtime.fidelity import KINDS, Fidelity, Gate, measure, numerics_of, questions
from boothsam.runtime.images import save_image
from boothsam.runtime.masks import boundary_iou, mask_iou
from boothsam.runtime.model import SamModel
from boothsam.runtime.photos import photo_folder
from boothsam.runtime.transforms import Uint8Array, upscale_mask
from boothsam.runtime.worst_cases import GAINED, LOST, PANEL, worst_cases

from tests.models.color_model import build_color_model


class Altered:
    """A real session whose answers are changed on the way out: a model that is wrong by a known amount."""

    def __init__(self, session: Any, change: Any) -> None:
        self._session, self._change = session, change
        self.inputs, self.outputs, self.device = session.inputs, session.outputs, session.device

    def run(self, feeds: Mapping[str, Any], keep: Any = ()) -> dict[str, Any]:
        found: dict[str, Any] = self._change(self._session.run(feeds, keep))
        return found

    def close(self) -> None:
        self._session.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SamModel:
    return SamModel.load(build_color_model(tmp_path_factory.mktemp("color") / "color"), backend="ort-cpu", threads=1)


@pytest.fixture(scope="module")
def photos() -> dict[str, Uint8Array]:
    """A red block in the middle of each, so that every prompt has an answer."""
    found = {}
    for name, (height, width) in {"wide": (300, 400), "tall": (500, 350)}.items():
        photo = np.full((height, width, 3), 220, np.uint8)
        photo[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = (180, 40, 40)
        found[name] = photo
    return found


def altered(model: SamModel, change: Any, precision: str = "fp16") -> SamModel:
    sessions = {
        name: Altered(session, change) if name.startswith("decoder") else session
        for name, session in model.sessions.items()
    }
    return SamModel(model.manifest, sessions, backend="simulated", precision=precision, reason="altered")


def eroded(found: dict[str, Any]) -> dict[str, Any]:
    """Masks smaller by two low-resolution pixels on their left, scores lower by 0.1."""
    shifted = found["low_res_masks"].copy()
    shifted[..., 2:] = np.minimum(shifted[..., 2:], found["low_res_masks"][..., :-2])
    return {"low_res_masks": shifted, "iou_predictions": found["iou_predictions"] - np.float32(0.1)}


def against(model: SamModel, other: SamModel, photos: Mapping[str, Uint8Array], **options: Any) -> Fidelity:
    return measure(other, model, photos, **{"against": "fp32 (ort-cpu)", "numerics": "simulated", **options})


def test_a_model_agrees_with_itself(model: SamModel, photos: dict[str, Uint8Array]) -> None:
    report = against(model, model, photos, numerics="device")
    assert report.passed and report.summary.mask_iou_min == 1.0 and report.summary.score_error_max == 0.0
    assert [(r.photo, r.kind) for r in report.rows] == [(p, k) for p in photos for k in KINDS]
    assert all(0.05 < r.mask_share < 0.9 for r in report.rows)
    report.require()


def test_the_figures_are_those_of_the_masks(model: SamModel, photos: dict[str, Uint8Array]) -> None:
    report = against(model, altered(model, eroded), photos)
    photo = photos["wide"]
    embedding = model.encode(photo)
    expected = model.decode(embedding, questions(photo)["box"])
    found = eroded(dataclasses.asdict(expected))
    ours = upscale_mask(found["low_res_masks"][0, 0], embedding.input_hw)
    theirs = upscale_mask(expected.low_res_masks[0, 0], embedding.input_hw)
    row = next(r for r in report.rows if (r.photo, r.kind) == ("wide", "box"))
    assert row.mask_iou == mask_iou(ours, theirs) < 0.99
    assert row.boundary_iou == boundary_iou(ours, theirs) < row.mask_iou
    assert row.score_error == pytest.approx(0.1, abs=1e-6)
    assert row.mask_share == theirs.mean()
    ious = np.array([r.mask_iou for r in report.rows])
    assert report.summary.mask_iou_mean == ious.mean() and report.summary.mask_iou_min == ious.min()
    assert report.summary.mask_iou_p5 == np.percentile(ious, 5)
    assert report.kinds["box"].count == 2 and set(report.kinds) == set(KINDS)
    embedding.close()


def test_the_gate_decides(model: SamModel, photos: dict[str, Uint8Array]) -> None:
    report = against(model, altered(model, eroded), photos)
    mean, p5 = report.summary.mask_iou_mean, report.summary.mask_iou_p5
    assert not report.passed and report.gate == Gate(0.995, 0.98)
    with pytest.raises(ProofError, match=r"mean mask IoU 0\.\d+ \(gate 0\.995\); 5th percentile"):
        report.require()
    assert dataclasses.replace(report, gate=Gate(mean, p5)).passed
    assert dataclasses.replace(report, gate=Gate(np.nextafter(mean, 1), p5)).failures[0].startswith("mean mask IoU")
    assert dataclasses.replace(report, gate=Gate(mean, np.nextafter(p5, 1))).failures[0].startswith("5th percentile")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_fail_whatever_the_masks(model: SamModel, photos: dict[str, Uint8Array], value: float) -> None:
    def spoil(found: dict[str, Any]) -> dict[str, Any]:
        masks = found["low_res_masks"].copy()
        masks[:, 3, :1, :1] = value  # one pixel of a token that is seldom delivered
        return found | {"low_res_masks": masks}

    report = against(model, altered(model, spoil), photos)
    assert not report.passed and report.failures[0].startswith(
        "10 of 10 answers hold NaN or infinity, first wide/point"
    )
    everything = against(
        model, altered(model, lambda found: {n: np.full_like(v, value) for n, v in found.items()}), photos
    )
    assert everything.summary.mask_iou_mean < 0.5
    json.dumps(everything.to_dict(), allow_nan=False)


def test_agreeing_on_nothing_is_no_proof(model: SamModel, photos: dict[str, Uint8Array]) -> None:
    empty = altered(model, lambda found: found | {"low_res_masks": np.full_like(found["low_res_masks"], -1)})
    report = measure(empty, empty, photos, against="itself", numerics="device")
    assert report.summary.mask_iou_min == 1.0 and not report.passed
    assert report.failures == ("no mask worth comparing: the reference's are empty or cover everything",)


def test_another_choice_between_candidates_is_counted(model: SamModel, photos: dict[str, Uint8Array]) -> None:
    swapped = altered(model, lambda found: found | {"iou_predictions": found["iou_predictions"][:, [0, 3, 2, 1]]})
    report = against(model, swapped, photos)
    expected = {
        name: model.decode(model.encode(p), questions(p)["point"]).iou_predictions for name, p in photos.items()
    }
    changed = sum(int(s[0, 1:].argmax()) != int(s[0, [3, 2, 1]].argmax()) for s in expected.values())
    assert report.summary.choices_changed == changed
    assert report.summary.mask_iou_min == 1.0  # the mask compared is the one that the reference would choose


def test_what_measuring_takes(model: SamModel, photos: dict[str, Uint8Array]) -> None:
    with pytest.raises(OptionError, match="found 0 photos"):
        against(model, model, {})
    with pytest.raises(OptionError, match="numerics 'guessed'"):
        against(model, model, photos, numerics="guessed")
    assert numerics_of("fp16", "ort-cpu") == "none"
    assert (
        numerics_of("fp16", "ort-cuda") == numerics_of("fp32", "ort-cpu") == numerics_of("int8", "ort-cpu") == "device"
    )


def test_the_picture_shows_the_worst_first(model: SamModel, photos: dict[str, Uint8Array]) -> None:
    report = against(model, altered(model, eroded), photos)
    worst = [case.row.mask_iou for case in report.worst]
    assert worst == sorted(r.mask_iou for r in report.rows)[: len(worst)]
    drawn = worst_cases(report, photos, count=2)
    assert drawn.dtype == np.uint8 and drawn.shape[1] >= 3 * PANEL // 2
    near_lost = (np.abs(drawn.astype(int) - LOST).sum(2) < 90).sum()
    near_gained = (np.abs(drawn.astype(int) - GAINED).sum(2) < 90).sum()
    assert near_lost > 50 > near_gained  # masks were made smaller, never larger


def test_a_folder_of_photos_reads_each_when_asked(tmp_path: Path, photos: dict[str, Uint8Array]) -> None:
    for index in range(7):
        save_image(tmp_path / f"{index}.png", photos["wide"])
    (tmp_path / "below").mkdir()
    (tmp_path / "notes.txt").write_text("no photo")
    found = photo_folder(tmp_path)
    assert list(found) == [f"{i}.png" for i in range(7)] and found["3.png"].shape == (300, 400, 3)
    proof = found.every(3, 2)
    assert list(proof) == ["2.png", "5.png"] and list(found.without(proof)) == [f"{i}.png" for i in (0, 1, 3, 4, 6)]
    assert list(photo_folder(tmp_path, 3)) == ["0.png", "2.png", "4.png"]
    with pytest.raises(OptionError, match="holds no photo"):
        photo_folder(tmp_path / "below")
    with pytest.raises(OptionError, match="is no folder"):
        photo_folder(tmp_path / "none")
