"""The implementations: each loads the plan's weights and goes from an encoded photo and a box to an encoded cut-out.

All have one signature. What differs is who computes: `boothsam-*` is this project's runtime in one of its backends,
`torch` is what a user of segment_anything writes with PyTorch, NumPy and Pillow on the same weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import numpy.typing as npt
from boothsam.bench.plan import Plan, Subject

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

    def decode(self, prompts: int) -> None:
        """That many copies of the box on the last crop's photo, in the way that is best for this implementation."""

    def versions(self) -> dict[str, str]:
        """What computes, by package."""


@dataclass(frozen=True)
class Implementation:
    """A row of the tables. missing: None, or why it cannot run here. make: loads it."""

    name: str
    about: str
    missing: Callable[[Plan], str | None]
    make: Callable[[Plan], Runner]


def _backend_missing(backend: str) -> Callable[[Plan], str | None]:
    def missing(plan: Plan) -> str | None:
        from boothsam.runtime.backends import unavailable_reason
        from boothsam.runtime.errors import BoothsamError

        try:
            return unavailable_reason(backend)
        except BoothsamError as error:
            return error.message

    return missing


def _boothsam(backend: str) -> Callable[[Plan], Runner]:
    def make(plan: Plan) -> Runner:
        from boothsam.bench.runner_boothsam import BoothsamRunner

        return BoothsamRunner(plan, backend)

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


def _peer_missing(package: str) -> Callable[[Plan], str | None]:
    def missing(plan: Plan) -> str | None:
        return f"{package} is not installed" if find_spec(package) is None else f"no runner for {package} yet"

    return missing


def _never(plan: Plan) -> Runner:
    raise NotImplementedError("reported as missing before it is made")


BASELINE = "torch"
_EAGER = "PyTorch eager, NumPy and Pillow, as segment_anything is used"
_COMPILED = "the same, encoder and decoder through torch.compile"
IMPLEMENTATIONS = (
    Implementation(BASELINE, _EAGER, _torch_missing, _torch(False)),
    Implementation("torch-compile", _COMPILED, _compile_missing, _torch(True)),
    *(
        Implementation(f"boothsam-{backend}", f"boothsam, {library}", _backend_missing(backend), _boothsam(backend))
        for backend, library in (
            ("ort-cpu", "ONNX Runtime"),
            ("ov", "OpenVINO"),
            ("ort-cuda", "ONNX Runtime on CUDA"),
            ("trt", "TensorRT"),
        )
    ),
    *(Implementation(peer, "peer", _peer_missing(peer), _never) for peer in ("samexporter", "osam")),
)


def find(name: str) -> Implementation:
    """By name. Raises KeyError."""
    return {one.name: one for one in IMPLEMENTATIONS}[name]
