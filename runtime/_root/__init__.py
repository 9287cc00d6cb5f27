"""Segment Anything where the camera stands. `boothsam.runtime` has the whole API; the names used most are here.

Importing this package loads no backend and no image library: each name is fetched when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boothsam.runtime import (
        BoothsamError,
        ImageEmbedding,
        Prediction,
        SamAutomaticMaskGenerator,
        SamModel,
        SamPredictor,
        cut_out,
        load_image,
        sam_model_registry,
        save_image,
    )

    __version__: str

__all__ = [
    "BoothsamError",
    "ImageEmbedding",
    "Prediction",
    "SamAutomaticMaskGenerator",
    "SamModel",
    "SamPredictor",
    "__version__",
    "cut_out",
    "load_image",
    "sam_model_registry",
    "save_image",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in __all__:
        return getattr(import_module("boothsam.runtime"), name)
    raise AttributeError(f"module 'boothsam' has no attribute {name!r}")


def _version() -> str:
    # Imported here: it takes a fifth of the time that the whole runtime's import takes.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("boothsam")
    except PackageNotFoundError:  # a source tree on sys.path, not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
