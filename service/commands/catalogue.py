"""`boothsam catalogue`: a folder of photos to pictures that a marketplace takes, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from boothsam.runtime.errors import OptionError
from boothsam.service import options
from boothsam.service.console import Failed, print_json, say, say_error, say_exception, say_warning, shown
from boothsam.service.prompts import Request

if TYPE_CHECKING:
    from boothsam.service.batch.running import Result
    from boothsam.service.catalogue.records import Catalogue

_MOST_LINES = 10


def catalogue(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos, one product each, also in subfolders")],
    preset: Annotated[
        str, typer.Option("--preset", metavar="NAME|FILE", help="The market: amazon, google, ebay ... or a .toml file")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where everything goes")],
    names: Annotated[
        Path | None,
        typer.Option("--names", metavar="CSV", help="Which product a photo shows: file,sku,gtin,angle,n"),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help='The same from the photos\' names, such as "{sku}_{angle}"'),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEMPLATE", help='Of the pictures, such as "{sku}_{n}"; default: the preset\'s'),
    ] = None,
    boxes: options.Boxes = None,
    min_score: options.MinScore = 0.0,
    plate: options.Plate = None,
    auto: options.Auto = False,
    background: options.BackgroundColour = None,
    fill: options.Fill = None,
    margin: options.Margin = None,
    size: options.Size = None,
    format: Annotated[
        str | None, typer.Option("--format", metavar="png|jpg|webp", help="Default: the preset's")
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="1-100", help="JPEG or WebP quality; default: the preset's")
    ] = None,
    shadow: options.Shadow = "none",
    fill_holes: options.FillHoles = False,
    drop_islands: options.DropIslands = False,
    small_area: options.SmallArea = None,
    accept_retakes: Annotated[
        bool, typer.Option("--accept-retakes", help="Take photos that should be taken again for good enough")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try photos that failed before again")] = False,
    trust_times: Annotated[
        bool, typer.Option("--trust-times", help="Take a photo of the same size and time for the same")
    ] = False,
    model: options.Model = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    resize: options.Resize = "exact",
    threads: options.Threads = None,
    json: options.Json = False,
    force: Annotated[
        bool, typer.Option("--force", "--overwrite", help="Do every photo again, and replace files of others")
    ] = False,
    verbose: options.Verbose = 0,
) -> None:
    """Make a marketplace-ready folder of a folder of photos, and a report of what is left to do.

    OUT/ready/ gets the pictures that keep the market's rules and whose photo is good, under their final names;
    OUT/needs-work/ those that do not, never mixed; OUT/report.html shows every photo with its picture, scores and what
    mends it, report.csv and report.json the same for tables and machines. Pictures of one product are counted in the
    order of their angles: front, left, right, back, top, bottom.

    The same command again does only what is missing or has changed, after Ctrl-C or a power cut as well; pictures whose
    photo is gone or is called otherwise now are removed. Ends with 0 when all pictures are ready, else with 1.
    """
    from boothsam.service.batch.predictor import ModelChoice
    from boothsam.service.batch.sources import Defaults
    from boothsam.service.batch.stopping import stoppable
    from boothsam.service.batch.work import Policy
    from boothsam.service.catalogue import running
    from boothsam.service.catalogue.identify import Pattern
    from boothsam.service.catalogue.items import Naming, find_photos
    from boothsam.service.catalogue.table import read_names
    from boothsam.service.presets.look import preset_look
    from boothsam.service.presets.naming import Template
    from boothsam.service.presets.preset import load_preset

    market = load_preset(preset)
    look, warnings = preset_look(
        market, format=format, background=background, fill=fill, margin=margin, size=size, quality=quality,
        fill_holes=fill_holes, drop_islands=drop_islands, small_area=small_area, shadow=shadow,
    )  # fmt: skip
    for message, hint in warnings:
        say_warning(message, hint)
    naming = Naming(
        Template(name or market.make.name),
        Pattern(pattern) if pattern is not None else None,
        tuple(read_names(names)) if names is not None else (),
    )
    if not folder.is_dir():
        raise OptionError(f"{folder} is no folder", hint="name the folder that holds the photos")
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file; expected a folder", hint=f"-o {out.with_suffix('')}-catalogue")
    request = Request.parse(None, None, boxes, min_score, auto or not (boxes or plate), plate)
    items, matched = find_photos(folder, out, Defaults(request, look), naming, accept_retakes=accept_retakes)
    plan = running.Plan(items, matched, market)
    for row in matched.missing[:_MOST_LINES]:
        say_warning(f"{row.where}: there is no photo {row.file!r} in {shown(folder)}")
    with running.opened(out, Policy(force, retry_failed, trust_times)) as batch:
        with stoppable(lambda: say("\nstopping: finishing the photos under way (Ctrl-C again: at once)")) as stop:
            result = running.run(batch, items, ModelChoice(model, backend, precision, threads, resize), stop)
        made = running.finish(batch, plan)
    _tell(made, result, out)
    if json:
        print_json({"out": str(out), "report": str(out / "report.html"), "preset": made.preset} | made.totals
                   | {"stopped": stop.signal is not None})  # fmt: skip
    if result.error is not None:
        say_exception(result.error)
        raise Failed
    if stop.signal is not None:
        say("stopped; the same command goes on from here")
        raise typer.Exit(128 + stop.signal)
    if made.totals["ready"] < len(made.entries):
        raise Failed


def _tell(made: Catalogue, result: Result, out: Path) -> None:
    totals = made.totals
    labels = {"ready": "ready", "retake": "take again", "refused": "rules not kept", "failed": "no picture",
              "waiting": "not done yet"}  # fmt: skip
    for status, label in labels.items():
        if totals[status] or status == "ready":
            say(f"{label:16}{totals[status]:6}")
    if result.counter.skipped:
        say(f"{'as before':16}{result.counter.skipped:6}")
    if made.removed:
        say(f"{'removed':16}{len(made.removed):6}  files that no photo asks for any more")
    todo = [(entry, reason) for entry in made.entries for reason in entry.blocking[:1]]
    for entry, reason in todo[:_MOST_LINES]:
        text = f"{entry.photo}: {reason.code}: {reason.message}"
        say_error(text, reason.mend) if reason.kind == "error" else say_warning(text, reason.mend)
    if len(todo) > _MOST_LINES:
        say(f"... and {len(todo) - _MOST_LINES} more")
    say(f"report: {shown(out / 'report.html')}")
