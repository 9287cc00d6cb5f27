"""python -m boothsam.conformance: drive a predictor through the kit, print a table, exit 1 if a case fails.

The factory is called with the model folder (a string) and returns an object with the methods of segment_anything's
SamPredictor:

    python -m boothsam.conformance --predictor boothsam:SamPredictor.load --model tiny_sam
"""

from __future__ import annotations

import argparse
import importlib
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

from boothsam.conformance.cases import CASES
from boothsam.conformance.runner import LOGIT_TOLERANCE, MASK_TOLERANCE, SCORE_TOLERANCE, Result, run


def load_factory(name: str) -> Any:
    """The callable named "module:attribute", dots allowed on both sides. Raises SystemExit if there is none."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise SystemExit(
            f"--predictor is {name!r}, expected module:factory\nhint: --predictor boothsam:SamPredictor.load"
        )
    sys.path.insert(0, "")
    try:
        return attrgetter(attribute)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise SystemExit(
            f"--predictor {name}: {error}\nhint: name an importable module and a callable in it"
        ) from error


def table(results: list[Result], tolerance: float) -> str:
    """One line per case: name, pass or FAIL, score and logit error, 1 - IoU, what broke and the rule."""
    lines = [f"{'case':15} {'':4} {'score':>8} {'logit':>8} {'1 - IoU':>8}  problem"]
    limits = (SCORE_TOLERANCE * tolerance, LOGIT_TOLERANCE * tolerance, MASK_TOLERANCE * tolerance)
    lines.append("{:15} {:4} {:8.1e} {:8.1e} {:8.1e}".format("tolerance", "", *limits))
    for r in results:
        problem = f"  {r.problem} [{r.case.rule}]" if r.problem else ""
        verdict = "pass" if r.passed else "FAIL"
        lines.append(
            f"{r.case.name:15} {verdict} {r.score_error:8.1e} {r.logit_error:8.1e} {r.mask_error:8.1e}{problem}"
        )
    failed = sum(not r.passed for r in results)
    lines.append(f"{len(results) - failed} of {len(results)} cases passed")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the kit; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m boothsam.conformance", description=__doc__.split("\n")[0])
    parser.add_argument("--predictor", required=True, metavar="MODULE:FACTORY", help="called with the model folder")
    parser.add_argument(
        "--model", required=True, type=Path, metavar="DIR", help="the tiny SAM, see docs/conformance.md"
    )
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only this one (repeatable)"
    )
    parser.add_argument("--tolerance", type=float, default=1.0, help="factor on all limits, for reduced precision")
    options = parser.parse_args(arguments)
    predictor = load_factory(options.predictor)(str(options.model))
    cases = [case for case in CASES if not options.case or case.name in options.case]
    results = run(predictor, cases, tolerance=options.tolerance)
    sys.stdout.write(table(results, options.tolerance) + "\n")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
