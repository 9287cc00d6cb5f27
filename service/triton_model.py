"""The model that clients of a Triton server ask: a photo or its embedding's id, and prompts; masks come back.

`boothsam export-triton` writes the repository (`engines/triton.py`); its model.py is an import of this class, which
Triton's Python backend instantiates. Encoder and decoders are models of the same server (`triton_session.py`); before
and after them run the very functions of `boothsam.runtime`.

Inputs, all optional for Triton: `image` (one JPEG, PNG or WebP), `image_rgb` (H, W, 3) uint8 or `embedding_id`, exactly
one of them; `point_coords` (P, N, 2) float32 (x, y) and `point_labels` (P, N) int32, `box` (P, 4) float32 XYXY,
`mask_input` (P, 1, 256, 256) float32; `multimask_output` (1,) bool, True when left out. Coordinates are pixels of the
upright photo.

Outputs: `masks` (P, C, H, ceil(W / 8)) uint8, each row packed from its left pixel, which is the highest bit
(`numpy.unpackbits(masks, axis=-1, count=W)`): eight times less to move than a byte per pixel, and no decoder needed;
`iou_predictions` (P, C), `low_res_masks` (P, C, 256, 256) float32, C being 3 or, without multimask, 1; `original_hw`
(2,) int32; `embedding_id` (1,). Only what is asked for is computed: who asks for `embedding_id` alone needs no prompt.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from boothsam.runtime import transforms
from boothsam.runtime.backends.base import TensorSpec
from boothsam.runtime.errors import BoothsamError, DeviceError, ImageError, ManifestError, OptionError, PromptError
from boothsam.runtime.images import load_image
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.runtime.transforms import FloatArray, Size, Uint8Array
from boothsam.service.embeddings import EmbeddingCache, embedding_id
from boothsam.service.triton_session import TritonSession

FORMAT, FACTS = 1, "boothsam.json"
SOURCES = ("image", "image_rgb", "embedding_id")
MOST_MASK_BYTES = 256 << 20  # of one answer: it passes through shared memory, which is small
NEED_PROMPTS = ("masks", "iou_predictions", "low_res_masks")
OUTPUTS = (*NEED_PROMPTS, "original_hw", "embedding_id")


class UnknownEmbedding(BoothsamError):
    """An embedding id that names no photo in the cache."""


@dataclass(frozen=True)
class Limits:
    """The parameters of the model's config.pbtxt, as `engines.triton.Settings` explains them."""

    cache_bytes: int
    cache_ttl_s: int
    threads: int
    max_prompts: int
    max_points: int
    max_pixels: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Limits:
        """From the configuration that Triton hands over.

        Raises:
            OptionError: a parameter is missing, or no whole number of 0 or more.
        """
        given = {key: str(value.get("string_value", "")) for key, value in config.get("parameters", {}).items()}
        found: dict[str, int] = {}
        for name in (f.name for f in fields(cls)):
            text = given.get(name, "")
            if not text.isascii() or not text.isdigit():
                raise OptionError(
                    f"the parameter {name} in config.pbtxt is {text!r}; expected a whole number",
                    hint="export the repository again, or write the number back",
                )
            found[name] = int(text)
        return cls(**found)


@dataclass(frozen=True)
class Question:
    """One request, copied out of what Triton lends: its memory is gone when `execute` returns.

    arrays: the inputs by name, strings of bytes as bytes. wanted: names of the outputs. cancelled: whether its client
    has gone meanwhile.
    """

    arrays: Mapping[str, Any]
    wanted: frozenset[str]
    cancelled: Callable[[], bool]

    @classmethod
    def of(cls, request: Any, cancelled: Callable[[], bool]) -> Question:
        arrays: dict[str, Any] = {}
        for tensor in request.inputs():
            value = tensor.as_numpy()
            if value.dtype == np.object_:
                arrays[tensor.name()] = bytes(value.reshape(-1)[0]) if value.size == 1 else b""
            else:
                arrays[tensor.name()] = np.array(value, copy=True)
        return cls(arrays, frozenset(request.requested_output_names()) or frozenset(OUTPUTS), cancelled)


