"""`boothsam crop --set`: the frames of a turntable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from boothsam.runtime.errors import OptionError
from boothsam.service.console import Failed, Progress, print_json, say, say_exception, say_warning
from boothsam.service.outputs import FORMATS, is_folder, plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from boothsam.runtime.model import SamModel
    from boothsam.service.cropping import Look
    from boothsam.service.prompts import Request
    from boothsam.service.turntable import Frame

_SAID = {
    "asked_again": "its box lay far from its neighbours'; asked again with theirs",
    "confirmed": "its box lies far from its neighbours', but a second answer or the frame half a turn away agrees",
    "outlier": "its box lies far from its neighbours'; it does not count for the common box",
}


def run_set(
    load: Callable[[], SamModel], folder: Path, out: str, request: Request, look: Look, force: bool, json: bool
) -> None:
    """Cut out all photos of a folder as one set.

    load: gives the model, called once everything else is known to be right. Raises OptionError, OutputError; Failed
    when a frame failed.
    """
    from boothsam.service.batch.sources import is_photo
    from boothsam.service.turntable import check_set, crop_set, natural

    check_set(request, look)
    if not folder.is_dir():
        raise OptionError(f"--set {folder} is no folder", hint="name the folder with the frames of one product")
    photos = sorted((path for path in folder.iterdir() if path.is_file() and is_photo(path.name)), key=natural)
    if not photos:
        raise OptionError(f"--set {folder} holds no photos", hint="name the folder with the frames of one product")
    target = Path(out)
    if not is_folder(target, out):
        raise OptionError(
            f"-o {out} names one file; a set gives {len(photos)} pictures", hint=f"name a folder: -o {target.stem}/"
        )
    tasks = plan(photos, [1] * len(photos), target, folder=True, ending=FORMATS[look.format], force=force)
    for task in tasks:
        if task.error is not None:
            raise task.error
    model = load()
    spin = crop_set(model, photos, [task.outputs[0] for task in tasks], request, look, _over)
    if json:
        print_json(spin.record(folder, model))
    for frame in spin.frames:
        if frame.error is not None:
            say_exception(frame.error, where=str(frame.photo))
        elif frame.verdict in _SAID:
            say_warning(f"{frame.photo}: {_SAID[frame.verdict]}", "look at this picture")
        if frame.written_hw is not None and not json:
            typer.echo(str(frame.output))
    failed = sum(frame.error is not None for frame in spin.frames)
    if failed:
        say(f"{failed} of {len(spin.frames)} frames failed")
        raise Failed


def _over(frames: Sequence[Frame], what: str) -> Iterator[Frame]:
    progress = Progress(len(frames), f"{what} frame")
    yield from progress.over(frames)
