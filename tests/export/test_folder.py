"""`export_checkpoint`: the whole model folder or nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from boothsam.export.folder import export_checkpoint
from boothsam.runtime.errors import CheckpointError, OutputError, ParityError
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.model import SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.runtime.verify import verify_golden

from tests.models.pictures import test_picture
from tests.models.tiny_sam import CHECKPOINT, CONFIG

PHOTOS = {"square": test_picture("square").image}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "models" / "tiny"
    steps: list[str] = []
    manifest = export_checkpoint(str(CONFIG), CHECKPOINT, out, photos=PHOTOS, progress=steps.append)
    assert manifest == ModelManifest.load(out)
    assert len(steps) == 6 and steps[0].startswith("reading") and steps[-1].startswith("wrote")
    assert any("mask IoU at least" in step for step in steps)
    assert [p.name for p in out.parent.iterdir()] == ["tiny"]
    return out


def test_the_folder_is_complete_and_verifies(folder: Path) -> None:
    manifest = ModelManifest.load(folder)
    assert (manifest.name, manifest.variant, manifest.licence) == ("tiny", "tiny_sam", "unknown")
    assert {"NOTICE.md", "golden/golden.json", "golden/golden.npz"} < set(manifest.files)
    for name in manifest.files:
        manifest.read_file(folder, name)
    assert sum(p.stat().st_size for p in (folder / "golden").iterdir()) <= 2_000_000
    assert manifest.origin["checkpoint_sha256"] in (folder / "NOTICE.md").read_text()
    model = SamModel.load(folder, backend="ort-cpu")
    report = verify_golden(model, folder)
    report.require()
    assert len(report.cases) == 8


def test_the_folder_can_be_read_by_others(folder: Path) -> None:
    assert folder.stat().st_mode & 0o055 == 0o055


def test_the_proof_names_the_files_it_is_about(folder: Path) -> None:
    manifest = ModelManifest.load(folder)
    (proof,) = (folder / "proof").iterdir()
    assert proof.name == f"{manifest.files['encoder.onnx'].sha256}-ort-cpu.json"
    body = json.loads(proof.read_text())
    assert body["parity"]["passed"] is True and body["numerics"] == "device"
    assert body["files"] == {f: manifest.files[f].sha256 for f in manifest.graphs["fp32"].values()}
    assert not [name for name in manifest.files if name.startswith("proof/")]
    for text in (proof.read_text(), (folder / "manifest.json").read_text()):
        assert not re.search(r"/(home|root|tmp|work|usr)/", text)


def test_the_exported_model_segments(folder: Path) -> None:
    scene = test_picture("landscape")
    predictor = SamPredictor.load(str(folder))
    predictor.set_image(scene.image)
    masks, _, _ = predictor.predict(box=scene.box_xyxy(0), multimask_output=False)
    found, drawn = np.asarray(masks[0], bool), scene.masks[0]
    assert (found & drawn).sum() / (found | drawn).sum() > 0.8


def test_nothing_is_overwritten_unasked(folder: Path, tmp_path: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(OutputError, match=r"exists already\nhint: .*--force"):
        export_checkpoint(str(CONFIG), CHECKPOINT, folder)
    assert (folder / "manifest.json").read_bytes() == before
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(OutputError, match="only a model folder is replaced"):
        export_checkpoint(str(CONFIG), CHECKPOINT, tmp_path, force=True)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"


def test_force_replaces_a_model_and_failure_leaves_it(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    export_checkpoint(str(CONFIG), CHECKPOINT, out, verify=False, name="first", licence="MIT")
    assert not (out / "golden").exists() and ModelManifest.load(out).licence == "MIT"
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError):
        export_checkpoint(str(CONFIG), tmp_path / "broken.pt", out, force=True)
    assert ModelManifest.load(out).name == "first"
    export_checkpoint(str(CONFIG), CHECKPOINT, out, verify=False, name="second", force=True)
    assert ModelManifest.load(out).name == "second"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.pt", "model"]


def test_a_model_without_masks_is_not_proven(tmp_path: Path) -> None:
    state = torch.load(CHECKPOINT, weights_only=True)
    for name in state:
        if "output_hypernetworks_mlps" in name and ".layers.2." in name:
            state[name] = torch.zeros_like(state[name])
    torch.save(state, tmp_path / "blank.pt")
    with pytest.raises(ParityError, match="no mask that proves anything"):
        export_checkpoint(str(CONFIG), tmp_path / "blank.pt", tmp_path / "model", photos=PHOTOS)
    assert [p.name for p in tmp_path.iterdir()] == ["blank.pt"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export_checkpoint(str(CONFIG), CHECKPOINT, tmp_path / "file" / "model", verify=False)
