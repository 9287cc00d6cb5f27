"""`boothsam annotate`: masks for a folder of photos, made in a browser, kept as PNG files and as a COCO dataset."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from boothsam.runtime.errors import OptionError, OutputError
from boothsam.service import options
from boothsam.service.console import need_extra, say, say_warning

if TYPE_CHECKING:
    from boothsam.service.settings import Settings


def annotate(
    photos: Annotated[Path, typer.Argument(metavar="FOLDER", help="The photos: JPEG, PNG, WebP; subfolders too")],
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Where masks and records go; default: FOLDER/annotations"),
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option("--category", metavar="NAME", help="Add a category; repeat for several")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="OUT", help="Serve nothing: write what is done to a .json, .zip or folder"),
    ] = None,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Export outlines in place of run lengths; holes are lost")
    ] = False,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on; other than loopback needs a token")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one")] = None,
    model: options.Model = None,
    backend: Annotated[str | None, typer.Option(metavar="NAME", help="auto, ort-cuda or ort-cpu")] = None,
    precision: Annotated[str | None, typer.Option(metavar="NAME", help="auto or fp32")] = None,
    threads: options.Threads = None,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Outline products on every photo of a folder, in a browser, with one click each.

    Prints the page's address; every mask that is accepted there is on the disk at once, and the next start goes on
    where the last one stopped. Settings are those of `boothsam serve`; captures are left alone.
    """
    with need_extra("serve", "annotating"):
        from boothsam.service.annotations.running import annotations_folder
        from boothsam.service.settings import load
    loaded = load(
        annotate_dir=photos, annotations_dir=out, captures_dir="", kiosk=True, host=host, port=port, model=model,
        backend=backend, precision=precision, threads=threads,
    )  # fmt: skip
    folders = annotations_folder(loaded.settings)
    if category:
        _add_categories(*folders, category)
    if export is not None:
        _export(*folders, export, polygons=polygons, force=force)
    elif polygons:
        raise OptionError("--polygons is about exporting", hint="--export out.json --polygons")
    else:
        for variable, near in loaded.unknown.items():
            say_warning(f"{variable} is no setting and was ignored", f"rename it to {near}" if near else None)
        _serve(loaded.settings)


def _serve(settings: Settings) -> None:
    from boothsam.service import server

    # The line that says where the page is: with port 0 nobody else knows.
    logging.getLogger("boothsam.service.server").setLevel(logging.INFO)
    server.run(settings)


def _add_categories(photos: Path, folder: Path, names: list[str]) -> None:
    from boothsam.service.annotations.store import AnnotationStore

    store = AnnotationStore.open(photos, folder)
    try:
        known = {c.name for c in store.categories}
        wanted: list[tuple[int | None, str]] = [(c.id, c.name) for c in store.categories]
        fresh = not store.layout.categories.exists() and not any(store.layout.records.iterdir())
        if fresh:  # nobody chose "product": the first name takes its place
            wanted = [(store.categories[0].id, names[0])]
            known = {names[0].strip()}
        new = dict.fromkeys(name.strip() for name in names)
        store.set_categories([*wanted, *((None, name) for name in new if name not in known)])
    finally:
        store.close()


def _export(photos: Path, folder: Path, out: Path, *, polygons: bool, force: bool) -> None:
    import json

    from boothsam.service.annotations.coco import read_export, summary
    from boothsam.service.captures.export import write_folder, zip_blocks
    from boothsam.service.outputs import write_blocks, write_text

    suffix = out.suffix.lower()
    if suffix not in ("", ".json", ".zip"):
        raise OptionError(f"a dataset cannot be written to {out}", hint="a .json file, a .zip file or a folder")
    found = read_export(photos, folder)
    if out.exists() and not force and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out} exists", hint="--force replaces it")
    if suffix == ".json":
        write_text(out, json.dumps(found.dataset(polygons=polygons)), force=force)
    elif suffix == ".zip":
        write_blocks(out, zip_blocks(found.members(polygons=polygons)))
    else:
        write_folder(found.members(polygons=polygons), out)
    say(f"{len(found.finished)} photos exported")
    for why, count in summary(found.left_out).items():
        say_warning(f"{count} left out: {why}")
    typer.echo(str(out))
