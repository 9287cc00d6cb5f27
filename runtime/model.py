"""A loaded model: photo -> ImageEmbedding -> masks. No state between calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from boothsam.runtime import backends, engine_files, proofs, transforms
from boothsam.runtime.backends import DeviceTensor, Session
from boothsam.runtime.errors import BackendUnavailable, OptionError, PromptError, TensorError
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.store import find_model
from boothsam.runtime.transforms import FloatArray, Size, Uint8Array

log = logging.getLogger("boothsam")

SELDOM = ("decoder_mask",)  # graphs that many uses never ask for: opened when they are needed, where that is safe


@dataclass(frozen=True)
class ImageEmbedding:
    """What the encoder made of one photo; immutable, usable for any number of decodes and from any thread.

    tensors: by name, the manifest's `embedding` and `prepared` tensors, kept where the encoder ran.
    model_key: the weights that made it; another model's decoder refuses it.
    """

    tensors: Mapping[str, DeviceTensor]
    original_hw: Size
    input_hw: Size
    model_key: str

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def close(self) -> None:
        """Give the device memory back."""
        for tensor in self.tensors.values():
            tensor.close()


@dataclass(frozen=True)
class Prompts:
    """P prompts on one photo, each answered by its own masks.

    point_coords: (P, N, 2) (x, y) in photo pixels, or None. point_labels: (P, N), 1 foreground, 0 background, or None.
    box_xyxy: (P, 4) photo pixels, or None. mask_input: (P, 1, 256, 256) logits of an earlier prediction, or None.
    """

    point_coords: npt.NDArray[np.float64] | None = None
    point_labels: npt.NDArray[np.int32] | None = None
    box_xyxy: npt.NDArray[np.float64] | None = None
    mask_input: FloatArray | None = None

    @classmethod
    def make(
        cls,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box_xyxy: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
    ) -> Prompts:
        """From array-likes; a missing leading prompt axis is added: (N, 2), (N,), (4,), (1, 256, 256) mean one prompt.

        Raises:
            PromptError: nothing given, points without labels or the reverse, or shapes that do not fit each other.
        """
        if (point_coords is None) != (point_labels is None):
            given = "point_coords" if point_labels is None else "point_labels"
            raise PromptError(f"only {given} was given; points need both point_coords and point_labels")
        if point_coords is None and box_xyxy is None and mask_input is None:
            raise PromptError("no prompt", hint="give a point, a box or a mask_input")
        coords = _array(point_coords, np.float64, "point_coords", (None, None, 2))
        labels = _array(point_labels, np.int32, "point_labels", (None, None))
        box = _array(box_xyxy, np.float64, "box", (None, 4))
        mask = _array(mask_input, np.float32, "mask_input", (None, 1, 256, 256))
        counts = {
            name: len(a)
            for name, a in (("points", coords), ("labels", labels), ("boxes", box), ("masks", mask))
            if a is not None
        }
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise PromptError(
                f"the numbers of prompts differ or are zero: {counts}",
                hint="give one row of each kind for every prompt",
            )
        if coords is not None and labels is not None:
            if coords.shape[:2] != labels.shape:
                raise PromptError(
                    f"{coords.shape[1]} points but {labels.shape[1]} labels per prompt; expected one label each"
                )
            if not np.isin(labels, (0, 1)).all():
                raise PromptError(
                    f"point labels must be 1 (foreground) or 0 (background), found "
                    f"{sorted(set(labels.ravel().tolist()))}"
                )
            if coords.shape[1] == 0:
                raise PromptError("an empty list of points", hint="leave the points out when a box is all you have")
        if mask is not None and not np.isfinite(mask).all():
            raise PromptError(
                "mask_input holds values that are not finite; expected the low_res_masks of an earlier prediction"
            )
        return cls(coords, labels, box, mask)

    def __len__(self) -> int:
        return next(len(a) for a in (self.point_coords, self.box_xyxy, self.mask_input) if a is not None)


def _array(
    value: npt.ArrayLike | None, dtype: type[Any], name: str, shape: tuple[int | None, ...]
) -> npt.NDArray[Any] | None:
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{name} is no array of numbers: {error}") from None
    if array.ndim == len(shape) - 1:
        array = array[None]
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        raise PromptError(
            f"{name} has shape {np.shape(value)}; expected {shape[1:]} or {shape} with any number where None stands"
        )
    return array


@dataclass(frozen=True)
class Decoded:
    """All four tokens of the decoder for P prompts: (P, 4, 256, 256) logits and (P, 4) predicted IoU, float32."""

    low_res_masks: FloatArray
    iou_predictions: FloatArray

    def select(self, multimask_output: bool) -> tuple[FloatArray, FloatArray]:
        """Tokens 1 to 3 (candidates for an ambiguous prompt) or token 0 alone, as the reference slices them; not
        sorted."""
        tokens = slice(1, None) if multimask_output else slice(0, 1)
        return self.low_res_masks[:, tokens], self.iou_predictions[:, tokens]


class SamModel:
    """Encoder and decoder of one model folder in one backend. Safe to share between threads as far as its backend
    is."""

    def __init__(
        self,
        manifest: ModelManifest,
        sessions: Mapping[str, Session],
        *,
        backend: str,
        precision: str,
        reason: str,
        resize: str = "exact",
    ) -> None:
        transforms.check_resize(resize)
        self.manifest = manifest
        self.backend = backend
        self.precision = precision
        self.reason = reason  # why this backend and precision, for logs and doctor
        self.resize = resize
        self._sessions = MappingProxyType(dict(sessions))

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        unproven: bool = False,
        resize: str = "exact",
    ) -> SamModel:
        """Load a model by folder or installed name; None takes the bundled starter model.

        backend: "auto" takes the first of backends.AUTO_ORDER that works here. precision: "auto" is what is
        proven on this GPU, fp32 elsewhere. threads: CPU threads, None for every core this process may use.
        unproven: load a reduced precision that failed its gate or was never measured here, with a warning.
        resize: how photos are shrunk to the frame, "exact" or "fast"; see `transforms.resize_longest_side`.

        Raises:
            ModelNotFound, ManifestError, IntegrityError: the folder.
            BackendUnavailable: the asked-for backend; with "auto", when there is none at all.
            ProofError: a reduced precision without a proof that this device may use it.
        """
        transforms.check_resize(resize)
        folder = find_model(model)
        manifest = ModelManifest.load(folder)

        def no_engine() -> str | None:
            found, why = engine_files.choose_precision(folder, manifest, precision)
            return None if found else why

        chosen, reason = choose_backend(backend, no_engine)
        chosen_precision = precision
        if precision == "auto" and chosen == "trt":
            built, why = engine_files.choose_precision(folder, manifest)
            if built is None:
                raise BackendUnavailable(
                    f"model {manifest.name!r} has no engine that is built and proven here: {why}",
                    hint=f"boothsam build {folder} --precision fp32",
                )
            chosen_precision, reason = built, f"{reason}; {why}"
        elif precision == "auto":
            chosen_precision, why = proofs.choose_precision(folder, manifest, chosen)
            reason = f"{reason}; {why}"
        if chosen_precision not in manifest.graphs:
            raise OptionError(
                f"model {manifest.name!r} has no precision {chosen_precision!r}; it has {', '.join(manifest.graphs)}",
                hint=f"boothsam quantize {folder} --precision {chosen_precision} --calibration PHOTOS -o FOLDER",
            )
        proofs.require_proof(folder, manifest, chosen_precision, chosen, unproven=unproven)
        sessions = {}
        for graph, file in manifest.graphs[chosen_precision].items():
            external = folder / f"{file}.data" if f"{file}.data" in manifest.files else None
            if external is not None:
                manifest.check_file(folder, external.name)
            data = manifest.read_file(folder, file)
            if graph in SELDOM and external is None:
                sessions[graph] = backends.defer_session(chosen, data, threads=threads)
            else:
                sessions[graph] = backends.open_session(chosen, data, threads=threads, external_data=external)
        log.info("model %s (%s), backend %s: %s", manifest.name, chosen_precision, chosen, reason)
        return cls(manifest, sessions, backend=chosen, precision=chosen_precision, reason=reason, resize=resize)

    def with_resize(self, resize: str) -> SamModel:
        """The same loaded networks with another `resize`; closing either closes both."""
        return SamModel(
            self.manifest,
            self._sessions,
            backend=self.backend,
            precision=self.precision,
            reason=self.reason,
            resize=resize,
        )

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The loaded networks by graph name."""
        return self._sessions

    def encode(self, image: Uint8Array) -> ImageEmbedding:
        """Run the encoder (and `prepare`) on a (H, W, 3) uint8 RGB photo."""
        original_hw = transforms.check_image(image)
        frame, size_hw = self.preprocess(image)
        return self.encode_frame(frame, size_hw, original_hw)

    def preprocess(self, image: Uint8Array) -> tuple[Uint8Array, npt.NDArray[np.int32]]:
        """`transforms.preprocess` for this model: the encoder's two inputs of a (H, W, 3) uint8 RGB photo."""
        return transforms.preprocess(image, self.manifest.image_size, self.resize)

    def encode_frame(self, frame: Uint8Array, size_hw: npt.NDArray[np.int32], original_hw: Size) -> ImageEmbedding:
        """Run the encoder on what `preprocess` gave, for a caller that times the steps apart."""
        names = self.manifest.embedding
        tensors = dict(self._sessions["encoder"].run({"image": frame, "size_hw": size_hw}, keep=names))
        if "prepare" in self._sessions:
            prepare = self._sessions["prepare"]
            feeds = {name: tensors[name] for name in prepare.inputs}
            tensors |= prepare.run(feeds, keep=self.manifest.prepared)
        return ImageEmbedding(
            MappingProxyType(tensors), original_hw, (int(size_hw[0]), int(size_hw[1])), self.manifest.key
        )

    def decode(self, embedding: ImageEmbedding, prompts: Prompts) -> Decoded:
        """Masks for P prompts on one photo.

        Points and boxes are checked against the photo; corners follow the points; SAM's single padding point (label
        -1) is
        appended exactly where the reference does: points and no box.

        Raises:
            PromptError: a prompt outside the photo, reversed, not finite.
            TensorError: the embedding of another model, or one that was closed.
        """
        if embedding.model_key != self.manifest.key:
            raise TensorError(
                f"this embedding was made by the model {embedding.model_key}, not by {self.manifest.key} "
                f"({self.manifest.name})",
                hint="encode the photo again with the model that decodes it",
            )
        coords, labels = self._tokens(prompts, embedding.original_hw)
        feeds: dict[str, Any] = {"point_coords": coords, "point_labels": labels}
        name = "decoder"
        if prompts.mask_input is not None:
            name, feeds["mask_input"] = "decoder_mask", prompts.mask_input
        session = self._sessions[name]
        feeds |= {tensor: embedding.tensors[tensor] for tensor in session.inputs if tensor in embedding.tensors}
        out = session.run(feeds)
        return Decoded(out["low_res_masks"], out["iou_predictions"])

    def decode_many(self, embedding: ImageEmbedding, prompts: Sequence[Prompts]) -> list[Decoded]:
        """Single prompts of differing kinds and numbers of points on one photo, in the order given.

        Those of one shape share a decoder call; nothing is padded, since every extra -1 token would change the mask.
        """
        groups: dict[tuple[int, bool, bool], list[int]] = {}
        for index, prompt in enumerate(prompts):
            if len(prompt) != 1:
                raise OptionError(f"decode_many takes single prompts, prompt {index} holds {len(prompt)}")
            points = 0 if prompt.point_coords is None else prompt.point_coords.shape[1]
            groups.setdefault((points, prompt.box_xyxy is not None, prompt.mask_input is not None), []).append(index)
        results: list[Decoded | None] = [None] * len(prompts)
        for members in groups.values():
            fields = ("point_coords", "point_labels", "box_xyxy", "mask_input")
            stacked = {
                f: None
                if getattr(prompts[members[0]], f) is None
                else np.concatenate([getattr(prompts[i], f) for i in members])
                for f in fields
            }
            decoded = self.decode(embedding, Prompts(**stacked))
            for row, index in enumerate(members):
                results[index] = Decoded(decoded.low_res_masks[row : row + 1], decoded.iou_predictions[row : row + 1])
        return [result for result in results if result is not None]

    def _tokens(self, prompts: Prompts, original_hw: Size) -> tuple[FloatArray, npt.NDArray[np.int32]]:
        """point_coords (P, N, 2) in frame pixels and point_labels (P, N) as the graph takes them."""
        size = self.manifest.image_size
        count = len(prompts)
        coords: list[FloatArray] = []
        labels: list[npt.NDArray[np.int32]] = []
        if prompts.point_coords is not None and prompts.point_labels is not None:
            transforms.check_points(prompts.point_coords, original_hw)
            coords.append(transforms.map_points(prompts.point_coords, original_hw, size))
            labels.append(prompts.point_labels.astype(np.int32))
            if prompts.box_xyxy is None:
                coords.append(np.zeros((count, 1, 2), np.float32))
                labels.append(np.full((count, 1), -1, np.int32))
        if prompts.box_xyxy is not None:
            transforms.check_boxes(prompts.box_xyxy, original_hw)
            coords.append(transforms.map_boxes(prompts.box_xyxy, original_hw, size).reshape(count, 2, 2))
            labels.append(np.tile(np.array([2, 3], np.int32), (count, 1)))
        if not coords:  # a mask alone: no sparse token at all, as in the reference
            return np.zeros((count, 0, 2), np.float32), np.zeros((count, 0), np.int32)
        return np.concatenate(coords, 1), np.concatenate(labels, 1)

    def to(self, device: object) -> SamModel:
        """For code written for segment_anything (`sam.to(device="cuda")`): says no when it runs elsewhere.

        Raises:
            BackendUnavailable: the model was loaded for another kind of device.
        """
        wanted, found = str(device).split(":")[0], self._sessions["encoder"].device.split(":")[1]
        if wanted != found:
            raise BackendUnavailable(
                f"the model was loaded for {found!r} (backend {self.backend}), not for {str(device)!r}",
                hint=f"SamModel.load(..., backend='ort-{wanted}')",
            )
        return self

    def close(self) -> None:
        """Free the networks."""
        for session in self._sessions.values():
            session.close()


def choose_backend(backend: str, no_engine: Callable[[], str | None]) -> tuple[str, str]:
    """The backend to use and the reason in words; "auto" tries backends.AUTO_ORDER in turn.

    no_engine: why "trt" cannot run the model although TensorRT and a GPU are there, None when it can.

    Raises:
        BackendUnavailable: the named one is missing, or all are.
    """
    if backend != "auto":
        reason = backends.unavailable_reason(backend)
        if reason is not None:
            raise BackendUnavailable(
                f"backend {backend} is not available: {reason}", hint="boothsam doctor lists this machine's backends"
            )
        return backend, "asked for"
    passed_over: list[str] = []
    for candidate in backends.AUTO_ORDER:
        reason = backends.unavailable_reason(candidate)
        if reason is None and candidate == "trt":
            reason = no_engine()
        if reason is None:
            return candidate, "first of the automatic order that works here" + "".join(f"; {p}" for p in passed_over)
        passed_over.append(f"{candidate} passed over: {reason}")
    raise BackendUnavailable("no backend works here: " + "; ".join(passed_over), hint="pip install 'boothsam[cpu]'")