class TritonPythonModel:
    """What Triton calls: `initialize` once, `execute` for requests, `finalize` at the end."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """args: Triton's; of it `model_config` (JSON), `model_repository` (this model's folder), `model_version`.

        Raises:
            OptionError, ManifestError: config.pbtxt or boothsam.json; the server then does not load the model.
        """
        self._triton = importlib.import_module("triton_python_backend_utils")
        self._limits = Limits.of(json.loads(args["model_config"]))
        self._model = load_model(Path(args["model_repository"]) / args["model_version"] / FACTS, self._triton)
        self._cache = EmbeddingCache(self._limits.cache_bytes, self._limits.cache_ttl_s)
        threads = self._limits.threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="boothsam") if threads else None
        self._free = threading.Semaphore(max(threads, 1))

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Answer requests: each gets one response, an error where there is no answer; nothing is raised.

        With threads the responses are sent when they are ready, and None is returned at once, or once a thread is free:
        Triton's queue holds what waits, and a click need not wait for another photo's encoder.
        """
        if self._pool is None:
            return [self._respond(self._read(request, request.is_cancelled)) for request in requests]
        for request in requests:
            sender = request.get_response_sender()
            self._free.acquire()
            self._pool.submit(self._send, self._read(request, sender.is_cancelled), sender)
        return None

    def finalize(self) -> None:
        """Answer what is in work, and drop the cache."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._cache.clear()

    def _send(self, question: Question | Exception, sender: Any) -> None:
        try:
            sender.send(self._respond(question), flags=self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:  # Triton took no answer, so nobody but the log can be told
            self._triton.Logger.log_error(f"an answer could not be sent: {error!r}")
        finally:
            self._free.release()

    def _read(self, request: Any, cancelled: Callable[[], bool]) -> Question | Exception:
        try:
            return Question.of(request, cancelled)
        except Exception as error:
            return error

    def _respond(self, question: Question | Exception) -> Any:
        """A response in any case: an exception out of `execute` would fail other clients' requests as well."""
        triton = self._triton
        try:
            if isinstance(question, Exception):
                raise question
            if question.cancelled():
                gone = triton.TritonError("the client has gone", triton.TritonError.CANCELLED)
                return triton.InferenceResponse(output_tensors=[], error=gone)
            outputs = self._answer(question)
            return triton.InferenceResponse([triton.Tensor(name, array) for name, array in outputs.items()])
        except Exception as error:
            return triton.InferenceResponse(output_tensors=[], error=self._error(error))

    def _error(self, error: Exception) -> Any:
        triton_error = self._triton.TritonError
        if isinstance(error, UnknownEmbedding):
            code = triton_error.NOT_FOUND
        elif isinstance(error, BoothsamError) and not isinstance(error, DeviceError):
            code = triton_error.INVALID_ARG
        else:
            code = triton_error.INTERNAL
            self._triton.Logger.log_error(f"{type(error).__name__}: {error}")
        text = str(error) if isinstance(error, BoothsamError) else f"unexpected {type(error).__name__}: {error}"
        return triton_error(text, code)

    def _answer(self, question: Question) -> dict[str, npt.NDArray[Any]]:
        """The wanted outputs by name."""
        arrays, wanted = question.arrays, question.wanted
        prompts = self._prompts(arrays) if wanted & set(NEED_PROMPTS) else None
        key, embedding = self._embedding(arrays)
        found: dict[str, npt.NDArray[Any]] = {
            "embedding_id": np.array([key.encode()], np.object_),
            "original_hw": np.array(embedding.original_hw, np.int32),
        }
        if prompts is not None:
            multimask = "multimask_output" not in arrays or bool(arrays["multimask_output"].all())
            if "masks" in wanted:
                _check_bytes(len(prompts) * (3 if multimask else 1), embedding.original_hw)
            low_res, scores = self._model.decode(embedding, prompts).select(multimask)
            found |= {"iou_predictions": scores, "low_res_masks": low_res}
            if "masks" in wanted:
                found["masks"] = pack_masks(low_res, embedding.original_hw, self._model.manifest.image_size)
        return {name: found[name] for name in OUTPUTS if name in wanted}

    def _prompts(self, arrays: Mapping[str, Any]) -> Prompts:
        if not arrays.keys() & {"point_coords", "point_labels", "box", "mask_input"}:
            raise PromptError(
                "no prompt", hint="send point_coords and point_labels, box or mask_input; or ask for embedding_id alone"
            )
        prompts = Prompts.make(
            arrays.get("point_coords"), arrays.get("point_labels"), arrays.get("box"), arrays.get("mask_input")
        )
        points = 0 if prompts.point_coords is None else prompts.point_coords.shape[1]
        points += 2 if prompts.box_xyxy is not None else 1 if points else 0  # the corners, or SAM's own point
        most = self._limits
        if len(prompts) > most.max_prompts or points > most.max_points:
            raise PromptError(
                f"{len(prompts)} prompts of {points} points (a box counts two, a prompt without one gets SAM's own); "
                f"expected at most {most.max_prompts} of {most.max_points}",
                hint="ask several times, or raise max_prompts and max_points in config.pbtxt",
            )
        return prompts

    def _embedding(self, arrays: Mapping[str, Any]) -> tuple[str, ImageEmbedding]:
        """Id and embedding of the photo; of several requests that bring one photo at once, one encodes it."""
        given = [name for name in SOURCES if name in arrays]
        if len(given) != 1:
            raise ImageError(
                f"found {' and '.join(given) or 'no photo'}; expected one of {', '.join(SOURCES)}",
                hint="send image (a JPEG, PNG or WebP file), and its embedding_id for further prompts",
            )
        value = arrays[given[0]]
        if given[0] == "embedding_id":
            known = value.decode("ascii", "replace")
            embedding = self._cache.get(known)
            if embedding is None:
                raise UnknownEmbedding(
                    f"no embedding {known[:64]!r} is kept here, or not any more", hint="send the photo again as image"
                )
            return known, embedding
        if given[0] == "image":
            digest = hashlib.sha256(value)
        else:
            height, width = transforms.check_image(value)
            if height * width > self._limits.max_pixels:
                raise ImageError(
                    f"image_rgb has {width}x{height} pixels; accepted: {self._limits.max_pixels} in all",
                    hint="scale the photo down",
                )
            digest = hashlib.sha256(f"rgb {height} {width} ".encode())
            digest.update(value)
        key = embedding_id(digest.hexdigest(), self._model.manifest.key, self._model.precision)

        def encode() -> ImageEmbedding:
            pixels = given[0] == "image_rgb"
            return self._model.encode(value if pixels else load_image(value, max_pixels=self._limits.max_pixels))

        return key, self._cache.get_or_make(key, encode)[0]


