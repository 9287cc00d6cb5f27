"""OpenVINO on the CPU ("ov")."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from boothsam.runtime.backends.base import Array, DeviceTensor, TensorSpec, check_feeds
from boothsam.runtime.backends.external import check_locations
from boothsam.runtime.backends.host import HostTensor
from boothsam.runtime.errors import BackendUnavailable, ModelError, TensorError


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """OpenVINO's import brings its converter, which reports to its maker where this module is found."""
    absent = object()
    before: Any = sys.modules.get("openvino_telemetry", absent)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # what the import system calls "not found"
    try:
        yield
    finally:
        del sys.modules["openvino_telemetry"]
        if before is not absent:
            sys.modules["openvino_telemetry"] = before


try:
    with _quiet():
        import openvino
        from openvino import opset13
except ImportError as error:
    raise BackendUnavailable(f"OpenVINO is not installed ({error})", hint="pip install 'boothsam[openvino]'") from None

_DEVICE = "ov:cpu"


class OvSession:
    """One graph in OpenVINO, on the CPU, in FP32 whatever the processor would like better.

    model: the serialised ONNX graph, already hash-checked. threads: None takes every core that the process may use.
    Runs from several threads at once each take an inference request of their own.
    """

    def __init__(self, model: bytes, *, threads: int | None = None, external_data: Path | None = None) -> None:
        check_locations(model, external_data)
        if external_data is not None:
            raise BackendUnavailable(
                f"OpenVINO reads {external_data.name} only from a path, which could change after it was hash-checked",
                hint="use --backend ort-cpu for models over 2 GiB",
            )
        settings = {
            # Processors with bfloat16 would compute in it: not FP32, and not proven.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
            # Encoder and decoder have a pool each, and other processes live here: no thread owns a core.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            network = openvino.Core().read_model(model)
            _repeat_addends(network)
            # Compiling merges tensors and adds inner names to the ports; their order stays.
            self._inputs = {port.any_name: _spec(port) for port in network.inputs}
            self._outputs = {port.any_name: _spec(port) for port in network.outputs}
            self._network: Any = openvino.Core().compile_model(network, "CPU", settings)
        except Exception as error:  # OpenVINO raises plain RuntimeErrors
            raise ModelError(
                f"OpenVINO {openvino.__version__} cannot load the graph: {str(error).strip().splitlines()[-1]}",
                hint="boothsam doctor lists the other backends",
            ) from None
        self._requests: list[Any] = []
        self._lock = threading.Lock()

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._outputs

    @property
    def device(self) -> str:
        return _DEVICE

    def run(self, feeds: Mapping[str, Array | DeviceTensor], keep: Collection[str] = ()) -> dict[str, Any]:
        if self._network is None:
            raise TensorError("this session was closed")
        check_feeds(self._inputs, self._outputs, feeds, keep, _DEVICE)
        # The request reads these arrays while it runs and is given others the next time: nothing is copied.
        arrays = [value.array if isinstance(value := feeds[name], HostTensor) else np.ascontiguousarray(value)
                  for name in self._inputs]  # fmt: skip
        results: dict[str, Array] = {}
        with self._request() as request:
            for index, array in enumerate(arrays):
                request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
            for index, (name, spec) in enumerate(self._outputs.items()):
                shape = tuple(side for side in spec.shape if side is not None)
                if len(shape) == len(spec.shape):
                    # Written in place: the caller owns the memory without a copy.
                    results[name] = np.empty(shape, spec.dtype)
                    request.set_output_tensor(index, openvino.Tensor(results[name], shared_memory=True))
            request.infer()
            for index, name in enumerate(self._outputs):
                if name not in results:
                    results[name] = np.array(request.get_output_tensor(index).data)
        return {name: HostTensor(results[name], _DEVICE) if name in keep else results[name] for name in self._outputs}

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        with self._lock:
            request = self._requests.pop() if self._requests else self._network.create_infer_request()
        yield request
        # Not after an error: what state the request is in then is OpenVINO's secret.
        with self._lock:
            self._requests.append(request)

    def close(self) -> None:
        self._network = None
        self._requests = []


def _spec(port: Any) -> TensorSpec:
    shape = tuple(int(side.get_length()) if side.is_static else None for side in port.partial_shape)
    return TensorSpec(np.dtype(port.element_type.to_dtype()), shape)


def _repeat_addends(network: Any) -> None:
    """Repeat what is added to a convolution once for all prompts, where the number of prompts is free.

    OpenVINO's CPU plugin (2026.4) computes such an Add inside the convolution and takes that operand's shape for the
    shape of the sum: two prompts and more fail. Broadcasts and differences it turns back into the Add; a Gather stays.
    """
    first = opset13.constant(np.zeros(1, np.int32))
    axis = opset13.constant(np.int32(0))
    for node in network.get_ordered_ops():
        shapes = [entry.get_partial_shape() for entry in node.inputs()]
        if node.get_type_name() != "Add" or any(shape.rank.is_dynamic or len(shape) != 4 for shape in shapes):
            continue
        for mine, other in ((0, 1), (1, 0)):
            sums = node.input_value(other)
            if shapes[mine].is_static and shapes[mine][0] == 1 and shapes[other][0].is_dynamic and _convolves(sums):
                prompts = opset13.gather(opset13.shape_of(sums), first, axis)
                repeated = opset13.gather(node.input_value(mine), opset13.broadcast(first, prompts), axis)
                node.input(mine).replace_source_output(repeated.output(0))
    network.validate_nodes_and_infer_types()


def _convolves(value: Any) -> bool:
    """Whether a convolution made it, or the bias after one."""
    node = value.get_node()
    if node.get_type_name() == "Add":
        return any(source.get_node().get_type_name() == "Convolution" for source in node.input_values())
    return bool(node.get_type_name() == "Convolution")
