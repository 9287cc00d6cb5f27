"""The containers' health check: exit status 0 when /readyz says that photos are taken, 1 when not.

What it writes is kept by Docker: `docker inspect --format '{{json .State.Health}}' NAME`. Only the standard library,
and no proxy: a container's HTTP_PROXY is not for its own service.
"""

from __future__ import annotations

import http.client
import json
import os
import sys

TIMEOUT_S = 4
# Where a service that listens on all addresses is reached from inside.
_ALL = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}


def check(host: str, port: int) -> tuple[bool, str]:
    """Whether the service is ready, and what it says about it.

    host, port: what it listens on, as in its settings.
    """
    connection = http.client.HTTPConnection(_ALL.get(host, host.strip("[]")), port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz", headers={"Host": "localhost"})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        return answer.status == 200, f"{answer.status} {said['state']}: {said['reason']}"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        return False, f"no answer from port {port} of {host}: {error or type(error).__name__}"
    finally:
        connection.close()


if __name__ == "__main__":
    ready, text = check(os.environ.get("BOOTHSAM_HOST", "127.0.0.1"), int(os.environ.get("BOOTHSAM_PORT", "8765")))
    sys.stdout.write(text + "\n")
    sys.exit(0 if ready else 1)
