"""The tiny SAM as a model folder, exported once per run."""

from pathlib import Path

import pytest
from boothsam.export.folder import export_checkpoint

from tests.models.tiny_sam import CHECKPOINT, CONFIG


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the tiny SAM; its parity is tested in tests/export."""
    folder = tmp_path_factory.mktemp("models") / "tiny_sam"
    export_checkpoint(str(CONFIG), CHECKPOINT, folder, licence="Apache-2.0", verify=False)
    return folder
