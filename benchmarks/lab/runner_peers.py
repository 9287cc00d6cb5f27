"""Other projects that run SAM on ONNX Runtime: samexporter and osam, on graphs in the form that samexporter writes.

    python -m samexporter.export_encoder --checkpoint mobile_sam.pt --model-type mobile --output FOLDER/encoder.onnx
    python -m samexporter.export_decoder --checkpoint mobile_sam.pt --model-type mobile --output FOLDER/decoder.onnx

Both take their threads from the machine, so the process is bound to as many cores. Neither writes cut-outs: NumPy and
Pillow finish the picture, as for PyTorch. Their masks are not SAM's: both add a padding point to boxes, where the
original adds none, and osam marks a missing mask with -1 where the graph expects 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from boothsam.bench.naive import compose, to_png
from boothsam.bench.plan import Plan, Subject, ellipse_logits
from boothsam.bench.runners import Cropped
from boothsam.runtime.transforms import upscale_mask
from boothsam.service.stages import Stages

Photo = npt.NDArray[np.uint8]
Ask = Callable[[Any, npt.NDArray[np.float32], list[int]], npt.NDArray[np.bool_]]


class _Watched:
    """An ONNX Runtime session whose last answer and time are kept."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.ms = 0.0
        self.answer: dict[str, npt.NDArray[Any]] = {}

    def run(self, output_names: Any, input_feed: Any) -> Any:
        if len(input_feed) == 1:  # osam calls the encoder's input "x", samexporter writes "input_image"
            input_feed = {self._session.get_inputs()[0].name: next(iter(input_feed.values()))}
        start = perf_counter()
        out = self._session.run(output_names, input_feed)
        self.ms = 1e3 * (perf_counter() - start)
        self.answer = dict(zip((port.name for port in self._session.get_outputs()), out, strict=True))
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class PeerRunner:
    """samexporter's or osam's own code from the photo to the mask."""

    def __init__(self, plan: Plan, package: str) -> None:
        self._plan, self._package = plan, package
        make = _samexporter if package == "samexporter" else _osam
        self._read, self._embed, self._ask, self._encoder, self._decoder = make(Path(plan.peers))
        self._embedding: Any = None
        self._box: npt.NDArray[np.float32] = np.zeros((2, 2), np.float32)

    def crop(self, subject: Subject) -> Cropped:
        """Their reading, encoding and prompting; what they do before and after the graphs is "resize" and "mask"."""
        stages = Stages()
        with stages.time("decode photo"):
            image = self._read(subject.file)
        before = perf_counter()
        self._set(image, subject)
        stages.ms["encoder"] = self._encoder.ms
        stages.ms["resize"] = 1e3 * (perf_counter() - before) - self._encoder.ms
        before = perf_counter()
        mask = self._ask(self._embedding, self._box, [2, 3])
        stages.ms["decoder"] = self._decoder.ms
        stages.ms["mask"] = 1e3 * (perf_counter() - before) - self._decoder.ms
        if self._plan.drawn:
            hw = (image.shape[0], image.shape[1])
            mask = upscale_mask(ellipse_logits(subject.box_xyxy, hw), hw)
        with stages.time("alpha"):
            layered = compose(image, mask)
        with stages.time("encode picture"):
            picture = to_png(layered)
        logits = np.asarray(self._decoder.answer["low_res_masks"][0, 0], np.float32)
        return Cropped(picture, stages.ms, logits, float(self._decoder.answer["iou_predictions"].flat[0]))

    def embed(self, subject: Subject) -> float:
        """The encoder's graph alone."""
        self._set(self._read(subject.file), subject)
        return float(self._encoder.ms)

    def tune(self) -> int:
        """One at a time: neither takes several prompts."""
        return 1

    def decode(self, prompts: int) -> None:
        """One after the other."""
        for _ in range(prompts):
            self._ask(self._embedding, self._box, [2, 3])

    def click(self) -> Mapping[str, float]:
        """A click to the photo-sized mask."""
        start = perf_counter()
        self._ask(self._embedding, self._box.mean(0, keepdims=True), [1])
        return {"total": 1e3 * (perf_counter() - start), "decoder": float(self._decoder.ms)}

    def versions(self) -> dict[str, str]:
        """The package and what computes."""
        return {name: version(name) for name in (self._package, "onnxruntime")}

    def _set(self, image: Photo, subject: Subject) -> None:
        self._embedding = self._embed(image)
        self._box = np.asarray(subject.box_xyxy, np.float32).reshape(2, 2)


def _samexporter(folder: Path) -> tuple[Any, ...]:
    import cv2

    model = import_module("samexporter.sam_onnx").SegmentAnythingONNX(
        str(folder / "encoder.onnx"), str(folder / "decoder.onnx"), providers=["CPUExecutionProvider"]
    )
    model.encoder_session, model.decoder_session = _Watched(model.encoder_session), _Watched(model.decoder_session)

    def ask(embedding: Any, points: npt.NDArray[np.float32], labels: list[int]) -> npt.NDArray[np.bool_]:
        kind: dict[str, Any] = {"type": "rectangle"} if labels == [2, 3] else {"type": "point", "label": labels[0]}
        prompt = [kind | {"data": points.ravel().tolist()}]
        return np.asarray(model.predict_masks(embedding, prompt)[0, 0] > 0)

    return cv2.imread, model.encode, ask, model.encoder_session, model.decoder_session


def _osam(folder: Path) -> tuple[Any, ...]:
    from PIL import Image

    types, sam = import_module("osam.types"), import_module("osam._models.sam._models")

    class Local(types.Blob):  # type: ignore[misc, name-defined]
        """A graph of ours where osam looks for one of its downloads."""

        @property
        def path(self) -> str:
            return str(folder / self.url)

    def blob(file: str) -> Any:
        return Local(url=file, hash=f"sha256:{hashlib.sha256((folder / file).read_bytes()).hexdigest()}")

    class Model(sam.Sam):  # type: ignore[misc, name-defined]
        """osam's own class for SAM's graphs, with local files."""

        name = "local"
        _blobs: ClassVar = {"encoder": blob("encoder.onnx"), "decoder": blob("decoder.onnx")}

        @classmethod
        def pull(cls, *args: Any, **options: Any) -> None:
            """Nothing to download."""

    model = Model()
    sessions = {name: _Watched(session) for name, session in model._inference_sessions.items()}
    model._inference_sessions = sessions

    def ask(embedding: Any, points: npt.NDArray[np.float32], labels: list[int]) -> npt.NDArray[np.bool_]:
        prompt = types.Prompt(points=points, point_labels=np.asarray(labels, np.int32))
        answer = model.generate(types.GenerateRequest(model="local", image_embedding=embedding, prompt=prompt))
        mask = answer.annotations[0].mask
        if mask is None:
            raise RuntimeError("osam gave no mask; expected one")
        return np.asarray(mask)

    def read(file: str) -> Photo:
        return np.asarray(Image.open(file).convert("RGB"))

    return read, model.encode_image, ask, sessions["encoder"], sessions["decoder"]
