"""The session contract, on real sessions of every CPU backend over graphs of a few nodes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import pytest
from boothsam.runtime import backends
from boothsam.runtime.backends.base import DeviceTensor
from boothsam.runtime.backends.deferred import DeferredSession
from boothsam.runtime.errors import BackendUnavailable, ModelError, OptionError, TensorError
from boothsam.runtime.model import Prompts, SamModel
from onnx import TensorProto, helper, numpy_helper
from skimage import data

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


class Opener(Protocol):
    """Loads a graph in the backend under test."""

    def __call__(self, model: bytes, **options: object) -> backends.Session: ...


@pytest.fixture(params=["ort-cpu", "ov"])
def open_cpu(request: pytest.FixtureRequest) -> Opener:
    return lambda model, **options: backends.open_session(request.param, model, threads=1, **options)


def test_specs_and_run(open_cpu: Opener, adder: bytes) -> None:
    session = open_cpu(adder)
    assert str(session.inputs["x"]) == "float32[?, 2]"
    assert list(session.outputs) == ["y", "z"]
    out = session.run({"x": np.array([[1, 2], [3, 4]], FLOAT)})
    assert out["y"].tolist() == [[2, 3], [4, 5]] and out["z"].tolist() == [[4, 6], [8, 10]]


def test_an_input_that_is_not_contiguous(open_cpu: Opener, adder: bytes) -> None:
    out = open_cpu(adder).run({"x": np.array([[1, 2], [3, 4]], FLOAT).T})
    assert out["y"].tolist() == [[2, 4], [3, 5]]


def test_results_belong_to_the_caller(open_cpu: Opener, adder: bytes) -> None:
    session = open_cpu(adder)
    first = session.run({"x": np.zeros((1, 2), FLOAT)})["y"]
    session.run({"x": np.full((1, 2), 9, FLOAT)})
    assert first.tolist() == [[1, 1]] and first.flags.writeable and first.flags.owndata


def test_a_kept_tensor_owns_its_memory_and_can_be_fed(open_cpu: Opener, adder: bytes) -> None:
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


def test_a_closed_session(open_cpu: Opener, adder: bytes) -> None:
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
    open_cpu: Opener, adder: bytes, feeds: dict[str, object], keep: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TensorError, match=message):
        open_cpu(adder).run(feeds, keep=keep)  # type: ignore[arg-type]


def test_a_tensor_of_another_device_is_refused(open_cpu: Opener, adder: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_cpu(adder)
    kept = session.run({"x": np.zeros((1, 2), FLOAT)}, keep=["y"])["y"]
    monkeypatch.setattr(type(kept), "device", "ort:cuda:0")
    with pytest.raises(TensorError, match=rf"on ort:cuda:0 was fed to a session on {session.device}"):
        session.run({"x": kept})


def test_what_is_no_graph(open_cpu: Opener) -> None:
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


def test_external_data_only_from_the_listed_file(
    open_cpu: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    model = external(tmp_path)
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look by itself
    with pytest.raises(ModelError, match=r"keeps tensors in 'g\.onnx\.data', which the manifest does not list"):
        open_cpu(model)
    monkeypatch.chdir("/")
    if request.node.callspec.params["open_cpu"] == "ov":
        with pytest.raises(BackendUnavailable, match=r"OpenVINO reads g\.onnx\.data only from a path"):
            open_cpu(model, external_data=tmp_path / "g.onnx.data")
        return
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
def test_a_graph_that_points_elsewhere_is_refused(open_cpu: Opener, tmp_path: Path, entry: bytes, message: str) -> None:
    """The location in the graph is data from a file: it must not lead out of the model folder."""
    inside = tmp_path / "model"
    inside.mkdir()
    model = external(tmp_path)
    (tmp_path / "nnx.data").write_bytes((tmp_path / "g.onnx.data").read_bytes())
    changed = model.replace(b"\x0a\x08location\x12\x0bg.onnx.data", entry)
    assert changed != model
    with pytest.raises(ModelError, match=message):
        open_cpu(changed, external_data=inside / "g.onnx.data")


def convolved_sum() -> bytes:
    """s = conv(x) + c with c standing once for all of x: what a decoder adds for every prompt."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["prompts", 3, 4, 4])
    c = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 2, 4, 4])
    s = helper.make_tensor_value_info("s", TensorProto.FLOAT, ["prompts", 2, 4, 4])
    weights = numpy_helper.from_array(np.arange(6, dtype=FLOAT).reshape(2, 3, 1, 1), "w")
    bias = numpy_helper.from_array(np.array([7, -7], FLOAT), "b")
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["v"]), helper.make_node("Add", ["c", "v"], ["s"])]
    graph = helper.make_graph(nodes, "g", [x, c], [s], [weights, bias])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("prompts", [1, 2, 5])
