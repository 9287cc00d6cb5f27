"""A kept result of backends that compute in this process's own memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from boothsam.runtime.backends.base import Array
from boothsam.runtime.errors import TensorError


class HostTensor:
    """A DeviceTensor around an array. device: the session's, which alone takes it back without a copy."""

    def __init__(self, array: Array, device: str) -> None:
        self._array: Array | None = array
        self._device = device
        self._shape, self._dtype = array.shape, array.dtype

    @property
    def device(self) -> str:
        return self._device

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def nbytes(self) -> int:
        return int(np.prod(self._shape)) * self._dtype.itemsize

    @property
    def array(self) -> Array:
        """The memory itself, for sessions of its device."""
        if self._array is None:
            raise TensorError("this tensor was closed")
        return self._array

    def numpy(self) -> Array:
        return self.array.copy()

    def close(self) -> None:
        self._array = None
