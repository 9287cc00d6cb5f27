"""Where models, engines and proofs lie on a device.

$BOOTHSAM_HOME (default: $XDG_DATA_HOME/boothsam, else ~/.local/share/boothsam)
  models/<name>/            model folders, found by name
  checkpoints/<file>        downloaded PyTorch checkpoints, used by export only
  engines/<graph>-<key>.engine  TensorRT engines of this device (engine_files.py)
  proof/<sha256>-<device>.json  sidecars that say how a reduced precision did on this device
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from boothsam.runtime.errors import ManifestError, ModelNotFound
from boothsam.runtime.manifest import FILE_NAME, ModelManifest

STARTER = "starter"


def home() -> Path:
    """The user's boothsam folder; not created here."""
    named = os.environ.get("BOOTHSAM_HOME")
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "boothsam"


def starter_folder() -> Path:
    """The model that travels with the package."""
    return Path(__file__).resolve().parent / "models" / "starter"


def installed_models() -> Mapping[str, Path]:
    """Name -> folder of every model that `find_model` finds by name."""
    found = {STARTER: starter_folder()}
    models = home() / "models"
    if models.is_dir():
        found |= {f.name: f for f in sorted(models.iterdir()) if (f / FILE_NAME).is_file()}
    return found


def find_model(model: str | Path | None) -> Path:
    """The folder of a model given by path or by installed name; None means the bundled starter model.

    A path wins over a name, and whatever holds a manifest counts as a path.

    Raises:
        ModelNotFound: neither a model folder nor an installed name.
    """
    if model is None:
        return starter_folder()
    path = Path(model)
    if (path / FILE_NAME).is_file():
        return path
    installed = installed_models()
    if str(model) in installed:
        return installed[str(model)]
    if path.suffix in (".pt", ".pth"):
        raise ModelNotFound(
            f"{model} is a PyTorch checkpoint; the runtime loads model folders",
            hint=f"boothsam export VARIANT --checkpoint {model} -o models/NAME",
        )
    what = "holds no manifest.json" if path.is_dir() else "is neither a model folder nor an installed model"
    raise ModelNotFound(f"{model} {what}; installed are {', '.join(installed)}", hint="boothsam models")


def list_manifests() -> list[tuple[str, Path, ModelManifest | ManifestError]]:
    """Every installed model with its manifest, or with the error that reading it gave."""
    rows: list[tuple[str, Path, ModelManifest | ManifestError]] = []
    for name, folder in installed_models().items():
        try:
            rows.append((name, folder, ModelManifest.load(folder)))
        except ManifestError as error:
            rows.append((name, folder, error))
    return rows
