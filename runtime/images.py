"""Photos in, pictures out: the only place that reads or writes image files.

Reading: JPEG, PNG and WebP by their first bytes, whatever the name says; the size is checked from the header before
anything is decoded. The result is (H, W, 3) uint8 sRGB with the EXIF orientation applied. What is not plain RGB is
turned into it in a defined way:

- an embedded ICC profile is converted to sRGB (relative colorimetric, black point compensation); a profile that cannot
  be used is logged and ignored, as browsers do;
- transparency is laid on white; grey is repeated in three channels; CMYK without a profile is converted naively;
- 16 bits per channel keep their upper 8; of an animation the first frame is taken.

Writing is atomic: a reader sees the whole new file or the old one.
"""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import secrets
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import PIL
from boothsam.runtime.colour import is_srgb, srgb_profile, to_rgb
from boothsam.runtime.errors import ImageError, OptionError, OutputError
from boothsam.runtime.png import encode_png
from PIL import Image

Uint8Array = npt.NDArray[np.uint8]
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
MAX_PIXELS = 50_000_000
MAX_SIDE = 16384

_log = logging.getLogger(__name__)
_ORIENTATION = 0x0112
_FORMATS = {"jpg": "jpg", "jpeg": "jpg", "png": "png", "webp": "webp"}
_LARGEST = {"jpg": 65535, "png": 2**31 - 1, "webp": 16383}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)
_OTHERS = {
    b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF", b"<svg": "SVG", b"<?xm": "XML",
    b"8BPS": "PSD",
}  # fmt: skip


@dataclass(frozen=True)
class ImageInfo:
    """What the header of a photo says.

    `format` is "JPEG", "PNG" or "WEBP"; `size_hw` (height, width) as displayed, after the EXIF orientation (1..8);
    `mode` Pillow's name of the stored pixels, such as "RGB", "CMYK", "P", "I;16".
    """

    format: str
    size_hw: tuple[int, int]
    orientation: int
    mode: str


def probe(source: Source, *, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> ImageInfo:
    """Read the header only. Raises ImageError as `load_image` does, but for damage behind the header."""
    data, name = read_source(source)
    with _open(data, name, max_pixels, max_side) as picture:
        return _info(picture, name)


def load_image(source: Source, *, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> Uint8Array:
    """Decode a photo to (H, W, 3) uint8 sRGB, upright.

    Args:
        source: a path, the file's bytes, or a file opened in binary mode.
        max_pixels: largest accepted height x width.
        max_side: largest accepted side in pixels.

    Raises:
        ImageError: no such file, not readable, not a JPEG, PNG or WebP, too large, truncated or damaged.
    """
    data, name = read_source(source)
    with _open(data, name, max_pixels, max_side) as picture:
        kind, profile = str(picture.format), picture.info.get("icc_profile")
        try:
            stored = _decode_jpeg(picture, data, name) if kind == "JPEG" else None
            if stored is not None and stored.shape[2] == 3 and is_srgb(profile):
                pixels = stored  # what nearly every camera sends: through Pillow it would be copied three times
            else:
                raw = picture if stored is None else _as_picture(stored)
                pixels = np.asarray(to_rgb(raw, profile, name))
        except ImageError:
            raise
        except _BROKEN as error:
            raise ImageError(
                f"{name} is a damaged or truncated {kind}: {error}", hint="take or copy the photo again"
            ) from error
        return _upright(pixels, _info(picture, name).orientation)


def read_source(source: Source) -> tuple[bytes, str]:
    """The bytes and a name for messages; a file that begins like no photo is not read further. Raises ImageError."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), "the image"
    if not isinstance(source, str | os.PathLike):
        try:
            data = source.read()
        except (OSError, AttributeError, ValueError) as error:
            found = type(source).__name__
            raise ImageError(
                f"cannot read from {found}: {error}", hint="pass a path, bytes or a binary file"
            ) from error
        if not isinstance(data, bytes):
            raise ImageError(f"the file gives {type(data).__name__}, expected bytes", hint="open it with mode 'rb'")
        return data, str(getattr(source, "name", "the image"))
    path = Path(source)
    try:
        with path.open("rb") as file:
            head = file.read(16)
            _format(head, str(path))
            return head + file.read(), str(path)
    except ImageError:
        raise
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a folder, expected a photo", hint="name a file in it") from error
    except FileNotFoundError as error:
        raise ImageError(f"no such photo: {path}", hint="check the path") from error
    except PermissionError as error:
        raise ImageError(f"no permission to read {path}", hint=f"chmod u+r {path}") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {error}", hint="check the path and the disk") from error


def _format(head: bytes, name: str) -> str:
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if not head:
        raise ImageError(f"{name} is empty (0 bytes)", hint="take or copy the photo again")
    found = next((label for magic, label in _OTHERS.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        found = "HEIC or AVIF"
    raise ImageError(
        f"{name} is {f'a {found} file' if found else 'no image'}; expected JPEG, PNG or WebP",
        hint="convert it first, e.g. with `magick photo.heic photo.jpg`" if found else "pass a photo",
    )


def _check_size(width: int, height: int, name: str, max_pixels: int, max_side: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name} has {width}x{height} pixels")
    if max(width, height) > max_side or width * height > max_pixels:
        raise ImageError(
            f"{name} has {width}x{height} pixels; accepted: {max_side} a side, {max_pixels / 1e6:g} million in all",
            hint="scale the photo down, or raise max_pixels and max_side if the source is trusted",
        )


def _open(data: bytes, name: str, max_pixels: int, max_side: int) -> Image.Image:
    """Pillow's lazy image of an accepted format and size; pixels are not decoded."""
    kind = _format(data[:16], name)
    if kind == "WEBP" and data[12:16] == b"VP8X" and len(data) >= 30:
        # Pillow's decoder allocates the whole canvas before it compares the size with any limit.
        size = [1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27)]
        _check_size(size[0], size[1], name, max_pixels, max_side)
    try:
        with warnings.catch_warnings():
            # Pillow's own bomb warning comes before the size is known here; a mere warning would be overlooked.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name} is too large: {error}; accepted are {max_pixels / 1e6:g} million pixels",
            hint="scale the photo down",
        ) from error
    except _BROKEN as error:
        raise ImageError(
            f"{name} begins like a {kind} but its header is damaged: {error}", hint="take or copy the photo again"
        ) from error
    _check_size(picture.width, picture.height, name, max_pixels, max_side)
    return picture


