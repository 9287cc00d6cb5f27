"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from boothsam.service.console import set_up_logging

if TYPE_CHECKING:
    from boothsam.runtime.model import SamModel


def _verbose(count: int) -> int:
    if count:
        set_up_logging(count)
    return count


Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME|FOLDER", help="Model to use; default: the bundled starter model"),
]
Backend = Annotated[str, typer.Option("--backend", metavar="NAME", help="auto, trt, ort-cuda, ort-cpu or ov")]
Precision = Annotated[str, typer.Option("--precision", metavar="NAME", help="auto, fp32, fp16 or int8")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="CPU threads; default: every core this process may use"),
]
Resize = Annotated[
    str, typer.Option("--resize", metavar="exact|fast", help="How photos are shrunk for the model; exact: as SAM does")
]
Box = Annotated[
    list[str] | None,
    typer.Option(
        "--box", metavar="X0,Y0,X1,Y1", help="Box around a product, in photo pixels; repeat for several products"
    ),
]
Point = Annotated[
    list[str] | None,
    typer.Option(
        "--point", metavar="X,Y[,0|1]", help="Click on the product (,0: on what is not); repeat to refine one product"
    ),
]
Boxes = Annotated[
    Path | None,
    typer.Option(
        "--boxes",
        metavar="FILE",
        help="A detector's boxes: COCO JSON, list of [x0,y0,x1,y1], YOLO .txt or folder of those",
    ),
]
MinScore = Annotated[
    float, typer.Option("--min-score", min=0, max=1, metavar="0-1", help="Leave out detections scored below this")
]
Auto = Annotated[bool, typer.Option("--auto", help="Find the main product without a prompt")]
Plate = Annotated[
    list[Path] | None,
    typer.Option(
        "--plate",
        metavar="PHOTO",
        help="Photo of the empty booth: what differs from it is the product; repeat for several shots of it",
    ),
]
BackgroundColour = Annotated[
    str | None,
    typer.Option("--background", metavar="COLOUR", help="transparent (default), white, black, grey or #rrggbb"),
]
Fill = Annotated[
    float | None,
    typer.Option(
        "--fill",
        metavar="SHARE",
        help="Share of the canvas that the product spans on its tighter side, above 0 to 1; default 0.85",
    ),
]
Margin = Annotated[
    int | None, typer.Option("--margin", min=0, metavar="PIXELS", help="Pixels that stay free on each side")
]
Size = Annotated[
    int | None,
    typer.Option("--size", min=1, max=16384, metavar="PIXELS", help="Side of a square canvas, in pixels"),
]
Quality = Annotated[int, typer.Option("--quality", min=1, max=100, metavar="1-100", help="JPEG or WebP quality")]
PresetQuality = Annotated[
    int | None, typer.Option("--quality", min=1, max=100, metavar="1-100", help="JPEG or WebP quality; default 92")
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME|FILE", help="amazon, ebay, google, gs1, shopify, vtex, or your own .toml"),
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="TEMPLATE", help="Names of files in the folder OUT, such as '{sku}_{n}'"),
]
Sku = Annotated[str | None, typer.Option("--sku", metavar="TEXT", help="For {sku} in names")]
Gtin = Annotated[
    str | None,
    typer.Option("--gtin", metavar="DIGITS", help="For {gtin} and {gtin14}; default: the number in the photo's name"),
]
View = Annotated[
    str | None,
    typer.Option("--view", metavar="CODE", help="GS1's type, face, angle and state for names; default A1N1, the front"),
]
Turntable = Annotated[
    str | None,
    typer.Option(
        "--turntable",
        metavar="clockwise|counterclockwise",
        help="The photos are one full turn, front first: names get the face at the quarter turns, else a frame number",
    ),
]
Shadow = Annotated[
    str,
    typer.Option(
        "--shadow",
        metavar="none|drop|contact|cast",
        help="contact: a dark band where it stands; cast: and its outline on the ground; drop: as if it floated",
    ),
]
FillHoles = Annotated[bool, typer.Option("--fill-holes", help="Close small holes in the product")]
DropIslands = Annotated[bool, typer.Option("--drop-islands", help="Drop small pieces apart from the product")]
SmallArea = Annotated[
    int | None,
    typer.Option(
        "--small-area", min=1, metavar="PIXELS", help="What is small for these two; default: 0.1 % of the photo"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for machines")]
Force = Annotated[bool, typer.Option("--force", "--overwrite", help="Replace files that exist")]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, callback=_verbose, help="Say what is chosen and why; -vv: more")
]


def load_model(model: str | None, backend: str, precision: str, threads: int | None, resize: str = "exact") -> SamModel:
    """The model the options name."""
    from boothsam.runtime.model import SamModel

    return SamModel.load(model, backend=backend, precision=precision, threads=threads, resize=resize)
