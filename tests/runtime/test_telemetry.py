"""ONNX Runtime and OpenVINO report to their makers unless told not to: with us they make not even an identifier."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import boothsam.runtime.models.starter
import pytest
from boothsam.runtime.backends import unavailable_reason

LOAD = """
import os
from pathlib import Path
from boothsam.runtime.backends import open_session
open_session(os.environ["BACKEND"], Path(os.environ["GRAPH"]).read_bytes(), threads=1).close()
"""
# With one of these it keeps quiet by itself.
QUIET = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")


@pytest.mark.parametrize("backend", ["ort-cpu", "ov"])
def test_loading_a_graph_leaves_no_identifier_behind(tmp_path: Path, backend: str) -> None:
    if (missing := unavailable_reason(backend)) is not None:
        pytest.skip(missing)
    graph = Path(boothsam.runtime.models.starter.__file__).with_name("decoder.onnx")
    own = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "GRAPH": str(graph), "BACKEND": backend}
    environment = {name: value for name, value in os.environ.items() if name not in QUIET} | own
    subprocess.run([sys.executable, "-c", LOAD], env=environment, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []
