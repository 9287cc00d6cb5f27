"""Kill a process that stores captures, again and again, and look for what was lost.

    python benchmarks/kill_captures.py [--kills 1000] [--seed 1] [--json FILE]

A child stores captures in one folder, deletes some, and says on a pipe what was acknowledged. It is killed with
SIGKILL: every other time by its parent after a random time, so also in the middle of a system call; else by itself
before the n-th call into C that its writer thread makes, so that no gap between two steps stays untried. Then the store
is opened again and everything is compared. A kill takes the process, not the kernel: that files are synced before they
are acknowledged is a test of its own (tests/service/captures/test_durable_order.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from boothsam.service.captures.records import Content
from boothsam.service.captures.store import CaptureStore

TARGET = "folder:/nowhere"
FINGERPRINT = "0" * 64
OPEN = {"min_free_bytes": 0, "reserve_bytes": 4096, "target": TARGET}


@dataclass
class Tally:
    """What all kills together gave. The last four must be 0."""

    kills: int = 0
    acknowledged: int = 0
    deleted: int = 0
    adopted: int = 0
    orphans_removed: int = 0
    deletions_undone: int = 0
    lost: int = 0
    half_files: int = 0
    resurrected: int = 0
    disorder: int = 0

    @property
    def failures(self) -> int:
        """Sum of what must never happen."""
        return self.lost + self.half_files + self.resurrected + self.disorder


def contents(key: str) -> dict[str, Content]:
    """Files of a capture, derived from its key; every fourth shares its cut-out with others."""
    number = int(key.rsplit("-", 1)[1])
    block = hashlib.sha256(key.encode()).digest()
    shared = hashlib.sha256(b"shared").digest() * 40 if number % 4 == 0 else block * 60
    return {
        "original": Content(block * (200 + number % 700), ".jpg"),
        "mask": Content(block[::-1] * 30, ".png"),
        "cutout": Content(shared, ".png"),
    }


def tell(*words: object) -> None:
    """A line on the pipe in one system call: `print` may write it in pieces, and a kill fall in between."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def child(folder: Path, run: str, die_at: int) -> None:
    """Store and delete until killed; one line for each acknowledgement."""
    store = CaptureStore.open(folder, **OPEN)
    if die_at:
        _die_in_writer(store, die_at)
    tell("ready")
    kept = [capture.id for capture in store.walk()]
    for number in range(1_000_000):
        key = f"{run}-{number}"
        capture = store.add(contents(key), {"sku": key}, fingerprint=FINGERPRINT, key=key).result().capture
        tell("added", capture.id, key)
        kept.append(capture.id)
        if number % 2:
            gone = kept.pop(0)
            tell("deleting", gone)
            store.delete(gone, force=True).result()
            tell("deleted", gone)


def _die_in_writer(store: CaptureStore, die_at: int) -> None:
    """SIGKILL before the n-th C function that the writer thread calls from now on."""
    calls = 0

    def profile(_frame: Any, event: str, _function: Any) -> None:
        nonlocal calls
        calls += event == "c_call"
        if calls >= die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    store._hand_over(lambda _index: sys.setprofile(profile)).result()


