"""The service's settings: command line, then BOOTHSAM_* variables, then a TOML file, then the default.

The TOML file is the one BOOTHSAM_CONFIG names, else ./boothsam.toml, else /etc/boothsam/boothsam.toml; one file is
read, never several. A key that is not a setting is an error there. `load` says of every value where it came from.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from boothsam.runtime.errors import OptionError
from boothsam.runtime.store import home
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "BOOTHSAM_"
CONFIG = "BOOTHSAM_CONFIG"
PLACES = (Path("boothsam.toml"), Path("/etc/boothsam/boothsam.toml"))
SECRETS = ("token", "forward_token")
# Variables of this prefix that other parts of boothsam read.
_OTHERS = {CONFIG, "BOOTHSAM_HOME", "BOOTHSAM_DEBUG", "BOOTHSAM_CUDA_GRAPH", "BOOTHSAM_UNPROVEN"}
_MIB = 1 << 20

Names = Annotated[tuple[str, ...], NoDecode]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Every setting of `boothsam serve`; immutable. Lists are written "a, b" in variables, as arrays in TOML."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=False)

    host: str = Field("127.0.0.1", description="address to listen on; any other than loopback needs a token")
    port: int = Field(8765, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    token: str = Field("", repr=False, description="what clients must send as Bearer or X-Api-Key; empty: no token")
    allowed_hosts: Names = Field((), description="names accepted in the Host header besides localhost's")
    allowed_origins: Names = Field((), description="web origins, besides our own, whose pages may send requests")

    kiosk: bool = Field(True, description="whether the kiosk's page is served at /")

    model: str | None = Field(None, description="model folder or installed name; default: the bundled starter model")
    backend: str = Field("auto", description="auto, trt, ort-cuda, ort-cpu or ov")
    precision: str = Field("auto", description="auto, fp32, fp16 or int8")
    resize: Literal["exact", "fast"] = Field("exact", description="how photos are shrunk for the model: exact or fast")
    threads: Count | None = Field(None, description="CPU threads of the model; default: every usable core")
    build_engine: bool = Field(False, description="build TensorRT engines at the start, for the next one to use")
    engine_restart_s: float = Field(
        60,
        ge=0,
        allow_inf_nan=False,
        description="quiet time after which the service starts again with new engines; 0: never",
    )

    in_flight: Count = Field(1, le=64, description="photos that are worked on at once")
    queue: int = Field(8, ge=0, le=10_000, description="requests that may wait; more are refused with 429")
    queue_deadline_s: Seconds = Field(15, description="longest wait for a place before 503")
    max_upload_bytes: Bytes = Field(32 * _MIB, description="largest request body")
    max_pixels: Count = Field(50_000_000, description="largest photo, height x width")
    max_side: Count = Field(16384, description="largest side of a photo in pixels")
    header_timeout_s: Seconds = Field(10, description="longest time for a request's headers to arrive")
    body_timeout_s: Seconds = Field(30, description="longest time for a request's body to arrive")
    body_min_rate: int = Field(16384, ge=0, description="slowest accepted upload in bytes per second")
    keep_alive_s: Seconds = Field(5, description="how long an idle connection stays open")
    max_connections: Count = Field(128, description="open connections at once")
    drain_s: Seconds = Field(10, description="longest time for running requests to end after SIGTERM")

    everything_timeout_s: Seconds = Field(120, description="longest time for POST /everything, waiting included")
    decode_timeout_s: Seconds = Field(10, description="longest time to decode one photo before its worker is killed")
    decode_memory_bytes: Bytes = Field(1536 * _MIB, description="memory that decoding one photo may take")
    decode_recycle: Count = Field(500, description="photos after which the decoding worker is replaced")

    cache_bytes: int = Field(128 * _MIB, ge=0, description="memory for embeddings, their logits and kept photos")
    photo_cache_bytes: int = Field(64 * _MIB, ge=0, description="memory for kept photos that are decoded already")
    cache_ttl_s: Seconds = Field(900, description="how long an embedding is kept after its last use")

    captures_dir: Path | None = Field(
        default_factory=lambda: home() / "captures", description="folder of captures; empty: no captures"
    )
    state_dir: Path | None = Field(
        default_factory=lambda: home() / "state",
        description="folder of what outlives a restart, the plate; empty: it is forgotten",
    )
    min_free_bytes: int = Field(512 * _MIB, ge=0, description="free disk space below which captures are refused (507)")
    retention_days: int = Field(0, ge=0, description="days after which captures are deleted; 0 keeps them")
    forward_url: str = Field("", description="where captures are forwarded by POST; empty: nowhere")
    forward_dir: str = Field("", description="folder that captures are forwarded to; empty: nowhere")
    forward_token: str = Field("", repr=False, description="sent as Bearer to forward_url")
    forward_timeout_s: Seconds = Field(30, description="longest time for one forwarding attempt")

    annotate_dir: Path | None = Field(None, description="folder of photos to annotate at /annotate; empty: none")
    annotations_dir: Path | None = Field(
        None, description="where masks and records of annotations go; default: annotations/ in annotate_dir"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """No .env files and no secret folders: a service must not pick up what lies about."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())

    @field_validator("allowed_hosts", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("captures_dir", "state_dir", "annotate_dir", "annotations_dir", "model", "threads", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return None if value == "" else value

    @model_validator(mode="after")
    def _one_target(self) -> Settings:
        if self.forward_url and self.forward_dir:
            raise ValueError("forward_url and forward_dir exclude each other")
        return self


@dataclass(frozen=True)
class Loaded:
    """Settings with the origin of each value.

    origins: by field name, "command line", the variable's name, the TOML file's path, or "default".
    unknown: BOOTHSAM_* variables that no setting reads, each with the nearest name there is, or "".
    """

    settings: Settings
    origins: Mapping[str, str]
    unknown: Mapping[str, str]


def config_file() -> Path | None:
    """The TOML file to read, None when there is none.

    Raises:
        OptionError: BOOTHSAM_CONFIG names a file that does not exist.
    """
    named = os.environ.get(CONFIG)
    if named:
        if not Path(named).is_file():
            raise OptionError(f"{CONFIG}={named}: no such file", hint=f"unset {CONFIG}, or write the file")
        return Path(named)
    return next((place for place in PLACES if place.is_file()), None)


def load(**given: Any) -> Loaded:
    """Read all sources.

    given: values of the command line; None means "not given".

    Raises:
        OptionError: a value out of range, an unknown key, a file that is no TOML; the message names the origin.
    """
    given = {name: value for name, value in given.items() if value is not None}
    path = config_file()
    try:
        in_file = set(TomlConfigSettingsSource(Settings, path)() if path else ())
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read: {error}", hint="boothsam config show lists the settings") from None
    variables = {name.upper(): name for name in os.environ}
    origins = {}
    for name in Settings.model_fields:
        variable = variables.get((PREFIX + name).upper())
        if name in given:
            origins[name] = "command line"
        elif variable is not None:
            origins[name] = variable
        else:
            origins[name] = str(path) if name in in_file else "default"
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise OptionError(_explain(error, origins, path), hint="boothsam config show lists the settings") from None
    return Loaded(settings, origins, _unknown_variables(variables))


def _explain(error: ValidationError, origins: Mapping[str, str], path: Path | None) -> str:
    found = []
    for mistake in error.errors(include_url=False):
        name = str(mistake["loc"][0]) if mistake["loc"] else ""
        if mistake["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, Settings.model_fields, 1)
            where = str(path) if path else "command line"
            found.append(f"unknown setting {name!r} ({where})" + (f"; did you mean {near[0]}?" if near else ""))
            continue
        value = "" if name in SECRETS or not name else f" {mistake['input']!r}"
        where = f" ({origins[name]})" if name in origins else ""
        found.append(f"{name}{value}{where}: {mistake['msg']}".lstrip(": "))
    return "; ".join(found)


def _unknown_variables(variables: Mapping[str, str]) -> dict[str, str]:
    known = {(PREFIX + name).upper() for name in Settings.model_fields} | _OTHERS
    unknown = {}
    for upper, name in sorted(variables.items()):
        if upper.startswith(PREFIX) and upper not in known:
            near = difflib.get_close_matches(upper, known, 1)
            unknown[name] = near[0] if near else ""
    return unknown
