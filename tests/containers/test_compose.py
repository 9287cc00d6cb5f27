"""compose.yaml: what it names exists, and each of its services is closed to everybody but this machine."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from boothsam.service.settings import Settings

from tests.containers.dockerfiles import ROOT, exec_form, parse

SETTINGS = {f"BOOTHSAM_{name.upper()}" for name in Settings.model_fields} | {"BOOTHSAM_HOME"}
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
Change = Callable[[dict[str, Any]], object]


def problems(compose: Mapping[str, Any]) -> Iterator[str]:
    """Each rule that a compose file breaks, by its name."""
    for name, service in compose["services"].items():
        yield from (f"{rule}: {name}" for rule in _of_service(service, compose.get("volumes", {})))


def _of_service(service: Mapping[str, Any], volumes: Mapping[str, Any]) -> Iterator[str]:
    for variable in service["environment"]:
        if variable.startswith("BOOTHSAM_") and variable not in SETTINGS:
            yield "setting"
    if not re.match(r"\$\{BOOTHSAM_TOKEN:\?", str(service["environment"].get("BOOTHSAM_TOKEN", ""))):
        yield "token"
    if not service["ports"] or any(not port.startswith("127.0.0.1:") for port in service["ports"]):
        yield "port"
    closed = service.get("read_only") and service.get("cap_drop") == ["ALL"] and not service.get("privileged")
    if not closed or service.get("security_opt") != ["no-new-privileges:true"] or "network_mode" in service:
        yield "closed"
    if service.get("user", "0").split(":")[0] in ("0", "root"):
        yield "root"
    if not re.fullmatch(r"\d+[gm]", str(service.get("mem_limit", ""))) or not service.get("pids_limit"):
        yield "limits"
    if service.get("restart") != "unless-stopped" or not service.get("init"):
        yield "restart"
    if int(service.get("stop_grace_period", "10s").rstrip("s")) < Settings.model_fields["drain_s"].default + 5:
        yield "drain"
    if not {"max-size", "max-file"} <= set(service.get("logging", {}).get("options", {})):
        yield "logs"
    if not service.get("tmpfs"):
        yield "tmp"
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        if not source.startswith("./") and source not in volumes:
            yield "volume"
    build = service["build"]
    file = ROOT / build.get("dockerfile", "Dockerfile")
    if not file.is_file() or set(build.get("args", {})) - set(parse(file.read_text()).defaults):
        yield "build"
        return
    image = parse(file.read_text())
    if image.final("VOLUME")[-1] not in {volume.split(":")[1] for volume in service["volumes"]}:
        yield "state"
    check = service["healthcheck"]["test"]
    if check[:1] != ["CMD"] or check[1:] != exec_form(image.final("HEALTHCHECK")[-1]):
        yield "health"
    if any(port.rsplit(":", 1)[-1] != image.environment()["BOOTHSAM_PORT"] for port in service["ports"]):
        yield "port"


def test_each_profile_is_one_service_that_keeps_the_rules() -> None:
    assert {name: service["profiles"] for name, service in COMPOSE["services"].items()} == {
        "cpu": ["cpu"], "gpu": ["gpu"], "jetson": ["jetson"]
    }  # fmt: skip
    assert list(problems(COMPOSE)) == []


MUTATIONS: list[tuple[str, Change]] = [
    ("setting", lambda s: s["environment"].update(BOOTHSAM_TOKN="x")),
    ("token", lambda s: s["environment"].update(BOOTHSAM_TOKEN="${BOOTHSAM_TOKEN:-}")),
    ("port", lambda s: s.update(ports=["8765:8765"])),
    ("port", lambda s: s.update(ports=["0.0.0.0:8765:8765"])),
    ("port", lambda s: s.update(ports=["127.0.0.1:8765:80"])),
    ("closed", lambda s: s.pop("read_only")),
    ("closed", lambda s: s.update(privileged=True)),
    ("closed", lambda s: s.update(network_mode="host")),
    ("closed", lambda s: s.pop("security_opt")),
    ("root", lambda s: s.pop("user")),
    ("limits", lambda s: s.pop("mem_limit")),
    ("restart", lambda s: s.update(restart="no")),
    ("drain", lambda s: s.update(stop_grace_period="10s")),
    ("logs", lambda s: s["logging"].pop("options")),
    ("tmp", lambda s: s.pop("tmpfs")),
    ("volume", lambda s: s["volumes"].append("cache:/cache")),
    ("build", lambda s: s["build"].update(args={"JETPAK": "7.2"})),
    ("build", lambda s: s["build"].update(dockerfile="Dockerfile.arm")),
    ("state", lambda s: s.update(volumes=["state:/data"])),
    ("health", lambda s: s["healthcheck"].update(test=["CMD-SHELL", "curl -f http://localhost:8765/readyz"])),
]


@pytest.mark.parametrize(("rule", "change"), MUTATIONS)
def test_a_service_that_breaks_a_rule_is_noticed(rule: str, change: Change) -> None:
    compose = copy.deepcopy(COMPOSE)
    change(compose["services"]["jetson"])
    assert f"{rule}: jetson" in list(problems(compose))


def test_what_is_asked_of_the_person_is_explained() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text() + (ROOT / "docs" / "jetson.md").read_text()
    for name in set(re.findall(r"\$\{([A-Z_]+)", TEXT)):
        assert name in page, name
