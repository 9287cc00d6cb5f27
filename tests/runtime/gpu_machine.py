"""A fake GPU with fake TensorRT, wired into the real `cuda.Device` and `TrtSession`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from boothsam.runtime.backends import cuda
from boothsam.runtime.backends.trt import TrtSession
from boothsam.runtime.backends.trt_library import TensorRt
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.fake_gpu import Bindings, CLibrary, FakeGpu
from tests.runtime.fake_tensorrt import FakeTensorRt, make_engine

FLOAT = np.float32


@dataclass
class Machine:
    """One GPU, reached through cuda-bindings or libcudart."""

    gpu: FakeGpu = field(default_factory=FakeGpu)
    through: str = "bindings"
    context_bytes: int = 0

    def __post_init__(self) -> None:
        library: cuda.Library
        library = cuda.BindingsLibrary(Bindings(self.gpu)) if self.through == "bindings" else self._ctypes()
        self.library = library
        self.device = cuda.Device(library)
        self.trt = TensorRt("tensorrt", FakeTensorRt(self.gpu, context_bytes=self.context_bytes))

    def _ctypes(self) -> cuda.CtypesLibrary:
        return cuda.CtypesLibrary(CLibrary(self.gpu))

    def open(self, model: bytes, cuda_graph: bool = False, kind: type[TrtSession] = TrtSession, **built: Any) -> Any:
        return kind(make_engine(model, **built), device=self.device, tensorrt=self.trt, cuda_graph=cuda_graph)


def serialised(nodes: Any, inputs: Any, outputs: Any, constants: Mapping[str, Any]) -> bytes:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return bytes(model.SerializeToString())


def floats(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def encoder() -> bytes:
    """image (4, 4) uint8 -> embedding (4, 4) = 2 image, extra (2, 4) = its first rows plus one."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [4, 4])
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "two"], ["embedding"]),
        helper.make_node("Slice", ["embedding", "start", "stop"], ["head"]),
        helper.make_node("Add", ["head", "one"], ["extra"]),
    ]
    constants = {"two": FLOAT([2]), "one": FLOAT([1]), "start": np.int64([0]), "stop": np.int64([2])}
    return serialised(nodes, [image], [floats("embedding", 4, 4), floats("extra", 2, 4)], constants)


def decoder() -> bytes:
    """masks (P, 4, 4) = embedding + the sum of each prompt's points; scores (P, 1) = that sum."""
    nodes = [
        helper.make_node("ReduceSum", ["points", "axes"], ["sums"], keepdims=1),
        helper.make_node("Add", ["embedding", "sums"], ["masks"]),
        helper.make_node("Squeeze", ["sums", "last"], ["scores"]),
    ]
    outputs = [floats("masks", "P", 4, 4), floats("scores", "P", 1)]
    inputs = [floats("embedding", 4, 4), floats("points", "P", "N", 2)]
    return serialised(nodes, inputs, outputs, {"axes": np.int64([1, 2]), "last": np.int64([2])})
