"""The example of docs/triton.md, run as written with Triton's published gRPC client against the stand-in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tritonclient.grpc as triton
from boothsam.engines.triton import export_repository
from boothsam.runtime.images import load_image, save_image
from boothsam.runtime.predictor import SamPredictor
from tritonclient.utils import InferenceServerException

from tests.engines.triton_grpc import serving
from tests.engines.triton_stand_in import Server

PAGE = Path(__file__).parents[2] / "docs" / "triton.md"
ADDRESS = "localhost:8001"


@pytest.fixture(scope="module")
def server(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    out = tmp_path_factory.mktemp("triton") / "repository"
    export_repository(color_folder, out, name="starter", device="cpu")
    found = Server(out)
    yield found
    found.close()


@pytest.fixture(scope="module")
def address(server: Server) -> Iterator[str]:
    with serving(server) as found:
        yield found


def test_the_documents_example_works(
    server: Server, address: str, color_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert ADDRESS in example
    image = np.full((403, 597, 3), 230, np.uint8)
    cv2.circle(image, (400, 150), 80, (190, 40, 35), -1)
    cv2.rectangle(image, (20, 20), (89, 89), (30, 60, 160), -1)
    save_image(tmp_path / "product.jpg", image, quality=95)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(example.replace(ADDRESS, address), str(PAGE), "exec"), found)
    found["client"].close()
    predictor = SamPredictor.load(color_folder, backend="ort-cpu", threads=1)
    predictor.set_image(load_image(tmp_path / "product.jpg"))
    click = predictor.predict(np.array([[400, 150]]), np.array([1]))
    assert np.array_equal(found["masks"][0], click.masks) and np.array_equal(found["mask"], click.masks[click.best])
    boxes = predictor.predict_batch(boxes=[[310, 60, 490, 240], [20, 20, 90, 90]], multimask_output=False)
    masks = np.unpackbits(found["packed"], axis=-1, count=597).astype(np.bool_)
    for row, one in zip(masks, boxes, strict=True):
        assert one.masks.any() and np.array_equal(row, one.masks)
    assert server.calls["starter_encoder"] == 1


def test_errors_arrive_with_their_status_and_hint(address: str) -> None:
    client = triton.InferenceServerClient(address)
    assert client.is_server_ready() and client.is_model_ready("starter_encoder")
    asked = triton.InferInput("embedding_id", [1], "BYTES")
    asked.set_data_from_numpy(np.array([b"0" * 64], np.object_))
    with pytest.raises(InferenceServerException) as found:
        client.infer("starter", [asked], outputs=[triton.InferRequestedOutput("embedding_id")])
    assert found.value.status() == "StatusCode.NOT_FOUND" and "hint: send the photo again" in found.value.message()
    with pytest.raises(InferenceServerException) as found:
        client.infer("starter", [asked])
    assert found.value.status() == "StatusCode.INVALID_ARGUMENT" and "no prompt" in found.value.message()
    client.close()
