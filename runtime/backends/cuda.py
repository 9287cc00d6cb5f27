"""The few calls of the CUDA runtime that a session needs, through cuda-bindings or, without it, libcudart itself.

Every status is checked. One `Device` per process and GPU holds its one stream: what is enqueued runs in order, so a
tensor that one session kept can be fed to the next without waiting for it. Memory is given back only once the stream
is idle.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from boothsam.runtime.backends.base import Array
from boothsam.runtime.errors import BackendUnavailable, BoothsamError, DeviceError

log = logging.getLogger("boothsam")

SONAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
# From the CUDA runtime's headers.
SUCCESS, OUT_OF_MEMORY = 0, 2
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
HOST_ALLOC_DEFAULT, HOST_ALLOC_MAPPED = 0, 2
STREAM_NON_BLOCKING = 1
CAPTURE_THREAD_LOCAL = 1
ATTRIBUTES = {"multiprocessors": 16, "integrated": 18, "major": 75, "minor": 76}
_HINTS = {
    OUT_OF_MEMORY: "close other programs that use the GPU, or build again with --prompts 1,8",
    35: "install or update the NVIDIA driver: there is none, or one older than this CUDA runtime",
    46: "another process holds the GPU exclusively: nvidia-smi shows which",
    100: "nvidia-smi (tegrastats on a Jetson) shows whether the driver sees a GPU",
    209: "boothsam build MODEL, on this GPU",
    700: "report this as a bug of boothsam: an address was used that is no longer valid",
    804: "in a container: start it with --gpus all (--runtime nvidia on JetPack 6)",
    999: "restart the machine; if it stays, the driver is damaged",
}
_MOST_BYTES_OF_PROPERTIES = 8192  # the struct grows with CUDA's versions and begins with the name

_Pointer, _Int, _Size, _Flags = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint


@dataclass(frozen=True)
class _Signature:
    """gives: what the C function writes through its first arguments (its last, when `late`); takes: the others."""

    gives: tuple[Any, ...]
    takes: tuple[Any, ...]
    late: bool = False


_SIGNATURES = {
    "cudaGetDeviceCount": _Signature((_Int,), ()),
    "cudaDriverGetVersion": _Signature((_Int,), ()),
    "cudaDeviceGetAttribute": _Signature((_Int,), (_Int, _Int)),
    "cudaMemGetInfo": _Signature((_Size, _Size), ()),
    "cudaSetDevice": _Signature((), (_Int,)),
    "cudaMalloc": _Signature((_Pointer,), (_Size,)),
    "cudaFree": _Signature((), (_Pointer,)),
    "cudaHostAlloc": _Signature((_Pointer,), (_Size, _Flags)),
    "cudaHostGetDevicePointer": _Signature((_Pointer,), (_Pointer, _Flags)),
    "cudaFreeHost": _Signature((), (_Pointer,)),
    "cudaMemcpyAsync": _Signature((), (_Pointer, _Pointer, _Size, _Int, _Pointer)),
    "cudaStreamCreateWithFlags": _Signature((_Pointer,), (_Flags,)),
    "cudaStreamSynchronize": _Signature((), (_Pointer,)),
    "cudaStreamBeginCapture": _Signature((), (_Pointer, _Int)),
    "cudaStreamEndCapture": _Signature((_Pointer,), (_Pointer,), late=True),
    "cudaGraphInstantiateWithFlags": _Signature((_Pointer,), (_Pointer, ctypes.c_ulonglong)),
    "cudaGraphLaunch": _Signature((), (_Pointer, _Pointer)),
    "cudaGraphDestroy": _Signature((), (_Pointer,)),
    "cudaGraphExecDestroy": _Signature((), (_Pointer,)),
}


class Library(Protocol):
    """CUDA's runtime, whichever way it is reached."""

    def call(self, function: str, *args: int) -> tuple[int, ...]:
        """Call a function of _SIGNATURES with plain numbers; what it gives, as numbers.

        Raises:
            DeviceError: any status but success.
        """

    def device_name(self, index: int) -> str:
        """The GPU's name as its driver spells it."""


