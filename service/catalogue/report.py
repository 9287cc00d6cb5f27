"""report.html, report.json and report.csv: whole, durable files, written anew at the end of every run."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from boothsam.runtime.errors import OutputError
from boothsam.service.batch.outfolder import OutFolder
from boothsam.service.captures.export import spreadsheet_cell
from boothsam.service.catalogue.page import page
from boothsam.service.catalogue.records import Catalogue
from boothsam.service.console import explain

NAMES = ("report.html", "report.json", "report.csv")
_COLUMNS = (
    "photo", "status", "output", "sku", "gtin", "n", "angle", "bytes", "fill", "predicted_iou", "agreement",
    "ambiguous",
)  # fmt: skip


def write_report(out: OutFolder, catalogue: Catalogue) -> None:
    """All three files. Raises OutputError."""
    try:
        out.write(out.folder / "report.csv", as_csv(catalogue))
        out.write(out.folder / "report.json", as_json(catalogue))
        out.write(out.folder / "report.html", page(catalogue))
    except OSError as error:
        raise OutputError(f"cannot write the report in {out.folder}: {explain(error)[0]}") from error


def as_json(catalogue: Catalogue) -> bytes:
    """`preset`, `title`, `made`, `model`, `totals`, `missing`, and `pictures`, one for each entry of the page."""
    body: dict[str, Any] = {
        "preset": catalogue.preset,
        "title": catalogue.title,
        "made": catalogue.made,
        "model": catalogue.model,
        "totals": catalogue.totals,
        "missing": list(catalogue.missing),
        "pictures": [entry.to_dict() for entry in catalogue.entries],
    }
    return json.dumps(body, indent=1, allow_nan=False).encode() + b"\n"


def as_csv(catalogue: Catalogue) -> bytes:
    """A line for each entry; `reasons` and `mend` join what is wrong, `remarks` what could be better."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow((*_COLUMNS, "reasons", "mend", "remarks"))
    for entry in catalogue.entries:
        told = entry.to_dict()
        blocking = entry.blocking
        cells = [
            *("" if told[name] is None else told[name] for name in _COLUMNS),
            "; ".join(f"{reason.code}: {reason.message}" for reason in blocking),
            "; ".join(reason.mend for reason in blocking if reason.mend),
            "; ".join(f"{r.code}: {r.message}" for r in entry.reasons if r not in blocking),
        ]
        rows.writerow([spreadsheet_cell(cell) for cell in cells])
    return text.getvalue().encode(errors="backslashreplace")
