"""One run of a batch, from its plan to its summary."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from boothsam.runtime.errors import BoothsamError, OutputError
from boothsam.service.batch.journal import Journal
from boothsam.service.batch.names import Names
from boothsam.service.batch.outfolder import OutFolder
from boothsam.service.batch.pipeline import Budget, Step, run_steps
from boothsam.service.batch.predictor import SKIPPED, CannotGoOn, ModelChoice, Predictor, Record, Ticket, cores
from boothsam.service.batch.progress import Counter, Ticker
from boothsam.service.batch.sources import Defaults, make_item
from boothsam.service.batch.watch import Watcher, move_away
from boothsam.service.batch.work import Item, Known, Policy, Work
from boothsam.service.console import explain, say_exception

MAX_PIXELS = 100_000_000  # decoded at once; matting takes some 20 bytes for each of them at its peak

Run = Callable[[Iterable[Work], threading.Event], Iterator[Record]]


class Namer(Protocol):
    """Says which files belong to which photo; see `Names`."""

    def plan(self, items: Iterable[Item], known: Mapping[str, Known], policy: Policy) -> list[Work]:
        """Work for each item, its new names written down. Raises OSError."""

    def release(self, ids: Sequence[str]) -> None:
        """The photos of these ids are moved away. Raises OSError."""

    def close(self) -> None:
        """Nothing more is asked for."""


@dataclass
class Batch:
    """An open output folder: its journal and its names. Only one thread may take records, and one plan."""

    out: OutFolder
    journal: Journal
    names: Namer
    policy: Policy

    @classmethod
    @contextmanager
    def open(
        cls,
        folder: Path,
        policy: Policy,
        *,
        place: Callable[[Path], OutFolder] = OutFolder,
        namer: Callable[[OutFolder, Mapping[str, Known]], Namer] = Names,
    ) -> Iterator[Batch]:
        """Lock the folder and read what it knows.

        place: where in the folder a batch of this kind keeps its things. namer: says which files are whose.

        Raises:
            OutputError: another batch writes there, or it cannot be written.
        """
        out = place(folder)
        with ExitStack() as stack:
            stack.enter_context(out.locked())
            try:
                journal = Journal(out.journal)
                stack.callback(journal.close)
                names = namer(out, journal.known)
                stack.callback(names.close)
            except OSError as error:
                raise out.refused(error) from error
            yield cls(out, journal, names, policy)

    def plan(self, items: Iterable[Item]) -> list[Work]:
        """Work for each item. Raises OutputError when the names cannot be written down."""
        try:
            return self.names.plan(items, self.journal.known, self.policy)
        except OSError as error:
            raise self.out.refused(error) from error

    def take(self, records: Sequence[Record], counter: Counter) -> None:
        """Journal what was done or failed, and count everything. Raises OutputError."""
        try:
            self.journal.append([record for record in records if record["status"] != SKIPPED])
        except OSError as error:
            raise OutputError(
                f"cannot write {self.out.journal}: {explain(error)[0]}", hint="free some space and run the same again"
            ) from error
        for record in records:
            status = record["status"]
            counter.done += status == "done"
            counter.failed += status == "failed"
            counter.skipped += status == SKIPPED
            counter.earlier += status == SKIPPED and not record["done"]
            counter.ambiguous += bool(record.get("ambiguous", False))


@dataclass(frozen=True)
class Local:
    """Runs work on this machine's threads.

    threads: CPU threads of the network, and as many photos are decoded and cut out beside it; None takes every core
    that the process may use. predictor: makes what takes the photos.
    """

    choice: ModelChoice
    out: Path
    max_pixels: int = MAX_PIXELS
    predictor: Callable[[ModelChoice, Path], Predictor] = Predictor

    def __call__(self, works: Iterable[Work], stop: threading.Event) -> Iterator[Record]:
        """Records as they come. Raises CannotGoOn, and what loading the model raises."""
        import cv2

        threads = self.choice.threads or cores()
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)  # whole photos side by side use the cores better than parts of one
        predictor = self.predictor(self.choice, self.out)
        budget = Budget(self.max_pixels)

        def read(work: Work) -> Ticket:
            ticket = predictor.read(work)
            if ticket.record is not None:
                return ticket
            budget.acquire(ticket.pixels)
            return decode(ticket)

        decode, ask, write = (_releasing(step, budget) for step in (predictor.decode, predictor.ask, predictor.write))
        steps = [Step(read, max(1, threads // 2)), Step(ask), Step(write, max(1, threads))]
        try:
            for ticket in run_steps(works, steps, lambda ticket: ticket.record is not None, stop):
                yield ticket.record
        finally:
            cv2.setNumThreads(before)
            predictor.model.close()


def _releasing(step: Callable[[Ticket], Ticket], budget: Budget) -> Callable[[Ticket], Ticket]:
    """The step, giving the photo's pixels back when it is the photo's last."""

    def run(ticket: Ticket) -> Ticket:
        try:
            step(ticket)
        except BaseException:
            budget.release(ticket.pixels)
            raise
        if ticket.record is not None:
            budget.release(ticket.pixels)
        return ticket

    return run


@dataclass
class Result:
    """What a run came to. error: why it could not go on."""

    counter: Counter
    ids: list[str] = field(default_factory=list)
    error: BoothsamError | None = None


def run_items(batch: Batch, items: Sequence[Item], run: Run, stop: threading.Event) -> Result:
    """All items once. Raises what loading the model raises; what stops the batch midway is in the result."""
    result = Result(Counter(len(items)), [item.id for item in items])
    _drive(batch, run(batch.plan(items), stop), result)
    return result


@dataclass(frozen=True)
class Drop:
    """A watched folder. move_done: where photos go when they are done; None leaves them."""

    watcher: Watcher
    defaults: Defaults
    move_done: Path | None = None


def run_watch(batch: Batch, drop: Drop, run: Run, stop: threading.Event) -> Result:
    """Whatever becomes complete in the folder, until `stop` is set."""
    result = Result(Counter(None))

    def works() -> Iterator[Work]:
        for photos in drop.watcher.batches(stop):
            yield from batch.plan(_dropped(photo, drop) for photo in photos)

    def after(record: Record) -> None:
        result.ids.append(record["id"])
        if drop.move_done is not None and (record["status"] == "done" or record.get("done")):
            try:
                batch.names.release([record["id"]])
            except OSError as error:
                raise batch.out.refused(error) from error
            try:
                move_away(Path(record["photo"]), drop.watcher.folder, drop.move_done)
            except OutputError as error:  # the booth goes on; the photo is not done again
                say_exception(error)

    _drive(batch, run(works(), stop), result, after)
    return result


def _dropped(photo: Path, drop: Drop) -> Item:
    name = PurePosixPath(photo.relative_to(drop.watcher.folder).with_suffix(""))
    return make_item(str(photo), photo, name, drop.defaults)


def _drive(
    batch: Batch, records: Iterator[Record], result: Result, after: Callable[[Record], None] = lambda record: None
) -> None:
    ticker = Ticker(result.counter)
    try:
        for record in records:
            batch.take([record], result.counter)
            after(record)
            ticker.tick()
    except CannotGoOn as error:
        result.error = OutputError(str(error), hint="mend it and run the same again: it goes on where it stopped")
    except OutputError as error:
        result.error = error
    finally:
        # A generator that is only dropped would be closed later, on any thread; its own threads must end here.
        close = getattr(records, "close", None)
        if close is not None:
            close()
        ticker.clear()
