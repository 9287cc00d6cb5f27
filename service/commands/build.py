"""`boothsam build`: TensorRT engines for this device, verified before anything can load them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from boothsam.runtime.errors import BackendUnavailable, OptionError
from boothsam.service import options
from boothsam.service.console import need_extra, print_json, say, shown

STEP = 0.1  # of a graph, between two lines for people


def build(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder or installed name")] = "starter",
    precision: Annotated[
        str, typer.Option("--precision", metavar="fp16|fp32|int8", help="auto: fp16 where the model has it, else fp32")
    ] = "auto",
    check: Annotated[
        bool,
        typer.Option("--check", help="Only see whether a strongly typed NVIDIA parser takes the graphs; needs no GPU"),
    ] = False,
    prompts: Annotated[
        str, typer.Option("--prompts", metavar="N,N,...", help="The most prompts of each decoder profile")
    ] = "1,8,64",
    points: Annotated[int, typer.Option("--points", min=2, max=1024, metavar="N", help="The most per prompt")] = 32,
    workspace: Annotated[
        int | None,
        typer.Option(
            "--workspace", min=64, metavar="MIB", help="Scratch memory of a layer; default: by the GPU's size"
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option("--level", min=0, max=5, metavar="0-5", help="The builder's effort; default: by the GPU's size"),
    ] = None,
    json: options.Json = False,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Build TensorRT engines of a model for this GPU, in a process of their own.

    Before they are published to engines/ of $BOOTHSAM_HOME they must give the golden answers of the model's folder
    here; fp16 and int8 are also compared with FP32, which makes the proof that this device needs. Engines run on this
    GPU with this TensorRT only; `--backend auto` takes them from then on. --json prints the progress as JSON lines.
    --check builds with TensorRT-RTX on the processor and keeps nothing: it says nothing about speed or answers.
    """
    from boothsam.runtime.manifest import ModelManifest
    from boothsam.runtime.store import find_model

    folder = find_model(model)
    graphs = ModelManifest.load(folder).graphs
    chosen = precision if precision != "auto" else "fp16" if "fp16" in graphs else "fp32"
    with need_extra("tensorrt", "boothsam build"):
        from boothsam.engines.build import LARGE, SMALL, SMALL_MEMORY, Options, build_model, check_model
        from boothsam.engines.trt_adapter import Settings
    tell = _Teller(sorted(graphs.get(chosen, ())), json)
    settings = None

    def sized(default: Settings) -> Settings:
        return Settings(workspace or default.workspace_mib, default.level if level is None else level)

    wanted = _numbers(prompts)
    if check:
        settings = sized(LARGE)
        with need_extra("dev", "--check"):
            from boothsam.runtime.backends.trt_library import library
        rtx = library("tensorrt_rtx")
        rows = check_model(folder, chosen, Options(wanted, points, settings), report=tell.progress)
        for row in rows:
            if json:
                facts: dict[str, Any] = {"bytes": row.engine_bytes, "seconds": row.seconds}
                print_json({"event": "checked", "graph": row.graph, **facts, "audit": row.audit.to_dict()})
            else:
                layers = ", ".join(f"{n} in {kind}" for kind, n in sorted(row.audit.parsed.items()))
                layers += f"; {row.audit.quantised} tensors made int8" if row.audit.quantised else ""
                size = f"{row.engine_bytes / 1e6:.1f} MB"
                typer.echo(f"{row.graph}: built in {row.seconds:.1f} s, {size}, mixing layers: {layers}")
        say(f"{rtx} takes every graph of {chosen}; nothing was run, verified or kept")
        return
    from boothsam.runtime.backends import cuda, trt_library

    missing = trt_library.unavailable_reason()
    if missing is not None:
        raise BackendUnavailable(
            f"no engine can be verified here, so none is built: {missing}",
            hint=f"boothsam build {folder} --check tries the graphs without a GPU; build on the device itself",
        )
    tensorrt, device = trt_library.library(), cuda.open_device()
    total = device.memory()[1]
    say(f"{tensorrt} on {device.name}, compute capability {device.compute_capability}, {total / 2**30:.1f} GiB")
    settings = sized(SMALL if total < SMALL_MEMORY else LARGE)
    found = build_model(
        folder,
        chosen,
        Options(wanted, points, settings, force),
        tensorrt,
        device,
        report=tell.progress,
        say=tell.say,
    )
    for engine in found:
        if json:
            print_json({"event": "published", "path": str(engine.path), **engine.header})
        else:
            typer.echo(str(engine.path))
    say(f"{len(found)} engines in {chosen} verified and published to {shown(found[0].path.parent)}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"found --prompts {text!r}; expected numbers such as 1,8,64") from None


class _Teller:
    """Progress over all graphs, each counting the same: lines of JSON, or a line now and then for people."""

    def __init__(self, graphs: list[str], json: bool) -> None:
        self._graphs, self._json = graphs, json
        self._seen: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def progress(self, graph: str, fraction: float, phase: str) -> None:
        """As `engines.build.Report`."""
        self._seen[graph] = fraction
        if self._json:
            done = sum(self._seen.values()) / max(len(self._graphs), 1)
            print_json({"event": "progress", "graph": graph, "fraction": round(done, 4), "phase": phase})
        elif fraction >= self._told.get(graph, -STEP) + STEP:
            self._told[graph] = fraction
            say(f"{graph}: {fraction:.0%} ({phase})")

    def say(self, text: str) -> None:
        if self._json:
            print_json({"event": "note", "text": text})
        else:
            say(text)
