"""A process that asks /healthz again and again: python probe.py PORT EVERY_S, until its standard input closes.

Of its own, because a client that is busy sending photos would measure itself. Prints a JSON list of seconds.
"""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import time


class HealthProbe:
    """The process as a context; afterwards `seconds` holds one latency per answer, each on a new connection."""

    def __init__(self, port: int, every_s: float = 0.05) -> None:
        self.seconds: list[float] = []
        self._command = [sys.executable, __file__, str(port), str(every_s)]

    def __enter__(self) -> HealthProbe:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *error: object) -> None:
        output, _ = self._process.communicate()
        if error[0] is None:
            self.seconds = json.loads(output)


def main() -> None:
    port, every_s = int(sys.argv[1]), float(sys.argv[2])
    seconds: list[float] = []
    while not select.select([sys.stdin], [], [], every_s)[0]:
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        body = answer.read()
        seconds.append(time.perf_counter() - began)
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"/healthz answered {answer.status}: {body!r}")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
