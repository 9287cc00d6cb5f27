"""The implementations: each loads the plan's weights and goes from an encoded photo and a box to an encoded cut-out.

All have one signature. What differs is who computes: `boothsam-*` is this project's runtime in one of its backends,
`torch` is what a user of segment_anything writes with PyTorch, NumPy and Pillow on the same weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt
from boothsam.bench.plan import Plan, Subject

MIN_IOU, MIN_IOU_FAST = 0.999, 0.98
# In this order in every table. "decoder" is one prompt; the photo's total is their sum.
STAGES = ("decode photo", "resize", "encoder", "decoder", "mask", "alpha", "encode picture")


@dataclass(frozen=True, eq=False)
class Cropped:
    """One crop: the encoded picture, milliseconds by stage, the mask's (256, 256) logits and its score."""

    picture: bytes
    ms: Mapping[str, float]
    logits: npt.NDArray[np.float32]
    score: float


class Runner(Protocol):
    """One implementation, in a process of its own."""

    def crop(self, subject: Subject) -> Cropped:
        """The whole way, JPEG to PNG."""

    def embed(self, subject: Subject) -> float:
        """The encoder alone, for the calls below: its milliseconds."""

    def tune(self) -> int:
        """Find how many prompts at once are fastest, for `decode`; returns that number."""

    def decode(self, prompts: int) -> None:
        """That many copies of the box on the photo embedded last, in the way that is best for this implementation."""

    def click(self) -> Mapping[str, float]:
        """A click on the photo embedded last, to the (H, W) mask: milliseconds in all ("total") and of the decoder."""

    def versions(self) -> dict[str, str]:
        """What computes, by package."""


@dataclass(frozen=True)
class Implementation:
    """A row of the tables. missing: None, or why it cannot run here. make: loads it.

    min_iou: with the baseline's mask, below which no time counts. `MIN_IOU` is for the same weights in FP32, where only
    sums come in another order; a faster resize is another picture, and has the gate of a reduced precision. Peers have
    none: they prompt in other ways, and their IoU is shown.
    """

    name: str
    about: str
    missing: Callable[[Plan], str | None]
    make: Callable[[Plan], Runner]
    min_iou: float = MIN_IOU


def fastest_batch(decode: Callable[[int], None], sizes: Sequence[int], tries: int = 2) -> int:
    """Which of `sizes` prompts at once is fastest; decode(size) answers max(sizes) prompts, size of them at a time."""
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(1 + tries):  # the first is the warm-up
        for size in sizes:
            start = perf_counter()
            decode(size)
            seconds[size].append(perf_counter() - start)
    return min(sizes, key=lambda size: min(seconds[size][1:]))


def _backend_missing(backend: str) -> Callable[[Plan], str | None]:
    def missing(plan: Plan) -> str | None:
        from boothsam.runtime.backends import unavailable_reason
        from boothsam.runtime.errors import BoothsamError

        try:
            return unavailable_reason(backend)
        except BoothsamError as error:
            return error.message

    return missing


def _boothsam(backend: str, resize: str = "exact") -> Callable[[Plan], Runner]:
    def make(plan: Plan) -> Runner:
        from boothsam.bench.runner_boothsam import BoothsamRunner

        return BoothsamRunner(plan, backend, resize)

    return make


def _torch_missing(plan: Plan) -> str | None:
    if find_spec("torch") is None:
        return "PyTorch is not installed (pip install 'boothsam[export]')"
    return None if plan.checkpoint else "no PyTorch checkpoint of this model (--checkpoint)"


def _compile_missing(plan: Plan) -> str | None:
    reason = _torch_missing(plan)
    if reason is None and shutil.which("g++") is None and shutil.which("c++") is None:
        return "torch.compile needs a C++ compiler (g++)"
    return reason


def _torch(compiled: bool) -> Callable[[Plan], Runner]:
    def make(plan: Plan) -> Runner:
        from boothsam.bench.runner_torch import TorchRunner

        return TorchRunner(plan, compiled=compiled)

    return make


PEERS = {
    "samexporter": "samexporter's encoder and decoder, its own runner on ONNX Runtime",
    "osam": "osam's SAM on ONNX Runtime",
}


def _peer_missing(package: str) -> Callable[[Plan], str | None]:
    def missing(plan: Plan) -> str | None:
        if find_spec(package) is None:
            return f"{package} is not installed (pip install {package})"
        return None if plan.peers else f"no graphs in {package}'s form of this model (--peers FOLDER)"

    return missing


def _peer(package: str) -> Callable[[Plan], Runner]:
    def make(plan: Plan) -> Runner:
        from boothsam.bench.runner_peers import PeerRunner

        return PeerRunner(plan, package)

    return make


def _no_rtx(plan: Plan) -> str | None:
    return "boothsam has no runtime for TensorRT-RTX: it only builds engines with it (`boothsam build --check`)"


def _never(plan: Plan) -> Runner:
    raise NotImplementedError("reported as missing before it is made")


BASELINE = "torch"
_EAGER = "PyTorch eager, NumPy and Pillow, as segment_anything is used"
_COMPILED = "the same, encoder and decoder through torch.compile"
_BACKENDS = (("ort-cpu", "ONNX Runtime"), ("ov", "OpenVINO"), ("ort-cuda", "ONNX Runtime on CUDA"), ("trt", "TensorRT"))
IMPLEMENTATIONS = (
    Implementation(BASELINE, _EAGER, _torch_missing, _torch(False)),
    Implementation("torch-compile", _COMPILED, _compile_missing, _torch(True)),
    *(Implementation(f"boothsam-{b}", f"boothsam, {lib}", _backend_missing(b), _boothsam(b)) for b, lib in _BACKENDS),
    *(
        Implementation(
            f"boothsam-{b}-fast", 'the same, resize="fast"', _backend_missing(b), _boothsam(b, "fast"), MIN_IOU_FAST
        )
        for b, _ in _BACKENDS
    ),
    Implementation("tensorrt-rtx", "TensorRT-RTX", _no_rtx, _never),
    *(Implementation(peer, about, _peer_missing(peer), _peer(peer), min_iou=0) for peer, about in PEERS.items()),
)


def find(name: str) -> Implementation:
    """By name. Raises KeyError."""
    return {one.name: one for one in IMPLEMENTATIONS}[name]
