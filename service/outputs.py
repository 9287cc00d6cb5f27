"""Where results go: one file or a folder, a name for each product, and nothing overwritten by accident."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from boothsam.runtime.errors import BoothsamError, OptionError, OutputError

FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp"}
_SUFFIXES = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}


@dataclass(frozen=True)
class Task:
    """One photo and the files of its products; or why it cannot be done."""

    photo: Path
    outputs: tuple[Path, ...]
    error: BoothsamError | None = None


def choose_format(out: Path, named: str | None, *, default: str = "png") -> str:
    """png, jpg or webp: the named one, else what the ending of `out` says, else `default`.

    Raises:
        OptionError: an unknown format, or an ending that says another one.
    """
    suffix = out.suffix.lower()
    if named is not None and named not in FORMATS:
        raise OptionError(f"unknown format {named!r}; expected {', '.join(FORMATS)}")
    told = _SUFFIXES.get(suffix)
    if named is not None and told is not None and told != named and not out.is_dir():
        raise OptionError(
            f"--format {named} and the ending of {out} contradict each other",
            hint="leave --format out, or change the ending",
        )
    return named or told or default


def is_folder(out: Path, text: str, suffixes: Sequence[str] = tuple(_SUFFIXES)) -> bool:
    """Whether -o names a folder: it is one, ends with a slash, or has no ending."""
    if out.is_dir() or text.endswith(("/", os.sep)):
        return True
    if out.suffix.lower() in suffixes:
        return False
    if out.suffix and not out.suffix[1:].isdigit():
        raise OptionError(
            f"the ending {out.suffix!r} of {out} is no known format; expected {', '.join(suffixes)}",
            hint="name a file with such an ending, or a folder",
        )
    return True


def plan(
    photos: Sequence[Path],
    counts: Sequence[int | BoothsamError],
    out: Path,
    *,
    folder: bool,
    ending: str,
    force: bool,
    named: Sequence[tuple[Path, ...] | BoothsamError] | None = None,
) -> list[Task]:
    """A task for each photo, with names that collide neither with each other nor with the photos.

    counts: number of products of each photo, or the error that its detections gave. In a folder the name is the photo's
    stem, with -1, -2 for several products; the second photo of the same stem becomes stem_2.
    named: the files of each photo instead, or why it has no name.

    Raises:
        OptionError: several results for a single file.
    """
    total = sum(count for count in counts if isinstance(count, int))
    if not folder and (len(photos) > 1 or total > 1):
        raise OptionError(
            f"{total} pictures cannot be written to the one file {out}",
            hint=f"name a folder: -o {out.with_suffix('') if out.suffix else out}/",
        )
    sources = {_identity(photo) for photo in photos}
    taken: set[str] = set()
    tasks = []
    for photo, count, own in zip(photos, counts, named or [()] * len(photos), strict=True):
        if isinstance(count, BoothsamError):
            tasks.append(Task(photo, (), count))
            continue
        if isinstance(own, BoothsamError):
            tasks.append(Task(photo, (), own))
            continue
        outputs = own or (product_names(photo.stem, count, out, ending, taken) if folder else (out,))
        taken |= {output.name.casefold() for output in outputs}
        error: BoothsamError | None = None
        for output in outputs:
            if output.exists() and _identity(output) in sources:
                error = OutputError(
                    f"{output} is one of the photos and would be overwritten", hint="write into another folder: -o cut/"
                )
            elif output.is_dir():
                error = OutputError(f"{output} is a folder; expected a file")
            elif output.exists() and not force:
                error = OutputError(f"{output} exists", hint="--force replaces it")
            if error is not None:
                break
        tasks.append(Task(photo, outputs, error))
    return tasks


def product_names(stem: str, count: int, out: Path, ending: str, taken: Set[str]) -> tuple[Path, ...]:
    """The files in `out` for `count` products of the photo `stem`, none of them in `taken` (casefolded file names)."""
    attempt = 1
    while True:
        base = stem if attempt == 1 else f"{stem}_{attempt}"
        names = [base + ending] if count == 1 else [f"{base}-{i}{ending}" for i in range(1, count + 1)]
        if not taken & {name.casefold() for name in names}:
            return tuple(out / name for name in names)
        attempt += 1


def _identity(path: Path) -> object:
    try:
        stat = path.stat()
    except OSError:
        return os.path.realpath(path)
    return stat.st_dev, stat.st_ino


def make_parent(output: Path) -> None:
    """Create the folder a file goes to."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot create the folder {output.parent}: {error.strerror}", hint="choose another -o"
        ) from None


def write_blocks(output: Path, blocks: Iterator[bytes]) -> None:
    """Write a file of any size, whole or not at all; one that exists is replaced. Raises OSError, OutputError."""
    make_parent(output)
    partial = output.with_name(f".{output.name}.part")
    try:
        with partial.open("wb") as file:
            file.writelines(blocks)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def write_text(output: Path, text: str, *, force: bool) -> None:
    """A whole text file or none.

    Raises:
        OutputError: it exists and `force` was not given, or cannot be written.
    """
    from boothsam.runtime.images import write_atomic

    if output.exists() and not force:
        raise OutputError(f"{output} exists", hint="--force replaces it")
    make_parent(output)
    write_atomic(output, text.encode())
