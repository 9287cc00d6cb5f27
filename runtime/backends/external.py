"""Where a serialised ONNX graph keeps tensors outside itself, read without the onnx package."""

from __future__ import annotations

import re
from pathlib import Path

from boothsam.runtime.errors import ModelError

# An entry of TensorProto.external_data: the key "location", then its value. A key whose length is spelled in more bytes
# than needed, or that comes after its value, means the same to a parser and is written by no exporter.
_LOCATION_KEY = re.compile(rb"\x0a(?:\x08|\x88\x80*\x00)location")
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x00-\x7f])", re.DOTALL)


def external_locations(model: bytes) -> set[str]:
    """The file names where a serialised ONNX graph keeps tensors outside itself, read without the onnx package.

    ONNX Runtime 1.23, the newest for Python 3.10, follows such a name out of the model folder.

    Raises:
        ModelError: an entry that is not in the form every exporter writes.
    """
    if b"location" not in model:  # finding the bare word takes a twentieth of what the expressions take
        return set()
    found = {model[m.end() : m.end() + m[1][0]].decode("utf-8", "replace") for m in _LOCATION.finditer(model)}
    if len(_LOCATION_KEY.findall(model)) != len(_LOCATION.findall(model)):
        raise ModelError("the graph names external data in an unusual form", hint="export the model again")
    return found


def check_locations(model: bytes, external_data: Path | None) -> None:
    """Refuse a graph that keeps tensors anywhere but in `external_data`, before a backend follows it there.

    Raises:
        ModelError: another place, or an entry in an unusual form.
    """
    strangers = external_locations(model) - ({external_data.name} if external_data else set())
    if strangers:
        names = ", ".join(map(repr, sorted(strangers)))
        raise ModelError(
            f"the graph keeps tensors in {names}, which the manifest does not list", hint="export the model again"
        )
