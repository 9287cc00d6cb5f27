"""The photos of a folder, in the order a person would list them, told by their headers only.

A photo is addressed by its key, a hash of its name: what a client sends is looked up, never made a path.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from boothsam.runtime.errors import ImageError, OptionError
from boothsam.service.annotations.records import NoSuchPhoto, PhotoTooLarge
from boothsam.service.batch.outfolder import absolute
from boothsam.service.batch.sources import walk
from boothsam.service.image_header import Header, read_header
from boothsam.service.problems import ServiceProblem

# Sizes stand behind a photo's EXIF data and colour profile, which rarely take more.
_HEAD_BYTES = 256 << 10
_LONGEST_BASE = 200  # bytes of a mask's name before its number; file systems take 255 in all


@dataclass(frozen=True)
class Photo:
    """One file of the folder.

    key: 32 hex digits. name: its path in the folder, with forward slashes. nbytes, mtime_ns: as last listed.
    header: None for a broken photo; `trouble` then says why.
    """

    key: str
    name: str
    path: Path
    nbytes: int
    mtime_ns: int
    header: Header | None
    trouble: str = ""

    def same_file(self, nbytes: int, mtime_ns: int) -> bool:
        """Whether the file looks untouched since then."""
        return (self.nbytes, self.mtime_ns) == (nbytes, mtime_ns)

    def read(self, max_bytes: int) -> bytes:
        """The file's bytes; blocks.

        Raises:
            NoSuchPhoto: it is gone, or cannot be read. PhotoTooLarge: more than `max_bytes`.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(max_bytes + 1)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise NoSuchPhoto(f"{self.name} cannot be read: {reason}", hint="reload the page") from error
        if len(data) > max_bytes:
            raise PhotoTooLarge(
                f"{self.name} has more than {max_bytes} bytes", hint="make it smaller, or raise max_upload_bytes"
            )
        return data

    def sha256(self) -> str:
        """Of the file as it is now, read a block at a time; blocks. Raises NoSuchPhoto."""
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise NoSuchPhoto(f"{self.name} cannot be read: {reason}", hint="reload the page") from error
        return digest.hexdigest()


def check_folders(photos_folder: Path, folder: Path) -> tuple[Path, Path]:
    """Both as absolute paths. Raises OptionError: no folder of photos, or masks that would lie among the photos."""
    photos_folder, folder = absolute(photos_folder), absolute(folder)
    if not photos_folder.is_dir():
        raise OptionError(f"no such folder of photos: {photos_folder}", hint="boothsam annotate FOLDER")
    real, out = photos_folder.resolve(), folder.resolve()
    if real == out or out in real.parents:
        raise OptionError(
            f"the photos in {photos_folder} lie in the folder of annotations {folder}: masks would be taken for photos",
            hint=f"-o {photos_folder / 'annotations'}",
        )
    return photos_folder, folder


def natural_key(name: str) -> list[list[str | int]]:
    """Sorts as people count: photo-2 before photo-10, folder by folder."""
    return [
        [int(part) if at % 2 else part for at, part in enumerate(re.split(r"(\d+)", words.casefold()))]
        for words in name.split("/")
    ]


def mask_base(photo: Photo, others: Iterable[str]) -> str:
    """What a photo's masks are called before the number: its stem, where none of the other photos' names has that one.

    Keeps the photo's folders. A name so long that a file system would not take the mask's becomes the photo's key.
    """
    stem = _stem(photo.name)
    alone = all(_stem(name).casefold() != stem.casefold() for name in others)
    folder, slash, base = (stem if alone else f"{photo.name}-{photo.key[:8]}").rpartition("/")
    return folder + slash + (base if len(base.encode()) <= _LONGEST_BASE else photo.key)


def _stem(name: str) -> str:
    """The name without its ending, with its folders."""
    head, dot, _ = name.rpartition(".")
    return head if dot else name


def list_photos(folder: Path, exclude: Path, known: Mapping[str, Photo]) -> list[Photo]:
    """The folder's photos in natural order, subfolders included, but for those under `exclude`.

    known: what an earlier call found, by key; a file that looks untouched is not opened again.

    Raises:
        OptionError: the folder cannot be listed.
    """
    try:
        found = [_photo(entry, folder, known) for entry in walk(folder, (exclude,))]
    except OSError as error:
        raise OptionError(
            f"the photos in {folder} cannot be listed: {(error.strerror or str(error)).lower()}",
            hint=f"ls -l {folder}, then name a folder of photos that may be read",
        ) from error
    listed = [photo for photo in found if photo is not None]
    return sorted(listed, key=lambda photo: (natural_key(photo.name), photo.name))


def _photo(entry: os.DirEntry[str], folder: Path, known: Mapping[str, Photo]) -> Photo | None:
    relative = Path(entry.path).relative_to(folder).as_posix()
    raw = os.fsencode(relative)
    key = hashlib.sha256(raw).hexdigest()[:32]
    try:
        stat = entry.stat()
    except FileNotFoundError:
        return None  # deleted while the folder was read
    before = known.get(key)
    if before is not None and before.same_file(stat.st_size, stat.st_mtime_ns):
        return before
    # JSON and COCO files hold no lone surrogates, which is how Python carries names that are not UTF-8.
    name, path = raw.decode("utf-8", "replace"), Path(entry.path)
    header, trouble = None, ""
    try:
        header = _header(path)
    except (OSError, ImageError, ServiceProblem) as error:
        trouble = error.detail if isinstance(error, ServiceProblem) else str(error).split("\n")[0]
    return Photo(key, name, path, stat.st_size, stat.st_mtime_ns, header, trouble)


def _header(path: Path) -> Header:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        try:
            return read_header(head)
        except ServiceProblem as found:
            if found.code != "broken_image" or len(head) < _HEAD_BYTES:
                raise
            return read_header(head + file.read(_HEAD_BYTES * 63))  # 16 MiB in all
