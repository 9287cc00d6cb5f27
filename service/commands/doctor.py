"""`boothsam doctor`: is this installation sound?"""

from __future__ import annotations

from typing import Annotated

import typer
from boothsam.service.console import Failed, print_json, say, say_error, without_home
from boothsam.service.options import Backend, Json, Model

_SIGNS = {"ok": "ok     ", "warning": "warning", "broken": "BROKEN ", "absent": "absent "}


def doctor(
    report: Annotated[bool, typer.Option("--report", help="Print one block to paste into a bug report")] = False,
    json: Json = False,
    model: Model = None,
    backend: Backend = "auto",
) -> None:
    """Check versions, backends, models and disk, and run a self-test.

    The self-test runs the bundled starter model, or the one named by --model, on the photos in its golden folder and
    compares with the recorded answers. Ends with 1 when something is broken.
    """
    import boothsam
    from boothsam.service.installation import check_models, examine, self_test

    findings = [*examine(), *check_models(), self_test(model, backend)]
    broken = [finding for finding in findings if finding.state == "broken"]
    if json:
        print_json({"boothsam": boothsam.__version__, "ok": not broken, "findings": [f.to_dict() for f in findings]})
    else:
        lines = [f"boothsam {boothsam.__version__}"]
        for finding in findings:
            lines.append(f"{_SIGNS[finding.state]} {finding.name}: {finding.detail}")
            if finding.hint and finding.state != "ok":
                lines.append(f"{'hint:':>12} {finding.hint}")
        block = "\n".join(lines)
        typer.echo(f"```\n{without_home(block)}\n```" if report else block)
    if broken:
        say_error(
            f"{len(broken)} of {len(findings)} checks found something broken: {', '.join(f.name for f in broken)}"
        )
        raise Failed
    if not report and not json:
        say("everything needed works")
