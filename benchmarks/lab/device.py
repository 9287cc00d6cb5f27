"""What a time was measured on: processor, clocks, power mode, versions; energy where the device tells it."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("boothsam", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch"),
    *("opencv-python-headless", "pillow", "simplejpeg", "isal"),
)


def facts() -> dict[str, Any]:
    """Everything that can be told without privileges; what is missing is left out."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found: dict[str, Any] = {
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: installed for name in _PACKAGES if (installed := _version(name))},
    }
    if model := re.search(r"^model name\s*:\s*(.+)$", cpu, re.MULTILINE):
        found["cpu"] = model[1]
        flags = set(cpu.split("flags", 1)[-1].split("\n", 1)[0].split())
        wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
        found["cpu_flags"] = [flag for flag in wanted if flag in flags]
    board = Path("/proc/device-tree/model")
    if board.exists():
        found["board"] = board.read_text().strip("\0\n ")
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.exists():
        found["governor"] = governor.read_text().strip()
    for name, command, parse in (
        ("power_mode", ("nvpmodel", "-q"), parse_nvpmodel),
        ("gpus", ("nvidia-smi", f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits"), parse_nvidia_smi),
    ):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            if done.returncode == 0:
                found[name] = parse(done.stdout)
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


GPU_FIELDS = "name,driver_version,memory.used,memory.total,power.draw,clocks.sm"


def parse_nvidia_smi(text: str) -> list[dict[str, Any]]:
    """One record per line of `nvidia-smi --query-gpu=... --format=csv,noheader,nounits`: MiB, watts and MHz.

    What the device does not tell ("[N/A]") is None.
    """
    gpus = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, driver, used, total, power, clock = (field.strip() for field in line.split(","))
        gpus.append({
            "name": name, "driver": driver, "memory_used_mib": _number(used), "memory_total_mib": _number(total),
            "power_w": _number(power), "sm_clock_mhz": _number(clock),
        })  # fmt: skip
    return gpus


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def parse_nvpmodel(text: str) -> str:
    """The power mode's name in what `nvpmodel -q` prints, "" when it prints none."""
    found = re.search(r"NV Power Mode:\s*(\S+)", text)
    return found[1] if found else ""


# Older boards print no unit: "POM_5V_IN 2450/2450"; "RAM 1904/3956MB" is no rail.
_RAIL = re.compile(r"\b((?:VDD|POM|VIN)_[A-Z0-9_]+) (\d+)(?:mW)?/(\d+)")


def parse_tegrastats(line: str) -> dict[str, Any]:
    """One line of a Jetson's `tegrastats`: power by rail in milliwatts (now), memory in MiB, GPU load and frequency.

    Rails that begin with VDD_IN or POM_5V_IN are the whole board; the others are part of it.
    """
    found: dict[str, Any] = {"power_mw": {rail: int(now) for rail, now, _ in _RAIL.findall(line)}}
    if memory := re.search(r"\bRAM (\d+)/(\d+)MB", line):
        found["memory_used_mib"], found["memory_total_mib"] = int(memory[1]), int(memory[2])
    if gpu := re.search(r"\bGR3D_FREQ (\d+)%(?:@\[?(\d+))?", line):
        found["gpu_load_percent"] = int(gpu[1])
        if gpu[2]:
            found["gpu_clock_mhz"] = int(gpu[2])
    if hot := re.findall(r"\b(\w+)@(-?[\d.]+)C", line):
        found["temperature_c"] = {name: float(value) for name, value in hot}
    return found


def board_energy_mj(lines: list[str], interval_s: float) -> float | None:
    """Millijoules of the whole board over equally spaced lines of tegrastats; None when none names its input rail."""
    power = [
        now
        for line in lines
        for rail, now in parse_tegrastats(line)["power_mw"].items()
        if rail in ("VDD_IN", "POM_5V_IN")
    ]
    return sum(power) * interval_s if power else None
