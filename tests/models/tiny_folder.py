"""The tiny SAM as a model folder, for tests of what runs on one."""

from pathlib import Path

from boothsam.export.folder import export_checkpoint

from tests.models.tiny_sam import CHECKPOINT, CONFIG


def export_tiny_sam(folder: Path) -> Path:
    """Export it to `folder`; its parity is tested in tests/export."""
    export_checkpoint(str(CONFIG), CHECKPOINT, folder, licence="Apache-2.0", verify=False)
    return folder
