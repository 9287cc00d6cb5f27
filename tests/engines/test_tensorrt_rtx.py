"""TensorRT-RTX parses and builds every reduced graph, strongly typed, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from boothsam.engines import graph as graphs
from boothsam.engines.calibrate import Ranges, calibrate
from boothsam.engines.islands import choose_islands
from boothsam.engines.precision import to_fp16
from boothsam.engines.quantize import find_layers, quantize, ranges_after
from boothsam.export.architectures.sam import build
from boothsam.export.to_onnx import export_model
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.store import starter_folder
from boothsam.runtime.transforms import Uint8Array

from tests.export.conftest import load_graphs
from tests.export.deterministic import fill
from tests.export.test_tensorrt_rtx import build_engine, trt

__all__ = ["trt"]  # the fixture that skips where TensorRT-RTX is not installed
pytestmark = pytest.mark.needs_trt_rtx


def check(trt: Any, folder: Path, ranges: dict[str, Ranges], out: Path) -> None:
    """FP16 of every graph, and INT8 of the encoder with every layer that may be."""
    for name, file in ModelManifest.load(folder).graphs["fp32"].items():
        model = graphs.read_graph(folder / file)
        largest = ranges[name].largest
        low = {"fp16": to_fp16(model, [i.node for i in choose_islands(model, largest)])}
        if name == "encoder":
            layers, _ = find_layers(model)
            quantised = quantize(model, layers, largest)
            islands = choose_islands(quantised, ranges_after(model, layers, largest))
            low["int8"] = to_fp16(quantised, [i.node for i in islands])
        for precision, reduced in low.items():
            path = out / f"{name}.{precision}.onnx"
            graphs.write_graph(reduced, path)
            assert len(build_engine(trt, path)) > path.stat().st_size / 2, path.name


def test_the_tiny_model(trt: Any, tiny: Path, tiny_ranges: dict[str, Ranges], tmp_path: Path) -> None:
    check(trt, tiny, tiny_ranges, tmp_path)


def test_the_outlier_model(trt: Any, outlier: Path, outlier_ranges: dict[str, Ranges], tmp_path: Path) -> None:
    check(trt, outlier, outlier_ranges, tmp_path)


def test_the_starter_model(trt: Any, photos: dict[str, Uint8Array], tmp_path: Path) -> None:
    ranges = calibrate(starter_folder(), {"square": photos["square"]}, threads=1)
    check(trt, starter_folder(), ranges, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["vit_t", "vit_b"])
def test_full_size_models(trt: Any, variant: str, photos: dict[str, Uint8Array], tmp_path: Path) -> None:
    sam = build(variant)
    fill(sam)
    load_graphs(tmp_path, export_model(sam, tmp_path), variant).close()
    ranges = calibrate(tmp_path, {"square": photos["square"]}, threads=1)
    (tmp_path / "low").mkdir()
    check(trt, tmp_path, ranges, tmp_path / "low")
