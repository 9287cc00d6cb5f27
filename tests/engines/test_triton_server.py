"""A real Triton server on this machine's CPU, where one is at hand: `NAME` as exported, and its threads, really run.

NVIDIA's package nvidia-pytriton carries the server and its Python backend, and no backend for ONNX or TensorRT; so the
graphs run behind small Python models here, under the same names, types and shapes. docs/triton.md says how to set
BOOTHSAM_TRITON (the unpacked package) and BOOTHSAM_TRITON_PYTHON (an environment with boothsam and a NumPy that the
server's release knows).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from boothsam.engines.triton import Settings, export_repository
from boothsam.runtime.images import encode_image
from boothsam.runtime.masks import mask_iou
from boothsam.runtime.predictor import SamPredictor
from boothsam.runtime.transforms import Uint8Array
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.engines.triton_asking import PROMPTS, boxes, click
from tests.models.pictures import test_picture as draw

SERVER, PYTHON = os.environ.get("BOOTHSAM_TRITON"), os.environ.get("BOOTHSAM_TRITON_PYTHON")
START_S, ANSWER_S = 180, 120
Array = Any

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SERVER and PYTHON), reason="BOOTHSAM_TRITON and BOOTHSAM_TRITON_PYTHON name no server"),
]

_GRAPH = """
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = str(Path(__file__).with_name("{file}"))
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        names = list(request.requested_output_names())
        found = self.session.run(names, {{t.name(): t.as_numpy() for t in request.inputs()}})
        return triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(names, found)])
