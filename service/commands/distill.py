"""`boothsam distill`: a small, fast model for one's own photos from a large one's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from boothsam.service import options
from boothsam.service.console import need_extra, say


def distill(
    teacher: Annotated[
        Path, typer.Option("--teacher", metavar="FILE|FOLDER", help="A SAM checkpoint, or an exported model folder")
    ],
    photos: Annotated[
        list[Path],
        typer.Option("--photos", metavar="FOLDER", help="Your photos, folders below included; repeat for more"),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Model folder to write")],
    teacher_config: Annotated[
        str | None,
        typer.Option(
            "--teacher-config", metavar="VARIANT", help="vit_t, vit_b, vit_l, vit_h or a JSON file; default: looked at"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Training steps; default 3000, a night on a small CPU")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--start-from", metavar="FILE", help="checkpoint.pt of an earlier training to begin with, or: starter"
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="TOML", help="Everything else that can be set; see the docs")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="FOLDER", help="Labels, checkpoint and log; default: OUTPUT with .work added"),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The model's name; default: the folder's")
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", metavar="TEXT", help="Of the new weights, for the manifest")
    ] = "unknown",
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="The student trains on cpu (default) or cuda")
    ] = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Train a small model on your own photos from a teacher's masks; needs the extra [train].

    The teacher looks at every photo once; its masks and embeddings are kept in the work folder. Run the same command
    again after an interruption: it goes on where it was. At the end the student is exported, compared with PyTorch, and
    its agreement with the teacher on photos held out is told, before and after. Prints the folder.
    """
    with need_extra("train", "boothsam distill"):
        from boothsam.training.distill import distill as run
        from boothsam.training.distill_train import STARTER, DistillConfig
    settings = DistillConfig.read(config, steps=steps, threads=threads, device=device)
    done = run(
        teacher,
        photos,
        out,
        settings,
        teacher_variant=teacher_config,
        backend=backend,
        start_from=STARTER if start_from == Path("starter") else start_from,
        work=work,
        name=name,
        licence=licence,
        force=force,
        progress=say,
    )
    say(f"model {done.manifest.name}, key {done.manifest.key}")
    say(f"before: {done.before}")
    say(f"after:  {done.after}")
    say(f"next: boothsam crop photo.jpg --auto --model {out} -o cut.png")
    typer.echo(str(out))
