"""Proof sidecars: what a reduced precision answered, on which numerics, and whether a device may therefore use it.

A proof lies in the model folder (`proof/`, made with the model, travels with it) or in the user's store
($BOOTHSAM_HOME/proof, made on this device by `boothsam verify --photos`), as `<sha256 of the encoder>-<device>.json`.
It names every graph file with its sha256; a proof of other files proves nothing. FP32 needs none.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boothsam.runtime.errors import ProofError
from boothsam.runtime.manifest import ModelManifest
from boothsam.runtime.store import home

if TYPE_CHECKING:  # fidelity needs the model, and the model asks for proofs
    from boothsam.runtime.fidelity import Fidelity

log = logging.getLogger("boothsam")

FORMAT = 1
KIND = "reduced precision"
SIMULATED = "simulated"
OVERRIDE = "BOOTHSAM_UNPROVEN"  # "1" loads what is not proven, with a warning
GPU_BACKENDS = ("ort-cuda", "trt")
# What "auto" tries on a device, best first; int8 is slower than fp16 in ONNX Runtime's CUDA provider.
AUTO_PRECISIONS: Mapping[str, tuple[str, ...]] = {"trt": ("fp16",), "ort-cuda": ("fp16",)}


@dataclass(frozen=True)
class Proof:
    """One sidecar. device: a device key, or "simulated". numerics: as in `fidelity`. path: where it lies."""

    precision: str
    device: str
    numerics: str
    passed: bool
    failures: tuple[str, ...]
    path: Path


def device_key(backend: str) -> str:
    """Backend and, where one computes, the GPU: "ort-cpu", "ort-cuda-nvidia-h100"; fit for a file name."""
    return f"{backend}-{_gpu_name()}" if backend in GPU_BACKENDS else backend


def _gpu_name() -> str:
    """The GPU's name in small letters, from the driver's files: no library has to be loaded for it."""
    sources = [*sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")), Path("/proc/device-tree/model")]
    for source in sources:
        try:
            text = source.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        except OSError:
            continue
        found = re.search(r"^Model:\s*(.+)$", text, re.MULTILINE)
        name = found[1] if found else text.splitlines()[0]
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return "unknown-gpu"


def write_proof(
    folder: Path, manifest: ModelManifest, report: Fidelity, *, photos: Iterable[str] = (), extra: Mapping[str, Any]
) -> Path:
    """Write the sidecar of `report` under `folder`/proof, in one rename, and return its path.

    folder: the model folder, or the user's store. photos: their names, for people. extra: more facts for people, such
    as the versions of what computed.
    """
    graphs = manifest.graphs[report.precision]
    device = SIMULATED if report.numerics == "simulated" else device_key(report.backend)
    body = {
        "format": FORMAT,
        "kind": KIND,
        "precision": report.precision,
        "numerics": report.numerics,
        "device": device,
        "machine": platform.machine(),
        "files": {file: manifest.files[file].sha256 for file in _files(manifest, report.precision)},
        "passed": report.passed,
        "failures": list(report.failures),
        "photos": list(photos),
        "versions": {name: _version(name) for name in ("boothsam", "onnx", "onnxruntime", "onnxruntime-gpu")},
        **extra,
        "fidelity": report.to_dict(),
    }
    path = folder / "proof" / f"{manifest.files[graphs['encoder']].sha256}-{device}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def _files(manifest: ModelManifest, precision: str) -> tuple[str, ...]:
    """Every file that this precision computes with, external data included."""
    files = manifest.graphs[precision].values()
    return tuple(f for file in files for f in (file, f"{file}.data") if f in manifest.files)


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and only who writes proofs needs it

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def find_proofs(folder: Path, manifest: ModelManifest, precision: str) -> list[Proof]:
    """Proofs about exactly these files, those of the user's store first. What cannot be read proves nothing."""
    sha256 = manifest.files[manifest.graphs[precision]["encoder"]].sha256
    expected = {file: manifest.files[file].sha256 for file in _files(manifest, precision)}
    found = []
    for place in (home(), folder):
        for path in sorted((place / "proof").glob(f"{sha256}-*.json")):
            try:
                body = json.loads(path.read_text(encoding="utf-8"))
                if (body["format"], body.get("kind"), body["precision"]) != (FORMAT, KIND, precision):
                    continue
                if body["files"] != expected:
                    continue
                device, numerics, passed = str(body["device"]), str(body["numerics"]), body["passed"] is True
                failures = tuple(str(failure) for failure in body["failures"])
                found.append(Proof(precision, device, numerics, passed, failures, path))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s is no proof: %r", path, error)
    return found


def judge(folder: Path, manifest: ModelManifest, precision: str, backend: str) -> str | None:
    """None when a proof lets this device use a precision, else one line that says what is wrong.

    A proof made on the device decides, whichever way it went. Without one, a simulated proof that failed refuses, and
    one that passed is enough for fp16 on ort-cpu: there FP16 nodes are computed in FP32, which loses less than what was
    simulated. Everything else has arithmetic of its own and needs a proof from the device.
    """
    if precision == "fp32":
        return None
    here = device_key(backend)
    proofs = find_proofs(folder, manifest, precision)
    own = next((p for p in proofs if p.device == here), None)
    simulated = next((p for p in proofs if p.numerics == SIMULATED), None)
    decisive = own or simulated
    if decisive and not decisive.passed:
        return f"its proof failed ({decisive.path.name}): {'; '.join(decisive.failures) or 'no reason given'}"
    if own or (simulated and (precision, backend) == ("fp16", "ort-cpu")):
        return None
    made = ", ".join(sorted({p.device for p in proofs})) or "none"
    return f"no proof was made on {here} (proofs there are: {made})"


def require_proof(folder: Path, manifest: ModelManifest, precision: str, backend: str, *, unproven: bool) -> None:
    """Refuse a precision that is not proven for this device, or warn when `unproven` or $BOOTHSAM_UNPROVEN=1 says so.

    Raises:
        ProofError: with what is wrong and the command that makes a proof.
    """
    wrong = judge(folder, manifest, precision, backend)
    if wrong is None:
        return
    if unproven or os.environ.get(OVERRIDE) == "1":
        log.warning("model %s in %s is used without proof: %s", manifest.name, precision, wrong)
        return
    raise ProofError(
        f"model {manifest.name!r} in {precision} is not proven for {backend}: {wrong}",
        hint=f"boothsam verify {folder} --precision {precision} --backend {backend} --photos FOLDER "
        f"(or --precision fp32; {OVERRIDE}=1 loads it all the same)",
    )


def choose_precision(folder: Path, manifest: ModelManifest, backend: str) -> tuple[str, str]:
    """What precision "auto" means on a backend, and why: the smallest proven on this GPU, fp32 otherwise."""
    passed_over = []
    for precision in AUTO_PRECISIONS.get(backend, ()):
        if precision not in manifest.graphs:
            continue
        wrong = judge(folder, manifest, precision, backend)
        if wrong is None:
            return precision, f"{precision} is proven on {device_key(backend)}"
        passed_over.append(f"{precision} passed over: {wrong}")
    return "fp32", "; ".join(["fp32", *passed_over])
