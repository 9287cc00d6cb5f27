"""TensorRT's runtime API over ONNX Runtime: engines that really execute their graph, on the memory of a FakeGpu.

An engine is JSON with the GPU and version it was "built" for, then the ONNX graph. `execute_async_v3` enqueues work
that reads the addresses given by `set_tensor_address` when the stream gets there, runs the graph, and writes the
results.
"""

from __future__ import annotations

import enum
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tests.runtime.fake_gpu import FakeGpu, Fault

VERSION = "10.3.0"
MAGIC = b"FAKE"
Profiles = dict[str, list[list[list[int]]]]

_KINDS = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}
_NUMPY = {"FLOAT": "float32", "UINT8": "uint8", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool",
          "HALF": "float16"}  # fmt: skip
DataType = enum.Enum("DataType", list(_NUMPY))  # type: ignore[misc]  # members from a table


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class Severity(enum.Enum):
    ERROR = 1
    WARNING = 2
    INFO = 3


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1


def make_engine(
    model: bytes, prompts: tuple[int, ...] = (1, 8), points: int = 32, gpu: str = "Fake Orin", version: str = VERSION
) -> bytes:
    """An engine with one profile for each number of prompts. The first free side counts prompts, the second points."""
    free = {}
    for value in onnx.load_from_string(model).graph.input:
        shape = _shape(value)
        if -1 in shape:
            free[value.name] = [
                [_filled(shape, 1, 0), _filled(shape, most, 2), _filled(shape, most, points)] for most in prompts
            ]
    header = {"gpu": gpu, "version": version, "profiles": free, "count": len(prompts) if free else 1}
    return MAGIC + json.dumps(header).encode() + b"\n" + model


def _filled(shape: list[int], prompts: int, points: int) -> list[int]:
    sides = iter((prompts, points))
    return [next(sides) if side < 0 else side for side in shape]


def _shape(value: Any) -> list[int]:
    return [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]


class LayerInformationFormat(enum.Enum):
    ONELINE = 0
    JSON = 1


class ILogger:
    def log(self, severity: Any, text: str) -> None:
        raise NotImplementedError


class FakeTensorRt:
    """Stands for the module `tensorrt` on one GPU.

    context_bytes: device memory that a context takes per prompt.
    """

    ILogger = ILogger
    DataType = DataType
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    LayerInformationFormat = LayerInformationFormat

    def __init__(self, gpu: FakeGpu, version: str = VERSION, context_bytes: int = 0) -> None:
        self.gpu, self.__version__, self.context_bytes = gpu, version, context_bytes

    def Runtime(self, logger: Any) -> Runtime:
        return Runtime(self, logger)


class Runtime:
    def __init__(self, module: FakeTensorRt, logger: Any) -> None:
        self._module, self._logger = module, logger

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        if not data.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "magicTag verification failed")
            return None
        line, _, model = data[len(MAGIC) :].partition(b"\n")
        header = json.loads(line)
        if header["version"] != self._module.__version__:
            self._logger.log(Severity.ERROR, "The engine plan file is not compatible with this version of TensorRT")
            return None
        if header["gpu"] != self._module.gpu.name:
            self._logger.log(Severity.ERROR, "The engine was built for a different compute capability")
            return None
        return Engine(self._module, self._logger, header, model)


class Engine:
    def __init__(self, module: FakeTensorRt, logger: Any, header: dict[str, Any], model: bytes) -> None:
        self.module, self.logger, self.header = module, logger, header
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        graph = onnx.load_from_string(model).graph
        self.inputs = [value.name for value in graph.input]
        self.values = {value.name: value for value in (*graph.input, *graph.output)}
        self.names = list(self.values)

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    @property
    def num_optimization_profiles(self) -> int:
        return int(self.header["count"])

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[_KINDS[self.values[name].type.tensor_type.elem_type]]

    def get_tensor_shape(self, name: str) -> list[int]:
        return _shape(self.values[name])

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        shapes: list[list[int]] = self.header["profiles"][name][index]
        return shapes

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self)

    def create_execution_context(self, strategy: Any) -> Context | None:
        assert strategy is ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        return Context(self)


class Inspector:
    """Tells the engine's inputs and outputs as one layer, in the words of TensorRT 10."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get_engine_information(self, kind: LayerInformationFormat) -> str:
        assert kind is LayerInformationFormat.JSON
        words = {"FLOAT": "Row major linear FP32", "HALF": "Row major linear FP16 format"}
        told = [
            {"Name": n, "Format/Datatype": words.get(self._engine.get_tensor_dtype(n).name, "Other")}
            for n in self._engine.names
        ]
        return json.dumps({"Layers": [{"Name": "all", "LayerType": "Myelin", "Inputs": told, "Outputs": []}, "noise"]})


class Context:
    """Like TensorRT's: knows the addresses it was given last, and says no to what its profile does not take."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._gpu = engine, engine.module.gpu
        self._profile = 0
        self._addresses: dict[str, int] = {}
        self._shapes = {n: tuple(engine.get_tensor_shape(n)) for n in engine.inputs}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        most = max((shapes[index][2][0] for shapes in self._engine.header["profiles"].values()), default=1)
        try:
            self._memory = self._gpu.cudaMalloc(self._engine.module.context_bytes * most)
        except Fault:
            self._engine.logger.log(Severity.ERROR, "Error Code 2: OutOfMemory")
            return False
        self._profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, self._profile)
        fits = all(a <= side <= b for a, side, b in zip(least, shape, most, strict=True))
        if fits:
            self._shapes[name] = tuple(shape)
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        free = [s for n, s in self._shapes.items() if -1 in self._engine.get_tensor_shape(n)]
        first = free[0][0] if free else -1
        return tuple(first if side < 0 else side for side in self._engine.get_tensor_shape(name))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return bool(address)

    def execute_async_v3(self, stream: int) -> bool:
        names = [n for n in self._engine.names if n not in self._addresses]
        if names:
            self._engine.logger.log(Severity.ERROR, f"no address was set for {names}")
            return False
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        self._gpu.log.append("execute")

        def work() -> None:
            feeds = {}
            for name in self._engine.inputs:
                dtype = np.dtype(_NUMPY[self._engine.get_tensor_dtype(name).name])
                count = int(np.prod(shapes[name]))
                data = self._gpu.read(addresses[name], count * dtype.itemsize)
                feeds[name] = np.frombuffer(data, dtype, count).reshape(shapes[name])
            outputs = [n for n in self._engine.names if n not in self._engine.inputs]
            for name, value in zip(outputs, self._engine.session.run(outputs, feeds), strict=True):
                self._gpu.write(addresses[name], np.ascontiguousarray(value).tobytes())

        self._gpu.enqueue(work)
        return True
