"""The Dockerfiles keep the rules of `dockerfiles.problems`, and each rule notices the file that breaks it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from boothsam.service.settings import Settings

from tests.containers.dockerfiles import ROOT, exec_form, expanded, parse, problems

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SETTINGS = {f"BOOTHSAM_{name.upper()}" for name in Settings.model_fields} | {"BOOTHSAM_HOME"}
BUILDS = [
    ("Dockerfile", {}),
    ("Dockerfile", {"ACCELERATOR": "gpu"}),
    ("Dockerfile.jetson", {}),
    ("Dockerfile.jetson", {"JETPACK": "7.2"}),
]
TEXTS = {name: (ROOT / name).read_text() for name in ("Dockerfile", "Dockerfile.jetson")}


@pytest.mark.parametrize(("name", "arguments"), BUILDS)
def test_the_files_keep_the_rules(name: str, arguments: dict[str, str]) -> None:
    assert problems(parse(TEXTS[name], **arguments), EXTRAS, SETTINGS) == []


CHECK = "/opt/boothsam/bin/python -I -S /opt/boothsam/healthcheck.py"
MUTATIONS = [
    ("root", "USER 10001\n", ""),
    ("root", "USER 10001\n", "USER root\n"),
    ("root", "USER 10001\n", "USER 10001\nUSER 0:0\n"),
    ("health", "HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \\\n    CMD", "LABEL check="),
    ("exec", 'ENTRYPOINT ["/opt/boothsam/bin/boothsam"]', "ENTRYPOINT /opt/boothsam/bin/boothsam"),
    ("exec", 'CMD ["serve"]', "CMD serve"),
    ("exec", f'CMD ["{CHECK.replace(" ", chr(34) + ", " + chr(34))}"]', f"CMD {CHECK}"),
    ("exec", 'ENTRYPOINT ["/opt/boothsam/bin/boothsam"]\n', ""),
    ("signal", "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
    ("torch", "[codes,cpu,serve]", "[codes,cpu,serve] torch"),
    ("extra", "[codes,cpu,serve]", "[codes,cpu,export]"),
    ("extra", "[codes,cpu,serve]", "[codes,cpu,server]"),
    ("copy", "COPY deploy/healthcheck.py", "COPY deploy/health_check.py"),
    ("copy", "COPY --from=venv", "COPY --from=environment"),
    ("setting", "BOOTHSAM_PORT=8765", "BOOTHSAM_PORT=8765 BOOTHSAM_PROT=1"),
    ("secret", "BOOTHSAM_PORT=8765", "BOOTHSAM_PORT=8765 BOOTHSAM_TOKEN=x"),
    ("volume", "VOLUME /var/lib/boothsam", "VOLUME /data"),
    ("port", "EXPOSE 8765", "EXPOSE 80"),
    ("host", "BOOTHSAM_HOST=0.0.0.0", "BOOTHSAM_HOST=127.0.0.1"),
    ("telemetry", "ORT_DISABLE_TELEMETRY=1", "ORT_DISABLE_TELEMETRY=0"),
]
OWN_MUTATIONS = [
    ("Dockerfile", "tag", "python:${PYTHON}-slim-bookworm", "python"),
    ("Dockerfile", "tag", "python:${PYTHON}-slim-bookworm", "python:latest"),
    ("Dockerfile", "unused", "ARG PYTHON=3.12", "ARG PYTHON=3.12\nARG COLOUR=red"),
    ("Dockerfile", "unused", "AS image-gpu\nARG PYTHON", "AS image-gpu\nARG PYTHON\nARG ACCELERATOR"),
    ("Dockerfile", "unknown", "AS image-gpu\nARG PYTHON\n", "AS image-gpu\n"),
    ("Dockerfile.jetson", "tag", "ubuntu:24.04 AS jetpack", "ubuntu AS jetpack"),
    ("Dockerfile.jetson", "apt", " --no-install-recommends ca-certificates curl", " ca-certificates curl"),
    ("Dockerfile.jetson", "apt", "python3-venv \\\n    && rm -rf /var/lib/apt/lists/*", "python3-venv"),
    ("Dockerfile.jetson", "unknown", "ARG JETSON_KEY_SHA256\nSHELL", "SHELL"),
    ("Dockerfile.jetson", "unknown", "    JETSON_BOARD=t234 \\\n", ""),
]


@pytest.mark.parametrize(
    ("name", "rule", "old", "new"), [(name, *mutation) for name in TEXTS for mutation in MUTATIONS] + OWN_MUTATIONS
)
def test_a_file_that_breaks_a_rule_is_noticed(name: str, rule: str, old: str, new: str) -> None:
    assert old in TEXTS[name]
    found = problems(parse(TEXTS[name].replace(old, new)), EXTRAS, SETTINGS)
    assert any(problem.startswith(f"{rule}:") for problem in found), found


def test_arguments_choose_what_the_image_is_built_on() -> None:
    assert parse(TEXTS["Dockerfile"], PYTHON="3.13").images() == ["python:3.13-slim-bookworm"]
    six, seven = (parse(TEXTS["Dockerfile.jetson"], JETPACK=version) for version in ("6.2", "7.2"))
    assert "nvcr.io/nvidia/l4t-cuda:12.6.11-runtime" in six.images() and seven.images() == ["ubuntu:24.04"]
    assert (six.environment()["L4T"], seven.environment()["L4T"]) == ("r36.4", "r39.2")
    assert six.environment()["CUDA_BINDINGS"] == "" and seven.environment()["CUDA"] == "13-2"
    cpu, gpu = (parse(TEXTS["Dockerfile"], ACCELERATOR=kind) for kind in ("cpu", "gpu"))
    assert "venv-gpu" not in {stage.name for stage in cpu.needed()} and "LD_LIBRARY_PATH" not in cpu.environment()
    assert "venv-cpu" not in {stage.name for stage in gpu.needed()} and "nvidia" in gpu.environment()["LD_LIBRARY_PATH"]
    assert "FROM venv-gpu AS venv" in expanded(TEXTS["Dockerfile"], ACCELERATOR="gpu")


def test_the_shared_part_of_the_two_files_is_the_same() -> None:
    # One image is not to be safer or easier to run than the other.
    plain, jetson = (parse(text) for text in TEXTS.values())
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK", "VOLUME", "USER", "EXPOSE", "STOPSIGNAL", "WORKDIR"):
        assert plain.final(name)[-1] == jetson.final(name)[-1], name
    assert plain.environment().items() - jetson.environment().items() == set()
    assert jetson.environment()["BOOTHSAM_BUILD_ENGINE"] == "1"


def test_the_commands_in_the_images_are_what_the_package_installs() -> None:
    for text in TEXTS.values():
        file = parse(text)
        (entry,), words = exec_form(file.final("ENTRYPOINT")[-1]) or [], exec_form(file.final("HEALTHCHECK")[-1]) or []
        assert Path(entry).name in PROJECT["scripts"]
        copied = [value.split() for value in file.final("COPY") if "healthcheck" in value]
        assert copied == [["deploy/healthcheck.py", words[-1]]]
        assert Path(entry).parent == Path(words[0]).parent and entry.startswith(
            file.environment()["PATH"].split(":")[0]
        )


@pytest.mark.skipif(shutil.which("hadolint", path=str(Path(sys.executable).parent)) is None, reason="no hadolint here")
@pytest.mark.parametrize("name", TEXTS)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = str(Path(sys.executable).parent / "hadolint")
    done = subprocess.run([hadolint, str(ROOT / name)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
