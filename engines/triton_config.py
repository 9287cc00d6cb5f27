"""config.pbtxt of Triton Inference Server, as protobuf's text format.

Fields and their rules: model_config.proto of the project triton-inference-server/common, its user guide "Model
Configuration", and the README of its onnxruntime_backend for `gpu_execution_accelerator`. No protobuf package is needed
to write a configuration; the tests parse what is written with Triton's own schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# NumPy's dtype -> Triton's data_type. `object` is what both call a string of bytes.
DATA_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bool": "TYPE_BOOL",
    "object": "TYPE_STRING",
}
# Backend -> the platform that has to stand beside it; the Python backend wants none.
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan", "python": None}
FREE = -1


class Enum(str):
    """A name that stands in a configuration without quotes."""


@dataclass(frozen=True)
class Tensor:
    """One input or output. dtype: NumPy's name. shape: FREE stands for a side that may vary."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Configuration:
    """What one model of a repository is. backend: of PLATFORMS. file: what the backend loads, in the version's folder.

    accelerator: options of ONNX Runtime's CUDA provider. parameters: free texts; models and people read them.
    comments: lines above all else.
    """

    name: str
    backend: str
    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    on_gpu: bool
    version: int
    accelerator: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    comments: tuple[str, ...] = ()

    def to_pbtxt(self) -> str:
        """The file's text, the same for the same content."""
        platform = PLATFORMS[self.backend]
        fields: dict[str, object] = {"name": self.name, "backend": self.backend}
        if platform is not None:
            fields["platform"] = platform
        fields |= {
            "default_model_filename": self.file,
            "max_batch_size": 0,
            "input": [_tensor(tensor) for tensor in self.inputs],
            "output": [_tensor(tensor) for tensor in self.outputs],
            "instance_group": [{"count": 1, "kind": Enum("KIND_GPU" if self.on_gpu else "KIND_CPU")}],
            "version_policy": {"specific": {"versions": self.version}},
        }
        if self.accelerator:
            options = [{"key": key, "value": value} for key, value in self.accelerator.items()]
            chosen = {"gpu_execution_accelerator": [{"name": "cuda", "parameters": options}]}
            fields["optimization"] = {"execution_accelerators": chosen}
        fields["parameters"] = [{"key": k, "value": {"string_value": v}} for k, v in self.parameters.items()]
        return "".join(f"# {line}\n" for line in self.comments) + _text(fields, 0)


def _tensor(tensor: Tensor) -> dict[str, object]:
    # A repeated number may be given as repeated fields; a list in brackets is the common form of `dims`.
    fields: dict[str, object] = {
        "name": tensor.name,
        "data_type": Enum(DATA_TYPES[tensor.dtype]),
        "dims": tuple(tensor.shape),
    }
    return fields | {"optional": True} if tensor.optional else fields


def _text(fields: Mapping[str, object], depth: int) -> str:
    indent, lines = "  " * depth, []
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                lines.append(f"{indent}{name} {{\n{_text(item, depth + 1)}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(item)}\n")
    return "".join(lines)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, Enum | int):
        return str(value)
    if isinstance(value, str):
        return f'"{_escaped(value)}"'
    raise TypeError(f"{type(value).__name__} has no text form")


def _escaped(text: str) -> str:
    """A string of the text format: quotes, backslashes, and octal for all that is not printable ASCII."""
    shown = []
    for byte in text.encode():
        plain = 32 <= byte < 127 and byte not in b'"\\'
        shown.append(chr(byte) if plain else f"\\{byte:03o}")
    return "".join(shown)


def dims(tensors: Sequence[Tensor]) -> dict[str, list[object]]:
    """For JSON: name to dtype and shape, a free side as null."""
    return {t.name: [t.dtype, [None if side == FREE else side for side in t.shape]] for t in tensors}
