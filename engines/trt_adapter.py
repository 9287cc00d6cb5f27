"""The one place that knows how the builders of TensorRT 10.3, 10.16, 11 and TensorRT-RTX differ.

- Strong typing: a flag of the network on 10, accepted and without meaning on 11 and RTX, where nothing else exists.
  It is always set. The flags that made weakly typed FP16 or INT8 engines (gone in 11) are never touched: precision lies
  in the graph.
- TF32: on by default everywhere; cleared, since it rounds the factors of FP32 products to 10 bits.
- Workspace: `set_memory_pool_limit` everywhere; `max_workspace_size` went with TensorRT 8.
- Timing cache: TensorRT only. RTX chooses kernels on the user's machine, its cache functions do nothing and warn.
- Progress: `IProgressMonitor` everywhere; a class to derive from.
- Optimisation level: 0 to 5 on TensorRT; RTX has the property and the same range.
- Engine inspector: needs a deserialised engine, so a GPU; RTX deserialises on RTX GPUs only.
- GPU: TensorRT's builder needs one; RTX builds without (and then times nothing).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boothsam.runtime.backends.trt_library import TensorRt
from boothsam.runtime.errors import EngineError

TIMED = "tensorrt"  # the library that measures kernels, and so has a timing cache
MIX = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")  # layers whose type costs or saves the time
QUANTIZE = "QUANTIZE"
_DTYPES = {"FLOAT": "fp32", "HALF": "fp16", "INT8": "int8"}


@dataclass(frozen=True)
class Profile:
    """The most prompts and points that an engine takes in one profile; it is made for `most_prompts` and 2 points."""

    most_prompts: int
    most_points: int


@dataclass(frozen=True)
class Settings:
    """How to build. level: the builder's optimisation level, 0 to 5. workspace_mib: scratch memory of one layer."""

    workspace_mib: int
    level: int


@dataclass(frozen=True)
class Layer:
    """A layer of the parsed network that mixes channels or tokens, or quantises, and the type that it gives."""

    name: str
    kind: str
    dtype: str


@dataclass(frozen=True)
class Built:
    """A serialised engine. layers: of MIX and QUANTIZE, in the network as parsed. timing: the timing cache, if any."""

    engine: bytes
    layers: tuple[Layer, ...]
    timing: bytes | None


class ProgressTree:
    """Nested phases of a build as one fraction from 0 to 1 that never falls.

    A phase's steps weigh the same; a phase within a step fills that step.
    """

    def __init__(self, report: Callable[[float, str], None]) -> None:
        self._report = report
        self._phases: list[tuple[str, int]] = []  # from the outermost inwards
        self._done: dict[str, int] = {}
        self._last = 0.0

    def start(self, phase: str, steps: int) -> None:
        self._phases.append((phase, max(steps, 1)))
        self._done[phase] = 0
        self._tell(phase)

    def step(self, phase: str, step: int) -> None:
        """step: counts from 0, and is done."""
        if phase in self._done:
            self._done[phase] = max(self._done[phase], step + 1)
        self._tell(phase)

    def finish(self, phase: str) -> None:
        steps = dict(self._phases).get(phase)
        if steps is None:
            return
        self._done[phase] = steps
        self._tell(phase)
        if len(self._phases) > 1:
            self._phases = [entry for entry in self._phases if entry[0] != phase]
            del self._done[phase]

    def _tell(self, phase: str) -> None:
        fraction, share = 0.0, 1.0
        for name, steps in self._phases:
            fraction += share * min(self._done[name] / steps, 1.0)
            share = share / steps if self._done[name] < steps else 0.0
        self._last = max(self._last, min(fraction, 1.0))
        self._report(self._last, phase)


