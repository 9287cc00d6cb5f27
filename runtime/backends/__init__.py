"""Backends by name. Each is imported only when asked for, so a machine needs no more than the one it runs.

Order of "auto": what is fastest where it exists. TensorRT ("trt") comes first, but only for a model whose engines were
built and verified on this device; `SamModel.load` looks. OpenVINO ("ov") comes last: its encoder of a MobileSAM is
faster than ONNX Runtime's, its decoders and the bundled model are not.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from boothsam.runtime.backends.base import DeviceTensor, Session, TensorSpec
from boothsam.runtime.errors import BackendUnavailable, OptionError

__all__ = ["AUTO_ORDER", "DeviceTensor", "Session", "TensorSpec", "open_session", "unavailable_reason"]

AUTO_ORDER = ("trt", "ort-cuda", "ort-cpu", "ov")
# Backend -> module and what opens a graph in it.
_OPENERS = {
    "trt": ("trt", "open_engine"),
    "ort-cuda": ("ort", "OrtSession"),
    "ort-cpu": ("ort", "OrtSession"),
    "ov": ("ov", "OvSession"),
}
Opener = Callable[..., Session]


def unavailable_reason(backend: str) -> str | None:
    """None when the backend can be opened here, else one line that says what is missing."""
    if backend not in AUTO_ORDER:
        raise OptionError(f"unknown backend {backend!r}; expected auto, {', '.join(AUTO_ORDER)}")
    if backend == "ov":
        return None if find_spec("openvino") else "openvino is not installed (pip install 'boothsam[openvino]')"
    if backend == "trt":
        from boothsam.runtime.backends import trt_library

        return trt_library.unavailable_reason()
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install 'boothsam[cpu]')"
    from boothsam.runtime.backends import ort

    device = backend.removeprefix("ort-")
    return None if device in ort.available_devices() else f"this onnxruntime has no {ort.PROVIDERS[device]}"


def open_session(
    backend: str, model: bytes, *, threads: int | None = None, external_data: Path | None = None
) -> Session:
    """Load a serialised graph in the named backend of AUTO_ORDER; "trt" runs the engine that was built from it.

    Raises:
        BackendUnavailable: it is not installed or finds no device.
        ModelError: the graph cannot be loaded.
    """
    reason = unavailable_reason(backend)
    if reason is not None:
        raise BackendUnavailable(
            f"backend {backend} is not available: {reason}", hint="boothsam doctor lists the backends of this machine"
        )
    options: dict[str, object] = {"threads": threads, "external_data": external_data}
    if backend.startswith("ort-"):
        options["device"] = backend.removeprefix("ort-")
    module, kind = _OPENERS[backend]
    opener: Opener = getattr(import_module(f"boothsam.runtime.backends.{module}"), kind)
    return opener(model, **options)
