"""`boothsam quantize`: reduced precisions for a model that has FP32 only, each with its proof."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from boothsam.runtime.errors import OptionError, OutputError, ProofError
from boothsam.service import options
from boothsam.service.console import Failed, need_extra, say, say_error

if TYPE_CHECKING:
    from boothsam.runtime.manifest import ModelManifest

PRECISIONS = ("fp16", "int8")
# Of the calibration folder, so many photos are read; every third of them is kept for the proof.
MOST_PHOTOS = 24
PROOF_SHARE = 3
FEWEST_PHOTOS = 6

Calibrate = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FOLDER",
        help="Photos like those of the booth, 6 or more; every third is for the proof",
    ),
]
ProofPhotos = Annotated[
    Path | None,
    typer.Option("--proof-photos", metavar="FOLDER", help="Prove on these instead of every third of --calibration"),
]
Method = Annotated[
    str, typer.Option("--method", metavar="percentile|minmax", help="Where int8 clips what flows between layers")
]


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder or installed name")],
    calibration: Calibrate = None,
    out: Annotated[Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Model folder to write")] = None,
    precision: Annotated[
        str, typer.Option("--precision", metavar="fp16,int8", help="What to add; int8 brings fp16 along")
    ] = "fp16",
    proof_photos: ProofPhotos = None,
    method: Method = "percentile",
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The model's name; default: the folder's")
    ] = None,
    threads: options.Threads = None,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Add fp16 or int8 to a model, calibrated and proven on your photos; needs the extra [quantize].

    Writes a new model folder: FP32 stays, and beside each new graph lies a JSON that says which nodes are FP32 and why.
    The proof is simulated (rounded as FP16 hardware would). A precision that fails its gate is written with its failed
    proof, nothing loads it, and the command ends with 1. On a GPU, `boothsam verify --photos` then makes the proof that
    counts there. Prints the folder.
    """
    from boothsam.runtime.store import find_model

    if calibration is None or out is None:
        raise OptionError("quantize needs --calibration and -o", hint="--calibration PHOTOS -o models/NAME")
    manifest = reduce_folder(
        find_model(model),
        out,
        wanted_precisions(precision),
        calibration,
        proof_photos,
        method,
        name or out.name,
        threads,
        force,
    )
    say(f"model {manifest.name}, {', '.join(manifest.graphs)}, key {manifest.key}")
    say(f"next, on the device: boothsam verify {out} --precision fp16 --photos FOLDER")
    typer.echo(str(out))


def wanted_precisions(text: str) -> tuple[str, ...]:
    """The comma-separated names of an option.

    Raises:
        OptionError: an unknown one, or none.
    """
    wanted = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not wanted or set(wanted) - set(PRECISIONS):
        raise OptionError(f"found --precision {text!r}; expected {', '.join(PRECISIONS)} or both")
    return wanted


@contextmanager
def whole_first(out: Path, precisions: Sequence[str]) -> Iterator[Path]:
    """Where to export FP32 to: `out`, or a folder beside it that goes away, when `out` will hold more than FP32."""
    if not precisions:
        yield out
        return
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}-fp32-")
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error})", hint="give a folder that you may write to") from None
    with scratch as folder:
        yield Path(folder) / "fp32"


def reduce_folder(
    folder: Path,
    out: Path,
    precisions: Sequence[str],
    calibration: Path,
    proof_photos: Path | None,
    method: str,
    name: str | None,
    threads: int | None,
    force: bool,
) -> ModelManifest:
    """Read the photos, write the model at `out` and say how each precision compares with FP32."""
    with need_extra("quantize", "a reduced precision"):
        from boothsam.engines.reduce import Calibration, add_precisions
    from boothsam.runtime.photos import photo_folder

    photos = photo_folder(calibration, MOST_PHOTOS)
    if proof_photos is not None:
        proof = photo_folder(proof_photos, MOST_PHOTOS)
    else:
        if len(photos) < FEWEST_PHOTOS:
            raise OptionError(
                f"{calibration} holds {len(photos)} photos; expected {FEWEST_PHOTOS} or more",
                hint="add photos (every third is for the proof), or name others with --proof-photos FOLDER",
            )
        proof = photos.every(PROOF_SHARE, PROOF_SHARE - 1)
        photos = photos.without(proof)
    manifest, reports = add_precisions(
        folder,
        out,
        precisions,
        Calibration(photos, proof, method),
        name=name,
        threads=threads,
        force=force,
        progress=say,
    )
    for report in reports:
        found, gate = report.summary, report.gate
        say(
            f"{report.precision} against {report.against}, {report.numerics}, {found.count} questions on {len(proof)} "
            f"photos: mask IoU mean {found.mask_iou_mean:.4f} (gate {gate.mean}), p5 {found.mask_iou_p5:.4f} "
            f"(gate {gate.p5}), least {found.mask_iou_min:.4f}"
        )
    failed = [report for report in reports if not report.passed]
    for report in failed:
        try:
            report.require()
        except ProofError as error:
            say_error(error.message, error.hint)
    if failed:
        say(f"what was made is in {out}; proof/ holds the figures and a picture of the worst cases")
        raise Failed
    return manifest
