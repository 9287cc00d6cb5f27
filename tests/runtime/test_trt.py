"""The native TensorRT runtime on a fake GPU that really executes the graphs (fake_gpu.py, fake_tensorrt.py).

What is wrong with order, addresses, copies or lifetimes must give wrong masks or an error there; the last tests break
the runtime on purpose and show that it does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.backends import cuda, trt_library
from boothsam.runtime.backends.base import DeviceTensor
from boothsam.runtime.backends.trt import MOST_GRAPHS, TrtSession
from boothsam.runtime.errors import BackendUnavailable, DeviceError, EngineError, TensorError
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.model import Prompts, SamModel
from boothsam.runtime.store import starter_folder

from tests.runtime.fake_gpu import Bindings, CLibrary, FakeGpu
from tests.runtime.fake_tensorrt import make_engine
from tests.runtime.gpu_machine import FLOAT, Machine, decoder, encoder

A, B = np.full((4, 4), 3, np.uint8), np.full((4, 4), 90, np.uint8)
ONE = np.ones((1, 1, 2), FLOAT)


@pytest.fixture(
    params=[("bindings", False), ("ctypes", False), ("bindings", True), ("ctypes", True)],
    ids=["bindings-discrete", "ctypes-discrete", "bindings-integrated", "ctypes-integrated"],
)
def machine(request: pytest.FixtureRequest) -> Machine:
    through, integrated = request.param
    return Machine(FakeGpu(integrated=integrated), through)


@pytest.fixture(params=[False, True], ids=["plain", "cuda-graph"])
def sessions(request: pytest.FixtureRequest, machine: Machine) -> tuple[Any, Any]:
    return machine.open(encoder(), request.param), machine.open(decoder(), request.param)


def test_the_device_says_what_it_is(machine: Machine) -> None:
    device = machine.device
    assert (device.name, device.compute_capability, device.multiprocessors) == ("Fake Orin", "8.7", 8)
    assert device.cuda_version == "12.6" and device.memory() == (1 << 30, 1 << 30)
    assert device.integrated == machine.gpu.integrated


def test_specs_come_from_the_engine(sessions: tuple[Any, Any]) -> None:
    assert [str(s) for s in sessions[0].inputs.values()] == ["uint8[4, 4]"]
    assert [str(s) for s in sessions[1].inputs.values()] == ["float32[4, 4]", "float32[?, ?, 2]"]
    assert list(sessions[1].outputs) == ["masks", "scores"]
    assert (sessions[0].most_prompts, sessions[1].most_prompts) == (None, 8)


def test_encode_a_encode_b_decode_a_is_a(sessions: tuple[Any, Any]) -> None:
    first, second = sessions
    for _ in range(3):  # a recorded graph is replayed from the second run on
        a = first.run({"image": A}, keep=["embedding"])
        b = first.run({"image": B}, keep=["embedding", "extra"])
        assert isinstance(a["embedding"], DeviceTensor) and a["embedding"].nbytes == 64
        assert a["extra"].tolist() == [[7.0] * 4] * 2
        of_a = second.run({"embedding": a["embedding"], "points": ONE})
        of_b = second.run({"embedding": b["embedding"], "points": ONE})
        assert np.all(of_a["masks"] == 8) and np.all(of_b["masks"] == 182) and of_a["scores"].tolist() == [[2]]
        assert np.all(a["embedding"].numpy() == 6) and np.all(b["extra"].numpy() == 181)


def test_host_arrays_can_be_fed_and_results_are_the_callers(sessions: tuple[Any, Any]) -> None:
    points = np.arange(12, dtype=FLOAT).reshape(2, 3, 2)
    flipped = points.transpose(1, 0, 2)  # not contiguous
    embedding = np.arange(16, dtype=FLOAT).reshape(4, 4)
    first = sessions[1].run({"embedding": embedding, "points": points})
    second = sessions[1].run({"embedding": embedding, "points": flipped})
    assert np.array_equal(first["masks"], embedding + points.sum((1, 2), keepdims=True))
    assert np.array_equal(second["scores"], flipped.sum((1, 2))[:, None])
    assert first["masks"].flags.owndata and first["masks"].flags.writeable


@pytest.mark.parametrize("prompts", [1, 2, 8, 9, 17])
def test_profiles_and_turns(sessions: tuple[Any, Any], machine: Machine, prompts: int) -> None:
    kept = sessions[0].run({"image": A}, keep=["embedding"])["embedding"]
    points = np.random.default_rng(3).random((prompts, 2, 2), FLOAT)
    machine.gpu.log.clear()
    out = sessions[1].run({"embedding": kept, "points": points})
    assert np.allclose(out["masks"], 6 + points.sum((1, 2), keepdims=True))
    runs, turns = machine.gpu.log.count("execute") + machine.gpu.log.count("launch"), -(-prompts // 8)
    assert turns <= runs <= 2 * turns  # a shape that is new is run, and recorded
    assert runs == turns or sessions[1]._graphed


def test_no_points_at_all(machine: Machine) -> None:
    session = machine.open(decoder())  # a mask alone comes without any point
    out = session.run({"embedding": np.ones((4, 4), FLOAT), "points": np.zeros((1, 0, 2), FLOAT)})
    assert np.all(out["masks"] == 1)


def test_what_no_profile_takes(machine: Machine) -> None:
    session = machine.open(decoder())
    with pytest.raises(TensorError, match=r"points \[1, 0, 2\] to \[8, 32, 2\]; found points \[1, 33, 2\]"):
        session.run({"embedding": np.ones((4, 4), FLOAT), "points": np.ones((1, 33, 2), FLOAT)})
    with pytest.raises(TensorError, match="8 at a time, which keeps nothing"):
        session.run({"embedding": np.ones((4, 4), FLOAT), "points": np.ones((9, 1, 2), FLOAT)}, keep=["masks"])


def test_feeds_are_checked(sessions: tuple[Any, Any]) -> None:
    with pytest.raises(TensorError, match="missing"):
        sessions[0].run({})
    with pytest.raises(TensorError, match="found float32"):
        sessions[0].run({"image": A.astype(FLOAT)})


def test_lifetimes(machine: Machine) -> None:
    first, second = machine.open(encoder()), machine.open(decoder())
    kept = first.run({"image": A}, keep=["embedding"])["embedding"]
    first.close()
    first.close()
    with pytest.raises(TensorError, match="session was closed"):
        first.run({"image": A})
    assert np.all(second.run({"embedding": kept, "points": ONE})["masks"] == 8)  # outlives its session
    kept.close()
    for use in (kept.numpy, lambda: second.run({"embedding": kept, "points": ONE})):
        with pytest.raises(TensorError, match="tensor was closed"):
            use()
    second.close()
    gc.collect()
    assert machine.gpu.used == 0 and not machine.gpu.pinned


def test_a_tensor_that_nobody_holds_gives_its_memory_back(machine: Machine) -> None:
    session = machine.open(encoder())
    session.run({"image": A})
    before = machine.gpu.used
    kept = session.run({"image": A}, keep=["embedding"])
    assert machine.gpu.used > before
    del kept
    gc.collect()
    assert machine.gpu.used == before


def test_buffers_are_used_again_and_grow(machine: Machine) -> None:
    session, image = machine.open(decoder()), np.ones((4, 4), FLOAT)
    session.run({"embedding": image, "points": np.ones((8, 4, 2), FLOAT)})
    used, pinned = machine.gpu.used, len(machine.gpu.pinned)
    for prompts in (1, 5, 8):
        session.run({"embedding": image, "points": np.ones((prompts, 4, 2), FLOAT)})
    assert machine.gpu.used == used and len(machine.gpu.pinned) == pinned


def test_an_integrated_gpu_copies_nothing() -> None:
    machine = Machine(FakeGpu(integrated=True))
    kept = machine.open(encoder()).run({"image": A}, keep=["embedding"])["embedding"]
    machine.open(decoder()).run({"embedding": kept, "points": ONE})
    assert [entry for entry in machine.gpu.log if entry.startswith("copy")] == []


def test_recorded_graphs_are_replayed_and_bounded() -> None:
    machine = Machine()
    session, image = machine.open(decoder(), cuda_graph=True), np.ones((4, 4), FLOAT)
    for _ in range(3):
        session.run({"embedding": image, "points": ONE})
    assert machine.gpu.log.count("execute") == 2 and machine.gpu.log.count("launch") == 2
    for points in range(1, MOST_GRAPHS + 4):
        out = session.run({"embedding": image, "points": np.ones((1, points, 2), FLOAT)})
        assert np.all(out["masks"] == 1 + 2 * points)
    assert len(session._recorded) == MOST_GRAPHS
    session.close()
    gc.collect()
    assert machine.gpu.used == 0


def test_threads_take_turns(machine: Machine) -> None:
    first, second = machine.open(encoder()), machine.open(decoder())

    def ask(value: int) -> bool:
        kept = first.run({"image": np.full((4, 4), value, np.uint8)}, keep=["embedding"])["embedding"]
        masks = second.run({"embedding": kept, "points": ONE})["masks"]
        return bool(np.all(masks == 2 * value + 2))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(60)))


# what can be missing or not fit


def test_out_of_memory_says_so() -> None:
    machine = Machine(FakeGpu(budget=100))
    session = machine.open(encoder())
    with pytest.raises(DeviceError, match="cudaMalloc answered 2, expected 0: the GPU is out of memory") as caught:
        session.run({"image": A}, keep=["embedding", "extra"])
    assert caught.value.hint and "--prompts" in caught.value.hint
    gc.collect()
    machine.gpu.budget = 1 << 20
    assert np.all(session.run({"image": A})["embedding"] == 6)  # and is over when there is memory again


def test_a_context_takes_the_memory_of_its_profile_only() -> None:
    machine = Machine(FakeGpu(budget=6000), context_bytes=1000)
    session, image = machine.open(decoder()), np.ones((4, 4), FLOAT)
    session.run({"embedding": image, "points": ONE})
    with pytest.raises(DeviceError, match=r"profile 1 of the engine into use \(Error Code 2: OutOfMemory\)"):
        session.run({"embedding": image, "points": np.ones((2, 1, 2), FLOAT)})
    assert np.all(session.run({"embedding": image, "points": ONE})["masks"] == 3)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (make_engine(encoder(), gpu="Other"), r"for another GPU \(The engine was built for a different compute"),
        (make_engine(encoder(), version="10.16.2"), "another version of TensorRT .*not compatible with this version"),
        (b"garbage", r"or is no engine \(magicTag verification failed"),
    ],
)
def test_engines_that_do_not_fit(engine: bytes, message: str) -> None:
    machine = Machine()
    with pytest.raises(EngineError, match=message) as caught:
        TrtSession(engine, device=machine.device, tensorrt=machine.trt)
    assert "tensorrt 10.3.0 cannot load an engine" in caught.value.message
    assert caught.value.hint and caught.value.hint.startswith("boothsam build")


def test_no_driver_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(gpu: FakeGpu, status: int) -> None:
        fake: Any = CLibrary(gpu)
        fake.cudaGetDeviceCount = lambda place: status
        monkeypatch.setattr(cuda, "library", lambda: cuda.CtypesLibrary(fake))

    cuda.open_device.cache_clear()
    install(FakeGpu(), 35)
    assert "cudaGetDeviceCount answered 35" in str(cuda.unavailable_reason())
    with pytest.raises(BackendUnavailable, match="no GPU can be used") as caught:
        cuda.open_device()
    assert caught.value.hint and "driver" in caught.value.hint
    monkeypatch.setattr(cuda, "library", lambda: cuda.BindingsLibrary(Bindings(FakeGpu(count=0))))
    assert cuda.unavailable_reason() == "CUDA finds no GPU"
    with pytest.raises(BackendUnavailable, match="CUDA finds 0 GPUs"):
        cuda.open_device()


def test_a_missing_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_library, "find_spec", lambda name: None)
    trt_library.library.cache_clear()
    assert "not installed" in str(trt_library.unavailable_reason())
    with pytest.raises(BackendUnavailable, match=r"expected TensorRT 10\.3 or newer"):
        trt_library.library()


# a whole model


@pytest.mark.parametrize(("name", "integrated"), [("color", False), ("color", True), ("starter", False)])
def test_a_model_answers_as_on_onnx_runtime(color_folder: Path, name: str, integrated: bool) -> None:
    folder = color_folder if name == "color" else starter_folder()
    machine, manifest = Machine(FakeGpu(integrated=integrated)), ModelManifest.load(folder)
    graphs = manifest.graphs["fp32"].items()
    sessions = {graph: machine.open((folder / file).read_bytes()) for graph, file in graphs}
    model = SamModel(manifest, sessions, backend="trt", precision="fp32", reason="test")
    reference = SamModel.load(folder, backend="ort-cpu", threads=1)
    photos = []
    for colour, left in (((200, 30, 30), 20), ((20, 40, 220), 60)):
        photo = np.full((120, 160, 3), 240, np.uint8)
        photo[30:90, left : left + 60] = colour
        photos.append(photo)
    asked = [Prompts.make([[[50.0, 60.0]], [[100.0, 60.0]]], [[1], [1]])]
    if name == "starter":
        hint = np.linspace(-8, 8, 256 * 256, dtype=FLOAT).reshape(1, 1, 256, 256)
        # a mask alone: no point at all
        asked += [Prompts.make(mask_input=hint), Prompts.make([[50.0, 60.0]], [1], [30, 30, 90, 90], hint)]
    first, second = model.encode(photos[0]), model.encode(photos[1])
    theirs = [reference.encode(photo) for photo in photos]
    for prompts in asked:
        expected = [reference.decode(embedding, prompts) for embedding in theirs]
        for embedding, answer in ((second, expected[1]), (first, expected[0])):
            found = model.decode(embedding, prompts)
            assert np.array_equal(found.low_res_masks, answer.low_res_masks)
            assert np.array_equal(found.iou_predictions, answer.iou_predictions)
        assert not np.array_equal(expected[0].low_res_masks, expected[1].low_res_masks)
    first.close()
    second.close()
    model.close()
    assert machine.gpu.used == 0


# the runtime broken on purpose: the fake finds each of these


def answer(machine: Machine, kind: type[TrtSession] = TrtSession) -> Any:
    """The mask of A after B was encoded; 8 everywhere when all is well."""
    first, second = machine.open(encoder(), kind=kind), machine.open(decoder(), kind=kind)
    a = first.run({"image": A}, keep=["embedding"])["embedding"]
    first.run({"image": B}, keep=["embedding"])
    return second.run({"embedding": a, "points": ONE})["masks"]


def test_all_is_well(machine: Machine) -> None:
    assert np.all(answer(machine) == 8)


@pytest.mark.parametrize("kind", [cuda.HOST_TO_DEVICE, cuda.DEVICE_TO_HOST])
def test_a_missing_copy_is_found(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    machine, copy = Machine(), cuda.Device.copy

    def forgetful(self: cuda.Device, target: int, source: int, nbytes: int, way: int) -> None:
        if way != kind:
            copy(self, target, source, nbytes, way)

    monkeypatch.setattr(cuda.Device, "copy", forgetful)
    assert not np.all(answer(machine) == 8)


def test_a_missing_wait_is_found(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(cuda.Device, "synchronize", lambda self: None)
    assert not np.all(answer(machine) == 8)


def test_a_wrong_order_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()

    def last_first(work: Callable[[], None]) -> None:
        machine.gpu.queue.insert(0, work)

    monkeypatch.setattr(machine.gpu, "enqueue", last_first)
    assert not np.all(answer(machine) == 8)


def test_a_stale_address_is_found(machine: Machine) -> None:
    second = machine.open(decoder())
    first = machine.open(encoder())
    a, b = (first.run({"image": image}, keep=["embedding"])["embedding"] for image in (A, B))
    second.run({"embedding": a, "points": ONE})
    context = second._contexts[0]
    context.set_tensor_address = lambda name, address: True  # keeps what it was given for A
    assert not np.all(second.run({"embedding": b, "points": ONE})["masks"] == 182)
    a.close()
    with pytest.raises(DeviceError, match="700"):
        second.run({"embedding": b, "points": ONE})


def test_memory_freed_too_early_is_found(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    def at_once(self: cuda.Device, function: str, pointer: int) -> None:
        self._library.call(function, pointer)

    monkeypatch.setattr(cuda.Device, "release", at_once)
    kept = machine.open(encoder()).run({"image": A}, keep=["embedding"])["embedding"]
    session = machine.open(decoder())
    execute = session._execute

    def free_then_wait(*args: Any) -> None:
        execute(*args)
        kept.close()

    session._execute = free_then_wait
    with pytest.raises(DeviceError, match="700, expected 0: an illegal memory access"):
        session.run({"embedding": kept, "points": ONE})


def test_an_embedding_that_does_not_own_its_memory_is_found(machine: Machine) -> None:
    class Sharing(TrtSession):
        shared: Any = None

        def _fresh(self, name: str, shape: tuple[int, ...]) -> Any:
            self.shared = self.shared or super()._fresh(name, shape)
            return self.shared

    assert np.all(answer(machine, Sharing) == 182)  # B's mask, asked for A's


def test_the_same_early_free_waits_in_the_real_runtime(machine: Machine) -> None:
    kept = machine.open(encoder()).run({"image": A}, keep=["embedding"])["embedding"]
    session = machine.open(decoder())
    execute = session._execute

    def free_then_wait(*args: Any) -> None:
        execute(*args)
        kept.close()

    session._execute = free_then_wait
    assert np.all(session.run({"embedding": kept, "points": ONE})["masks"] == 8)
