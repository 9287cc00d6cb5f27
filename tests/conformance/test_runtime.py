"""boothsam's own predictor in the kit, and its graphs against the golden vectors, on every backend of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boothsam.conformance import golden_vectors, run
from boothsam.conformance.__main__ import main, table
from boothsam.conformance.cases import scene
from boothsam.runtime import backends, transforms
from boothsam.runtime.model import Prompts, SamModel
from boothsam.runtime.predictor import SamPredictor

TOKENS = {name: case for name, case in golden_vectors()["tokens"].items() if name != "weights"}
PRESENT = [name for name in backends.AUTO_ORDER if backends.unavailable_reason(name) is None]


@pytest.fixture(scope="module", params=PRESENT)
def model(request: pytest.FixtureRequest, tiny_folder: Path) -> SamModel:
    return SamModel.load(tiny_folder, backend=request.param, threads=1)


def test_our_predictor_passes(model: SamModel) -> None:
    results = run(SamPredictor(model))
    assert all(result.passed for result in results), table(results, 1.0)


class Recording:
    """A session that remembers what it was fed."""

    def __init__(self, session: backends.Session) -> None:
        self.session = session
        self.inputs, self.outputs = session.inputs, session.outputs
        self.fed: list[Mapping[str, Any]] = []

    def run(self, feeds: Mapping[str, Any], keep: Sequence[str] = ()) -> dict[str, Any]:
        self.fed.append(dict(feeds))
        return self.session.run(feeds, keep=keep)

    def close(self) -> None:
        """The recorded session belongs to the fixture."""


@pytest.mark.parametrize("name", TOKENS)
def test_prompts_become_the_reference_tokens(model: SamModel, name: str) -> None:
    case = TOKENS[name]
    sessions = {graph: Recording(session) for graph, session in model._sessions.items()}
    recording = SamModel(model.manifest, sessions, backend=model.backend, precision=model.precision, reason="test")
    # 768 x 1024 is its own size in the frame, so that frame pixels are photo pixels.
    embedding = recording.encode(np.zeros((768, 1024, 3), np.uint8))
    recording.decode(embedding, Prompts.make(case.get("points"), case.get("labels"), case.get("box_xyxy")))
    fed = sessions["decoder"].fed[-1]
    assert np.array_equal(fed["point_labels"], case["point_labels"])
    assert np.array_equal(fed["point_coords"], case["point_coords"])


def test_what_lies_in_the_padding_does_not_matter(model: SamModel) -> None:
    image = scene("portrait_2_3").image
    frame, size_hw = transforms.preprocess(image)
    dirty = frame.copy()
    dirty[:, size_hw[1] :] = 255
    clean, other = (model.encode_frame(f, size_hw, image.shape[:2]) for f in (frame, dirty))
    for name in model.manifest.embedding:
        assert np.array_equal(clean.tensors[name].numpy(), other.tensors[name].numpy())


def test_command_passes_and_prints_a_table(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--predictor", "boothsam:SamPredictor.load", "--model", str(tiny_folder)]
    assert main([*command, "--case", "click", "--case", "tiny"]) == 0
    assert "2 of 2 cases passed" in capsys.readouterr().out
