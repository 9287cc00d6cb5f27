"""Dockerfiles as stages with their arguments filled in, and the rules that ours keep."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]
# What a service in a container may be made of; export, train and dev would bring torch.
EXTRAS = {"codes", "cpu", "gpu", "serve", "tensorrt"}
# Not arguments of ours: the shell's own, and what every image has.
SHELL_WORDS = {"PATH", "HOME"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?:[:%#+-][^}]*)?\}|\$([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Instruction:
    """One instruction. line: its first, counted from 1."""

    name: str
    value: str
    line: int


@dataclass
class Stage:
    """base: the image or stage that it starts from, with arguments filled in. name: after AS, else its number."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, name: str) -> list[str]:
        """The values of all instructions of that name."""
        return [i.value for i in self.instructions if i.name == name]


@dataclass(frozen=True)
class Dockerfile:
    """text: the file. given: build arguments. defaults: those before the first FROM."""

    text: str
    given: Mapping[str, str]
    defaults: Mapping[str, str]
    stages: tuple[Stage, ...]

    def chain(self) -> list[Stage]:
        """The last stage and all that it is built on, the lowest first."""
        by_name = {stage.name: stage for stage in self.stages}
        found = [self.stages[-1]]
        while found[0].base in by_name:
            found.insert(0, by_name[found[0].base])
        return found

    def final(self, name: str) -> list[str]:
        """All values of an instruction in the image that comes out, the effective one last."""
        return [value for stage in self.chain() for value in stage.of(name)]

    def environment(self) -> dict[str, str]:
        """ENV of the image that comes out; variables that ENV itself uses stay as they are written."""
        return {name: value for text in self.final("ENV") for name, value in _pairs(text)}

    def images(self) -> list[str]:
        """The images from outside that the build needs."""
        names = {stage.name for stage in self.stages}
        return sorted({stage.base for stage in self.needed() if stage.base not in names})

    def needed(self) -> list[Stage]:
        """The stages that the last one needs, by FROM or COPY --from."""
        by_name = {stage.name: stage for stage in self.stages}
        wanted, found = [self.stages[-1].name], []
        while wanted:
            stage = by_name[wanted.pop()]
            if stage not in found:
                found.append(stage)
                sources = [_sources(value)[0] for value in stage.of("COPY")]
                wanted += [name for name in (stage.base, *sources) if name in by_name]
        return found


def parse(text: str, **given: str) -> Dockerfile:
    """given: build arguments in place of their defaults."""
    parser = DockerfileParser(fileobj=io.BytesIO(text.encode()))
    stages: list[Stage] = []
    defaults: dict[str, str] = {}
    for entry in parser.structure:
        name, value = entry["instruction"], entry["value"]
        if name == "COMMENT":
            continue
        if name == "FROM":
            base, *alias = value.split()
            stages.append(Stage(_fill(base, defaults | given), alias[-1] if alias else str(len(stages))))
        elif not stages:
            key, _, default = value.partition("=")
            defaults[key] = default
        else:
            stages[-1].instructions.append(Instruction(name, value, entry["startline"] + 1))
    return Dockerfile(text, given, defaults, tuple(stages))


def expanded(text: str, **given: str) -> str:
    """The file with the arguments in its FROM lines filled in, for tools that do not do so themselves."""
    arguments = dict(parse(text, **given).defaults) | given
    lines = text.splitlines(keepends=True)
    return "".join(_fill(line, arguments) if line.startswith("FROM ") else line for line in lines)


def _fill(text: str, arguments: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: arguments[match[1] or match[2]], text)


def problems(file: Dockerfile, extras: Mapping[str, object], settings: set[str]) -> list[str]:
    """The rules that a file breaks, each by its name and what was found; empty for a good one.

    extras: of pyproject.toml. settings: names of BOOTHSAM_* variables that something reads.
    """
    return [*_user_and_process(file), *_images_and_arguments(file), *_steps(file, extras), *_service(file, settings)]


def _user_and_process(file: Dockerfile) -> Iterator[str]:
    user = (file.final("USER") or ["root"])[-1].split(":")[0]
    if user in ("root", "0"):
        yield f"root: the image runs as {user}"
    checks = file.final("HEALTHCHECK")
    if not checks or "CMD" not in checks[-1]:
        yield "health: no HEALTHCHECK"
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        for value in file.final(name):
            if exec_form(value) is None:
                yield f"exec: {name} {value}"
    if not file.final("ENTRYPOINT"):
        yield "exec: no ENTRYPOINT"
    if file.final("STOPSIGNAL")[-1:] != ["SIGTERM"]:
        yield "signal: the service drains on SIGTERM"


