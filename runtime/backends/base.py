"""The contract of a loaded network: named arrays in, named arrays out.

Every backend checks names, dtypes and shapes with `check_feeds` before its library sees them, so a mistake reads the
same everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from boothsam.runtime.errors import TensorError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """dtype and shape of one input or output; None stands for a side that may vary."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('?' if s is None else str(s) for s in self.shape)}]"

    def admits(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Whether an array of this dtype and shape fits."""
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(want is None or want == have for want, have in zip(self.shape, shape, strict=True))
        )


@runtime_checkable
class DeviceTensor(Protocol):
    """A result that stays where it was computed and owns its memory until `close`.

    It can be fed to a session of the same backend and device; `numpy()` copies it to the host.
    """

    @property
    def device(self) -> str:
        """Backend and device that hold the memory, such as "ort:cpu" or "ort:cuda:0"."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def nbytes(self) -> int: ...

    def numpy(self) -> Array:
        """A copy on the host."""

    def close(self) -> None:
        """Give the memory back; using the tensor afterwards raises TensorError."""


class Session(Protocol):
    """One loaded network."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]: ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]: ...

    @property
    def device(self) -> str:
        """Backend and device, such as "ort:cpu"; DeviceTensors of the same device can be fed."""

    def run(self, feeds: Mapping[str, Array | DeviceTensor], keep: Collection[str] = ()) -> dict[str, Any]:
        """All outputs by name: host arrays that the caller owns, DeviceTensors for the names in `keep`.

        Raises:
            TensorError: feeds or keep do not fit `inputs` and `outputs`.
        """

    def close(self) -> None:
        """Free the network. A closed session raises TensorError when run."""


def check_feeds(
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    feeds: Mapping[str, Array | DeviceTensor],
    keep: Collection[str],
    device: str,
) -> None:
    """Compare what is fed with what a network takes.

    Raises:
        TensorError: a missing or unknown name, another dtype or shape, or a
            DeviceTensor of another device.
    """
    missing, unknown = inputs.keys() - feeds.keys(), feeds.keys() - inputs.keys()
    if missing or unknown:
        raise TensorError(
            f"fed {sorted(feeds)}, expected {sorted(inputs)}: missing {sorted(missing)}, unknown {sorted(unknown)}"
        )
    for name, value in feeds.items():
        if not isinstance(value, np.ndarray | DeviceTensor):
            raise TensorError(f"{name}: expected a NumPy array or a DeviceTensor, found {type(value).__name__}")
        if not inputs[name].admits(value.dtype, tuple(value.shape)):
            found = f"{value.dtype}[{', '.join(map(str, value.shape))}]"
            raise TensorError(f"{name}: expected {inputs[name]}, found {found}")
        if isinstance(value, DeviceTensor) and value.device != device:
            raise TensorError(
                f"{name}: a tensor on {value.device} was fed to a session on {device}",
                hint="feed tensor.numpy() to cross devices",
            )
    strangers = set(keep) - outputs.keys()
    if strangers:
        raise TensorError(f"cannot keep {sorted(strangers)}: the outputs are {sorted(outputs)}")
