"""Triton Inference Server as far as a repository of `boothsam export-triton` uses it: no server, but its rules.

Graphs are really executed (ONNX Runtime), model.py is really imported, and what Triton refuses is refused here: rules
and messages follow its sources (triton-inference-server/core: infer_request.cc, model_config_utils.cc; python_backend:
infer_request.cc, pb_tensor.cc, response_sender.cc). What it lends a Python model is overwritten when its time is over:
a request's tensors when `execute` has returned, a response's when its tensor object is gone.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

Array = npt.NDArray[Any]
UTILS = "triton_python_backend_utils"
ANSWER_S = 60  # a model that answers never must fail a test, not hang it
FINAL = 1
NUMPY = {"TYPE_BOOL": "bool", "TYPE_UINT8": "uint8", "TYPE_INT32": "int32", "TYPE_INT64": "int64",
         "TYPE_FP16": "float16", "TYPE_FP32": "float32", "TYPE_STRING": "object"}  # fmt: skip
ORT = {"tensor(bool)": "bool", "tensor(uint8)": "uint8", "tensor(int32)": "int32", "tensor(int64)": "int64",
       "tensor(float16)": "float16", "tensor(float)": "float32"}  # fmt: skip
PAIRS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan", "python": ""}


class TritonModelException(Exception):
    """What a model may raise, and what the Python backend raises at a misuse."""


class TritonError:
    """An error that travels in a response."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        if not isinstance(message, str) or code not in range(8):
            raise TypeError(f"TritonError({message!r}, {code!r})")
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class Refused(Exception):
    """A request that the server, or a model, answered with an error."""

    def __init__(self, message: str, code: int = TritonError.INVALID_ARG) -> None:
        super().__init__(message)
        self.message, self.code = message, code


class Tensor:
    """As `pb_utils.Tensor`: dtypes that Triton has, C order."""

    def __init__(self, name: str, array: Array) -> None:
        if not name or not isinstance(array, np.ndarray) or str(array.dtype) not in NUMPY.values():
            raise TritonModelException(f"no tensor can be made of {name!r}, {getattr(array, 'dtype', type(array))}")
        self._name, self._array = name, np.ascontiguousarray(array)

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Array:
        return self._array

    def is_cpu(self) -> bool:
        return True


class LentTensor(Tensor):
    """Memory of the server's: gone with this object, or with the request that it came with."""

    def __init__(self, name: str, array: Array) -> None:
        super().__init__(name, np.array(array, copy=True))

    def take_back(self) -> None:
        if self._array.dtype != np.object_:
            self._array.reshape(-1).view(np.uint8)[:] = 0xA5

    __del__ = take_back


class PreferredMemory:
    def __init__(self, kind: int, device_id: int = 0) -> None:
        if kind not in (0, 1):
            raise TritonModelException(f"unknown memory type {kind}")
        self.kind = kind


class InferenceResponse:
    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        if not all(isinstance(tensor, Tensor) for tensor in output_tensors):
            raise TritonModelException("Output tensor in response should not be None")
        self._tensors, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error


class Sender:
    """The response sender of a model that is not decoupled: exactly one response."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self.is_cancelled = cancelled
        self.response: Future[InferenceResponse] = Future()
        self._lock = threading.Lock()
        self._sent = False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        with self._lock:
            if self._sent or response is None:
                raise TritonModelException("Unable to send response. Non-decoupled model sends one response.")
            if flags not in (0, FINAL):
                raise TritonModelException("Unable to send response. Unsupported flag provided.")
            self._sent = True
        self.response.set_result(response)


class Request:
    """What `execute` is handed."""

    def __init__(self, tensors: Sequence[LentTensor], wanted: Sequence[str], cancelled: Callable[[], bool]) -> None:
        self._tensors, self._wanted = list(tensors), list(wanted)
        self._cancelled = cancelled
        self.sender = Sender(cancelled)
        self.released = False  # set when `execute` has returned: from then on the sender is all there is

    def is_cancelled(self) -> bool:
        assert not self.released
        return self._cancelled()

    def inputs(self) -> list[LentTensor]:
        return self._tensors

    def requested_output_names(self) -> list[str]:
        return self._wanted

    def get_response_sender(self) -> Sender:
        return self.sender


def read_config(path: Path) -> Any:
    """config.pbtxt by Triton's own schema, refused where the server would not load the model."""
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    name = path.parent.name
    if config.name != name:
        raise Refused(f"unexpected directory name {name!r} for model {config.name!r}")
    if config.backend not in PAIRS or config.platform != PAIRS[config.backend]:
        raise Refused(f"unexpected 'platform' and 'backend' pair, got: {config.platform}, {config.backend}")
    if config.max_batch_size < 0 or not config.HasField("version_policy") or not config.instance_group:
        raise Refused(f"{name}: max_batch_size, version_policy and instance_group are needed")
    for tensor in (*config.input, *config.output):
        if not tensor.name or not tensor.dims or any(side < 1 and side != -1 for side in tensor.dims):
            raise Refused(f"{name}: {tensor.name!r} has the dims {list(tensor.dims)}; expected at least 1, or -1")
    for version in config.version_policy.specific.versions:
        if not (path.parent / str(version) / config.default_model_filename).is_file():
            raise Refused(f"unable to find {version}/{config.default_model_filename} of {name}")
    return config


