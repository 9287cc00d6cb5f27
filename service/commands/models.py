"""`boothsam models`, `download`, `export`, `verify`: from a checkpoint to a model that is proven here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from boothsam.runtime.errors import BoothsamError, OptionError, ProofError
from boothsam.service import options
from boothsam.service.console import Failed, need_extra, print_json, say, say_error, say_warning, shown


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
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Make a model folder of a PyTorch checkpoint; needs the extra [export].

    Writes the ONNX graphs, the manifest and golden answers, and proves the graphs against PyTorch on points, boxes
    and mask prompts. Models in models/ of $BOOTHSAM_HOME are found by name. Prints the folder.
    """
    with need_extra("export", "boothsam export"):
        from boothsam.export.folder import export_checkpoint
    manifest = export_checkpoint(
        variant, checkpoint, out, name=name, licence=licence, verify=verify, force=force, progress=say
    )
    if not verify:
        say_warning("the graphs were not proven against PyTorch", "leave out --no-verify before you rely on this model")
    say(f"model {manifest.name}, licence {manifest.licence}, key {manifest.key}")
    say(f"next: boothsam crop photo.jpg --auto --model {out} -o cut.png")
    typer.echo(str(out))


def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder or installed name")] = "starter",
    photos: Annotated[
        Path | None,
        typer.Option("--photos", metavar="FOLDER", help="Also compare with ort-cpu in fp32 on your own photos"),
    ] = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
) -> None:
    """Check a model on this machine: every file's sha256, then its answers against the recorded golden ones.

    Ends with 1 when a file was altered or an answer differs. --photos compares another backend or precision with
    ort-cpu in fp32 on photos of your own.
    """
    from boothsam.runtime.store import find_model
    from boothsam.runtime.verify import verify_golden

    folder = find_model(model)
    loaded = options.load_model(model, backend, precision, threads)
    for file in loaded.manifest.files:
        loaded.manifest.check_file(folder, file)
    reports = {"golden": verify_golden(loaded, folder)}
    if photos is not None:
        reports["photos"] = _on_photos(loaded, folder, photos, threads)
    if json:
        print_json({name: report.to_dict() for name, report in reports.items()})
    else:
        for name, report in reports.items():
            typer.echo(f"{name}: model {report.model}, {report.backend}, {report.precision}, {len(report.cases)} cases")
            for case in report.cases:
                typer.echo(
                    f"  {'ok  ' if case.passed else 'FAIL'} {case.name:<28} mask IoU {case.mask_iou_min:.5f}  "
                    f"boundary IoU {case.boundary_iou_mean:.5f}  logit error {case.logit_error:.2g}  "
                    f"score error {case.score_error:.2g}"
                )
    failed = [report for report in reports.values() if not report.passed]
    for report in failed:
        try:
            report.require()
        except ProofError as error:
            say_error(error.message, error.hint)
    if failed:
        raise Failed
    say("every answer agrees")


def _on_photos(loaded: Any, folder: Path, photos: Path, threads: int | None) -> Any:
    from boothsam.runtime.images import load_image
    from boothsam.runtime.verify import compare, default_cases

    if (loaded.backend, loaded.precision) == ("ort-cpu", "fp32"):
        raise OptionError(
            "--photos compares with ort-cpu in fp32, and that is what was loaded",
            hint="name another --backend or --precision",
        )
    paths = (
        sorted(p for p in photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
        if photos.is_dir()
        else []
    )
    if not paths:
        raise OptionError(f"{photos} holds no photo", hint="--photos takes a folder of JPEG, PNG or WebP files")
    pictures = {path.stem: load_image(path) for path in paths}
    reference = options.load_model(str(folder), "ort-cpu", "fp32", threads)
    return compare(loaded, reference, pictures, default_cases(pictures))
