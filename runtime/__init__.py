"""The torch-free runtime: photos in, masks and cut-outs out. Names are fetched when first used; no backend is
imported here."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boothsam.runtime.automatic import SamAutomaticMaskGenerator
    from boothsam.runtime.cutout import CutOut, cut_out
    from boothsam.runtime.errors import BoothsamError
    from boothsam.runtime.images import load_image, save_image
    from boothsam.runtime.manifest import ModelManifest
    from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
    from boothsam.runtime.predictor import Prediction, SamPredictor, sam_model_registry

_HOME = {
    "BoothsamError": "errors",
    "CutOut": "cutout",
    "ImageEmbedding": "model",
    "ModelManifest": "manifest",
    "Prediction": "predictor",
    "Prompts": "model",
    "SamAutomaticMaskGenerator": "automatic",
    "SamModel": "model",
    "SamPredictor": "predictor",
    "cut_out": "cutout",
    "load_image": "images",
    "sam_model_registry": "predictor",
    "save_image": "images",
}
__all__ = [
    "BoothsamError",
    "CutOut",
    "ImageEmbedding",
    "ModelManifest",
    "Prediction",
    "Prompts",
    "SamAutomaticMaskGenerator",
    "SamModel",
    "SamPredictor",
    "cut_out",
    "load_image",
    "sam_model_registry",
    "save_image",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"boothsam.runtime.{_HOME[name]}"), name)
    raise AttributeError(f"module 'boothsam.runtime' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
