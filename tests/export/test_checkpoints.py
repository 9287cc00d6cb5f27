"""Loading checkpoints: strictly, without running code, and with errors that say what the file is."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from boothsam.export.architectures.sam import build
from boothsam.export.checkpoints import KNOWN, find_checkpoint, load_checkpoint, sha256_of
from boothsam.runtime.errors import BackendUnavailable, CheckpointError, ModelNotFound

from tests.models.tiny_sam import CHECKPOINT, CONFIG


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(CHECKPOINT, weights_only=True)
    return loaded


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def test_tiny_sam_loads_with_its_configuration(state: dict[str, torch.Tensor]) -> None:
    loaded = load_checkpoint(CHECKPOINT, str(CONFIG))
    assert loaded.known is None and loaded.sha256 == sha256_of(CHECKPOINT)
    assert not loaded.sam.training and not any(p.requires_grad for p in loaded.sam.parameters())
    ours = loaded.sam.state_dict()
    assert ours.keys() == state.keys() and all(torch.equal(ours[k], state[k]) for k in state)


def test_head_counts_are_never_guessed() -> None:
    with pytest.raises(CheckpointError, match=r"other dimensions than vit_t[\s\S]*\.json configuration"):
        load_checkpoint(CHECKPOINT)


def test_a_variant_is_recognised(tmp_path: Path) -> None:
    sam = build("vit_t")
    path = saved(tmp_path / "mobile.pt", sam.state_dict())
    assert load_checkpoint(path).sam.config.variant == "vit_t"
    with pytest.raises(CheckpointError, match=r"is a checkpoint of vit_t, not of vit_b\nhint: boothsam export vit_t"):
        load_checkpoint(path, "vit_b")


def test_half_precision_weights_become_fp32(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = saved(tmp_path / "half.pt", {k: v.half() for k, v in state.items()})
    loaded = load_checkpoint(path, str(CONFIG)).sam.state_dict()
    assert {v.dtype for v in loaded.values()} == {torch.float32}


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    key = "mask_decoder.iou_token.weight"
    broken = {k: v for k, v in state.items() if k != key} | {"extra": torch.zeros(1)}
    broken["image_encoder.neck.1.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved(tmp_path / "x.pt", broken), str(CONFIG))
    assert f"1 tensors are missing ({key})" in caught.value.message
    assert "1 are unexpected (extra)" in caught.value.message
    assert "image_encoder.neck.1.bias: (3,), expected (64,)" in caught.value.message


def test_values_that_are_not_finite_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    state["image_encoder.neck.1.bias"] = torch.full((64,), float("nan"))
    with pytest.raises(CheckpointError, match=r"neck\.1\.bias holds values that are not finite"):
        load_checkpoint(saved(tmp_path / "x.pt", state), str(CONFIG))


class Payload:
    """Runs a command when unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("payload-ran",)


def test_no_code_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "evil.pt", {"weights": Payload()})
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload()))
    for name in ("evil.pt", "evil.pkl"):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "payload-ran").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"model": {"a": torch.zeros(1)}, "epoch": 3}, "found entries model, epoch"),
        ([1, 2], "found list"),
        ({"a": torch.zeros(1)}, "not those of a SAM"),
        ({}, "the 0 tensors are not those of a SAM"),
    ],
)
def test_other_files_of_torch_are_refused(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved(tmp_path / "x.pt", value))


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    whole = CHECKPOINT.read_bytes()
    for name, data in {"empty.pt": b"", "text.pt": b"not a checkpoint", "cut.pt": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"{name}.* no checkpoint.*[\s\S]*hint:"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"not there[\s\S]*boothsam download"):
        load_checkpoint(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)


def test_a_known_name_with_other_bytes_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mobile_sam.pt"
    shutil.copy(CHECKPOINT, path)
    with caplog.at_level(logging.WARNING, "boothsam"):
        assert load_checkpoint(path, str(CONFIG)).known is None
    assert "fine-tuned, or altered" in caplog.text and "boothsam download mobile_sam" in caplog.text


def test_the_list_of_known_checkpoints() -> None:
    assert list(KNOWN) == ["mobile_sam", "sam_vit_b", "sam_vit_l", "sam_vit_h"]
    for checkpoint in KNOWN.values():
        assert len(checkpoint.sha256) == 64 and checkpoint.url.endswith(checkpoint.file)
        assert checkpoint.bytes > 40_000_000
    with pytest.raises(ModelNotFound, match="known are mobile_sam"):
        find_checkpoint("sam3")


def test_listing_checkpoints_needs_no_torch() -> None:
    code = "import sys, boothsam.export.checkpoints, boothsam.export.download; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "pooch"} & set(loaded)


def test_an_old_torch_is_not_trusted_with_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(BackendUnavailable, match=r"2\.9\.1\+cpu is too old to read a checkpoint safely"):
        load_checkpoint(CHECKPOINT, str(CONFIG))
