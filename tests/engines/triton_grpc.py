"""Triton's gRPC interface before a stand-in server, so that its published client can be used as it is."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.engines.triton_stand_in import Array, Refused, Server, TritonError

NUMPY = {"BOOL": "bool", "UINT8": "uint8", "INT32": "int32", "INT64": "int64", "FP32": "float32", "BYTES": "object"}
NAMES = {dtype: name for name, dtype in NUMPY.items()}
CODES = {
    TritonError.INVALID_ARG: grpc.StatusCode.INVALID_ARGUMENT,
    TritonError.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    TritonError.CANCELLED: grpc.StatusCode.CANCELLED,
}


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """The address of a gRPC server on loopback."""
    front = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(server), front)
    port = front.add_insecure_port("127.0.0.1:0")
    front.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        front.stop(None).wait()


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """ServerReady, ModelReady and ModelInfer with raw contents, which is how Triton's client sends them."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=request.name in self._server.configs)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        wanted = [output.name for output in request.outputs]
        try:
            inputs = {
                tensor.name: _read(tensor.datatype, list(tensor.shape), raw)
                for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
            }
            found = self._server.infer(request.model_name, inputs, wanted, lambda: not context.is_active())
        except Refused as error:
            context.abort(CODES.get(error.code, grpc.StatusCode.INTERNAL), error.message)
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        for name, array in found.items():
            response.outputs.add(name=name, datatype=NAMES[str(array.dtype)], shape=array.shape)
            response.raw_output_contents.append(_written(array))
        return response


def _read(datatype: str, shape: list[int], raw: bytes) -> Array:
    if datatype != "BYTES":
        found = np.frombuffer(raw, NUMPY[datatype])
    else:
        texts, at = [], 0
        while at < len(raw):
            (length,) = struct.unpack_from("<I", raw, at)
            texts.append(raw[at + 4 : at + 4 + length])
            at += 4 + length
        found = np.array(texts, np.object_)
    if found.size != math.prod(shape):
        raise Refused(f"input byte size mismatch: expected {math.prod(shape)} elements, got {found.size}")
    return found.reshape(shape)


def _written(array: Array) -> bytes:
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(text)) + text for text in array.reshape(-1).tolist())
