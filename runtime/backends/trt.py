"""TensorRT ("trt"): engines from the store, run without torch.

An engine is built for one GPU and one TensorRT by `boothsam build`; `open_engine` finds the one for a graph. Sessions
share the GPU's stream. What is kept owns its memory; whatever else a run uses belongs to the session and is used again.
On an integrated GPU host and device share memory: feeds and results are used in place, nothing is copied.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from boothsam.runtime import engine_files
from boothsam.runtime.backends import cuda
from boothsam.runtime.backends.base import Array, DeviceTensor, TensorSpec, check_feeds
from boothsam.runtime.backends.trt_library import TensorRt, library
from boothsam.runtime.errors import DeviceError, EngineError, TensorError

Shape = tuple[int, ...]
CUDA_GRAPH = "BOOTHSAM_CUDA_GRAPH"  # "1" records CUDA graphs; off until a device showed that they pay
MOST_GRAPHS = 8  # recorded CUDA graphs per session, the least recently used goes
_DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}


def open_engine(model: bytes, *, threads: int | None = None, external_data: Path | None = None) -> TrtSession:
    """A session on the verified engine of a serialised ONNX graph, for this GPU and this TensorRT.

    threads: without meaning here. external_data: the file with the graph's weights, if it has one.

    Raises:
        BackendUnavailable: no TensorRT, no GPU, or no engine of this graph.
        EngineError: there are engines of this graph, for another GPU or TensorRT. IntegrityError: an altered one.
    """
    trt = library()
    device = cuda.open_device()
    found = engine_files.find(engine_files.graph_sha256(model, external_data), engine_files.identify(trt, device))
    graphed = os.environ.get(CUDA_GRAPH) == "1"
    return TrtSession(found.read(), device=device, tensorrt=trt, cuda_graph=graphed)


class TrtTensor:
    """A DeviceTensor in the GPU's memory."""

    def __init__(self, device: cuda.Device, buffer: cuda.DeviceBuffer, dtype: np.dtype[Any], shape: Shape) -> None:
        self._device, self._buffer, self._dtype, self._shape = device, buffer, dtype, shape

    @property
    def device(self) -> str:
        return f"trt:cuda:{self._device.index}"

    @property
    def shape(self) -> Shape:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def nbytes(self) -> int:
        return int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize

    @property
    def pointer(self) -> int:
        """The address on the GPU, for sessions of this module."""
        if self._buffer.closed:
            raise TensorError("this tensor was closed")
        return self._buffer.pointer

    def numpy(self) -> Array:
        with self._device.lock:
            self._device.use()
            host = self._device.allocate_host(self.nbytes)
            self._device.copy(host.pointer, self.pointer, self.nbytes, cuda.DEVICE_TO_HOST)
            self._device.synchronize()
            result = host.view(self._dtype, self._shape).copy()
            host.close()
        return result

    def close(self) -> None:
        self._buffer.close()


