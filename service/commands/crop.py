"""`boothsam crop`: product pictures from photos."""

from __future__ import annotations

from functools import partial
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
    out: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="A file for one product, a folder for more")
    ],
    photos: Annotated[
        list[Path] | None, typer.Argument(metavar="PHOTO", help="Photos: JPEG, PNG or WebP", show_default=False)
    ] = None,
    box: options.Box = None,
    point: options.Point = None,
    boxes: options.Boxes = None,
    min_score: options.MinScore = 0.0,
    auto: options.Auto = False,
    plate: options.Plate = None,
    set: Annotated[
        Path | None,
        typer.Option("--set", metavar="FOLDER", help="All frames of one product, as from a turntable: one box for all"),
    ] = None,
    background: options.BackgroundColour = None,
    fill: options.Fill = None,
    margin: options.Margin = None,
    size: options.Size = None,
    format: Annotated[
        str | None, typer.Option(metavar="png|jpg|webp", help="Default: what the ending of OUT says, else png")
    ] = None,
    quality: options.PresetQuality = None,
    shadow: options.Shadow = "none",
    fill_holes: options.FillHoles = False,
    drop_islands: options.DropIslands = False,
    small_area: options.SmallArea = None,
    preset: options.Preset = None,
    name: options.Name = None,
    sku: options.Sku = None,
    gtin: options.Gtin = None,
    view: options.View = None,
    turntable: options.Turntable = None,
    model: options.Model = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    resize: options.Resize = "exact",
    threads: options.Threads = None,
    json: options.Json = False,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Cut products out of photos.

    Say where the product is with --box, --point or a detector's --boxes, or let --auto find it, or --plate: a photo of
    the empty booth by the same fixed camera. A box may be a tenth too small on each side; what lies farther out is left
    out. OUT is a file for one product, a folder for several photos or products: the names are the photos', with -1, -2
    for several products of one photo. Nothing that exists is replaced without --force. A photo that fails does not stop
    the others.

    --preset makes the picture that a marketplace wants, checks it, and writes none that breaks a rule; what else is
    chosen goes first, unless a rule forbids it. --name calls the files in OUT by a template of {stem}, {sku}, {gtin},
    {gtin14}, {n}, {type}{face}{angle}{state}, {variant} and {preset}.

    --set takes a folder with the frames of one product in place of photos: all get the same box, scale and canvas.

    The paths written go to stdout, or with --json one JSON document, or one line for each of several photos.
    """
    from boothsam.service.cropping import Look
    from boothsam.service.presets.files import Naming, checked_names
    from boothsam.service.presets.look import preset_look
    from boothsam.service.presets.preset import load_preset

    if bool(photos) == (set is not None):
        found = "both photos and --set" if photos else "neither photos nor --set"
        raise OptionError(f"{found} were given; expected one of them", hint="boothsam crop photo.jpg --auto -o cut.png")
    request = Request.parse(box, point, boxes, min_score, auto, plate)
    target = Path(out)
    folder = is_folder(target, out)
    market = None if preset is None else load_preset(preset)
    kind = choose_format(target, format, default="png" if market is None else market.make.format)
    warnings: list[tuple[str, str]] = []
    if market is None:
        shown = 92 if quality is None else quality
        look = Look(kind, background, fill, margin, size, shown, fill_holes, drop_islands, small_area, shadow)
    else:
        look, warnings = preset_look(
            market,
            format=kind,
            background=background,
            fill=fill,
            margin=margin,
            size=size,
            quality=quality,
            fill_holes=fill_holes,
            drop_islands=drop_islands,
            small_area=small_area,
            shadow=shadow,
        )
    if set is not None:
        from boothsam.service.commands.crop_set import run_set

        if any((name, sku, gtin, view, turntable)):
            raise OptionError("--name and its parts do not go with --set: pictures are called as their frames")
        loading = partial(options.load_model, model, backend, precision, threads, resize)
        run_set(loading, set, out, request, look, force, json)
        return
    photos = photos or []
    naming = Naming.choose(name, market if folder else None, sku, gtin, view, turntable)
    if naming is not None and not folder:
        raise OptionError(f"--name names the files of a folder, but -o {out} is a file", hint=f"-o {target.parent}/")
    counts = [_count(request, p, len(photos) == 1) for p in photos]
    ending = FORMATS[kind]
    named = naming.plan(photos, counts, target, ending, market.name if market else "") if naming else None
    tasks = plan(photos, counts, target, folder=folder, ending=ending, force=force, named=named)
    if market is not None:
        tasks, advice = checked_names(tasks, kind, market)
        warnings += [(f"{output.name}: {finding}", finding.mend) for output, finding in advice]
    for warning in warnings:
        say_warning(*warning)
    loaded = None
    if any(task.error is None for task in tasks):
        loaded = options.load_model(model, backend, precision, threads, resize)
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
            products = record.get("products", ())
            for warning in [*record.get("warnings", ()), *(w for p in products for w in p.get("warnings", ()))]:
                say_warning(f"{task.photo}: {warning['message']}", warning["hint"])
            if json:
                print_json(record)
            else:
                for product in products:
                    typer.echo(product["output"])
    finally:
        progress.clear()
        for task, failure in failures:
            say_exception(failure, where=str(task.photo))
        if failures and many:
            say(f"{len(failures)} of {len(tasks)} photos failed")
    if failures:
        raise Failed