def dtype_of(tensor: Any) -> str:
    return NUMPY[model_config_pb2.DataType.Name(tensor.data_type)]


def _fits(dims: Sequence[int], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(d in (-1, s) for d, s in zip(dims, shape, strict=True))


class Server:
    """A repository, loaded.

    calls: how often each model ran. taken: how many requests a Python model's `execute` took and returned from.
    before: hooks that run before a model does. log: lines.
    """

    def __init__(self, repository: Path) -> None:
        self.calls: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.before: dict[str, Callable[[], None]] = {}
        self.log: list[str] = []
        self._python: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._graphs: dict[str, ort.InferenceSession] = {}
        self._running = False
        self.configs = {p.parent.name: read_config(p) for p in sorted(repository.glob("*/config.pbtxt"))}
        folders = {path.name for path in repository.iterdir() if path.is_dir()}
        if folders != self.configs.keys():
            raise Refused(f"folders without a model: {sorted(folders - self.configs.keys())}")
        for name, config in self.configs.items():
            (version,) = config.version_policy.specific.versions
            file = repository / name / str(version) / config.default_model_filename
            self._locks[name] = threading.Lock()
            if config.backend == "onnxruntime":
                self._graphs[name] = _load_graph(config, file)
            elif config.backend == "python":
                self._python[name] = self._load_python(config, file)
            else:
                raise Refused(f"{config.backend} needs a GPU")
        self._running = True

    def close(self) -> None:
        self._running = False  # "BLS is only supported during the 'execute' function."
        for model in self._python.values():
            model.finalize()

    def infer(
        self,
        name: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] = (),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> dict[str, Array]:
        """What a client gets. Raises Refused."""
        tensors = [LentTensor(key, np.asarray(value)) for key, value in inputs.items()]
        response = self._run(name, tensors, list(outputs), cancelled)
        error = response.error()
        if error is not None:
            raise Refused(error.message(), error.code())
        return {t.name(): np.array(t.as_numpy(), copy=True) for t in response.output_tensors()}

    def _run(
        self, name: str, tensors: Sequence[Tensor], wanted: list[str], cancelled: Callable[[], bool]
    ) -> InferenceResponse:
        config = self.configs.get(name)
        if config is None:
            return InferenceResponse(error=TritonError(f"unknown model {name!r}", TritonError.NOT_FOUND))
        try:
            _check(config, tensors, wanted)
        except Refused as error:
            return InferenceResponse(error=TritonError(error.message, error.code))
        wanted = wanted or [output.name for output in config.output]
        self.calls[name] += 1
        if name in self.before:
            self.before[name]()
        if config.backend == "onnxruntime":
            with self._locks[name]:  # one instance
                try:
                    found = self._graphs[name].run(wanted, {t.name(): t.as_numpy() for t in tensors})
                except Exception as error:  # ONNX Runtime's classes
                    return InferenceResponse(error=TritonError(f"onnx runtime error: {error}"))
            response = InferenceResponse([LentTensor(key, value) for key, value in zip(wanted, found, strict=True)])
        else:
            response = self._execute(name, tensors, wanted, cancelled)
        if not response.has_error():
            _check_outputs(config, response, wanted)
        return response

    def _execute(
        self, name: str, tensors: Sequence[Tensor], wanted: list[str], cancelled: Callable[[], bool]
    ) -> InferenceResponse:
        lent = [LentTensor(t.name(), t.as_numpy()) for t in tensors]
        request = Request(lent, wanted, cancelled)
        with self._locks[name]:  # a Python model's `execute` runs once at a time
            returned = self._python[name].execute([request])
            self.taken[name] += 1
        request.released = True
        for tensor in lent:
            tensor.take_back()
        if returned is None:
            return request.sender.response.result(timeout=ANSWER_S)
        (response,) = returned
        assert isinstance(response, InferenceResponse)
        return response

    def _load_python(self, config: Any, file: Path) -> Any:
        spec = importlib.util.spec_from_file_location(f"triton_model_{id(self)}", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        before = sys.modules.get(UTILS)
        sys.modules[UTILS] = self._utils()
        try:
            spec.loader.exec_module(module)
            model = module.TritonPythonModel()
            kind = model_config_pb2.ModelInstanceGroup.Kind.Name(config.instance_group[0].kind).removeprefix("KIND_")
            arguments = {
                "model_config": json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True)),
                "model_instance_kind": kind,
                "model_instance_device_id": "0",
                "model_repository": str(file.parents[1]),
                "model_version": file.parent.name,
                "model_name": config.name,
            }
            assert all(isinstance(value, str) for value in arguments.values())
            model.initialize(arguments)
        finally:
            if before is None:
                del sys.modules[UTILS]
            else:
                sys.modules[UTILS] = before
        return model

    def _utils(self) -> ModuleType:
        server = self

        class InferenceRequest:
            """A request of a model to another one."""

            def __init__(
                self,
                *,
                model_name: str,
                requested_output_names: list[str],
                inputs: list[Tensor],
                model_version: int = -1,
                preferred_memory: PreferredMemory | None = None,
            ) -> None:
                if not all(isinstance(tensor, Tensor) for tensor in inputs) or "" in requested_output_names:
                    raise TritonModelException("Input tensors and requested output names should not be empty.")
                if model_version not in (-1, 1):
                    raise TritonModelException(f"version {model_version} is not at available")
                if preferred_memory is None or preferred_memory.kind != 0:
                    raise TritonModelException("the answer may lie on a GPU: as_numpy would raise")
                self._order = model_name, inputs, list(requested_output_names)

            def exec(self) -> InferenceResponse:
                if not server._running:
                    raise TritonModelException("BLS is only supported during the 'execute' function.")
                return server._run(*self._order, cancelled=lambda: False)

        class Logger:
            @staticmethod
            def log_error(message: str) -> None:
                server.log.append(message)

        utils = ModuleType(UTILS)
        utils.__dict__.update(
            Tensor=Tensor,
            TritonError=TritonError,
            TritonModelException=TritonModelException,
            InferenceRequest=InferenceRequest,
            InferenceResponse=InferenceResponse,
            PreferredMemory=PreferredMemory,
            Logger=Logger,
            TRITONSERVER_MEMORY_CPU=0,
            TRITONSERVER_MEMORY_GPU=1,
            TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
        )
        return utils