def _info(picture: Image.Image, name: str) -> ImageInfo:
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except _BROKEN as error:
        _log.warning("%s: unreadable EXIF ignored (%s)", name, error)
        orientation = 1
    if orientation not in range(1, 9):
        orientation = 1
    size_hw = (picture.width, picture.height) if orientation >= 5 else (picture.height, picture.width)
    return ImageInfo(str(picture.format), size_hw, int(orientation), picture.mode)


def _upright(pixels: Uint8Array, orientation: int) -> Uint8Array:
    """Apply EXIF orientation 1..8 to (h, w, 3); contiguous."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


@lru_cache(maxsize=1)
def _simplejpeg() -> Any:
    """The libjpeg-turbo binding, or None where it is not installed."""
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None


def _decode_jpeg(picture: Image.Image, data: bytes, name: str) -> Uint8Array | None:
    """The stored pixels (h, w, 1 or 3 or 4; CMYK with 255 = full ink), neither rotated nor colour-managed.

    None: Pillow may decode it.
    """
    turbo = _simplejpeg()
    if turbo is None:
        if int(PIL.__version__.split(".")[0]) < 13:
            raise ImageError(
                f"{name} is a JPEG; Pillow {PIL.__version__} has a known hole in its decoder and simplejpeg is missing",
                hint="pip install simplejpeg",
            )
        return None
    space = {"L": "GRAY", "CMYK": "CMYK"}.get(picture.mode, "RGB")
    pixels = np.asarray(turbo.decode_jpeg(data, space, fastdct=False, fastupsample=False, strict=True))
    # Adobe stores ink inverted and every writer followed; Pillow assumes the same.
    return 255 - pixels if space == "CMYK" else pixels


def _as_picture(stored: Uint8Array) -> Image.Image:
    channels = stored.shape[2]
    return Image.fromarray(stored[..., 0] if channels == 1 else stored, mode="CMYK" if channels == 4 else None)


def encode_image(array: npt.NDArray[Any], format: str, *, quality: int = 92, level: int | None = None) -> bytes:
    """Encode (h, w, 3) RGB, (h, w, 4) RGBA (straight alpha) or (h, w) grey uint8 as a tagged sRGB file.

    Args:
        array: the picture; a (h, w) bool mask becomes 0 and 255.
        format: "png", "jpg" or "webp".
        quality: 1..100 for jpg (4:4:4, so that edges on flat colour stay clean) and webp.
        level: 0..9, OpenCV's effort for png. None: the fastest, on several threads (`png.encode_png`).

    Raises:
        OptionError: another format, quality or level.
        OutputError: an array that the format cannot hold, such as transparency in a JPEG.
    """
    kind = _FORMATS.get(format.lower().lstrip("."))
    if kind is None:
        raise OptionError(f"unknown image format {format!r}; expected png, jpg or webp", hint="use format='png'")
    if not 1 <= quality <= 100 or not (level is None or 0 <= level <= 9):
        raise OptionError(f"quality {quality} must lie in 1..100 and level {level} in 0..9")
    if isinstance(array, np.ndarray) and array.dtype == np.bool_ and array.ndim == 2:
        array = array.astype(np.uint8) * np.uint8(255)
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise OutputError(f"cannot encode {found}; expected uint8 (h, w, 3) RGB, (h, w, 4) RGBA or (h, w) grey")
    channels = 1 if array.ndim == 2 else array.shape[2]
    if channels not in (1, 3, 4) or (array.ndim == 3 and channels == 1):
        raise OutputError(f"cannot encode shape {array.shape}; expected (h, w, 3) RGB, (h, w, 4) RGBA or (h, w) grey")
    if kind == "jpg" and channels == 4:
        raise OutputError("JPEG holds no transparency", hint="use .png or .webp, or on_canvas(background='white')")
    if max(array.shape[:2]) > _LARGEST[kind]:
        raise OutputError(f"{kind} holds {_LARGEST[kind]} pixels a side, found {array.shape[:2]}", hint="use png")
    array = np.ascontiguousarray(array)
    if kind == "png":
        return encode_png(array, level)
    if kind == "webp":
        return _with_pillow(array, "WEBP", quality=quality, method=0, icc_profile=srgb_profile())
    turbo = _simplejpeg()
    if turbo is None:
        return _with_pillow(array, "JPEG", quality=quality, subsampling=0, icc_profile=srgb_profile())
    data = bytes(
        turbo.encode_jpeg(
            array[..., None] if channels == 1 else array,
            quality=quality,
            colorspace="GRAY" if channels == 1 else "RGB",
            colorsubsampling="Gray" if channels == 1 else "444",
            fastdct=False,
        )
    )
    if channels == 1:
        return data
    body = b"ICC_PROFILE\0\x01\x01" + srgb_profile()
    start = 4 + int.from_bytes(data[4:6], "big")  # behind the JFIF segment
    return data[:start] + b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body + data[start:]


def _with_pillow(array: Uint8Array, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def save_image(
    path: str | os.PathLike[str], array: npt.NDArray[Any], *, quality: int = 92, level: int | None = None
) -> Path:
    """Encode as the suffix says (.png, .jpg, .jpeg, .webp) and write atomically; returns the path.

    A temporary file in the same folder is written, synced and renamed; when anything fails it is removed and an older
    file of that name stays as it was.

    Raises:
        OutputError: unknown suffix, missing folder, no permission, full disk, or an array the format cannot hold.
    """
    target = Path(path)
    if target.suffix.lower().lstrip(".") not in _FORMATS:
        raise OutputError(f"cannot tell the format of {target} from its suffix", hint="use .png, .jpg or .webp")
    write_atomic(target, encode_image(array, target.suffix, quality=quality, level=level))
    return target


def write_atomic(target: Path, data: bytes) -> None:
    """Write bytes so that `target` is either wholly new or untouched. Raises OutputError."""
    partial = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    if target.is_dir():
        raise OutputError(f"{target} is a folder, expected a file name", hint=f"write to {target / 'cutout.png'}")
    try:
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {target}: {reason}", hint=_write_hint(error, target)) from error


def _write_hint(error: OSError, target: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk or quota is full: free some space and run again; nothing was left behind"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"mkdir -p {target.parent}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"choose a folder you may write to, or: chmod u+w {target.parent}"
    return "check the folder and the disk"