class Adapter:
    """A builder of strongly typed engines over one TensorRT."""

    def __init__(self, tensorrt: TensorRt) -> None:
        self.tensorrt = tensorrt
        self._trt = tensorrt.module

    def build(
        self,
        graph: bytes | Path,
        profiles: Sequence[Profile],
        settings: Settings,
        *,
        timing: bytes | None = None,
        report: Callable[[float, str], None] = lambda fraction, phase: None,
    ) -> Built:
        """Parse and build one ONNX graph.

        graph: its bytes, or its path when it has external data. profiles: for graphs whose first side and perhaps a
        second one are free; ignored by static ones. timing: what an earlier build with this TensorRT and GPU left.
        report: gets the fraction done and the name of the phase.

        Raises:
            EngineError: TensorRT refuses the graph or cannot build it, with its own words.
        """
        trt = self._trt
        builder = trt.Builder(self.tensorrt.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self._parse(network, graph)
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
        config.builder_optimization_level = settings.level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.progress_monitor = self._monitor(ProgressTree(report))
        self._add_profiles(builder, network, config, profiles)
        with self._timing_cache(config, timing) as cache:
            plan = builder.build_serialized_network(network, config)
            if plan is None:
                raise EngineError(
                    self.tensorrt.explain(f"{self.tensorrt} cannot build {network.name or 'the graph'}"),
                    hint="with --workspace more MiB, or --prompts 1,8 where memory ran out",
                )
            kept = bytes(cache.serialize()) if cache is not None else None
        return Built(bytes(plan), tuple(self._layers(network)), kept)

    def inspect(self, engine: bytes) -> list[Mapping[str, Any]]:
        """The built engine's layers as the inspector tells them; needs the GPU it was built for."""
        inspector = self.tensorrt.deserialize(engine).create_engine_inspector()
        body = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        # A layer without details is its name alone.
        return [layer if isinstance(layer, dict) else {"Name": layer} for layer in body.get("Layers", [])]

    def _parse(self, network: Any, graph: bytes | Path) -> None:
        parser = self._trt.OnnxParser(network, self.tensorrt.logger)
        done = parser.parse(graph) if isinstance(graph, bytes) else parser.parse_from_file(str(graph))
        if not done:
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            said = "; ".join(f"{e.node_name() or 'graph'} ({e.node_operator() or '?'}): {e.desc()}" for e in errors)
            raise EngineError(f"{self.tensorrt} does not take the graph: {said or 'no reason given'}",
                              hint="export or quantize the model again with this version")  # fmt: skip

    def _add_profiles(self, builder: Any, network: Any, config: Any, profiles: Sequence[Profile]) -> None:
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        free = {tensor.name: tuple(tensor.shape) for tensor in inputs if -1 in tuple(tensor.shape)}
        if not free:
            return
        if not profiles:
            raise EngineError(f"the inputs {sorted(free)} have free sides; expected profiles for them")
        for wanted in profiles:
            profile = builder.create_optimization_profile()
            for name, shape in free.items():
                # No points at all is what a mask alone comes with.
                sides = [(1, 0), (wanted.most_prompts, 2), (wanted.most_prompts, wanted.most_points)]
                profile.set_shape(name, *(_filled(shape, prompts, points) for prompts, points in sides))
            if config.add_optimization_profile(profile) < 0:
                raise EngineError(
                    self.tensorrt.explain(f"{self.tensorrt} refuses the profile {wanted}"), hint="other --prompts"
                )

    def _layers(self, network: Any) -> Iterator[Layer]:
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            if layer.type.name in (*MIX, QUANTIZE):
                dtype = layer.get_output(0).dtype.name
                yield Layer(layer.name, layer.type.name, _DTYPES.get(dtype, dtype.lower()))

    @contextmanager
    def _timing_cache(self, config: Any, timing: bytes | None) -> Iterator[Any]:
        if self.tensorrt.name != TIMED:
            yield None
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            cache = config.create_timing_cache(timing or b"")
            if cache is None or not config.set_timing_cache(cache, False):
                # Of another version or GPU: an empty one takes its place, and costs time only.
                cache = config.create_timing_cache(b"")
                config.set_timing_cache(cache, False)
            yield config.get_timing_cache()

    def _monitor(self, tree: ProgressTree) -> Any:
        base = self._trt.IProgressMonitor

        class Monitor(base):  # type: ignore[misc, valid-type]  # a class of a library without types
            """TensorRT's callbacks into the tree; they come from its threads, one at a time."""

            def __init__(self) -> None:
                base.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                tree.start(phase_name, num_steps)

            def phase_finish(self, phase_name: str) -> None:
                tree.finish(phase_name)

            def step_complete(self, phase_name: str, step: int) -> bool:
                tree.step(phase_name, step)
                return True  # go on

        return Monitor()


def _filled(shape: tuple[int, ...], prompts: int, points: int) -> list[int]:
    """The first free side counts prompts, a second one points."""
    sides = iter((prompts, points))
    return [next(sides) if side < 0 else side for side in shape]
