"""`boothsam check`: do finished pictures keep the rules of a marketplace?"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from boothsam.service import options
from boothsam.service.console import Failed, explain, print_json, say, say_exception, say_warning, shown

if TYPE_CHECKING:
    from boothsam.service.presets.check import Finding, Report
    from boothsam.service.presets.preset import Preset


def check(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Finished pictures: JPEG, PNG or WebP")],
    preset: Annotated[
        str, typer.Option("--preset", metavar="NAME|FILE", help="amazon, ebay, google, gs1, shopify, vtex, or a .toml")
    ],
    on: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="Judge rules that change by this day; default: today"),
    ] = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
) -> None:
    """Check finished pictures against a marketplace's rules.

    Every broken rule is named with what was found, what is wanted, what mends it and where the rule was read. Ends with
    1 if a picture breaks a rule that must be kept, or cannot be read; advice alone does not fail it.

    One line for each picture goes to stdout, the rules to stderr; with --json all goes to stdout, one document for each
    picture.
    """
    from boothsam.service.presets.preset import load_preset

    market, day = load_preset(preset), on.date() if on is not None else None
    failed = sum(not _check(photo, market, day, json) for photo in photos)
    if len(photos) > 1:
        say(f"{failed} of {len(photos)} pictures failed")
    if failed:
        raise Failed


def _check(photo: Path, preset: Preset, day: date | None, json: bool) -> bool:
    """Check one picture and tell; whether it passed."""
    from boothsam.runtime.errors import BoothsamError
    from boothsam.service.presets import check as checks

    try:
        report = checks.check(photo.read_bytes(), preset, name=photo.name, today=day)
    except (BoothsamError, OSError) as error:
        if json:
            message, hint = explain(error)
            told = {"type": type(error).__name__, "message": message, "hint": hint}
            print_json({"photo": str(photo), "preset": preset.name, "passed": False, "error": told})
        say_exception(error, where=shown(photo))
        return False
    if json:
        print_json({"photo": str(photo)} | report.to_dict())
    else:
        _tell(photo, report)
    return report.passed


def _tell(photo: Path, report: Report) -> None:
    advice = f", {len(report.advice)} to improve" if report.advice else ""
    state = f"passed{advice}" if report.passed else f"failed: {', '.join(_kinds(report))}{advice}"
    typer.echo(f"{photo}: {report.preset}: {state}")
    for finding in (*report.failed, *report.advice):
        facts: dict[str, Any] = {"found": finding.found, "wanted": finding.wanted, "source": _source(finding)}
        lines = "".join(f"\n  {key}: {value}" for key, value in facts.items())
        message = f"{finding.rule}{lines}"
        if finding.level == "must":
            say(f"{photo.name}: {message}\n  hint: {finding.mend}")
        else:
            say_warning(f"{photo.name}: {message}", finding.mend)


def _kinds(report: Report) -> list[str]:
    return list(dict.fromkeys(finding.rule for finding in report.failed))


def _source(finding: Finding) -> str:
    about = [f"checked {finding.checked}"] if finding.checked else []
    about += ["not the market's own page"] if finding.secondary else []
    return finding.source + (f" ({', '.join(about)})" if about else "")
