"""Gates on the graphs: what is left after ONNX Runtime's optimiser, what a run multiplies, what files weigh.

Each number is the measured one with a little room for another version of a library. Who makes a graph leaner lowers it;
who has to raise it says in the commit what it buys.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.model import SamModel
from boothsam.runtime.store import starter_folder

from tests.gates.graphs import flops, operators
from tests.models.tiny_folder import export_tiny_sam

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("starter", "tiny_sam")
RENEW = "If the graph became better, lower the gate in tests/gates; if it had to grow, raise it there and say why."

# Measured with ONNX Runtime 1.31: nodes in all, and Transpose, each of which is a pass over a tensor.
NODES = {
    ("starter", "encoder"): (143, 1),
    ("starter", "decoder"): (763, 1),
    ("starter", "decoder_mask"): (771, 1),
    ("tiny_sam", "encoder"): (110, 17),
    ("tiny_sam", "prepare"): (16, 4),
    ("tiny_sam", "decoder"): (203, 21),
    ("tiny_sam", "decoder_mask"): (242, 36),
}
ROOM = 1.05
# MFLOP of one photo, and of one prompt with two corners.
MFLOP = {
    ("starter", "encoder"): 2267,
    ("starter", "decoder"): 858,
    ("tiny_sam", "encoder"): 6195,
    ("tiny_sam", "prepare"): 50.4,
    ("tiny_sam", "decoder"): 156,
}
MODEL_MB = 11.97  # every file of the bundled model's folder
WHEEL_MB = 16.6  # the code and data of the wheel, deflated


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"starter": starter_folder(), "tiny_sam": export_tiny_sam(tmp_path_factory.mktemp("gates") / "tiny_sam")}


def _graphs(folder: Path) -> dict[str, Path]:
    return {name: folder / file for name, file in ModelManifest.load(folder).graphs["fp32"].items()}


@pytest.mark.parametrize(("model", "graph"), NODES)
def test_operators_after_optimisation(folders: dict[str, Path], tmp_path: Path, model: str, graph: str) -> None:
    found = operators(_graphs(folders[model])[graph], tmp_path)
    nodes, transposes = NODES[model, graph]
    assert found.total() <= ROOM * nodes, (
        f"{model}/{graph}: ONNX Runtime runs {found.total()} nodes, expected at most {nodes} + 5 %; each is a pass "
        f"over memory and a call. {RENEW}"
    )
    assert found["Transpose"] <= transposes, (
        f"{model}/{graph}: {found['Transpose']} Transpose nodes are left, expected {transposes}; each copies a whole "
        f"tensor. {RENEW}"
    )
    assert found["Erf"] == 0, (
        f"{model}/{graph}: {found['Erf']} Erf nodes are left: GELU was not fused and costs four passes instead of one. "
        "Export with opset 20 or in the form that ONNX Runtime recognises."
    )


@pytest.mark.parametrize("model", MODELS)
def test_normalising_and_batch_norm_cost_no_nodes_of_their_own(
    folders: dict[str, Path], tmp_path: Path, model: str
) -> None:
    for name, path in _graphs(folders[model]).items():
        found = operators(path, tmp_path)
        for operator in ("BatchNormalization", "Identity", "Dropout"):
            assert found[operator] == 0, f"{model}/{name}: {found[operator]} {operator} left; fold it. {RENEW}"


@pytest.mark.parametrize("model", MODELS)
def test_floating_point_operations(folders: dict[str, Path], model: str) -> None:
    graphs = _graphs(folders[model])
    feeds = _feeds(folders[model], prompts=1)
    for (name, graph), gate in MFLOP.items():
        if name == model:
            found = flops(graphs[graph], feeds[graph]) / 1e6
            assert found <= 1.005 * gate, (
                f"{model}/{graph} takes {found:.1f} MFLOP for one photo or prompt, expected {gate}; in the decoder the "
                f"rewrite that folds projections into its few tokens may be gone. {RENEW}"
            )


@pytest.mark.parametrize("model", MODELS)
def test_what_is_computed_per_photo_is_not_computed_per_prompt(folders: dict[str, Path], model: str) -> None:
    decoder = _graphs(folders[model])["decoder"]
    one, four = (flops(decoder, _feeds(folders[model], prompts)["decoder"]) for prompts in (1, 4))
    assert four <= 4 * one
    if model == "starter":  # its first layers see the photo alone
        assert four < 3.99 * one, f"four prompts cost {four / one:.2f} times one. {RENEW}"


def _feeds(folder: Path, prompts: int) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Inputs for every graph but decoder_mask: what the graphs before it give for a photo of 4:3."""
    model = SamModel.load(folder, backend="ort-cpu", threads=1)
    frame = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    photo = {"image": frame, "size_hw": np.array([768, 1024], np.int32)}
    embedding = model.encode_frame(frame, photo["size_hw"], (3000, 4000))
    made = {name: np.asarray(tensor.numpy()) for name, tensor in embedding.tensors.items()}
    boxes = np.tile(np.array([[100, 100], [600, 500]], np.float32), (prompts, 1, 1))
    asked = {"point_coords": boxes, "point_labels": np.tile(np.array([2, 3], np.int32), (prompts, 1))}
    known = photo | made | asked
    feeds = {}
    for name in ("encoder", "prepare", "decoder"):
        if name in model.sessions:
            feeds[name] = {tensor: known[tensor] for tensor in model.sessions[name].inputs}
    model.close()
    return feeds


