"""All frames of one product on a turntable: each with a mask of its own, all with one box, one scale and one canvas.

Two passes, so that never more than one photo is held: the first asks the model and keeps the small logits, the second
cuts out. Between them every frame's box is compared with the median of its neighbours' (a spin is a ring: the last
frame stands beside the first); a frame far from it is asked again with the neighbours' box. Neither such
a frame nor one that remains far counts for the common box, so that one bad frame does not make the whole spin small.
But a handle that is seen from the side is no mistake: half a turn later the outline is the same, mirrored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from boothsam.runtime.cutout import CutOut
from boothsam.runtime.errors import ImageError, NothingFound, OptionError
from boothsam.runtime.images import encode_image, write_atomic
from boothsam.runtime.masks import box_iou
from boothsam.runtime.model import SamModel
from boothsam.runtime.transforms import Size, Uint8Array, mask_window
from boothsam.service.console import explain
from boothsam.service.cropping import Look, ask_model, read_photo
from boothsam.service.outputs import make_parent
from boothsam.service.prompts import Answer, Request
from boothsam.service.shadow import on_canvas_with_shadow

Box = tuple[int, int, int, int]
Verdict = Literal["ok", "asked_again", "confirmed", "outlier", "failed"]
FAR = 0.3  # a side farther from the neighbours' than this share of their longer side makes a frame an outlier
MIRRORED = 0.1  # the same, from the mirrored box of the frame half a turn away, that speaks for a frame
SAME = 0.7  # IoU of two answers' boxes that confirm each other
_NEIGHBOURS = 2  # on either side
_ROOM = 0.05  # around the neighbours' box when a frame is asked again
_EDGE = 3 / 128  # of the photo's longest side: how far a soft edge reaches beyond its mask
_DIGITS = re.compile(r"(\d+)")


@dataclass
class Frame:
    """One photo of the set on its way. box_xyxy: of its mask, x1 and y1 exclusive."""

    photo: Path
    output: Path
    answer: Answer | None = None
    size_hw: Size | None = None
    box_xyxy: Box | None = None
    verdict: Verdict = "ok"
    error: Exception | None = None
    written_hw: Size | None = None

    def record(self) -> dict[str, Any]:
        """For JSON."""
        facts: dict[str, Any] = {"photo": str(self.photo), "verdict": self.verdict}
        facts["box_xyxy"] = None if self.box_xyxy is None else list(self.box_xyxy)
        if self.answer is not None:
            facts["predicted_iou"] = round(float(self.answer.iou_predictions[self.answer.best]), 4)
        if self.written_hw is not None:
            facts |= {"output": str(self.output), "size_hw": list(self.written_hw)}
        if self.error is not None:
            message, hint = explain(self.error)
            facts["error"] = {"type": type(self.error).__name__, "message": message, "hint": hint}
        return facts


@dataclass
class Spin:
    """What a set came to. common_xyxy: what all pictures show, in photo pixels; None where every frame failed."""

    frames: list[Frame] = field(default_factory=list)
    common_xyxy: Box | None = None

    def record(self, folder: Path, model: SamModel) -> dict[str, Any]:
        """For JSON."""
        return {
            "set": str(folder),
            "common_box_xyxy": None if self.common_xyxy is None else list(self.common_xyxy),
            "frames": [frame.record() for frame in self.frames],
            "model": model.manifest.name,
            "backend": model.backend,
            "precision": model.precision,
        }


def natural(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sorting key by which frame 9 comes before frame 10."""
    parts = _DIGITS.split(path.name.casefold())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part], path.name


def check_set(request: Request, look: Look) -> None:
    """Raises OptionError for what has no meaning for a set: several products, or a shadow without a canvas."""
    if len(request.boxes) > 1 or request.detections is not None:
        raise OptionError(
            "a set shows one product; found several boxes or a detector's", hint="give one --box, --plate or --auto"
        )
    if look.preset is not None:
        raise OptionError("--preset and --set exclude each other", hint="give --size, --fill and --background instead")
    if look.shadow != "none" and not _on_canvas(look):
        raise OptionError("a shadow in a set needs a canvas of one size", hint="add --fill 0.85 or --size 1000")


