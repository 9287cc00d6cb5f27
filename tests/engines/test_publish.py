"""The store of engines: found whole or not at all, under kills, races and tampering."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from boothsam.engines.publish import build_lock, open_folder, publish
from boothsam.runtime import engine_files
from boothsam.runtime.engine_files import Identity, engine_key, file_name, find, graph_sha256, published
from boothsam.runtime.errors import BackendUnavailable, EngineError, IntegrityError

HERE = Identity("tensorrt", "10.3.0", "12.6", "Orin", "8.7", 8)
GRAPH = graph_sha256(b"graph")
PROFILES = [[1, 32], [8, 32]]
NAME = file_name(GRAPH, engine_key(GRAPH, HERE, "fp16", PROFILES))


def header(identity: Identity = HERE, passed: object = True, graph: str = GRAPH) -> dict[str, Any]:
    facts = {"graph_sha256": graph, "precision": "fp16", "profiles": PROFILES, "identity": asdict(identity)}
    return {**facts, "verified": {"passed": passed}}


def put(engine: bytes = b"engine", name: str = NAME, **what: Any) -> Path:
    with build_lock(name):
        return publish(name, header(**what), engine).path


def test_what_is_published_is_found_and_read() -> None:
    path = put(b"\x00code\n" * 1000)
    found = find(GRAPH, HERE)
    assert found.path == path and found.identity == HERE and found.read() == b"\x00code\n" * 1000
    assert found.header["engine_bytes"] == 6000
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "change",
    [
        {"library": "tensorrt_rtx"},
        {"version": "10.16.2"},
        {"cuda": "13.2"},
        {"gpu": "Thor"},
        {"compute_capability": "11.0"},
        {"multiprocessors": 4},
    ],
)
def test_an_engine_of_another_device_or_version(change: dict[str, Any]) -> None:
    other = replace(HERE, **change)
    assert engine_key(GRAPH, other, "fp16", PROFILES) != engine_key(GRAPH, HERE, "fp16", PROFILES)
    put(identity=other)
    with pytest.raises(EngineError) as caught:
        find(GRAPH, HERE)
    assert str(other) in caught.value.message and str(HERE) in caught.value.message
    assert caught.value.hint and caught.value.hint.startswith("boothsam build")


def test_the_key_tells_graphs_precisions_and_profiles_apart() -> None:
    keys = {engine_key(g, HERE, p, s) for g in ("a", "b") for p in ("fp16", "fp32") for s in ([], PROFILES)}
    assert len(keys) == 8


def test_no_engine() -> None:
    with pytest.raises(BackendUnavailable, match="no engine of the graph") as caught:
        find(GRAPH, HERE)
    assert caught.value.hint and "boothsam build" in caught.value.hint


def test_external_data_is_part_of_the_name(tmp_path: Path) -> None:
    weights = tmp_path / "g.onnx.data"
    weights.write_bytes(b"weights")
    first = graph_sha256(b"graph", weights)
    weights.write_bytes(b"weightz")
    assert len({first, graph_sha256(b"graph", weights), GRAPH}) == 3
    data = hashlib.sha256(b"weights").hexdigest()
    assert first == engine_files.joined_sha256(hashlib.sha256(b"graph").hexdigest(), data)


@pytest.mark.parametrize("passed", [False, None, 1, "true"])
def test_what_was_not_verified_is_not_published(passed: object) -> None:
    with pytest.raises(EngineError, match="was not verified"):
        put(passed=passed)
    with build_lock(NAME), pytest.raises(EngineError, match="was not verified"):
        publish(NAME, {**header(), "verified": None}, b"engine")
    assert list(published()) == []


# tampering


def test_a_flipped_byte_anywhere_in_the_engine_is_found() -> None:
    path = put(bytes(range(256)))
    whole = path.read_bytes()
    start = len(whole) - 256
    for place in (start, start + 100, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(IntegrityError, match="its header expects"):
            find(GRAPH, HERE).read()
    for altered in (whole[:-1], whole + b"x"):
        path.write_bytes(altered)
        with pytest.raises(IntegrityError):
            find(GRAPH, HERE).read()


@pytest.mark.parametrize("content", [b"", b"boothsam-engine 1\n", b"ELF", b"boothsam-engine 1\n[]\nx",
                                     b"boothsam-engine 1\n{}\nx", b"boothsam-engine 2\n{}\nx"])  # fmt: skip
def test_what_is_no_engine_file_is_left_out(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = put()
    path.write_bytes(content)
    assert list(published()) == [] and "is no engine" in caplog.text


def test_a_header_that_claims_another_graph_is_not_taken() -> None:
    put(graph=graph_sha256(b"another"))
    with pytest.raises(BackendUnavailable):
        find(GRAPH, HERE)


def test_a_folder_that_others_may_write_to_is_refused() -> None:
    path = put()
    path.parent.chmod(0o777)
    with pytest.raises(EngineError, match="engines are code") as caught:
        find(GRAPH, HERE).read()
    assert caught.value.hint == f"chmod 700 {path.parent}"
    with pytest.raises(EngineError, match="engines are code"):
        put()


# kills


def run_and_die(code: str) -> int:
    """Exit code of a process that runs `code` on this test's store."""
    prelude = (
        "import json, os, signal, sys\n"
        "from boothsam.engines import publish as p\n"
        f"NAME = {NAME!r}\nHEADER = json.loads({json.dumps(json.dumps(header()))})\n"
    )
    return subprocess.run([sys.executable, "-c", prelude + code], check=False, timeout=60).returncode


