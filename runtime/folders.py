"""A model folder appears whole or not at all: filled beside its place, then moved there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boothsam.runtime.errors import OutputError
from boothsam.runtime.manifest import FILE_NAME


def check_target(out: Path, force: bool) -> None:
    """Refuse a target that holds something, unless it is a model and may be replaced.

    Raises:
        OutputError: `out` exists.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise OutputError(f"{out} exists already", hint="give another -o, or --force to replace the model in it")
    if not (out / FILE_NAME).is_file():
        raise OutputError(f"{out} holds no {FILE_NAME}: only a model folder is replaced", hint="give another -o")


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` at the end; when filling fails nothing is left of it.

    Raises:
        OutputError: it cannot be made, filled or moved.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error})", hint="give a folder that you may write to") from None
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp keeps others out
        _publish(scratch, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error})", hint="check free space and rights") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, out: Path) -> None:
    """Move the finished folder into place; a model that stood there goes only once the new one is ready."""
    if not out.exists() or not any(out.iterdir()):
        scratch.replace(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
    out.replace(old / "model")
    scratch.replace(out)
    shutil.rmtree(old, ignore_errors=True)