class CtypesLibrary:
    """libcudart by its C interface."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def call(self, function: str, *args: int) -> tuple[int, ...]:
        signature = _SIGNATURES[function]
        given = [kind() for kind in signature.gives]
        taken = [kind(value) for kind, value in zip(signature.takes, args, strict=True)]
        references = [ctypes.byref(place) for place in given]
        ordered = [*taken, *references] if signature.late else [*references, *taken]
        self._check(function, int(getattr(self._library, function)(*ordered)))
        return tuple(int(place.value or 0) for place in given)

    def device_name(self, index: int) -> str:
        buffer = ctypes.create_string_buffer(_MOST_BYTES_OF_PROPERTIES)
        # CUDA 12 calls the function that fills its larger struct _v2; 11 and 13 have one only.
        name = "cudaGetDeviceProperties"
        function = getattr(self._library, f"{name}_v2", None) or getattr(self._library, name)
        self._check(name, int(function(ctypes.byref(buffer), _Int(index))))
        return buffer.value.decode("utf-8", "replace")

    def _check(self, function: str, status: int) -> None:
        if status != SUCCESS:
            text = self._library.cudaGetErrorString(_Int(status))
            raise failure(function, status, (text or b"").decode("utf-8", "replace"))


class BindingsLibrary:
    """The module `cuda.bindings.runtime` (before 12.8: `cuda.cudart`), whose functions return (status, *results)."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def call(self, function: str, *args: int) -> tuple[int, ...]:
        m = self._module
        # Enumerations are types of their own there.
        kinds: dict[str, dict[int, str]] = {
            "cudaMemcpyAsync": {3: "cudaMemcpyKind"},
            "cudaStreamBeginCapture": {1: "cudaStreamCaptureMode"},
            "cudaDeviceGetAttribute": {0: "cudaDeviceAttr"},
        }
        typed = [getattr(m, kinds[function][i])(a) if i in kinds.get(function, {}) else a for i, a in enumerate(args)]
        status, *results = getattr(m, function)(*typed)
        self._check(function, status)
        return tuple(int(result) for result in results)

    def device_name(self, index: int) -> str:
        status, *results = self._module.cudaGetDeviceProperties(index)
        self._check("cudaGetDeviceProperties", status)
        return bytes(results[0].name).split(b"\0")[0].decode("utf-8", "replace")

    def _check(self, function: str, status: Any) -> None:
        if int(status) != SUCCESS:
            _, text = self._module.cudaGetErrorString(status)
            raise failure(function, int(status), bytes(text).decode("utf-8", "replace"))


def failure(function: str, status: int, text: str) -> DeviceError:
    """The error for a status of the CUDA runtime."""
    what = "the GPU is out of memory" if status == OUT_OF_MEMORY else text or "an unknown error"
    return DeviceError(
        f"CUDA's {function} answered {status}, expected {SUCCESS}: {what}",
        hint=_HINTS.get(status, "boothsam doctor shows what is installed"),
    )


@lru_cache(maxsize=1)
def library() -> Library:
    """CUDA's runtime on this machine.

    Raises:
        BackendUnavailable: neither cuda-bindings nor libcudart can be loaded.
    """
    for module in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return BindingsLibrary(import_module(module))
        except ImportError:
            continue
    for soname in SONAMES:
        try:
            return CtypesLibrary(ctypes.CDLL(soname))
        except OSError:
            continue
    raise BackendUnavailable(
        f"no CUDA runtime: neither cuda-bindings nor {', '.join(SONAMES)} can be loaded",
        hint="pip install 'boothsam[tensorrt]'; on a Jetson: apt install cuda-cudart",
    )


def unavailable_reason() -> str | None:
    """None when a GPU can be used here, else one line that says what is missing."""
    try:
        (count,) = library().call("cudaGetDeviceCount")
    except BoothsamError as error:
        return error.message
    except RuntimeError as error:  # cuda-bindings without a driver library
        return f"no CUDA driver ({error})"
    return None if count else "CUDA finds no GPU"


