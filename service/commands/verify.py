"""`boothsam verify`: are a model's files whole, and does it answer here what it should?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from boothsam.runtime.errors import CheckpointError, OptionError, ProofError
from boothsam.service import options
from boothsam.service.console import Failed, Progress, need_extra, print_json, say, say_error
from boothsam.service.outputs import write_blocks

if TYPE_CHECKING:
    from boothsam.runtime.fidelity import Fidelity, Gate
    from boothsam.runtime.model import SamModel
    from boothsam.runtime.photos import PhotoFolder
    from boothsam.runtime.verify import Report

AGAINST = ("fp32", "pytorch")
NUMERICS = ("auto", "device", "simulated")


def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder or installed name")] = "starter",
    photos: Annotated[
        Path | None,
        typer.Option("--photos", metavar="FOLDER", help="Also compare with --against on your own photos"),
    ] = None,
    against: Annotated[
        str,
        typer.Option("--against", metavar="fp32|pytorch", help="Compare with ort-cpu in fp32, or with the checkpoint"),
    ] = "fp32",
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="The checkpoint it was exported from; for pytorch"),
    ] = None,
    numerics: Annotated[
        str,
        typer.Option(
            "--numerics",
            metavar="auto|device|simulated",
            help="simulated: round as FP16 hardware would (default for fp16 and int8 on ort-cpu)",
        ),
    ] = "auto",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Take so many photos, evenly spread")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Draw the worst cases side by side, with the difference"),
    ] = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    resize: options.Resize = "exact",
    threads: options.Threads = None,
    json: options.Json = False,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Check a model on this machine: every file's sha256, then its answers against the recorded golden ones.

    Ends with 1 when a file was altered, an answer differs or a gate fails. --photos measures mask IoU, boundary IoU and
    score error on photos of your own, for each kind of prompt; for fp16 and int8 the outcome is written as a proof to
    proof/ of $BOOTHSAM_HOME, without which these precisions are not loaded on a GPU. --against pytorch needs the extra
    [export], simulated numerics need [quantize]. --resize fast compares with the same model and the exact resize.
    """
    from boothsam.runtime.model import SamModel
    from boothsam.runtime.store import find_model
    from boothsam.runtime.verify import verify_golden

    for name, value, known in (("--against", against, AGAINST), ("--numerics", numerics, NUMERICS)):
        if value not in known:
            raise OptionError(f"{name} {value!r}; expected {' or '.join(known)}")
    if photos is None and (against, checkpoint, picture) != ("fp32", None, None):
        raise OptionError("--against, --checkpoint and --picture belong to --photos", hint="--photos FOLDER")
    if (against == "pytorch") != (checkpoint is not None):
        raise OptionError(
            "--against pytorch and --checkpoint go together", hint="--against pytorch --checkpoint FILE.pt"
        )
    if resize != "exact" and (photos is None or (against, numerics) != ("fp32", "auto")):
        raise OptionError(
            "--resize fast is compared with the exact one on --photos, without --against and --numerics",
            hint="boothsam verify MODEL --resize fast --photos FOLDER",
        )
    if picture is not None and picture.exists() and not force:
        raise OptionError(f"{picture} exists", hint="--force replaces it")
    folder = find_model(model)
    # What is not proven yet has to be loaded to prove it.
    loaded = SamModel.load(folder, backend=backend, precision=precision, threads=threads, unproven=True, resize=resize)
    for file in loaded.manifest.files:
        loaded.manifest.check_file(folder, file)
    golden = verify_golden(loaded, folder)
    report = None
    if photos is not None and resize != "exact":
        report = _resized(loaded, photos, limit, picture)
    elif photos is not None:
        report = _on_photos(loaded, folder, photos, limit, against, checkpoint, numerics, threads, picture)
    if json:
        body = {"golden": golden.to_dict()}
        print_json(body if report is None else body | {"photos": report.to_dict()})
    else:
        _print_golden(golden)
        if report is not None:
            _print_photos(report)
    failed = False
    for found in (golden, report):
        if found is not None and not found.passed:
            failed = True
            try:
                found.require()
            except ProofError as error:
                say_error(error.message, error.hint)
    if failed:
        raise Failed
    say("every answer agrees")


def _on_photos(
    loaded: SamModel,
    folder: Path,
    photos: Path,
    limit: int | None,
    against: str,
    checkpoint: Path | None,
    numerics: str,
    threads: int | None,
    picture: Path | None,
) -> Fidelity:
    from boothsam.runtime.fidelity import numerics_of
    from boothsam.runtime.photos import photo_folder
    from boothsam.runtime.proofs import write_proof
    from boothsam.runtime.store import home

    simulate = numerics == "simulated" or (
        numerics == "auto" and loaded.backend == "ort-cpu" and loaded.precision != "fp32"
    )
    if against == "fp32" and (loaded.backend, loaded.precision) == ("ort-cpu", "fp32"):
        raise OptionError(
            "--photos compares with ort-cpu in fp32, and that is what was loaded",
            hint="name another --backend or --precision, or --against pytorch",
        )
    pictures = photo_folder(photos, limit)
    reference, what = _reference(loaded, folder, checkpoint, threads)
    candidate, said = loaded, numerics_of(loaded.precision, loaded.backend)
    if simulate:
        candidate, said = _simulated(loaded, folder, threads), "simulated"
    report = _compare(candidate, reference, pictures, what, said, None, picture)
    if loaded.precision != "fp32" and against == "fp32":
        path = write_proof(home(), loaded.manifest, report, photos=pictures, extra={"against": what})
        say(f"proof ({said}, {'passed' if report.passed else 'FAILED'}): {path}")
    return report


