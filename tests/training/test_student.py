"""The student's shapes, its independence of padding and of its neighbours in a batch, and its exported graphs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from boothsam.runtime.model import SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.runtime.verify import verify_golden
from boothsam.training.export import EMBEDDING, EncoderGraph, export_graphs, write_model
from boothsam.training.student import Student
from torch.utils.flop_counter import FlopCounterMode

MAX_ENCODER_GFLOP = 8.0
MAX_BYTES = 12_000_000


@pytest.fixture(scope="module")
def student() -> Student:
    """Fresh weights, with BatchNorm statistics that are not the trivial ones."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    model = Student()
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model.encoder(torch.randn(2, 3, 128, 128) * 2 + 0.3)
        model.decoder.masks.nothing.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def features(student: Student) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        answer: tuple[torch.Tensor, ...] = student.encoder(torch.randn(1, 3, 256, 256))
    return answer


def prompt(count: int, points: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coords = torch.rand(count, points, 2, generator=generator) * 1024
    labels = torch.randint(0, 2, (count, points), generator=generator, dtype=torch.int32)
    return coords, labels


@pytest.mark.parametrize("side", [128, 256, 384])
def test_shapes_at_several_sides(student: Student, side: int) -> None:
    with torch.no_grad():
        maps = student.encoder(torch.randn(2, 3, side, side))
        logits, scores = student.decoder(*maps, *prompt(3, 2), image_of=torch.tensor([0, 1, 1]))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, side // s, side // s) for c, s in ((112, 32), (32, 16), (16, 8), (12, 4), (32, 8), (16, 4))
    ]
    assert logits.shape == (3, 4, side // 4, side // 4)
    assert scores.shape == (3, 4)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_prompts_do_not_see_each_other(student: Student, features: tuple[torch.Tensor, ...]) -> None:
    coords, labels = prompt(4, 3)
    with torch.no_grad():
        together = student.decoder(*features, coords, labels)
        alone = [student.decoder(*features, coords[k : k + 1], labels[k : k + 1]) for k in range(4)]
    for k, one in enumerate(alone):
        # float32 convolutions of another batch size sum in another order
        assert torch.allclose(together[0][k], one[0][0], atol=1e-4)
        assert torch.allclose(together[1][k], one[1][0], atol=1e-5)


def test_padding_points_say_nothing(student: Student, features: tuple[torch.Tensor, ...]) -> None:
    coords, labels = prompt(2, 2)
    more = torch.cat([coords, torch.rand(2, 3, 2) * 1024], 1)
    marked = torch.cat([labels, torch.full((2, 3), -1, dtype=torch.int32)], 1)
    with torch.no_grad():
        plain, padded = student.decoder(*features, coords, labels), student.decoder(*features, more, marked)
    assert torch.allclose(plain[0], padded[0], atol=1e-5)


def test_a_mask_that_is_not_used_changes_nothing(student: Student, features: tuple[torch.Tensor, ...]) -> None:
    coords, labels = prompt(2, 2)
    mask = torch.randn(2, 1, 64, 64) * 5
    with torch.no_grad():
        without = student.decoder(*features, coords, labels)
        unused = student.decoder(*features, coords, labels, mask, torch.zeros(2))
        used = student.decoder(*features, coords, labels, mask)
    assert torch.allclose(without[0], unused[0], atol=1e-5)
    assert not torch.allclose(without[0], used[0], atol=1e-2)


def test_the_encoder_keeps_its_budget(student: Student) -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        student.encoder(torch.zeros(1, 3, 256, 256))
    assert counter.get_total_flops() * 16 / 1e9 <= MAX_ENCODER_GFLOP


@pytest.fixture(scope="module")
def graphs(student: Student, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(export_graphs(student, tmp_path_factory.mktemp("graphs")))


def test_files_are_small_and_plain(graphs: dict[str, Path]) -> None:
    assert sum(path.stat().st_size for path in graphs.values()) <= MAX_BYTES
    for path in graphs.values():
        model = onnx.load(path)
        kinds = {node.op_type for node in model.graph.node}
        assert not kinds & {"If", "Loop", "Scan", "Tile", "OneHot", "Expand", "BatchNormalization"}, kinds
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 19)]
        assert b"/site-packages/" not in path.read_bytes()


def test_exported_graphs_answer_as_torch_does(student: Student, graphs: dict[str, Path]) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    run = {name: onnxruntime.InferenceSession(str(path), options).run for name, path in graphs.items()}
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (1024, 1024, 3)).astype(np.uint8)
    size_hw = np.array([683, 1024], np.int32)
    maps = run["encoder"](None, {"image": image, "size_hw": size_hw})
    with torch.no_grad():
        expected = EncoderGraph(student)(torch.from_numpy(image), torch.from_numpy(size_hw))
    for ours, theirs in zip(maps, expected, strict=True):
        assert np.abs(ours - theirs.numpy()).max() < 1e-4  # BatchNorm is folded: other rounding, nothing else
    feeds = dict(zip(EMBEDDING, maps, strict=True))
    tensors = tuple(torch.from_numpy(m) for m in maps)
    for count, points in ((1, 1), (3, 2), (2, 5), (1, 0)):
        coords = (rng.random((count, points, 2)) * 1024).astype(np.float32)
        labels = rng.integers(-1, 4, (count, points)).astype(np.int32)
        mask = rng.normal(0, 4, (count, 1, 256, 256)).astype(np.float32)
        prompts = {"point_coords": coords, "point_labels": labels}
        asked = (torch.from_numpy(coords), torch.from_numpy(labels))
        with torch.no_grad():
            plain = student.decoder(*tensors, *asked)
            masked = student.decoder(*tensors, *asked, torch.from_numpy(mask))
        for name, extra, wanted in (("decoder", {}, plain), ("decoder_mask", {"mask_input": mask}, masked)):
            logits, scores = run[name](None, feeds | prompts | extra)
            # logits reach about 30: 1e-3 is float32's summation order over a few dozen layers
            assert np.abs(logits - wanted[0].numpy()).max() < 1e-3, (name, count, points)
            assert np.abs(scores - wanted[1].numpy()).max() < 1e-4


def test_a_written_model_runs_in_the_runtime_and_proves_itself(student: Student, tmp_path: Path) -> None:
    photo = np.full((60, 90, 3), 200, np.uint8)
    cv2.circle(photo, (45, 30), 20, (30, 60, 160), -1)
    manifest = write_model(student, tmp_path, photos={"disc": photo})
    assert set(manifest.graphs["fp32"]) == {"encoder", "decoder", "decoder_mask"}
    model = SamModel.load(tmp_path, backend="ort-cpu", threads=2)
    assert verify_golden(model, tmp_path).passed
    predictor = SamPredictor(model)
    predictor.set_image(photo)
    masks, scores, logits = predictor.predict([[45, 30]], [1])
    assert masks.shape == (3, 60, 90)
    assert scores.shape == (3,)
    again, _, _ = predictor.predict(mask_input=logits[:1], multimask_output=False)
    assert again.shape == (1, 60, 90)
