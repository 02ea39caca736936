"""A process that binds and closes one path when told to: `python binder.py PATH`, commands on stdin, one answer each.

    bind AT     at CLOCK_MONOTONIC second AT, spinning until then so that several start within microseconds
    close AT    likewise
"""

from __future__ import annotations

import sys
import time

from control.base.system.unixsock import BoundUnixSocket, bind_unix
from proxy.errors import StartError


def main(path: str) -> None:
    bound: BoundUnixSocket | None = None
    for line in sys.stdin:
        command, at = line.split()
        while time.monotonic() < float(at):
            pass
        if command == "close" and bound is not None:
            bound.close()
            bound = None
            answer = "closed"
        else:
            try:
                bound = bind_unix(path)
                answer = "bound"
            except StartError as error:
                answer = str(error)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
