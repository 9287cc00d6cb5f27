"""`boothsam distill`: photos and a teacher in, a model folder out that carries its proof.

A work folder beside the model holds the teacher's labels (one file per photo, found again by the photo's sha256), the
last checkpoint and a log. The same command run again goes on where it was; nothing is asked of the teacher twice.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from boothsam.export.parity import drawn_photos
from boothsam.runtime.errors import CheckpointError, ImageError, NothingFound, OptionError, OutputError
from boothsam.runtime.images import load_image
from boothsam.runtime.manifest import FILE_NAME, ModelManifest
from boothsam.training.agreement import Agreement, agreement
from boothsam.training.distill_train import DistillConfig, DistillTrainer, StepLosses, batches, read_student
from boothsam.training.export import write_model
from boothsam.training.photos import PHOTO_SUFFIXES
from boothsam.training.student import Student
from boothsam.training.teacher import Teacher, label_photo, load_teacher

Say = Callable[[str], None]

MIN_PHOTOS = 2  # one to learn from, one to be judged on
NOTICE = """\
{name}: a boothsam student, trained on {photos} photos from the answers of {teacher} ({key}).

Licence of the weights: {licence}. The teacher's licence is {teacher_licence}; what that and the rights in the photos
allow is for whoever trained this model to know. The photos in golden/ are free to use: drawn by boothsam, and a smaller
copy of its CC0 demo photo.
"""


@dataclass(frozen=True)
class Distilled:
    """The model that was written, and its agreement with the teacher on held-out photos before and after."""

    manifest: ModelManifest
    before: Agreement
    after: Agreement


@dataclass(frozen=True)
class Labelled:
    """Label files of photos with masks: to train on, and held out."""

    training: tuple[Path, ...]
    held_out: tuple[Path, ...]
    channels: int  # of the teacher's embedding


def distill(
    teacher: Path,
    photos: Sequence[Path],
    out: Path,
    config: DistillConfig,
    *,
    teacher_variant: str | None = None,
    backend: str = "auto",
    start_from: Path | None = None,
    work: Path | None = None,
    name: str | None = None,
    licence: str = "unknown",
    force: bool = False,
    progress: Say,
) -> Distilled:
    """Train the student on the photos below some folders and write it to `out`.

    Args:
        teacher: a SAM checkpoint, or an exported model folder.
        photos: folders, searched through.
        out: the model folder to make.
        config: see `DistillConfig`.
        teacher_variant: of a checkpoint, as `load_checkpoint` takes it; None tells the published ones apart.
        backend: what a teacher that is a model folder runs on.
        start_from: a checkpoint of an earlier training, to begin with its averaged weights.
        work: labels, checkpoint and log; by default `out` with ".work" added.
        name: the model's name, by default that of the folder.
        licence: of the new weights.
        force: replace a model folder that exists.
        progress: called with a line for people.

    Raises:
        OptionError: no photos, or a work folder of another run. OutputError: `out` exists.
        CheckpointError, ModelError, BackendUnavailable: the teacher or `start_from`.
        NothingFound: the teacher finds nothing, or too little, on the photos.
    """
    out = out.absolute()
    _check_out(out, force)
    start = None
    if start_from is not None:
        student, start = read_student(start_from)
        config = replace(config, student=student)
    paths = _list_photos(photos)
    work = work or out.with_name(f"{out.name}.work")
    if config.threads:
        torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    progress(f"teacher {teacher}")
    asked = load_teacher(teacher, teacher_variant, backend)
    labelled = label_all(asked, paths, work, config, progress)
    asked.model.close()
    facts = _facts(asked, labelled, config, start_from)
    trainer = DistillTrainer(config, labelled.channels, start)
    before = agreement(trainer.average, labelled.held_out, config.side)
    progress(f"before, {len(labelled.held_out)} held-out photos: {before}")
    train(trainer, labelled.training, work, facts, progress)
    after = agreement(trainer.average, labelled.held_out, config.side)
    progress(f"after {trainer.step} steps: {after}")
    origin = {
        "teacher": asked.name,
        "teacher_key": asked.key,
        "photos": len(labelled.training),
        "steps": trainer.step,
        "training_seconds": round(trainer.seconds),
        "agreement_before": before.to_dict(),
        "agreement": after.to_dict(),
        "torch": torch.__version__,
    }
    progress("exporting, and comparing ONNX with PyTorch")
    notice = NOTICE.format(
        name=name or out.name,
        photos=len(labelled.training),
        teacher=asked.name,
        key=asked.key[:16],
        licence=licence,
        teacher_licence=asked.licence,
    )
    manifest = _publish(trainer.average.cpu(), out, name or out.name, licence, origin, notice)
    return Distilled(manifest, before, after)


def _check_out(out: Path, force: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise OutputError(f"{out} exists already", hint="give another -o, or --force to replace the model in it")
    if not (out / FILE_NAME).is_file():
        raise OutputError(f"{out} holds no {FILE_NAME}: only a model folder is replaced", hint="give another -o")


def _list_photos(folders: Sequence[Path]) -> list[Path]:
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing or not folders:
        found = f"{missing[0]} is no folder" if missing else "no folder was given"
        raise OptionError(f"{found}, expected one with photos", hint="boothsam distill ... --photos FOLDER")
    paths = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
    if len(paths) < MIN_PHOTOS:
        raise OptionError(
            f"{len(paths)} photos in {', '.join(map(str, folders))}, expected at least {MIN_PHOTOS}, better hundreds",
            hint=f"--photos takes folders with files that end in {', '.join(sorted(PHOTO_SUFFIXES))}",
        )
    return paths


def label_all(teacher: Teacher, paths: Sequence[Path], work: Path, config: DistillConfig, progress: Say) -> Labelled:
    """Ask the teacher about every photo that it has not labelled before, and choose what is held out.

    Raises:
        NothingFound: too few photos with masks, or too few masks.
    """
    settings = json.dumps(asdict(config.labels), sort_keys=True)
    folder = work / "labels" / f"{teacher.key[:12]}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[Path, int] = {}
    channels, started = 0, time.perf_counter()
    for index, path in enumerate(paths):
        file = folder / f"{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.npz"
        if not file.is_file():
            try:
                image = load_image(path)
            except ImageError as error:
                progress(f"left out: {error.message}")
                continue
            label_photo(teacher, image, config.labels).save(file)
        with np.load(file) as data:
            counts[file] = len(data["object_scores"])
            channels = int(data["embedding"].shape[0])
        left = (time.perf_counter() - started) / (index + 1) * (len(paths) - index - 1)
        progress(f"photo {index + 1} of {len(paths)}: {path.name}, {counts[file]} masks, {_duration(left)} left")
    usable = sorted(file for file, count in counts.items() if count)
    total = sum(counts.values())
    if len(usable) < MIN_PHOTOS or total < config.min_masks:
        asked = config.labels
        raise NothingFound(
            f"the teacher {teacher.name} is sure of {total} masks on {len(usable)} of {len(counts)} photos (predicted "
            f"IoU >= {asked.min_predicted_iou}, stability >= {asked.min_stability}); expected at least "
            f"{config.min_masks} on {MIN_PHOTOS}",
            hint="give more photos, or lower min_predicted_iou and min_stability under [labels] of a --config file",
        )
    # By the photo's own hash, so that more photos later move none from one side to the other; never all or none.
    count = sum(int(file.name[:8], 16) < config.hold_out * 2**32 for file in usable)
    count = min(max(count, 1), len(usable) - 1)
    held_out, training = usable[:count], usable[count:]  # sorted by hash: those below the bound come first
    progress(f"{total} masks; {len(training)} photos to train on, {len(held_out)} held out")
    return Labelled(tuple(training), tuple(held_out), channels)


def _facts(teacher: Teacher, labelled: Labelled, config: DistillConfig, start_from: Path | None) -> dict[str, str]:
    """What must be equal for a run to go on; how long and how often to save may change."""
    free = {"steps", "checkpoint_every", "threads", "device"}
    settings = {key: value for key, value in asdict(config).items() if key not in free}
    photos = "\n".join(file.name for file in (*labelled.training, *labelled.held_out))
    return {
        "teacher": teacher.key,
        "photos": hashlib.sha256(photos.encode()).hexdigest(),
        "start": hashlib.sha256(start_from.read_bytes()).hexdigest() if start_from else "",
        "configuration": json.dumps(settings, sort_keys=True),
    }


def train(trainer: DistillTrainer, files: Sequence[Path], work: Path, facts: Mapping[str, str], progress: Say) -> None:
    """To the last step, on from the checkpoint in `work` if there is one; writes it and log.csv as it goes.

    Raises:
        OptionError: the checkpoint belongs to another run.
    """
    config, checkpoint = trainer.config, work / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.load(_own_state(checkpoint, facts))
        progress(f"going on after step {trainer.step} of {checkpoint}")
    before, start, first = trainer.seconds, time.perf_counter(), trainer.step
    every = max(1, min(config.checkpoint_every, config.steps // 10))
    for batch in batches(config, files, first):
        losses = trainer.train_step(batch)
        elapsed = time.perf_counter() - start
        trainer.seconds = before + elapsed
        _log(work / "log.csv", trainer, losses)
        done = trainer.step == config.steps
        if done or trainer.step % config.checkpoint_every == 0:
            trainer.save(checkpoint, facts)
        if done or trainer.step % every == 0:
            left = elapsed / (trainer.step - first) * (config.steps - trainer.step)
            progress(
                f"step {trainer.step} of {config.steps}: loss {losses.total:.3f}, masks {losses.mask:.3f}, embedding "
                f"{losses.embedding:.3f}, {_duration(left)} left"
            )


def _own_state(checkpoint: Path, facts: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        state: Mapping[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
        found = state["facts"]
    except Exception as error:  # torch raises whatever its zip and pickle readers stumble over
        raise CheckpointError(
            f"{checkpoint} is no checkpoint of a distillation ({type(error).__name__})",
            hint=f"rm {checkpoint} starts the training afresh; the teacher's labels stay",
        ) from None
    other = [name for name, value in facts.items() if found.get(name) != value]
    if other:
        raise OptionError(
            f"{checkpoint} belongs to a run with another {', another '.join(other)}",
            hint=f"give another --work, or rm {checkpoint} to start the training afresh; the teacher's labels stay",
        )
    return state


def _log(path: Path, trainer: DistillTrainer, losses: StepLosses) -> None:
    row = {"step": str(trainer.step), "seconds": f"{trainer.seconds:.1f}"} | {
        key: "" if math.isnan(value) else f"{value:.4f}" for key, value in asdict(losses).items()
    }
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def _publish(
    student: Student, out: Path, name: str, licence: str, origin: Mapping[str, Any], notice: str
) -> ModelManifest:
    """The exported and proven folder at `out`: all of it or nothing."""
    demo = load_image(package_files("boothsam.runtime.demo").joinpath("coffee.jpg").read_bytes())[::2, ::2].copy()
    golden = {"drawn": drawn_photos()["landscape"], "coffee": demo}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            model = scratch / "model"
            model.mkdir()
            (model / "NOTICE.md").write_text(notice, encoding="utf-8")
            manifest = write_model(student.eval(), model, name=name, licence=licence, origin=origin, photos=golden)
            if out.exists():
                out.replace(scratch / "before")
            model.replace(out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error})", hint="check free space and rights") from None
    return manifest


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{round(seconds)} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
