"""The tiny SAM exported once for all tests of the exporter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from boothsam.export.architectures.sam import Sam
from boothsam.export.checkpoints import load_checkpoint
from boothsam.export.fast_decoder import PREPARED
from boothsam.export.to_onnx import export_model
from boothsam.runtime.manifest import ModelManifest, record_files
from boothsam.runtime.model import SamModel

from tests.models.tiny_sam import CHECKPOINT, CONFIG


@dataclass(frozen=True)
class Exported:
    """The tiny SAM as torch module, as files, and loaded into ONNX Runtime."""

    sam: Sam
    folder: Path
    paths: Mapping[str, Path]
    model: SamModel


def load_graphs(folder: Path, paths: Mapping[str, Path], name: str) -> SamModel:
    """A model folder without proof or golden answers, loaded."""
    ModelManifest(
        name=name,
        variant=name,
        licence="Apache-2.0",
        graphs={"fp32": {graph: path.name for graph, path in paths.items()}},
        embedding=("image_embedding",),
        prepared=PREPARED,
        files=record_files(folder),
    ).save(folder)
    return SamModel.load(folder, backend="ort-cpu")


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The trained tiny SAM, exported."""
    folder = tmp_path_factory.mktemp("tiny")
    sam = load_checkpoint(CHECKPOINT, str(CONFIG)).sam
    paths = export_model(sam, folder)
    return Exported(sam, folder, paths, load_graphs(folder, paths, "tiny_sam"))