class Device:
    """One GPU with its one stream. `lock`: held by whoever enqueues and waits; sessions of all threads take turns."""

    def __init__(self, library: Library, index: int = 0) -> None:
        self._library = library
        self.index = index
        self.lock = threading.RLock()
        (count,) = library.call("cudaGetDeviceCount")
        if index >= count:
            raise BackendUnavailable(
                f"CUDA finds {count} GPUs, expected number {index} among them", hint="nvidia-smi lists the GPUs"
            )
        library.call("cudaSetDevice", index)
        facts = {name: library.call("cudaDeviceGetAttribute", number, index)[0] for name, number in ATTRIBUTES.items()}
        self.name = library.device_name(index)
        self.compute_capability = f"{facts['major']}.{facts['minor']}"
        self.multiprocessors = facts["multiprocessors"]
        self.integrated = bool(facts["integrated"])
        # The driver's: that of the runtime depends on which way it was reached.
        (version,) = library.call("cudaDriverGetVersion")
        self.cuda_version = f"{version // 1000}.{version % 1000 // 10}"
        (self.stream,) = library.call("cudaStreamCreateWithFlags", STREAM_NON_BLOCKING)

    def use(self) -> None:
        """Make this the calling thread's device: CUDA keeps the choice per thread."""
        self._library.call("cudaSetDevice", self.index)

    def memory(self) -> tuple[int, int]:
        """Free bytes and all bytes of the GPU's memory; an integrated one shares them with the processor."""
        free, total = self._library.call("cudaMemGetInfo")
        return free, total

    def synchronize(self) -> None:
        """Wait until the stream is idle; errors of what ran on it are raised here."""
        self._library.call("cudaStreamSynchronize", self.stream)

    def copy(self, target: int, source: int, nbytes: int, kind: int) -> None:
        """Enqueue a copy; pinned host memory must stay unchanged until `synchronize`."""
        if nbytes:
            self._library.call("cudaMemcpyAsync", target, source, nbytes, kind, self.stream)

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Memory on the GPU; an empty tensor gets an address too."""
        size = max(nbytes, 1)
        (pointer,) = self._library.call("cudaMalloc", size)
        return DeviceBuffer(self, pointer, size)

    def allocate_host(self, nbytes: int) -> HostBuffer:
        """Pinned memory of the host; on an integrated GPU mapped, so that the GPU uses it in place."""
        size = max(nbytes, 1)
        flags = HOST_ALLOC_MAPPED if self.integrated else HOST_ALLOC_DEFAULT
        (pointer,) = self._library.call("cudaHostAlloc", size, flags)
        mapped = self._library.call("cudaHostGetDevicePointer", pointer, 0)[0] if self.integrated else None
        return HostBuffer(self, pointer, size, mapped)

    def release(self, function: str, pointer: int) -> None:
        """Give memory back once nothing enqueued can use it any more.

        Never raises: it also runs where nobody can catch. After a fault CUDA refuses every call of the process, and
        what is held goes with the process.
        """
        try:
            with self.lock:
                self.use()
                self.synchronize()
                self._library.call(function, pointer)
        except DeviceError as error:
            log.warning("memory of the GPU was not given back: %s", error.message)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Record what `enqueue` puts on the stream, without running it."""
        self._library.call("cudaStreamBeginCapture", self.stream, CAPTURE_THREAD_LOCAL)
        try:
            enqueue()
        finally:  # the stream stays unusable until the capture ends, whatever happened
            (recorded,) = self._library.call("cudaStreamEndCapture", self.stream)
        (executable,) = self._library.call("cudaGraphInstantiateWithFlags", recorded, 0)
        self._library.call("cudaGraphDestroy", recorded)
        return Graph(self, executable)

    def launch(self, graph: Graph) -> None:
        """Enqueue a recorded graph."""
        self._library.call("cudaGraphLaunch", graph.pointer, self.stream)


class _Owned:
    """Something of the device that is given back once: by `close`, or when nobody holds it any more."""

    _free: str

    def __init__(self, device: Device, pointer: int) -> None:
        self.pointer = pointer
        self._finalizer = weakref.finalize(self, device.release, self._free, pointer)
        self._finalizer.atexit = False  # the process takes all of it along; the driver may be gone by then

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def close(self) -> None:
        """Give it back; a second time does nothing."""
        self._finalizer()


class DeviceBuffer(_Owned):
    """Memory on the GPU."""

    _free = "cudaFree"

    def __init__(self, device: Device, pointer: int, nbytes: int) -> None:
        super().__init__(device, pointer)
        self.nbytes = nbytes


class HostBuffer(_Owned):
    """Pinned memory of the host. mapped: its address on the GPU, None where it has to be copied."""

    _free = "cudaFreeHost"

    def __init__(self, device: Device, pointer: int, nbytes: int, mapped: int | None) -> None:
        super().__init__(device, pointer)
        self.nbytes = nbytes
        self.mapped = mapped

    def view(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """The memory itself as an array; valid as long as this buffer is."""
        count = int(np.prod(shape, dtype=np.int64))
        raw = (ctypes.c_ubyte * (count * dtype.itemsize)).from_address(self.pointer)
        array: Array = np.frombuffer(memoryview(raw).cast("B"), dtype, count).reshape(shape)
        return array


class Graph(_Owned):
    """A recorded sequence of device work, with the addresses that it was recorded with."""

    _free = "cudaGraphExecDestroy"


@lru_cache(maxsize=8)
def open_device(index: int = 0) -> Device:
    """The GPU of this number, opened once per process.

    Raises:
        BackendUnavailable: no CUDA runtime, no driver or no such GPU.
    """
    try:
        return Device(library(), index)
    except (DeviceError, RuntimeError) as error:
        message = error.message if isinstance(error, DeviceError) else f"no CUDA driver ({error})"
        hint = error.hint if isinstance(error, DeviceError) else _HINTS[100]
        raise BackendUnavailable(f"no GPU can be used: {message}", hint=hint) from None
