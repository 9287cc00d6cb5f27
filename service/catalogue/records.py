"""What a catalogue came to: one entry for each picture that was or should have been made, and the sums."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from boothsam.service.catalogue.items import CatalogueItem

# What a shop has to do about it: nothing, take the photo again, mend the picture, look at the photo, run it again.
STATUSES = ("ready", "retake", "refused", "failed", "waiting")
Json = dict[str, Any]


@dataclass(frozen=True)
class Reason:
    """Why a picture is not ready, or what could be better. kind: retake, rule, error, advice or warning."""

    kind: str
    code: str
    message: str
    mend: str = ""
    source: str = ""


@dataclass(frozen=True)
class Entry:
    """One picture, or a photo that gave none.

    Attributes:
        photo: path in the folder of photos. status: one of `STATUSES`. output: relative to OUT, empty if there is none.
        sku, gtin, n, angle: as the picture is filed. fill: share of the canvas that the product spans.
        box_shares: the product's box in the photo, x0, y0, x1, y1 as shares of its sides.
        kept: rules that hold. before, after: thumbnails relative to OUT, empty if there is none.
    """

    photo: str
    status: str
    output: str = ""
    sku: str = ""
    gtin: str = ""
    n: int | None = None
    angle: str = ""
    bytes: int = 0
    fill: float | None = None
    predicted_iou: float | None = None
    agreement: float | None = None
    ambiguous: bool = False
    box_shares: tuple[float, float, float, float] | None = None
    kept: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    before: str = ""
    after: str = ""

    @property
    def group(self) -> str:
        """What the picture's product is called."""
        return self.gtin or self.sku

    @property
    def blocking(self) -> tuple[Reason, ...]:
        """Why it is not ready."""
        return tuple(r for r in self.reasons if r.kind in ("rule", "retake", "error")) if self.status != "ready" else ()

    def to_dict(self) -> Json:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Catalogue:
    """Everything a report tells. missing: files that names.csv names and the folder lacks. made: UTC, ISO 8601."""

    preset: str
    title: str
    made: str
    entries: tuple[Entry, ...]
    missing: tuple[str, ...] = ()
    model: str = ""
    removed: tuple[str, ...] = field(default=())

    @property
    def totals(self) -> dict[str, int]:
        """Photos, pictures that exist, products that have one, and entries of each status."""
        counts = {status: sum(entry.status == status for entry in self.entries) for status in STATUSES}
        products = {entry.group for entry in self.entries if entry.output and entry.group}
        return {
            "photos": len({entry.photo for entry in self.entries}),
            "pictures": sum(bool(entry.output) for entry in self.entries),
            "products": len(products),
        } | counts


def read_records(journal: Path) -> dict[str, Json]:
    """The last line of each photo. Raises OSError."""
    found: dict[str, Json] = {}
    with journal.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # told when the journal was opened
            if isinstance(record, dict) and isinstance(record.get("id"), str):
                found[record["id"]] = record
    return found


def entries_of(items: Sequence[CatalogueItem], records: Mapping[str, Json], out: Path) -> list[Entry]:
    """Entries in the order of the items. out: to see which thumbnails are there."""
    entries: list[Entry] = []
    for item in items:
        record = records.get(item.id)
        before = _there(out, item.thumbs[0])
        if record is not None and record["status"] == "failed":
            entries.append(_failure(item, record, before))
        elif record is None or not _current(item, record):
            entries.append(Entry(str(item.place), "waiting"))
        else:
            entries += [
                _entry(item, record, product, before, _there(out, thumb))
                for product, thumb in zip(record["products"], item.thumbs[1:], strict=True)
            ]
    return entries


def wanted_files(items: Iterable[CatalogueItem], records: Mapping[str, Json]) -> set[str]:
    """The files of OUT that some current record speaks of."""
    wanted: set[str] = set()
    for item in items:
        record = records.get(item.id)
        if record is not None:
            wanted.update(item.thumbs)
            if _current(item, record):
                wanted.update(product["output"] for product in record["products"])
    return wanted


def _current(item: CatalogueItem, record: Json) -> bool:
    """Whether the record has pictures, under the names that the item's should have."""
    outputs = [product["output"] for product in record.get("products", ())]
    return record["status"] == "done" and [Path(output).name for output in outputs] == list(item.names)


def _there(out: Path, name: str) -> str:
    return name if (out / name).is_file() else ""


def _failure(item: CatalogueItem, record: Json, before: str) -> Entry:
    error = record["error"]
    message = str(error["message"]).replace(str(item.photo), str(item.place))
    reason = Reason("error", error["code"], message, error.get("hint") or "")
    product = item.product
    return Entry(
        str(item.place),
        "failed",
        sku=product.sku,
        gtin=product.gtin,
        angle=product.angle,
        reasons=(reason,),
        before=before,
    )


def _entry(item: CatalogueItem, record: Json, product: Json, before: str, after: str) -> Entry:
    height, width = record["size_hw"]
    x0, y0, x1, y1 = product["product_xyxy"]
    check = product["check"]
    reasons = [Reason("rule", f["rule"], f"{f['found']}; wanted: {f['wanted']}", f["mend"], f["source"])
               for f in check["failed"]]  # fmt: skip
    retake = product["retake"]["reasons"]
    kind = "retake" if product["status"] != "ready" else "advice"
    reasons += [Reason(kind, r["code"], _measured(r), r["advice"]) for r in retake]
    reasons += [Reason("advice", f["rule"], f"{f['found']}; wanted: {f['wanted']}", f["mend"], f["source"])
                for f in check["advice"]]  # fmt: skip
    reasons += [Reason("warning", "warning", w["message"], w["hint"] or "")
                for w in (*record.get("warnings", ()), *product["warnings"])]  # fmt: skip
    auto = product.get("auto", {})
    return Entry(
        str(item.place),
        product["status"],
        product["output"],
        product["sku"],
        product["gtin"],
        product["n"],
        product["angle"],
        product["bytes"],
        check["fill"],
        product["predicted_iou"],
        product["agreement"],
        bool(auto.get("ambiguous", False)),
        (x0 / width, y0 / height, x1 / width, y1 / height),
        tuple(check["kept"]),
        tuple(reasons),
        before,
        after,
    )


def _measured(reason: Json) -> str:
    value, limit = reason["value"], reason["limit"]
    told = {
        "blur": f"blur {value:.2f}, at most {limit:g}",
        "clipped_highlights": f"{value:.0%} of it have no detail left, at most {limit:.0%}",
        "touches_border": f"{value:g} of its pixels lie on the border, none should",
        "low_agreement": f"the model's answers agree by {value:.0%}, at least {limit:.0%} is wanted",
    }
    return told.get(reason["code"], f"measured {value:g}, limit {limit:g}")
