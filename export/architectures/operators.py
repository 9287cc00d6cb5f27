"""Four operations whose stock ONNX form is a chain of shape arithmetic, here one operator each. Forward passes only.

ONNX Runtime folds such chains away; TensorRT's parser has stumbled over them (tests/export/test_to_onnx.py lists what a
graph may hold).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _constant(g: Any, values: Sequence[int]) -> Any:
    return g.op("Constant", value_t=torch.tensor(values))


class _Reshape(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])

    @staticmethod
    def symbolic(g: Any, x: Any, shape: Sequence[int]) -> Any:
        # the exporter's shape inference asserts that a shape with zeros has a -1
        return g.op("Reshape", x, _constant(g, shape if -1 in shape else [*shape[:-1], -1]))


def reshape(x: Tensor, *shape: int) -> Tensor:
    """`x.reshape(shape)` where a 0 keeps that side, as ONNX has it, and -1 takes the rest."""
    y: Tensor = _Reshape.apply(x, shape)  # type: ignore[no-untyped-call]
    return y


class _Repeat(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, x: Tensor, like: Tensor) -> Tensor:
        return x.expand(like.shape[0], *x.shape[1:])

    @staticmethod
    def symbolic(g: Any, x: Any, like: Any) -> Any:
        count = g.op("Gather", g.op("Shape", like), _constant(g, [0]))
        return g.op("Expand", x, g.op("Concat", count, _constant(g, [1, 1]), axis_i=0))


def repeat(x: Tensor, like: Tensor) -> Tensor:
    """(1, A, B) to (P, A, B), where P is the first side of `like`."""
    y: Tensor = _Repeat.apply(x, like)  # type: ignore[no-untyped-call]
    return y


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, x: Tensor, rows: int, cols: int) -> Tensor:
        return F.pad(x, (0, 0, 0, cols, 0, rows))

    @staticmethod
    def symbolic(g: Any, x: Any, rows: int, cols: int) -> Any:
        return g.op("Pad", x, _constant(g, [0, 0, 0, 0, 0, rows, cols, 0]))


def pad(x: Tensor, rows: int, cols: int) -> Tensor:
    """(B, H, W, C) with `rows` rows of zeros below and `cols` columns at the right."""
    y: Tensor = _Pad.apply(x, rows, cols)  # type: ignore[no-untyped-call]
    return y


class _Crop(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, x: Tensor, rows: int, cols: int) -> Tensor:
        return x[:, :rows, :cols]

    @staticmethod
    def symbolic(g: Any, x: Any, rows: int, cols: int) -> Any:
        return g.op("Slice", x, _constant(g, [0, 0]), _constant(g, [rows, cols]), _constant(g, [1, 2]))


def crop(x: Tensor, rows: int, cols: int) -> Tensor:
    """The first `rows` rows and `cols` columns of (B, H, W, C): what `pad` made larger."""
    y: Tensor = _Crop.apply(x, rows, cols)  # type: ignore[no-untyped-call]
    return y
