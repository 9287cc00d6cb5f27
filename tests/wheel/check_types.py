"""Run strict mypy over the source tree as the package `boothsam`.

mypy cannot see through setuptools' editable finder, so the package-dir mapping of pyproject.toml is laid out as links.
"""

import shutil
import subprocess
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Exit status of mypy."""
    tree = ROOT / "build" / "types"
    shutil.rmtree(tree, ignore_errors=True)
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    mapping: dict[str, str] = setuptools["package-dir"]
    for package in setuptools["packages"]:
        parent = max((p for p in mapping if package == p or package.startswith(p + ".")), key=len)
        source = ROOT / mapping[parent] / Path(*package.removeprefix(parent).strip(".").split("."))
        target = tree / Path(*package.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for file in [*source.glob("*.py"), *source.glob("py.typed")]:
            (target / file.name).symlink_to(file)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "boothsam"]
    return subprocess.run(command, cwd=tree, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
