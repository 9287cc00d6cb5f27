"""`boothsam serve`: the HTTP service."""

from __future__ import annotations

import logging
from typing import Annotated

import typer
from boothsam.service import options
from boothsam.service.console import need_extra, say_warning


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on; other than loopback needs a token")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one")] = None,
    model: options.Model = None,
    backend: Annotated[str | None, typer.Option(metavar="NAME", help="auto, trt, ort-cuda, ort-cpu or ov")] = None,
    precision: Annotated[str | None, typer.Option(metavar="NAME", help="auto, fp32, fp16 or int8")] = None,
    resize: Annotated[
        str | None, typer.Option(metavar="exact|fast", help="How photos are shrunk for the model")
    ] = None,
    threads: options.Threads = None,
    verbose: options.Verbose = 0,
) -> None:
    """Answer over HTTP: crop, remove.bg's interface, embeddings, captures.

    Listens on 127.0.0.1:8765 unless told otherwise. Every setting can be a BOOTHSAM_* variable or a line of a TOML
    file: `boothsam config show` lists them with the origin of each value. Ends with 0 after SIGTERM, when what was
    running is answered.
    """
    with need_extra("serve", "the HTTP service"):
        from boothsam.service import server
        from boothsam.service.settings import load
    loaded = load(
        host=host, port=port, model=model, backend=backend, precision=precision, resize=resize, threads=threads
    )
    for variable, near in loaded.unknown.items():
        say_warning(f"{variable} is no setting and was ignored", f"rename it to {near}" if near else None)
    # The line that says where it listens: with port 0 nobody else knows.
    logging.getLogger("boothsam.service.server").setLevel(logging.INFO)
    server.run(loaded.settings)
