"""A graph that Triton Inference Server runs, as a session: to a SamModel it is one more backend.

The calls are those of Triton's Python backend for "Business Logic Scripting" (triton-inference-server/python_backend,
README). Results come to host memory and are copied out of it: what Triton lends lives in a shared memory region as long
as its tensor object does, and a cache would fill that region.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from boothsam.runtime.backends.base import Array, DeviceTensor, TensorSpec, check_feeds
from boothsam.runtime.backends.host import HostTensor
from boothsam.runtime.errors import DeviceError

DEVICE = "triton:host"


class TritonSession:
    """One model of the server that this process serves. Safe from any thread, as Triton's `exec` is.

    triton: the module `triton_python_backend_utils`, which exists inside of Triton only. model, version: which one.
    inputs, outputs: as its config.pbtxt says.
    """

    def __init__(
        self,
        triton: Any,
        model: str,
        version: int,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
    ) -> None:
        self._triton, self._model, self._version = triton, model, version
        self._inputs, self._outputs = dict(inputs), dict(outputs)

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._outputs

    @property
    def device(self) -> str:
        return DEVICE

    def run(self, feeds: Mapping[str, Array | DeviceTensor], keep: Collection[str] = ()) -> dict[str, Any]:
        """As `Session.run`.

        Raises:
            TensorError: feeds that do not fit. DeviceError: Triton could not run the model, with its words.
        """
        check_feeds(self._inputs, self._outputs, feeds, keep, DEVICE)
        tensors = []
        for name in self._inputs:
            value = feeds[name]
            array = value.array if isinstance(value, HostTensor) else np.asarray(value)
            tensors.append(self._triton.Tensor(name, np.ascontiguousarray(array)))
        response = self._triton.InferenceRequest(
            model_name=self._model,
            model_version=self._version,
            requested_output_names=list(self._outputs),
            inputs=tensors,
            preferred_memory=self._triton.PreferredMemory(self._triton.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise DeviceError(
                f"Triton could not run {self._model!r}: {response.error().message()}",
                hint="look at the server's log; GET v2/models/NAME/ready tells whether it is loaded",
            )
        results: dict[str, Any] = {}
        for tensor in response.output_tensors():
            if tensor.name() in self._outputs:
                array = np.array(tensor.as_numpy(), copy=True)
                results[tensor.name()] = HostTensor(array, DEVICE) if tensor.name() in keep else array
        missing = self._outputs.keys() - results.keys()
        if missing:
            raise DeviceError(
                f"Triton's answer of {self._model!r} lacks {sorted(missing)}", hint="export the repository again"
            )
        return results

    def close(self) -> None:
        """Nothing: the server owns the model."""
