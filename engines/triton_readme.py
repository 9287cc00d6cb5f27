"""README.md of an exported model repository: what it is, how it is run, and how its plans are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from boothsam.engines.triton_config import FREE, Tensor
from boothsam.runtime.manifest import ModelManifest

# The oldest release whose Python backend answers from threads in its default mode (triton-inference-server/
# python_backend, pull request 364).
OLDEST = "24.06"
WORKSPACE_MIB = 4096

_PAGE = """# {name}: a Triton model repository

Made by `boothsam export-triton`. What was tried on a Triton server, what was not, and how clients ask, is in boothsam's
`docs/triton.md`.

| | |
|---|---|
| model | {model} ({variant}), key `{key}`, licence of the weights: {licence} |
| precision | {precision}; {proof} |
| graphs run on | {backend}, {device} |
| ask | `{name}`; the others are asked by it |

## Run it

Triton {oldest} or newer. The Python backend needs boothsam; it brings the one copy of the preprocessing. With NumPy 2
the Python backend of some releases crashes at the first request, hence `numpy<2`:

```sh
sha256sum --check --quiet SHA256SUMS
printf 'FROM nvcr.io/nvidia/tritonserver:YY.MM-py3\\nRUN pip install "numpy<2" boothsam simplejpeg\\n' |
  docker build -t triton-boothsam -
docker run --rm {gpus}--shm-size 1g -p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$PWD:/models:ro" triton-boothsam \\
  tritonserver --model-repository=/models
```
"""

_PLANS = """
## Build the plans first

A plan runs on the GPU and with the TensorRT that built it, so none is shipped. In the folder of this file, on that
machine and in an image with that TensorRT (NVIDIA's `tensorrt` image of the same YY.MM has `trtexec`):

```sh
{commands}
```

Precision lies in the graphs; never add `--fp16`, `--int8` or `--best`. `boothsam build` audits an engine and asks it
the golden questions; trtexec does neither, so compare its masks with those of an onnxruntime repository before you rely
on them. A decoder takes up to {prompts} prompts with 0 to {points} points each. `SHA256SUMS` does not list the plans.
"""


@dataclass(frozen=True)
class Plan:
    """A graph to be built. model: its name in the repository. file: the ONNX file. free: its inputs with free sides."""

    model: str
    file: str
    free: tuple[Tensor, ...]

    def command(self, version: int, most_prompts: int, most_points: int) -> str:
        """trtexec, strongly typed. Made for `most_prompts` prompts of 2 points, as `boothsam build` does."""
        place = f"{self.model}/{version}"
        words = [
            f"trtexec --onnx={place}/{self.file}",
            f"--saveEngine={place}/model.plan",
            "--stronglyTyped",
            "--noTF32",
            f"--memPoolSize=workspace:{WORKSPACE_MIB}",
            "--skipInference",
        ]
        if self.free:
            for option, prompts, points in (
                ("min", 1, 0),
                ("opt", most_prompts, 2),
                ("max", most_prompts, most_points),
            ):
                shapes = ",".join(f"{t.name}:{_filled(t.shape, prompts, points)}" for t in self.free)
                words.append(f"--{option}Shapes={shapes}")
        return " \\\n  ".join(words)


def _filled(shape: Sequence[int], prompts: int, points: int) -> str:
    """The first free side counts prompts, a second one points."""
    sides = iter((prompts, points))
    return "x".join(str(next(sides) if side == FREE else side) for side in shape)


def readme(
    name: str,
    manifest: ModelManifest,
    facts: Mapping[str, str],
    plans: Sequence[Plan],
    *,
    version: int,
    most_prompts: int,
    most_points: int,
) -> str:
    """The page. facts: precision, proof, backend and device. plans: empty unless the backend is TensorRT."""
    page = _PAGE.format(
        name=name,
        model=manifest.name,
        variant=manifest.variant,
        key=manifest.key,
        licence=manifest.licence,
        oldest=OLDEST,
        gpus="--gpus all " if facts["device"] == "gpu" else "",
        **facts,
    )
    if not plans:
        return page
    commands = "\n".join(plan.command(version, most_prompts, most_points) for plan in plans)
    return page + _PLANS.format(commands=commands, prompts=most_prompts, points=most_points)
