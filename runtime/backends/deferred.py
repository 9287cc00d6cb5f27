"""A session that is opened when it is first needed.

A photo that is cut out by box and clicks never asks the decoder for mask prompts, whose network takes as long to open
as the other decoder's. Its bytes are hash-checked like all others when the model is loaded, and kept until then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from boothsam.runtime.backends.base import Array, DeviceTensor, Session, TensorSpec
from boothsam.runtime.errors import TensorError


class DeferredSession:
    """Opens the network with `opener` at its first use, once, whichever thread comes first.

    device: what `opener`'s session will say. Every use raises what `opener` raises, until it succeeds.
    """

    def __init__(self, opener: Callable[[], Session], device: str) -> None:
        self._opener: Callable[[], Session] | None = opener
        self._device = device
        self._session: Session | None = None
        self._lock = threading.Lock()

    @property
    def opened(self) -> bool:
        """Whether it was needed yet."""
        return self._session is not None

    def _open(self) -> Session:
        with self._lock:
            if self._session is None:
                if self._opener is None:
                    raise TensorError("this session was closed")
                self._session = self._opener()
                self._opener = None  # and the bytes with it
            return self._session

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._open().inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._open().outputs

    @property
    def device(self) -> str:
        return self._device

    def run(self, feeds: Mapping[str, Array | DeviceTensor], keep: Collection[str] = ()) -> dict[str, Any]:
        return self._open().run(feeds, keep)

    def close(self) -> None:
        with self._lock:
            self._opener = None
            if self._session is not None:
                self._session.close()