"""


def run_graphs_in_python(repository: Path) -> None:
    for path in repository.glob("*/config.pbtxt"):
        text = path.read_text()
        if 'backend: "onnxruntime"' not in text:
            continue
        (file,) = re.findall(r'default_model_filename: "(.*)"', text)
        text = text.replace('backend: "onnxruntime"\nplatform: "onnxruntime_onnx"', 'backend: "python"')
        path.write_text(text.replace(file, "model.py", 1))
        (path.parent / "1" / "model.py").write_text(_GRAPH.format(file=file))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(repository: Path, scratch: Path) -> Iterator[tuple[Any, subprocess.Popen[bytes]]]:
    """A client of a server that is ready, and the server."""
    assert SERVER and PYTHON
    home, port = Path(SERVER).absolute(), free_port()
    parts = home / "pytriton" / "tritonserver"
    version = subprocess.run(
        [f"{PYTHON}/bin/python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    backend = scratch / "backends" / "python"
    backend.mkdir(parents=True)
    stub = parts / "python_backend_stubs" / version / "triton_python_backend_stub"
    for file in (*(parts / "backends" / "python").iterdir(), stub, parts / "bin" / "tritonserver"):
        shutil.copyfile(file, backend / file.name)
        (backend / file.name).chmod(0o755)
    libraries = f"{home}/nvidia_pytriton.libs"
    environment = {**os.environ, "PATH": f"{Path(PYTHON).absolute()}/bin:{os.environ['PATH']}",
                   "LD_LIBRARY_PATH": libraries, "OMP_NUM_THREADS": "1"}  # fmt: skip
    command = [
        backend / "tritonserver", f"--model-repository={repository}", f"--backend-directory={backend.parent}",
        "--allow-http=false", "--allow-metrics=false", "--grpc-address=127.0.0.1", f"--grpc-port={port}",
    ]  # fmt: skip
    with (scratch / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    try:
        end = time.monotonic() + START_S
        while True:
            try:
                if client.is_server_ready():
                    break
            except InferenceServerException:
                pass
            assert server.poll() is None and time.monotonic() < end, (scratch / "log").read_text()
            time.sleep(0.2)
        yield client, server
    finally:
        client.close()
        server.send_signal(signal.SIGTERM)
        server.wait(ANSWER_S)


def ask(client: Any, arrays: dict[str, Array], *wanted: str) -> dict[str, Array]:
    inputs = []
    for name, array in arrays.items():
        inputs.append(triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    outputs = [triton.InferRequestedOutput(name) for name in wanted] or None
    answer = client.infer("sam", inputs, outputs=outputs, client_timeout=ANSWER_S)
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


def counts(client: Any) -> dict[str, int]:
    rows = client.get_inference_statistics(as_json=True)["model_stats"]
    return {row["name"]: int(row["inference_stats"]["success"].get("count", 0)) for row in rows}


@pytest.fixture(params=[0, 4], ids=["no threads", "four threads"])
def start(request: pytest.FixtureRequest, tiny: Path, tmp_path: Path) -> Callable[..., Any]:
    def begin(**settings: int) -> Any:
        out = tmp_path / "repository"
        export_repository(tiny, out, name="sam", device="cpu", settings=Settings(threads=request.param, **settings))
        run_graphs_in_python(out)
        return serving(out, tmp_path)

    return begin


@pytest.fixture(scope="module")
def picture() -> Uint8Array:
    return np.ascontiguousarray(draw("portrait").image[:, :475])


@pytest.fixture(scope="module")
def predictor(tiny: Path, picture: Uint8Array) -> SamPredictor:
    found = SamPredictor.load(tiny, backend="ort-cpu", threads=1)
    found.set_image(picture)
    return found


def test_a_real_server_gives_the_predictors_masks(
    start: Callable[..., Any], predictor: SamPredictor, picture: Uint8Array
) -> None:
    earlier = predictor.predict(np.array([[240, 300]]), np.array([1]))
    mask = earlier.low_res_masks[earlier.best][None, None]
    photo = np.array([encode_image(picture, "png")], np.object_)
    with start() as (client, _):
        for name, prompt in {**PROMPTS, "a mask alone": {"mask_input": mask}}.items():
            answer = ask(client, {"image": photo, **prompt})
            expected = predictor.predict_batch(
                prompt.get("point_coords"), prompt.get("point_labels"), prompt.get("box"), prompt.get("mask_input")
            )
            masks = np.unpackbits(answer["masks"], axis=-1, count=picture.shape[1]).astype(np.bool_)
            for row, one in zip(masks, expected, strict=True):
                assert [mask_iou(a, b) for a, b in zip(row, one.masks, strict=True)] == [1.0] * 3, name
        ran = counts(client)
        assert (ran["sam_encoder"], ran["sam_prepare"], ran["sam_decoder_mask"]) == (1, 1, 1)
        key = answer["embedding_id"]
        assert ask(client, {"embedding_id": key, **PROMPTS["box"]}, "masks")["masks"].shape == (1, 3, 640, 60)
        for wrong, status in (
            ({"image": photo}, "INVALID_ARGUMENT"),
            ({"image": photo, **click(9999, 1)}, "INVALID_ARGUMENT"),
            ({"embedding_id": np.array([b"0" * 64], np.object_), **click(1, 1)}, "NOT_FOUND"),
        ):
            with pytest.raises(InferenceServerException) as found:
                ask(client, wrong)
            assert found.value.status() == f"StatusCode.{status}" and "hint:" in found.value.message()


def test_a_real_server_answers_many_clients_and_drops_old_embeddings(
    start: Callable[..., Any], predictor: SamPredictor, picture: Uint8Array
) -> None:
    photos = [np.ascontiguousarray(np.roll(picture, 40 * i, axis=1)) for i in range(3)]
    size = predictor.embedding.nbytes
    with start(cache_bytes=2 * size + size // 2) as (client, _):

        def go(i: int) -> dict[str, Array]:
            return ask(client, {"image_rgb": photos[i % 3], **boxes((180, 220, 330, 380))})

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(go, range(18)))
        for i, answer in enumerate(answers):
            other = SamPredictor(predictor.model)
            if i < 3:
                other.set_image(photos[i])
                expected = other.predict(box=np.array([180, 220, 330, 380]))
                masks = np.unpackbits(answer["masks"][0], axis=-1, count=475).astype(np.bool_)
                assert [mask_iou(a, b) for a, b in zip(masks, expected.masks, strict=True)] == [1.0] * 3
            assert np.array_equal(answer["masks"], answers[i % 3]["masks"])
        for photo in photos:
            key = ask(client, {"image_rgb": photo}, "embedding_id")["embedding_id"]
        first = answers[0]["embedding_id"]
        with pytest.raises(InferenceServerException, match="not any more"):
            ask(client, {"embedding_id": first, **click(1, 1)})
        assert ask(client, {"embedding_id": key, **click(240, 300)}, "iou_predictions")["iou_predictions"].shape == (
            1,
            3,
        )


def test_a_real_server_that_is_stopped_ends_in_time(start: Callable[..., Any], picture: Uint8Array) -> None:
    with start() as (client, server), ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(
                ask, client, {"image_rgb": np.ascontiguousarray(np.roll(picture, i, axis=0)), **click(240, 300)}
            )
            for i in range(4)
        ]
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        assert server.wait(ANSWER_S) == 0
        for job in jobs:
            try:
                assert job.result(ANSWER_S)["masks"].shape[:2] == (1, 3)
            except InferenceServerException as error:
                assert "UNAVAILABLE" in str(error.status()) or "INTERNAL" in str(error.status())