def exec_form(value: str) -> list[str] | None:
    """The words of an exec form, also that of a HEALTHCHECK; None for a shell form."""
    text = value[value.index("CMD") + 3 :] if value.startswith("--") or value.startswith("CMD") else value
    try:
        words = json.loads(text)
    except ValueError:
        return None
    return words if isinstance(words, list) and words and all(isinstance(word, str) for word in words) else None


def _images_and_arguments(file: Dockerfile) -> Iterator[str]:
    names = {stage.name for stage in file.stages}
    for stage in file.stages:
        if stage.base not in names:
            tag = stage.base.rsplit("/", 1)[-1].partition(":")[2]
            if tag in ("", "latest"):
                yield f"tag: {stage.base}"
    body = [line for line in file.text.splitlines() if not line.lstrip().startswith("#")]
    for name in file.defaults:
        if not any(re.search(rf"\$\{{?{name}\b", line) for line in body):
            yield f"unused: ARG {name}"
    for stage in file.stages:
        known = {n for s in _below(file, stage) for value in s.of("ENV") for n, _ in _pairs(value)}
        known |= {value.partition("=")[0] for value in stage.of("ARG")}
        for instruction in stage.instructions:
            loops = set(re.findall(r"\bfor (\w+) in\b", instruction.value))
            used = {a or b for a, b in _VARIABLE.findall(instruction.value)}
            for name in sorted(used - known - loops - SHELL_WORDS):
                yield f"unknown: ${name} in line {instruction.line}"
        for name in (value.partition("=")[0] for value in stage.of("ARG")):
            if not any(f"${{{name}" in i.value or f"${name}" in i.value for i in stage.instructions):
                yield f"unused: ARG {name} in {stage.name}"


def _below(file: Dockerfile, stage: Stage) -> Iterator[Stage]:
    by_name = {s.name: s for s in file.stages}
    found: Stage | None = stage
    while found is not None:
        yield found
        found = by_name.get(found.base)


def _steps(file: Dockerfile, extras: Mapping[str, object]) -> Iterator[str]:
    names = {stage.name for stage in file.stages}
    for stage in file.stages:
        for value in stage.of("RUN"):
            if re.search(r"\btorch", value):
                yield f"torch: {value[:60]}"
            if "apt-get install" in value and "--no-install-recommends" not in value:
                yield f"apt: recommended packages in {stage.name}"
            if "apt-get" in value and "rm -rf /var/lib/apt/lists" not in value:
                yield f"apt: lists are left in {stage.name}"
            for group in re.findall(r"\.whl\)?\[([\w,-]+)\]", value):
                for extra in sorted(set(group.split(",")) - (EXTRAS & set(extras))):
                    yield f"extra: {extra}"
        for value in stage.of("COPY") + stage.of("ADD"):
            origin, sources = _sources(value)
            if origin and origin not in names:
                yield f"copy: no stage {origin}"
            if not origin:
                yield from (f"copy: no {source}" for source in sources if not (ROOT / source).exists())
    if not any(re.search(r"\.whl\)?\[", value) for stage in file.needed() for value in stage.of("RUN")):
        yield "extra: boothsam is not installed"


def _service(file: Dockerfile, settings: set[str]) -> Iterator[str]:
    environment = file.environment()
    for name in environment:
        if name.startswith("BOOTHSAM_") and name not in settings:
            yield f"setting: {name}"
    given = [name for stage in file.stages for value in stage.of("ENV") for name, _ in _pairs(value)]
    for name in given + [value for stage in file.stages for value in stage.of("ARG")]:
        if re.search("TOKEN|SECRET|PASSWORD", name):
            yield f"secret: {name}"
    home = environment.get("BOOTHSAM_HOME", "")
    if home not in file.final("VOLUME"):
        yield f"volume: BOOTHSAM_HOME is {home!r}"
    if file.final("EXPOSE") != [environment.get("BOOTHSAM_PORT")]:
        yield f"port: EXPOSE {file.final('EXPOSE')}"
    if environment.get("BOOTHSAM_HOST") != "0.0.0.0":
        yield "host: nobody reaches the loopback inside a container"
    if environment.get("ORT_DISABLE_TELEMETRY") != "1":
        yield "telemetry: ONNX Runtime reports to its maker"


def _pairs(value: str) -> list[tuple[str, str]]:
    """NAME=value pairs of ENV or LABEL."""
    return [(name, text.strip('"')) for name, text in re.findall(r'([\w.]+)=("[^"]*"|\S*)', value)]


def _sources(value: str) -> tuple[str, list[str]]:
    """Of COPY: the stage of --from, or "", and the sources."""
    words = value.split()
    origin = next((word.partition("=")[2] for word in words if word.startswith("--from=")), "")
    paths = [word for word in words if not word.startswith("--")]
    return origin, [str(PurePosixPath(path)) for path in paths[:-1]]