class TrtSession:
    """One engine. Runs of all threads take turns.

    engine: a serialised engine, already hash-checked: deserialising runs code that is in it.
    cuda_graph: record each shape's work once and replay it. Costs a copy of every DeviceTensor that is fed or kept,
    since a recording holds fixed addresses; worth it where launching many small kernels takes longer than running them.
    """

    def __init__(self, engine: bytes, *, device: cuda.Device, tensorrt: TensorRt, cuda_graph: bool = False) -> None:
        self._gpu, self._trt, self._graphed = device, tensorrt, cuda_graph
        with device.lock:
            device.use()
            self._engine: Any = tensorrt.deserialize(engine)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        specs = {name: self._spec(name) for name in names}
        is_input = {name: self._engine.get_tensor_mode(name).name == "INPUT" for name in names}
        self._inputs = {name: spec for name, spec in specs.items() if is_input[name]}
        self._outputs = {name: spec for name, spec in specs.items() if not is_input[name]}
        self._free = [name for name, spec in self._inputs.items() if None in spec.shape]
        self._profiles = [
            {name: tuple(tuple(s) for s in self._engine.get_tensor_profile_shape(name, i)) for name in self._free}
            for i in range(self._engine.num_optimization_profiles)
        ]
        # Sides that count prompts: more of them than any profile takes are run in turns.
        self._batched = {name for name in self._free if self._inputs[name].shape[0] is None}
        self._contexts: dict[int, Any] = {}
        self._hosts: dict[str, cuda.HostBuffer] = {}
        self._buffers: dict[str, cuda.DeviceBuffer] = {}
        self._recorded: OrderedDict[tuple[Any, ...], cuda.Graph] = OrderedDict()

    def _spec(self, name: str) -> TensorSpec:
        found = self._engine.get_tensor_dtype(name).name
        if found not in _DTYPES:
            raise EngineError(
                f"the engine's tensor {name} is of type {found}; expected one of {', '.join(_DTYPES)}",
                hint="boothsam build --force",
            )
        shape = tuple(None if side < 0 else int(side) for side in self._engine.get_tensor_shape(name))
        return TensorSpec(_DTYPES[found], shape)

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._outputs

    @property
    def device(self) -> str:
        return f"trt:cuda:{self._gpu.index}"

    @property
    def most_prompts(self) -> int | None:
        """The longest first side that one run of the engine takes; None when none of its first sides is free."""
        most = [int(profile[name][2][0]) for profile in self._profiles for name in self._batched]
        return max(most, default=None)

    def run(self, feeds: Mapping[str, Array | DeviceTensor], keep: Collection[str] = ()) -> dict[str, Any]:
        """As `Session.run`; more prompts than the engine takes at once are run in turns.

        Raises:
            TensorError: feeds that no profile of the engine takes, too.
            DeviceError: the GPU is out of memory, or failed.
        """
        with self._gpu.lock:
            if self._engine is None:
                raise TensorError("this session was closed")
            check_feeds(self._inputs, self._outputs, feeds, keep, self.device)
            self._gpu.use()
            counts = {int(feeds[name].shape[0]) for name in self._batched}
            most = self.most_prompts
            if most is None or max(counts) <= most:
                return self._run_once(feeds, keep)
            return self._run_in_turns(feeds, keep, counts, most)

    def _run_in_turns(
        self, feeds: Mapping[str, Any], keep: Collection[str], counts: set[int], most: int
    ) -> dict[str, Any]:
        if len(counts) > 1:
            raise TensorError(f"the numbers of prompts differ between inputs: {sorted(counts)}; expected one")
        if keep:
            raise TensorError(
                f"{max(counts)} prompts are run {most} at a time, which keeps nothing on the GPU",
                hint=f"keep the results of up to {most} prompts at a time",
            )
        batched = {name: _on_host(feeds[name]) for name in self._batched}
        parts = []
        for start in range(0, max(counts), most):
            part = {name: value[start : start + most] for name, value in batched.items()}
            parts.append(self._run_once({**feeds, **part}, ()))
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run_once(self, feeds: Mapping[str, Any], keep: Collection[str]) -> dict[str, Any]:
        shapes = {name: tuple(feeds[name].shape) for name in self._inputs}
        profile = self._choose_profile(shapes)
        context = self._context(profile)
        for name in self._free:
            if not context.set_input_shape(name, shapes[name]):
                raise EngineError(
                    self._trt.explain(f"the engine refused {name} of shape {shapes[name]}"),
                    hint="boothsam build --force",
                )
        addresses = {name: self._feed(name, feeds[name]) for name in self._inputs}
        results = {name: tuple(int(side) for side in context.get_tensor_shape(name)) for name in self._outputs}
        kept: dict[str, TrtTensor] = {}
        for name, shape in results.items():
            if min(shape, default=0) < 0:
                raise EngineError(f"the engine does not know the shape of {name}: {shape}", hint="boothsam doctor")
            if name in keep:
                kept[name] = self._fresh(name, shape)
            if name in kept and not self._graphed:
                addresses[name] = kept[name].pointer
            else:
                addresses[name] = self._place(name, self._nbytes(self._outputs[name], shape))
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineError(
                    self._trt.explain(f"the engine refused the address of {name}"), hint="boothsam build --force"
                )
        self._execute(context, (profile, *shapes.values(), *addresses.values()))
        for name, tensor in kept.items():
            if self._graphed:
                self._gpu.copy(tensor.pointer, addresses[name], tensor.nbytes, cuda.DEVICE_TO_DEVICE)
        fetched = {name: shape for name, shape in results.items() if name not in kept}
        for name, shape in fetched.items():
            if name in self._buffers:
                size = self._nbytes(self._outputs[name], shape)
                self._gpu.copy(self._hosts[name].pointer, addresses[name], size, cuda.DEVICE_TO_HOST)
        # Also with nothing to fetch: what was fed from pinned memory may be overwritten by the next run.
        self._gpu.synchronize()
        # A copy: the pinned memory is used again.
        return {
            name: kept[name] if name in kept else self._hosts[name].view(spec.dtype, fetched[name]).copy()
            for name, spec in self._outputs.items()
        }

    def _choose_profile(self, shapes: Mapping[str, Shape]) -> int:
        """The first profile, which is the smallest, that takes these shapes."""
        for index, profile in enumerate(self._profiles):
            if all(
                low <= side <= high
                for name, (least, _, most) in profile.items()
                for low, side, high in zip(least, shapes[name], most, strict=True)
            ):
                return index
        found = ", ".join(f"{name} {list(shapes[name])}" for name in self._free)
        taken = "; ".join(
            ", ".join(f"{name} {list(least)} to {list(most)}" for name, (least, _, most) in profile.items())
            for profile in self._profiles
        )
        raise TensorError(
            f"the engine takes {taken}; found {found}",
            hint="boothsam build --force --points N takes more points per prompt; so does --backend ort-cpu",
        )

    def _context(self, profile: int) -> Any:
        """One context per profile, made when first needed: each holds the memory that its own profile needs."""
        if profile not in self._contexts:
            context = self._trt.create_context(self._engine)
            if self._free and not context.set_optimization_profile_async(profile, self._gpu.stream):
                raise DeviceError(
                    self._trt.explain(f"TensorRT cannot take profile {profile} of the engine into use"),
                    hint="close other programs that use the GPU, or build with --prompts 1,8",
                )
            self._gpu.synchronize()
            self._contexts[profile] = context
        return self._contexts[profile]

    def _feed(self, name: str, value: Any) -> int:
        """Where the engine reads an input; host arrays are on their way there."""
        spec = self._inputs[name]
        if isinstance(value, TrtTensor) and not self._graphed:
            return value.pointer
        size = self._nbytes(spec, tuple(value.shape))
        address = self._place(name, size)
        if isinstance(value, TrtTensor):
            self._gpu.copy(address, value.pointer, size, cuda.DEVICE_TO_DEVICE)
            return address
        np.copyto(self._hosts[name].view(spec.dtype, tuple(value.shape)), value)
        if name in self._buffers:
            self._gpu.copy(address, self._hosts[name].pointer, size, cuda.HOST_TO_DEVICE)
        return address

    def _place(self, name: str, nbytes: int) -> int:
        """The address on the GPU of one of the session's own tensors, with pinned memory behind it; grown as needed."""
        held = self._hosts.get(name)
        if held is None or held.nbytes < nbytes:
            self._hosts.pop(name, None)
            if held is not None:
                held.close()
            self._hosts[name] = held = self._gpu.allocate_host(nbytes)
        if held.mapped is not None:
            return held.mapped
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < nbytes:
            self._buffers.pop(name, None)
            if buffer is not None:
                buffer.close()
            self._buffers[name] = buffer = self._gpu.allocate(nbytes)
        return buffer.pointer

    def _fresh(self, name: str, shape: Shape) -> TrtTensor:
        spec = self._outputs[name]
        return TrtTensor(self._gpu, self._gpu.allocate(self._nbytes(spec, shape)), spec.dtype, shape)

    @staticmethod
    def _nbytes(spec: TensorSpec, shape: Shape) -> int:
        return int(np.prod(shape, dtype=np.int64)) * spec.dtype.itemsize

    def _execute(self, context: Any, key: tuple[Any, ...]) -> None:
        """Enqueue the engine. key: profile, shapes and addresses, all that a recording holds fixed."""

        def enqueue() -> None:
            if not context.execute_async_v3(self._gpu.stream):
                raise DeviceError(
                    self._trt.explain("TensorRT could not run the engine"),
                    hint="boothsam doctor; boothsam build --force",
                )

        if not self._graphed:
            enqueue()
            return
        graph = self._recorded.get(key)
        if graph is not None:
            self._recorded.move_to_end(key)
            self._gpu.launch(graph)
            return
        enqueue()  # the first run of a shape may set things up that cannot be recorded
        self._gpu.synchronize()
        self._recorded[key] = self._gpu.capture(enqueue)
        if len(self._recorded) > MOST_GRAPHS:
            self._recorded.popitem(last=False)[1].close()

    def close(self) -> None:
        with self._gpu.lock:
            if self._engine is None:
                return
            self._gpu.use()
            self._gpu.synchronize()
            for owned in (*self._recorded.values(), *self._hosts.values(), *self._buffers.values()):
                owned.close()
            self._recorded.clear()
            self._hosts.clear()
            self._buffers.clear()
            # Contexts before their engine.
            self._contexts.clear()
            self._engine = None


def _on_host(value: Any) -> Array:
    array: Array = value if isinstance(value, np.ndarray) else value.numpy()
    return array
