"""ONNX Runtime, on the CPU ("ort-cpu") or through its CUDA provider ("ort-cuda")."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from boothsam.runtime.backends.base import Array, DeviceTensor, TensorSpec, check_feeds
from boothsam.runtime.backends.external import check_locations
from boothsam.runtime.errors import BackendUnavailable, ModelError, TensorError

# From 1.29 on ONNX Runtime for Linux reports to its maker, unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime as ort
except ImportError as error:
    raise BackendUnavailable(
        f"ONNX Runtime is not installed ({error})",
        hint="pip install 'boothsam[cpu]' (or 'boothsam[gpu]' with an NVIDIA GPU)",
    ) from None

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(bool)": np.dtype(np.bool_),
}


def available_devices() -> tuple[str, ...]:
    """The devices this build of ONNX Runtime has a provider for: "cpu", perhaps "cuda"."""
    present = ort.get_available_providers()
    return tuple(device for device, provider in PROVIDERS.items() if provider in present)


@functools.cache
def _load_cuda() -> None:
    """Load CUDA and cuDNN from pip's nvidia packages, which no linker finds by itself; elsewhere the linker does."""
    preload = getattr(ort, "preload_dlls", None)  # from 1.21 on
    if preload is not None and importlib.util.find_spec("nvidia") is not None:
        preload()


class OrtTensor:
    """A DeviceTensor around an OrtValue, which owns its memory."""

    def __init__(self, value: Any, device: str, dtype: np.dtype[Any]) -> None:
        self._value = value
        self._device = device
        self._dtype = dtype
        self._shape = tuple(int(side) for side in value.shape())

    @property
    def device(self) -> str:
        return self._device

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def nbytes(self) -> int:
        return int(np.prod(self._shape)) * self._dtype.itemsize

    @property
    def value(self) -> Any:
        """The OrtValue, for sessions of this module."""
        if self._value is None:
            raise TensorError("this tensor was closed")
        return self._value

    def numpy(self) -> Array:
        return np.array(self.value.numpy())

    def close(self) -> None:
        self._value = None


class OrtSession:
    """One graph in ONNX Runtime.

    model: the serialised graph, already hash-checked. external_data: the one file beside it that may hold tensors
    (graphs over 2 GiB), already hash-checked; any other place that the graph names is refused.
    threads: intra-op threads; None takes every core that the process may use.
    """

    def __init__(
        self, model: bytes, *, device: str = "cpu", threads: int | None = None, external_data: Path | None = None
    ) -> None:
        if device not in available_devices():
            raise BackendUnavailable(
                f"ONNX Runtime {ort.__version__} has no {PROVIDERS.get(device, device)}; "
                f"it has {', '.join(ort.get_available_providers())}",
                hint="pip uninstall onnxruntime && pip install 'boothsam[gpu]' (both packages together hide the GPU)",
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.log_severity_level = 3
        # Encoder and decoder have a pool each; threads that spin after a run take the cores from the other one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if device == "cpu":
            # Planning which tensors share memory compares every tensor of unknown size with all before it: half of the
            # time that the starter's decoders took to load. The arena shares it as well when they run.
            options.enable_mem_reuse = False
        check_locations(model, external_data)
        if external_data is not None:
            folder = str(external_data.parent)
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        providers: list[Any] = [PROVIDERS["cpu"]]
        if device == "cuda":
            _load_cuda()
            # TF32 rounds products to 10 bits: not FP32, and not proven.
            providers.insert(0, (PROVIDERS["cuda"], {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}))
        try:
            self._session = ort.InferenceSession(model, options, providers=providers)
        except Exception as error:  # ONNX Runtime's classes share no public base
            raise ModelError(
                f"ONNX Runtime {ort.__version__} cannot load the graph: {error}", hint="export the model again"
            ) from None
        if PROVIDERS[device] not in self._session.get_providers():
            raise BackendUnavailable(
                f"ONNX Runtime fell back to {self._session.get_providers()}: CUDA or cuDNN could not be loaded",
                hint="boothsam doctor shows what is missing",
            )
        self._device = f"ort:{device}" if device == "cpu" else f"ort:{device}:0"
        self._inputs = {i.name: _spec(i) for i in self._session.get_inputs()}
        self._outputs = {o.name: _spec(o) for o in self._session.get_outputs()}

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._outputs

    @property
    def device(self) -> str:
        return self._device

    def run(self, feeds: Mapping[str, Array | DeviceTensor], keep: Collection[str] = ()) -> dict[str, Any]:
        if self._session is None:
            raise TensorError("this session was closed")
        check_feeds(self._inputs, self._outputs, feeds, keep, self._device)
        binding = self._session.io_binding()
        for name, value in feeds.items():
            if isinstance(value, OrtTensor):
                binding.bind_ortvalue_input(name, value.value)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
        place = self._device.split(":")[1]
        for name in self._outputs:
            binding.bind_output(name, place if name in keep else "cpu")
        self._session.run_with_iobinding(binding)
        results = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        return {
            name: OrtTensor(value, self._device, self._outputs[name].dtype)
            if name in keep
            else np.array(value.numpy(), copy=True)
            for name, value in results.items()
        }

    def close(self) -> None:
        self._session = None


def _spec(node: Any) -> TensorSpec:
    return TensorSpec(_DTYPES[node.type], tuple(side if isinstance(side, int) else None for side in node.shape))
