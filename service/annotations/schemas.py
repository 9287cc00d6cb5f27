"""The shapes of the annotation routes' JSON, as OpenAPI shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from boothsam.service.annotations.records import MAX_CATEGORIES, MAX_OBJECTS
from pydantic import BaseModel, ConfigDict, Field, model_validator

_Id = Annotated[int, Field(ge=1, lt=2**31)]
_Side = Annotated[int, Field(ge=1, le=1 << 16)]
_Run = Annotated[int, Field(ge=0, lt=2**31)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CategoryAnswer(_Closed):
    """A kind of product."""

    id: int
    name: str


class CategoryQuestion(_Closed):
    """A category to keep or rename, by its id, or a new one."""

    id: _Id | None = Field(None, description="keeps or renames this one; none: a new one")
    name: str = Field(max_length=200)


class CategoriesQuestion(_Closed):
    """All categories, in the order of the keys 1 to 9."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"categories": [{"id": 1, "name": "mug"}, {"name": "bottle"}]}]}
    )
    categories: list[CategoryQuestion] = Field(min_length=1, max_length=MAX_CATEGORIES)


class CategoriesAnswer(_Closed):
    """All categories."""

    categories: list[CategoryAnswer]


class Segmentation(_Closed):
    """COCO's run lengths of the upright photo's size: compressed (text), or not (list)."""

    size: tuple[_Side, _Side]
    counts: str | list[_Run]


class ObjectQuestion(_Closed):
    """One object: saved already (id), of an earlier answer (embedding_id, logits_id), or drawn elsewhere."""

    category_id: _Id
    id: _Id | None = Field(None, description="an object of this photo that is saved already")
    embedding_id: str | None = Field(None, max_length=64)
    logits_id: str | None = Field(None, max_length=64, description="a mask of POST /embeddings/{id}/segment")
    segmentation: Segmentation | None = None
    score: float | None = Field(None, ge=0, le=1, description="with segmentation: how sure its maker is")

    @model_validator(mode="after")
    def _one_source(self) -> ObjectQuestion:
        if (self.embedding_id is None) != (self.logits_id is None):
            raise ValueError("embedding_id and logits_id belong together")
        if sum(given is not None for given in (self.id, self.logits_id, self.segmentation)) != 1:
            raise ValueError("expected one of id, logits_id and segmentation")
        if self.score is not None and self.segmentation is None:
            raise ValueError("score goes with segmentation only")
        return self


class PhotoQuestion(_Closed):
    """All objects of one photo."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"photo_sha256": "0" * 64, "objects": [{"category_id": 1, "id": 3}]}]},
    )
    photo_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the photo that the masks were made on")
    objects: list[ObjectQuestion] = Field([], max_length=MAX_OBJECTS)
    done: bool = Field(True, description="false: work goes on; the photo is not exported yet")


class ObjectAnswer(_Closed):
    """One saved object. file: its PNG below masks/; bbox: x, y, width, height; segmentation: compressed run lengths."""

    id: int
    category_id: int
    file: str
    sha256: str
    bbox: tuple[int, int, int, int]
    area: int
    score: float | None
    segmentation: Segmentation


_Status = Literal["open", "started", "done", "skipped", "changed", "broken"]


class PhotoLine(_Closed):
    """A photo in the list. trouble: why it is broken, or what changed."""

    key: str
    name: str
    status: _Status
    objects: int
    trouble: str


class Progress(_Closed):
    """Photos by status, objects on them, and records whose photo is missing."""

    total: int
    open: int
    started: int
    done: int
    skipped: int
    changed: int
    broken: int
    objects: int
    missing: int


class ListAnswer(_Closed):
    """One page of the photos, in natural order."""

    folder: str
    categories: list[CategoryAnswer]
    progress: Progress
    photos: list[PhotoLine]
    next: int | None = Field(description="the next page's offset; null: no more")
    resume: str | None = Field(description="key of the first photo that is neither done, skipped nor broken")


class PhotoAnswer(_Closed):
    """One photo and its objects."""

    key: str
    name: str
    status: _Status
    trouble: str
    photo_sha256: str
    size_hw: tuple[int, int] | None
    objects: list[ObjectAnswer]
    progress: Progress


class EmbeddingAnswer(_Closed):
    """A photo of the folder, analysed."""

    id: str = Field(description="for POST /embeddings/{id}/segment, while it is cached")
    photo_sha256: str
    size_hw: tuple[int, int]
    cached: bool
    ms: dict[str, float]
