"""What each lever on networks and sessions is worth: measured in pairs, kept or not.

    python benchmarks/levers.py [--only encoder,pools,load,padding] [--threads 1,2] [--rounds 7] [--json FILE]

encoder   MobileSAM's encoder in PyTorch and in the backends, exported plainly and as export/fast_encoder.py has it;
          with normalising alone rearranged; and with tanh for GELU, which is no parity and only measured.
pools     the decoder right after the encoder in ONNX Runtime: threads that spin or sleep, pools apart or one for both.
load      opening the sessions: what planning memory and the second decoder cost, what threads or a saved graph gain.
padding   which rows of each part no landscape photo of 4:3 changes, found with two photos.

MobileSAM has seeded weights: latency does not depend on them. Each section runs in processes of its own, whose
candidates take turns, in reverse order every other round, after one round of warm-up; ratios are medians of the ratios
within a round. The encoders' answers are compared with PyTorch's before a time counts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from boothsam.runtime.store import starter_folder

Call = Callable[[], Any]
Row = dict[str, Any]
PARITY = 1e-3  # of the embedding's largest value, as export/parity.py asks
_rng = np.random.default_rng(0)
FRAME = {
    "image": _rng.integers(0, 256, (1024, 1024, 3), np.uint8),
    "size_hw": np.array([768, 1024], np.int32),
}


def in_turns(candidates: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every candidate in every round."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(-1, rounds):
        for name in list(candidates)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            candidates[name]()
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def rows(times: Mapping[str, list[float]], base: str) -> dict[str, Row]:
    """Median, minimum and ratio to `base` (above one: faster)."""
    return {
        name: {
            "median_ms": round(statistics.median(own), 1),
            "min_ms": round(min(own), 1),
            "ratio": round(statistics.median(b / o for b, o in zip(times[base], own, strict=True)), 3),
        }
        for name, own in times.items()
    }


def session(
    model: bytes, threads: int, *, reuse: bool = False, level: str = "ALL", spin: bool = False, tanh: bool = False
) -> Any:
    """An ONNX Runtime session as runtime/backends/ort.py makes it, but for what is asked for."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_mem_reuse = reuse
    name = "ORT_DISABLE_ALL" if level == "NONE" else f"ORT_ENABLE_{level}"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, name)
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("optimization.enable_gelu_approximation", str(int(tanh)))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def seeded(folder: Path) -> Any:
    """The MobileSAM that `write_encoders` left there, in PyTorch."""
    import torch
    from boothsam.export.architectures.sam import build

    sam = build("vit_t")
    sam.load_state_dict(torch.load(folder / "weights.pt"))
    return sam.eval()


def write_encoders(folder: Path) -> None:
    """The seeded MobileSAM: its weights, and its encoder exported plainly, normalising alone rearranged, and ours."""
    import torch
    from boothsam.export.architectures.sam import build
    from boothsam.export.fast_encoder import FastEncoder
    from boothsam.export.to_onnx import export_graph, export_model, graph_specs
    from torch import Tensor, nn

    torch.manual_seed(0)
    sam = build("vit_t")
    for module in sam.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.LayerNorm):  # a shift of zero would hide one that is lost
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
    torch.save(sam.state_dict(), folder / "weights.pt")
    export_model(sam, folder)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sam = sam

        def forward(self, image: Tensor, size_hw: Tensor) -> Tensor:
            return self.sam.encode(image, size_hw)

    normalised = FastEncoder(sam)
    normalised.encoder = sam.image_encoder
    spec = graph_specs(sam.config)["encoder"]
    for name, made in (("plain", Plain()), ("normalised", normalised)):
        export_graph(made.eval(), spec, folder / f"{name}.onnx")


def encoder(folder: Path, threads: int, rounds: int) -> dict[str, Row]:
    """PyTorch eager against the backends."""
    import torch
    from boothsam.runtime import backends

    torch.set_num_threads(threads)
    sam = seeded(folder)
    feeds = [torch.from_numpy(FRAME["image"]), torch.from_numpy(FRAME["size_hw"])]
    graphs = {name: (folder / f"{name}.onnx").read_bytes() for name in ("plain", "normalised", "encoder")}

    def eager() -> Any:
        with torch.inference_mode():
            return sam.encode(*feeds).numpy()

    def ours(backend: str, graph: str) -> Call:
        opened = backends.open_session(backend, graphs[graph], threads=threads)
        return lambda: opened.run(FRAME)["image_embedding"]

    tanh = session(graphs["encoder"], threads, tanh=True)
    candidates: dict[str, Call] = {
        "PyTorch eager": eager,
        "ONNX Runtime, plain export": ours("ort-cpu", "plain"),
        "ONNX Runtime, normalising rearranged": ours("ort-cpu", "normalised"),
        "ONNX Runtime, ours": ours("ort-cpu", "encoder"),
        "ONNX Runtime, ours, GELU by tanh": lambda: tanh.run(None, FRAME)[0],
    }
    if backends.unavailable_reason("ov") is None:
        candidates |= {"OpenVINO, plain export": ours("ov", "plain"), "OpenVINO, ours": ours("ov", "encoder")}
    expected = eager()
    errors = {
        name: float(np.abs(call() - expected).max() / np.abs(expected).max()) for name, call in candidates.items()
    }
    bad = {name: error for name, error in errors.items() if not error <= PARITY}
    if bad:
        raise SystemExit(f"other embeddings than PyTorch's, {bad}: no time is worth printing")
    found = rows(in_turns(candidates, rounds), "PyTorch eager")
    return {name: row | {"relative_error": float(f"{errors[name]:.2g}")} for name, row in found.items()}


