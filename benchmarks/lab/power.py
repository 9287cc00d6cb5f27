"""Energy and device memory while something runs, where a Jetson's tegrastats or NVIDIA's nvidia-smi tells them."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from boothsam.bench import device

INTERVAL_MS = 100


@dataclass(frozen=True)
class Sample:
    """What the device said at one moment (seconds of time.perf_counter): watts, and MiB of its memory in use."""

    at: float
    power_w: float | None
    memory_mib: float | None


def read_line(line: str, at: float) -> Sample:
    """A line of tegrastats (the board's input rail, the memory that CPU and GPU share) or of nvidia-smi (its first)."""
    if gpus := device.parse_nvidia_smi(line) if line.count(",") == 5 else []:
        return Sample(at, gpus[0]["power_w"], gpus[0]["memory_used_mib"])
    milliwatts = device.board_energy_mj([line], 1.0)
    memory = device.parse_tegrastats(line).get("memory_used_mib")
    return Sample(at, None if milliwatts is None else milliwatts / 1e3, memory)


class Meter:
    """Reads the device ten times a second between `with`; without such a device it has no samples and costs nothing."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        if shutil.which("tegrastats"):
            self._command = ["tegrastats", "--interval", str(INTERVAL_MS)]
        elif shutil.which("nvidia-smi"):
            self._command = [
                *("nvidia-smi", f"--query-gpu={device.GPU_FIELDS}"),
                *("--format=csv,noheader,nounits", f"--loop-ms={INTERVAL_MS}"),
            ]
        else:
            self._command = []

    def __enter__(self) -> Meter:
        if self._command:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
            self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
            self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._reader is not None:
            self._process.terminate()
            self._process.wait()
            self._reader.join()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self._samples.append(read_line(line, time.perf_counter()))

    def since(self, start: float) -> dict[str, float]:
        """From `start` until now: "energy_mj" (mean power times duration) and "device_memory_mib" (most in use).

        Of the whole board or GPU, idle power included. A key is missing where no sample tells it.
        """
        seconds = time.perf_counter() - start
        inside = [sample for sample in self._samples if sample.at >= start]
        found = {}
        if power := [sample.power_w for sample in inside if sample.power_w is not None]:
            found["energy_mj"] = 1e3 * seconds * sum(power) / len(power)
        if memory := [sample.memory_mib for sample in inside if sample.memory_mib is not None]:
            found["device_memory_mib"] = max(memory)
        return found
