"""Training: a run that was interrupted ends where an uninterrupted one does, and the loss goes down."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from boothsam.training.batches import make_batch
from boothsam.training.generator import Sources
from boothsam.training.losses import iou, mask_loss, total_loss
from boothsam.training.photos import CutoutBank, PhotoBank
from boothsam.training.pool import fill_pool
from boothsam.training.train import Stage, TrainConfig, Trainer, batches, run

SIDE = 128


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    fill_pool(folder, 6, SIDE, 3, Sources(PhotoBank([]), CutoutBank([])))
    return folder


def config(pool: Path, folder: Path, steps: int = 4, side: int = SIDE) -> TrainConfig:
    stages = (Stage((str(pool),), 128, 2, 1, 1), Stage((str(pool),) * 2, side, 2, 2, steps - 1))
    return TrainConfig(str(folder), stages, warmup=2, bfloat16=False, workers=0, checkpoint_every=2, picture_every=2)


def test_the_committed_recipe_can_be_read() -> None:
    recipe = TrainConfig.read(Path(__file__).parents[2] / "training" / "starter.toml")
    assert recipe.stages[-1].side == 1024
    assert recipe.rate_at(recipe.steps) < 0.05 * recipe.learning_rate


def test_an_unknown_key_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    stage = '[[stages]]\npools = ["p"]\nside = 128\nbatch = 1\nprompts = 1\nsteps = 1\n'
    path.write_text(f'run = "x"\nlerning_rate = 1\n{stage}')
    with pytest.raises(ValueError, match="lerning_rate"):
        TrainConfig.read(path)


def test_batches_depend_on_seed_and_step_alone(pool: Path) -> None:
    files = sorted(pool.glob("*.npz"))
    one, same, other = (make_batch(files, 1, step, SIDE, 2, 3) for step in (5, 5, 6))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.coords, same.coords)
    assert not torch.equal(one.coords, other.coords)
    assert one.image.shape == (2, 3, SIDE, SIDE)
    assert one.readings.shape == (6, 3, SIDE // 4, SIDE // 4)
    outside = one.frame.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None] == 0
    assert (one.image[outside.expand_as(one.image)] == 0).all()


def test_resuming_equals_not_stopping(pool: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    settings = config(pool, tmp_path / "run")
    straight = Trainer(settings)
    for batch in batches(settings, 0):
        straight.train_step(batch)
    first = Trainer(settings)
    for batch in islice(batches(settings, 0), 2):
        first.train_step(batch)
    (tmp_path / "run").mkdir()
    first.save(tmp_path / "run" / "checkpoint.pt")
    path = run(settings)
    state = torch.load(path, weights_only=True)
    assert state["step"] == straight.step == 4
    for name, value in straight.model.state_dict().items():
        assert torch.equal(state["model"][name], value), name
    for name, value in straight.average.state_dict().items():
        assert torch.equal(state["ema"][name], value), name
    assert (tmp_path / "run" / "sample-000004.png").exists()
    assert (tmp_path / "run" / "log.csv").read_text().count("\n") == 3  # a header and the two steps after resuming


def test_a_missing_pool_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hint:"):
        next(batches(config(tmp_path, tmp_path), 0))


def test_a_few_pictures_can_be_learned(pool: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    settings = config(pool, tmp_path, steps=25)
    trainer = Trainer(settings)
    batch = make_batch(sorted(pool.glob("*.npz"))[:2], 1, 0, SIDE, 2, 3)
    found = [trainer.train_step(batch)[0] for _ in range(25)]
    assert float(found[-1].mask) < 0.7 * float(found[0].mask)
    assert float(found[-1].single_iou.mean()) > float(found[0].single_iou.mean()) + 0.1


def test_the_loss_is_lowest_for_the_right_mask_and_ignores_the_padding() -> None:
    wanted = torch.zeros(1, 32, 32)
    wanted[:, 8:20, 8:20] = 1
    frame = torch.ones(1, 32, 32)
    frame[:, 24:] = 0
    right = (wanted * 20 - 10)[:, None].repeat(1, 4, 1, 1)
    wrong = right.roll(5, 3)
    assert (mask_loss(right, wanted, frame) < 0.1).all()
    assert (mask_loss(wrong, wanted, frame) > mask_loss(right, wanted, frame) + 0.3).all()
    noisy = right.clone()
    noisy[:, :, 24:] = 30
    assert torch.equal(mask_loss(noisy, wanted, frame), mask_loss(right, wanted, frame))
    assert torch.equal(iou(noisy, wanted, frame), torch.ones(1, 4))


def test_each_reading_of_a_click_finds_its_own_candidate() -> None:
    part, whole = torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    part[:, 10:16, 10:16], whole[:, 4:26, 4:26] = 1, 1
    readings = torch.stack([part, whole, torch.zeros_like(part)], 1)
    valid, frame = torch.tensor([[True, True, False]]), torch.ones(1, 32, 32)

    def losses(first: torch.Tensor, second: torch.Tensor, single: int) -> float:
        logits = torch.stack([whole, first, second, torch.zeros_like(part)], 1) * 20 - 10
        scores = iou(logits, part, frame)
        return float(total_loss(logits, scores, readings, valid, torch.tensor([single]), frame).total)

    assert losses(part, whole, 1) == pytest.approx(losses(whole, part, 1), abs=1e-4)
    assert losses(part, whole, 1) < losses(part, part, 1) - 0.1
    assert losses(part, whole, 1) < losses(part, whole, 0)
    assert np.isfinite(losses(whole, whole, 0))
