"""`boothsam batch`: product pictures of many photos."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from boothsam.runtime.errors import OptionError, OutputError
from boothsam.service import options
from boothsam.service.console import Failed, print_json, say, say_error, say_exception
from boothsam.service.outputs import FORMATS
from boothsam.service.prompts import Request

if TYPE_CHECKING:
    from boothsam.service.batch.running import Batch, Drop, Result, Run
    from boothsam.service.batch.sources import Defaults
    from boothsam.service.batch.stopping import Stop


def batch(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help='A folder, a "glob", photos, or a .csv or .parquet table of them'),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the pictures go")],
    box: options.Box = None,
    point: options.Point = None,
    boxes: options.Boxes = None,
    min_score: options.MinScore = 0.0,
    auto: options.Auto = False,
    plate: options.Plate = None,
    background: options.BackgroundColour = None,
    fill: options.Fill = None,
    margin: options.Margin = None,
    size: options.Size = None,
    format: Annotated[str, typer.Option("--format", metavar="png|jpg|webp", help="Of the pictures")] = "png",
    quality: options.Quality = 92,
    shadow: options.Shadow = "none",
    fill_holes: options.FillHoles = False,
    drop_islands: options.DropIslands = False,
    small_area: options.SmallArea = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try photos that failed before again")] = False,
    trust_times: Annotated[
        bool,
        typer.Option(
            "--trust-times", help="Take a photo of the same size and time for the same, without reading it again"
        ),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking for new photos in the folder")] = False,
    settle: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="With --watch: how long a file must stay the same to be complete"),
    ] = 2.0,
    poll: Annotated[
        float, typer.Option(min=0.05, metavar="SECONDS", help="With --watch: time between two looks")
    ] = 1.0,
    move_done: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With --watch: move photos there when they are done")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help='Run on a Ray cluster; "local" starts one on this machine'),
    ] = None,
    ray_actors: Annotated[int, typer.Option(min=1, metavar="N", help="With --ray: models that work at once")] = 1,
    cpus_per_actor: Annotated[
        float, typer.Option(min=0.01, metavar="N", help="With --ray: CPUs that each reserves")
    ] = 1.0,
    gpus_per_actor: Annotated[
        float, typer.Option(min=0, metavar="N", help="With --ray: GPUs that each reserves; 0.25 shares one by four")
    ] = 0.0,
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
    """Cut products out of many photos: a folder, a table, a booth's drop folder.

    Without a prompt, as with --auto, the main product is found; --box, --point, --boxes and --plate are as for
    `boothsam crop` and hold for every photo; a table's columns (photo, box, points, labels, name or sku, background,
    fill, margin, size, quality) hold for their own row. The pictures lie in OUT as the photos lie in their folder.

    OUT/batch.jsonl gets a line for each photo once its pictures are on the disk. The same command again goes on where
    it was stopped, by Ctrl-C or a power cut: photos that are done are passed over, unless they or the settings changed.
    Failures do not stop it; they are listed at the end and in OUT/failures.csv. Ends with 1 if there are any.
    """
    from boothsam.service.batch.running import Batch
    from boothsam.service.batch.sources import Defaults, find_items
    from boothsam.service.batch.work import Policy
    from boothsam.service.cropping import Look

    if format not in FORMATS:
        raise OptionError(f"unknown format {format!r}; expected {', '.join(FORMATS)}")
    if move_done is not None and not watch:
        raise OptionError("--move-done needs --watch")
    if ray is not None and watch:
        raise OptionError("--ray and --watch exclude each other", hint="watch with one machine, or run --ray again")
    auto = auto or not (box or point or boxes or plate)
    request = Request.parse(box, point, boxes, min_score, auto, plate)
    look = Look(format, background, fill, margin, size, quality, fill_holes, drop_islands, small_area, shadow)
    defaults = Defaults(request, look)
    drop = _drop(sources, out, defaults, settle, poll, move_done) if watch else None
    items = [] if drop is not None else find_items(sources, out, defaults)
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file; expected a folder", hint=f"-o {out.with_suffix('')}-cut")
    run = _runner(model, backend, precision, threads, resize, out, ray, ray_actors, cpus_per_actor, gpus_per_actor)
    from boothsam.service.batch.running import run_items, run_watch
    from boothsam.service.batch.stopping import stoppable

    with Batch.open(out, Policy(force, retry_failed, trust_times)) as opened:
        with stoppable(lambda: say("\nstopping: finishing the photos under way (Ctrl-C again: at once)")) as stop:
            result = run_items(opened, items, run, stop) if drop is None else run_watch(opened, drop, run, stop)
        _end(opened, result, stop, json, watching=watch)


def _drop(
    sources: list[str], out: Path, defaults: Defaults, settle: float, poll: float, move_done: Path | None
) -> Drop:
    from boothsam.service.batch.outfolder import absolute
    from boothsam.service.batch.running import Drop
    from boothsam.service.batch.sources import check_apart
    from boothsam.service.batch.watch import Watcher

    if len(sources) != 1 or not Path(sources[0]).is_dir():
        raise OptionError(f"--watch takes one folder that exists, found {' '.join(sources)}", hint="mkdir it first")
    folder = absolute(sources[0])
    for other in (out, move_done):
        if other is not None:
            check_apart(folder, absolute(other))
    exclude = [absolute(other) for other in (out, move_done) if other is not None]
    return Drop(Watcher(folder, settle, poll, exclude), defaults, None if move_done is None else absolute(move_done))


def _runner(
    model: str | None,
    backend: str,
    precision: str,
    threads: int | None,
    resize: str,
    out: Path,
    ray: str | None,
    actors: int,
    cpus: float,
    gpus: float,
) -> Run:
    from boothsam.service.batch.outfolder import absolute
    from boothsam.service.batch.predictor import ModelChoice

    if ray is None:
        from boothsam.service.batch.running import Local

        return Local(ModelChoice(model, backend, precision, threads, resize), absolute(out))
    from boothsam.service.batch.on_ray import OnRay

    named = str(absolute(model)) if model is not None and Path(model).is_dir() else model
    return OnRay(ModelChoice(named, backend, precision, threads, resize), absolute(out), ray, actors, cpus, gpus)


def _end(opened: Batch, result: Result, stop: Stop, json: bool, *, watching: bool) -> None:
    """Summary and exit code."""
    from boothsam.service.batch import report

    failed = report.failures(opened, result.ids)
    try:
        report.write_failures(opened, failed)
    except OutputError as error:
        result.error = result.error or error
    report.tell(opened, result, failed)
    if json:
        print_json(report.summary(opened, result, failed) | {"stopped": stop.signal is not None})
    if result.error is not None:
        say_exception(result.error)
        raise Failed
    if stop.signal is not None:
        say("stopped; the same command goes on from here")
        asked = watching and stop.signal == signal.SIGTERM
        raise typer.Exit(0 if asked else 128 + stop.signal)
    if failed:
        say_error(f"{len(failed)} photos failed")
        raise Failed
