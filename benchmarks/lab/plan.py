"""What is compared: the photos, the prompts and the implementations of one run, as every process of it reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

# boothsam.runtime is imported in the functions that need it: PyTorch's cold start must not pay for it.

PROMPTS = (1, 8, 64)
MASK_SUFFIX = ".mask.png"


@dataclass(frozen=True)
class Subject:
    """One photo and the box that every implementation is asked with.

    file: the encoded photo. box_xyxy: in photo pixels. mask: a PNG of the photo's size with the true mask (from 128 on
    is inside), "" when none is known.
    """

    file: str
    box_xyxy: tuple[float, float, float, float]
    mask: str = ""


@dataclass(frozen=True)
class Plan:
    """One run, written as JSON for the processes that do the work.

    model: folder of the exported model. checkpoint: PyTorch file of the same weights, "" when there is none.
    variant: `vit_t`, ..., or "student". seeded: weights are random. drawn: what depends on the mask is done with an
    ellipse that fills the box, because this or another model of the run has random weights and no mask of its own.
    peers: folder with `encoder.onnx` and `decoder.onnx` as samexporter writes them from that checkpoint, "" for none.
    """

    model: str
    checkpoint: str
    variant: str
    seeded: bool
    threads: int
    subjects: tuple[Subject, ...]
    names: tuple[str, ...] = field(default=())
    peers: str = ""
    drawn: bool = False

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read what `save` wrote."""
        data = json.loads(path.read_text())
        data["subjects"] = tuple(Subject(s["file"], tuple(s["box_xyxy"]), s["mask"]) for s in data["subjects"])
        data["names"] = tuple(data["names"])
        return cls(**data)


def demo_photo(folder: Path, megapixels: float = 12.0) -> Subject:
    """The bundled demo photo, 4:3 of it enlarged to a camera's size, with noise (sigma 3), as a JPEG of quality 90.

    12 megapixels are 4000 x 3000. Like cameras' sizes, that shares a divisor with the frame, which `transforms` uses.
    """
    from importlib.resources import files

    import cv2
    from boothsam.runtime.images import encode_image, load_image

    small = load_image(files("boothsam.runtime.demo").joinpath("coffee.jpg").read_bytes())
    width = 8 * round((megapixels * 1e6 * 4 / 3) ** 0.5 / 8)
    height = width * 3 // 4
    side = small.shape[0] * 4 // 3
    middle = small[:, (small.shape[1] - side) // 2 :][:, :side]
    large = cv2.resize(middle, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = 3 * np.random.default_rng(0).standard_normal(large.shape, np.float32)
    photo = np.clip(large + noise, 0, 255).astype(np.uint8)
    path = folder / f"demo-{megapixels:g}mp.jpg"
    path.write_bytes(encode_image(photo, "jpg", quality=90))
    return Subject(str(path), (0.08 * width, 0.04 * height, 0.84 * width, 0.98 * height))


def photos_in(folder: Path, most: int = 8) -> tuple[Subject, ...]:
    """Up to `most` photos of a folder. Beside NAME.jpg, NAME.mask.png may lie: the true mask, whose bounds are the box.

    Without one the box is about the photo's middle. Raises OptionError when there is no photo, or a mask does not fit.
    """
    from boothsam.runtime.errors import OptionError
    from boothsam.runtime.images import load_image

    kinds = (".jpg", ".jpeg", ".png", ".webp")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in kinds and not p.name.endswith(MASK_SUFFIX))[:most]
    if not found:
        raise OptionError(f"no photo in {folder}", hint="name a folder with JPEG, PNG or WebP files")
    subjects = []
    for path in found:
        height, width = load_image(path).shape[:2]
        beside = path.with_name(path.stem + MASK_SUFFIX)
        if not beside.exists():
            subjects.append(Subject(str(path), (0.15 * width, 0.1 * height, 0.85 * width, 0.9 * height)))
            continue
        mask = true_mask(beside)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if mask.shape != (height, width) or not len(rows):
            raise OptionError(
                f"{beside} is {mask.shape[1]} x {mask.shape[0]}, {int(mask.sum())} pixels inside; expected a mask of "
                f"{width} x {height} that is not empty",
                hint="draw it on the photo as displayed, white inside",
            )
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        subjects.append(Subject(str(path), box, str(beside)))
    return tuple(subjects)


def true_mask(file: Path) -> npt.NDArray[np.bool_]:
    """(H, W) bool from a mask's picture."""
    from boothsam.runtime.images import load_image

    return np.asarray(load_image(file)[..., 0] >= 128)


def ellipse_logits(box_xyxy: Sequence[float], original_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(256, 256) float32 logits of the ellipse that fills a box of a photo: of a product's size, and as smooth."""
    left, top, right, bottom = (value * 256 / max(original_hw) for value in box_xyxy)
    x, y = np.arange(256, dtype=np.float32)[None] + 0.5, np.arange(256, dtype=np.float32)[:, None] + 0.5
    across = (x - (left + right) / 2) / ((right - left) / 2)
    down = (y - (top + bottom) / 2) / ((bottom - top) / 2)
    return np.asarray(20 * (1 - across**2 - down**2), np.float32)