def nursery(folder: Path) -> None:
    """Fork a child for every line `run die_at` on stdin; a fork spares the half second in which Python imports."""
    for line in sys.stdin:
        run, die_at = line.split()
        pid = os.fork()
        if pid == 0:
            child(folder, run, int(die_at))
        tell("started", pid)
        tell("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


class Watch:
    """What the children said."""

    def __init__(self, folder: Path, seed: int, nursery: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.nursery = nursery
        self.random = random.Random(seed)
        self.alive: dict[str, str] = {}  # id -> key
        self.doubtful: set[str] = set()  # deletions that were asked for and not acknowledged
        self.gone: set[str] = set()
        self.top = 0
        self.tally = Tally()

    def kill_once(self, number: int) -> None:
        """Start a child, let it be killed, open the store, compare."""
        by_itself = number % 2 == 1
        die_at = self.random.randint(1, 2500) if by_itself else 0
        assert self.nursery.stdin is not None and self.nursery.stdout is not None
        self.nursery.stdin.write(f"run{number} {die_at}\n")
        self.nursery.stdin.flush()
        waiting_for, pid = {"started", "ready"}, 0
        for line in self.nursery.stdout:
            word, *rest = line.split()
            if word == "ended":
                if int(rest[0]) != -signal.SIGKILL:
                    raise RuntimeError(f"the child ended with {rest[0]}, expected to be killed")
                break
            if word == "started":
                pid = int(rest[0])
            waiting_for.discard(word)
            if not waiting_for and not by_itself:
                waiting_for.add("nothing more")
                threading.Timer(self.random.uniform(0, 0.25), os.kill, (pid, signal.SIGKILL)).start()
            self._note(word, rest)
        else:
            raise RuntimeError("the children's parent ended")
        self.tally.kills += 1
        self._compare()

    def _note(self, word: str, rest: list[str]) -> None:
        if word == "added":
            self.alive[rest[0]] = rest[1]
            self.tally.acknowledged += 1
        elif word == "deleting":
            self.doubtful.add(rest[0])
        elif word == "deleted":
            self.doubtful.discard(rest[0])
            self.alive.pop(rest[0], None)
            self.gone.add(rest[0])
            self.tally.deleted += 1

    def _compare(self) -> None:
        tally = self.tally
        store = CaptureStore.open(self.folder, **OPEN)
        try:
            tally.adopted += len(store.found.adopted)
            tally.orphans_removed += len(store.found.orphans)
            tally.deletions_undone += len(store.found.sidecars)
            found = {capture.id: capture for capture in store.walk()}
            missing = self.alive.keys() - found.keys()
            tally.lost += len(missing - self.doubtful) + len(store.found.lost)
            for id in missing:
                del self.alive[id]
            self.doubtful.clear()
            tally.resurrected += len(self.gone & found.keys())
            numbers = [capture.seq for capture in found.values()]
            new = [capture.seq for id, capture in found.items() if id not in self.alive]
            tally.disorder += numbers != sorted(set(numbers)) or any(seq <= self.top for seq in new)
            self.top = max([self.top, *numbers])
            for capture in found.values():
                expected = contents(str(capture.idempotency_key))
                same = set(expected) == set(capture.files) and all(
                    store.path(capture, role).read_bytes() == content.data for role, content in expected.items()
                )
                tally.half_files += not same
                # A client that got no answer sends the same again: it must get this capture, not a second one.
                if capture.id not in self.alive:
                    again = store.add(expected, {}, fingerprint=FINGERPRINT, key=capture.idempotency_key).result()
                    tally.disorder += not again.replayed or again.capture.id != capture.id
                    self.alive[capture.id] = str(capture.idempotency_key)
            tally.half_files += not store.check(deep=True).sound
            # The folder stays small: what was looked at goes, by acknowledged deletions.
            for id in self.random.sample(sorted(found), max(0, len(found) - 10)):
                store.delete(id, force=True).result()
                del self.alive[id]
                self.gone.add(id)
        finally:
            store.close()


def run(folder: Path, kills: int, seed: int) -> Iterator[Tally]:
    """Kill `kills` times; yields the running tally after each."""
    command = [sys.executable, str(Path(__file__).resolve()), "--children", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        watch = Watch(folder, seed, process)
        for number in range(kills):
            watch.kill_once(number)
            yield watch.tally


def main() -> int:
    """Exit status: 0 when nothing was lost."""
    if sys.argv[1:2] == ["--children"]:
        logging.getLogger("boothsam").setLevel(logging.ERROR)
        nursery(Path(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work, to try a certain disk; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="write the result there")
    arguments = parser.parse_args()
    logging.getLogger("boothsam").setLevel(logging.ERROR)  # each kill leaves something to put in order
    start = time.perf_counter()
    tally = Tally()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for tally in run(Path(folder) / "captures", arguments.kills, arguments.seed):
            if tally.kills % 100 == 0:
                print(f"{tally.kills} kills: {tally}", file=sys.stderr)
    result = {"date": date.today().isoformat(), "seed": arguments.seed} | asdict(tally)
    result |= {"seconds": round(time.perf_counter() - start, 1), "python": sys.version.split()[0]}
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