def _load_graph(config: Any, file: Path) -> ort.InferenceSession:
    """The backend compares the configuration with the graph before it serves it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    for ours, theirs in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        facts = {node.name: (ORT[node.type], node.shape) for node in theirs}
        for tensor in ours:
            if tensor.name not in facts:
                raise Refused(f"unexpected inference tensor {tensor.name!r}, allowed are {sorted(facts)}")
            dtype, shape = facts[tensor.name]
            sides = [side if isinstance(side, int) else -1 for side in shape]
            if dtype != dtype_of(tensor) or sides != list(tensor.dims):
                raise Refused(f"{config.name} {tensor.name}: the graph has {dtype} {sides}, not {tensor}")
    if len(config.input) != len(session.get_inputs()):
        raise Refused(f"expected {len(session.get_inputs())} inputs of {config.name}, got {len(config.input)}")
    return session


def _check(config: Any, tensors: Sequence[Tensor], wanted: Sequence[str]) -> None:
    """Of infer_request.cc, Normalize: outputs, number of inputs, names, types, shapes."""
    known = {tensor.name: tensor for tensor in config.input}
    for name in wanted:
        if name not in {output.name for output in config.output}:
            raise Refused(f"unexpected inference output {name!r} for model {config.name!r}")
    names = [tensor.name() for tensor in tensors]
    missing = [tensor.name for tensor in config.input if not tensor.optional and tensor.name not in names]
    if missing or len(names) > len(known) or len(set(names)) != len(names):
        raise Refused(f"got inputs {names} for model {config.name!r}, but missing required inputs {missing}")
    for tensor in tensors:
        spec = known.get(tensor.name())
        if spec is None:
            raise Refused(f"unexpected inference input {tensor.name()!r} for model {config.name!r}")
        found = tensor.as_numpy()
        if str(found.dtype) != dtype_of(spec):
            raise Refused(f"inference input {tensor.name()!r} data-type is {found.dtype}, expected {dtype_of(spec)}")
        if not _fits(spec.dims, found.shape):
            raise Refused(f"unexpected shape for input {tensor.name()!r}. Expected {spec.dims}, got {found.shape}")


def _check_outputs(config: Any, response: InferenceResponse, wanted: Sequence[str]) -> None:
    """What the configuration promises: Triton itself does not look at a Python model's shapes."""
    known = {output.name: output for output in config.output}
    assert sorted(tensor.name() for tensor in response.output_tensors()) == sorted(wanted)
    for tensor in response.output_tensors():
        spec, found = known[tensor.name()], tensor.as_numpy()
        assert str(found.dtype) == dtype_of(spec) and _fits(spec.dims, found.shape), (tensor.name(), found.shape)
