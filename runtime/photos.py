"""The photos of a folder, each read when it is asked for: a hundred large ones would not fit a small device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from boothsam.runtime.errors import OptionError
from boothsam.runtime.images import load_image
from boothsam.runtime.transforms import Uint8Array

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class PhotoFolder(Mapping[str, Uint8Array]):
    """Name -> (H, W, 3) uint8 RGB; nothing is kept after it was read. Names are paths below the folder."""

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        self.folder = folder
        self._paths = {path.relative_to(folder).as_posix(): path for path in paths}

    def __getitem__(self, name: str) -> Uint8Array:
        return load_image(self._paths[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def every(self, step: int, start: int) -> PhotoFolder:
        """Each `step`-th photo from the one at `start` on."""
        return PhotoFolder(self.folder, list(self._paths.values())[start::step])

    def without(self, other: PhotoFolder) -> PhotoFolder:
        """Those that `other` does not hold."""
        return PhotoFolder(self.folder, [path for name, path in self._paths.items() if name not in other])


def photo_folder(folder: Path, limit: int | None = None) -> PhotoFolder:
    """The photos in `folder` and below, by name; of more than `limit` so many, evenly spread.

    Raises:
        OptionError: no folder, or no photo in it.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        what = "holds no photo" if folder.is_dir() else "is no folder"
        raise OptionError(f"{folder} {what}", hint="name a folder of JPEG, PNG or WebP files")
    if limit is not None and len(paths) > limit:
        paths = [paths[i * len(paths) // limit] for i in range(limit)]
    return PhotoFolder(folder, paths)
