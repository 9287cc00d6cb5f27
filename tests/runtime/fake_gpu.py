"""A GPU that computes nothing but keeps the rules of one: memory, a stream that runs late, and their errors.

Nothing that is enqueued runs before somebody waits for the stream. Device memory has addresses of its own that the host
cannot read; fresh memory holds 0xA5 and freed memory faults when used, as an illegal address (700) that sticks to the
context. Pinned host memory is real memory, read and written when the stream runs. So a missing copy or wait gives
garbage, and an address that is no longer valid an error.

`Bindings` speaks like cuda.bindings.runtime, `CLibrary` like libcudart through ctypes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

POISON = 0xA5
HEAP = 0x0B00_0000_0000_0000  # no address of the host
MAPPED = 0x0A00_0000_0000_0000  # device address of mapped host memory: the host's plus this
ATTRIBUTES = {16: 8, 75: 8, 76: 7}
DRIVER_VERSION = 12060


class Fault(Exception):
    """A status other than success."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class FakeGpu:
    """One GPU. budget: bytes of device memory. integrated: whether it shares memory with the host."""

    budget: int = 1 << 30
    integrated: bool = False
    name: str = "Fake Orin"
    count: int = 1
    blocks: dict[int, bytearray] = field(default_factory=dict)
    pinned: dict[int, Any] = field(default_factory=dict)
    queue: list[Callable[[], None]] = field(default_factory=list)
    capturing: list[Callable[[], None]] | None = None
    graphs: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    sticky: int = 0
    used: int = 0
    _next: int = HEAP

    # memory

    def read(self, address: int, count: int) -> bytes:
        """What the device sees at an address."""
        block, offset = self._find(address, count)
        return bytes(block[offset : offset + count])

    def write(self, address: int, data: bytes) -> None:
        block, offset = self._find(address, len(data))
        block[offset : offset + len(data)] = data

    def _find(self, address: int, count: int) -> tuple[Any, int]:
        for base, block in self.blocks.items():
            if base <= address and address + count <= base + len(block):
                return block, address - base
        for host, memory in self.pinned.items():
            for base in (host, host + MAPPED) if self.integrated else (host,):
                if base <= address and address + count <= base + len(memory):
                    return memoryview(memory).cast("B"), address - base
        raise Fault(700)

    # the stream

    def enqueue(self, work: Callable[[], None]) -> None:
        (self.queue if self.capturing is None else self.capturing).append(work)

    def run(self) -> None:
        """Everything enqueued, in order."""
        while self.queue:
            try:
                self.queue.pop(0)()
            except Fault as fault:
                self.sticky = fault.status
                self.queue.clear()
        if self.sticky:
            raise Fault(self.sticky)

    # CUDA's functions, with plain numbers

    def cudaGetDeviceCount(self) -> int:
        return self.count

    def cudaDriverGetVersion(self) -> int:
        return DRIVER_VERSION

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> int:
        return int(self.integrated) if attribute == 18 else ATTRIBUTES[attribute]

    def cudaMemGetInfo(self) -> tuple[int, int]:
        return self.budget - self.used, self.budget

    def cudaSetDevice(self, device: int) -> None:
        if device >= self.count:
            raise Fault(101)

    def cudaMalloc(self, size: int) -> int:
        if self.used + size > self.budget:
            raise Fault(2)
        if size == 0:
            return 0
        address, self._next = self._next, self._next + (size // 4096 + 2) * 4096  # a gap: no neighbour to run into
        self.blocks[address] = bytearray([POISON]) * size
        self.used += size
        return address

    def cudaFree(self, pointer: int) -> None:
        # Freeing does not wait here, as it need not on every device: who frees too early is found out.
        if pointer not in self.blocks:
            raise Fault(1)
        self.used -= len(self.blocks.pop(pointer))

    def cudaHostAlloc(self, size: int, flags: int) -> int:
        assert bool(flags & 2) == self.integrated
        memory = (ctypes.c_ubyte * size)(*([POISON] * min(size, 64)))
        ctypes.memset(memory, POISON, size)
        address = ctypes.addressof(memory)
        self.pinned[address] = memory
        return address

    def cudaHostGetDevicePointer(self, pointer: int, flags: int) -> int:
        if not self.integrated or pointer not in self.pinned:
            raise Fault(1)
        return pointer + MAPPED

    def cudaFreeHost(self, pointer: int) -> None:
        if pointer not in self.pinned:
            raise Fault(1)
        # The memory stays the host's, so that a view that outlives it cannot crash the test; the device loses it.
        self._graveyard = [*getattr(self, "_graveyard", []), self.pinned.pop(pointer)]

    def cudaMemcpyAsync(self, target: int, source: int, count: int, kind: int, stream: int) -> None:
        self.log.append(f"copy {kind}")

        def work() -> None:
            self.write(target, self.read(source, count))

        self.enqueue(work)

    def cudaStreamCreateWithFlags(self, flags: int) -> int:
        return 0x57

    def cudaStreamSynchronize(self, stream: int) -> None:
        assert stream == 0x57 and self.capturing is None
        self.run()

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        assert self.capturing is None
        self.capturing = []

    def cudaStreamEndCapture(self, stream: int) -> int:
        recorded, self.capturing = self.capturing, None
        number = 0x6000 + len(self.graphs)
        self.graphs[number] = recorded or []
        return number

    def cudaGraphInstantiateWithFlags(self, graph: int, flags: int) -> int:
        number = 0x7000 + len(self.graphs)
        self.graphs[number] = list(self.graphs[graph])
        return number

    def cudaGraphLaunch(self, graph: int, stream: int) -> None:
        self.log.append("launch")
        for work in self.graphs[graph]:
            self.enqueue(work)

    def cudaGraphDestroy(self, graph: int) -> None:
        self.graphs[graph] = []

    def cudaGraphExecDestroy(self, graph: int) -> None:
        self.graphs[graph] = []


_NAMES = {0: "no error", 1: "invalid argument", 2: "out of memory", 101: "invalid device ordinal",
          700: "an illegal memory access was encountered"}  # fmt: skip


class Bindings:
    """The fake as cuda.bindings.runtime: every function returns (status, *results)."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    @staticmethod
    def cudaMemcpyKind(value: int) -> int:
        return value

    cudaStreamCaptureMode = cudaDeviceAttr = cudaMemcpyKind

    def cudaGetErrorString(self, status: int) -> tuple[int, bytes]:
        return 0, _NAMES.get(int(status), "unknown").encode()

    def cudaGetDeviceProperties(self, index: int) -> tuple[int, Any]:
        return 0, type("Properties", (), {"name": self._gpu.name.encode()})()

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        def call(*args: int) -> tuple[Any, ...]:
            try:
                result = getattr(self._gpu, name)(*args)
            except Fault as fault:
                return (fault.status, None)
            if result is None:
                return (0,)
            return (0, *result) if isinstance(result, tuple) else (0, result)

        return call


class CLibrary:
    """The fake as libcudart: results go through pointers, and only ctypes' types are taken."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self.cudaGetErrorString = _ErrorString()

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name == "cudaGetDeviceProperties_v2":
            return self._properties
        method = getattr(self._gpu, name)

        def call(*args: Any) -> int:
            places = [a._obj for a in args if hasattr(a, "_obj")]
            values = [a.value or 0 for a in args if not hasattr(a, "_obj")]
            try:
                result = method(*values)
            except Fault as fault:
                return fault.status
            given = () if result is None else result if isinstance(result, tuple) else (result,)
            assert len(places) == len(given), name
            for place, value in zip(places, given, strict=True):
                place.value = value
            return 0

        return call

    def _properties(self, place: Any, index: Any) -> int:
        place._obj.value = self._gpu.name.encode()
        return 0


class _ErrorString:
    restype: Any = None

    def __call__(self, status: Any) -> bytes:
        return _NAMES.get(int(status.value), "unknown").encode()
