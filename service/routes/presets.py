"""GET /presets: the marketplaces that POST /crop can make pictures for, and their rules."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from boothsam.service.presets.preset import built_in, preset_names
from boothsam.service.routes.common import answer_head, problem_responses
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

router = APIRouter(tags=["crop"])


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PresetRule(_Closed):
    """One rule of a market. value: a number, a text, a flag or a list, by the kind of the rule."""

    kind: str
    value: Any
    level: Literal["must", "should"]
    wanted: str
    source: str = Field(description="where the rule was read")
    checked: str = Field(description="the day of that, ISO 8601")
    secondary: bool = Field(description="the source is not the market itself")
    since: str = Field(description="the day from which a must holds; empty: always")


class PresetRecipe(_Closed):
    """How the picture is made where the request does not say. size: width and height in pixels."""

    format: Literal["png", "jpg", "webp"]
    size: tuple[int, int] | None
    fill: float | None
    background: str
    quality: int
    min_quality: int
    dpi: int | None
    name: str = Field(description="template of file names, for clients that store the picture")


class PresetInfo(_Closed):
    """A preset."""

    name: str
    title: str
    make: PresetRecipe
    rules: list[PresetRule]


class PresetsAnswer(_Closed):
    """Every preset that this service knows."""

    presets: list[PresetInfo]


@router.get("/presets", summary="Marketplaces and their rules", responses=problem_responses(401, 403))
async def presets() -> PresetsAnswer:
    """The values of POST /crop's field `preset`, with each rule's source and the day it was checked."""
    return _all()


@lru_cache(maxsize=1)
def _all() -> PresetsAnswer:
    infos = []
    for preset in map(built_in, preset_names()):
        rules = [
            PresetRule(
                kind=rule.kind,
                value=rule.value,
                level="must" if rule.level == "must" else "should",
                wanted=rule.wanted,
                source=rule.source,
                checked=rule.checked,
                secondary=rule.secondary,
                since=rule.since,
            )
            for rule in preset.rules
        ]
        recipe = PresetRecipe.model_validate(preset.to_dict()["make"])
        infos.append(PresetInfo(name=preset.name, title=preset.title, make=recipe, rules=rules))
    return PresetsAnswer(presets=infos)


answer_head(router)