def crop_set(
    model: SamModel,
    photos: Sequence[Path],
    outputs: Sequence[Path],
    request: Request,
    look: Look,
    over: Callable[[Sequence[Frame], str], Iterable[Frame]] = lambda frames, what: frames,
) -> Spin:
    """Cut out every frame and write its picture.

    photos: in the order of the spin. over: wraps the frames of each pass, for a progress line. A frame that fails has
    an error and stops no other. Raises what `check_set` raises.
    """
    check_set(request, look)
    spin = Spin([Frame(photo, output) for photo, output in zip(photos, outputs, strict=True)])
    for frame in over(spin.frames, "asking"):
        _ask(model, frame, request, spin)
    suspects = [(frame, ref) for i, frame in enumerate(spin.frames) if (ref := _reference(spin.frames, i)) is not None]
    suspects = [(f, ref) for f, ref in suspects if f.box_xyxy is None or _distance(f.box_xyxy, ref) > FAR]
    for frame in _mirrored(spin.frames):
        if any(frame is suspect for suspect, _ in suspects):
            frame.verdict = "confirmed"
    suspects = [(f, ref) for f, ref in suspects if f.verdict != "confirmed"]
    for frame, reference in suspects:
        _ask_again(model, frame, reference, request, spin)
    found = [f for f in spin.frames if f.box_xyxy is not None and f.error is None]
    sure = [f for f in found if f.verdict in ("ok", "confirmed")]
    kept = [f.box_xyxy for f in sure or found]
    if not kept:
        return spin
    boxes = np.array(kept)
    x0, y0 = boxes[:, :2].min(0).tolist()
    x1, y1 = boxes[:, 2:].max(0).tolist()
    spin.common_xyxy = (x0, y0, x1, y1)
    for frame in over([f for f in spin.frames if f.error is None], "cutting out"):
        _write(model, frame, spin.common_xyxy, look)
    return spin


def _ask(model: SamModel, frame: Frame, request: Request, spin: Spin) -> None:
    try:
        photo = read_photo(frame.photo, model)
        size_hw = (photo.image.shape[0], photo.image.shape[1])
        known = next((f.size_hw for f in spin.frames if f.size_hw is not None), None)
        if known is not None and size_hw != known:
            raise ImageError(
                f"{frame.photo} has {size_hw[1]}x{size_hw[0]} pixels; the set's first photo has {known[1]}x{known[0]}",
                hint="take all frames of a set with the same camera settings",
            )
        frame.size_hw = size_hw
        frame.answer = ask_model(model, photo, request, frame.photo, only=True)[0]
        frame.box_xyxy = _box(frame.answer, size_hw)
    except Exception as error:
        frame.error, frame.verdict = error, "failed"


def _ask_again(
    model: SamModel, frame: Frame, reference: tuple[float, float, float, float], request: Request, spin: Spin
) -> None:
    """Once more, with the neighbours' box; but where a plate says that nothing stands there, nothing is looked for."""
    by_plate = request.plate is not None
    if frame.error is not None and (by_plate or not isinstance(frame.error, NothingFound)):
        return
    x0, y0, x1, y1 = reference
    room = _ROOM * max(x1 - x0, y1 - y0)
    second = Frame(frame.photo, frame.output)
    _ask(model, second, Request(boxes=((x0 - room, y0 - room, x1 + room, y1 + room),)), spin)
    fits = second.box_xyxy is not None and _distance(second.box_xyxy, reference) <= FAR
    if by_plate and frame.answer is not None and second.answer is not None:
        # A box makes the model answer with something even where the plate says that the product stands elsewhere.
        fits = fits and not _apart(second.answer, frame.answer)
    if fits:
        frame.answer, frame.box_xyxy, frame.error = second.answer, second.box_xyxy, None
        frame.verdict = "asked_again"
        return
    if frame.box_xyxy is not None:
        frame.verdict = "outlier"
        if second.box_xyxy is not None:
            pair = np.array([frame.box_xyxy, second.box_xyxy], np.float64)
            if box_iou(pair[:1], pair[1:])[0, 0] > SAME:
                frame.verdict = "confirmed"


def _reference(frames: Sequence[Frame], index: int) -> tuple[float, float, float, float] | None:
    """The median box of the neighbours; None where fewer than two are known."""
    count = len(frames)
    steps = [step for step in range(-_NEIGHBOURS, _NEIGHBOURS + 1) if step]
    near = dict.fromkeys((index + step) % count for step in steps)
    boxes = [box for i in near if i != index and (box := frames[i].box_xyxy) is not None]
    if len(boxes) < 2:
        return None
    x0, y0, x1, y1 = (float(v) for v in np.median(np.array(boxes), 0))
    return x0, y0, x1, y1


