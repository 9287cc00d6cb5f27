"""What a picture's file says of itself: format, size, colours, orientation, density, private metadata."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from boothsam.runtime.containers import is_lossless, sniff
from boothsam.runtime.errors import ImageError
from boothsam.runtime.images import load_image, probe
from boothsam.runtime.transforms import Uint8Array
from boothsam.service.presets.private import DAMAGED, private_metadata
from PIL import Image, ImageCms

MAX_PIXELS, MAX_SIDE = 120_000_000, 16384
_PILLOW = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
_OTHERS = {b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"8BPS": "PSD", b"%PDF": "PDF"}
# sRGB's own profiles differ by a level or two where they model black; other spaces' differ by dozens.
_SAME = 4


@dataclass(frozen=True)
class Facts:
    """A picture's file.

    Attributes:
        format: "jpg", "png", "webp", or the name of a format that is not read here, or "".
        size_wh: width and height in pixels as shown.
        nbytes: length of the file.
        ending: lower case with its dot, "" for a picture without a name.
        stem: the name without its ending, None for a picture without a name.
        mode: Pillow's word for the stored pixels.
        profile: what the embedded ICC profile calls itself, "" without one.
        srgb: whether colours stay what they are when the profile is not applied.
        orientation: EXIF, 1 is upright.
        frames: more than 1 for an animation.
        dpi: pixels per inch, None where the file says nothing.
        private: which private metadata there is.
        transparent: whether any pixel shows what lies behind.
        lossy: whether the encoder may have changed a flat background.
        pixels: (h, w, 3) uint8 sRGB, transparency on white; None for a format that is not read here.
        alpha: (h, w) uint8, None where the picture has no transparency.
    """

    format: str
    size_wh: tuple[int, int]
    nbytes: int
    ending: str = ""
    stem: str | None = None
    mode: str = "RGB"
    profile: str = ""
    srgb: bool = True
    orientation: int = 1
    frames: int = 1
    dpi: float | None = None
    private: tuple[str, ...] = ()
    transparent: bool = False
    lossy: bool = True
    pixels: Uint8Array | None = None
    alpha: npt.NDArray[np.uint8] | None = None


def read_facts(data: bytes, name: str | None = None) -> Facts:
    """Read a picture. name: its file's name, for the rules of names.

    Raises:
        ImageError: no picture at all, damaged, or too large.
    """
    path = PurePath(name) if name is not None else None
    ending, stem = ("", None) if path is None else (path.suffix.lower(), path.stem)
    kind = sniff(data)
    if not kind:
        other = next((label for magic, label in _OTHERS.items() if data.startswith(magic)), "")
        if not other:
            probe(data)  # raises ImageError, with what it is instead
        return Facts(other, (0, 0), len(data), ending, stem)
    limits = {"max_pixels": MAX_PIXELS, "max_side": MAX_SIDE}
    header = probe(data, **limits)
    pixels = load_image(data, **limits)
    # Pillow calls a JPEG with a second picture behind it, as phones write it, MPO; it is a JPEG like any other.
    with Image.open(io.BytesIO(data), formats=[_PILLOW[kind]]) as picture:
        try:
            picture.load()  # a PNG's texts may stand behind its pixels
            alpha = _alpha(picture)
            dpi = picture.info.get("dpi")
            frames = 1 if kind == "jpg" else int(getattr(picture, "n_frames", 1))
            private, icc = private_metadata(picture, data), picture.info.get("icc_profile")
            profile, srgb = _profile(icc), _is_srgb(icc, header.mode)
        except DAMAGED as error:
            raise ImageError(f"damaged {header.format}: {error}", hint="make the picture again") from error
    return Facts(
        format=kind,
        size_wh=(header.size_hw[1], header.size_hw[0]),
        nbytes=len(data),
        ending=ending,
        stem=stem,
        mode=header.mode,
        profile=profile,
        srgb=srgb,
        orientation=header.orientation,
        frames=frames,
        dpi=None if dpi is None else round(float(dpi[0]), 1),
        private=private,
        transparent=alpha is not None and bool((alpha < 255).any()),
        lossy=not is_lossless(data),
        pixels=pixels,
        alpha=alpha,
    )


def _alpha(picture: Image.Image) -> npt.NDArray[np.uint8] | None:
    if not picture.has_transparency_data:
        return None
    return np.asarray(picture.convert("RGBA").getchannel("A"), np.uint8)


def _profile(icc: bytes | None) -> str:
    if not icc:
        return ""
    try:
        name: Any = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.profile_description
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "unreadable"
    return str(name or "unnamed").strip()


def _is_srgb(icc: bytes | None, mode: str) -> bool:
    """Whether a profile takes a cube of colours, or a row of greys, to themselves: its name says little."""
    if not icc:
        return True
    steps = np.linspace(0, 255, 6).astype(np.uint8)
    grey = mode in ("L", "LA", "1")
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    colours = Image.fromarray(steps[None] if grey else cube)
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if grey and profile.profile.xcolor_space.strip() == "RGB":
            colours = colours.convert("RGB")
        shown = ImageCms.profileToProfile(
            colours,
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
    before, after = (np.asarray(image.convert("RGB"), np.int16) for image in (colours, shown or colours))
    return int(np.abs(before - after).max()) <= _SAME
