"""The decoder trained over an encoder that never was: exact on a part of the tokens, resumable, encoder untouched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from boothsam.export.architectures.sam import Sam
from boothsam.export.checkpoints import load_checkpoint
from boothsam.training import frozen_encoder
from boothsam.training.frozen_encoder import TOKENS, Run, by_token, choose_tokens, decode_tokens, overlaps, train
from boothsam.training.frozen_scenes import LEVELS, Scene, ask, draw_scene, framed, scene_sample, seeded_sam

from tests.models.tiny_sam import CONFIG


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.set_num_threads(1)
    return seeded_sam(str(CONFIG), 3)


@pytest.fixture(scope="module")
def scene() -> Scene:
    rng = np.random.default_rng(5)
    embedding = rng.standard_normal((64, 64, 64)).astype(np.float16)
    found = draw_scene(rng, scene_sample(3, 0), embedding)
    assert found is not None
    return found


def test_prompts_ask_for_what_the_masks_show(scene: Scene) -> None:
    sides = scene.readings.shape[-1]
    inside = scene.labels == 1
    assert inside.any() and (scene.labels == 2).any()
    for prompt, row in zip(*np.nonzero(inside), strict=True):
        x, y = ((scene.points[prompt, row] + 0.5) / 1024 * sides).astype(int)
        assert scene.readings[prompt, 0, y, x] > 0
    for prompt in np.flatnonzero((scene.labels == 2).any(1)):
        (x0, y0), (x1, y1) = (scene.points[prompt][scene.labels[prompt] == corner][0] for corner in (2, 3))
        rows, columns = np.nonzero(scene.readings[prompt, 0] > LEVELS // 2)
        middle = np.array([columns.mean(), rows.mean()]) * 4
        assert x0 < middle[0] < x1 and y0 < middle[1] < y1


def test_all_tokens_are_the_decoder(sam: Sam, scene: Scene) -> None:
    asked = ask(scene, [0, 1, 2])
    with torch.inference_mode():
        masks, scores = sam.decode(asked.embedding[:1], asked.points, asked.labels)
        found, found_scores = decode_tokens(sam, asked, torch.arange(TOKENS).expand(3, -1))
    torch.testing.assert_close(found, by_token(masks), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_scores, scores, atol=1e-5, rtol=1e-5)


def test_so_they_are_with_a_mask(sam: Sam, scene: Scene) -> None:
    rng = np.random.default_rng(0)
    while not bool((asked := ask(scene, range(8), rng)).used.any()):
        pass
    row = int(torch.nonzero(asked.used)[0])
    with torch.inference_mode():
        masks, _ = sam.decode(
            asked.embedding[:1], asked.points[[row]], asked.labels[[row]], mask_input=asked.previous[[row]]
        )
        found, _ = decode_tokens(sam, asked, torch.arange(TOKENS).expand(8, -1))
    torch.testing.assert_close(found[[row]], by_token(masks), atol=1e-5, rtol=1e-5)


def test_tokens_are_chosen_anywhere_and_on_the_rim(scene: Scene) -> None:
    torch.manual_seed(0)
    wanted = torch.from_numpy(scene.readings[:, 0]).float() / LEVELS
    chosen = choose_tokens(wanted, 256)
    assert chosen.shape == (len(wanted), 256) and int(chosen.min()) >= 0 and int(chosen.max()) < TOKENS
    share = by_token(wanted[:, None])[:, 0].mean(2)
    mixed = (share > 0) & (share < 1)
    assert float(mixed.gather(1, chosen).float().mean()) > 2 * float(mixed.float().mean())


def test_a_mask_is_compared_in_the_order_of_its_tokens(scene: Scene) -> None:
    wanted = torch.from_numpy(scene.readings[:2, :1]).float() / LEVELS
    logits = by_token((wanted - 0.5).expand(-1, 4, -1, -1))
    assert overlaps(logits, by_token(wanted)[:, 0]).min() > 0.99
    assert overlaps(-logits, by_token(wanted)[:, 0]).max() < 0.01


def test_it_goes_on_where_it_was(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "scene.npz"
    scene.save(file)
    whole, half, rest = (Run.start(seeded_sam(str(CONFIG), 3), 6, 1e-3) for _ in range(3))
    for _ in range(4):
        whole.advance([file], 64, 1e-3)
    for _ in range(2):
        half.advance([file], 64, 1e-3)
    half.save(tmp_path / "state.pt")
    rest.load(tmp_path / "state.pt")
    for _ in range(2):
        rest.advance([file], 64, 1e-3)
    assert rest.step == whole.step == 4
    for part in ("sam", "average"):
        found, expected = (getattr(run, part).state_dict() for run in (rest, whole))
        torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_it_learns_and_leaves_the_encoder(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "scene.npz"
    alone = scene.valid & np.array([True, False, False])
    replace(scene, valid=alone, single=scene.single * 0).save(file)
    run = Run.start(seeded_sam(str(CONFIG), 3), 200, 5e-3)
    start = {name: value.clone() for name, value in run.sam.state_dict().items()}
    losses = [run.advance([file], 64, 5e-3) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
    moved = {name for name, value in run.sam.state_dict().items() if not torch.equal(value, start[name])}
    assert moved and not any(name.startswith("image_encoder") for name in moved)


@pytest.mark.slow
def test_from_nothing_to_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_encoder, "HELD_OUT", 1)
    path = train(tmp_path, str(CONFIG), scenes=2, steps=1, tokens=64, rate=1e-3, seed=3)
    assert load_checkpoint(path, str(CONFIG)).sam.config.variant == "tiny_sam"


def test_a_frame_keeps_the_photo_in_its_corner() -> None:
    image = np.full((600, 1024, 3), 7, np.uint8)
    frame = framed(image)
    assert frame.shape == (1024, 1024, 3) and (frame[:600] == 7).all() and not frame[600:].any()
