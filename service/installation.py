"""What is installed on this machine and whether it fits together; every probe stands alone."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Literal

from boothsam.service.console import explain, shown

PACKAGES = (
    "boothsam", "numpy", "pillow", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "simplejpeg", "typer",
    "onnx", "torch", "tensorrt", "openvino",
)  # fmt: skip
OPENCV = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")
ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
LOW_DISK_GIB = 1.0
State = Literal["ok", "warning", "broken", "absent"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. absent: not there and not needed."""

    name: str
    state: State
    detail: str
    hint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def installed(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def examine() -> list[Finding]:
    """Machine, packages, backends and disk, in the order of the report; without models and self-test."""
    findings = [_machine(), _python(), _packages(), _opencv(), _onnxruntime()]
    return findings + _backends() + [_guard("disk", _disk)]


def _guard(name: str, probe: Callable[[], Finding]) -> Finding:
    """A probe's finding, or the exception it ended with as a finding."""
    try:
        return probe()
    except Exception as error:
        message, hint = explain(error)
        return Finding(name, "broken", message, hint)


def _machine() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    except (ValueError, OSError, AttributeError):
        memory = "unknown"
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Finding("machine", "ok", f"{system}, {cores} of {os.cpu_count()} CPU cores usable, memory {memory}")


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()} in {shown(sys.prefix)}"
    return Finding("python", "ok", found)


def _packages() -> Finding:
    return Finding("packages", "ok", ", ".join(f"{name} {found}" for name in PACKAGES if (found := installed(name))))


def _opencv() -> Finding:
    """opencv-python and the headless build install the same files: the later one wins, removing one breaks the
    other.
    """
    present = [name for name in OPENCV if installed(name)]
    remove = f"pip uninstall -y {' '.join(present)} && " if present else ""
    reinstall = f"{remove}pip install --force-reinstall opencv-python-headless"
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        return Finding(
            "opencv",
            "broken",
            f"cv2 cannot be imported ({error}); installed: {', '.join(present) or 'none'}",
            reinstall,
        )
    if len(present) > 1:
        return Finding("opencv", "warning", f"{' and '.join(present)} overwrite each other's files", reinstall)
    changed = [path for name in present for path in altered_files(name)]
    if changed:
        detail = f"{len(changed)} files of {present[0]} were overwritten, {changed[0]} among them"
        return Finding("opencv", "warning", detail, reinstall)
    return Finding("opencv", "ok", f"cv2 {cv2.__version__} of {present[0] if present else 'an unknown package'}")


def altered_files(package: str) -> list[str]:
    """Python and library files of a package that are gone or have another size than its installer recorded."""
    altered = []
    for file in distribution(package).files or ():
        if file.suffix not in (".py", ".so", ".pyd") or file.size is None:
            continue
        path = Path(str(file.locate()))
        if not path.is_file() or path.stat().st_size != file.size:
            altered.append(str(file))
    return altered


def _onnxruntime() -> Finding:
    present = [name for name in ONNXRUNTIME if installed(name)]
    if len(present) > 1:
        return Finding(
            "onnxruntime",
            "warning",
            f"{' and '.join(present)} are both installed and overwrite each other: the GPU may be hidden",
            f"pip uninstall -y {' '.join(present)} && pip install 'boothsam[gpu]' (or 'boothsam[cpu]')",
        )
    if not present:
        if installed("openvino"):
            return Finding("onnxruntime", "absent", "not installed; OpenVINO runs the models")
        return Finding("onnxruntime", "broken", "not installed: no backend can run", "pip install 'boothsam[cpu]'")
    return Finding("onnxruntime", "ok", f"{present[0]} {installed(present[0])}")


def _backends() -> list[Finding]:
    from boothsam.runtime.backends import AUTO_ORDER, unavailable_reason

    findings, chosen = [], False
    for backend in AUTO_ORDER:
        try:
            reason = unavailable_reason(backend)
        except Exception as error:  # a library that is installed and cannot be loaded
            message, hint = explain(error)
            findings.append(Finding(f"backend {backend}", "broken", message, hint))
            continue
        if reason is None and backend == "trt":  # auto takes it for a model whose engines are built
            findings.append(_engines())
        elif reason is None:
            findings.append(Finding(f"backend {backend}", "ok", "available" if chosen else "available, chosen by auto"))
            chosen = True
        else:
            findings.append(Finding(f"backend {backend}", "absent", reason))
    return findings


def _engines() -> Finding:
    """TensorRT and a GPU are there: which engines were built for them."""
    from boothsam.runtime import engine_files
    from boothsam.runtime.backends import cuda, trt_library

    here = engine_files.identify(trt_library.library(), cuda.open_device())
    found = list(engine_files.published())
    fit = [engine for engine in found if engine.identity == here]
    names = sorted({f"{engine.header.get('model')} {engine.header['precision']}" for engine in fit})
    detail = f"{here}; {len(fit)} engines for it ({', '.join(names) or 'none'}), {len(found) - len(fit)} for others"
    hint = None if fit else "boothsam build MODEL: auto takes trt for models with engines only"
    return Finding("backend trt", "ok", detail, hint)


def _disk() -> Finding:
    from boothsam.runtime.store import home

    folder = home()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    detail = f"{free:.1f} GiB free for {shown(home())}"
    if free < LOW_DISK_GIB:
        return Finding("disk", "warning", detail, "free some space, or set BOOTHSAM_HOME to another disk")
    return Finding("disk", "ok", detail)


def check_models() -> list[Finding]:
    """Each installed model with all its files hashed."""
    from boothsam.runtime.errors import BoothsamError
    from boothsam.runtime.store import list_manifests

    findings = []
    for name, folder, manifest in list_manifests():
        label = f"model {name}"
        if isinstance(manifest, BoothsamError):
            findings.append(
                Finding(label, "broken", manifest.message.replace(str(folder), shown(folder)), manifest.hint)
            )
            continue
        try:
            for file in manifest.files:
                manifest.check_file(folder, file)
        except BoothsamError as error:
            findings.append(Finding(label, "broken", error.message.replace(str(folder), shown(folder)), error.hint))
            continue
        size = sum(record.bytes for record in manifest.files.values()) / 2**20
        precisions = ", ".join(manifest.graphs)
        facts = f"{manifest.variant}, {precisions}, {size:.1f} MiB, licence {manifest.licence}, key {manifest.key}"
        findings.append(Finding(label, "ok", f"{facts}, in {shown(folder)}; every file has its recorded sha256"))
    return findings


def self_test(model: str | None = None, backend: str = "auto") -> Finding:
    """Load the model, cut the demo photo and compare with the golden answers in the model's folder."""

    def probe() -> Finding:
        from time import perf_counter

        from boothsam.runtime.model import SamModel
        from boothsam.runtime.store import find_model
        from boothsam.runtime.verify import verify_golden

        start = perf_counter()
        loaded = SamModel.load(model, backend=backend)
        report = verify_golden(loaded, find_model(model))
        report.require()
        worst = min(case.mask_iou_min for case in report.cases)
        took = perf_counter() - start
        where = f"{loaded.manifest.name} on {loaded.backend} ({loaded.reason})"
        return Finding(
            "self-test",
            "ok",
            f"{where}: {len(report.cases)} golden answers met, mask IoU at least {worst:.4f}, in {took:.1f} s",
        )

    return _guard("self-test", probe)
