"""`boothsam everything`: every object of a photo, without a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from boothsam.runtime.errors import NothingFound, OptionError
from boothsam.service import options
from boothsam.service.console import Progress, print_json, say

if TYPE_CHECKING:
    from boothsam.runtime.automatic import Mode

MODES = ("exact", "fast")


def everything(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A photo: JPEG, PNG or WebP")],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the masks, masks.json and overlay.jpg")
    ],
    mode: Annotated[
        str, typer.Option("--mode", metavar="exact|fast", help="exact: as segment_anything; fast: see below")
    ] = "exact",
    points_per_side: Annotated[
        int, typer.Option("--points-per-side", min=1, max=256, metavar="N", help="Ask a grid of N x N points")
    ] = 32,
    pred_iou_thresh: Annotated[
        float, typer.Option("--pred-iou-thresh", min=0, max=1, metavar="0-1", help="Keep masks predicted better")
    ] = 0.88,
    stability_score_thresh: Annotated[
        float,
        typer.Option("--stability-score-thresh", min=0, max=1, metavar="0-1", help="Keep masks at least as stable"),
    ] = 0.95,
    box_nms_thresh: Annotated[
        float,
        typer.Option("--box-nms-thresh", min=0, max=1, metavar="0-1", help="Boxes that overlap more are duplicates"),
    ] = 0.7,
    crop_n_layers: Annotated[
        int, typer.Option("--crop-n-layers", min=0, max=4, metavar="N", help="Ask again on 4, 16, ... crops")
    ] = 0,
    min_mask_region_area: Annotated[
        int, typer.Option("--min-mask-region-area", min=0, metavar="PIXELS", help="Close smaller holes, drop islands")
    ] = 0,
    model: options.Model = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Find every object of a photo.

    DIR gets mask-001.png and so on (0 and 255, in the photo's size), masks.json (COCO: run lengths, bbox as x, y,
    width, height, area, scores) and overlay.jpg with all masks in colour. Masks are sorted by predicted IoU. --mode
    fast judges masks before they are enlarged: less time, and a mask near a threshold may come or go.

    The paths written go to stdout, or with --json the COCO document.
    """
    if mode not in MODES:
        raise OptionError(f"unknown mode {mode!r}; expected {' or '.join(MODES)}", hint="--mode fast")
    from boothsam.runtime.automatic import SamAutomaticMaskGenerator
    from boothsam.runtime.images import load_image
    from boothsam.service.everything import DOCUMENT, OVERLAY, check_folder, coco_document, write_results

    check_folder(out, photo, force=force)
    image = load_image(photo)
    settings: dict[str, Any] = {
        "points_per_side": points_per_side,
        "pred_iou_thresh": pred_iou_thresh,
        "stability_score_thresh": stability_score_thresh,
        "box_nms_thresh": box_nms_thresh,
        "crop_n_layers": crop_n_layers,
        "min_mask_region_area": min_mask_region_area,
    }
    loaded = options.load_model(model, backend, precision, threads)
    generator = SamAutomaticMaskGenerator(loaded, **settings, output_mode="uncompressed_rle", mode=cast("Mode", mode))
    watch = _Watch()
    try:
        records = generator.generate(image, progress=watch)
    finally:
        watch.clear()
    if not records:
        raise NothingFound(
            f"no mask of {photo} passes predicted IoU {pred_iou_thresh:g} and stability {stability_score_thresh:g} "
            f"with the model {loaded.manifest.name}",
            hint=_lower(loaded.manifest.name, pred_iou_thresh, stability_score_thresh),
        )
    document = coco_document(photo, image, records, loaded, settings | {"mode": mode})
    write_results(out, image, records, document)
    say(f"{photo}: {len(records)} masks ({mode})")
    if json:
        print_json(document)
        return
    for name in (*(annotation["file_name"] for annotation in document["annotations"]), DOCUMENT, OVERLAY):
        typer.echo(str(out / name))


def _lower(model: str, pred_iou_thresh: float, stability_score_thresh: float) -> str:
    """What to try next where nothing was found."""
    from boothsam.service.everything import lower_thresholds

    iou, stability = lower_thresholds(model, pred_iou_thresh, stability_score_thresh)
    other = "mobile_sam, which finds more" if model == "starter" else "NAME (boothsam models lists them)"
    return f"--pred-iou-thresh {iou:.2f} --stability-score-thresh {stability:.2f}, or --model {other}"


class _Watch:
    """Turns the generator's calls into a line of progress on stderr."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._announced: Iterator[int] = iter(())
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        if self._progress is None:
            self._progress = Progress(total, "batch of points")
            self._announced = self._progress.over(range(total))
        while self._shown < done:  # several at once, where fast mode need not ask
            self._shown += 1
            next(self._announced, None)

    def clear(self) -> None:
        """Empty the line."""
        if self._progress is not None:
            self._progress.clear()
