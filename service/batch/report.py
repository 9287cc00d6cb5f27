"""What a run came to: the summary, failures.csv and the exit code's reason."""

from __future__ import annotations

import csv
import io
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any

from boothsam.runtime.errors import OutputError
from boothsam.service.batch.progress import duration
from boothsam.service.batch.running import Batch, Result
from boothsam.service.console import explain, say, shown

_MOST_LINES = 10


Failure = tuple[str, str, str]  # id, code, message


def failures(batch: Batch, ids: Sequence[str]) -> list[Failure]:
    """Each of these photos that failed in this or an earlier run."""
    known = batch.journal.known
    return [(id, known[id].code, known[id].message) for id in dict.fromkeys(ids) if id in known and not known[id].done]


def write_failures(batch: Batch, failed: Sequence[Failure]) -> None:
    """OUT/failures.csv; without a failure there is no such file. Raises OutputError."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("path", "code", "message"))
    rows.writerows(failed)
    try:
        if failed:
            batch.out.write(batch.out.failures, text.getvalue().encode(errors="surrogateescape"))
        else:
            batch.out.failures.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {batch.out.failures}: {explain(error)[0]}") from error


def summary(batch: Batch, result: Result, failed: Sequence[Failure]) -> dict[str, Any]:
    """For --json."""
    counter = result.counter
    return {
        "total": counter.total,
        "done": counter.done,
        "failed": counter.failed,
        "skipped": counter.skipped,
        "failed_earlier": counter.earlier,
        "ambiguous": counter.ambiguous,
        "seconds": round(counter.seconds, 2),
        "photos_per_second": round(counter.rate, 2),
        "codes": dict(Tally(code for _, code, _ in failed)),
        "out": str(batch.out.folder),
        "journal": str(batch.out.journal),
        "failures": str(batch.out.failures) if failed else None,
    }


def tell(batch: Batch, result: Result, failed: Sequence[Failure]) -> None:
    """The summary for people, on stderr."""
    counter = result.counter
    rows = [("done", counter.done), ("failed", counter.failed)]
    rows += [("as before", counter.skipped - counter.earlier)] if counter.skipped > counter.earlier else []
    rows += [("failed before", counter.earlier)] if counter.earlier else []
    if counter.total is not None:
        left = counter.total - counter.done - counter.failed - counter.skipped
        rows += [("not yet", left)] if left else []
    for label, count in rows:
        say(f"{label:14}{count:8}")
    pace = f"  ({counter.rate:.1f} photos/s)" if counter.rate else ""
    say(f"{'in':14}{duration(counter.seconds):>8}{pace}")
    if counter.ambiguous:
        say(f"{counter.ambiguous} ambiguous: their lines in {shown(batch.out.journal)} name the other candidates")
    for id, code, message in failed[:_MOST_LINES]:
        say(f"{code:16}{message if id in message else f'{id}: {message}'}")
    if len(failed) > _MOST_LINES:
        say(f"... and {len(failed) - _MOST_LINES} more")
    if failed:
        say(f"all failures: {shown(batch.out.failures)}")
    if counter.earlier:
        say("hint: --retry-failed tries those that failed before again")