def test_the_counter_counts(tmp_path: Path) -> None:
    """A convolution, a product and their transposes whose costs are known."""
    graph = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 19]>
        g (float[1,3,8,8] x, float[2,5] a) => (float[1,4,8,8] y, float[2,7] b, float[1,3,8,8] z, float[5,7] c)
        <float[4,3,3,3] w, float[5,7] m, float[4,3,1,1] v, float[2,7] n> {
          y = Conv<pads = [1, 1, 1, 1]>(x, w)
          b = MatMul(a, m)
          z = ConvTranspose(y, v)
          c = Gemm<transA = 1>(a, n)
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 3, 3, 3)), ("m", (5, 7)), ("v", (4, 3, 1, 1)), ("n", (2, 7))):
        for index, tensor in enumerate(graph.graph.initializer):
            if tensor.name == name:
                del graph.graph.initializer[index]
                break
        graph.graph.initializer.append(onnx.numpy_helper.from_array(rng.random(shape, np.float32), name))
    path = tmp_path / "known.onnx"
    onnx.save(graph, path)
    feeds = {"x": rng.random((1, 3, 8, 8), np.float32), "a": rng.random((2, 5), np.float32)}
    convolution, product = 2 * (4 * 64) * (3 * 9), 2 * (2 * 7) * 5
    transposed, turned = 2 * (4 * 64) * 3, 2 * (5 * 7) * 2
    assert flops(path, feeds) == convolution + product + transposed + turned


def test_the_bundled_model_stays_small() -> None:
    folder = starter_folder()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert size / 1e6 <= MODEL_MB, (
        f"the bundled model takes {size / 1e6:.2f} MB, expected at most {MODEL_MB}: every download and every device "
        f"carries it. {RENEW}"
    )


def test_the_wheel_stays_small() -> None:
    """What setuptools packs, deflated as in a wheel; `tests/wheel/check_wheel.py` builds the real one."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef]
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    mapping: dict[str, str] = setuptools["package-dir"]
    size = 0
    for package in setuptools["packages"]:
        parent = max((p for p in mapping if package == p or package.startswith(p + ".")), key=len)
        folder = ROOT / mapping[parent] / Path(*package.removeprefix(parent).strip(".").split("."))
        patterns = ["*.py", *setuptools["package-data"].get(package, [])]
        for path in {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}:
            size += len(zlib.compress(path.read_bytes(), 1))
    assert 10 < size / 1e6 <= WHEEL_MB, (
        f"the wheel's files take {size / 1e6:.2f} MB, expected 10 (or files were not found) to {WHEEL_MB}. {RENEW}"
    )