def pool_worker(pipe: Any, folder: Path, threads: int, kind: str) -> None:
    """Sessions of one kind of pool; each message is answered with the times of one photo."""
    import onnxruntime

    graphs = [(folder / f"{name}.onnx").read_bytes() for name in ("encoder", "prepare", "decoder")]
    if kind == "one pool, spinning":
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        options = onnxruntime.SessionOptions()
        options.use_per_session_threads = False
        options.enable_mem_reuse = False
        options.log_severity_level = 3
        opened = [onnxruntime.InferenceSession(g, options, providers=["CPUExecutionProvider"]) for g in graphs]
    else:
        opened = [session(g, threads, spin=kind == "own pools, spinning") for g in graphs]
    first, prepare, decoder = opened
    box = {
        "point_coords": np.array([[[200, 100], [800, 600]]], np.float32),
        "point_labels": np.array([[2, 3]], np.int32),
    }

    def timed(call: Call) -> tuple[Any, float]:
        start = time.perf_counter()
        found = call()
        return found, 1e3 * (time.perf_counter() - start)

    while pipe.recv():
        (embedding,), encoding = timed(lambda: first.run(None, FRAME))
        prepared = prepare.run(None, {"image_embedding": embedding})
        feeds = dict(zip([tensor.name for tensor in prepare.get_outputs()], prepared, strict=True)) | box
        decoding = [timed(lambda feeds=feeds: decoder.run(None, feeds))[1] for _ in range(4)]  # type: ignore[misc]
        pipe.send({"encoder": encoding, "decoder after it": decoding[0], "decoder again": decoding[3]})


def pools(folder: Path, threads: int, rounds: int) -> dict[str, Row]:
    """Sleeping and spinning threads, pools apart and in common: each kind in a process, for a pool is a process's."""
    kinds = ("own pools, sleeping", "own pools, spinning", "one pool, spinning")
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Any] = {}
    processes = []
    for kind in kinds:
        pipes[kind], theirs = context.Pipe()
        process = context.Process(target=pool_worker, args=(theirs, folder, threads, kind))
        process.start()
        processes.append(process)
    answers: dict[str, dict[str, list[float]]] = {}
    for turn in range(-1, rounds):
        for kind in kinds[:: 1 if turn % 2 else -1]:
            pipes[kind].send(True)
            for step, took in pipes[kind].recv().items():
                if turn >= 0:
                    answers.setdefault(step, {}).setdefault(kind, []).append(took)
    for kind, process in zip(kinds, processes, strict=True):
        pipes[kind].send(False)
        process.join()
    return {f"{step}: {kind}": row for step, times in answers.items() for kind, row in rows(times, kinds[0]).items()}


def load(folder: Path, threads: int, rounds: int) -> dict[str, Row]:
    """Opening the sessions of both models, as it was done before and with each lever."""
    found: dict[str, Row] = {}
    for model, source in (("starter", starter_folder()), ("MobileSAM", folder)):
        names = [n for n in ("encoder", "prepare", "decoder", "decoder_mask") if (source / f"{n}.onnx").exists()]
        graphs = [(source / f"{name}.onnx").read_bytes() for name in names]
        usual = graphs[:-1]
        saved = [optimised(graph, folder / "optimised.onnx") for graph in usual]
        openers = {
            "all graphs, sharing of memory planned": partial(in_line, graphs, threads, reuse=True),
            "all graphs": partial(in_line, graphs, threads),
            "without decoder_mask (ours)": partial(in_line, usual, threads),
            "without decoder_mask, in threads": partial(side_by_side, usual, threads),
            "without decoder_mask, optimised before and saved": partial(in_line, saved, threads, level="NONE"),
        }
        times = in_turns(openers, rounds)
        found |= {f"{model}: {kind}": row for kind, row in rows(times, next(iter(openers))).items()}
    return found


def in_line(graphs: list[bytes], threads: int, **options: Any) -> None:
    """Open one after the other."""
    opened = [session(graph, threads, **options) for graph in graphs]
    del opened


