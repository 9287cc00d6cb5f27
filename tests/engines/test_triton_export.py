"""`boothsam export-triton`: configurations by Triton's own schema, held against ONNX Runtime's view of the graphs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from boothsam.engines.triton import Settings, export_repository
from boothsam.engines.triton_config import Configuration, Tensor
from boothsam.runtime.errors import IntegrityError, ManifestError, ModelError, OptionError, OutputError, ProofError
from boothsam.runtime.manifest import ModelManifest, record_files
from boothsam.runtime.store import starter_folder
from boothsam.service.cli import app
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner

from tests.engines.triton_stand_in import ORT, Server, dtype_of, read_config

Run = Callable[..., Any]
GRAPHS = ("encoder", "decoder", "decoder_mask")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def copied(color_folder: Path, tmp_path: Path) -> Path:
    """A model folder to spoil."""
    return Path(shutil.copytree(color_folder, tmp_path / "model"))


def rewrite(folder: Path, **changes: Any) -> ModelManifest:
    """The manifest with some entries changed and the files hashed anew."""
    manifest = dataclasses.replace(ModelManifest.load(folder), files=record_files(folder), **changes)
    manifest.save(folder)
    return manifest


def move_weights_out(folder: Path) -> Path:
    """Give the decoder external data; the file of it."""
    model = onnx.load(folder / "decoder.onnx")
    for tensor in model.graph.initializer:  # only raw bytes go outside, and shapes have to stay
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    data = folder / "decoder.onnx.data"
    onnx.save_model(
        model, str(folder / "decoder.onnx"), save_as_external_data=True, location=data.name, size_threshold=0
    )
    rewrite(folder)
    return data


def test_the_command_writes_what_triton_reads(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "some" / "repository"
    result = run("export-triton", "starter", "-o", out)
    assert result.exit_code == 0 and result.stdout == f"{out}\n"
    assert "starter_decoder_mask" in result.stderr and "README.md" in result.stderr
    manifest = ModelManifest.load(starter_folder())
    models = ["starter", *(f"starter_{graph}" for graph in GRAPHS)]
    assert sorted(path.name for path in out.iterdir()) == sorted(["README.md", "SHA256SUMS", *models])
    for name in models:
        config = read_config(out / name / "config.pbtxt")
        assert list(config.version_policy.specific.versions) == [1] and config.max_batch_size == 0
        assert not config.HasField("dynamic_batching") and not config.HasField("sequence_batching")
        assert {g.count for g in config.instance_group} == {1}
        assert config.parameters["model_key"].string_value == manifest.key
    for graph in GRAPHS:
        config = read_config(out / f"starter_{graph}" / "config.pbtxt")
        file = out / f"starter_{graph}" / "1" / f"{graph}.onnx"
        assert config.default_model_filename == file.name
        assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
        (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
        session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
        for ours, theirs in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            assert [(t.name, dtype_of(t), list(t.dims)) for t in ours] == [
                (n.name, ORT[n.type], [side if isinstance(side, int) else -1 for side in n.shape]) for n in theirs
            ]
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        assert config.parameters[f"sha256_{file.name}"].string_value == found == manifest.files[file.name].sha256
    front = read_config(out / "starter" / "config.pbtxt")
    assert front.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    assert all(tensor.optional for tensor in front.input) and not front.HasField("optimization")


def test_sums_cover_every_file(color_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    export_repository(color_folder, out)
    listed = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file() and p.name != "SHA256SUMS"}
    assert listed == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def test_the_same_model_gives_the_same_bytes(color_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_repository(color_folder, tmp_path / name)
    assert (tmp_path / "one" / "SHA256SUMS").read_bytes() == (tmp_path / "two" / "SHA256SUMS").read_bytes()


def test_on_a_cpu_no_gpu_is_asked_for(color_folder: Path, tmp_path: Path) -> None:
    export_repository(color_folder, tmp_path / "out", device="cpu")
    for path in (tmp_path / "out").glob("*/config.pbtxt"):
        config = read_config(path)
        assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
        assert not config.HasField("optimization")
    assert "--gpus" not in (tmp_path / "out" / "README.md").read_text()


def test_plans_are_left_to_the_server_with_the_commands(color_folder: Path, tmp_path: Path) -> None:
    out, limits = tmp_path / "out", Settings(max_prompts=5, max_points=9)
    export_repository(color_folder, out, name="booth", backend="tensorrt", settings=limits)
    text = (out / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^trtexec .*$", text, re.MULTILINE)
    assert len(commands) == len(GRAPHS)
    for graph, command in zip(GRAPHS, commands, strict=True):
        config = text_format.Parse(
            (out / f"booth_{graph}" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
        )
        assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
        assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
        words = dict(word.lstrip("-").partition("=")[::2] for word in command.split()[1:])
        assert {"stronglyTyped", "noTF32"} <= words.keys() and not {"fp16", "int8", "best"} & words.keys()
        assert (out / words["onnx"]).read_bytes() == (color_folder / f"{graph}.onnx").read_bytes()
        assert words["saveEngine"] == f"booth_{graph}/1/{config.default_model_filename}"
        free = {tensor.name: list(tensor.dims) for tensor in config.input if -1 in tensor.dims}
        for option, prompts, points in (("min", 1, 0), ("opt", 5, 2), ("max", 5, 9)):
            given = words.get(f"{option}Shapes", "")
            shapes = dict(part.split(":") for part in given.split(",")) if given else {}
            assert shapes.keys() == free.keys()
            for name, shape in shapes.items():
                sides = [int(side) for side in shape.split("x")]
                filled = iter((prompts, points))
                assert sides == [next(filled) if side == -1 else side for side in free[name]]


def test_external_data_lies_beside_its_graph(copied: Path, tmp_path: Path) -> None:
    move_weights_out(copied)
    export_repository(copied, tmp_path / "out", device="cpu")
    place = tmp_path / "out" / "color_decoder"
    assert sorted(p.name for p in (place / "1").iterdir()) == ["decoder.onnx", "decoder.onnx.data"]
    found = hashlib.sha256((place / "1" / "decoder.onnx.data").read_bytes()).hexdigest()
    assert read_config(place / "config.pbtxt").parameters["sha256_decoder.onnx.data"].string_value == found
    server = Server(tmp_path / "out")
    image = np.full((60, 90, 3), 30, np.uint8)
    answer = server.infer("color", {"image_rgb": image, "box": np.array([[10, 10, 50, 50]], np.float32)})
    assert answer["masks"].any()
    server.close()


def test_nothing_is_overwritten_and_nothing_is_left_behind(copied: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OutputError, match="never overwritten"):
        export_repository(copied, out)
    out.rmdir()
    (copied / "decoder_mask.onnx").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"decoder_mask\.onnx"):
        export_repository(copied, out)
    rest = copied / "encoder.onnx"
    shutil.copyfile(copied / "decoder.onnx", copied / "decoder_mask.onnx")
    rest.unlink()
    result = run("export-triton", copied, "-o", out)
    assert result.exit_code == 1 and "encoder.onnx" in result.stderr and "hint:" in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("model", "boothsam-home")] == []


def test_a_copy_that_goes_wrong_leaves_nothing(copied: Path, tmp_path: Path) -> None:
    weights = move_weights_out(copied)
    weights.write_bytes(weights.read_bytes()[:-1])  # read last, and only while it is copied
    with pytest.raises(IntegrityError, match=r"decoder\.onnx\.data"):
        export_repository(copied, tmp_path / "out")
    weights.unlink()
    with pytest.raises(IntegrityError, match=r"decoder\.onnx\.data"):
        export_repository(copied, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("model", "boothsam-home")] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--name", "../out"), "expected up to 100 letters"),
        (("--name", ""), "expected up to 100 letters"),
        (("--precision", "fp16"), "no precision 'fp16'"),
        (("--platform", "openvino"), "onnxruntime or tensorrt"),
        (("--device", "tpu"), "gpu or cpu"),
        (("--platform", "tensorrt", "--device", "cpu"), "GPUs only"),
    ],
)
def test_options_that_make_no_sense(
    color_folder: Path, tmp_path: Path, run: Run, words: tuple[str, ...], message: str
) -> None:
    result = run("export-triton", color_folder, "-o", tmp_path / "out", *words)
    assert result.exit_code == 2 and message in result.stderr and not (tmp_path / "out").exists()


def test_an_output_is_needed_and_help_says_what_it_does(run: Run) -> None:
    result = run("export-triton", "starter")
    assert result.exit_code == 2 and "hint: -o triton/NAME" in result.stderr
    assert "boothsam serve" in run("export-triton", "--help").stdout
    with pytest.raises(OptionError, match="found max_points 1; expected 2 or more"):
        Settings(max_points=1)


def test_a_reduced_precision_needs_its_proof(copied: Path, tmp_path: Path) -> None:
    graphs = {graph: f"{graph}.fp16.onnx" for graph in GRAPHS}
    for graph, file in graphs.items():
        shutil.copyfile(copied / f"{graph}.onnx", copied / file)
    fp32 = dict(ModelManifest.load(copied).graphs["fp32"])
    manifest = rewrite(copied, graphs={"fp32": fp32, "fp16": graphs})
    with pytest.raises(ProofError, match="no proof was made"):
        export_repository(copied, tmp_path / "out", precision="fp16")
    proof: dict[str, Any] = {
        "format": 1, "kind": "reduced precision", "precision": "fp16", "numerics": "simulated", "device": "simulated",
        "files": {file: manifest.files[file].sha256 for file in graphs.values()}, "passed": False, "failures": ["bad"],
    }  # fmt: skip
    path = copied / "proof" / f"{manifest.files[graphs['encoder']].sha256}-simulated.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(proof))
    with pytest.raises(ProofError, match="its proof failed"):
        export_repository(copied, tmp_path / "out", precision="fp16")
    path.write_text(json.dumps({**proof, "passed": True, "failures": []}))
    export_repository(copied, tmp_path / "out", precision="fp16")
    assert "fp16 was proven on: simulated" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "color_encoder" / "1" / "encoder.fp16.onnx").is_file()


def test_a_model_whose_graphs_do_not_fit_is_refused(copied: Path, tmp_path: Path) -> None:
    good = ModelManifest.load(copied)
    rewrite(copied, embedding=(*good.embedding, "features_99"))
    with pytest.raises(ManifestError, match="features_99"):
        export_repository(copied, tmp_path / "out")
    rewrite(copied, embedding=good.embedding)
    (copied / "decoder.onnx").write_bytes((copied / "decoder_mask.onnx").read_bytes())
    rewrite(copied)
    with pytest.raises(ManifestError, match="mask_input"):
        export_repository(copied, tmp_path / "out")
    (copied / "decoder.onnx").write_bytes(b"\x01no graph")
    rewrite(copied)
    with pytest.raises(ModelError, match="is no ONNX graph"):
        export_repository(copied, tmp_path / "out")


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_any_text_survives_the_text_format(name: str, value: str) -> None:
    tensor = Tensor(name, "float32", (1, -1))
    parameters: Mapping[str, str] = {value: name}
    made = Configuration(name, "python", value, (tensor,), (tensor,), False, 7, parameters=parameters)
    config = text_format.Parse(made.to_pbtxt(), model_config_pb2.ModelConfig())
    assert (config.name, config.default_model_filename, config.input[0].name) == (name, value, name)
    assert config.parameters[value].string_value == name and list(config.output[0].dims) == [1, -1]
