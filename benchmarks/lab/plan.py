"""What is compared: the photos, the prompts and the implementations of one run, as every process of it reads them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import encode_image, load_image
from boothsam.runtime.transforms import FloatArray

PROMPTS = (1, 8, 64)


@dataclass(frozen=True)
class Subject:
    """One photo and the box that every implementation is asked with.

    file: the encoded photo. box_xyxy: in photo pixels. synthetic: read the masks' logits from `synthetic_logits`,
    because the model has no trained weights and its masks would be noise.
    """

    file: str
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Plan:
    """One run, written as JSON for the processes that do the work.

    model: folder of the exported model. checkpoint: PyTorch file of the same weights, "" when there is none.
    variant: `vit_t`, ..., or "student". seeded: weights are random; mask-dependent stages then use a drawn ellipse.
    """

    model: str
    checkpoint: str
    variant: str
    seeded: bool
    threads: int
    subjects: tuple[Subject, ...]
    resize: str = "exact"
    names: tuple[str, ...] = field(default=())

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read what `save` wrote."""
        data = json.loads(path.read_text())
        data["subjects"] = tuple(Subject(s["file"], tuple(s["box_xyxy"])) for s in data["subjects"])
        data["names"] = tuple(data["names"])
        return cls(**data)


def demo_photo(folder: Path, megapixels: float = 12.0) -> Subject:
    """The bundled demo photo, enlarged to a camera's size, with a sensor's noise (sigma 3), as a JPEG of quality 90."""
    small = load_image(files("boothsam.runtime.demo").joinpath("coffee.jpg").read_bytes())
    scale = (megapixels * 1e6 / (small.shape[0] * small.shape[1])) ** 0.5
    large = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    noise = 3 * np.random.default_rng(0).standard_normal(large.shape, np.float32)
    photo = np.clip(large + noise, 0, 255).astype(np.uint8)
    path = folder / f"demo-{megapixels:g}mp.jpg"
    path.write_bytes(encode_image(photo, "jpg", quality=90))
    height, width = photo.shape[:2]
    return Subject(str(path), (0.12 * width, 0.04 * height, 0.8 * width, 0.98 * height))


def photos_in(folder: Path, most: int = 8) -> tuple[Subject, ...]:
    """Up to `most` photos of a folder, asked with a box about their middle. Raises OptionError when there is none."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))[:most]
    if not found:
        raise OptionError(f"no photo in {folder}", hint="name a folder with JPEG, PNG or WebP files")
    subjects = []
    for path in found:
        height, width = load_image(path).shape[:2]
        subjects.append(Subject(str(path), (0.15 * width, 0.1 * height, 0.85 * width, 0.9 * height)))
    return tuple(subjects)


def ellipse_logits() -> FloatArray:
    """(256, 256) float32 logits of an ellipse inside the demo's box: what a trained model's mask costs downstream."""
    x, y = np.arange(256, dtype=np.float32)[None], np.arange(256, dtype=np.float32)[:, None]
    inside = 1 - ((x - 118) / 70) ** 2 - ((y - 86) / 62) ** 2
    return np.asarray(20 * inside, np.float32)
