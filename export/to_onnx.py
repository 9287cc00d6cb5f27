"""A torch SAM to the ONNX graphs of a model folder: encoder, prepare, decoder, decoder_mask.

The TorchScript-based exporter is used on purpose: measured on MobileSAM with ONNX Runtime on a CPU, the graph of the
newer exporter at opset 18 runs at 0.7 of the speed, for its GELU is not fused; at opset 20 it draws level, but
TensorRT 10.3 on JetPack 6 wants opset 19, where FP16 scales of Q/DQ exist and GELU still is Div, Erf, Add, Mul, Mul.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from boothsam.export.architectures.config import GRID, IMAGE_SIZE, MASK_SIZE, SamConfig
from boothsam.export.architectures.sam import Sam
from boothsam.export.fast_decoder import PREPARED, FastDecoder, Prepare
from boothsam.export.fast_encoder import FastEncoder
from boothsam.runtime.errors import ParityError
from onnx import TensorProto, shape_inference
from torch import Tensor, nn

OPSET = 19
IR_VERSION = 9  # of opset 19; newer ones are refused by TensorRT 10.3 and by ONNX Runtime before 1.16
# Protobuf ends at 2^31 bytes; the names and nodes of a graph need some of them.
EXTERNAL_DATA_BYTES = 2**31 - 2**24
DATA_SUFFIX = ".data"

Shape = tuple[int | str, ...]
_TORCH_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT32: torch.int32,
}


@dataclass(frozen=True)
class Port:
    """An input or output: name, ONNX element type, shape; a string is the name of a side that may vary."""

    name: str
    dtype: int
    shape: Shape


@dataclass(frozen=True)
class GraphSpec:
    """What a graph of a model folder takes and gives."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def graph_specs(config: SamConfig) -> dict[str, GraphSpec]:
    """The contract between export and runtime for this configuration, by graph name."""
    dim, heads, tokens = config.prompt_embed_dim, config.decoder_num_heads, GRID * GRID
    inner = dim // 2 // heads
    f32, masks = TensorProto.FLOAT, config.num_mask_tokens
    embedding = Port("image_embedding", f32, (1, dim, GRID, GRID))
    shapes: tuple[Shape, ...] = (
        (1, tokens, dim),
        (1, heads, inner, tokens),
        (1, heads, tokens, inner),
        (1, heads, tokens, inner),
    )
    prepared = tuple(Port(name, f32, shape) for name, shape in zip(PREPARED, shapes, strict=True))
    points = (
        Port("point_coords", f32, ("prompts", "points", 2)),
        Port("point_labels", TensorProto.INT32, ("prompts", "points")),
    )
    results = (
        Port("low_res_masks", f32, ("prompts", masks, MASK_SIZE, MASK_SIZE)),
        Port("iou_predictions", f32, ("prompts", masks)),
    )
    image = (
        Port("image", TensorProto.UINT8, (IMAGE_SIZE, IMAGE_SIZE, 3)),
        Port("size_hw", TensorProto.INT32, (2,)),
    )
    mask_input = Port("mask_input", f32, ("prompts", 1, MASK_SIZE, MASK_SIZE))
    specs = (
        GraphSpec("encoder", image, (embedding,)),
        GraphSpec("prepare", (embedding,), prepared),
        GraphSpec("decoder", (*prepared, *points), results),
        GraphSpec("decoder_mask", (embedding, *points, mask_input), results),
    )
    return {spec.name: spec for spec in specs}