def _mirrored(frames: Sequence[Frame]) -> list[Frame]:
    """The frames whose box is that of the frame half a turn away, mirrored on the table's axis."""
    half = len(frames) // 2
    if len(frames) % 2 or half < 2:
        return []
    pairs = [(one, frames[(i + half) % len(frames)]) for i, one in enumerate(frames)]
    known = [(one, one.box_xyxy, other.box_xyxy) for one, other in pairs]
    both = [(one, box, other) for one, box, other in known if box is not None and other is not None]
    if len(both) < 4:
        return []
    axis = float(np.median([(box[0] + other[2]) / 2 for _, box, other in both]))
    found = [(one, box, (2 * axis - other[2], other[1], 2 * axis - other[0], other[3])) for one, box, other in both]
    return [one for one, box, mirrored in found if _distance(box, mirrored) <= MIRRORED]


def _apart(answer: Answer, first: Answer) -> bool:
    """Whether most of an answer lies outside an earlier one."""
    mask = answer.logits > 0
    return float((first.logits > 0)[mask].mean()) < 0.5


def _distance(box: Sequence[float], reference: Sequence[float]) -> float:
    side = max(reference[2] - reference[0], reference[3] - reference[1])
    return float(np.abs(np.subtract(box, reference)).max() / max(1.0, side))


def _box(answer: Answer, size_hw: Size) -> Box:
    """The mask's box in photo pixels, inside the prompt's limits. Raises NothingFound."""
    window = mask_window(answer.logits, size_hw, 0.0)
    assert window is not None  # answer.logits has a positive pixel
    limits = answer.limits or (0, 0, size_hw[1], size_hw[0])
    x0, y0 = max(window[0], int(limits[0])), max(window[1], int(limits[1]))
    x1, y1 = min(window[2], int(np.ceil(limits[2]))), min(window[3], int(np.ceil(limits[3])))
    if x1 <= x0 or y1 <= y0:
        raise NothingFound("the mask lies outside the box it was asked with", hint="give a box around the product")
    return x0, y0, x1, y1


def _write(model: SamModel, frame: Frame, common: Box, look: Look) -> None:
    assert frame.answer is not None
    try:
        image = read_photo(frame.photo, model).image
        picture = _picture(look.cut(image, frame.answer), common, look)
        make_parent(frame.output)
        write_atomic(frame.output, encode_image(picture, look.format, quality=look.quality))
        frame.written_hw = (picture.shape[0], picture.shape[1])
    except Exception as error:
        frame.error, frame.verdict = error, "failed"


def _picture(cut: CutOut, common: Box, look: Look) -> Uint8Array:
    """The picture that shows the common box, whatever this frame's own box is."""
    framed = _framed(cut, common)
    if not _on_canvas(look):
        return framed.rgba
    return on_canvas_with_shadow(framed, look.shadow, look.background, look.size, look.fill, look.margin, common)


def _on_canvas(look: Look) -> bool:
    return not look.transparent or (look.fill, look.margin, look.size) != (None, None, None)


def _framed(cut: CutOut, common: Box) -> CutOut:
    """The cut-out in the window of the common box and its soft edge: of one size for all frames, so that scaling rounds
    alike for all of them.
    """
    height, width = cut.original_hw
    room = int(np.ceil(_EDGE * max(height, width)))
    x0, y0 = max(0, common[0] - room), max(0, common[1] - room)
    x1, y1 = min(width, common[2] + room), min(height, common[3] + room)
    rgba = np.zeros((y1 - y0, x1 - x0, 4), np.uint8)
    cx0, cy0, cx1, cy1 = cut.window_xyxy
    left, top, right, bottom = max(x0, cx0), max(y0, cy0), min(x1, cx1), min(y1, cy1)
    if right > left and bottom > top:
        inside = cut.rgba[top - cy0 : bottom - cy0, left - cx0 : right - cx0]
        rgba[top - y0 : bottom - y0, left - x0 : right - x0] = inside
    return CutOut(rgba, (x0, y0, x1, y1), cut.original_hw)
