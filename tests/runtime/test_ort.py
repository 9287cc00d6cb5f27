"""The session contract, on real ONNX Runtime sessions over graphs of a few nodes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from boothsam.runtime import backends
from boothsam.runtime.backends.base import DeviceTensor
from boothsam.runtime.errors import BackendUnavailable, ModelError, OptionError, TensorError
from onnx import TensorProto, helper, numpy_helper

FLOAT = np.float32


@pytest.fixture
def adder() -> bytes:
    """y = x + 1, z = y * w, with a free first side."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "yz"]
    one = numpy_helper.from_array(np.ones(1, FLOAT), "one")
    two = numpy_helper.from_array(np.full((1, 2), 2, FLOAT), "w")
    nodes = [helper.make_node("Add", ["x", "one"], ["y"]), helper.make_node("Mul", ["y", "w"], ["z"])]
    graph = helper.make_graph(nodes, "adder", [x], outputs, [one, two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return bytes(model.SerializeToString())


def open_cpu(model: bytes, **options: object) -> backends.Session:
    return backends.open_session("ort-cpu", model, threads=1, **options)  # type: ignore[arg-type]


def test_specs_and_run(adder: bytes) -> None:
    session = open_cpu(adder)
    assert str(session.inputs["x"]) == "float32[?, 2]"
    assert list(session.outputs) == ["y", "z"]
    out = session.run({"x": np.array([[1, 2], [3, 4]], FLOAT)})
    assert out["y"].tolist() == [[2, 3], [4, 5]] and out["z"].tolist() == [[4, 6], [8, 10]]


def test_an_input_that_is_not_contiguous(adder: bytes) -> None:
    out = open_cpu(adder).run({"x": np.array([[1, 2], [3, 4]], FLOAT).T})
    assert out["y"].tolist() == [[2, 4], [3, 5]]


def test_results_belong_to_the_caller(adder: bytes) -> None:
    session = open_cpu(adder)
    first = session.run({"x": np.zeros((1, 2), FLOAT)})["y"]
    session.run({"x": np.full((1, 2), 9, FLOAT)})
    assert first.tolist() == [[1, 1]] and first.flags.writeable and first.flags.owndata


def test_a_kept_tensor_owns_its_memory_and_can_be_fed(adder: bytes) -> None:
    session = open_cpu(adder)
    a = session.run({"x": np.zeros((1, 2), FLOAT)}, keep=["y"])["y"]
    b = session.run({"x": np.full((3, 2), 9, FLOAT)}, keep=["y"])["y"]
    assert isinstance(a, DeviceTensor) and a.shape == (1, 2) and a.nbytes == 8 and b.shape == (3, 2)
    assert a.numpy().tolist() == [[1, 1]]
    assert session.run({"x": a})["y"].tolist() == [[2, 2]]
    session.close()
    assert a.numpy().tolist() == [[1, 1]]  # outlives the session
    a.close()
    with pytest.raises(TensorError, match="closed"):
        a.numpy()


def test_a_closed_session(adder: bytes) -> None:
    session = open_cpu(adder)
    session.close()
    with pytest.raises(TensorError, match="closed"):
        session.run({"x": np.zeros((1, 2), FLOAT)})


@pytest.mark.parametrize(
    ("feeds", "keep", "message"),
    [
        ({}, (), r"missing \['x'\]"),
        ({"x": np.zeros((1, 2), FLOAT), "u": np.zeros(1)}, (), r"unknown \['u'\]"),
        ({"x": np.zeros((1, 2))}, (), r"expected float32\[\?, 2\], found float64\[1, 2\]"),
        ({"x": np.zeros((1, 3), FLOAT)}, (), r"found float32\[1, 3\]"),
        ({"x": np.zeros(2, FLOAT)}, (), r"found float32\[2\]"),
        ({"x": [[1.0, 2.0]]}, (), "found list"),
        ({"x": np.zeros((1, 2), FLOAT)}, ("q",), r"cannot keep \['q'\]"),
    ],
)
def test_feeds_are_checked_before_the_backend(
    adder: bytes, feeds: dict[str, object], keep: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TensorError, match=message):
        open_cpu(adder).run(feeds, keep=keep)  # type: ignore[arg-type]


def test_a_tensor_of_another_device_is_refused(adder: bytes) -> None:
    session = open_cpu(adder)
    kept = session.run({"x": np.zeros((1, 2), FLOAT)}, keep=["y"])["y"]
    kept._device = "ort:cuda:0"
    with pytest.raises(TensorError, match=r"on ort:cuda:0 was fed to a session on ort:cpu"):
        session.run({"x": kept})


def test_what_is_no_graph() -> None:
    with pytest.raises(ModelError, match="cannot load the graph"):
        open_cpu(b"no graph")


def test_unknown_and_absent_backends(adder: bytes) -> None:
    with pytest.raises(OptionError, match="unknown backend 'tpu'"):
        backends.open_session("tpu", adder)
    reason = backends.unavailable_reason("ort-cuda")
    if reason is not None:
        with pytest.raises(BackendUnavailable, match="CUDAExecutionProvider"):
            backends.open_session("ort-cuda", adder)


def external(folder: Path) -> bytes:
    weights = numpy_helper.from_array(np.arange(2048, dtype=FLOAT), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2048])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2048])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save_model(model, folder / "g.onnx", save_as_external_data=True, location="g.onnx.data", size_threshold=0)
    return (folder / "g.onnx").read_bytes()


def test_external_data_only_from_the_listed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = external(tmp_path)
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look by itself
    with pytest.raises(ModelError, match=r"keeps tensors in 'g\.onnx\.data', which the manifest does not list"):
        open_cpu(model)
    monkeypatch.chdir("/")
    session = open_cpu(model, external_data=tmp_path / "g.onnx.data")
    assert session.run({"x": np.zeros(2048, FLOAT)})["y"][7] == 7


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (b"\x0a\x08location\x12\x0b../nnx.data", r"keeps tensors in '\.\./nnx\.data'"),
        (b"\x0a\x08location\x12\x0b/etc/passwd", "keeps tensors in '/etc/passwd'"),
        (b"\x0a\x88\x00location\x12\x0b../nnx.data", "unusual form"),
        (b"\x12\x0b../nnx.data\x0a\x08location", "unusual form"),
    ],
)
def test_a_graph_that_points_elsewhere_is_refused(tmp_path: Path, entry: bytes, message: str) -> None:
    """The location in the graph is data from a file: it must not lead out of the model folder."""
    inside = tmp_path / "model"
    inside.mkdir()
    model = external(tmp_path)
    (tmp_path / "nnx.data").write_bytes((tmp_path / "g.onnx.data").read_bytes())
    changed = model.replace(b"\x0a\x08location\x12\x0bg.onnx.data", entry)
    assert changed != model
    with pytest.raises(ModelError, match=message):
        open_cpu(changed, external_data=inside / "g.onnx.data")
