"""Manifests: what they refuse, and that a model file is checked before it is used."""

import json
from pathlib import Path

import pytest
from boothsam.runtime import store
from boothsam.runtime.errors import IntegrityError, ManifestError, ModelNotFound
from boothsam.runtime.manifest import ModelManifest, record_files

GRAPHS = {"encoder": "encoder.onnx", "decoder": "decoder.onnx", "decoder_mask": "decoder_mask.onnx"}


def make(folder: Path, name: str = "toy") -> ModelManifest:
    folder.mkdir(parents=True, exist_ok=True)
    for file in GRAPHS.values():
        (folder / file).write_bytes(file.encode())
    manifest = ModelManifest(
        name,
        "vit_t",
        "Apache-2.0",
        {"fp32": GRAPHS},
        ("image_embedding",),
        record_files(folder),
        origin={"by": "a test"},
    )
    manifest.save(folder)
    return manifest


def test_round_trip(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    again = ModelManifest.load(tmp_path)
    assert again == manifest and again.key == manifest.key and again.to_json() == manifest.to_json()


def test_frozen_to_the_leaves(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    with pytest.raises(AttributeError):
        manifest.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        manifest.files["x"] = manifest.files["encoder.onnx"]  # type: ignore[index]
    with pytest.raises(TypeError):
        manifest.graphs["fp32"]["encoder"] = "decoder.onnx"  # type: ignore[index]


def test_the_key_follows_the_weights_and_nothing_else(tmp_path: Path) -> None:
    first = make(tmp_path / "a").key
    assert make(tmp_path / "b", name="renamed").key == first
    (tmp_path / "a" / "encoder.onnx").write_bytes(b"retrained")
    changed = ModelManifest("toy", "vit_t", "x", {"fp32": GRAPHS}, ("image_embedding",), record_files(tmp_path / "a"))
    assert changed.key != first


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: b.update(format=2), "has format 2, this boothsam reads format 1"),
        (lambda b: b.pop("files"), "lacks or garbles"),
        (lambda b: b.update(files=[1]), "lacks or garbles"),
        (lambda b: b["graphs"]["fp32"].pop("decoder"), "expected encoder, decoder, decoder_mask"),
        (lambda b: b["graphs"]["fp32"].update(extra="encoder.onnx"), "expected encoder"),
        (lambda b: b["graphs"]["fp32"].update(encoder="other.onnx"), "not among its files"),
        (lambda b: b.update(embedding=["features"]), "image_embedding"),
        (lambda b: b["files"].update({"../../etc/passwd": {"sha256": "0", "bytes": 1}}), "leaves the model folder"),
        (lambda b: b["files"].update({"/etc/passwd": {"sha256": "0", "bytes": 1}}), "leaves the model folder"),
    ],
)
def test_bad_manifests(tmp_path: Path, edit: object, message: str) -> None:
    body = json.loads(make(tmp_path).to_json())
    edit(body)  # type: ignore[operator]
    with pytest.raises(ManifestError, match=message):
        ModelManifest.from_json(json.dumps(body))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}"])
def test_what_is_no_manifest(text: str) -> None:
    with pytest.raises(ManifestError, match="no model manifest"):
        ModelManifest.from_json(text)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    assert manifest.read_file(tmp_path, "encoder.onnx") == b"encoder.onnx"
    (tmp_path / "encoder.onnx").write_bytes(b"encoder.onny")
    with pytest.raises(IntegrityError, match=r"encoder\.onnx has 12 bytes with sha256"):
        manifest.read_file(tmp_path, "encoder.onnx")
    (tmp_path / "encoder.onnx").unlink()
    with pytest.raises(IntegrityError, match="No such file"):
        manifest.read_file(tmp_path, "encoder.onnx")


def test_a_file_is_checked_without_being_held(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    manifest.check_file(tmp_path, "encoder.onnx")
    (tmp_path / "encoder.onnx").write_bytes(b"encoder.onny")
    with pytest.raises(IntegrityError, match=r"encoder\.onnx has 12 bytes with sha256"):
        manifest.check_file(tmp_path, "encoder.onnx")
    (tmp_path / "encoder.onnx").unlink()
    with pytest.raises(IntegrityError, match="No such file"):
        manifest.check_file(tmp_path, "encoder.onnx")


def test_models_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    make(tmp_path / "here")
    make(store.home() / "models" / "mine")
    assert store.find_model(tmp_path / "here") == tmp_path / "here"
    assert store.find_model("mine") == store.home() / "models" / "mine"
    assert store.find_model(None) == store.starter_folder()
    assert list(store.installed_models()) == ["starter", "mine"]


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store.home() / "models" / "mine")
    make(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert store.find_model("mine") == Path("mine")


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="installed are starter"):
        store.find_model("mobile_sam")
    with pytest.raises(ModelNotFound, match=r"holds no manifest\.json"):
        store.find_model(tmp_path)
    with pytest.raises(ModelNotFound, match=r"boothsam export VARIANT --checkpoint mobile_sam\.pt"):
        store.find_model("mobile_sam.pt")


def test_a_broken_model_does_not_hide_the_others() -> None:
    broken = store.home() / "models" / "broken"
    make(broken)
    (broken / "manifest.json").write_text("{")
    make(store.home() / "models" / "fine")
    rows = {name: manifest for name, _, manifest in store.list_manifests()}
    assert isinstance(rows["broken"], ManifestError) and isinstance(rows["fine"], ModelManifest)
