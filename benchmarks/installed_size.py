"""Installed size of boothsam[cpu] beside PyTorch + segment-anything, each in a fresh environment: the README's table.

    python benchmarks/installed_size.py [--json benchmarks/results/installed-size.json]

Counts the bytes under site-packages, less pip and setuptools. The reference side installs PyTorch's CPU build where
pip finds
one (a GPU build is several GB more) and torchvision, which segment-anything imports, where it can be had.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import venv
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETS = {
    "boothsam[cpu]": [[f"{ROOT}[cpu]"]],
    "torch (CPU) + segment-anything": [
        ["-c", str(ROOT / "constraints.txt"), "torch", "numpy", "pillow"],
        ["--no-deps", "segment-anything"],
    ],
}
OWN = ("pip", "setuptools", "_distutils_hack", "pkg_resources")


def measure(steps: list[list[str]]) -> dict[str, int]:
    """Bytes by top-level folder of site-packages after the given pip installs."""
    with tempfile.TemporaryDirectory() as scratch:
        venv.create(scratch, with_pip=True)
        python = Path(scratch) / "bin" / "python"
        for step in steps:
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *step], check=True
            )
        (packages,) = (Path(scratch) / "lib").glob("python*/site-packages")
        sizes: dict[str, int] = {}
        for file in packages.rglob("*"):
            top = file.relative_to(packages).parts[0]
            if file.is_file() and not file.is_symlink() and not top.startswith(OWN):
                sizes[top] = sizes.get(top, 0) + file.stat().st_size
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for name, steps in SETS.items():
        sizes = measure(steps)
        results[name] = {
            "total_mb": round(sum(sizes.values()) / 1e6, 1),
            "largest_mb": {k: round(v / 1e6, 1) for k, v in list(sizes.items())[:6]},
        }
        print(f"{name}: {results[name]['total_mb']} MB  {results[name]['largest_mb']}")
    if options.json:
        body = {
            "date": date.today().isoformat(),
            "python": sys.version.split()[0],
            "machine": f"{platform.system()} {platform.machine()}",
            "installed": results,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
