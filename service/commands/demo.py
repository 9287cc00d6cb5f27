"""`boothsam demo`: the bundled photo cut out by box and by click, with the time of each stage."""

from __future__ import annotations

import platform
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from boothsam.service import options
from boothsam.service.console import print_json, say
from boothsam.service.stages import Stages

if TYPE_CHECKING:
    from boothsam.runtime.model import ImageEmbedding, SamModel
    from boothsam.runtime.transforms import BoolArray, Uint8Array
    from boothsam.service.prompts import Request

PHOTO = "coffee.jpg"
BOX = "168,12,414,314"  # the cup without its saucer
CLICK = "277,110"  # the coffee in it
SPECK = 0.005  # share of the photo: smaller holes and loose pieces go, as with --fill-holes --drop-islands


def demo(
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the pictures go; earlier ones are replaced")
    ] = Path("boothsam-demo"),
    model: options.Model = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
) -> None:
    """Cut out the bundled photo of a coffee cup, by box and by click.

    Writes for each the photo with prompt and mask outline, the cut-out on transparent and on white, and says how
    long each stage took.
    """
    from boothsam.runtime.images import load_image
    from boothsam.service.outputs import make_parent
    from boothsam.service.prompts import Request

    stages = Stages()
    with stages.time("load model"):
        loaded = options.load_model(model, backend, precision, threads)
    say(f"model {loaded.manifest.name} on {loaded.backend} in {loaded.precision}{_chosen(backend, loaded.backend)}")
    data = files("boothsam.runtime.demo").joinpath(PHOTO).read_bytes()
    with stages.time("decode JPEG"):
        image = load_image(data)
    with stages.time("resize and encode"):
        frame, size_hw = loaded.preprocess(image)
        embedding = loaded.encode_frame(frame, size_hw, (image.shape[0], image.shape[1]))
    make_parent(out / PHOTO)
    written: list[str] = []
    scores: dict[str, float] = {}
    for name, request in (("box", Request.parse([BOX], None)), ("click", Request.parse(None, [CLICK]))):
        scores[name] = _one(loaded, embedding, image, name, request, out, stages, written)
    embedding.close()
    height, width = image.shape[:2]
    if json:
        print_json({"pictures": written, "predicted_iou": scores, "size_hw": [height, width], "ms": stages.rounded()})
        return
    for path in written:
        typer.echo(path)
    say(f"one photo of {width}x{height}, two prompts, {platform.machine()}, {threads or 'all'} CPU threads:")
    for stage, ms in stages.ms.items():
        say(f"  {stage:<18} {ms:8.1f} ms")


def _chosen(wanted: str, backend: str) -> str:
    """What `auto` passed over on its way, in a few words; each one's reason is a line of doctor's, and of -v."""
    from boothsam.runtime.backends import AUTO_ORDER

    before = AUTO_ORDER[: AUTO_ORDER.index(backend)] if wanted == "auto" else ()
    return f" ({' and '.join(before)} cannot run it here: `boothsam doctor` says why)" if before else ""


def _one(
    model: SamModel,
    embedding: ImageEmbedding,
    image: Uint8Array,
    name: str,
    request: Request,
    out: Path,
    stages: Stages,
    written: list[str],
) -> float:
    """Answer one prompt, write its three pictures; returns the predicted IoU. Stages are summed over the prompts."""
    from boothsam.runtime.cutout import AlphaOptions, cut_out
    from boothsam.runtime.images import encode_image, write_atomic

    speck = round(SPECK * image.shape[0] * image.shape[1])
    with stages.time("decode prompt"):
        (answer,) = request.ask(model, embedding, image, Path(PHOTO), only=True)
    with stages.time("mask and alpha"):
        options = AlphaOptions(fill_holes=speck, drop_islands=speck)
        cut = cut_out(image, answer.logits, box=answer.limits, options=options)
        white = cut.on_canvas("white")
    shown = draw(image, cut.full_alpha >= 128, request)
    for kind, picture, ending in (("outline", shown, "jpg"), ("transparent", cut.rgba, "png"), ("white", white, "jpg")):
        path = out / f"{name}-{kind}.{ending}"
        with stages.time("encode pictures"):
            data = encode_image(picture, ending)
        write_atomic(path, data)
        written.append(str(path))
    return round(float(answer.iou_predictions[answer.best]), 4)


def draw(image: Uint8Array, mask: BoolArray, request: Request) -> Uint8Array:
    """The photo (H, W, 3) with the mask's outline, the prompt's box and clicks: green is product, red background."""
    import cv2
    import numpy as np

    picture: Any = image.copy()
    thickness = max(2, round(max(image.shape) / 300))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for colour, width in (((255, 255, 255), thickness + 2), ((255, 0, 160), thickness)):
        cv2.drawContours(picture, contours, -1, colour, width, cv2.LINE_AA)
    for x0, y0, x1, y1 in request.boxes:
        cv2.rectangle(picture, (round(x0), round(y0)), (round(x1), round(y1)), (0, 160, 255), thickness, cv2.LINE_AA)
    for x, y, label in request.points:
        cv2.circle(picture, (round(x), round(y)), 3 * thickness, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(
            picture, (round(x), round(y)), 2 * thickness, (0, 200, 80) if label else (230, 30, 30), -1, cv2.LINE_AA
        )
    return np.asarray(picture, np.uint8)