class _MaskDecoder(nn.Module):
    """The plain decoder, which a mask prompt needs: it changes the image tokens of every prompt."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompts = sam.prompt_encoder
        self.decoder = sam.mask_decoder
        self.table = nn.Parameter(sam.prompt_encoder.label_table().detach(), requires_grad=False)
        self.image_pe = nn.Parameter(sam.prompt_encoder.image_positions().detach(), requires_grad=False)

    def forward(
        self, image_embedding: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor
    ) -> tuple[Tensor, Tensor]:
        points = self.prompts.points(point_coords, point_labels, self.table)
        image = image_embedding + self.prompts.masks(mask_input)
        masks, iou = self.decoder(image, self.image_pe, points)
        return masks, iou


def export_model(sam: Sam, out_dir: Path, *, external_data_bytes: int = EXTERNAL_DATA_BYTES) -> Mapping[str, Path]:
    """Write encoder.onnx, prepare.onnx, decoder.onnx and decoder_mask.onnx into `out_dir` and check each.

    Args:
        sam: on the CPU, in FP32, with its weights.
        out_dir: an existing folder.
        external_data_bytes: a graph whose weights exceed this lies in two files, NAME.onnx and NAME.onnx.data.

    Returns:
        Graph name -> path of its .onnx file.

    Raises:
        ParityError: a graph that is not valid ONNX or does not have the contract's inputs and outputs.
    """
    sam = sam.eval()
    modules: dict[str, nn.Module] = {
        "encoder": FastEncoder(sam),
        "prepare": Prepare(sam),
        "decoder": FastDecoder(sam),
        "decoder_mask": _MaskDecoder(sam),
    }
    paths = {}
    for name, spec in graph_specs(sam.config).items():
        paths[name] = out_dir / f"{name}.onnx"
        export_graph(modules[name].eval(), spec, paths[name], external_data_bytes)
    return paths


def _example(port: Port, sides: Mapping[str, int]) -> Tensor:
    """A valid input to trace with; values do not matter, for no graph branches."""
    shape = [sides[s] if isinstance(s, str) else s for s in port.shape]
    if port.name == "size_hw":
        return torch.tensor([IMAGE_SIZE, IMAGE_SIZE], dtype=torch.int32)
    return torch.zeros(shape, dtype=_TORCH_DTYPES[port.dtype])


def export_graph(
    module: nn.Module, spec: GraphSpec, path: Path, external_data_bytes: int = EXTERNAL_DATA_BYTES
) -> None:
    """Trace one module in eval mode to `path` and check the graph against `spec`.

    Weights of more than `external_data_bytes` go to one file beside it, `path` plus DATA_SUFFIX.

    Raises:
        ParityError: the graph is not what `spec` says.
    """
    # 2 prompts of 3 points: a 1 would be traced as a side to broadcast
    example = tuple(_example(port, {"prompts": 2, "points": 3}) for port in spec.inputs)
    axes = {
        port.name: {i: side for i, side in enumerate(port.shape) if isinstance(side, str)}
        for port in (*spec.inputs, *spec.outputs)
    }
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx")
        warnings.filterwarnings("ignore", message=".*legacy TorchScript-based ONNX export", category=DeprecationWarning)
        traced = Path(scratch) / path.name
        with torch.inference_mode():
            torch.onnx.export(
                module,
                example,
                str(traced),
                dynamo=False,
                opset_version=OPSET,
                input_names=[port.name for port in spec.inputs],
                output_names=[port.name for port in spec.outputs],
                dynamic_axes={name: sides for name, sides in axes.items() if sides},
            )
        model = onnx.load(traced)
    _clean(model, spec)
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    onnx.save_model(
        model,
        path,
        save_as_external_data=weights > external_data_bytes,
        location=path.name + DATA_SUFFIX,
        size_threshold=1024,
    )
    check_graph(path, spec)


def _clean(model: onnx.ModelProto, spec: GraphSpec) -> None:
    """Keep the mathematics alone: no stack traces with paths of this machine, no intermediate shapes of the example."""
    model.producer_name, model.producer_version = "boothsam", ""
    model.ir_version = IR_VERSION
    model.doc_string = ""
    model.graph.name = spec.name
    model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for ports, values in ((spec.inputs, model.graph.input), (spec.outputs, model.graph.output)):
        for port, value in zip(ports, values, strict=True):
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, port.dtype, port.shape))


def check_graph(path: Path, spec: GraphSpec) -> None:
    """Check one graph file: valid ONNX under strict shape inference, the contract's names, dtypes and shapes, no
    branches.

    Raises:
        ParityError: with the first finding.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
        with tempfile.TemporaryDirectory() as scratch:
            # by path: a graph with its weights may be too large for one message
            inferred = Path(scratch) / "inferred.onnx"
            shape_inference.infer_shapes_path(str(path), str(inferred), True, True, True)
            model = onnx.load(inferred, load_external_data=False)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise ParityError(f"{path.name} is not valid ONNX: {error}") from None
    if [(o.domain, o.version) for o in model.opset_import] != [("", OPSET)]:
        raise ParityError(
            f"{path.name} uses the operator sets {list(model.opset_import)}, expected opset {OPSET} alone"
        )
    branches = [n.name for n in model.graph.node if n.op_type in ("If", "Loop", "Scan")]
    if branches:
        raise ParityError(f"{path.name} branches at {branches[0]}; TensorRT wants a graph without If, Loop and Scan")
    for kind, ports, values in (
        ("inputs", spec.inputs, model.graph.input),
        ("outputs", spec.outputs, model.graph.output),
    ):
        found = tuple(_port(value) for value in values)
        if found != ports:
            raise ParityError(f"{path.name} has the {kind} {found}, expected {ports}")


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    return Port(value.name, tensor.elem_type, tuple(side.dim_param or side.dim_value for side in tensor.shape.dim))