def test_what_is_added_once_for_all_prompts(open_cpu: Opener, prompts: int) -> None:
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(prompts, 3, 4, 4)).astype(FLOAT), rng.normal(size=(1, 2, 4, 4)).astype(FLOAT)
    expected = np.einsum("oi,pihw->pohw", np.arange(6, dtype=FLOAT).reshape(2, 3), x) + c + [[[[7]], [[-7]]]]
    found = open_cpu(convolved_sum()).run({"x": x, "c": c})["s"]
    assert np.abs(found - expected).max() < 1e-5  # a handful of float32 roundings


def test_openvino_computes_in_fp32_although_the_processor_could_do_less() -> None:
    """Two numbers that bfloat16 cannot tell apart stay two."""
    x = np.array([[1.0, 1.0 + 2**-20]], FLOAT)
    session = backends.open_session("ov", matrix(), threads=1)
    assert session.run({"x": x})["y"].tolist() == [[2 * 1.0, 2 * (1.0 + 2**-20)]]


def matrix() -> bytes:
    """y = 2x as a matrix product."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    twice = numpy_helper.from_array(2 * np.eye(2, dtype=FLOAT), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [twice])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return bytes(model.SerializeToString())


def test_runs_from_several_threads_do_not_mix(open_cpu: Opener) -> None:
    session = open_cpu(matrix())

    def run(number: int) -> bool:
        x = np.full((50 + number, 2), number, FLOAT)
        return bool((session.run({"x": x})["y"] == 2 * number).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(200)))


@pytest.fixture(params=["ort-cpu", "ov"])
def cpu_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_deferred_session_is_the_session(cpu_backend: str, adder: bytes) -> None:
    x = np.array([[1, 2]], FLOAT)
    opened, deferred = (f(cpu_backend, adder, threads=1) for f in (backends.open_session, backends.defer_session))
    assert isinstance(deferred, DeferredSession) and not deferred.opened
    assert deferred.device == opened.device and not deferred.opened
    kept = opened.run({"x": x}, keep=["y"])["y"]
    assert deferred.run({"x": kept}, keep=["z"])["z"].numpy().tolist() == [[6, 8]]
    assert deferred.opened
    assert deferred.inputs == opened.inputs and deferred.outputs == opened.outputs
    deferred.close()
    with pytest.raises(TensorError, match="closed"):
        deferred.run({"x": x})


def test_a_deferred_session_opens_once_for_all_threads(cpu_backend: str, adder: bytes) -> None:
    opened: list[backends.Session] = []

    def opener() -> backends.Session:
        opened.append(backends.open_session(cpu_backend, adder, threads=1))
        return opened[-1]

    session = DeferredSession(opener, "here")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: session.run({"x": np.full((1, 2), n, FLOAT)})["y"][0, 0], range(16)))
    assert answers == [n + 1 for n in range(16)] and len(opened) == 1


def test_a_deferred_session_that_was_never_needed(cpu_backend: str, adder: bytes, tmp_path: Path) -> None:
    session = backends.defer_session(cpu_backend, adder)
    session.close()
    with pytest.raises(TensorError, match="closed"):
        _ = session.inputs
    broken = backends.defer_session(cpu_backend, b"no graph")
    for _ in range(2):
        with pytest.raises(ModelError, match="cannot load the graph"):
            _ = broken.outputs
    # what would lead out of the model folder is refused at once
    with pytest.raises(ModelError, match="which the manifest does not list"):
        backends.defer_session(cpu_backend, external(tmp_path))


def test_the_starter_model_in_openvino_gives_the_masks_of_onnx_runtime() -> None:
    """Several prompts at once, and a mask prompt. Mask IoU, since OpenVINO sums in another order (logits up to 38
    differ by 0.06)."""
    models = [SamModel.load(backend=name, threads=1) for name in ("ort-cpu", "ov")]
    photo = np.asarray(data.coffee())
    boxes = [[100, 30, 500, 370], [250, 100, 420, 260], [10, 10, 60, 60], [300, 60, 599, 390]]
    many = [model.decode(model.encode(photo), Prompts.make(box_xyxy=boxes)).low_res_masks for model in models]
    refined = [
        model.decode(model.encode(photo), Prompts.make([[300, 200]], [1], mask_input=many[0][0, :1])).low_res_masks
        for model in models
    ]
    for ours, theirs in ((many[0], many[1]), (refined[0], refined[1])):
        assert (ours > 0).any(axis=(2, 3)).all()
        both, either = ((ours > 0) & (theirs > 0)).sum((2, 3)), ((ours > 0) | (theirs > 0)).sum((2, 3))
        assert (both / either).min() > 0.999
