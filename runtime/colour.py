"""Colour: embedded profiles to sRGB, any of Pillow's modes to RGB, and the profile that every picture is given."""

from __future__ import annotations

import io
import logging
import struct
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_log = logging.getLogger(__name__)


def is_srgb(profile: bytes | None) -> bool:
    """Whether pixels with this embedded profile need no conversion."""
    if not profile:
        return True
    try:
        description = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.profile_description
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False  # the conversion says what is wrong with it
    return (description or "").startswith("sRGB")


def to_rgb(picture: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Any mode and profile as RGB in sRGB, in the ways that `images` lists."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        colour = _to_srgb(layered.convert("RGB"), profile, name)
        white = Image.new("RGB", colour.size, (255, 255, 255))
        white.paste(colour, mask=layered.getchannel("A"))
        return white
    if picture.mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    return _to_srgb(picture, profile, name).convert("RGB")


def _to_srgb(picture: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Convert L, RGB or CMYK pixels from their ICC profile to sRGB; unchanged without one."""
    if profile is None or is_srgb(profile):
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() == "RGB" and picture.mode == "L":
            picture = picture.convert("RGB")
        converted = ImageCms.profileToProfile(
            picture,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        _log.warning("%s: unusable ICC profile ignored, colours taken as sRGB (%s)", name, error)
        return picture
    return picture if converted is None else converted


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """A small sRGB profile; its creation date is set to a fixed one so that equal pictures give equal files."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    data[84:100] = bytes(16)
    return bytes(data)
