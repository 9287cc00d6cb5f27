"""The house rules that a command can check: what imports what, and that the package lists are complete."""

import ast
import subprocess
import sys
from pathlib import Path

import boothsam
import boothsam.runtime
import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "tensorrt", "onnxruntime", "openvino", "fastapi", "onnx", "pooch"}
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


@pytest.mark.parametrize(
    "module", ["boothsam", "boothsam.runtime", "boothsam.runtime.cutout", "boothsam.runtime.predictor"]
)
def test_importing_the_runtime_loads_no_backend_and_no_framework(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded)
    assert "email" not in loaded  # importlib.metadata brings it, and with it a fifth of the import's time


def test_importing_the_command_line_loads_no_framework() -> None:
    code = "import sys, boothsam.service.cli; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        (
            "runtime",
            (
                "torch",
                "onnx",
                "tensorrt",
                "fastapi",
                "boothsam.export",
                "boothsam.engines",
                "boothsam.training",
                "boothsam.service",
            ),
        ),
        ("engines", ("torch", "boothsam.export", "boothsam.training", "boothsam.service")),
        ("export", ("boothsam.service", "boothsam.training")),
        ("service", ("torch", "onnx")),
    ],
)
def test_imports_point_one_way(folder: str, banned: tuple[str, ...]) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        wrong = {m for m in _imports(path) for b in banned if m == b or m.startswith(b + ".")}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_every_package_of_the_tree_is_listed_for_the_wheel() -> None:
    mapping = {folder: name for name, folder in SETUPTOOLS["package-dir"].items()}
    found = set()
    for top in ("runtime", "export", "engines", "service", "training", "benchmarks/lab"):
        for init in (ROOT / top).rglob("__init__.py"):
            folder = init.parent.relative_to(ROOT)
            base = next(p for p in (folder, *folder.parents) if p.as_posix() in mapping)
            found.add(".".join([mapping[base.as_posix()], *folder.relative_to(base).parts]))
    assert found == set(SETUPTOOLS["packages"])


def test_public_names_are_sorted_and_resolve() -> None:
    for package in (boothsam, boothsam.runtime):
        assert list(package.__all__) == sorted(package.__all__)
        for name in package.__all__:
            assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = boothsam.nothing


def test_no_file_is_two_rooms() -> None:
    long = {
        p.relative_to(ROOT).as_posix(): n
        for top in ("runtime", "export", "engines", "service", "training", "benchmarks")
        for p in (ROOT / top).rglob("*.py")
        if (n := len(p.read_text().splitlines())) > 400
    }
    assert not long
