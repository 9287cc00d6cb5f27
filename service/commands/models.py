"""`boothsam models`, `download`, `export`: from a checkpoint to a model that is proven."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from boothsam.runtime.errors import BoothsamError, OptionError
from boothsam.service import options
from boothsam.service.commands.quantize import (
    Calibrate,
    Method,
    ProofPhotos,
    reduce_folder,
    wanted_precisions,
    whole_first,
)
from boothsam.service.console import need_extra, print_json, say, say_warning, shown


def models(json: options.Json = False) -> None:
    """List the installed models and the checkpoints that can be downloaded.

    A checkpoint is a PyTorch file; `boothsam export` makes a model of it. Sizes are in MB (10^6 bytes).
    """
    from boothsam.export.checkpoints import KNOWN
    from boothsam.runtime.store import home, list_manifests

    installed: list[dict[str, Any]] = []
    for name, folder, manifest in list_manifests():
        row: dict[str, Any] = {"name": name, "folder": str(folder)}
        if isinstance(manifest, BoothsamError):
            row["error"] = manifest.message
        else:
            size = sum(record.bytes for record in manifest.files.values())
            row |= {"variant": manifest.variant, "precisions": list(manifest.graphs), "bytes": size}
            row |= {"licence": manifest.licence, "key": manifest.key}
        installed.append(row)
    known: list[dict[str, Any]] = []
    for checkpoint in KNOWN.values():
        file = home() / "checkpoints" / checkpoint.file
        known.append(
            {
                "name": checkpoint.name,
                "variant": checkpoint.variant,
                "file": checkpoint.file,
                "bytes": checkpoint.bytes,
                "sha256": checkpoint.sha256,
                "licence": checkpoint.licence,
                "source": checkpoint.url,
                "downloaded": str(file) if file.is_file() else None,
            }
        )
    if json:
        print_json({"installed": installed, "checkpoints": known})
        return
    typer.echo("installed models")
    for row in installed:
        if "error" in row:
            facts = row["error"]
        else:
            precisions, size = "+".join(row["precisions"]), row["bytes"] / 1e6
            facts = f"{row['variant']}, {precisions}, {size:.1f} MB, licence {row['licence']}"
        typer.echo(f"  {row['name']:<12} {facts}\n  {'':<12} {shown(row['folder'])}")
    typer.echo("checkpoints (boothsam download NAME, then boothsam export VARIANT --checkpoint FILE -o FOLDER)")
    for row in known:
        typer.echo(
            f"  {row['name']:<12} {row['variant']}, {row['bytes'] / 1e6:.1f} MB, licence {row['licence']}\n"
            f"  {'':<12} sha256 {row['sha256']}\n  {'':<12} {row['source']}"
        )
        if row["downloaded"]:
            typer.echo(f"  {'':<12} downloaded: {shown(row['downloaded'])}")


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="mobile_sam, sam_vit_b, sam_vit_l or sam_vit_h")],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Default: checkpoints/ in $BOOTHSAM_HOME")
    ] = None,
) -> None:
    """Download a checkpoint; an interrupted download goes on where it stopped.

    The file's sha256 must be the known one. Set BOOTHSAM_MIRROR to fetch from another server. Prints the path.
    """
    from boothsam.export.checkpoints import find_checkpoint
    from boothsam.export.download import download as fetch

    checkpoint = find_checkpoint(name)
    say(f"{checkpoint.file}: {checkpoint.bytes / 1e6:.1f} MB, licence {checkpoint.licence}")
    with _bytes_bar(checkpoint.bytes) as progress:
        path = fetch(name, out, progress=progress)
    say(f"next: boothsam export {checkpoint.variant} --checkpoint {path} -o models/{name}")
    typer.echo(str(path))


@contextmanager
def _bytes_bar(total: int) -> Iterator[Any]:
    """A progress callback (done, total) that draws a bar when somebody is watching."""
    if not sys.stderr.isatty():
        yield None
        return
    with typer.progressbar(length=total, label="download", file=sys.stderr) as bar:
        yield lambda done, _total: bar.update(done - bar.pos)


def export(
    variant: Annotated[
        str,
        typer.Argument(
            metavar="VARIANT", help="vit_t (MobileSAM), vit_b, vit_l, vit_h or a JSON configuration of yours"
        ),
    ],
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", metavar="FILE", help="PyTorch checkpoint of that variant")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Model folder to write")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The model's name; default: the folder's")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--licence", metavar="TEXT", help="Of the weights; default: that of the known checkpoint"),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Prove the graphs against PyTorch")] = True,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="fp16,int8", help="Also write these, calibrated and proven on photos"),
    ] = None,
    calibration: Calibrate = None,
    proof_photos: ProofPhotos = None,
    method: Method = "percentile",
    threads: options.Threads = None,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Make a model folder of a PyTorch checkpoint; needs the extra [export].

    Writes the ONNX graphs, the manifest and golden answers, and proves the graphs against PyTorch on points, boxes
    and mask prompts. Models in models/ of $BOOTHSAM_HOME are found by name. Prints the folder. --precision does what
    `boothsam quantize` does, in one go; FP32 stays in the model.
    """
    if (precision is None) != (calibration is None):
        raise OptionError("--precision and --calibration go together", hint="--precision fp16 --calibration FOLDER")
    precisions = wanted_precisions(precision) if precision else ()
    from boothsam.runtime.folders import check_target

    with need_extra("export", "boothsam export"):
        from boothsam.export.folder import export_checkpoint
    check_target(out, force)
    with whole_first(out, precisions) as target:
        manifest = export_checkpoint(
            variant,
            checkpoint,
            target,
            name=name or out.name,
            licence=licence,
            verify=verify,
            force=force,
            progress=say,
        )
        if calibration is not None:
            manifest = reduce_folder(target, out, precisions, calibration, proof_photos, method, None, threads, force)
    if not verify:
        say_warning("the graphs were not proven against PyTorch", "leave out --no-verify before you rely on this model")
    say(f"model {manifest.name}, licence {manifest.licence}, key {manifest.key}")
    say(f"next: boothsam crop photo.jpg --auto --model {out} -o cut.png")
    typer.echo(str(out))
