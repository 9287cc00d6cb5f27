"""Distillation with the tiny real SAM as teacher: what it says is kept truly, and a student learns from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from boothsam.conformance.pictures import draw_scene
from boothsam.runtime.cutout import cut_out
from boothsam.runtime.errors import CheckpointError, NothingFound, OptionError, OutputError
from boothsam.runtime.images import load_image, save_image
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.model import SamModel
from boothsam.runtime.predictor import SamPredictor
from boothsam.runtime.verify import verify_golden
from boothsam.training.agreement import agreement
from boothsam.training.distill import Labelled, distill, label_all, train
from boothsam.training.distill_batches import View, click_prompt, make_batch, random_view, whole_view
from boothsam.training.distill_train import (
    DistillConfig,
    DistillTrainer,
    batches,
    embedding_loss,
    read_student,
    score_targets,
)
from boothsam.training.layers import StudentConfig
from boothsam.training.teacher import LabelConfig, Labels, Teacher, load_teacher

MODELS = Path(__file__).parents[1] / "models"
TINY, TINY_CONFIG = MODELS / "tiny_sam.pt", str(MODELS / "tiny_sam.json")
SCENE = draw_scene(701, (480, 640), count=8, radius=(56, 70), insets=0)
STUDENT = StudentConfig(
    stem=8,
    widths=(16, 24, 32, 40, 40),
    blocks=(1, 1, 1, 1, 1),
    embedding=32,
    features_16=16,
    features_8=16,
    features_4=8,
    deep=32,
)
# The tiny SAM is less sure of itself than a real one.
ASK = LabelConfig(points_per_side=6, min_predicted_iou=0.7, min_stability=0.8)
CONFIG = DistillConfig(
    side=256,
    batch=2,
    prompts=4,
    steps=6,
    warmup=3,
    learning_rate=2e-3,
    ema=0.9,
    min_masks=4,
    threads=1,
    checkpoint_every=3,
    labels=ASK,
    student=STUDENT,
)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher(TINY, TINY_CONFIG)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene in three lights."""
    folder = tmp_path_factory.mktemp("drawn")
    for index, gain in enumerate((1.0, 0.96, 0.92)):
        save_image(folder / f"{index}.png", (SCENE.image * gain).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def labelled(teacher: Teacher, photos: Path, work: Path) -> Labelled:
    return label_all(teacher, sorted(photos.glob("*.png")), work, CONFIG, quiet)


@pytest.fixture(scope="module")
def labels(labelled: Labelled) -> Labels:
    return Labels.load(labelled.training[0])


def test_the_teachers_masks_are_the_things_in_the_picture(labels: Labels) -> None:
    assert labels.photo.shape == (768, 1024, 3)
    assert labels.embedding.shape == (64, 64, 64)
    assert len(labels.objects) >= 3
    truths = [cv2.resize(m.astype(np.uint8), (512, 384), interpolation=cv2.INTER_AREA) > 0 for m in SCENE.masks]
    masks = [labels.object(index) for index in range(len(labels.objects))]
    assert not any(mask[384:].any() for mask in masks)  # the padding belongs to nothing
    # The tiny SAM joins two things now and then: most must be one thing each.
    assert np.median([max(mask_iou(mask[:384], truth) for truth in truths) for mask in masks]) > 0.8


def test_every_object_brings_a_click_that_lies_on_it(labels: Labels) -> None:
    assert len(labels.clicks) >= len(labels.objects)
    assert labels.answers.shape == (len(labels.clicks), 3, 512, 64)
    places = (labels.clicks / 2).astype(int)
    hit = [any(labels.object(i)[y, x] for x, y in places) for i in range(len(labels.objects))]
    assert all(hit)


def test_photos_are_asked_about_once(
    teacher: Teacher, photos: Path, work: Path, labelled: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.npz")}
    assert len(before) == 3
    monkeypatch.setattr(teacher.model, "encode_frame", None)  # a call would raise
    again = label_all(teacher, sorted(photos.glob("*.png")), work, CONFIG, quiet)
    assert again == labelled
    assert before == {path: path.stat().st_mtime_ns for path in work.rglob("*.npz")}
    assert not set(labelled.training) & set(labelled.held_out)
    assert labelled.training and labelled.held_out


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_view_cuts_photo_masks_clicks_and_embedding_alike(labels: Labels, mirrored: bool) -> None:
    """A photo that is bright where its mask is, a click on it, an embedding that holds its own coordinates."""
    mask = np.zeros((512, 512), np.bool_)
    mask[100:160, 200:300] = True
    photo = np.zeros((768, 1024, 3), np.uint8)
    photo[200:320, 400:600] = 255
    middles = (np.arange(64) + 0.5) * 16
    plane = np.stack(np.broadcast_arrays(middles[None], middles[:, None])).astype(np.float16)
    view = View((300, 100, 860, 500), mirrored, 256)
    height, width = view.size_hw
    assert (height, width) == (183, 256)
    cut = view.mask(mask)
    assert mask_iou(cut, view.photo(photo)[..., 0] > 127) > 0.97
    point = view.point(np.array([500.0, 260.0]))
    assert point is not None
    assert cut[int(point[1]), int(point[0])]
    assert view.point(np.array([200.0, 260.0])) is None
    found = view.embedding(plane, 8)
    x, y = (3 + 0.5) * 32, (2 + 0.5) * 32
    wanted = (300 + ((width - x) if mirrored else x) / view.scale, 100 + y / view.scale)
    assert found[:, 2, 3].tolist() == pytest.approx(wanted, abs=0.5)  # float16 of some hundreds


def test_batches_depend_on_seed_and_step_alone_and_prompts_fit_their_readings(labelled: Labelled) -> None:
    def make(step: int) -> object:
        return make_batch(labelled.training, 1, step, side=128, grid=4, batch=2, prompts=5)

    one, same, other = make(3), make(3), make(4)
    assert torch.equal(one.prompts.image, same.prompts.image)
    assert torch.equal(one.embedding, same.embedding)
    assert not torch.equal(one.prompts.coords, other.prompts.coords)
    assert one.prompts.image.shape == (2, 3, 128, 128)
    assert one.prompts.readings.shape == (10, 3, 32, 32)
    assert one.embedding.shape == (2, 64, 4, 4)
    for batch in (one, other):
        assert (batch.worth > 0).equal(batch.prompts.valid)
        for row in range(10):
            places = (batch.prompts.coords[row] + 0.5) / 1024 * 32
            for (x, y), label in zip(places.tolist(), batch.prompts.labels[row].tolist(), strict=True):
                if label in (0, 1) and batch.prompts.valid[row, 0]:
                    window = batch.prompts.readings[row, 0][int(y), int(x)]
                    assert (float(window) > 0) if label else (float(window) < 1)


def test_a_click_gets_the_teachers_answers_best_first(labels: Labels) -> None:
    view = whole_view(labels, 128)
    for index, place in enumerate(labels.clicks):
        point = view.point(place)
        assert point is not None
        found = click_prompt(labels, view, index, point)
        if found is None:
            continue
        prompt, worth = found
        used = worth[prompt.valid]
        assert (np.diff(used) <= 0).all()
        assert prompt.labels.tolist() == [1] + [-1] * 7
        assert prompt.valid[prompt.single]


def test_crops_stay_inside_the_photo(labels: Labels) -> None:
    for seed in range(40):
        x0, y0, x1, y1 = random_view(np.random.default_rng(seed), labels, 128).window
        assert 0 <= x0 < x1 <= 1024 and 0 <= y0 < y1 <= 768
        assert not any(v % 2 for v in (x0, y0, x1, y1))


def test_predicted_ious_are_held_to_the_teachers_score_of_the_nearest_reading() -> None:
    readings = torch.zeros(1, 3, 16, 16)
    readings[0, 0, :8], readings[0, 1, :, :8] = 1, 1
    logits = torch.stack([readings[0, 0], readings[0, 1], readings[0, 0] * 0, torch.ones(16, 16)])[None] * 2 - 1
    worth, frame = torch.tensor([[0.9, 0.6, 0.0]]), torch.ones(1, 16, 16)
    assert score_targets(logits, readings, worth, frame)[0].tolist() == pytest.approx([0.9, 0.6, 0.0, 0.45])


def test_the_embedding_loss_is_lowest_for_the_embedding_itself_at_any_scale() -> None:
    wanted = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    inside = torch.ones(2, 4, 4)
    inside[:, 3:] = 0
    deviation = (wanted**2 * inside[:, None]).sum().div(2 * 12 * 8).sqrt()
    assert float(embedding_loss(wanted / deviation, wanted, inside)) == pytest.approx(0, abs=1e-6)
    assert float(embedding_loss(wanted / deviation, 50 * wanted, inside)) == pytest.approx(0, abs=1e-6)
    padding = wanted.clone()
    padding[:, :, 3:] = 9
    assert float(embedding_loss(padding / deviation, wanted, inside)) == pytest.approx(0, abs=1e-6)
    assert float(embedding_loss(-wanted, wanted, inside)) > 1


class Stop(Exception):
    pass


def test_a_run_that_was_killed_ends_where_an_uninterrupted_one_does(labelled: Labelled, tmp_path: Path) -> None:
    config = replace(CONFIG, side=128)
    torch.set_num_threads(1)
    facts = {"run": "same"}

    def stop_at(text: str) -> Callable[[str], None]:
        def say(line: str) -> None:
            if line.startswith(text):
                raise Stop

        return say

    straight, killed, resumed = (DistillTrainer(config, labelled.channels) for _ in range(3))
    for folder in ("straight", "killed"):
        (tmp_path / folder).mkdir()
    train(straight, labelled.training, tmp_path / "straight", facts, quiet)
    with pytest.raises(Stop):
        train(killed, labelled.training, tmp_path / "killed", facts, stop_at("step 4"))
    train(resumed, labelled.training, tmp_path / "killed", facts, quiet)
    assert (killed.step, resumed.step, straight.step) == (4, 6, 6)
    for part in ("model", "average", "project"):
        for name, value in getattr(straight, part).state_dict().items():
            assert torch.equal(getattr(resumed, part).state_dict()[name], value), name
    with pytest.raises(OptionError, match=r"another run"):
        train(straight, labelled.training, tmp_path / "killed", {"run": "other"}, quiet)
    (tmp_path / "killed" / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="starts the training afresh"):
        train(straight, labelled.training, tmp_path / "killed", facts, quiet)


def test_the_loss_falls(labelled: Labelled) -> None:
    torch.set_num_threads(1)
    config = replace(CONFIG, side=128, steps=25)
    trainer = DistillTrainer(config, labelled.channels)
    batch = next(batches(config, labelled.training, 0))
    losses = [trainer.train_step(batch) for _ in range(25)]
    assert losses[-1].mask < 0.8 * losses[0].mask
    assert losses[-1].embedding < 0.5 * losses[0].embedding


def test_distilling_brings_the_student_nearer_to_its_teacher(photos: Path, work: Path, tmp_path: Path) -> None:
    """From photos to a model folder that runs; the held-out photo shows the scene in a light not trained on."""
    out = tmp_path / "mine"
    said: list[str] = []
    steps = 50
    done = distill(
        TINY,
        [photos],
        out,
        replace(CONFIG, steps=steps),
        teacher_variant=TINY_CONFIG,
        work=work,
        licence="MIT",
        progress=said.append,
    )
    assert done.before.boxes == done.after.boxes >= 3
    assert done.after.box_iou > done.before.box_iou + 0.1
    assert done.after.click_iou > done.before.click_iou
    assert any(line.startswith(f"step {steps} of {steps}") for line in said)
    assert done.manifest.name == "mine" and done.manifest.licence == "MIT"
    assert done.manifest.origin["teacher"] == "tiny_sam"
    model = SamModel.load(out, backend="ort-cpu", threads=1)
    assert verify_golden(model, out).passed
    assert list((out / "proof").glob("*.json"))
    predictor = SamPredictor(model)
    photo = load_image(photos / "0.png")
    predictor.set_image(photo)
    best = max(range(len(SCENE.masks)), key=lambda k: np.count_nonzero(SCENE.masks[k]))
    _, _, logits = predictor.predict(box=SCENE.box_xyxy(best), multimask_output=False)
    assert cut_out(photo, logits[0]).rgba.shape[2] == 4
    with pytest.raises(OutputError, match="exists already"):
        distill(TINY, [photos], out, CONFIG, teacher_variant=TINY_CONFIG, progress=quiet)
    config, weights = read_student(work / "checkpoint.pt")
    assert config == STUDENT
    trainer = DistillTrainer(replace(CONFIG, steps=steps), 64, weights)
    start = agreement(trainer.average, list(work.rglob("*.npz"))[:1], 256)
    assert start.box_iou > 0.1  # --start-from begins where that run ended


def test_what_is_missing_is_told(teacher: Teacher, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for folders in ([empty], [tmp_path / "nowhere"], []):
        with pytest.raises(OptionError, match="hint:"):
            distill(TINY, folders, tmp_path / "out", CONFIG, teacher_variant=TINY_CONFIG, progress=quiet)
    for index in range(2):
        save_image(empty / f"{index}.png", np.full((60, 80, 3), 90 + 60 * index, np.uint8))
    said: list[str] = []
    (empty / "broken.png").write_bytes(b"no photo")
    config = replace(CONFIG, labels=replace(ASK, points_per_side=1, min_predicted_iou=0.99))
    with pytest.raises(NothingFound, match=r"on 0 of 2 photos(.|\n)*hint:"):
        label_all(teacher, sorted(empty.glob("*.png")), tmp_path / "work", config, said.append)
    assert any(line.startswith("left out: ") and "broken.png" in line for line in said)
    with pytest.raises(CheckpointError, match="hint:"):
        read_student(TINY)


def test_a_configuration_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("steps = 9\nside = 512\n[labels]\npoints_per_side = 8\n[student]\nblocks = [1, 1, 1, 1, 1]\n")
    config = DistillConfig.read(path, steps=11, threads=None)
    assert (config.steps, config.side, config.labels.points_per_side, config.threads) == (11, 512, 8, 0)
    assert config.student.blocks == (1, 1, 1, 1, 1)
    for text, message in (
        ("stepps = 9", "unknown keys stepps"),
        ("[labels]\nx = 1", r"\[labels\].*unknown keys x"),
        ("side = 500", "no multiple of 128"),
        ("steps = 0", "at least 1"),
        ("side = 128\nbatch = 1", "BatchNorm"),
        ("steps = ", "is no configuration"),
    ):
        path.write_text(text)
        with pytest.raises(OptionError, match=message):
            DistillConfig.read(path)
