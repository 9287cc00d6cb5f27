""".dockerignore lets in what the images are built from and nothing else, as Docker's own client reads it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

ROOT = Path(__file__).parents[2]
TOPS = {"LICENSE", "README.md", "pyproject.toml", "engines", "export", "runtime", "service", "training"}

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


@pytest.fixture(scope="module")
def context() -> set[str]:
    """The files that `docker build` would send."""
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in patterns if line and not line.startswith("#")]
    found = exclude_paths(str(ROOT), rules, dockerfile=".dockerignore")
    return {path for path in found if (ROOT / path).is_file()} - {".dockerignore"}


def test_only_sources_are_let_in(context: set[str]) -> None:
    assert {path.split("/")[0] for path in context} == TOPS | {"benchmarks", "deploy"}
    assert {path for path in context if path.startswith("deploy")} == {"deploy/healthcheck.py"}
    assert {path.split("/")[1] for path in context if path.startswith("benchmarks")} == {"lab"}
    assert not [path for path in context if "__pycache__" in path or path.endswith((".pyc", ".engine", ".part"))]
    assert sum((ROOT / path).stat().st_size for path in context) < 64 << 20


def test_a_new_file_beside_the_sources_stays_out(tmp_path: Path) -> None:
    for name in (".git/config", ".env", "models/a/encoder.onnx", "tests/test_a.py", "benchmarks/b.py", "runtime/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    files = {p for p in exclude_paths(str(tmp_path), rules, dockerfile=".dockerignore") if (tmp_path / p).is_file()}
    assert files == {"runtime/a.py"}


def test_the_wheel_of_the_context_is_complete(context: set[str], tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in context:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, source / path)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(tmp_path), str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert _expected() <= names, sorted(_expected() - names)[:10]


def _expected() -> set[str]:
    """Every file that pyproject.toml promises, looked for in the whole checkout."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders: dict[str, str] = setuptools["package-dir"]
    found = set()
    for package in setuptools["packages"]:
        base = max((known for known in folders if f"{package}.".startswith(f"{known}.")), key=len)
        inside = package.removeprefix(base).lstrip(".").replace(".", "/")
        folder = ROOT / folders[base] / inside
        for pattern in ("*.py", *setuptools["package-data"].get(package, ())):
            files = [path for path in folder.glob(pattern) if path.is_file() and "__pycache__" not in path.parts]
            found |= {f"{package.replace('.', '/')}/{path.relative_to(folder).as_posix()}" for path in files}
    return found
