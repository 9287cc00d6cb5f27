"""`boothsam crop`: product pictures from photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from boothsam.runtime.errors import BoothsamError, OptionError
from boothsam.service import options
from boothsam.service.console import Failed, Progress, explain, print_json, say, say_exception, say_warning
from boothsam.service.outputs import FORMATS, Task, choose_format, is_folder, plan
from boothsam.service.prompts import Request

if TYPE_CHECKING:
    from boothsam.runtime.model import SamModel
    from boothsam.service.cropping import Look


def crop(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Photos: JPEG, PNG or WebP")],
    out: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="A file for one product, a folder for more")
    ],
    box: options.Box = None,
    point: options.Point = None,
    boxes: options.Boxes = None,
    min_score: options.MinScore = 0.0,
    auto: options.Auto = False,
    background: options.BackgroundColour = None,
    fill: options.Fill = None,
    margin: options.Margin = None,
    size: options.Size = None,
    format: Annotated[
        str | None, typer.Option(metavar="png|jpg|webp", help="Default: what the ending of OUT says, else png")
    ] = None,
    quality: options.Quality = 92,
    shadow: options.Shadow = "none",
    fill_holes: options.FillHoles = False,
    drop_islands: options.DropIslands = False,
    small_area: options.SmallArea = None,
    model: options.Model = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Cut products out of photos.

    Say where the product is with --box, --point or a detector's --boxes, or let --auto find it. A box may be a tenth
    too small on each side; what lies farther out is left out. OUT is a file for one product, a folder for several
    photos or products: the names are the photos', with -1, -2 for several products of one photo. Nothing that exists
    is replaced without --force. A photo that fails does not stop the others.

    The paths written go to stdout, or with --json one JSON document, or one line for each of several photos.
    """
    from boothsam.service.cropping import Look

    request = Request.parse(box, point, boxes, min_score, auto)
    target = Path(out)
    folder = is_folder(target, out)
    kind = choose_format(target, format)
    look = Look(kind, background, fill, margin, size, quality, fill_holes, drop_islands, small_area, shadow)
    tasks = plan(
        photos,
        [_count(request, p, len(photos) == 1) for p in photos],
        target,
        folder=folder,
        ending=FORMATS[kind],
        force=force,
    )
    loaded = None
    if any(task.error is None for task in tasks):
        loaded = options.load_model(model, backend, precision, threads)
    _run(loaded, tasks, request, look, json)


def _count(request: Request, photo: Path, only: bool) -> int | BoothsamError:
    try:
        return request.count(photo, only=only)
    except BoothsamError as error:
        return error


def _run(model: SamModel | None, tasks: list[Task], request: Request, look: Look, json: bool) -> None:
    from boothsam.service.cropping import crop_photo

    many = len(tasks) > 1
    progress = Progress(len(tasks), "photo")
    failures: list[tuple[Task, Exception]] = []
    try:
        for task in progress.over(tasks):
            try:
                if task.error is not None or model is None:
                    raise task.error or OptionError("no model")
                record = crop_photo(model, task, request, look, only=not many)
            except Exception as error:
                failures.append((task, error))
                message, hint = explain(error)
                record = {
                    "photo": str(task.photo),
                    "error": {"type": type(error).__name__, "message": message, "hint": hint},
                }
            progress.clear()
            for warning in record.get("warnings", ()):
                say_warning(f"{task.photo}: {warning['message']}", warning["hint"])
            if json:
                print_json(record)
            else:
                for product in record.get("products", ()):
                    typer.echo(product["output"])
    finally:
        progress.clear()
        for task, failure in failures:
            say_exception(failure, where=str(task.photo))
        if failures and many:
            say(f"{len(failures)} of {len(tasks)} photos failed")
    if failures:
        raise Failed
