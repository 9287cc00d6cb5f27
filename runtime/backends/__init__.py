"""Backends by name. Each is imported only when asked for, so a machine needs no more than the one it runs.

Order of "auto": what is fastest where it exists. TensorRT ("trt") comes first, but only for a model whose engines were
built and verified on this device; `SamModel.load` looks. OpenVINO ("ov") comes last: it runs a MobileSAM's encoder as
fast as ONNX Runtime, its decoders and the bundled model no faster, and takes longer to load.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from boothsam.runtime.backends.base import DeviceTensor, Session, TensorSpec
from boothsam.runtime.backends.deferred import DeferredSession
from boothsam.runtime.backends.external import check_locations
from boothsam.runtime.errors import BackendUnavailable, OptionError

__all__ = ["AUTO_ORDER", "DeviceTensor", "Session", "TensorSpec", "defer_session", "open_session", "unavailable_reason"]

AUTO_ORDER = ("trt", "ort-cuda", "ort-cpu", "ov")
# Backend -> module and what opens a graph in it.
_OPENERS = {
    "trt": ("trt", "open_engine"),
    "ort-cuda": ("ort", "OrtSession"),
    "ort-cpu": ("ort", "OrtSession"),
    "ov": ("ov", "OvSession"),
}
Opener = Callable[..., Session]
# Backends whose sessions take nothing but host memory, and what their `device` is: opening one later can fail for no
# reason that was not there before.
_HOST_DEVICES = {"ort-cpu": "ort:cpu", "ov": "ov:cpu"}


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


def defer_session(backend: str, model: bytes, *, threads: int | None = None) -> Session:
    """`open_session` of a graph that is seldom asked for: on the CPU it is opened when it is first needed.

    Raises:
        BackendUnavailable, ModelError: as `open_session`; of a graph that cannot be loaded, when it is needed.
    """
    if backend not in _HOST_DEVICES or unavailable_reason(backend) is not None:
        return open_session(backend, model, threads=threads)
    check_locations(model, None)
    return DeferredSession(lambda: open_session(backend, model, threads=threads), _HOST_DEVICES[backend])
