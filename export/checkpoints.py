"""Known checkpoints, and how a checkpoint file becomes a torch module. Listing them needs no torch."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from boothsam.export.architectures.config import CONFIGS, SamConfig, infer_config, resolve_config
from boothsam.runtime.errors import BackendUnavailable, CheckpointError, ModelNotFound

if TYPE_CHECKING:
    import torch
    from boothsam.export.architectures.sam import Sam

log = logging.getLogger("boothsam")

MIN_TORCH = (2, 10)  # older ones could be made to run code by a file, even with weights_only=True


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint. bytes and sha256 were each found equal in several independent public sources."""

    name: str
    variant: str
    file: str
    bytes: int
    sha256: str
    url: str
    licence: str = "Apache-2.0"


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_MOBILE_SAM = "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights"
_LIST = (
    Checkpoint(
        "mobile_sam",
        "vit_t",
        "mobile_sam.pt",
        40_728_226,
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        f"{_MOBILE_SAM}/mobile_sam.pt",
    ),
    Checkpoint(
        "sam_vit_b",
        "vit_b",
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        f"{_SAM}/sam_vit_b_01ec64.pth",
    ),
    Checkpoint(
        "sam_vit_l",
        "vit_l",
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        f"{_SAM}/sam_vit_l_0b3195.pth",
    ),
    Checkpoint(
        "sam_vit_h",
        "vit_h",
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        f"{_SAM}/sam_vit_h_4b8939.pth",
    ),
)
KNOWN: Mapping[str, Checkpoint] = MappingProxyType({checkpoint.name: checkpoint for checkpoint in _LIST})


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory. known: the published checkpoint whose bytes these are, if any."""

    sam: Sam
    path: Path
    sha256: str
    known: Checkpoint | None


def find_checkpoint(name: str) -> Checkpoint:
    """A known checkpoint by name.

    Raises:
        ModelNotFound: no checkpoint of this name.
    """
    if name not in KNOWN:
        raise ModelNotFound(f"no known checkpoint {name!r}; known are {', '.join(KNOWN)}", hint="boothsam models")
    return KNOWN[name]


def load_checkpoint(path: Path, variant: str | SamConfig | None = None) -> Loaded:
    """Read a checkpoint file without running code from it, and load it strictly.

    Args:
        path: a state dict as `torch.save` writes it.
        variant: vit_t, vit_b, vit_l, vit_h, the path of a JSON configuration, or a configuration; None tells the four
            apart by the tensors' names and shapes.

    Raises:
        CheckpointError: no checkpoint, another variant's, or missing, unexpected, misshapen or non-finite tensors.
        BackendUnavailable: torch is missing or too old to read an untrusted file.
    """
    state = _read(path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    if variant is None:
        config = infer_config(shapes)
        if config.variant not in CONFIGS:
            raise CheckpointError(
                f"{path} has the tensors of a SAM of other dimensions than {', '.join(CONFIGS)}",
                hint="give the path of its .json configuration as the variant; head counts leave no trace in tensors",
            )
    else:
        config = resolve_config(variant)
    from boothsam.export.architectures.sam import build

    sam = build(config)
    _compare(path, config, shapes, {name: tuple(value.shape) for name, value in sam.state_dict().items()})
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path}: the tensor {name} holds values that are not finite")
    sam.load_state_dict(state, strict=True)
    digest = sha256_of(path)
    return Loaded(sam.requires_grad_(False), path, digest, _identify(path, digest))


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailable(f"PyTorch is not installed ({error})", hint="pip install 'boothsam[export]'") from None
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < MIN_TORCH:
        raise BackendUnavailable(
            f"PyTorch {torch.__version__} is too old to read a checkpoint safely, expected 2.10 or newer",
            hint="pip install --upgrade torch",
        )
    if not path.is_file():
        raise CheckpointError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}, expected a checkpoint file",
            hint=f"boothsam download NAME fetches one of {', '.join(KNOWN)}",
        )
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} is no checkpoint of plain tensors, and nothing else is loaded: {reason}",
            hint="save its state_dict() alone: torch.save(model.state_dict(), path)",
        ) from None
    except Exception as error:  # torch raises whatever its zip and pickle readers stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is no checkpoint, or a truncated one: {reason}",
            hint="download it again: boothsam download NAME",
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        found = (
            f"entries {', '.join(map(str, list(state)[:5]))}" if isinstance(state, Mapping) else type(state).__name__
        )
        raise CheckpointError(
            f"{path} is no state dict: found {found}, expected tensors by name",
            hint="save the model's state_dict() alone",
        )
    return dict(state)


def _compare(
    path: Path, config: SamConfig, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a state dict that does not fit `config` exactly."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [n for n in expected if n in found and found[n] != expected[n]]
    if not (missing or unexpected or misshapen):
        return
    looks = infer_config(found).variant
    if looks in CONFIGS and looks != config.variant:
        raise CheckpointError(
            f"{path} is a checkpoint of {looks}, not of {config.variant}",
            hint=f"boothsam export {looks} --checkpoint {path}",
        )
    findings = []
    if missing:
        findings.append(f"{len(missing)} tensors are missing ({', '.join(missing[:3])})")
    if unexpected:
        findings.append(f"{len(unexpected)} are unexpected ({', '.join(unexpected[:3])})")
    if misshapen:
        first = misshapen[0]
        findings.append(f"{len(misshapen)} have another shape ({first}: {found[first]}, expected {expected[first]})")
    raise CheckpointError(
        f"{path} does not fit {config.variant}: {'; '.join(findings)}",
        hint="expected the state dict of the whole SAM under the names of its authors' code",
    )


def _identify(path: Path, sha256: str) -> Checkpoint | None:
    """The known checkpoint with these bytes; warns when a file has a known name and other bytes."""
    for checkpoint in _LIST:
        if checkpoint.sha256 == sha256:
            return checkpoint
    for checkpoint in _LIST:
        if checkpoint.file == path.name:
            log.warning(
                "%s has sha256 %s..., the published %s has %s...: fine-tuned, or altered\nhint: boothsam download %s",
                path,
                sha256[:16],
                checkpoint.file,
                checkpoint.sha256[:16],
                checkpoint.name,
            )
    return None
