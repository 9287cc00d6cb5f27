"""A store of annotations for as long as a service runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from boothsam.runtime.errors import OptionError
from boothsam.service.annotations.store import AnnotationStore
from boothsam.service.settings import Settings

FOLDER = "annotations"


def annotations_folder(settings: Settings) -> tuple[Path, Path]:
    """The folder of photos and the one of annotations. Raises OptionError where no photos are named."""
    photos = settings.annotate_dir
    if photos is None:
        raise OptionError("no folder of photos is named", hint="boothsam annotate FOLDER")
    return photos, settings.annotations_dir or photos / FOLDER


@asynccontextmanager
async def annotating(settings: Settings) -> AsyncIterator[AnnotationStore]:
    """The open store.

    Raises:
        OptionError, AnnotationError: as `AnnotationStore.open`; the service must not start then.
    """
    photos, folder = annotations_folder(settings)
    store = await asyncio.to_thread(AnnotationStore.open, photos, folder, min_free_bytes=settings.min_free_bytes)
    try:
        yield store
    finally:
        await asyncio.to_thread(store.close)  # waits for a save whose client is gone
