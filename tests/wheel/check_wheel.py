"""Build the wheel, install it into an environment of its own, and use it there as a newcomer would.

Not a pytest module: it needs pip and a package index (or pip's cache) for the runtime's four dependencies.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MUST_HOLD = (
    "boothsam/__init__.py",
    "boothsam/py.typed",
    "boothsam/runtime/demo/coffee.jpg",
    "boothsam/runtime/models/starter/manifest.json",
)
HEAVY = ("torch", "onnx", "fastapi")
NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit("boothsam tried to use the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def run(*command: str, cwd: Path, **env: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main() -> None:
    """Exit with a message at the first thing that is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", scratch, str(ROOT), cwd=ROOT)
        (wheel,) = folder.glob("boothsam-*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        missing = [name for name in MUST_HOLD if name not in names]
        tops = {name.split("/")[0] for name in names}
        strangers = sorted(t for t in tops if t != "boothsam" and not t.endswith(".dist-info"))
        if missing or strangers:
            raise SystemExit(f"the wheel lacks {missing} or holds strangers {strangers}")
        venv.create(folder / "env", with_pip=True)
        python = str(folder / "env" / "bin" / "python")
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[cpu]", cwd=folder)
        listed = json.loads(
            run(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check", cwd=folder)
        )
        heavy = sorted({p["name"] for p in listed} & set(HEAVY))
        if heavy:
            raise SystemExit(f"boothsam[cpu] pulled {heavy}")
        (folder / "offline").mkdir()
        (folder / "offline" / "sitecustomize.py").write_text(NO_NETWORK)
        home = {"BOOTHSAM_HOME": str(folder / "home"), "PYTHONPATH": str(folder / "offline")}
        run(str(folder / "env" / "bin" / "boothsam"), "demo", "-o", str(folder / "demo"), cwd=folder, **home)
        pictures = sorted(p.name for p in (folder / "demo").iterdir())
        if not pictures:
            raise SystemExit("boothsam demo wrote no picture")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, demo wrote {', '.join(pictures)}")


if __name__ == "__main__":
    main()
