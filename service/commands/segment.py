"""`boothsam segment`: masks and scores, for people who make their own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from boothsam.runtime.errors import NothingFound, OutputError, PromptError
from boothsam.service import options
from boothsam.service.console import Failed, print_json, say, say_exception, say_warning
from boothsam.service.outputs import Task, is_folder, make_parent, plan, write_text
from boothsam.service.prompts import Answer, Request

if TYPE_CHECKING:
    from boothsam.runtime.model import SamModel


def segment(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A photo: JPEG, PNG or WebP")],
    box: options.Box = None,
    point: options.Point = None,
    boxes: options.Boxes = None,
    min_score: options.MinScore = 0.0,
    auto: options.Auto = False,
    best: Annotated[bool, typer.Option("--best", help="One mask for each product instead of three candidates")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="x.json: COCO records; x.png: one mask; else a folder of PNG masks"
        ),
    ] = None,
    model: options.Model = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    resize: options.Resize = "exact",
    threads: options.Threads = None,
    json: options.Json = False,
    force: options.Force = False,
    verbose: options.Verbose = 0,
) -> None:
    """Print or write the masks of one photo, with their scores.

    Each product has three candidates, the model's answers to an ambiguous prompt (the label or the bottle); --best
    takes one: for a click the one with the highest predicted IoU, for everything else the mask the model means for
    clear prompts. Without -o, or with --json, COCO records go to stdout: run lengths (uncompressed, column by
    column), bbox as x, y, width, height, area, predicted_iou and stability_score. PNG masks are 0 and 255, in the
    photo's size.
    """
    request = Request.parse(box, point, boxes, min_score, auto)
    count = request.count(photo, only=True) * (1 if best or auto else 3)
    target = None if out is None else Path(out)
    tasks: list[Task] = []
    if target is not None and out is not None and target.suffix.lower() != ".json":
        folder = is_folder(target, out, (".png",))
        tasks = plan([photo], [count], target, folder=folder, ending=".png", force=force)
        if tasks[0].error is not None:
            raise tasks[0].error
    elif target is not None and target.exists() and not force:
        raise OutputError(f"{target} exists", hint="--force replaces it")
    loaded = options.load_model(model, backend, precision, threads, resize)
    try:
        document, masks = _segment(loaded, photo, request, best)
    except PromptError as error:  # it does not fit this photo: the command line itself was fine
        say_exception(error)
        raise Failed from None
    if tasks:
        from boothsam.runtime.images import save_image

        for record, mask, output in zip(document["annotations"], masks, tasks[0].outputs, strict=True):
            make_parent(output)
            save_image(output, mask)
            record["file_name"] = str(output)
            if not json:
                typer.echo(str(output))
            say(f"{output}: predicted_iou {record['predicted_iou']}, stability_score {record['stability_score']}")
    elif target is not None:
        import json as to_json

        write_text(target, to_json.dumps(document) + "\n", force=force)
        if not json:
            typer.echo(str(target))
    if target is None or json:
        print_json(document)


def _segment(model: SamModel, photo: Path, request: Request, best: bool) -> tuple[dict[str, Any], list[Any]]:
    """A COCO-like document and its masks, (H, W) bool, in the same order."""
    from boothsam.runtime.images import load_image
    from boothsam.runtime.transforms import upscale_mask

    image = load_image(photo)
    height, width = image.shape[:2]
    embedding = model.encode(image)
    try:
        answers = request.ask(model, embedding, image, photo, only=True, multimask=None if best else True)
    finally:
        embedding.close()
    records: list[dict[str, Any]] = []
    masks: list[Any] = []
    for product, answer in enumerate(answers, 1):
        if answer.warning is not None:
            say_warning(f"{photo}: {answer.warning[0]}", answer.warning[1])
        candidates = [answer.best] if best else range(len(answer.low_res_masks))
        for candidate in candidates:
            mask = upscale_mask(answer.low_res_masks[candidate], (height, width), image_size=model.manifest.image_size)
            records.append(_record(len(records) + 1, product, candidate, answer, mask))
            masks.append(mask)
    if not any(mask.any() for mask in masks):
        raise NothingFound(
            "every mask is empty: the model sees no object at this prompt", hint="try another point, or a box around it"
        )
    picture = {"id": 1, "file_name": photo.name, "width": width, "height": height}
    facts = {
        "name": model.manifest.name,
        "key": model.manifest.key,
        "backend": model.backend,
        "precision": model.precision,
    }
    return {"images": [picture], "annotations": records, "model": facts}, masks


def _record(number: int, product: int, candidate: int, answer: Answer, mask: Any) -> dict[str, Any]:
    from boothsam.runtime.masks import box_xyxy_to_xywh, mask_to_box, mask_to_rle, rle_area, stability_score

    rle = mask_to_rle(mask)
    return {
        "id": number,
        "image_id": 1,
        "product": product,
        "candidate": candidate,
        "best": candidate == answer.best,
        "segmentation": rle,
        "bbox": box_xyxy_to_xywh(mask_to_box(mask)),
        "area": rle_area(rle),
        "predicted_iou": round(float(answer.iou_predictions[candidate]), 4),
        "stability_score": round(float(stability_score(answer.low_res_masks[candidate])), 4),
        "prompt": answer.facts,
    }
