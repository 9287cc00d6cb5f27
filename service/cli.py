"""The `boothsam` command; also `python -m boothsam.service.cli`."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer
from boothsam.service.commands import (
    annotate,
    batch,
    bench,
    build,
    captures,
    catalogue,
    check,
    config,
    crop,
    demo,
    distill,
    doctor,
    everything,
    export_triton,
    models,
    quantize,
    segment,
    serve,
    verify,
)
from boothsam.service.console import Group, set_up_logging
from boothsam.service.options import Verbose

app = typer.Typer(
    name="boothsam",
    cls=Group,
    help="Cut products out of photos with Segment Anything models, without PyTorch",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"boothsam {importlib.import_module('boothsam').__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
    verbose: Verbose = 0,
) -> None:
    if not verbose:
        set_up_logging(0)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (
    crop.crop,
    batch.batch,
    catalogue.catalogue,
    check.check,
    annotate.annotate,
    segment.segment,
    everything.everything,
    demo.demo,
    models.models,
    models.download,
    models.export,
    distill.distill,
    quantize.quantize,
    build.build,
    export_triton.export_triton,
    verify.verify,
    doctor.doctor,
    bench.bench,
    serve.serve,
):
    app.command()(command)
app.add_typer(captures.app, name="captures")
app.add_typer(config.app, name="config")


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="boothsam")


if __name__ == "__main__":
    main()
