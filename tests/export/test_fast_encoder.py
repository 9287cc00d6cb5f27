"""The rearranged encoders are the plain ones, and their graphs hold the operators that make them fast."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from boothsam.export.architectures.config import SamConfig, TinyViTConfig, ViTDetConfig
from boothsam.export.architectures.sam import Sam, build
from boothsam.export.architectures.tiny_vit import TinyViT
from boothsam.export.fast_encoder import FastEncoder
from boothsam.export.to_onnx import export_graph, graph_specs

from tests.export.deterministic import fill

# MobileSAM's windows, which do not divide the grid, on a tenth of its width; and SAM's, windowed and global.
CONFIGS = {
    "tiny_vit": SamConfig("narrow", TinyViTConfig((8, 16, 24, 32), (1, 1, 2, 1), (1, 2, 3, 4)), prompt_embed_dim=16),
    "vit_det": SamConfig("narrow", ViTDetConfig(24, 2, 3, (1,)), prompt_embed_dim=16),
}
# Float rounding alone; measured 1e-6.
RELATIVE_ERROR = 1e-5


def filled(name: str) -> Sam:
    """Weights whose norms and biases are neither one nor zero."""
    sam = build(CONFIGS[name])
    fill(sam)
    return sam


@pytest.fixture(scope="module")
def frame() -> tuple[torch.Tensor, torch.Tensor]:
    """A frame of noise, outside its landscape photo too."""
    image = np.random.default_rng(5).integers(0, 256, (1024, 1024, 3), np.uint8)
    return torch.from_numpy(image), torch.tensor([683, 1024], dtype=torch.int32)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_fast_encoder_is_the_plain_one(name: str, frame: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    sam = filled(name)
    export_graph(FastEncoder(sam).eval(), graph_specs(sam.config)["encoder"], tmp_path / "encoder.onnx")
    session = ort.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    image, size_hw = frame
    with torch.inference_mode():
        expected = sam.encode(image, size_hw).numpy()
    (found,) = session.run(None, {"image": image.numpy(), "size_hw": size_hw.numpy()})
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() <= RELATIVE_ERROR * np.abs(expected).max()


def fast_block(sam: Sam) -> torch.nn.Module:
    """The rearranged first block of the second stage: behind the patches, a block and a merging."""
    encoder = FastEncoder(sam).encoder
    assert isinstance(encoder, torch.nn.Sequential)
    return encoder[3]


def test_every_part_of_the_attention_is_compared() -> None:
    """A change to any of the tensors that are folded together changes the answer of both forms alike."""
    sam = filled("tiny_vit")
    assert isinstance(sam.image_encoder, TinyViT)
    block = sam.image_encoder.layers[1].blocks[0]
    x = torch.from_numpy(np.random.default_rng(6).standard_normal((1, 16, 128, 128)).astype(np.float32))
    with torch.inference_mode():
        before = block(x)
        for parameter in (block.attn.qkv.bias, block.attn.norm.bias, block.attn.norm.weight, block.attn.proj.bias):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
            after = block(x)
            assert (after - before).abs().max() > 0.01
            found = fast_block(sam)(x)
            assert (found - after).abs().max() <= RELATIVE_ERROR * after.abs().max()
            before = after


def test_windows_and_heads_are_one_transpose(tmp_path: Path) -> None:
    """The operators that move data, by number. Plain, windows and heads are cut one after the other, each with a
    transpose, and back in four steps, and what is outside the photo takes a Where over the frame."""
    sam = filled("tiny_vit")
    export_graph(FastEncoder(sam).eval(), graph_specs(sam.config)["encoder"], tmp_path / "encoder.onnx")
    found = collections.Counter(node.op_type for node in onnx.load(tmp_path / "encoder.onnx").graph.node)
    blocks = 4
    # q, k, v, the keys once more, the output; to and from channels last around the attention and the MLP
    assert found["Transpose"] == (5 + 4) * blocks + len(("photo",)) + 4 * len(("neck",))
    assert found["Pad"] == 3 * blocks
    assert found["Slice"] == blocks
    assert found["Where"] == found["Gemm"] == 0
    # only the attention is made of matrix products: three projections, scores, sums
    assert found["MatMul"] == 5 * blocks
