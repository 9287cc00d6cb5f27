"""A stand-in for NVIDIA's package repository of a JetPack: the names that Dockerfile.jetson asks for, and a key.

The CUDA runtime in it is NVIDIA's own, from its wheel; TensorRT is a module that cannot be imported, like the real one
where there is no driver.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zipfile
from email.utils import formatdate
from pathlib import Path

# JetPack -> release, the parts of the repository, CUDA, the wheel that holds its runtime.
RELEASES = {
    "6.2": ("r36.4", ("common", "t234"), "12-6", "nvidia-cuda-runtime-cu12"),
    "7.2": ("r39.2", ("common", "som"), "13-2", "nvidia-cuda-runtime"),
}
LIBRARIES = "usr/lib/aarch64-linux-gnu"
FAKE_TENSORRT = "raise ImportError('libnvinfer.so.10: a stand-in has no TensorRT')\n"


def make(folder: Path, jetpack: str, pip: list[str]) -> str:
    """Write the repository; the sha256 of its key, for JETSON_KEY_SHA256.

    folder: created; serve it over HTTP. pip: the command, for the wheel of the CUDA runtime.
    """
    release, parts, cuda, wheel = RELEASES[jetpack]
    runtime = _cuda_runtime(folder / "wheels", wheel, pip)
    major = cuda.split("-")[0]
    contents: dict[str, dict[str, bytes]] = {
        f"cuda-cudart-{cuda}": {f"{LIBRARIES}/libcudart.so.{major}": runtime},
        "libnvinfer10": {f"{LIBRARIES}/libnvinfer_builder_resource_sm{n}.so.10": b"kernels" for n in (75, 86, 90, 110)},
        "libnvinfer-plugin10": {},
        "libnvonnxparsers10": {},
        "python3-libnvinfer": {"usr/lib/python3/dist-packages/tensorrt/__init__.py": FAKE_TENSORRT.encode()},
    }
    for part in parts:
        pool = folder / part / "pool"
        pool.mkdir(parents=True)
        for name, files in contents.items() if part == "common" else ():
            _package(folder / "build" / name, name, files, pool)
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--yes"]
    made = "%no-protection\nKey-Type: RSA\nKey-Length: 3072\nName-Real: stand-in\n%commit\n"
    subprocess.run([*gpg, "--generate-key"], input=made.encode(), check=True)
    for part in parts:
        _index(folder / part, release, gpg)
    key = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout
    (folder / "jetson-ota-public.asc").write_bytes(key)
    return hashlib.sha256(key).hexdigest()


def _cuda_runtime(folder: Path, wheel: str, pip: list[str]) -> bytes:
    platform = ["--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_27_aarch64", "--only-binary=:all:"]
    subprocess.run([*pip, "download", "-q", "--no-deps", *platform, "-d", str(folder), wheel], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.read(next(name for name in archive.namelist() if "/libcudart.so." in name))


def _package(tree: Path, name: str, files: dict[str, bytes], pool: Path) -> None:
    control = f"Package: {name}\nVersion: 1\nArchitecture: arm64\nMaintainer: nobody <n@example>\nDescription: none\n"
    for path, data in {"DEBIAN/control": control.encode(), **files}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(pool)], check=True, capture_output=True)
    shutil.rmtree(tree)


def _index(part: Path, release: str, gpg: list[str]) -> None:
    listed = subprocess.run(
        ["dpkg-scanpackages", "--arch", "arm64", "pool"], cwd=part, check=True, capture_output=True
    ).stdout
    dists = part / "dists" / release
    (dists / "main" / "binary-arm64").mkdir(parents=True)
    (dists / "main" / "binary-arm64" / "Packages").write_bytes(listed)
    digest = hashlib.sha256(listed).hexdigest()
    text = f"Suite: {release}\nCodename: {release}\nDate: {formatdate(usegmt=True)}\nArchitectures: arm64\n"
    text += f"Components: main\nSHA256:\n {digest} {len(listed)} main/binary-arm64/Packages\n"
    subprocess.run([*gpg, "--clearsign", "--output", str(dists / "InRelease")], input=text.encode(), check=True)
