"""`boothsam bench`: how fast is what, here, on these photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from boothsam.runtime.errors import OptionError
from boothsam.service import options
from boothsam.service.console import Failed, print_json, say
from boothsam.service.outputs import write_text


def bench(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Model folder or name; default: starter")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PyTorch file of the same weights, to compare with PyTorch")
    ] = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="Default: what the model's manifest says")] = None,
    photos: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Your photos (up to 8); default: the demo photo at 12 megapixels"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="An implementation; repeat; default: all")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Rounds after the warm-up")] = 7,
    cold: Annotated[int, typer.Option(min=1, metavar="N", help="Cold starts of each implementation")] = 3,
    threads: options.Threads = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a report with charts")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="BEFORE AFTER", help="Measure nothing: compare two results, end with 1 on a regression"),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, metavar="SHARE", help="How much slower counts as a regression with --compare")
    ] = 0.2,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Time every implementation that runs on this machine on the same photos, from JPEG to cut-out.

    Each runs in a fresh process and they take turns; their masks must agree before a time counts. PyTorch takes part
    when it is installed and --checkpoint names the weights that the model was exported from. What cannot run is listed
    with the reason. The table goes to stdout.
    """
    if compare is not None:
        _compare(*compare, threshold)
        return
    import os
    import tempfile

    from boothsam.bench import tables
    from boothsam.bench.plan import Plan, demo_photo, photos_in
    from boothsam.bench.runners import IMPLEMENTATIONS
    from boothsam.bench.schedule import run
    from boothsam.runtime.manifest import ModelManifest
    from boothsam.runtime.store import find_model

    known = [one.name for one in IMPLEMENTATIONS]
    strangers = sorted(set(only or ()) - set(known))
    if strangers:
        raise OptionError(f"unknown implementation {strangers[0]!r}; expected {', '.join(known)}")
    folder = find_model(model)
    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan(
            model=str(folder),
            checkpoint=str(checkpoint or ""),
            variant=variant or ModelManifest.load(folder).variant,
            seeded=False,
            threads=threads or len(os.sched_getaffinity(0)),
            subjects=photos_in(photos) if photos is not None else (demo_photo(Path(scratch)),),
            names=tuple(only or ()),
        )
        result = run(plan, rounds=rounds, cold_starts=cold, say=say)
    typer.echo(tables.summary(result))
    if json is not None:
        write_text(json, tables.to_json(result), force=force)
    if html is not None:
        from boothsam.bench.report import page

        write_text(html, page([result]), force=force)


def _compare(before: Path, after: Path, threshold: float) -> None:
    from boothsam.bench import compare as results

    first, second = results.load(before), results.load(after)
    for note in results.differences(first, second):
        say(f"note: {note}")
    found = results.changes(first, second)
    if not found:
        raise OptionError(f"{before} and {after} have no implementation in common")
    worse = results.regressions(found, threshold)
    print_json({"regressions": [vars(change) for change in worse], "stages_compared": len(found)})
    if worse:
        raise Failed
