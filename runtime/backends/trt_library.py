"""TensorRT as it is installed: `tensorrt`, or `tensorrt_rtx` where only that is; what running engines needs of it."""

from __future__ import annotations

import logging
from collections import deque
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from boothsam.runtime.errors import BackendUnavailable, DeviceError, EngineError

log = logging.getLogger("boothsam.tensorrt")

# Name for people -> modules to import in turn; the last one is the API. The RTX wheels name their parts apart.
PACKAGES = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx_libs", "tensorrt_rtx_bindings"),
}
_REMEMBERED = 6  # lines of TensorRT's log that go into an error
# What TensorRT says, in small letters -> what it means.
_MEANINGS = {
    "driver version is insufficient": "there is no NVIDIA driver, or one that is too old",
    "no cuda-capable device": "there is no GPU",
    "magictag": "it was made by another version of TensorRT, or is no engine",
    "serialization version": "it was made by another version of TensorRT",
    "not compatible": "it was made by another version of TensorRT",
    "compute capability": "it was made for another GPU",
    "different device": "it was made for another GPU",
    "out of memory": "there is not enough memory",
    "outofmemory": "there is not enough memory",
}


def installed() -> str | None:
    """The first of PACKAGES that is installed, without importing it."""
    return next((name for name, modules in PACKAGES.items() if all(map(find_spec, modules))), None)


def unavailable_reason() -> str | None:
    """None when engines can be run here, else one line that says what is missing."""
    if installed() is None:
        return "TensorRT is not installed (on a Jetson: apt install python3-libnvinfer; else pip install tensorrt)"
    from boothsam.runtime.backends import cuda

    return cuda.unavailable_reason()


class TensorRt:
    """One TensorRT module with one logger. name: a key of PACKAGES. version: TensorRT's own, such as "10.3.0"."""

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module
        self.version = str(module.__version__)
        self._lines: deque[str] = deque(maxlen=_REMEMBERED)
        self.logger = _make_logger(module, self._lines)
        self._runtime: Any = None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def deserialize(self, engine: bytes) -> Any:
        """The ICudaEngine of a serialised engine.

        Raises:
            EngineError: made by another TensorRT or for another GPU, or damaged.
        """
        self._lines.clear()
        if self._runtime is None:  # kept: engines live on what their runtime holds
            self._runtime = self.module.Runtime(self.logger)
        found = self._runtime.deserialize_cuda_engine(engine)
        if found is None:
            said = " ".join(self._lines).lower()
            why = next((f": {meaning}" for phrase, meaning in _MEANINGS.items() if phrase in said), "")
            raise EngineError(
                self.explain(f"{self} cannot load an engine of {len(engine)} bytes{why}"),
                hint="boothsam build --force, on this device",
            )
        return found

    def create_context(self, engine: Any) -> Any:
        """An execution context that takes memory for the profile in use, not for the largest.

        Raises:
            DeviceError: not enough memory.
        """
        self._lines.clear()
        context = engine.create_execution_context(self.module.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE)
        if context is None:
            raise DeviceError(
                self.explain("TensorRT cannot create an execution context"),
                hint="close other programs that use the GPU, or build with --prompts 1,8",
            )
        return context

    def explain(self, what: str) -> str:
        """`what`, with the errors that TensorRT logged last."""
        said = "; ".join(self._lines)
        return f"{what} ({said})" if said else what


def _make_logger(module: Any, lines: deque[str]) -> Any:
    # One step down: whatever fails is raised with these words in it, and TensorRT warns a lot.
    levels = {"INTERNAL_ERROR": logging.WARNING, "ERROR": logging.WARNING, "WARNING": logging.INFO}

    class Logger(module.ILogger):  # type: ignore[misc]  # a class of a library without types
        """TensorRT's log in Python's; its errors are remembered for messages."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            level = levels.get(severity.name, logging.DEBUG)
            if level >= logging.WARNING:
                lines.append(text)
            log.log(level, "%s", text)

    return Logger()


@lru_cache(maxsize=2)
def library(name: str | None = None) -> TensorRt:
    """TensorRT of this machine; name: a key of PACKAGES, None for the first that is installed.

    Raises:
        BackendUnavailable: not installed, or its libraries cannot be loaded.
    """
    chosen = name or installed()
    if chosen is None or not all(map(find_spec, PACKAGES[chosen])):
        raise BackendUnavailable(
            f"{name or ' and '.join(PACKAGES)} not installed; expected TensorRT 10.3 or newer",
            hint="on a Jetson: apt install python3-libnvinfer; else pip install tensorrt",
        )
    try:
        *_, module = [import_module(part) for part in PACKAGES[chosen]]
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailable(
            f"{chosen} is installed and cannot be loaded ({error})", hint="reinstall it; boothsam doctor"
        ) from None
    return TensorRt(chosen, module)
