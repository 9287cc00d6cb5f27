"""TensorRT-RTX parses and builds every graph, strongly typed, on a CPU: what its parser takes, TensorRT's takes too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from boothsam.export.architectures.sam import build
from boothsam.export.to_onnx import export_model
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.store import starter_folder

from tests.export.conftest import Exported
from tests.export.deterministic import fill

pytestmark = pytest.mark.needs_trt_rtx
MOST_PROMPTS, MOST_POINTS = 64, 32


@pytest.fixture(scope="module")
def trt() -> Any:
    why = "needs pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"
    pytest.importorskip("tensorrt_rtx_libs", reason=why)
    return pytest.importorskip("tensorrt_rtx_bindings", reason=why)


def build_engine(trt: Any, path: Path) -> bytes:
    """Parse one graph and build an engine whose decoder takes 1 to 64 prompts of 1 to 32 points."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    for tensor in dynamic:
        # the first free side counts prompts, the second points
        least, usual, most = (
            [next(sides) if side == -1 else side for side in tensor.shape]
            for sides in map(iter, ((1, 1), (1, 2), (MOST_PROMPTS, MOST_POINTS)))
        )
        profile.set_shape(tensor.name, least, usual, most)
    if dynamic:
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    return bytes(engine)


def build_all(trt: Any, paths: Any) -> None:
    for graph, path in paths.items():
        weights = path.stat().st_size
        engine = build_engine(trt, path)
        assert len(engine) > weights / 2, graph


def test_every_graph_of_the_tiny_sam_builds(trt: Any, tiny: Exported) -> None:
    build_all(trt, tiny.paths)


@pytest.mark.slow
def test_every_graph_of_mobile_sam_builds(trt: Any, tmp_path: Path) -> None:
    sam = build("vit_t")
    fill(sam)
    build_all(trt, export_model(sam, tmp_path))


def test_every_graph_of_the_starter_model_builds(trt: Any) -> None:
    folder = starter_folder()
    manifest = ModelManifest.load(folder)
    build_all(trt, {graph: folder / file for graph, file in manifest.graphs["fp32"].items()})