def _resized(loaded: SamModel, photos: Path, limit: int | None, picture: Path | None) -> Fidelity:
    """The loaded model against itself with the exact resize. No proof is written: it says nothing of a precision."""
    from boothsam.runtime.fidelity import RESIZE_GATE, numerics_of
    from boothsam.runtime.photos import photo_folder

    said = numerics_of(loaded.precision, loaded.backend)
    exact = loaded.with_resize("exact")
    return _compare(loaded, exact, photo_folder(photos, limit), "the exact resize", said, RESIZE_GATE, picture)


def _compare(
    candidate: SamModel,
    reference: SamModel,
    pictures: PhotoFolder,
    against: str,
    numerics: str,
    gate: Gate | None,
    picture: Path | None,
) -> Fidelity:
    """`fidelity.measure` with a progress bar, and the worst cases drawn where asked for."""
    from boothsam.runtime.fidelity import measure
    from boothsam.runtime.images import encode_image
    from boothsam.runtime.worst_cases import worst_cases

    bar = Progress(len(pictures), "comparing")
    names = iter(bar.over(pictures))

    def advance(_name: str) -> None:
        next(names, None)

    report = measure(candidate, reference, pictures, against=against, numerics=numerics, gate=gate, progress=advance)
    bar.clear()
    if picture is not None:
        write_blocks(picture, iter([encode_image(worst_cases(report, pictures), "png")]))
        say(f"the worst cases: {picture}")
    return report


def _reference(loaded: SamModel, folder: Path, checkpoint: Path | None, threads: int | None) -> tuple[SamModel, str]:
    """The model to compare with, and its name for reports."""
    if checkpoint is None:
        return options.load_model(str(folder), "ort-cpu", "fp32", threads), "fp32 (ort-cpu)"
    with need_extra("export", "--against pytorch"):
        from boothsam.export.architectures.config import SamConfig
        from boothsam.export.checkpoints import load_checkpoint
        from boothsam.export.torch_session import torch_model
    origin = loaded.manifest.origin
    config: Any = origin.get("config")
    if not isinstance(config, dict):
        raise CheckpointError(
            f"model {loaded.manifest.name!r} does not say which SAM configuration it was exported from",
            hint="--against fp32, or export it again from its checkpoint",
        )
    read = load_checkpoint(checkpoint, SamConfig.from_dict(config))
    if read.sha256 != origin.get("checkpoint_sha256"):
        raise CheckpointError(
            f"{checkpoint} has sha256 {read.sha256[:16]}..., the model was exported from "
            f"{str(origin.get('checkpoint_sha256'))[:16]}... ({origin.get('checkpoint')})",
            hint="name the checkpoint of this model, or export it again",
        )
    return torch_model(read.sam, loaded.manifest.name), "pytorch"


def _simulated(loaded: SamModel, folder: Path, threads: int | None) -> SamModel:
    """The same graphs in the simulator."""
    with need_extra("quantize", "--numerics simulated"):
        from boothsam.engines.simulate import simulated_model
    return simulated_model(folder, loaded.precision, threads=threads)


def _print_golden(report: Report) -> None:
    typer.echo(f"golden: model {report.model}, {report.backend}, {report.precision}, {len(report.cases)} cases")
    for case in report.cases:
        typer.echo(
            f"  {'ok  ' if report.case_passed(case) else 'FAIL'} {case.name:<28} mask IoU {case.mask_iou_min:.5f}  "
            f"boundary IoU {case.boundary_iou_mean:.5f}  logit error {case.logit_error:.2g}  "
            f"score error {case.score_error:.2g}"
        )


def _print_photos(report: Fidelity) -> None:
    gate = report.gate
    ran = "simulated" if report.numerics == "simulated" else f"{report.backend}, numerics: {report.numerics}"
    typer.echo(
        f"photos: model {report.model}, {report.precision} ({ran}) against {report.against}; "
        f"gate: mean {gate.mean}, p5 {gate.p5}"
    )
    typer.echo(
        f"  {'prompt':<14} {'n':>4}  {'IoU mean':>8}  {'p5':>7}  {'min':>7}  {'boundary':>8}  {'score error':>11}"
    )
    for kind, found in {**report.kinds, "all": report.summary}.items():
        typer.echo(
            f"  {kind:<14} {found.count:>4}  {found.mask_iou_mean:>8.5f}  {found.mask_iou_p5:>7.4f}  "
            f"{found.mask_iou_min:>7.4f}  {found.boundary_iou_mean:>8.4f}  {found.score_error_max:>11.2g}"
        )
