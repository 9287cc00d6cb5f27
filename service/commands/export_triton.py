"""`boothsam export-triton`: a model repository for Triton Inference Server, where many booths share a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from boothsam.runtime.errors import OptionError
from boothsam.service import options
from boothsam.service.console import need_extra, say


def export_triton(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder or installed name")],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Model repository to write")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What clients ask for; default: the model's name"),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", metavar="fp32|fp16|int8", help="Reduced ones need their proof")
    ] = "fp32",
    platform: Annotated[
        str,
        typer.Option(
            "--platform",
            metavar="onnxruntime|tensorrt",
            help="What runs the graphs; plans for tensorrt are built on the server, README.md says how",
        ),
    ] = "onnxruntime",
    device: Annotated[str, typer.Option("--device", metavar="gpu|cpu", help="Where the graphs run")] = "gpu",
    cache: Annotated[
        int, typer.Option("--cache", min=0, metavar="MIB", help="Memory of the server for embeddings")
    ] = 512,
    threads: Annotated[
        int, typer.Option("--threads", min=0, metavar="N", help="Requests in work at once; 0: one after the other")
    ] = 4,
    prompts: Annotated[int, typer.Option("--prompts", min=1, metavar="N", help="The most prompts of a request")] = 64,
    points: Annotated[int, typer.Option("--points", min=2, metavar="N", help="The most per prompt")] = 32,
    verbose: options.Verbose = 0,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server; needs the extra [quantize].

    Encoder and decoders become models of the server, and one more takes a photo and prompts and gives masks, with a
    cache of embeddings. The folder appears whole or not at all; one that exists is never overwritten. Prints the
    folder. A single booth needs no Triton: `boothsam serve` is simpler and does more.
    """
    from boothsam.runtime.store import find_model

    if out is None:
        raise OptionError("export-triton needs -o", hint="-o triton/NAME")
    folder = find_model(model)
    with need_extra("quantize", "boothsam export-triton"):
        from boothsam.engines.triton import Settings, export_repository
    made = export_repository(
        folder,
        out,
        name=name,
        precision=precision,
        backend=platform,
        device=device,
        settings=Settings(cache_bytes=cache << 20, threads=threads, max_prompts=prompts, max_points=points),
        say=say,
    )
    say(f"model {made.manifest.name}, key {made.manifest.key}: {', '.join(made.models)}")
    say(f"next: {made.path / 'README.md'} says how to run it")
    typer.echo(str(made.path))
