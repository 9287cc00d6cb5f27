"""`boothsam config`: what the service is set to, and why."""

from __future__ import annotations

from typing import Annotated

import typer
from boothsam.service.console import need_extra, print_json, say_warning, shown
from boothsam.service.options import Json

app = typer.Typer(help="The service's settings", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _root() -> None:
    """The service's settings."""


@app.command()
def show(
    json: Json = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each setting means")] = False,
) -> None:
    """Print each setting with its value and where it came from.

    Origins, strongest first: the command line of `boothsam serve`, a BOOTHSAM_* variable, the TOML file (the one
    BOOTHSAM_CONFIG names, ./boothsam.toml or /etc/boothsam/boothsam.toml), the default. Tokens are not printed.
    """
    with need_extra("serve", "the service's settings"):
        from boothsam.service.settings import PREFIX, SECRETS, Settings, load
    loaded = load()
    values = loaded.settings.model_dump(mode="json")
    for name in SECRETS:
        values[name] = "(set, not shown)" if values[name] else ""
    if json:
        print_json({name: {"value": value, "origin": loaded.origins[name]} for name, value in values.items()})
    else:
        for name, value in values.items():
            text = ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
            origin = loaded.origins[name]
            typer.echo(f"{name:22} {shown(text):34} {shown(origin)}".rstrip())
            if explain:
                typer.echo(f"    {Settings.model_fields[name].description} ({(PREFIX + name).upper()})")
    for variable, near in loaded.unknown.items():
        say_warning(f"{variable} is no setting and is ignored", f"rename it to {near}" if near else None)
