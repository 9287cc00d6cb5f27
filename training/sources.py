"""Where the photos of a scene come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from boothsam.training.photos import CutoutBank, PhotoBank, list_photos


@dataclass(frozen=True)
class Sources:
    """Where photos come from; both banks may be empty."""

    photos: PhotoBank
    cutouts: CutoutBank
    favour: str = ""  # see make_object

    @staticmethod
    def from_folders(texture_folders: list[Path], cutout_folders: list[Path], favour: str = "") -> Sources:
        """Read folders of photos (textures, backdrops) and of products on white (cut-outs)."""
        textures_found = [p for folder in texture_folders for p in list_photos(folder)]
        products = [p for folder in cutout_folders for p in list_photos(folder)]
        return Sources(PhotoBank(textures_found), CutoutBank(products), favour)
