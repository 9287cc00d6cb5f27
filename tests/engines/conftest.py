"""The tiny real SAM and its outlier variant as model folders, and photos to calibrate and measure on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from boothsam.engines.calibrate import Ranges, calibrate
from boothsam.export.folder import export_checkpoint
from boothsam.export.parity import drawn_photos
from boothsam.runtime.transforms import Uint8Array

from tests.models.outliers import make_outlier
from tests.models.tiny_folder import export_tiny_sam
from tests.models.tiny_sam import CHECKPOINT, CONFIG

Photos = Mapping[str, Uint8Array]


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos() -> Photos:
    """Three drawn pictures of differing shape."""
    return {name: photo for name, photo in drawn_photos().items() if name != "tiny"}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_sam(tmp_path_factory.mktemp("fp32") / "tiny")


@pytest.fixture(scope="session")
def outlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same function in FP32; three channels here and there are 2^17 times larger on the way."""
    folder = tmp_path_factory.mktemp("outlier")
    torch.save(make_outlier(torch.load(CHECKPOINT, weights_only=True)), folder / "outlier.pt")
    export_checkpoint(str(CONFIG), folder / "outlier.pt", folder / "outlier", licence="Apache-2.0", verify=False)
    return folder / "outlier"


@pytest.fixture(scope="session")
def tiny_ranges(tiny: Path, photos: Photos) -> dict[str, Ranges]:
    return calibrate(tiny, photos, threads=1)


@pytest.fixture(scope="session")
def outlier_ranges(outlier: Path, photos: Photos) -> dict[str, Ranges]:
    return calibrate(outlier, photos, threads=1)