def load_model(path: Path, triton: Any) -> SamModel:
    """A SamModel over the graphs of this server, as boothsam.json beside model.py lists them.

    Raises:
        ManifestError: the file cannot be read, or is of another format.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["format"] != FORMAT:
            raise ManifestError(
                f"{path} has format {body['format']!r}, written by boothsam {body.get('boothsam')}; expected {FORMAT}",
                hint="export the repository with the boothsam that the server has, or install that one",
            )
        manifest = ModelManifest.from_json(json.dumps(body["manifest"]), where=str(path))
        sessions = {
            graph: TritonSession(triton, str(f["model"]), int(f["version"]), _specs(f["inputs"]), _specs(f["outputs"]))
            for graph, f in body["graphs"].items()
        }
        precision = str(body["precision"])
    except ManifestError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path} cannot be read ({error!r})", hint="export the repository again") from None
    return SamModel(manifest, sessions, backend="triton", precision=precision, reason="asked for by Triton")


def _specs(tensors: Mapping[str, Sequence[Any]]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in tensors.items()}


def _check_bytes(masks: int, original_hw: Size) -> None:
    height, width = original_hw
    found = masks * height * -(-width // 8)
    if found > MOST_MASK_BYTES:
        raise PromptError(
            f"{masks} masks of {width}x{height} pixels are {found >> 20} MiB; expected at most {MOST_MASK_BYTES >> 20}",
            hint="ask for low_res_masks, for fewer prompts at a time, or without multimask_output",
        )


def pack_masks(low_res: FloatArray, original_hw: Size, image_size: int) -> Uint8Array:
    """(P, C, 256, 256) logits to the photo's masks, a bit per pixel: (P, C, H, ceil(W / 8)), as SamPredictor's."""
    height, width = original_hw
    packed = np.empty((*low_res.shape[:2], height, -(-width // 8)), np.uint8)
    for prompt, candidates in enumerate(low_res):
        for index, logits in enumerate(candidates):
            mask = transforms.upscale_mask(logits, original_hw, SamPredictor.mask_threshold, image_size)
            packed[prompt, index] = np.packbits(mask, axis=-1)
    return packed