def side_by_side(graphs: list[bytes], threads: int) -> None:
    """Open each in a thread."""
    with ThreadPoolExecutor(len(graphs)) as pool:
        opened = list(pool.map(lambda graph: session(graph, threads), graphs))
    del opened


def optimised(graph: bytes, scratch: Path) -> bytes:
    """What ONNX Runtime makes of it for this machine."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(scratch)
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return scratch.read_bytes()


def padding(folder: Path, threads: int, rounds: int) -> dict[str, Row]:
    """Operations and rows of each part, and how many rows no photo of 1024x768 changes; `rounds` does not matter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(threads)
    encoder = seeded(folder).image_encoder
    parts: dict[str, Any] = {"patch_embed": encoder.patch_embed}
    for number, layer in enumerate(encoder.layers):
        for index, block in enumerate(layer.blocks):
            parts[f"stage {number}, block {index}"] = block
        if layer.downsample is not None:
            parts[f"stage {number}, merging"] = layer.downsample
    parts["neck"] = encoder.neck
    generator = torch.Generator().manual_seed(2)
    inputs = []
    for _ in range(2):
        x = torch.zeros(1, 3, 1024, 1024)
        x[:, :, :768] = torch.randn(1, 3, 768, 1024, generator=generator)
        inputs.append(x)
    found: dict[str, Row] = {}
    with torch.inference_mode():
        for name, part in parts.items():
            with FlopCounterMode(display=False) as counter:
                first = part(inputs[0])
            second = part(inputs[1])
            inputs = [first, second]
            height = first.shape[2]
            changed = ((first - second).abs().amax((0, 1, 3)) > 1e-6 * first.abs().max()).nonzero().max().item() + 1
            found[name] = {
                "gflop": counter.get_total_flops() / 1e9,
                "rows": height,
                "rows_never_changed": height - changed,
            }
    total = sum(row["gflop"] for row in found.values())
    saved = sum(row["gflop"] * row["rows_never_changed"] / row["rows"] for row in found.values())
    for row in found.values():
        row["gflop"] = round(row["gflop"], 2)
    below = (inputs[0] - inputs[1])[:, :, 48:].abs()
    return found | {
        "whole": {
            "gflop": round(total, 1),
            "saved_share": round(saved / total, 3),
            # how much of a photo reaches the rows below it, of the embedding's largest value
            "padded_rows_differ": round(float(below.max() / inputs[0].abs().max()), 3),
        }
    }


RUN = {"encoder": encoder, "pools": pools, "load": load, "padding": padding}


def section(pipe: Any, name: str, folder: Path, threads: int, rounds: int) -> None:
    """One section in its own process."""
    pipe.send(RUN[name](folder, threads, rounds))


def measured(name: str, folder: Path, threads: int, rounds: int) -> dict[str, Row]:
    """The section's rows, from a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=section, args=(theirs, name, folder, threads, rounds))
    process.start()
    theirs.close()
    try:
        found: dict[str, Row] = ours.recv()
    except EOFError:
        raise SystemExit(f"the section {name} failed; its error is above") from None
    finally:
        process.join()
    return found


def table(results: Mapping[str, Mapping[str, Row]]) -> str:
    """Markdown: a table per section and number of threads."""
    lines = []
    for name, found in results.items():
        columns = list(dict.fromkeys(column for row in found.values() for column in row))
        lines += [f"\n### {name}\n", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        lines += [f"| {key} | " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for key, row in found.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(RUN), help="sections, with commas between")
    parser.add_argument("--threads", default="1,2", help="for encoder; the others take the last")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the results there; sections measured before are kept")
    options = parser.parse_args()
    results: dict[str, dict[str, Row]] = {}
    counts = options.threads.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_encoders(folder)
        for name in options.only.split(","):
            for threads in counts if name == "encoder" else counts[-1:]:
                key = f"{name}, {threads} thread{'s' * (threads != '1')}"
                print(f"{key} ...", file=sys.stderr, flush=True)
                results[key] = measured(name, folder, int(threads), options.rounds)
    print(table(results))
    if options.json:
        before = json.loads(options.json.read_text()) if options.json.exists() else {"rounds": {}, "results": {}}
        rounds = before["rounds"] | dict.fromkeys(results, options.rounds)
        body = facts() | {"rounds": rounds, "results": before["results"] | results}
        options.json.write_text(json.dumps(body, indent=1) + "\n")


def facts() -> dict[str, Any]:
    """Machine and versions."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "date": date.today().isoformat(),
        "command": "python benchmarks/levers.py",
        "machine": {
            "cpu": cpu.split(":")[1].strip(),
            "cores": len(os.sched_getaffinity(0)),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "onnx", "onnxruntime", "openvino")},
        "weights": "seeded",
    }


if __name__ == "__main__":
    main()
