"""A torch SAM behind the runtime's Session protocol: the same code then asks it and its export the same questions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from boothsam.export.architectures.sam import Sam
from boothsam.export.to_onnx import GraphSpec, Port, graph_specs
from boothsam.runtime.backends.base import Array, DeviceTensor, TensorSpec, check_feeds
from boothsam.runtime.errors import TensorError
from boothsam.runtime.manifest import FileRecord, ModelManifest
from boothsam.runtime.model import SamModel
from onnx import TensorProto

DEVICE = "torch:cpu"
_DTYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT32: np.dtype(np.int32),
}


class TorchTensor:
    """A DeviceTensor around a torch tensor."""

    def __init__(self, value: torch.Tensor) -> None:
        self._value: torch.Tensor | None = value
        self.device = DEVICE
        self.shape = tuple(value.shape)
        self.dtype = np.dtype(value.numpy().dtype)
        self.nbytes = value.nbytes

    @property
    def value(self) -> torch.Tensor:
        """The tensor, for sessions of this module."""
        if self._value is None:
            raise TensorError("this tensor was closed")
        return self._value

    def numpy(self) -> Array:
        return self.value.numpy().copy()

    def close(self) -> None:
        self._value = None


class TorchSession:
    """One graph of the contract, computed by `run_graph` from torch tensors in the order of the graph's inputs."""

    def __init__(self, spec: GraphSpec, run_graph: Callable[..., Any]) -> None:
        self._run = run_graph
        self.inputs = _specs(spec.inputs)
        self.outputs = _specs(spec.outputs)
        self.device = DEVICE

    def run(self, feeds: Mapping[str, Array | DeviceTensor], keep: Collection[str] = ()) -> dict[str, Any]:
        check_feeds(self.inputs, self.outputs, feeds, keep, self.device)
        values = [feeds[name] for name in self.inputs]
        tensors = [v.value if isinstance(v, TorchTensor) else torch.from_numpy(np.ascontiguousarray(v)) for v in values]
        with torch.inference_mode():
            results = self._run(*tensors)
        named = zip(self.outputs, results if isinstance(results, tuple) else (results,), strict=True)
        return {name: TorchTensor(value) if name in keep else value.numpy() for name, value in named}

    def close(self) -> None:
        """Nothing to free: the module belongs to the caller."""


def _specs(ports: tuple[Port, ...]) -> dict[str, TensorSpec]:
    def spec(port: Port) -> TensorSpec:
        return TensorSpec(_DTYPES[port.dtype], tuple(None if isinstance(side, str) else side for side in port.shape))

    return {port.name: spec(port) for port in ports}


def torch_model(sam: Sam, name: str) -> SamModel:
    """The torch module itself as a SamModel, in FP32 on the CPU, its decoder in the plain form of the paper."""
    specs = graph_specs(sam.config)
    prompts = specs["decoder_mask"].inputs[1:3]
    decoder = GraphSpec("decoder", (*specs["encoder"].outputs, *prompts), specs["decoder"].outputs)
    files = {graph: f"{graph}.torch" for graph in ("encoder", "decoder", "decoder_mask")}
    manifest = ModelManifest(
        name=name,
        variant=sam.config.variant,
        licence="",
        graphs={"fp32": files},
        embedding=("image_embedding",),
        files={file: FileRecord("0" * 64, 0) for file in files.values()},
    )
    sessions = {
        "encoder": TorchSession(specs["encoder"], sam.encode),
        "decoder": TorchSession(decoder, sam.decode),
        "decoder_mask": TorchSession(specs["decoder_mask"], sam.decode),
    }
    return SamModel(manifest, sessions, backend="torch", precision="fp32", reason="reference")
