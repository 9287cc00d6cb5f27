"""`boothsam captures`: look at, export, forward and check the photos that the service keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from boothsam.runtime.errors import OptionError, OutputError
from boothsam.service import options
from boothsam.service.console import Failed, need_extra, print_json, say, say_error, say_warning, shown

if TYPE_CHECKING:
    from boothsam.service.captures.reader import Reader
    from boothsam.service.captures.records import Capture
    from boothsam.service.settings import Settings

app = typer.Typer(help="The photos that the service keeps", no_args_is_help=True, rich_markup_mode=None)

Folder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="FOLDER", help="Where they lie; default: the service's captures_dir"),
]
Sku = Annotated[str | None, typer.Option("--sku", metavar="TEXT", help="Only captures of this sku")]
Gtin = Annotated[str | None, typer.Option("--gtin", metavar="DIGITS", help="Only captures of this GTIN")]


@app.callback()
def _root() -> None:
    """The photos that the service keeps."""


def _settings(folder: Path | None) -> tuple[Settings, Path]:
    with need_extra("serve", "captures"):
        from boothsam.service.settings import load
    settings = load(captures_dir=folder).settings
    if settings.captures_dir is None:
        raise OptionError("the service is set to keep no captures", hint="name the folder: --folder FOLDER")
    return settings, settings.captures_dir


def _reader(folder: Path | None) -> Reader:
    from boothsam.service.captures.reader import Reader

    return Reader(_settings(folder)[1])


@app.command("list")
def list_captures(
    folder: Folder = None,
    sku: Sku = None,
    gtin: Gtin = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="The newest N")] = 20,
    json: options.Json = False,
) -> None:
    """List the newest captures, the oldest of them first; with --json one record per line."""
    found = _reader(folder).page(limit, before=2**62, sku=sku, gtin=gtin)[::-1]
    for capture in found:
        if json:
            print_json(capture.document())
        else:
            facts = capture.facts
            label = " ".join(str(facts[name]) for name in ("gtin", "sku", "angle") if facts.get(name)) or "-"
            typer.echo(f"{capture.seq:>7}  {capture.received_at}  {capture.id}  {label}  {'+'.join(capture.files)}")
    if not found:
        say("no captures")


@app.command()
def export(
    out: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="A .zip or .csv file, or a folder")],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="zip|csv|coco", help="Default: csv for a .csv file, else zip: photos, masks, records, table"
        ),
    ] = None,
    folder: Folder = None,
    sku: Sku = None,
    gtin: Gtin = None,
    after: Annotated[int, typer.Option(min=0, metavar="SEQ", help="Only captures behind this sequence number")] = 0,
    force: options.Force = False,
) -> None:
    """Export captures: everything, a CSV table, or a COCO dataset that pycocotools loads.

    Written into a zip file or, where OUT has no ending, into a folder. The service may run meanwhile. Prints OUT.
    """
    from boothsam.service.captures.export import csv_blocks, members, write_folder, zip_blocks
    from boothsam.service.outputs import write_blocks

    reader, suffix = _reader(folder), out.suffix.lower()
    kind = format or ("csv" if suffix == ".csv" else "zip")
    if suffix not in ("", ".zip", ".csv") or (suffix == ".csv") != (kind == "csv"):
        raise OptionError(
            f"{kind} cannot be written to {out}", hint="a .csv file for csv; a .zip file or a folder for zip and coco"
        )
    if out.exists() and not force and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out} exists", hint="--force replaces it")
    captures = _Counted(reader.walk(after=after, sku=sku, gtin=gtin))
    if kind == "csv":
        write_blocks(out, csv_blocks(captures))
    elif suffix == ".zip":
        write_blocks(out, zip_blocks(members(reader, captures, kind)))
    else:
        write_folder(members(reader, captures, kind), out)
    say(f"{captures.count} captures")
    typer.echo(str(out))


class _Counted:
    """An iterator that knows how many went by."""

    def __init__(self, captures: Iterator[Capture]) -> None:
        self._captures, self.count = captures, 0

    def __iter__(self) -> Iterator[Capture]:
        for capture in self._captures:
            self.count += 1
            yield capture


@app.command()
def forward(
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="URL|FOLDER", help="Default: the service's forward_url or forward_dir"),
    ] = None,
    folder: Folder = None,
    retry_parked: Annotated[
        bool, typer.Option("--retry-parked", help="Also those that were given up as refused or failing")
    ] = False,
    json: options.Json = False,
) -> None:
    """Forward what has not been forwarded yet, each capture tried once.

    For a service that does not run; one that runs forwards by itself. A token for the URL comes from
    BOOTHSAM_FORWARD_TOKEN. Exit code 1 when something is left.
    """
    import asyncio

    settings, place = _settings(folder)
    with need_extra("serve", "forwarding"):
        from boothsam.service.captures.outbox import Outbox
        from boothsam.service.captures.targets import check_target, make_target
    url, target_folder = (settings.forward_url, settings.forward_dir) if to is None else _split(to)
    with _opened(place, check_target(url, target_folder)) as store:
        if retry_parked:
            store.release_parked().result()
        token, timeout_s = settings.forward_token, settings.forward_timeout_s

        async def drain() -> Outbox:
            outbox = Outbox(store, make_target(url, target_folder, token=token, timeout_s=timeout_s))
            await outbox.drain()
            return outbox

        outbox = asyncio.run(drain())
        status = store.status()
        parked = [(d.capture.id, d.error) for d in store.deliveries("parked")]
    if json:
        counts = {"delivered": outbox.delivered, "pending": status.pending, "parked": status.parked}
        print_json(counts | {"trouble": outbox.trouble})
    else:
        typer.echo(f"{outbox.delivered} delivered, {status.pending} pending, {status.parked} parked")
        for id, error in parked:
            say_warning(f"capture {id} is parked: {error}", "mend it, then --retry-parked")
    if outbox.trouble:
        say_error(f"forwarding to {to or url or target_folder} stopped: {outbox.trouble}", "run it again later")
    if status.pending or status.parked:
        raise Failed


def _split(to: str) -> tuple[str, str]:
    return (to, "") if "://" in to else ("", str(Path(to).absolute()))


@contextmanager
def _opened(folder: Path, target: str = "") -> Iterator[Any]:
    from boothsam.service.captures.store import CaptureStore

    if not folder.is_dir():
        raise OptionError(f"no such folder: {folder}", hint="--folder names the captures folder")
    store = CaptureStore.open(folder, target=target)
    try:
        yield store
    finally:
        store.close()


@app.command()
def fsck(
    folder: Folder = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file and compare its sha256")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend it; the service must not run")] = False,
    json: options.Json = False,
) -> None:
    """Check that index, sidecars and files agree.

    Without --repair nothing is changed, and the service may run, although what it writes meanwhile may be reported.
    Damaged indexes and sidecars are put into quarantine/, never deleted. Exit code 1 when something is not in order,
    or with --repair when photos are lost.
    """
    place = _settings(folder)[1]
    if repair:
        with _opened(place) as store:
            opening = store.found
            found = store.repair(deep=deep).result()
            found.index, found.rebuilt = opening.index, opening.rebuilt
            for name in ("adopted", "sidecars", "orphans", "bad_sidecars", "lost"):
                setattr(found, name, list(dict.fromkeys(getattr(opening, name) + getattr(found, name))))
    else:
        from boothsam.service.captures.reader import Reader

        found = Reader(place).check(deep=deep)
    if json:
        print_json({"folder": str(place), "sound": found.sound, "repaired": repair} | found.document())
    else:
        _tell(found.document(), place, found.sound)
    if (found.lost or found.bad_sidecars) if repair else not found.sound:
        raise Failed


_MEANINGS = {
    "adopted": "captures that were missing in the index",
    "sidecars": "captures without their sidecar",
    "orphans": "files that belong to no capture",
    "bad_sidecars": "sidecars that cannot be read",
    "lost": "captures whose files are missing or changed",
}


def _tell(found: dict[str, Any], folder: Path, sound: bool) -> None:
    if sound:
        typer.echo(f"{shown(folder)}: in order")
    if found["index"]:
        rebuilt = f"; built again with {found['rebuilt']} captures" if found["rebuilt"] is not None else ""
        typer.echo(f"index: {found['index']}{rebuilt}")
    for name, meaning in _MEANINGS.items():
        if found[name]:
            typer.echo(
                f"{len(found[name])} {meaning}: {', '.join(found[name][:5])}{' ...' if len(found[name]) > 5 else ''}"
            )