@pytest.mark.parametrize(("fsync", "there"), [(1, False), (2, True)])
def test_a_kill_in_the_middle_of_publishing(fsync: int, there: bool) -> None:
    """At the first fsync the file is written and not yet renamed, at the second it is renamed."""
    code = (
        "count = [0]\n"
        "def fsync(fd):\n"
        "    count[0] += 1\n"
        f"    if count[0] == {fsync}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "p.os.fsync = fsync\n"
        "with p.build_lock(NAME):\n"
        "    p.publish(NAME, HEADER, b'engine' * 100000)\n"
    )
    assert run_and_die(code) == -signal.SIGKILL
    assert [e.path.name for e in published()] == ([NAME] if there else [])
    if there:
        assert find(GRAPH, HERE).read() == b"engine" * 100000
    else:
        assert len(list(open_folder().glob(".*.part"))) == 1
    put(b"second")
    assert find(GRAPH, HERE).read() == b"second"
    assert not list(open_folder().glob(".*.part"))  # the next builder swept up


def test_the_lock_of_a_killed_builder_is_free() -> None:
    code = "with p.build_lock(NAME):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    assert run_and_die(code) == -signal.SIGKILL
    waited: list[bool] = []
    with build_lock(NAME, lambda: waited.append(True)):
        pass
    assert not waited


def test_a_child_that_still_builds_keeps_the_lock() -> None:
    """The builder's parent died; who comes next must not build beside the child."""
    with build_lock(NAME) as descriptor:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    waited = threading.Event()

    def second() -> None:
        with build_lock(NAME, waited.set):
            pass

    thread = threading.Thread(target=second)
    thread.start()
    assert waited.wait(20) and thread.is_alive()
    child.kill()
    child.wait()
    assert child.stdin
    child.stdin.close()
    thread.join(20)
    assert not thread.is_alive()


# races


def test_two_builders_take_turns_and_the_second_finds_the_engine() -> None:
    built: list[int] = []
    inside = threading.Semaphore(1)

    def builder(number: int) -> None:
        with build_lock(NAME):
            assert inside.acquire(blocking=False)  # never two at once
            if not list(published(GRAPH)):
                built.append(number)
                time.sleep(0.05)
                publish(NAME, header(), b"engine")
            inside.release()

    threads = [threading.Thread(target=builder, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(built) == 1 and find(GRAPH, HERE).read() == b"engine"


def test_readers_see_the_old_engine_or_the_new_one_whole() -> None:
    put(b"0" * 200_000)
    stop, seen, failures = threading.Event(), set(), []

    def reader() -> None:
        while not stop.is_set():
            try:
                seen.add(find(GRAPH, HERE).read())
            except Exception as error:  # whatever it is, it must not happen
                failures.append(error)

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for digit in range(40):
        put(str(digit % 10).encode() * 200_000)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert all(len(set(engine)) == 1 and len(engine) == 200_000 for engine in seen)


def test_a_full_disk_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from boothsam.runtime.errors import OutputError

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        put()
    assert list(published()) == [] and not list(open_folder().glob(".*.part"))
