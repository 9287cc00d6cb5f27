"""One run of a catalogue: photos to pictures, what is no longer wanted away, the report."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from boothsam.runtime.errors import OutputError
from boothsam.service.batch.predictor import ModelChoice
from boothsam.service.batch.running import Batch, Local, Result, run_items
from boothsam.service.batch.work import Policy
from boothsam.service.catalogue.items import CatalogueFolder, CatalogueItem, Places
from boothsam.service.catalogue.making import CataloguePredictor
from boothsam.service.catalogue.records import Catalogue, entries_of, read_records, wanted_files
from boothsam.service.catalogue.report import write_report
from boothsam.service.catalogue.table import Matched
from boothsam.service.console import explain
from boothsam.service.presets.preset import Preset


@contextmanager
def opened(folder: Path, policy: Policy) -> Iterator[Batch]:
    """The output folder, locked. Raises OutputError."""
    with Batch.open(folder, policy, place=CatalogueFolder, namer=Places) as batch:
        yield batch


def run(batch: Batch, items: Sequence[CatalogueItem], choice: ModelChoice, stop: threading.Event) -> Result:
    """Do what is not done. Raises what loading the model raises; what stops it midway is in the result."""
    return run_items(batch, items, Local(choice, batch.out.folder, predictor=CataloguePredictor), stop)


@dataclass(frozen=True)
class Plan:
    """What a catalogue is of: its photos, what the table of names said about them, and the market."""

    items: Sequence[CatalogueItem]
    matched: Matched
    preset: Preset


def finish(batch: Batch, plan: Plan) -> Catalogue:
    """Delete pictures that no photo of the folder has any more, and write the report. Raises OutputError."""
    try:
        records = read_records(batch.out.journal)
        assert isinstance(batch.names, Places)
        removed = batch.names.sweep(wanted_files(plan.items, records))
    except OSError as error:
        raise OutputError(f"cannot tidy {batch.out.folder}: {explain(error)[0]}") from error
    models = [records[item.id]["model"] for item in plan.items if records.get(item.id, {}).get("model")]
    catalogue = Catalogue(
        plan.preset.name,
        plan.preset.title,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tuple(entries_of(plan.items, records, batch.out.folder)),
        tuple(row.file for row in plan.matched.missing),
        models[-1] if models else "",
        tuple(removed),
    )
    write_report(batch.out, catalogue)
    return catalogue
